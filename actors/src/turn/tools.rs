//! What a turn asks of others on the model's behalf: gateway calls, and the tools of MCP servers.

use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use vllm_responses_protocol::responses::tool::McpServer;
use vllm_responses_protocol::tools::mcp::ListError;
use vllm_responses_protocol::tools::{GatewayCall, ToolCall};
use vllm_responses_protocol::turn::effect::Input;

use super::TurnActor;
use crate::ask::ask;
use crate::mcp::messages::ListTools;
use crate::metrics;
use crate::tools::CallContext;
use crate::trace::{Fact, Side, Span};

/// An MCP server's own limits are shorter, unless they are configured longer; then this one ends the
/// wait, and not the listing.
const LIST_LIMIT: Duration = Duration::from_secs(120);

impl TurnActor {
    pub(super) fn list_tools(
        &mut self,
        tool_index: usize,
        server: &McpServer,
        ctx: &mut Context<Self>,
    ) {
        let mut span = self.span.scope().span(Side::Internal, "list_tools mcp");
        note_server(&mut span, server);
        let lists = self.permit.peers.mcp.clone();
        let list = ListTools {
            owner: self.owner.clone(),
            server: server.into(),
            origin: self.origin.below(&span),
        };
        let listed = async move { ask(&lists, list, LIST_LIMIT).await };
        ctx.spawn(listed.into_actor(self).map(move |listed, act, ctx| {
            let answer = match listed {
                Ok(listed) => listed.map_err(|failure| failure.meaning()),
                Err(gone) => Err(ListError::Unavailable(gone.to_string().into())),
            };
            if answer.is_err() {
                span.fail("the server's tools are not known");
            }
            drop(span);
            act.feed(Input::ToolsListed { tool_index, answer }, ctx);
        }));
    }

    pub(super) fn run_tool(
        &mut self,
        ToolCall { output_index, call }: ToolCall,
        ctx: &mut Context<Self>,
    ) {
        let began = Instant::now();
        let mut span = begin(&self.span, &call);
        let context = CallContext {
            owner: self.owner.clone(),
            origin: self.origin.below(&span),
            cancel: self.tools.clone(),
        };
        let running = metrics::Running::of(&call);
        let run = self.permit.peers.tools.run(&context, call);
        let ended = run.into_actor(self).map(move |outcome, act, ctx| {
            let took = began.elapsed();
            act.timings.tools += took;
            act.keep(outcome.size());
            let tools = act.permit.peers.metrics.tools();
            tools.ran(running, took, &outcome);
            if outcome.has_failed() {
                span.fail("the call failed");
            }
            drop(span);
            act.feed(
                Input::ToolEnded {
                    output_index,
                    outcome,
                },
                ctx,
            );
        });
        ctx.spawn(ended);
    }
}

/// Names of tools are the client's or a server's words, and so in no span.
fn begin(parent: &Span, call: &GatewayCall) -> Span {
    let (name, kind) = match call {
        GatewayCall::CodeInterpreter(_) => ("execute_tool code_interpreter", "code_interpreter"),
        GatewayCall::Mcp(_) => ("execute_tool mcp", "mcp"),
    };
    let mut span = parent.scope().span(Side::Internal, name);
    span.note(Fact::Tool(kind));
    if let GatewayCall::Mcp(call) = call {
        note_server(&mut span, &call.server);
    }
    span
}

/// Only the operator's servers: the label of another is the client's own text.
fn note_server(span: &mut Span, server: &McpServer) {
    if server.access.is_none() {
        span.note(Fact::Server(&server.label));
    }
}
