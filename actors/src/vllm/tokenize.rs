//! vLLM's `/tokenize`: how long a prompt is. Other servers have none.

use std::time::Duration;

use vllm_responses_protocol::chat::tokenize::TokenCount;
use vllm_responses_protocol::trace::TraceContext;

use super::client::in_trace;
use super::settings::UpstreamSettings;
use crate::http1::{Client, Payload};
use crate::memory::{Held, LARGE};

/// Rendering a long conversation with pictures takes seconds; counting is not worth more.
const LIMIT: Duration = Duration::from_secs(30);
/// The answer has every token's number.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Posts a body to `/tokenize`; `None` when there is no answer that tells a count, or no room for it in
/// what is held.
pub(crate) async fn count(
    client: &Client,
    upstream: &UpstreamSettings,
    body: Payload,
    trace: Option<&TraceContext>,
    mut held: Held,
) -> Option<TokenCount> {
    let request = upstream
        .post_beside("/tokenize", body)
        .header("content-type", "application/json");
    let answered = async {
        let answer = client.send(in_trace(request, trace)).await.ok()?;
        if answer.status != 200 {
            return None;
        }
        answer.body.whole_in(MAX_ANSWER, &mut held).await.ok()
    };
    let body = tokio::time::timeout(LIMIT, answered).await.ok()??;
    let memory = held.memory().clone();
    let is_large = body.len() >= LARGE;
    let read = move || {
        let count = serde_json::from_slice(&body).ok();
        drop((body, held));
        count
    };
    if is_large {
        memory.work(read).await.ok()?
    } else {
        read()
    }
}
