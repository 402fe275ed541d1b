//! The one place that wires actors and HTTP together, and the order in which they come up.
//!
//! Port bound and health served, `/v1/*` answering 503 → store and migrations → upstream → ready.
//! (Decision 10: a loading model never fails a liveness probe.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor as _, Addr};
use actix_rt::{Arbiter, System};
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use tokio::sync::{oneshot, watch};
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::cache::{self, CacheActor};
use vllm_responses_actors::env::places_by_descriptors;
use vllm_responses_actors::interpreter;
use vllm_responses_actors::mcp::client::McpActor;
use vllm_responses_actors::metrics::Metrics;
use vllm_responses_actors::process::actor::ChildActor;
use vllm_responses_actors::process::messages::{Phase, Start};
use vllm_responses_actors::process::{self, ExitKind};
use vllm_responses_actors::seal;
use vllm_responses_actors::supervisor::SupervisorActor;
use vllm_responses_actors::supervisor::gate::Gate;
use vllm_responses_actors::supervisor::messages::{
    self, AwaitPhase, Component, Health, OwnProcess, Peers, Report, TurnLog,
};
use vllm_responses_actors::supervisor::restart::OnExit;
use vllm_responses_actors::tls;
use vllm_responses_actors::tools::mcp::McpTools;
use vllm_responses_actors::tools::{Tool, Toolbox};
use vllm_responses_actors::vllm::messages::{AwaitReady, Observe};
use vllm_responses_actors::vllm::settings::UpstreamSettings;
use vllm_responses_actors::vllm::{VllmActor, client, spawn};
use vllm_responses_protocol::responses::event;
use vllm_responses_protocol::responses::request::Rules;
use vllm_responses_protocol::seal::SealKeys;

use crate::banner::{self, Ready};
use crate::config::{Config, GatewaySettings, ReasoningEvents, Strictness, Upstream};
use crate::http;
use crate::http::state::{AppState, McpDoors, Observers, StoreDoors};
use crate::keys::{KeyRing, Keys};
use crate::mcp::wire::{self, Mcp};
use crate::shutdown::{self, Outcome, Signals};
use crate::status::{self, ToolStatus};

/// A client that has sent no whole request head by then is cut off (fault C3).
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Idle connections are kept longer than common clients keep theirs, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long the HTTP server waits for connections once no response runs any more.
const CLOSE_LIMIT_SECONDS: u64 = 1;
/// Start-up messages to actors of ours.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Telling an actor of ours to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Why the gateway ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One sentence that names cause and remedy.
    pub problem: String,
    /// What the process ends with: 1, or the code of the child that it cannot do without.
    pub code: u8,
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self { problem, code: 1 }
    }
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When the gateway cannot start, or is to end with a child.
pub fn run(config: Config) -> Result<Outcome, Failure> {
    tls::install();
    System::new().block_on(serve(config))
}

/// What [`open`] needs.
struct Opening {
    config: Config,
    upstream: UpstreamSettings,
    supervisor: Addr<SupervisorActor>,
    doors: watch::Sender<Option<StoreDoors>>,
    observers: watch::Sender<Observers>,
    mcp: Addr<McpActor>,
    mcp_runtime: Option<Addr<ChildActor>>,
    metrics: Metrics,
}

