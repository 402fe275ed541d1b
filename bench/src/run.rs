//! One benchmark run: start everything, measure the servers in turn, print the report.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::RunArguments;
use crate::chain;
use crate::check::Api;
use crate::load::{self, Target};
use crate::process::{self, Served};
use crate::report::{self, Process, RELAY, Report, Row};
use crate::scenario::{Keep, SCENARIOS, Scenario};
use crate::targets::{self, DIRECT, GATEWAY, STORED};

/// Starts of the gateway of which the median counts.
const STARTS: usize = 5;

/// How much is measured.
struct Effort {
    rounds: usize,
    lasting: Duration,
    chains: usize,
}

/// A temporary folder that goes when this does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let name = format!("vllm-responses-bench-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|error| format!("no temporary folder: {error}"))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the temporary folder of the machine.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Runs what the command line asks for.
pub(crate) async fn run(arguments: RunArguments) -> Result<(), String> {
    let folder = Folder::new()?;
    let effort = effort(&arguments);
    let ours = own_program()?;
    let machine = process::machine();

    let port = arguments.stub_port.map_or_else(process::free_port, Ok)?;
    let mut stub = Command::new(&ours);
    stub.args(["stub", "--port", &port.to_string()]);
    let (stub, _) = process::start(stub, port, "/v1/models").await?;
    let upstream = format!("http://{}", stub.address);

    let port = process::free_port()?;
    let mut relay = Command::new(&ours);
    relay.args([
        "relay",
        "--port",
        &port.to_string(),
        "--upstream",
        &upstream,
    ]);
    let (relay, _) = process::start(relay, port, "/v1/models").await?;

    let program = gateway_program(&arguments, &ours);
    let (gateway, facts) = start_gateway(&program, &upstream, &folder.0).await?;

    let servers = servers(&stub, &relay, &gateway, &arguments.against)?;
    let mut rows = Vec::new();
    for scenario in SCENARIOS.iter().filter(|it| wanted(&arguments, it.name)) {
        say(&format!("{} ...", scenario.name));
        rows.extend(measure(scenario, &servers, &effort).await?);
    }
    let chain = if wanted(&arguments, "chain") {
        say("chain ...");
        Some(chain::measure(&gateway.address, gateway.pid, effort.chains).await?)
    } else {
        None
    };
    let report = Report {
        machine,
        load_after: process::load_average(),
        goals: targets::judge(&rows, &facts, chain.as_ref()),
        process: facts,
        rows,
        chain,
    };
    finish(&report, arguments.json.as_deref())
}

fn effort(arguments: &RunArguments) -> Effort {
    if arguments.quick {
        return Effort {
            rounds: 1,
            lasting: Duration::from_secs(1),
            chains: 2,
        };
    }
    Effort {
        rounds: 3,
        lasting: Duration::from_secs(2),
        chains: 8,
    }
}

/// Whether the command line asks for a scenario.
fn wanted(arguments: &RunArguments, name: &str) -> bool {
    let asked = &arguments.scenario;
    asked.is_empty() || asked.iter().any(|part| name.contains(part.as_str()))
}

/// Servers take turns within each round, so that a disturbance of the machine meets all of them.
async fn measure(
    scenario: &Scenario,
    servers: &[Target],
    effort: &Effort,
) -> Result<Vec<Row>, String> {
    let mut found: Vec<Vec<load::Round>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.rounds {
        for (server, rounds) in servers.iter().zip(&mut found) {
            rounds.push(load::round(scenario, server, effort.lasting).await?);
        }
    }
    let rows = servers.iter().zip(&found);
    Ok(rows
        .map(|(server, rounds)| Row::new(scenario, &server.name, rounds))
        .collect())
}

/// Starts the gateway several times, each with a new database; the last one stays.
async fn start_gateway(
    program: &Path,
    upstream: &str,
    folder: &Path,
) -> Result<(Served, Process), String> {
    let mut times = Vec::new();
    loop {
        let port = process::free_port()?;
        let log = File::create(folder.join("gateway.log"));
        let mut gateway = Command::new(program);
        gateway
            .args(["serve", "--upstream", upstream])
            .args(["--gateway-host", "127.0.0.1"])
            .args(["--gateway-port", &port.to_string()])
            // Neither `.env` nor a variable of this shell may change what is measured.
            .current_dir(folder)
            .env_clear()
            .env("VR_DB_PATH", folder.join(format!("{}.db", times.len())))
            .stderr(log.map_err(|error| format!("cannot write a log: {error}"))?);
        let (served, ready) = process::start(gateway, port, "/health/ready").await?;
        times.push(ready.as_secs_f64() * 1000.0);
        if times.len() == STARTS {
            let idle = process::memory_mib(served.pid, "VmRSS:");
            let size = fs::metadata(program).map_err(|error| format!("no program: {error}"))?;
            let facts = Process {
                ready_ms: report::median(times),
                idle_mib: idle.ok_or("the gateway is gone")?,
                binary_mb: size.len() as f64 / 1e6,
            };
            return Ok((served, facts));
        }
    }
}

fn servers(
    stub: &Served,
    relay: &Served,
    gateway: &Served,
    against: &[String],
) -> Result<Vec<Target>, String> {
    let target = |name: &str, served: &Served, api, keep| Target {
        name: name.to_owned(),
        address: served.address.clone(),
        pid: Some(served.pid),
        api,
        keep,
    };
    let mut servers = vec![
        target(DIRECT, stub, Api::Chat, Keep::No),
        target(RELAY, relay, Api::Chat, Keep::No),
        target(GATEWAY, gateway, Api::Responses, Keep::No),
        target(STORED, gateway, Api::Responses, Keep::Yes),
    ];
    for other in against {
        let (name, url) = other
            .split_once('=')
            .ok_or("`--against` wants NAME=URL, such as other=http://127.0.0.1:9000")?;
        servers.push(Target {
            name: name.to_owned(),
            address: url
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .to_owned(),
            pid: None,
            api: Api::Responses,
            keep: Keep::Yes,
        });
    }
    Ok(servers)
}

fn own_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))
}

fn gateway_program(arguments: &RunArguments, ours: &Path) -> PathBuf {
    let beside = || ours.with_file_name("vllm-responses");
    let program = arguments.gateway.clone().unwrap_or_else(beside);
    // The gateway is started in another folder.
    fs::canonicalize(&program).unwrap_or(program)
}

fn finish(report: &Report, json: Option<&Path>) -> Result<(), String> {
    if let Some(path) = json {
        let text = serde_json::to_vec_pretty(report)
            .map_err(|error| format!("cannot write JSON: {error}"))?;
        fs::write(path, text).map_err(|error| format!("cannot write the JSON file: {error}"))?;
    }
    std::io::stdout()
        .write_all(report::table(report).as_bytes())
        .map_err(|error| format!("cannot print: {error}"))?;
    let faults: usize = report.rows.iter().map(|row| row.faults).sum();
    match faults {
        0 => Ok(()),
        _ => Err(format!("{faults} answers were not right")),
    }
}

/// Progress; the table alone goes to standard output.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
