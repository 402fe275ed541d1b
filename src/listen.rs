//! The HTTP server: its sockets, its bounds, and what every worker starts with.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
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

use crate::config::GatewaySettings;
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
