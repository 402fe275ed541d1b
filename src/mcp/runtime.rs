//! `mcp-runtime`: the process in which the operator's MCP servers live, shared by every gateway that
//! is told its URL.
//!
//! A gateway that starts one itself hands it a listening socket as its standard input, and it serves that
//! instead of a port.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::System;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use vllm_responses_actors::mcp::hosted::{self, Means, Servers};
use vllm_responses_actors::mcp::net::connect::{Dialer, SystemNetwork};
use vllm_responses_actors::mcp::runtime::NAME;
use vllm_responses_actors::process::{self, Launcher, socket};
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::token;
use vllm_responses_protocol::mcp::file::McpFile;
use vllm_responses_protocol::mcp::wire::ServerPhase;

use super::service::{self, ServiceState};
use crate::config::mcp::RuntimeConfig;
use crate::shutdown::Signals;

/// Arguments of one call: what a request body may have.
const MAX_ORDER: usize = 32 * 1024 * 1024;
/// Beyond the limit of a call: waiting for a place and for a lost session.
const CALL_SLACK: Duration = Duration::from_secs(300);

/// Serves until a signal.
///
/// # Errors
/// One sentence that names cause and remedy.
pub fn run(
    config: RuntimeConfig,
    file: McpFile,
    env: BTreeMap<OsString, OsString>,
) -> Result<(), String> {
    System::new().block_on(serve(config, file, env))
}

async fn serve(
    mut config: RuntimeConfig,
    file: McpFile,
    env: BTreeMap<OsString, OsString>,
) -> Result<(), String> {
    crate::banner::warn_of_tracer();
    let handed = socket::handed_over();
    if handed.is_none() && config.token.is_none() {
        config.token = Some(left_token(config.port)?);
    }
    let launcher = Launcher::start("/proc/self/exe".into(), process::outlet())
        .map_err(|error| format!("the process launcher cannot be started ({error})"))?;
    let means = Means {
        launcher,
        dialer: Arc::new(Dialer::new(Arc::new(SystemNetwork))),
        settings: config.hosted,
        env,
    };
    let servers = hosted::start(&file, &means).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        lines.join("; ")
    })?;
    let entries = file.servers.values();
    let startup = entries
        .clone()
        .map(|entry| config.hosted.startup_of(entry))
        .max();
    let startup = startup.unwrap_or(config.hosted.startup);
    let call = entries.map(|entry| config.hosted.call_of(entry)).max();
    let call = call.unwrap_or(config.hosted.call);
    let server = listen(&config, servers.clone(), call, handed)?;
    let handle = server.handle();
    let mut signals = Signals::of_service()?;
    let living = async {
        let outcome = tokio::select! {
            _ = signals.next() => Ok(()),
            missing = required_missing(&servers, startup) => Err(missing),
        };
        handle.stop(true).await;
        outcome
    };
    let (outcome, ended) = tokio::join!(living, server);
    ended.map_err(|error| format!("the HTTP server failed: {error}"))?;
    outcome
}

/// A port of this machine is everybody's: without a token the servers would be too.
fn left_token(port: u16) -> Result<Secret, String> {
    let left = token::leave(NAME, port).map_err(|error| {
        format!(
            "no token is given and none can be left for the gateway in the cache folder of this user \
             ({error}): set `VR_MCP_RUNTIME_TOKEN` here and in the gateway"
        )
    })?;
    log::info!(
        "no token is set (`VR_MCP_RUNTIME_TOKEN`): gateways of this user find the one that was made for \
         this start, others are refused"
    );
    Ok(left)
}

fn listen(
    config: &RuntimeConfig,
    servers: Servers,
    call: Duration,
    handed: Option<UnixListener>,
) -> Result<Server, String> {
    let state = web::Data::new(ServiceState {
        servers,
        token: config.token.clone(),
        on_loopback: handed.is_none(),
        call_limit: call.saturating_add(CALL_SLACK),
    });
    let place = match &handed {
        Some(_) => "a socket of the gateway's".to_owned(),
        None => format!("http://127.0.0.1:{}", config.port),
    };
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::JsonConfig::default().limit(MAX_ORDER))
            .wrap(from_fn(service::authorize))
            .route("/health", web::get().to(service::health))
            .route("/internal/mcp/servers", web::get().to(service::servers))
            .route("/internal/mcp/call", web::post().to(service::call))
    })
    .workers(1)
    // A caller that leaves must be noticed, so that its call is cancelled.
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .shutdown_timeout(1)
    .disable_signals();
    let server = match handed {
        Some(listener) => server.listen_uds(listener),
        None => server.bind((Ipv4Addr::LOCALHOST, config.port)),
    };
    let server = server.map_err(|error| {
        format!(
            "the MCP runtime cannot listen on {place} ({error}): choose another with `--mcp-port`"
        )
    })?;
    log::info!("the MCP runtime listens on {place}");
    Ok(server.run())
}

/// Resolves when a required server has failed before it ever served; never when all are there.
async fn required_missing(servers: &Servers, startup: Duration) -> String {
    // Connecting, the handshake and the list have the limit each.
    let deadline = tokio::time::Instant::now() + startup.saturating_mul(3);
    let mut revision = servers.revision.clone();
    loop {
        revision.mark_unchanged();
        let missing: Vec<String> = service::snapshot(servers)
            .await
            .servers
            .into_iter()
            .filter(|server| server.required)
            .filter_map(|server| match server.phase {
                ServerPhase::Available => None,
                ServerPhase::Starting => {
                    Some(format!("MCP server `{}` is still starting", server.label))
                }
                ServerPhase::Unavailable { reason } => Some(reason.into()),
            })
            .collect();
        if missing.is_empty() {
            return std::future::pending().await;
        }
        let news = tokio::time::timeout_at(deadline, revision.changed()).await;
        if news.is_err() {
            return format!(
                "a server that `mcp.json` calls required: {}",
                missing.join("; ")
            );
        }
    }
}
