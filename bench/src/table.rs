//! The report as Markdown: for the terminal, for the documentation, and in short for the README.

use std::fmt::Write as _;

use crate::chain::{Chain, Long};
use crate::interpreter::Interpreter;
use crate::report::{Report, Row};
use crate::servers::Kind;
use crate::targets::Goal;
use crate::toolloop::ToolLoop;

/// Everything.
pub(crate) fn whole(report: &Report) -> String {
    let mut out = heading(report);
    if !report.rows.is_empty() {
        out.push_str(&rows(report));
    }
    if !report.chains.is_empty() {
        out.push_str(&chains(&report.chains));
    }
    if let Some(long) = &report.long {
        out.push_str(&long_history(long));
    }
    if let Some(tools) = &report.tools {
        out.push_str(&tool_loop(tools));
    }
    if let Some(interpreter) = &report.interpreter {
        out.push_str(&code_interpreter(interpreter));
    }
    out.push_str(&goals(&report.goals));
    for row in report.rows.iter().filter(|row| row.faults > 0) {
        let fault = row.first_fault.as_deref().unwrap_or_default();
        line(
            &mut out,
            format_args!("\n{} {}: {fault}", row.scenario, row.server),
        );
    }
    out
}

/// Machine, command and goals.
pub(crate) fn short(report: &Report) -> String {
    format!("{}{}", heading(report), goals(&report.goals))
}

fn heading(report: &Report) -> String {
    format!(
        "`{}`, {:.0} s: {}; after {}.\n",
        report.command, report.seconds, report.machine, report.load_after
    )
}

fn rows(report: &Report) -> String {
    let mut out = String::from(
        "\n| scenario | server | req/s | events/s | p50 ms | p95 ms | p99 ms | byte p50 | byte p99 \
         | delta p50 | delta p99 | CPU µs/req | CPU µs/event | peak MiB | fds | rate ÷ relay \
         | CPU ÷ relay | faults |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in &report.rows {
        let relay = report
            .rows
            .iter()
            .find(|other| other.scenario == row.scenario && other.server == Kind::Relay.name());
        line(
            &mut out,
            format_args!("| {} |", cells(row, relay).join(" | ")),
        );
    }
    out
}

fn cells(row: &Row, relay: Option<&Row>) -> [String; 18] {
    let rate = relay.map(|relay| row.requests_per_second / relay.requests_per_second);
    let cpu =
        relay.and_then(|relay| Some(row.cpu_micros_per_request? / relay.cpu_micros_per_request?));
    [
        row.scenario.to_owned(),
        row.server.clone(),
        format!("{:.0}", row.requests_per_second),
        cell(row.events_per_second, 0),
        format!("{:.2}", row.p50_ms),
        format!("{:.2}", row.p95_ms),
        format!("{:.2}", row.p99_ms),
        format!("{:.2}", row.byte_p50_ms),
        format!("{:.2}", row.byte_p99_ms),
        cell(row.delta_p50_ms, 2),
        cell(row.delta_p99_ms, 2),
        cell(row.cpu_micros_per_request, 0),
        cell(row.cpu_micros_per_event, 2),
        cell(row.peak_mib, 1),
        row.descriptors.map_or_else(none, |it| it.to_string()),
        cell(rate, 2),
        cell(cpu, 2),
        row.faults.to_string(),
    ]
}

fn chains(chains: &[Chain]) -> String {
    let mut out = String::from(
        "\n| chain | turns | CPU µs/turn | CPU µs/item | p50 ms |\n|---|---|--:|--:|--:|\n",
    );
    for chain in chains {
        for span in [&chain.early, &chain.late] {
            line(
                &mut out,
                format_args!(
                    "| {} | {} to {} | {} | {} | {:.2} |",
                    chain.server,
                    span.from,
                    span.to,
                    cell(span.cpu_micros_per_turn, 0),
                    cell(span.cpu_micros_per_item, 1),
                    span.millis_per_turn
                ),
            );
        }
    }
    out
}

fn long_history(long: &Long) -> String {
    format!(
        "\n| a turn behind {:.1} MB of history | p50 ms | CPU ms |\n|---|--:|--:|\n\
         | direct, all of it in the request | {:.1} | – |\n\
         | relay, the same | {:.1} | {} |\n| {} | {:.1} | {} |\n",
        long.history_bytes as f64 / 1e6,
        long.direct_millis,
        long.relay_millis,
        cell(long.relay_cpu_micros.map(|it| it / 1000.0), 1),
        long.server,
        long.millis,
        cell(long.cpu_micros_per_turn.map(|it| it / 1000.0), 1),
    )
}

fn tool_loop(tools: &ToolLoop) -> String {
    format!(
        "\n| tool loop with a no-op MCP server | |\n|---|--:|\n\
         | response without calls, p50 ms | {:.2} |\n\
         | response with 8 rounds, p50 ms | {:.2} |\n\
         | a round, ms | {:.2} |\n\
         | a round, CPU µs of gateway, MCP runtime and server | {} |\n\
         | those processes together, MiB | {} |\n",
        tools.plain_millis,
        tools.tools_millis,
        tools.millis_per_round,
        cell(tools.cpu_micros_per_round, 0),
        cell(tools.processes_mib, 1),
    )
}

fn code_interpreter(interpreter: &Interpreter) -> String {
    let mut out = String::from("\n| code interpreter | |\n|---|--:|\n");
    for (name, figure) in &interpreter.figures {
        line(&mut out, format_args!("| {name} | {figure} |"));
    }
    out
}

fn goals(goals: &[Goal]) -> String {
    let mut out = String::from(
        "\n| goal | direct | relay | gateway | at most or least | measured | |\n\
         |---|--:|--:|--:|--:|--:|---|\n",
    );
    for goal in goals {
        let verdict = if goal.met { "met" } else { "**missed**" };
        line(
            &mut out,
            format_args!(
                "| {} | {} | {} | {} | {} | {:.2} | {verdict} |",
                goal.name,
                cell(goal.direct, 2),
                cell(goal.relay, 2),
                cell(goal.gateway, 2),
                goal.bound,
                goal.measured
            ),
        );
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _written: std::fmt::Result = writeln!(out, "{text}");
}

fn cell(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(none, |figure| format!("{figure:.digits$}"))
}

fn none() -> String {
    "–".to_owned()
}
