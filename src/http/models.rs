//! `GET /v1/models` and `GET /v1/models/{id}`: the upstream's list.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use vllm_responses_actors::http1::Client;
use vllm_responses_actors::memory::Held;
use vllm_responses_actors::origin::Hops;
use vllm_responses_actors::vllm::client::after;
use vllm_responses_actors::vllm::settings::UpstreamSettings;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

use super::context::Caller;
use super::error;
use super::responses::reading;
use super::state::AppState;

/// The list comes from memory upstream.
const LIMIT: Duration = Duration::from_secs(10);
/// A list of thousands of models is below this.
const MAX_LIST: usize = 2 * 1024 * 1024;
/// What a list takes while it is read and written.
const COPIES: usize = 3;

/// The upstream's list; each model as it came.
#[derive(Debug, Serialize)]
struct List {
    object: &'static str,
    data: Vec<Box<RawValue>>,
}

/// The list as `OpenAI` has it. Some servers give the list of models alone.
#[derive(Debug, Deserialize)]
struct Told {
    data: Vec<Box<RawValue>>,
}

impl List {
    /// What is no model is left out.
    fn read(body: &[u8]) -> Option<Self> {
        let told = serde_json::from_slice(body).map(|told: Told| told.data);
        let mut data: Vec<Box<RawValue>> =
            told.or_else(|_other| serde_json::from_slice(body)).ok()?;
        data.retain(|model| model.get().starts_with('{'));
        Some(Self {
            object: "list",
            data,
        })
    }
}

/// What is read of one model.
#[derive(Debug, Deserialize)]
struct Model {
    id: String,
}

/// All models.
pub(super) async fn list(
    caller: Caller,
    state: web::Data<AppState>,
    client: web::ThinData<Client>,
) -> HttpResponse {
    let mut held = match reading::room(COPIES * MAX_LIST, &caller, &state.intake).await {
        Ok(held) => held,
        Err(refused) => return refused,
    };
    match fetch(&state.upstream, &client, caller.hops, &mut held).await {
        Ok(list) => reading::counted(&list, held),
        Err(fault) => error::answer(&fault),
    }
}

/// One model.
pub(super) async fn one(
    caller: Caller,
    state: web::Data<AppState>,
    client: web::ThinData<Client>,
    id: web::Path<String>,
) -> HttpResponse {
    let mut held = match reading::room(COPIES * MAX_LIST, &caller, &state.intake).await {
        Ok(held) => held,
        Err(refused) => return refused,
    };
    let list = match fetch(&state.upstream, &client, caller.hops, &mut held).await {
        Ok(list) => list,
        Err(fault) => return error::answer(&fault),
    };
    let named = |model: &RawValue| {
        serde_json::from_str::<Model>(model.get()).is_ok_and(|model| model.id == *id)
    };
    let Some(model) = list.data.iter().find(|model| named(model)) else {
        let missing = ApiError::new(ApiErrorCode::ModelNotFound, "the model does not exist");
        return error::answer(&missing.with_param("model"));
    };
    reading::counted(model, held)
}

async fn fetch(
    upstream: &UpstreamSettings,
    client: &Client,
    hops: Hops,
    held: &mut Held,
) -> Result<List, ApiError> {
    let unavailable = |message: &str| ApiError::new(ApiErrorCode::UpstreamUnavailable, message);
    let answered = async {
        let answer = client
            .send(after(upstream.get("/models"), hops))
            .await
            .map_err(|_unreachable| unavailable("the upstream model server cannot be reached"))?;
        if answer.status == ApiErrorCode::LoopDetected.status() {
            return Err(super::context::goes_round());
        }
        if answer.status != 200 {
            return Err(unavailable(
                "the upstream model server does not list its models",
            ));
        }
        answer
            .body
            .whole_in(MAX_LIST, held)
            .await
            .map_err(|_broken| {
                unavailable("the upstream model server broke off while listing its models")
            })
    };
    let body = tokio::time::timeout(LIMIT, answered)
        .await
        .map_err(|_elapsed| {
            ApiError::new(
                ApiErrorCode::UpstreamTimeout,
                "the upstream model server did not list its models in time",
            )
        })??;
    let body = upstream.secrets().redact(body);
    List::read(&body).ok_or_else(|| {
        ApiError::new(
            ApiErrorCode::UpstreamBadResponse,
            "the upstream model server's list of models cannot be read",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_servers_write_them() {
        let whole = r#"{"object":"list","data":[{"id":"a"},{"id":7,"x":1}]}"#;
        for body in [
            whole,
            r#"{"data":[{"id":"a"},{"id":7,"x":1}]}"#,
            r#"{"object":null,"data":[{"id":"a"}, null, {"id":7,"x":1}, "b"],"more":1}"#,
            r#"[{"id":"a"},{"id":7,"x":1}]"#,
        ] {
            let list = List::read(body.as_bytes()).map(|list| serde_json::to_string(&list));
            assert_eq!(list.and_then(Result::ok).as_deref(), Some(whole), "{body}");
        }
        for body in [r#"{"error":"no"}"#, "[1,", "<html>", "7", ""] {
            assert!(List::read(body.as_bytes()).is_none(), "{body}");
        }
    }
}
