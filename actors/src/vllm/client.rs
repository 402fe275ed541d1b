//! The HTTP client for the upstream: one per thread, made for long streams.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use actix_rt::net::TcpStream;
use actix_service::{Service as _, fn_service};
use actix_tls::connect::{
    ConnectError as TcpConnectError, ConnectInfo, Connection, Connector as TcpConnector, Resolver,
};
use awc::http::Uri;
use awc::{Client, ClientRequest, Connector};
use vllm_responses_protocol::trace::{TRACEPARENT, TRACESTATE, TraceContext};

use super::settings::UpstreamSettings;
use crate::process::socket::Address;
use crate::tls;

/// Unused connections are dropped before uvicorn's own 5 s keep-alive would close them under us:
/// a request sent into a closing connection costs a retry.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// A client for this thread, for servers below `url`.
///
/// The defaults that would break streaming are off: the 5 s head deadline, the limit of 100 requests,
/// redirects (fault U13). The callers have deadlines of their own.
pub fn client(url: &str, connect: Duration) -> Client {
    let scheme = url.split(':').next().unwrap_or_default();
    let connector = if scheme.eq_ignore_ascii_case("https") {
        Connector::new().rustls_0_23(tls::trusting_system())
    } else {
        Connector::new()
    };
    let connector = connector
        .timeout(connect)
        .limit(0)
        .conn_keep_alive(KEEP_ALIVE)
        .conn_lifetime(Duration::from_secs(3600));
    Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .finish()
}

/// A client for this thread to the upstream. Where that is a vLLM of our own, a connection that was not
/// made to it is none.
pub fn for_upstream(settings: &UpstreamSettings, connect: Duration) -> Client {
    let Some(vouch) = settings.vouch.clone() else {
        return client(settings.base_url.as_str(), connect);
    };
    let tcp = Rc::new(TcpConnector::new(Resolver::default()).service());
    let service = fn_service(move |info: ConnectInfo<Uri>| {
        let (vouch, connecting) = (vouch.clone(), tcp.call(info));
        async move {
            let connection = connecting.await?;
            if vouch.confirms() {
                Ok(connection)
            } else {
                let nobody = io::ErrorKind::ConnectionRefused.into();
                Err::<Connection<Uri, TcpStream>, _>(TcpConnectError::Io(nobody))
            }
        }
    });
    let connector = Connector::new()
        .connector(service)
        .timeout(connect)
        .limit(0)
        .conn_keep_alive(KEEP_ALIVE)
        .conn_lifetime(Duration::from_secs(3600));
    Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .finish()
}

/// A client for this thread whose connections all go to the socket that `address` names at that time;
/// what a URL says of a host means nothing.
pub(crate) fn over_sockets(
    connect: Duration,
    address: impl Fn() -> Option<Address> + Clone + 'static,
) -> Client {
    let service = fn_service(move |info: ConnectInfo<Uri>| {
        let address = address();
        async move {
            let nobody = || TcpConnectError::Io(io::ErrorKind::NotConnected.into());
            let socket = address.ok_or_else(nobody)?.connect().await;
            let socket = socket.map_err(TcpConnectError::Io)?;
            Ok::<_, TcpConnectError>(Connection::new(info.request().clone(), socket))
        }
    });
    let connector = Connector::new()
        .connector(service)
        .timeout(connect)
        .limit(0)
        .conn_keep_alive(KEEP_ALIVE);
    Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .finish()
}

/// Tells the server where its work stands in a trace; the only thing of a client's headers that goes on.
pub fn in_trace(request: ClientRequest, context: Option<&TraceContext>) -> ClientRequest {
    let Some(context) = context else {
        return request;
    };
    let request = request.insert_header((TRACEPARENT, context.parent()));
    match context.state() {
        "" => request,
        state => request.insert_header((TRACESTATE, state)),
    }
}

impl UpstreamSettings {
    /// URL of an endpoint, `path` beginning with a slash.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.base_url.as_str().trim_end_matches('/'))
    }

    /// Adds the gateway's own key to a request.
    pub fn authorize(&self, request: ClientRequest) -> ClientRequest {
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }
}