async fn serve(config: Config) -> Result<Outcome, Failure> {
    let start = Instant::now();
    let upstream = match &config.upstream {
        Upstream::External(settings) => (**settings).clone(),
        Upstream::Spawn(spawned) => spawned.upstream.clone(),
    };
    let keys = Keys::open(config.api_keys_file.clone()).map_err(|problems| problems.join("; "))?;
    let keys_seen = keys.watch();
    let signals = Signals::new(keys)?;
    let control = Arbiter::new();
    let capacity = places(config.limits.max_in_flight);
    let supervisor = SupervisorActor::new(capacity);
    let gate = supervisor.gate();
    let supervisor = SupervisorActor::start_in_arbiter(&control.handle(), move |_| supervisor);
    let (doors, doors_seen) = watch::channel(None);
    let (observers, observers_seen) = watch::channel(Observers::default());
    let seal_keys = seal::open(&config.privacy.seal, &config.store.database)?;
    let mcp = Mcp::prepare(&config.mcp, &config.logging, &supervisor, &control)?;
    let mcp_actor = mcp.start();
    let watched = (keys_seen, doors_seen, observers_seen);
    let chiefs = (supervisor.clone(), gate, mcp_actor.clone());
    let state = app_state(&config, upstream.clone(), chiefs, seal_keys, watched);
    let metrics = state.metrics.clone();
    let (server, addresses) = listen(&config.gateway, state)?;
    let urls: Vec<String> = addresses.iter().map(banner::api_url).collect();
    log::info!(
        "listening: {}; /v1 answers 503 until everything behind it is up",
        urls.join(" ")
    );
    let handle = server.handle();
    let (gone, server_gone) = oneshot::channel::<()>();
    let serving = async move {
        let ended = server.await;
        drop(gone);
        ended
    };
    let living = async {
        let opening = Opening {
            config,
            upstream,
            supervisor,
            doors,
            observers,
            mcp: mcp_actor,
            mcp_runtime: mcp.child,
            metrics,
        };
        let outcome = tokio::select! {
            outcome = live(opening, &control, signals, (&addresses, start)) => outcome,
            _ = server_gone => Err("the HTTP server ended by itself".to_owned().into()),
        };
        handle.stop(true).await;
        outcome
    };
    // The server closes its connections only while it is polled: it ends beside its stop.
    let (outcome, ended) = tokio::join!(living, serving);
    control.stop();
    ended.map_err(|error| format!("the HTTP server failed: {error}"))?;
    outcome
}

/// How many responses may run at once; 0 is for what the system allows.
fn places(configured: usize) -> usize {
    match configured {
        0 => places_by_descriptors(),
        places => places,
    }
}

/// From the first component to the last process.
async fn live(
    opening: Opening,
    control: &Arbiter,
    mut signals: Signals,
    heading: (&[SocketAddr], Instant),
) -> Result<Outcome, Failure> {
    let python = Arbiter::new();
    let interpreter = interpreter::start::start(&opening.config.interpreter, &python.handle())
        .map_err(|error| error.to_string())?;
    let vllm = spawn_vllm(&opening, control).await?;
    let observed = interpreter.actor.clone().map(Addr::recipient);
    opening
        .observers
        .send_modify(|observers| observers.interpreter = observed);
    let mut tools: Vec<Arc<dyn Tool>> = interpreter.tool.into_iter().collect();
    tools.push(Arc::new(McpTools::new(opening.mcp.clone().recipient())));
    let mcp_runtime = opening.mcp_runtime.clone();
    let work = (opening, Toolbox::new(tools));
    let outcome = open_and_serve(work, control, &mut signals, heading).await;
    if let Some(mcp_runtime) = mcp_runtime {
        shutdown::stop_child(&mcp_runtime, &mut signals).await;
    }
    if let Some(actor) = interpreter.actor {
        // Its processes end with it; one that does not hear this is ended by its guardian.
        let _unheard: Result<(), _> =
            ask_actor(&actor, interpreter::messages::Stop, STOP_LIMIT).await;
    }
    python.stop();
    let Some(vllm) = vllm else { return outcome };
    let stopped = shutdown::stop_child(&vllm, &mut signals).await;
    match outcome {
        Ok(Outcome::Clean) => Ok(stopped),
        Ok(Outcome::Cut(_)) | Err(_) => outcome,
    }
}

/// Brings everything up, and serves until a signal or until a vLLM of ours is given up.
async fn open_and_serve(
    (opening, tools): (Opening, Toolbox),
    control: &Arbiter,
    signals: &mut Signals,
    (addresses, start): (&[SocketAddr], Instant),
) -> Result<Outcome, Failure> {
    let lifecycle = opening.config.lifecycle;
    let format = opening.config.logging.format;
    let supervisor = opening.supervisor.clone();
    let mut ready = Ready {
        urls: addresses.iter().map(banner::api_url).collect(),
        model: None,
        tools: Vec::new(),
        store: banner::place(&opening.config.store),
        keyed: opening.config.api_keys_file.is_some(),
        took_ms: 0,
    };
    let stops_with_vllm = matches!(&opening.config.upstream, Upstream::Spawn(spawned)
        if spawned.spawn.on_exit == OnExit::Stop);
    tokio::select! {
        opened = open(opening, tools, control) => (ready.model, ready.tools) = opened?,
        error = given_up(&supervisor) => return Err(error),
        _ = signals.next() => return Ok(Outcome::Clean),
    }
    ready.took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    ready.announce(format);
    if !ready.keyed {
        warn_of_open_door(addresses);
    }
    tokio::select! {
        outcome = shutdown::wait_and_drain(signals, lifecycle, &supervisor) => Ok(outcome),
        error = given_up(&supervisor), if stops_with_vllm => Err(error),
    }
}

