//! The HTTP client for services of our own: the interpreter's, the MCP runtime's, and a gateway that
//! `status` asks. They frame their answers with a length; whoever may not is called with `http1`.

use std::io;
use std::time::Duration;

use actix_service::fn_service;
use actix_tls::connect::{ConnectError as TcpConnectError, ConnectInfo, Connection};
use awc::http::Uri;
use awc::{Client, ClientRequest, Connector};
use vllm_responses_protocol::trace::{TRACEPARENT, TRACESTATE, TraceContext};

use crate::process::socket::Address;
use crate::tls;

/// Dropped before the services' own 5 s keep-alive would close them under us: a request sent into a
/// closing connection costs a retry.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// A client for this thread, for servers below `url`.
///
/// The defaults that would break long calls are off: the 5 s head deadline, the limit of 100 requests,
/// redirects. The callers have deadlines of their own.
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

/// Tells the service where its work stands in a trace.
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
