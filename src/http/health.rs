//! Liveness and readiness. Neither has any content of a client in it.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::supervisor::messages::Observe;

use super::error;
use super::state::AppState;

/// An operator's probe should not wait longer.
const LIMIT: Duration = Duration::from_secs(1);

/// `GET /health`: the process serves HTTP. Says nothing of what is behind it, so that a loading
/// model never fails a liveness probe (decision 10).
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(r#"{"status":"ok"}"#)
}

/// `GET /health/ready`: 200 when requests are taken and everything behind them works, else 503; the
/// body says what does not.
pub(super) async fn ready(state: web::Data<AppState>) -> HttpResponse {
    match ask_actor(&state.supervisor, Observe, LIMIT).await {
        Ok(seen) if seen.ready => HttpResponse::Ok().json(seen),
        Ok(seen) => HttpResponse::ServiceUnavailable().json(seen),
        Err(_gone) => error::busy("the gateway cannot answer now; try again", "1"),
    }
}
