//! vLLM's `/tokenize`: how long a prompt is. Other servers have none.

use std::time::Duration;

use awc::Client;
use awc::http::header;
use bytes::Bytes;
use vllm_responses_protocol::chat::tokenize::TokenCount;
use vllm_responses_protocol::trace::TraceContext;

use super::client::in_trace;
use super::settings::UpstreamSettings;

/// Rendering a long conversation with pictures takes seconds; counting is not worth more.
const LIMIT: Duration = Duration::from_secs(30);
/// The answer has every token's number.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

impl UpstreamSettings {
    /// URL of vLLM's own endpoints, which stand beside `/v1`.
    fn beside(&self, path: &str) -> String {
        let base = self.endpoint("");
        format!("{}{path}", base.strip_suffix("/v1").unwrap_or(&base))
    }
}

/// Posts a body to `/tokenize`; `None` when there is no answer that tells a count.
pub(crate) async fn count(
    client: &Client,
    upstream: &UpstreamSettings,
    body: Bytes,
    trace: Option<&TraceContext>,
) -> Option<TokenCount> {
    let request = client
        .post(upstream.beside("/tokenize"))
        .insert_header((header::CONTENT_TYPE, "application/json"));
    let sent = upstream.authorize(in_trace(request, trace)).send_body(body);
    let answered = async {
        let mut answer = sent.await.ok().filter(|answer| answer.status() == 200)?;
        answer.body().limit(MAX_ANSWER).await.ok()
    };
    let body = tokio::time::timeout(LIMIT, answered).await.ok()??;
    serde_json::from_slice(&body).ok()
}
