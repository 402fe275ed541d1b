//! `GET /v1/mcp/servers` and `GET /v1/mcp/servers/{server_label}/tools`: the operator's MCP servers.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::value::RawValue;
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::mcp::messages::{ListFailure, ListServers, ListTools, ServerRef};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::Owner;
use vllm_responses_protocol::mcp::wire::ServerPhase;

use super::context::Caller;
use super::error;
use super::responses::reading;
use super::state::AppState;

/// The answer comes from memory; a server that is starting is waited for.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize)]
struct ServerList {
    object: &'static str,
    data: Vec<Server>,
}

#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "the wire's own names"
)]
struct Server {
    server_label: Box<str>,
    enabled: bool,
    available: bool,
    required: bool,
    transport: Box<str>,
    /// Why it is not available.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<str>>,
}

/// All servers, by label; an empty list when there are none.
pub(super) async fn servers(caller: Caller, state: web::Data<AppState>) -> HttpResponse {
    let servers = match ask(&state.mcp.servers, ListServers, LIMIT).await {
        Ok(Ok(servers)) => servers,
        Ok(Err(_down)) => return runtime_down(),
        Err(gone) => return error::no_answer(&caller.origin(""), gone),
    };
    let data = servers.into_iter().map(|server| Server {
        server_label: server.label,
        enabled: true,
        available: server.phase == ServerPhase::Available,
        required: server.required,
        transport: server.transport,
        error: match server.phase {
            ServerPhase::Unavailable { reason } => Some(reason),
            ServerPhase::Starting | ServerPhase::Available => None,
        },
    });
    HttpResponse::Ok().json(ServerList {
        object: "list",
        data: data.collect(),
    })
}

#[derive(Debug, Serialize)]
struct ToolList<'a> {
    server_label: &'a str,
    available: bool,
    tools: Vec<Tool<'a>>,
    /// What was left out, has changed, or looks like an order to the model.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notices: &'a [String],
}

#[derive(Debug, Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a RawValue,
}

/// The tools of one server, by name.
pub(super) async fn tools(
    caller: Caller,
    state: web::Data<AppState>,
    label: web::Path<String>,
) -> HttpResponse {
    let list = ListTools {
        owner: Owner::default(),
        server: ServerRef::BuiltIn(label.as_str().into()),
        origin: caller.origin(""),
    };
    let listed = match ask(&state.mcp.tools, list, LIMIT).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(failure)) => return refused(&failure),
        Err(gone) => return error::no_answer(&caller.origin(""), gone),
    };
    let tools = listed.tools.tools.iter().map(|tool| Tool {
        name: &tool.name,
        description: &tool.description,
        input_schema: &tool.input_schema,
    });
    let list = ToolList {
        server_label: &label,
        available: true,
        tools: tools.collect(),
        notices: &listed.tools.notices,
    };
    match reading::room(0, &caller, &state.intake).await {
        Ok(held) => reading::counted(&list, held),
        Err(refused) => refused,
    }
}

fn refused(failure: &ListFailure) -> HttpResponse {
    let code = match failure {
        ListFailure::RuntimeDown => return runtime_down(),
        ListFailure::Unknown(_) => ApiErrorCode::NotFound,
        ListFailure::Unavailable(_)
        | ListFailure::Unreached(_)
        | ListFailure::RemoteOff
        | ListFailure::Refused(_)
        | ListFailure::BadHeaders(_)
        | ListFailure::Failed(_) => ApiErrorCode::McpUnavailable,
    };
    error::answer(&ApiError::new(code, failure.to_string()))
}

fn runtime_down() -> HttpResponse {
    error::busy("the MCP runtime is not available; try again", "1")
}
