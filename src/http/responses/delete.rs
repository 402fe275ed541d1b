//! `DELETE /v1/responses/{id}`.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::store::messages::Remove;
use vllm_responses_protocol::ids::ResponseId;

use super::super::context::Caller;
use super::super::error;
use super::super::state::AppState;
use super::STORE_LIMIT;

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a ResponseId,
    object: &'static str,
    deleted: bool,
}

/// From the answer on the response reads as unknown, and cannot be continued.
pub(in crate::http) async fn delete(
    id: web::Path<String>,
    caller: Caller,
    state: web::Data<AppState>,
) -> HttpResponse {
    let origin = caller.origin(&id);
    let doors = match state.doors() {
        Ok(doors) => doors,
        Err(refused) => return error::refused(refused),
    };
    let id = ResponseId::new(&id);
    let remove = Remove {
        owner: caller.owner,
        id: id.clone(),
    };
    match ask(&doors.remove, remove, STORE_LIMIT).await {
        Ok(Ok(true)) => HttpResponse::Ok().json(Answer {
            id: &id,
            object: "response",
            deleted: true,
        }),
        Ok(Ok(false)) => error::unknown_response(),
        Ok(Err(fault)) => error::store(&origin, &fault),
        Err(gone) => error::no_answer(&origin, gone),
    }
}
