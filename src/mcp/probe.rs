//! `mcp-probe`: one session with one MCP server, for people who look for a fault and for the
//! conformance suite.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::System;
use vllm_responses_actors::mcp::guard::{CallerHeaders, Guard};
use vllm_responses_actors::mcp::net::connect::{Dialer, SystemNetwork};
use vllm_responses_actors::mcp::session::{Deadlines, Endpoint, Session};
use vllm_responses_protocol::mcp::file::HttpKind;
use vllm_responses_protocol::mcp::outcome::Outcome;

/// Each phase.
const LIMIT: Duration = Duration::from_secs(30);

/// Lists the server's tools and makes the calls, each `TOOL=JSON`; returns what is to be printed.
///
/// # Errors
/// One sentence.
pub fn run(url: &str, calls: &[String]) -> Result<String, String> {
    System::new().block_on(probe(url, calls))
}

async fn probe(url: &str, calls: &[String]) -> Result<String, String> {
    let guard = Guard::Operator;
    let to = guard
        .vet(url)
        .map_err(|_refused| "the URL must be an `http` or `https` URL".to_owned())?;
    let endpoint = Endpoint::Http {
        to: Box::new(to),
        guard: Arc::new(guard),
        headers: CallerHeaders::default(),
        kind: HttpKind::Auto,
        filled: Vec::new(),
        dialer: Arc::new(Dialer::new(Arc::new(SystemNetwork))),
    };
    let deadlines = Deadlines {
        connect: LIMIT,
        initialize: LIMIT,
        list: LIMIT,
        call: LIMIT,
    };
    let session = Session::open("probe", &endpoint, deadlines).await;
    let session = Arc::new(session.map_err(|failure| failure.to_string())?);
    let listed = session
        .list()
        .await
        .map_err(|failure| failure.to_string())?;
    let tools = listed.tools.tools.iter();
    let mut lines: Vec<String> = tools
        .map(|tool| format!("tool {}: {}", tool.name, tool.description))
        .collect();
    for call in calls {
        let (tool, arguments) = call
            .split_once('=')
            .ok_or("a call must be written `TOOL=JSON`")?;
        let outcome = session.call(tool, arguments, None).await;
        let said = match outcome.map_err(|failure| failure.to_string())? {
            Outcome::Output { text, .. } => String::from(text),
            Outcome::Failed { error } => error.for_model(),
        };
        lines.push(format!("{tool}: {said}"));
    }
    session.close().await;
    lines.push(String::new());
    Ok(lines.join("\n"))
}
