//! The one place that wires actors and HTTP together, and the order in which they come up.
//!
//! Port bound and health served, `/v1/*` answering 503 → store and migrations → upstream → ready.
//! (Decision 10: a loading model never fails a liveness probe.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor as _, Addr};
use actix_rt::{Arbiter, System};
use tokio::sync::watch;
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::blobs::Blobs;
use vllm_responses_actors::cache::{self, CacheActor};
use vllm_responses_actors::env::{
    connections_by_descriptors, descriptor_limit, places_by_descriptors,
};
use vllm_responses_actors::mcp::client::McpActor;
use vllm_responses_actors::mcp::messages::{Leaving, ListServers};
use vllm_responses_actors::metrics::Metrics;
use vllm_responses_actors::process;
use vllm_responses_actors::process::actor::ChildActor;
use vllm_responses_actors::process::messages::{Phase, Start};
use vllm_responses_actors::seal;
use vllm_responses_actors::store::messages::ReportTo;
use vllm_responses_actors::supervisor::gate::{FindGate, Gate};
use vllm_responses_actors::supervisor::messages::{
    self, AwaitPhase, OwnProcess, Peers, Report, TurnLog,
};
use vllm_responses_actors::supervisor::restart::OnExit;
use vllm_responses_actors::supervisor::{AdmissionSettings, SupervisorActor};
use vllm_responses_actors::tls;
use vllm_responses_actors::tools::mcp::McpTools;
use vllm_responses_actors::tools::{Tool, Toolbox};
use vllm_responses_actors::trace::{self, Scope};
use vllm_responses_actors::vllm::efforts::KnownEfforts;
use vllm_responses_actors::vllm::messages::{AwaitReady, Observe};
use vllm_responses_actors::vllm::settings::UpstreamSettings;
use vllm_responses_actors::vllm::{VllmActor, spawn};
use vllm_responses_protocol::responses::event;
use vllm_responses_protocol::responses::request::Rules;

use crate::banner::{self, Ready};
use crate::config::{Config, ReasoningEvents, Strictness, Upstream};
use crate::given_up;
use crate::http::door::Door;
use crate::http::state::{AppState, Intake, McpDoors, Observers, StoreDoors};
use crate::interpreter::wire::{Interpreter, until_ready};
use crate::keys::{KeyRing, Keys};
use crate::listen::{self, listen};
use crate::mcp::wire::{self, Mcp};
use crate::reload::{LogSource, Reload};
use crate::shutdown::{self, Outcome, Signals};
use crate::status::{self, McpView, ToolStatus};

/// Start-up messages to actors of ours.
const START_LIMIT: Duration = Duration::from_secs(60);
/// With fewer open descriptors not even the listeners, threads and database connections come up.
const FEWEST_DESCRIPTORS: u64 = 128;
/// The last spans' way to the collector.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

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
pub fn run(config: Config, log: LogSource) -> Result<Outcome, Failure> {
    let descriptors = descriptor_limit();
    if descriptors < FEWEST_DESCRIPTORS {
        return Err(Failure::from(format!(
            "this process may have {descriptors} descriptors open and needs {FEWEST_DESCRIPTORS} at \
             least: raise the limit (`ulimit -n`, `LimitNOFILE=` of systemd)"
        )));
    }
    banner::warn_of_tracer();
    tls::install();
    System::new().block_on(serve(config, log))
}

/// What [`open`] needs.
struct Opening {
    config: Config,
    upstream: UpstreamSettings,
    turn_log: watch::Receiver<TurnLog>,
    supervisor: Addr<SupervisorActor>,
    doors: watch::Sender<Option<StoreDoors>>,
    observers: watch::Sender<Observers>,
    mcp: Addr<McpActor>,
    mcp_runtime: Option<Addr<ChildActor>>,
    metrics: Metrics,
}

