//! One measured round of one scenario against one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::check::{self, Api};
use crate::client::Client;
use crate::process;
use crate::scenario::{Delivery, Keep, Scenario, body, path};
use crate::stub::WORD;

/// Tokens of a paced stream come this far apart; connections start spread over it.
const PACE_MICROS: usize = 20_000;

/// A server under measurement.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its row in the table.
    pub(crate) name: String,
    /// `host:port`.
    pub(crate) address: String,
    /// Of the process whose CPU and memory count; unknown for servers that we did not start.
    pub(crate) pid: Option<u32>,
    pub(crate) api: Api,
    pub(crate) keep: Keep,
}

/// What a round found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// µs from sending to the end, ascending.
    pub(crate) wholes: Vec<u64>,
    /// µs from sending to the first token of a stream, or the first byte; ascending.
    pub(crate) firsts: Vec<u64>,
    pub(crate) seconds: f64,
    pub(crate) cpu_micros: Option<u64>,
    pub(crate) peak_mib: Option<f64>,
    /// Answers that were not right, as sentences.
    pub(crate) faults: Vec<String>,
}

/// What every connection of a round needs.
struct Plan {
    api: Api,
    body: Vec<u8>,
    delivery: Delivery,
    tokens: usize,
    until: Instant,
}

/// Opens the connections, warms each with one request, and measures for `lasting`; answers that
/// have begun by then are waited for.
pub(crate) async fn round(
    scenario: &Scenario,
    target: &Target,
    lasting: Duration,
) -> Result<Round, String> {
    let clients = connect(scenario, target).await?;
    if let Some(pid) = target.pid {
        process::reset_peak(pid);
    }
    let before = target.pid.and_then(process::cpu_micros);
    let begun = Instant::now();
    let plan = Arc::new(Plan {
        api: target.api,
        body: body(scenario.model, target.api, target.keep, scenario.delivery),
        delivery: scenario.delivery,
        tokens: scenario.tokens,
        until: begun + lasting,
    });
    let mut connections = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let offset = match scenario.delivery {
            Delivery::Paced => PACE_MICROS * number / scenario.concurrency,
            Delivery::Plain | Delivery::Burst => 0,
        };
        let offset = Duration::from_micros(offset as u64);
        connections.spawn(drive(client, Arc::clone(&plan), offset));
    }
    let mut total = Round::default();
    for part in connections.join_all().await {
        total.wholes.extend(part.wholes);
        total.firsts.extend(part.firsts);
        total.faults.extend(part.faults);
    }
    total.seconds = begun.elapsed().as_secs_f64();
    let after = target.pid.and_then(process::cpu_micros);
    total.cpu_micros = before.zip(after).map(|(before, after)| after - before);
    total.peak_mib = target
        .pid
        .and_then(|pid| process::memory_mib(pid, "VmHWM:"));
    total.wholes.sort_unstable();
    total.firsts.sort_unstable();
    Ok(total)
}

/// Warm connections: each has one plain answer behind it.
async fn connect(scenario: &Scenario, target: &Target) -> Result<Vec<Client>, String> {
    let warm = body(scenario.model, target.api, target.keep, Delivery::Plain);
    let mut clients = Vec::new();
    for _ in 0..scenario.concurrency {
        let mut client = Client::connect(&target.address).await?;
        let answer = client.post(path(target.api), &warm, b"").await?;
        check::plain(target.api, scenario.tokens, &answer)
            .map_err(|fault| format!("{} answers wrongly: {fault}", target.name))?;
        clients.push(client);
    }
    Ok(clients)
}

/// One connection until the round is over, or until it breaks.
async fn drive(mut client: Client, plan: Arc<Plan>, offset: Duration) -> Round {
    let mut found = Round::default();
    tokio::time::sleep(offset).await;
    let marker = match plan.delivery {
        Delivery::Plain => "",
        Delivery::Burst | Delivery::Paced => WORD,
    };
    while Instant::now() < plan.until {
        let sent = client.post(path(plan.api), &plan.body, marker.as_bytes());
        let answer = match sent.await {
            Ok(answer) => answer,
            Err(fault) => {
                found.faults.push(fault);
                return found;
            }
        };
        found.wholes.push(answer.whole.as_micros() as u64);
        found.firsts.push(answer.first.as_micros() as u64);
        let right = match plan.delivery {
            Delivery::Plain => check::plain(plan.api, plan.tokens, &answer),
            Delivery::Burst | Delivery::Paced => check::stream(plan.api, plan.tokens, &answer),
        };
        found.faults.extend(right.err());
    }
    found
}
