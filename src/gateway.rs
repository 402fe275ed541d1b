//! The one place that wires actors and HTTP together, and the order in which they come up.
//!
//! Port bound and health served, `/v1/*` answering 503 → store and migrations → upstream → ready.
//! (Decision 10: a loading model never fails a liveness probe.)

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor as _, Addr};
use actix_rt::{Arbiter, System};
use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};
use tokio::sync::watch;
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::cache;
use vllm_responses_actors::env::places_by_descriptors;
use vllm_responses_actors::supervisor::SupervisorActor;
use vllm_responses_actors::supervisor::messages::{Component, Health, Opened, Peers, Report};
use vllm_responses_actors::vllm::messages::AwaitReady;
use vllm_responses_actors::vllm::settings::UpstreamSettings;
use vllm_responses_actors::vllm::{VllmActor, client};
use vllm_responses_protocol::responses::event;
use vllm_responses_protocol::responses::request::Rules;

use crate::config::{Config, GatewaySettings, ReasoningEvents, Strictness, Upstream};
use crate::http;
use crate::http::state::{AppState, StoreDoors};
use crate::shutdown::{self, Outcome, Signals};

/// A client that has sent no whole request head by then is cut off (fault C3).
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Idle connections are kept longer than common clients keep theirs, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long the HTTP server waits for connections once no response runs any more.
const CLOSE_LIMIT_SECONDS: u64 = 1;
/// Start-up messages to actors of ours.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// One sentence that names cause and remedy, when the gateway cannot start.
pub fn run(config: Config) -> Result<Outcome, String> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_other| "another TLS provider is already installed".to_owned())?;
    System::new().block_on(serve(config))
}

/// What [`open`] needs.
struct Opening {
    config: Config,
    upstream: UpstreamSettings,
    supervisor: Addr<SupervisorActor>,
    doors: watch::Sender<Option<StoreDoors>>,
}

async fn serve(config: Config) -> Result<Outcome, String> {
    let start = Instant::now();
    let upstream = match &config.upstream {
        Upstream::External(settings) => settings.clone(),
        Upstream::Spawn { .. } => {
            return Err(
                "this build cannot start vLLM itself: give a running one with \
                        `--upstream URL`"
                    .to_owned(),
            );
        }
    };
    let mut signals = Signals::new()?;
    let control = Arbiter::new();
    let capacity = match config.limits.max_in_flight {
        0 => places_by_descriptors(),
        places => places,
    };
    let supervisor = SupervisorActor::start_in_arbiter(&control.handle(), move |_| {
        SupervisorActor::new(capacity)
    });
    let (doors, doors_seen) = watch::channel(None);
    let state = app_state(&config, &upstream, &supervisor, doors_seen);
    let (server, addresses) = listen(&config.gateway, state)?;
    let handle = server.handle();
    let mut server = pin!(server);
    let lifecycle = config.lifecycle;
    let opening = Opening {
        config,
        upstream,
        supervisor: supervisor.clone(),
        doors,
    };
    let opened = tokio::select! {
        opened = open(opening, &control) => opened.map(Some),
        ended = &mut server => Err(server_ended(ended)),
        _ = signals.next() => Ok(None),
    };
    let outcome = match opened {
        Err(problem) => Err(problem),
        Ok(None) => Ok(Outcome::Clean),
        Ok(Some(())) => {
            announce(&addresses, start);
            tokio::select! {
                outcome = shutdown::wait_and_drain(&mut signals, lifecycle, &supervisor) => Ok(outcome),
                ended = &mut server => Err(server_ended(ended)),
            }
        }
    };
    // The server closes its connections only while it is polled.
    tokio::join!(handle.stop(true), async { drop(server.await) });
    control.stop();
    outcome
}

fn server_ended(ended: std::io::Result<()>) -> String {
    match ended {
        Ok(()) => "the HTTP server ended by itself".to_owned(),
        Err(error) => format!("the HTTP server failed: {error}"),
    }
}

fn app_state(
    config: &Config,
    upstream: &UpstreamSettings,
    supervisor: &Addr<SupervisorActor>,
    store: watch::Receiver<Option<StoreDoors>>,
) -> AppState {
    AppState {
        supervisor: supervisor.clone(),
        store,
        upstream: upstream.clone(),
        rules: Rules {
            max_depth: config.limits.json_depth,
            strict_requests: config.protocol.requests == Strictness::Strict,
            strict_tools: config.protocol.tools == Strictness::Strict,
        },
        reasoning_events: match config.protocol.reasoning_events {
            ReasoningEvents::OpenAi => event::ReasoningEvents::OpenAi,
            ReasoningEvents::OpenResponses => event::ReasoningEvents::OpenResponses,
        },
        body_limit: config.limits.body_bytes,
        retention: config.store.retention,
    }
}

/// Binds the port and builds the server; it serves once it is polled.
fn listen(gateway: &GatewaySettings, state: AppState) -> Result<(Server, Vec<SocketAddr>), String> {
    let connect = state.upstream.deadlines.connect;
    let write_stall = gateway.write_stall;
    let state = web::Data::new(state);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::ThinData(client::client(connect)))
            .configure(http::routes)
    })
    .on_connect(move |connection, _| http::connection::bound(connection, write_stall))
    .workers(gateway.workers)
    .backlog(4096)
    .max_connections(usize::MAX)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEAD_LIMIT)
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

/// Brings up everything behind HTTP, in order.
async fn open(opening: Opening, control: &Arbiter) -> Result<(), String> {
    let Opening {
        config,
        upstream,
        supervisor,
        doors,
    } = opening;
    let reports = supervisor.clone().recipient::<Report>();
    let front = cache::start(config.store)
        .await
        .map_err(|error| error.to_string())?;
    doors.send_replace(Some(StoreDoors {
        fetch: front.clone().recipient(),
        chains: front.clone().recipient(),
        remove: front.clone().recipient(),
    }));
    reports.do_send(Report {
        component: Component::Store,
        health: Health::Ready,
    });
    let (settings, watcher) = (upstream.clone(), reports.clone());
    let vllm = VllmActor::start_in_arbiter(&control.handle(), move |_| {
        VllmActor::new(settings, watcher)
    });
    let limit = upstream.ready_timeout.saturating_add(START_LIMIT);
    ask_actor(&vllm, AwaitReady, limit)
        .await
        .map_err(|gone| gone.to_string())?
        .map_err(|not_ready| not_ready.to_string())?;
    let peers = Peers {
        chains: front.clone().recipient(),
        commits: front.recipient(),
        suspects: vllm.recipient(),
        upstream,
    };
    ask_actor(&supervisor, Opened(Arc::new(peers)), START_LIMIT)
        .await
        .map_err(|gone| gone.to_string())
}

fn announce(addresses: &[SocketAddr], start: Instant) {
    let ready_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    for address in addresses {
        let host = if address.ip().is_unspecified() {
            "127.0.0.1".to_owned()
        } else {
            address.ip().to_string()
        };
        log::info!(ready_ms; "ready: http://{host}:{}/v1/responses", address.port());
        if !address.ip().is_loopback() {
            log::warn!("no API keys are configured: everyone who reaches this address may use it");
        }
    }
}
