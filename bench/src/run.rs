//! One benchmark run: measure the servers in turn, print the report.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::RunArguments;
use crate::chain::{self, Chain, Long};
use crate::interpreter::{self, Interpreter};
use crate::load;
use crate::markdown;
use crate::process;
use crate::report::{Report, Row};
use crate::say;
use crate::scenario::{Delivery, HELD_STREAMS, SCENARIOS, Scenario};
use crate::servers::{self, Fleet, Kind, Target};
use crate::table;
use crate::targets;
use crate::toolloop::{self, ToolLoop};

/// Descriptors that a gateway needs for each open stream, and for everything else.
const DESCRIPTORS: usize = 2;
const OTHER_DESCRIPTORS: usize = 500;

/// How much is measured.
struct Effort {
    rounds: usize,
    lasting: Duration,
    chains: usize,
    turns: usize,
    tool_responses: usize,
    held: usize,
    /// Tokens of paced streams.
    paced: (&'static str, usize),
}

impl Effort {
    fn of(arguments: &RunArguments) -> Self {
        if arguments.quick {
            return Self {
                rounds: 1,
                lasting: Duration::from_millis(800),
                chains: 1,
                turns: 5,
                tool_responses: 40,
                held: 1000,
                paced: ("stub-t64-r50", 64),
            };
        }
        Self {
            rounds: 3,
            lasting: Duration::from_secs(2),
            chains: 6,
            turns: 21,
            tool_responses: 200,
            held: HELD_STREAMS,
            paced: ("stub-t256-r50", 256),
        }
    }

    /// The scenario as this run measures it.
    fn adapted(&self, scenario: &Scenario, descriptors: usize) -> Scenario {
        let mut scenario = *scenario;
        if let Delivery::Paced(_) = scenario.delivery {
            (scenario.model, scenario.tokens) = self.paced;
        }
        if let Delivery::Held(_) = scenario.delivery {
            let most = descriptors.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS;
            scenario.concurrency = self.held.min(most);
            if most < self.held {
                say(&format!(
                    "{most} open streams: the limit of descriptors allows no more"
                ));
            }
        }
        scenario
    }

