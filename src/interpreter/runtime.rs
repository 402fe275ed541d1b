//! The service's process: it starts interpreters, listens, and stops in order.

use std::time::Duration;

use actix::Addr;
use actix_rt::{Arbiter, System};
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::interpreter::actor::CodeInterpreterActor;
use vllm_responses_actors::interpreter::messages::Stop;
use vllm_responses_actors::interpreter::{start, wire};
use vllm_responses_actors::process;
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::token;

use super::service::{self, Door, ServiceState};
use crate::config::interpreter::ServiceConfig;
use crate::shutdown::{Caught, Outcome, Signals};

/// The actor is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A caller that has sent no whole request head by then is cut off.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Serves until a signal.
///
/// # Errors
/// One sentence that names cause and remedy.
pub fn run(config: ServiceConfig) -> Result<Outcome, String> {
    System::new().block_on(serve(config))
}

async fn serve(mut config: ServiceConfig) -> Result<Outcome, String> {
    let mut signals = Signals::of_service()?;
    let leftovers = process::sweep_leftovers().await;
    if leftovers > 0 {
        log::warn!(leftovers; "processes of an earlier service were still there and were ended");
    }
    let python = Arbiter::new();
    // The port first: one that is taken is no reason to start interpreters.
    let reserved = reserve(&config)?;
    if config.token.is_none() {
        config.token = Some(left_token(config.address.port())?);
    }
    let interpreter = start::start_here(&config.interpreter, &config.spawn, &python.handle())
        .map_err(|error| error.to_string())?;
    let door = Door::new();
    let server = listen(&config, reserved, interpreter.clone(), door.clone())?;
    let handle = server.handle();
    let living = async {
        let outcome = live(&config, &interpreter, &mut signals, &door).await;
        // Its processes end with it; one that does not hear this is ended by its guardian.
        let _unheard: Result<(), _> = ask_actor(&interpreter, Stop, STOP_LIMIT).await;
        handle.stop(true).await;
        outcome
    };
    // The server closes its connections only while it is polled: it ends beside its stop.
    let (outcome, ended) = tokio::join!(living, server);
    python.stop();
    ended.map_err(|error| format!("the HTTP server failed: {error}"))?;
    outcome
}

/// A port of this machine is everybody's: without a token everybody could run code here.
fn left_token(port: u16) -> Result<Secret, String> {
    let left = token::leave(wire::SERVICE, port).map_err(|error| {
        format!(
            "no token is given and none can be left for the gateway in the cache folder of this user \
             ({error}): set `VR_CODE_INTERPRETER_TOKEN` here and in the gateway"
        )
    })?;
    log::info!(
        "no token is set (`VR_CODE_INTERPRETER_TOKEN`): gateways of this user find the one that was \
         made for this start, others are refused"
    );
    Ok(left)
}

/// From the first interpreter to the last call.
async fn live(
    config: &ServiceConfig,
    interpreter: &Addr<CodeInterpreterActor>,
    signals: &mut Signals,
    door: &Door,
) -> Result<Outcome, String> {
    let observe = interpreter.clone().recipient();
    tokio::select! {
        ready = start::until_ready(&observe, config.interpreter.startup_timeout) => ready?,
        _ = signals.next() => return Ok(Outcome::Clean),
    }
    log::info!(
        "ready: the code interpreter is at http://{}",
        config.address
    );
    let _first: Caught = signals.next().await;
    log::info!(
        "stopping: calls that run may end within {:?}",
        config.shutdown_grace
    );
    tokio::select! {
        () = door.close() => Ok(Outcome::Clean),
        () = tokio::time::sleep(config.shutdown_grace) => Ok(Outcome::Clean),
        Caught(code) = signals.next() => Ok(Outcome::Cut(code)),
    }
}

fn reserve(config: &ServiceConfig) -> Result<std::net::TcpListener, String> {
    std::net::TcpListener::bind(config.address).map_err(|error| {
        format!(
            "the code interpreter cannot listen on {} ({error}): choose another with \
             `--code-interpreter-host` and `--code-interpreter-port`",
            config.address
        )
    })
}

fn listen(
    config: &ServiceConfig,
    reserved: std::net::TcpListener,
    interpreter: Addr<CodeInterpreterActor>,
    door: Door,
) -> Result<Server, String> {
    let state = web::Data::new(ServiceState {
        interpreter,
        token: config.token.clone(),
        on_loopback: config.address.ip().is_loopback(),
        limits: config.interpreter.limits.call(),
        door,
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::JsonConfig::default().limit(wire::ORDER_BYTES))
            .wrap(from_fn(service::authorize))
            .route(wire::HEALTH_PATH, web::get().to(service::health))
            .route(wire::STATUS_PATH, web::get().to(service::status))
            .route(wire::EXECUTE_PATH, web::post().to(service::execute))
            .route(wire::RELEASE_PATH, web::post().to(service::release))
    })
    .workers(1)
    .client_request_timeout(HEAD_LIMIT)
    // A caller that leaves must be noticed, so that its call is ended.
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(reserved)
    .map_err(|error| format!("the code interpreter cannot listen ({error})"))?;
    Ok(server.run())
}