async fn serve(config: Config, log: LogSource) -> Result<Outcome, Failure> {
    let start = Instant::now();
    let upstream = match &config.upstream {
        Upstream::External(settings) => (**settings).clone(),
        Upstream::Spawn(spawned) => spawn::own(spawned.upstream.clone(), &spawned.command),
    };
    let keys = Keys::open(config.api_keys_file.clone()).map_err(|problems| problems.join("; "))?;
    let keys_seen = keys.watch();
    let reload = Reload::new(keys, log, &config.logging);
    let turn_log = reload.turn_log();
    let signals = Signals::new(reload)?;
    let control = Arbiter::new();
    let admission = admission(&config);
    let connections = connections_by_descriptors(admission.places);
    let supervisor = SupervisorActor::start_in_arbiter(&control.handle(), move |_| {
        SupervisorActor::new(&admission)
    });
    let (doors, doors_seen) = watch::channel(None);
    let (observers, observers_seen) = watch::channel(Observers::default());
    let mcp = Mcp::prepare(&config.mcp, &config.logging, &supervisor, &control)?;
    let mcp_actor = mcp.start(config.limits.memory.clone());
    let store = doors_seen.clone();
    let watched = (keys_seen, doors_seen, observers_seen);
    let gate = ask_actor(&supervisor, FindGate, START_LIMIT).await;
    let gate = gate.map_err(|gone| gone.to_string())?;
    let chiefs = (supervisor.clone(), gate, mcp_actor.clone());
    let (tracing, exporter) = config.tracing.as_ref().map(trace::start).unzip();
    let state = AppState {
        tracing: tracing.unwrap_or_default(),
        ..app_state(&config, upstream.clone(), chiefs, watched)
    };
    let metrics = state.metrics.clone();
    let (server, addresses) = listen(&config.gateway, state, connections)?;
    listen::refuse_itself(&config.upstream, &addresses)?;
    let urls: Vec<String> = addresses.iter().map(banner::api_url).collect();
    log::info!(
        "listening: {}; /v1 answers 503 until everything behind it is up",
        urls.join(" ")
    );
    let opening = Opening {
        config,
        upstream,
        turn_log,
        supervisor,
        doors,
        observers,
        mcp: mcp_actor,
        mcp_runtime: mcp.child,
        metrics,
    };
    let living = Box::pin(live(opening, &control, signals, (&addresses, start)));
    let outcome = shutdown::serve_while(server, living).await;
    shutdown::close_store(&store).await;
    if let Some(exporter) = exporter {
        exporter.finish(FLUSH_LIMIT).await;
    }
    control.stop();
    end_escaped().await;
    outcome?
}

/// Whoever has killed its guardian may have got away from every stop.
async fn end_escaped() {
    let escaped = process::sweep_own().await;
    if escaped > 0 {
        log::warn!(escaped; "processes that had left their guardians were ended");
    }
}

/// Who may run.
fn admission(config: &Config) -> AdmissionSettings {
    AdmissionSettings {
        places: match config.limits.max_in_flight {
            0 => places_by_descriptors(),
            places => places,
        },
        limits: config.limits.rates,
        redis: config.cache.clone(),
        memory: config.limits.memory.clone(),
    }
}