/// Starts vLLM when it is ours. What earlier gateways left behind is removed first.
async fn spawn_vllm(
    opening: &Opening,
    control: &Arbiter,
) -> Result<Option<Addr<ChildActor>>, String> {
    let spawns = opening.mcp_runtime.is_some();
    if spawns || matches!(opening.config.upstream, Upstream::Spawn(_)) {
        let leftovers = process::sweep_leftovers().await;
        if leftovers > 0 {
            log::warn!(leftovers; "processes of an earlier gateway were still there and were ended");
        }
    }
    let Upstream::Spawn(spawned) = &opening.config.upstream else {
        return Ok(None);
    };
    log::info!(
        "vLLM: starting {} with the model {}; it will be at {}",
        spawned.spawn.program,
        spawned.command.model,
        spawned.upstream.base_url
    );
    let vllm = spawn::supervise(
        &spawned.command,
        &spawned.spawn,
        spawned.upstream.clone(),
        opening.supervisor.clone().recipient(),
        &control.handle(),
    )
    .map_err(|error| error.to_string())?;
    ask_actor(&vllm, Start, START_LIMIT)
        .await
        .map_err(|gone| gone.to_string())?;
    let observed = vllm.clone().recipient();
    opening
        .observers
        .send_modify(|observers| observers.children.push(("vllm", observed)));
    Ok(Some(vllm))
}

/// Resolves when a vLLM of ours is given up; never without one.
async fn given_up(supervisor: &Addr<SupervisorActor>) -> Failure {
    let failed = AwaitPhase(OwnProcess::Vllm, Phase::Failed);
    match supervisor.send(failed).await {
        Ok(reached) => Failure {
            problem: format!(
                "vLLM was given up: {}; what it wrote is above",
                reached.last_error
            ),
            code: reached.exit.map_or(1, ExitKind::exit_code),
        },
        Err(_gone) => std::future::pending().await,
    }
}

/// What changes while the gateway runs and every handler sees.
type Watched = (
    watch::Receiver<Option<Arc<KeyRing>>>,
    watch::Receiver<Option<StoreDoors>>,
    watch::Receiver<Observers>,
);

fn app_state(
    config: &Config,
    upstream: UpstreamSettings,
    (supervisor, gate, mcp): (Addr<SupervisorActor>, Gate, Addr<McpActor>),
    seal_keys: SealKeys,
    (keys, store, observers): Watched,
) -> AppState {
    AppState {
        keys,
        gate,
        supervisor,
        mcp: McpDoors {
            servers: mcp.clone().recipient(),
            tools: mcp.recipient(),
        },
        store,
        observers,
        started: Instant::now(),
        upstream,
        rules: Rules {
            max_depth: config.limits.json_depth,
            strict_requests: config.protocol.requests == Strictness::Strict,
            strict_tools: config.protocol.tools == Strictness::Strict,
            retention: config.privacy.retention,
            omitted_tools: config.protocol.omitted_tools,
        },
        loop_limits: config.loop_limits,
        seal_keys: Arc::new(seal_keys),
        reasoning_events: match config.protocol.reasoning_events {
            ReasoningEvents::OpenAi => event::ReasoningEvents::OpenAi,
            ReasoningEvents::OpenResponses => event::ReasoningEvents::OpenResponses,
        },
        body_limit: config.limits.body_bytes,
        retention: config.store.retention,
        metrics: Metrics::default(),
        metrics_door: config.metrics.door.clone(),
    }
}

/// Binds the port and builds the server; it serves once it is polled.
fn listen(gateway: &GatewaySettings, state: AppState) -> Result<(Server, Vec<SocketAddr>), String> {
    let url = state.upstream.base_url.to_string();
    let connect = state.upstream.deadlines.connect;
    let write_stall = gateway.write_stall;
    let door = state.metrics_door.clone();
    let state = web::Data::new(state);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::ThinData(client::client(&url, connect)))
            .wrap(from_fn(http::metrics::count))
            .configure(|config| http::metrics::route(config, door.as_ref()))
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

