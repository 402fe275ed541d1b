//! vLLM's `/tokenize`: how long a prompt is. Other servers have none.

use std::time::Duration;

use vllm_responses_protocol::chat::tokenize::TokenCount;
use vllm_responses_protocol::trace::TraceContext;

use super::client::in_trace;
use super::settings::UpstreamSettings;
use crate::http1::{Client, Payload};

/// Rendering a long conversation with pictures takes seconds; counting is not worth more.
const LIMIT: Duration = Duration::from_secs(30);
/// The answer has every token's number.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Posts a body to `/tokenize`; `None` when there is no answer that tells a count.
pub(crate) async fn count(
    client: &Client,
    upstream: &UpstreamSettings,
    body: Payload,
    trace: Option<&TraceContext>,
) -> Option<TokenCount> {
    let request = upstream
        .post_beside("/tokenize", body)
        .header("content-type", "application/json");
    let answered = async {
        let answer = client.send(in_trace(request, trace)).await.ok()?;
        if answer.status != 200 {
            return None;
        }
        answer.body.whole(MAX_ANSWER).await.ok()
    };
    let body = tokio::time::timeout(LIMIT, answered).await.ok()??;
    serde_json::from_slice(&body).ok()
}
