//! Connections to exactly the addresses that were judged.
//!
//! Every connection, the first one or one made much later by the pool, goes through the guard from
//! its URL on: there is no address here that was not judged in the same breath. Proxy settings of the
//! environment are not read.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;
use url::Host;

use super::intake::Intake;
use super::{Progress, Trouble};
use crate::mcp::guard::{Destination, Guard, Reach};

/// Longest try of one address while others are left.
const ONE_ADDRESS: Duration = Duration::from_secs(3);
/// Most addresses tried.
const MAX_ADDRESSES: usize = 16;

/// Names and sockets; tests script them.
pub trait Network: fmt::Debug + Send + Sync {
    /// The addresses of a name.
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
    /// A connection to an address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }
}

/// What all sessions share: the network, the budget and the system's TLS roots, read at first use.
#[derive(Debug)]
pub struct Dialer {
    network: Arc<dyn Network>,
    intake: Intake,
    roots: OnceCell<Arc<ClientConfig>>,
}

impl Dialer {
    /// A dialer on this network.
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self::with(network, Intake::default())
    }

    /// The same, counting what arrives in a budget of others.
    pub fn with(network: Arc<dyn Network>, intake: Intake) -> Self {
        Self {
            network,
            intake,
            roots: OnceCell::new(),
        }
    }

    /// Counts what arrives.
    pub(in crate::mcp) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// The system's roots, or those of `SSL_CERT_FILE`.
    async fn tls(&self) -> Result<Arc<ClientConfig>, Trouble> {
        let load = async || {
            tokio::task::spawn_blocking(load_roots)
                .await
                .map_err(|_panicked| Trouble::Tls)?
        };
        self.roots.get_or_try_init(load).await.map(Arc::clone)
    }

    /// One connection, TLS where the URL says so.
    async fn dial(&self, to: &Destination) -> Result<Wire, Trouble> {
        let addresses = self.resolve(to).await?;
        let stream = self.connect(&addresses, to.port).await?;
        stream.set_nodelay(true).ok();
        if to.url.scheme() == "http" {
            return Ok(Wire::Plain(stream));
        }
        let name = match &to.host {
            Host::Domain(name) => {
                ServerName::try_from(name.clone()).map_err(|_bad| Trouble::Refused)?
            }
            Host::Ipv4(address) => ServerName::from(IpAddr::V4(*address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::V6(*address)),
        };
        let connector = TlsConnector::from(self.tls().await?);
        let secured = connector.connect(name, stream).await;
        let secured = secured.map_err(|_refused| Trouble::Tls)?;
        Ok(Wire::Tls(Box::new(secured)))
    }

    /// Judged addresses. Callers are told the same of names that do not resolve and of those that may
    /// not be reached; the log knows better.
    async fn resolve(&self, to: &Destination) -> Result<Vec<IpAddr>, Trouble> {
        let found = match &to.host {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => {
                // The dot keeps the resolver from trying the search domains of this machine.
                let name = match to.reach {
                    Reach::Public => format!("{name}."),
                    Reach::Any => name.clone(),
                };
                let found = self.network.resolve(&name).await.unwrap_or_default();
                if found.is_empty() {
                    return Err(Trouble::NoName);
                }
                found
            }
        };
        to.addresses(found).map_err(|_refused| Trouble::Refused)
    }

    async fn connect(&self, addresses: &[IpAddr], port: u16) -> Result<TcpStream, Trouble> {
        let mut last = Trouble::Refused;
        let count = addresses.len().min(MAX_ADDRESSES);
        for (at, address) in addresses.iter().take(count).enumerate() {
            let attempt = self.network.connect(SocketAddr::new(*address, port));
            let outcome = if at + 1 == count {
                Ok(attempt.await)
            } else {
                tokio::time::timeout(ONE_ADDRESS, attempt).await
            };
            match outcome {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Trouble::Unreachable(error.kind()),
                Err(_elapsed) => last = Trouble::ConnectTimedOut,
            }
        }
        Err(last)
    }
}

fn load_roots() -> Result<Arc<ClientConfig>, Trouble> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("some TLS roots of the system cannot be read: {error}");
    }
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_unsupported| Trouble::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Dials for the HTTP client of one session, under that session's guard.
#[derive(Clone, Debug)]
pub(in crate::mcp) struct Connector {
    pub(in crate::mcp) dialer: Arc<Dialer>,
    pub(in crate::mcp) guard: Arc<Guard>,
    pub(in crate::mcp) limit: Duration,
    pub(in crate::mcp) progress: Progress,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = Trouble;
    type Future = BoxFuture<'static, Result<Self::Response, Trouble>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let dial = async {
                let to = this.guard.vet(&uri.to_string());
                this.dialer
                    .dial(&to.map_err(|_refused| Trouble::Refused)?)
                    .await
            };
            let outcome = tokio::time::timeout(this.limit, dial).await;
            match outcome.unwrap_or(Err(Trouble::ConnectTimedOut)) {
                Ok(wire) => {
                    this.progress.connected();
                    Ok(TokioIo::new(wire))
                }
                Err(trouble) => Err(this.progress.trouble(trouble)),
            }
        })
    }
}

/// A connection.
#[derive(Debug)]
pub(in crate::mcp) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