    fn rounds_of(&self, scenario: &Scenario) -> usize {
        match scenario.delivery {
            Delivery::Held(_) => 1,
            Delivery::Plain | Delivery::Burst | Delivery::Paced(_) => self.rounds,
        }
    }
}

/// Runs what the command line asks for.
pub(crate) async fn run(arguments: RunArguments) -> Result<(), String> {
    let begun = Instant::now();
    let effort = Effort::of(&arguments);
    let descriptors = process::raise_descriptors();
    let machine = process::machine();
    let mut fleet = Fleet::new(arguments.stub_port, arguments.gateway.as_deref()).await?;
    let others = servers::others(&arguments.against)?;
    let facts = if wanted(&arguments, "process") {
        say("start ...");
        Some(fleet.facts().await?)
    } else {
        None
    };
    let mut rows = Vec::new();
    for scenario in SCENARIOS.iter().filter(|it| wanted(&arguments, it.name)) {
        say(&format!("{} ...", scenario.name));
        let scenario = effort.adapted(scenario, descriptors);
        rows.extend(measure(&scenario, &mut fleet, &others, &effort).await?);
    }
    let mut report = Report {
        machine,
        load_after: String::new(),
        command: command(),
        seconds: 0.0,
        process: facts,
        rows,
        chains: chains(&arguments, &mut fleet, &effort).await?,
        long: long(&arguments, &mut fleet, &effort).await?,
        tools: tools(&arguments, &mut fleet, &effort).await?,
        interpreter: code_interpreter(&arguments).await,
        goals: Vec::new(),
    };
    report.goals = targets::judge(&report);
    report.load_after = process::load_average();
    report.seconds = begun.elapsed().as_secs_f64();
    finish(&report, &arguments)
}

/// As it can be typed again.
fn command() -> String {
    let given: Vec<String> = std::env::args().skip(2).collect();
    format!("bench/run {}", given.join(" "))
        .trim_end()
        .to_owned()
}

/// Whether the command line asks for a scenario.
fn wanted(arguments: &RunArguments, name: &str) -> bool {
    let asked = &arguments.only;
    asked.is_empty() || asked.iter().any(|part| name.contains(part.as_str()))
}

/// Servers take turns within each round, so that a disturbance of the machine meets all of them.
async fn measure(
    scenario: &Scenario,
    fleet: &mut Fleet,
    others: &[Target],
    effort: &Effort,
) -> Result<Vec<Row>, String> {
    let mut targets = Vec::new();
    for kind in scenario.servers {
        if matches!(scenario.delivery, Delivery::Held(_)) {
            // Memory that earlier loads left allocated would be taken for these streams'.
            fleet.stop(*kind);
        }
        targets.extend(fleet.target(*kind).await?);
    }
    targets.extend(others.iter().cloned());
    let mut found: Vec<Vec<load::Round>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.rounds_of(scenario) {
        for (target, rounds) in targets.iter().zip(&mut found) {
            rounds.push(load::round(scenario, target, effort.lasting).await?);
        }
    }
    let rows = targets.iter().zip(&found);
    Ok(rows
        .map(|(target, rounds)| Row::new(scenario, &target.name, rounds))
        .collect())
}

async fn chains(
    arguments: &RunArguments,
    fleet: &mut Fleet,
    effort: &Effort,
) -> Result<Vec<Chain>, String> {
    let mut chains = Vec::new();
    if wanted(arguments, "chain") {
        say("chain ...");
        for kind in [Kind::Stored, Kind::Postgres, Kind::Redis] {
            if let Some(target) = fleet.target(kind).await? {
                chains.push(chain::measure(&target, effort.chains).await?);
            }
        }
    }
    for kind in [Kind::Postgres, Kind::Redis, Kind::TwoWorkers] {
        fleet.stop(kind);
    }
    Ok(chains)
}

async fn long(
    arguments: &RunArguments,
    fleet: &mut Fleet,
    effort: &Effort,
) -> Result<Option<Long>, String> {
    if !wanted(arguments, "history-5mb") {
        return Ok(None);
    }
    say("history-5mb ...");
    let direct = fleet.target(Kind::Direct).await?;
    let relay = fleet.target(Kind::Relay).await?;
    let stored = fleet.target(Kind::Stored).await?;
    let (Some(direct), Some(relay), Some(stored)) = (direct, relay, stored) else {
        return Ok(None);
    };
    let measured = chain::long(&stored, (&direct, &relay), effort.turns).await?;
    Ok(Some(measured))
}

async fn tools(
    arguments: &RunArguments,
    fleet: &mut Fleet,
    effort: &Effort,
) -> Result<Option<ToolLoop>, String> {
    if !wanted(arguments, "tool-loop") {
        return Ok(None);
    }
    say("tool-loop ...");
    let Some(target) = fleet.target(Kind::Tools).await? else {
        return Ok(None);
    };
    let measured = toolloop::measure(&target, effort.tool_responses).await?;
    fleet.stop(Kind::Tools);
    Ok(Some(measured))
}

async fn code_interpreter(arguments: &RunArguments) -> Option<Interpreter> {
    let by_name = arguments
        .only
        .iter()
        .any(|part| "interpreter".contains(part.as_str()));
    if !(by_name || arguments.only.is_empty() && !arguments.quick) {
        return None;
    }
    say("interpreter ...");
    let measured = interpreter::measure(arguments.bundle.as_deref()).await;
    measured
        .inspect_err(|why| say(&format!("left out: the code interpreter ({why})")))
        .ok()
}

fn finish(report: &Report, arguments: &RunArguments) -> Result<(), String> {
    if let Some(path) = &arguments.json {
        write_json(report, path)?;
    }
    std::io::stdout()
        .write_all(table::whole(report).as_bytes())
        .map_err(|error| format!("cannot print: {error}"))?;
    let faults: usize = report.rows.iter().map(|row| row.faults).sum();
    if faults > 0 {
        return Err(format!("{faults} answers were not right"));
    }
    if arguments.markdown {
        markdown::update(report)?;
    }
    Ok(())
}

fn write_json(report: &Report, path: &Path) -> Result<(), String> {
    let text =
        serde_json::to_vec_pretty(report).map_err(|error| format!("cannot write JSON: {error}"))?;
    std::fs::write(path, text).map_err(|error| format!("cannot write the JSON file: {error}"))
}
