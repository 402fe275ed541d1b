//! The tool loop: what a round costs whose tool does nothing.

use serde::Serialize;

use crate::check::{self, Api};
use crate::client::Client;
use crate::process::Tree;
use crate::report::median;
use crate::scenario::path;
use crate::servers::Target;

const ROUNDS: usize = 8;
const TOKENS: usize = 16;

/// Responses without and with eight rounds of a built-in MCP server's no-op tool.
#[derive(Debug, Serialize)]
pub(crate) struct ToolLoop {
    pub(crate) responses: usize,
    /// Medians.
    pub(crate) plain_millis: f64,
    pub(crate) tools_millis: f64,
    /// What each round adds.
    pub(crate) millis_per_round: f64,
    /// Of gateway, MCP runtime and MCP server together.
    pub(crate) cpu_micros_per_round: Option<f64>,
    pub(crate) processes_mib: Option<f64>,
}

/// Asks `times` times without calls and `times` times with them.
pub(crate) async fn measure(target: &Target, times: usize) -> Result<ToolLoop, String> {
    let tree = target.pid.map(Tree::of);
    let mut client = Client::connect(&target.address).await?;
    let (mut millis, mut cpu) = ([0.0; 2], [None; 2]);
    for (at, calls) in [0, ROUNDS].into_iter().enumerate() {
        let body = format!(
            r#"{{"model":"stub-t{TOKENS}-c{calls}","input":"Count.","store":false,"tools":[{{"type":"mcp","server_label":"noop","require_approval":"never"}}]}}"#
        );
        let mut found = Vec::new();
        let mut before = None;
        // The first ones open connections and read the list of tools.
        for time in 0..times + 2 {
            if time == 2 {
                before = tree.as_ref().and_then(Tree::cpu_micros_fine);
                found.clear();
            }
            let answer = client
                .post(path(Api::Responses), body.as_bytes(), b"")
                .await?;
            check::tool_response(TOKENS, calls, &answer)
                .map_err(|fault| format!("the tool loop: {fault}"))?;
            found.push(answer.whole.as_secs_f64() * 1000.0);
        }
        let after = tree.as_ref().and_then(Tree::cpu_micros_fine);
        let spent = before.zip(after);
        let spent = spent.map(|(before, after)| after.saturating_sub(before) as f64 / times as f64);
        if let (Some(millis), Some(cpu)) = (millis.get_mut(at), cpu.get_mut(at)) {
            (*millis, *cpu) = (median(found), spent);
        }
    }
    let [plain_millis, tools_millis] = millis;
    let [plain_cpu, tools_cpu] = cpu;
    let rounds = ROUNDS as f64;
    Ok(ToolLoop {
        responses: times,
        plain_millis,
        tools_millis,
        millis_per_round: (tools_millis - plain_millis) / rounds,
        cpu_micros_per_round: plain_cpu
            .zip(tools_cpu)
            .map(|(plain, tools): (f64, f64)| (tools - plain) / rounds),
        processes_mib: tree.and_then(|tree| tree.memory_mib("VmRSS:")),
    })
}
