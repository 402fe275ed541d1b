//! The HTTP server: its socket, its bounds, and what every worker starts with.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use vllm_responses_actors::vllm::client;

use crate::config::GatewaySettings;
use crate::http;
use crate::http::state::AppState;

/// Idle connections are kept longer than common clients keep theirs, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long the HTTP server waits for connections once no response runs any more.
const CLOSE_LIMIT_SECONDS: u64 = 1;

/// Binds the port and builds the server; it serves once it is polled.
pub(crate) fn listen(
    gateway: &GatewaySettings,
    state: AppState,
    connections: usize,
) -> Result<(Server, Vec<SocketAddr>), String> {
    let url = state.upstream.base_url.to_string();
    let connect = state.upstream.deadlines.connect;
    let write_stall = gateway.write_stall;
    let origins = gateway.cors.clone();
    let door = state.metrics_door.clone();
    let state = web::Data::new(state);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::ThinData(client::client(&url, connect)))
            .wrap(from_fn(http::metrics::count))
            .configure(|config| http::metrics::route(config, door.as_ref()))
            .configure(http::routes)
            .wrap(http::cors::middleware(&origins))
    })
    .on_connect(move |connection, _| http::connection::bound(connection, write_stall))
    .workers(gateway.workers)
    .backlog(4096)
    .max_connections(connections.div_ceil(gateway.workers))
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(gateway.head_timeout)
    .client_disconnect_timeout(Duration::from_secs(1))
    .shutdown_timeout(CLOSE_LIMIT_SECONDS)
    // With half-closed connections allowed, a client that leaves while the model is silent is
    // never noticed and its request runs to the end (measured).
    .h1_allow_half_closed(false)
    // Events are small: with Nagle's algorithm each would wait for the last one's acknowledgement.
    .tcp_nodelay(true)
    .disable_signals()
    .bind((gateway.host.as_str(), gateway.port))
    .map_err(|error| {
        format!(
            "cannot listen on {} port {} ({error}): choose another with `--gateway-host` and \
             `--gateway-port`",
            gateway.host, gateway.port
        )
    })?;
    let addresses = server.addrs();
    Ok((server.run(), addresses))
}
