//! Gateway tools: what runs the calls that a turn asks for.
//!
//! A tool is one file with an implementation of [`Tool`] and one line where `gateway.rs` fills the
//! [`Toolbox`]. Every rule of the loop (rounds, caps, order, repeats) is in the turn machine.

pub mod mcp;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::ids::Owner;
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome, SERVER_ERROR};
use vllm_responses_protocol::tools::code_interpreter::CodeOutcome;
use vllm_responses_protocol::tools::{GatewayCall, Offers, ToolOutcome};

use crate::origin::Origin;

/// For whom a call runs.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Whose response it is.
    pub owner: Owner,
    /// For the log, and for servers that take part in a trace.
    pub origin: Origin,
    /// Cancelled when nobody waits for the outcome any more: the work is to end within a second.
    pub cancel: CancellationToken,
}

/// A tool that the gateway runs. It owns no state: that belongs to the actor it speaks to.
pub trait Tool: fmt::Debug + Send + Sync {
    /// Says whether it can be used at the moment.
    fn offer(&self, offers: &mut Offers);

    /// Runs a call, or hands it back when it is another tool's. Never fails: what goes wrong is an
    /// outcome, which the model is told.
    fn run(
        &self,
        context: CallContext,
        call: GatewayCall,
    ) -> Result<BoxFuture<'static, ToolOutcome>, GatewayCall>;

    /// The response that used this interpreter session has ended.
    fn release(&self, _owner: &Owner, _container: &str) {}
}

/// The gateway's tools; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Toolbox {
    tools: Arc<[Arc<dyn Tool>]>,
}

impl Toolbox {
    /// A box with these tools.
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Self {
        Self {
            tools: tools.into(),
        }
    }

    /// What can be used at the moment.
    pub fn offers(&self) -> Offers {
        let mut offers = Offers::default();
        for tool in &*self.tools {
            tool.offer(&mut offers);
        }
        offers
    }

    /// Tells the tools that the response which used this interpreter session has ended.
    pub fn release(&self, owner: &Owner, container: &str) {
        for tool in &*self.tools {
            tool.release(owner, container);
        }
    }

    /// Runs a call with the tool that takes it.
    pub fn run(&self, context: &CallContext, call: GatewayCall) -> BoxFuture<'static, ToolOutcome> {
        let mut call = call;
        for tool in &*self.tools {
            match tool.run(context.clone(), call) {
                Ok(running) => return running,
                Err(back) => call = back,
            }
        }
        Box::pin(std::future::ready(unavailable(&call)))
    }
}

/// The outcome of a call that no tool takes. The model is shown only tools on offer, so this is a
/// tool that went away in between.
fn unavailable(call: &GatewayCall) -> ToolOutcome {
    match call {
        GatewayCall::CodeInterpreter(_) => ToolOutcome::CodeInterpreter(CodeOutcome {
            failure: Some("the code interpreter is not available any more".into()),
            ..CodeOutcome::default()
        }),
        GatewayCall::Mcp(_) => ToolOutcome::Mcp(Outcome::Failed {
            error: CallError::protocol(SERVER_ERROR, "MCP is not available any more"),
        }),
    }
}
