//! What the actor of a built-in server can be asked.

use actix::Message;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::mcp::outcome::Outcome;
use vllm_responses_protocol::mcp::wire::ServerState;
use vllm_responses_protocol::trace::TraceContext;

/// How is it? Sender: the runtime's HTTP service.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ServerState")]
pub struct Describe;

/// Call a tool. Sender: the runtime's HTTP service. The reply is `None` when the server is not
/// available now.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Option<Outcome>")]
pub struct Call {
    /// Name of the tool.
    pub tool: Box<str>,
    /// JSON object, as text.
    pub arguments: Box<str>,
    /// Where the call stands in a trace; the server is told.
    pub trace: Option<TraceContext>,
    /// Nobody waits any more once this is cancelled; the server is told.
    pub cancel: CancellationToken,
}
