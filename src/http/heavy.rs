//! Work on large texts, away from the worker's thread: other streams live on it (fault B5).

use std::time::Duration;

use actix_web::web;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

use super::state::Intake;

/// Texts of at least so many bytes are worth the change of threads.
pub(super) const LARGE: usize = 1 << 20;

/// How long work waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does this where blocking is allowed, beside only a few others. It goes on when nobody waits for it
/// any more, so whatever it uses is to belong to it.
pub(super) async fn run<T: Send + 'static>(
    intake: &Intake,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let place = intake.heavy.clone().acquire_owned();
    let Ok(Ok(place)) = tokio::time::timeout(PATIENCE, place).await else {
        return Err(busy());
    };
    let done = web::block(move || {
        let done = work();
        drop(place);
        done
    });
    done.await.map_err(|_pool_gone| busy())
}

fn busy() -> ApiError {
    ApiError::new(
        ApiErrorCode::ServerIsOverloaded,
        "the gateway is busy with other large requests; try again",
    )
}
