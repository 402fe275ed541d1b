//! `GET /v1/responses/{id}` and `POST /v1/responses/{id}/cancel`.

use actix_web::{HttpRequest, HttpResponse, web};
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::store::messages::Fetch;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::ResponseId;
use vllm_responses_protocol::record::Stored;

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
    let stored = match fetch(&id, caller, &state).await {
        Ok(stored) => stored,
        Err(answer) => return answer,
    };
    if asks_for_stream(request.query_string()) {
        // A client that waits for events would take JSON for a stream without any, and say nothing.
        let message = "`stream` is not supported here: only responses made with `background` have \
            events to replay, and this server has none of those";
        return error::answer(
            &ApiError::new(ApiErrorCode::UnsupportedValue, message).with_param("stream"),
        );
    }
    HttpResponse::Ok()
        .content_type("application/json")
        .body(stored.resource(code_outputs(request.query_string())))
}

/// Always a refusal: what can be cancelled was made with `background`, which is not served.
pub(in crate::http) async fn cancel(
    id: web::Path<String>,
    caller: Caller,
    state: web::Data<AppState>,
) -> HttpResponse {
    if let Err(answer) = fetch(&id, caller, &state).await {
        return answer;
    }
    let message = "only a response made with `background` can be cancelled: to end another one, \
        close its connection";
    error::answer(&ApiError::new(ApiErrorCode::InvalidRequest, message))
}

async fn fetch(id: &str, caller: Caller, state: &AppState) -> Result<Stored, HttpResponse> {
    let origin = caller.origin(id);
    let doors = state.doors().map_err(error::refused)?;
    let fetch = Fetch {
        owner: caller.owner,
        id: ResponseId::new(id),
    };
    match ask(&doors.fetch, fetch, STORE_LIMIT).await {
        Ok(Ok(Some(stored))) => Ok(stored),
        Ok(Ok(None)) => Err(error::unknown_response()),
        Ok(Err(fault)) => Err(error::store(&origin, &fault)),
        Err(gone) => Err(error::no_answer(&origin, gone)),
    }
}

fn asks_for_stream(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "stream" && value == "true")
}
