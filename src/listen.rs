//! The HTTP server: its sockets, its bounds, and what every worker starts with.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_rt::net::TcpStream;
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::dev::{AppConfig, fn_service};
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use socket2::{Domain, Socket, Type};
use url::Url;

use crate::config::{GatewaySettings, Upstream};
use crate::http;
use crate::http::connection::Connection;
use crate::http::state::AppState;

/// Idle connections are kept longer than common clients keep theirs, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long the HTTP server waits for connections once no response runs any more.
const CLOSE_LIMIT_SECONDS: u64 = 1;
/// Connections that the kernel holds until a worker takes them.
const BACKLOG: i32 = 4096;

/// Binds the port and builds the server; it serves once it is polled.
pub(crate) fn listen(
    gateway: &GatewaySettings,
    state: AppState,
    connections: usize,
) -> Result<(Server, Vec<SocketAddr>), String> {
    let refused = |error: io::Error| refused(gateway, &error);
    let sockets = bind(&gateway.host, gateway.port).map_err(refused)?;
    let mut addresses = Vec::with_capacity(sockets.len());
    let mut server = Server::build()
        .workers(gateway.workers)
        .max_concurrent_connections(connections.div_ceil(gateway.workers))
        .shutdown_timeout(CLOSE_LIMIT_SECONDS)
        .disable_signals();
    let closing = server.graceful_shutdown_signal();
    let state = web::Data::new(state);
    for socket in sockets {
        addresses.push(socket.local_addr().map_err(refused)?);
        let (gateway, state, closing) = (gateway.clone(), state.clone(), closing.clone());
        let worker = move || worker(&gateway, &state, &closing);
        server = server.listen("gateway", socket, worker).map_err(refused)?;
    }
    Ok((server.run(), addresses))
}

/// Whether the port can be had. What takes long should not come before the news that it cannot.
pub(crate) fn try_out(gateway: &GatewaySettings) -> Result<(), String> {
    bind(&gateway.host, gateway.port)
        .map(drop)
        .map_err(|error| refused(gateway, &error))
}

fn refused(gateway: &GatewaySettings, error: &io::Error) -> String {
    format!(
        "cannot listen on {} port {} ({error}): choose another with `--gateway-host` and \
         `--gateway-port`",
        gateway.host, gateway.port
    )
}

/// Requests to itself would go round until every descriptor is gone.
pub(crate) fn refuse_itself(upstream: &Upstream, addresses: &[SocketAddr]) -> Result<(), String> {
    match upstream {
        Upstream::External(settings) if is_own(&settings.base_url, addresses) => Err(format!(
            "the upstream {} is this gateway itself: name the model server with `--upstream`",
            settings.base_url
        )),
        Upstream::External(_) | Upstream::Spawn(_) => Ok(()),
    }
}

/// Whether a URL leads to one of these addresses that are listened on: requests would go round for ever.
fn is_own(url: &Url, listening: &[SocketAddr]) -> bool {
    let Ok(targets) = url.socket_addrs(|| None) else {
        return false;
    };
    let reaches = |target: &SocketAddr, own: &SocketAddr| {
        let is_there =
            own.ip() == target.ip() || (own.ip().is_unspecified() && is_of_here(target.ip()));
        own.port() == target.port() && is_there
    };
    let mut targets = targets.iter();
    targets.any(|target| listening.iter().any(|own| reaches(target, own)))
}

/// Whether an address is one of this machine's: only such can be bound.
fn is_of_here(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Every address of the name. One of a family that this machine does not have is left out, unless
/// it is the only one: `localhost` is IPv6 too.
fn bind(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    let mut absent = None;
    for address in (host, port).to_socket_addrs()? {
        match bind_one(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if is_absent(&error) => absent = Some(error),
            Err(error) => return Err(error),
        }
    }
    match absent {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

/// `EADDRNOTAVAIL`, or `EAFNOSUPPORT` of Linux.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A gateway that was stopped leaves connections that hold the port for a minute.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What serves the connections of one worker.
fn worker(
    gateway: &GatewaySettings,
    state: &web::Data<AppState>,
    closing: &GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
+ use<> {
    let upstream = &state.upstream;
    let door = state.metrics_door.clone();
    let app = App::new()
        .app_data(state.clone())
        .app_data(web::ThinData(upstream.client()))
        .configure(|config| http::metrics::route(config, door.as_ref()))
        .configure(http::routes)
        .wrap(from_fn(http::door::keep))
        .wrap(http::cors::middleware(&gateway.cors))
        .wrap(from_fn(http::metrics::count));
    let closing = closing.clone();
    let service = HttpService::build()
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(gateway.head_timeout)
        .client_disconnect_timeout(Duration::from_secs(1))
        // With half-closed connections allowed, a client that leaves while the model is silent is
        // never noticed and its request runs to the end (measured).
        .h1_allow_half_closed(false)
        .graceful_shutdown_signal(move || {
            let closing = closing.clone();
            async move { closing.notified().await }
        })
        .on_connect_ext(|connection: &Connection, about| {
            about.insert(connection.line());
            about.insert(connection.origin());
        })
        .finish(map_config(app, |()| AppConfig::default()));
    let (head_timeout, write_stall) = (gateway.head_timeout, gateway.write_stall);
    fn_service(move |socket: TcpStream| {
        let peer = socket.peer_addr().ok();
        let connection = Connection::new(socket, head_timeout, write_stall);
        async move { Ok((connection, Protocol::Http1, peer)) }
    })
    .and_then(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_knows_its_own_address() {
        let own = |url: &str, listening: &str| {
            let listening: SocketAddr = listening.parse().unwrap();
            is_own(&Url::parse(url).unwrap(), &[listening])
        };
        for (url, listening) in [
            ("http://127.0.0.1:5969/v1", "127.0.0.1:5969"),
            ("http://localhost:5969/v1", "127.0.0.1:5969"),
            ("http://127.0.0.1:5969/v1", "0.0.0.0:5969"),
            ("http://0.0.0.0:5969", "0.0.0.0:5969"),
            ("http://127.9.9.9:5969", "0.0.0.0:5969"),
        ] {
            assert!(own(url, listening), "{url} {listening}");
        }
        for (url, listening) in [
            ("http://127.0.0.1:8000/v1", "0.0.0.0:5969"),
            ("http://127.0.0.2:5969/v1", "127.0.0.1:5969"),
            ("http://192.0.2.1:5969/v1", "0.0.0.0:5969"),
        ] {
            assert!(!own(url, listening), "{url} {listening}");
        }
    }
}