/// Brings up everything behind HTTP, in order. The model to try, and the tools on offer.
async fn open(
    opening: Opening,
    tools: Toolbox,
    control: &Arbiter,
) -> Result<(Option<String>, Vec<ToolStatus>), String> {
    let front = open_store(&opening).await?;
    let (vllm, model) = open_upstream(&opening, control).await?;
    start_mcp_runtime(&opening).await?;
    let offered = status::tools(tools.offers());
    opening
        .observers
        .send_modify(|observers| observers.tools = tools.clone());
    let peers = Peers {
        chains: front.clone().recipient(),
        commits: front.recipient(),
        suspects: vllm.recipient(),
        upstream: opening.upstream,
        tools,
        mcp: opening.mcp.recipient(),
        log: TurnLog {
            timings: opening.config.logging.timings,
            model_messages: opening.config.logging.model_messages,
        },
        metrics: opening.metrics,
    };
    let opened = messages::Opened(Arc::new(peers));
    ask_actor(&opening.supervisor, opened, START_LIMIT)
        .await
        .map_err(|gone| gone.to_string())?;
    Ok((model, offered))
}

/// Starts the process of the operator's MCP servers, where it is ours; ready when those that are
/// required are there.
async fn start_mcp_runtime(opening: &Opening) -> Result<(), String> {
    let Some(child) = &opening.mcp_runtime else {
        return Ok(());
    };
    wire::start_runtime(child, &opening.mcp, &opening.supervisor, START_LIMIT).await?;
    let observed = child.clone().recipient();
    opening
        .observers
        .send_modify(|observers| observers.children.push(("mcp-runtime", observed)));
    Ok(())
}

/// Opens and migrates the store; from then on stored responses are served.
async fn open_store(opening: &Opening) -> Result<Addr<CacheActor>, String> {
    let settings = opening.config.store.clone();
    log::info!("store: opening ({})", banner::place(&settings));
    let front = cache::start(settings, opening.config.cache.clone())
        .await
        .map_err(|error| error.to_string())?;
    opening.doors.send_replace(Some(StoreDoors {
        fetch: front.clone().recipient(),
        chains: front.clone().recipient(),
        remove: front.clone().recipient(),
    }));
    opening.observers.send_modify(|observers| {
        observers.store = Some(front.clone().recipient());
        observers.cache = Some(front.clone().recipient());
    });
    opening.supervisor.do_send(Report {
        component: Component::Store,
        health: Health::Ready,
    });
    Ok(front)
}

/// Waits for the upstream, ours or not; the model to try, if one is known.
async fn open_upstream(
    opening: &Opening,
    control: &Arbiter,
) -> Result<(Addr<VllmActor>, Option<String>), String> {
    let (supervisor, settings) = (&opening.supervisor, opening.upstream.clone());
    let limit = settings.ready_timeout.saturating_add(START_LIMIT);
    let url = settings.base_url.clone();
    let reports = supervisor.clone().recipient::<Report>();
    let vllm = VllmActor::start_in_arbiter(&control.handle(), move |_| {
        VllmActor::new(settings, reports)
    });
    let observed = vllm.clone().recipient();
    opening
        .observers
        .send_modify(|observers| observers.upstream = Some(observed));
    if let Upstream::Spawn(_) = opening.config.upstream {
        // Ready in its supervisor's eyes: an end after this is one of a server that worked.
        ask_actor(
            supervisor,
            AwaitPhase(OwnProcess::Vllm, Phase::Ready),
            limit,
        )
        .await
        .map_err(|gone| gone.to_string())?;
    }
    log::info!("upstream: waiting for {url}");
    ask_actor(&vllm, AwaitReady, limit)
        .await
        .map_err(|gone| gone.to_string())?
        .map_err(|not_ready| not_ready.to_string())?;
    let seen = ask_actor(&vllm, Observe, START_LIMIT).await;
    let listed = seen.map_err(|gone| gone.to_string())?.models;
    opening.metrics.know_models(&listed);
    let listed = listed.into_iter().next();
    let model = match &opening.config.upstream {
        Upstream::External(_) => listed,
        Upstream::Spawn(spawned) => spawned.command.served_names.first().cloned().or(listed),
    };
    Ok((vllm, model))
}

fn warn_of_open_door(addresses: &[SocketAddr]) {
    if addresses.iter().any(|address| !address.ip().is_loopback()) {
        log::warn!(
            "no API keys are configured (`VR_API_KEYS_FILE`): everyone who reaches this address \
             may use the gateway and read its responses"
        );
    }
}
