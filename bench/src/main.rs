//! Benchmark of the gateway: a stub model server, a raw relay as the floor, and a load generator
//! that checks every answer while it measures. `bench/run` starts it; `docs/performance.md` says
//! what the columns mean.

#![expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "measurements are far below the limits of their types and are rounded for print"
)]

mod answers;
mod chain;
mod check;
mod client;
mod interpreter;
mod load;
mod markdown;
mod noop;
mod process;
mod relay;
mod report;
mod run;
mod scenario;
mod servers;
mod services;
mod stub;
mod table;
mod targets;
mod toolloop;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Measures the gateway beside a raw relay and the bare stub.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves a model server that costs next to nothing.
    Stub {
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
    },
    /// Passes bytes on without reading them.
    Relay {
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// Where to, such as `http://127.0.0.1:8000`.
        #[arg(long)]
        upstream: String,
    },
    /// Speaks MCP over standard input and output; its one tool does nothing.
    Noop,
    /// Starts stub, relay and gateway, measures them in turn and prints one table.
    Run(RunArguments),
}

/// What `run` can be told.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// One short round instead of three.
    #[arg(long)]
    quick: bool,
    /// Measure only scenarios whose name contains this; may be repeated. Beside those of the table
    /// there are `process`, `chain`, `history-5mb`, `tool-loop` and `interpreter`.
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    /// Write everything measured as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Put the figures between the markers of docs/performance.md and README.md.
    #[arg(long)]
    markdown: bool,
    /// Another server of the Responses API that has the stub as its model server; may be repeated.
    #[arg(long, value_name = "NAME=URL")]
    against: Vec<String>,
    /// Port of the stub, for the servers of `--against`; by default any free one.
    #[arg(long)]
    stub_port: Option<u16>,
    /// The gateway's program; by default the one beside this program.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Folder of the code interpreter's bundle; by default the newest that is installed.
    #[arg(long)]
    bundle: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Stub { port } => on_one_thread(stub::serve(port)),
        Command::Relay { port, upstream } => relay::serve(port, upstream),
        Command::Noop => noop::serve(),
        Command::Run(arguments) => on_one_thread(run::run(arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(&format!("error: {problem}"));
            ExitCode::FAILURE
        }
    }
}

/// Progress and problems; the table alone goes to standard output.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn on_one_thread(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?
        .block_on(work)
}