/// From the first component to the last process.
async fn live(
    opening: Opening,
    control: &Arbiter,
    mut signals: Signals,
    heading: (&[SocketAddr], Instant),
) -> Result<Outcome, Failure> {
    let interpreter = Interpreter::start(&opening.config.interpreter)?;
    let vllm = spawn_vllm(&opening, control).await?;
    let observed = interpreter.door();
    opening
        .observers
        .send_modify(|observers| observers.interpreter = observed);
    let mut tools: Vec<Arc<dyn Tool>> = interpreter.tool().into_iter().collect();
    tools.push(Arc::new(McpTools::new(opening.mcp.clone().recipient())));
    let (mcp_runtime, mcp) = (opening.mcp_runtime.clone(), opening.mcp.clone());
    let work = (opening, Toolbox::new(tools));
    let outcome = open_and_serve(work, control, &mut signals, heading).await;
    if let Some(mcp_runtime) = mcp_runtime {
        mcp.do_send(Leaving);
        shutdown::stop_child(&mcp_runtime, &mut signals).await;
    }
    interpreter.stop().await;
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
        exposed: addresses.iter().any(|address| !address.ip().is_loopback()),
        took_ms: 0,
    };
    let command = given_up::command_of(&opening.config.upstream);
    let stops_with_vllm = matches!(&opening.config.upstream, Upstream::Spawn(spawned)
        if spawned.spawn.on_exit == OnExit::Stop);
    let store = opening.doors.subscribe();
    let mut opened = Box::pin(open(opening, tools, control));
    tokio::select! {
        opened = &mut opened => (ready.model, ready.tools) = opened?,
        error = given_up::given_up(&supervisor, &command) => return Err(error),
        _ = signals.next() => {
            shutdown::let_store_open(opened, store, signals).await;
            return Ok(Outcome::Clean);
        }
    }
    ready.took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if !ready.keyed && ready.exposed {
        banner::warn_of_open_door();
    }
    ready.announce(format);
    tokio::select! {
        outcome = shutdown::wait_and_drain(signals, lifecycle, &supervisor) => Ok(outcome),
        error = given_up::given_up(&supervisor, &command), if stops_with_vllm => Err(error),
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
        opening.upstream.clone(),
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
    (keys, store, observers): Watched,
) -> AppState {
    AppState {
        keys,
        door: Door::new(
            &config.gateway.host,
            &config.gateway.allowed_hosts,
            config.gateway.cors.clone(),
        ),
        gate,
        supervisor,
        mcp: McpDoors {
            servers: mcp.clone().recipient(),
            tools: mcp.recipient(),
            remote: config.mcp.remote.enabled,
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
        reasoning_events: match config.protocol.reasoning_events {
            ReasoningEvents::OpenAi => event::ReasoningEvents::OpenAi,
            ReasoningEvents::OpenResponses => event::ReasoningEvents::OpenResponses,
        },
        intake: Intake::new(
            config.limits.body_bytes,
            config.gateway.body_timeout,
            config.limits.memory.clone(),
        ),
        tracing: Scope::default(),
        retention: config.store.retention,
        metrics: Metrics::default(),
        metrics_door: config.metrics.door.clone(),
    }
}

/// Brings up everything behind HTTP, in order. The model to try, and the tools on offer.
async fn open(
    opening: Opening,
    tools: Toolbox,
    control: &Arbiter,
) -> Result<(Option<String>, Vec<ToolStatus>), String> {
    let front = open_store(&opening).await?;
    let (seal, database) = (&opening.config.privacy.seal, &opening.config.store.database);
    let seal_keys = seal::open(seal, database, &front.clone().recipient()).await?;
    let (vllm, model) = open_upstream(&opening, control).await?;
    let python = opening.observers.borrow().interpreter.clone();
    let python = until_ready(&opening.config.interpreter, python);
    tokio::try_join!(start_mcp_runtime(&opening), python)?;
    let mcp = McpView {
        remote: opening.config.mcp.remote.enabled,
        servers: ask_actor(&opening.mcp, ListServers, START_LIMIT)
            .await
            .map_err(|gone| gone.to_string())?,
    };
    let offered = status::tools(tools.offers(), mcp);
    opening
        .observers
        .send_modify(|observers| observers.tools = tools.clone());
    let peers = Peers {
        chains: front.clone().recipient(),
        links: front.clone().recipient(),
        weights: front.clone().recipient(),
        blobs: Blobs::fresh(front.clone().recipient()),
        commits: front.clone().recipient(),
        claims: front.recipient(),
        suspects: vllm.recipient(),
        upstream: opening.upstream,
        tools,
        mcp: opening.mcp.recipient(),
        seal_keys: Arc::new(seal_keys),
        efforts: KnownEfforts::default(),
        log: opening.turn_log,
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
    let place = banner::place(&settings);
    log::info!("store: opening ({place})");
    let front = cache::start(settings, opening.config.cache.clone())
        .await
        .map_err(|error| banner::unusable(&opening.config.store, &error))?;
    opening.doors.send_replace(Some(StoreDoors {
        fetch: front.clone().recipient(),
        chains: front.clone().recipient(),
        parts: front.clone().recipient(),
        weights: front.clone().recipient(),
        blobs: Blobs::fresh(front.clone().recipient()),
        remove: front.clone().recipient(),
        close: front.clone().recipient(),
    }));
    opening.observers.send_modify(|observers| {
        observers.store = Some(front.clone().recipient());
        observers.cache = Some(front.clone().recipient());
    });
    front.do_send(ReportTo(opening.supervisor.clone().recipient()));
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
