//! Connections to one origin.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::exchange::Connection;
use super::{Check, SendError, Unreached};
use crate::tls;

/// Where a client's requests go.
pub(super) struct Origin {
    host: Host<String>,
    port: u16,
    /// For `https`.
    tls: Option<TlsConnector>,
    /// As the `host` header has it.
    pub(super) authority: String,
    limit: Duration,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Origin {
    pub(super) fn of(url: &Url, limit: Duration) -> Self {
        let host = url.host().map_or_else(
            || Host::Domain(String::new()),
            |host: Host<&str>| host.to_owned(),
        );
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let tls = (url.scheme() == "https").then(|| {
            let mut config = (*tls::trusting_system()).clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        Self {
            host,
            port: url.port_or_known_default().unwrap_or_default(),
            tls,
            authority,
            limit,
        }
    }

    /// A fresh connection that passes the check, within the limit.
    pub(super) async fn dial(&self, check: Option<&Check>) -> Result<Connection, SendError> {
        let dialled = timeout(self.limit, self.connect(check)).await;
        let dialled = dialled.unwrap_or(Err(Unreached::TimedOut));
        dialled.map_err(SendError::Unreachable)
    }

    async fn connect(&self, check: Option<&Check>) -> Result<Connection, Unreached> {
        let (name, addresses) = match &self.host {
            Host::Domain(domain) => {
                let found = tokio::net::lookup_host((domain.as_str(), self.port)).await;
                let found = found.map_err(|_no_address| Unreached::Name)?;
                let name = ServerName::try_from(domain.clone());
                (name.map_err(|_no_name| Unreached::Name)?, found.collect())
            }
            Host::Ipv4(ip) => self.at(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => self.at(IpAddr::V6(*ip)),
        };
        let stream = self.reach(&addresses, check).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Connection::new(stream));
        };
        let secured = tls.connect(name, stream).await;
        Ok(Connection::new(secured.map_err(|_error| Unreached::Tls)?))
    }

    fn at(&self, ip: IpAddr) -> (ServerName<'static>, Vec<SocketAddr>) {
        let name = ServerName::IpAddress(ip.into());
        (name, vec![SocketAddr::new(ip, self.port)])
    }

    /// The first address that answers and passes. One that is silent leaves time for the others.
    async fn reach(
        &self,
        addresses: &[SocketAddr],
        check: Option<&Check>,
    ) -> Result<TcpStream, Unreached> {
        let share = self.limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut last = Unreached::Name;
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(_)) if check.is_some_and(|check| !check.passes(*address)) => {
                    last = Unreached::Foreign;
                }
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error.into(),
                Err(_elapsed) => last = Unreached::TimedOut,
            }
        }
        Err(last)
    }
}
