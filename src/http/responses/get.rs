//! `GET /v1/responses/{id}`.

use actix_web::{HttpRequest, HttpResponse, web};
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::store::messages::Fetch;
use vllm_responses_protocol::ids::ResponseId;

use super::super::context::Caller;
use super::super::error;
use super::super::state::AppState;
use super::{STORE_LIMIT, code_outputs};

/// The stored resource, byte for byte what its client was sent, when `include` asks for the same.
pub(in crate::http) async fn get(
    request: HttpRequest,
    id: web::Path<String>,
    caller: Caller,
    state: web::Data<AppState>,
) -> HttpResponse {
    let origin = caller.origin(&id);
    let doors = match state.doors() {
        Ok(doors) => doors,
        Err(refused) => return error::refused(refused),
    };
    let fetch = Fetch {
        owner: caller.owner,
        id: ResponseId::new(&id),
    };
    match ask(&doors.fetch, fetch, STORE_LIMIT).await {
        Ok(Ok(Some(stored))) => HttpResponse::Ok()
            .content_type("application/json")
            .body(stored.resource(code_outputs(request.query_string()))),
        Ok(Ok(None)) => error::unknown_response(),
        Ok(Err(fault)) => error::store(&origin, &fault),
        Err(gone) => error::no_answer(&origin, gone),
    }
}
