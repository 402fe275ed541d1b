//! Tools of MCP servers, the operator's and the client's.

use std::time::Duration;

use actix::Recipient;
use futures_util::future::BoxFuture;
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome, SERVER_ERROR};
use vllm_responses_protocol::tools::{GatewayCall, Offers, ToolOutcome};

use super::{CallContext, Tool};
use crate::ask::ask;
use crate::mcp::messages::{CallTool, ServerRef};

/// Every server has limits of its own; this one is for an actor that died.
const LIMIT: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Debug)]
pub struct McpTools {
    calls: Recipient<CallTool>,
}

impl McpTools {
    /// Calls go to `calls`.
    pub fn new(calls: Recipient<CallTool>) -> Self {
        Self { calls }
    }
}

impl Tool for McpTools {
    /// Whether a server can be used is known when it is asked for its tools.
    fn offer(&self, _: &mut Offers) {}

    fn run(
        &self,
        context: CallContext,
        call: GatewayCall,
    ) -> Result<BoxFuture<'static, ToolOutcome>, GatewayCall> {
        let GatewayCall::Mcp(call) = call else {
            return Err(call);
        };
        let calls = self.calls.clone();
        let order = CallTool {
            owner: context.owner,
            server: ServerRef::from(&*call.server),
            tool: call.tool,
            arguments: call.arguments,
            origin: context.origin,
            cancel: context.cancel,
        };
        Ok(Box::pin(async move {
            let outcome = ask(&calls, order, LIMIT).await;
            ToolOutcome::Mcp(outcome.unwrap_or_else(|gone| Outcome::Failed {
                error: CallError::protocol(SERVER_ERROR, gone.to_string()),
            }))
        }))
    }
}
