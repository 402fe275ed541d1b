//! `GET /v1/responses/{id}` and `POST /v1/responses/{id}/cancel`.

use actix_web::{HttpRequest, HttpResponse, web};
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::memory::weight;
use vllm_responses_actors::store::messages::{Fetch, Weighed};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::ResponseId;
use vllm_responses_protocol::record::Stored;

use super::super::context::Caller;
use super::super::error;
use super::super::state::AppState;
use super::reading::Reading;
use super::{STORE_LIMIT, code_outputs};

/// The stored resource, byte for byte what its client was sent, when `include` asks for the same.
pub(in crate::http) async fn get(
    request: HttpRequest,
    id: web::Path<String>,
    caller: Caller,
    state: web::Data<AppState>,
) -> HttpResponse {
    let shown = code_outputs(request.query_string());
    let read = async {
        let (reading, stored) = fetch(&id, caller, &state).await?;
        if asks_for_stream(request.query_string()) {
            // A client that waits for events would take JSON for a stream without any, and say nothing.
            let message = "`stream` is not supported here: only responses made with `background` \
                have events to replay, and this server has none of those";
            let error = ApiError::new(ApiErrorCode::UnsupportedValue, message);
            return Err(error::answer(&error.with_param("stream")));
        }
        let bytes = stored.response.len() + stored.settings.len();
        let marks = reading.doors.blobs.marks;
        let write = move || stored.resource(shown, marks);
        let (reading, body) = reading.work(bytes, write).await?;
        reading.answer(body).await
    };
    read.await.unwrap_or_else(|refused| refused)
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

async fn fetch(
    id: &str,
    caller: Caller,
    state: &AppState,
) -> Result<(Reading, Stored), HttpResponse> {
    let (origin, id) = (caller.origin(id), ResponseId::new(id));
    let what = Weighed::Links(vec![id.clone()]);
    let mut reading = Reading::begin(state, &caller, origin, what).await?;
    reading.reserve(weight::rows(reading.weight.bytes)).await?;
    let fetch = Fetch {
        owner: caller.owner,
        id,
    };
    let stored = match ask(&reading.doors.fetch, fetch, STORE_LIMIT).await {
        Ok(Ok(Some(stored))) => stored,
        Ok(Ok(None)) => return Err(error::unknown_response()),
        Ok(Err(fault)) => return Err(reading.fault(&fault)),
        Err(gone) => return Err(error::no_answer(&reading.origin, gone)),
    };
    // They are kept elsewhere, and were not weighed.
    reading.reserve(2 * stored.settings.len()).await?;
    Ok((reading, stored))
}

fn asks_for_stream(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "stream" && value == "true")
}
