//! One measured round of one scenario against one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::answers::WORD;
use crate::check::{self, Api};
use crate::client::Client;
use crate::process::Tree;
use crate::scenario::{Delivery, Scenario, body, path};
use crate::servers::Target;

/// Connections that are opened at the same time.
const OPENING: usize = 64;

/// What a round found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// µs from sending to the end, ascending.
    pub(crate) wholes: Vec<u64>,
    /// µs from sending to the first byte of the body, ascending.
    pub(crate) bytes: Vec<u64>,
    /// µs from sending to the first token of a stream, ascending.
    pub(crate) deltas: Vec<u64>,
    pub(crate) seconds: f64,
    pub(crate) cpu_micros: Option<u64>,
    pub(crate) peak_mib: Option<f64>,
    /// Of the peak, what was not there before the round.
    pub(crate) grown_mib: Option<f64>,
    /// Half-way through.
    pub(crate) descriptors: Option<usize>,
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
    let tree = target.pid.map(Tree::of);
    let resident = tree.as_ref().and_then(|tree| tree.memory_mib("VmRSS:"));
    let clients = connect(scenario, target).await?;
    if let Some(tree) = &tree {
        tree.reset_peak();
    }
    let before = tree.as_ref().and_then(Tree::cpu_micros);
    let begun = Instant::now();
    let plan = Arc::new(Plan {
        api: target.api,
        body: body(scenario.model, target.api, target.keep, scenario.delivery),
        delivery: scenario.delivery,
        tokens: scenario.tokens,
        until: begun + lasting,
    });
    let spread = scenario.delivery.spread().as_micros() as usize;
    let mut connections = JoinSet::new();
    let mut clients = clients.into_iter();
    for number in 0..scenario.concurrency {
        let offset = Duration::from_micros((spread * number / scenario.concurrency) as u64);
        let plan = Arc::clone(&plan);
        let (address, client) = (target.address.clone(), clients.next());
        connections.spawn(async move {
            // A timer of no time still waits for the clock's next millisecond.
            if !offset.is_zero() {
                tokio::time::sleep(offset).await;
            }
            begin(client, &address, &plan).await
        });
    }
    let half_way = async {
        tokio::time::sleep(scenario.delivery.spread() + lasting / 2).await;
        tree.as_ref().and_then(Tree::descriptors)
    };
    let (parts, descriptors) = tokio::join!(connections.join_all(), half_way);
    let mut total = Round {
        descriptors,
        seconds: begun.elapsed().as_secs_f64(),
        ..Round::default()
    };
    let after = tree.as_ref().and_then(Tree::cpu_micros);
    total.cpu_micros = before.zip(after).map(|(before, after)| after - before);
    total.peak_mib = tree.as_ref().and_then(|tree| tree.memory_mib("VmHWM:"));
    total.grown_mib = total.peak_mib.zip(resident).map(|(peak, was)| peak - was);
    for part in parts {
        total.wholes.extend(part.wholes);
        total.bytes.extend(part.bytes);
        total.deltas.extend(part.deltas);
        total.faults.extend(part.faults);
    }
    for times in [&mut total.wholes, &mut total.bytes, &mut total.deltas] {
        times.sort_unstable();
    }
    Ok(total)
}

/// Open connections, each with one plain answer behind it; none for those that ask only once.
async fn connect(scenario: &Scenario, target: &Target) -> Result<Vec<Client>, String> {
    let mut clients = Vec::new();
    if matches!(scenario.delivery, Delivery::Held(_)) {
        return Ok(clients);
    }
    while clients.len() < scenario.concurrency {
        let mut opening = JoinSet::new();
        for _ in 0..OPENING.min(scenario.concurrency - clients.len()) {
            opening.spawn(warm(*scenario, target.clone()));
        }
        for client in opening.join_all().await {
            clients.push(client?);
        }
    }
    Ok(clients)
}

async fn warm(scenario: Scenario, target: Target) -> Result<Client, String> {
    let mut client = Client::connect(&target.address).await?;
    // A paced model answers what is not streamed at once.
    let body = body(scenario.model, target.api, target.keep, Delivery::Plain);
    let answer = client.post(path(target.api), &body, b"").await?;
    check::plain(target.api, scenario.tokens, &answer)
        .map_err(|fault| format!("{} answers wrongly: {fault}", target.name))?;
    Ok(client)
}

/// Connects where that is still to be done: a server gives up on connections that stay silent.
async fn begin(client: Option<Client>, address: &str, plan: &Plan) -> Round {
    let client = match client {
        Some(client) => Ok(client),
        None => Client::connect(address).await,
    };
    match client {
        Ok(client) => drive(client, plan).await,
        Err(fault) => Round {
            faults: vec![fault],
            ..Round::default()
        },
    }
}

/// One connection until the round is over, or until it breaks.
async fn drive(mut client: Client, plan: &Plan) -> Round {
    let mut found = Round::default();
    let streams = plan.delivery.streams();
    let marker = if streams { WORD } else { "" };
    loop {
        let sent = client.post(path(plan.api), &plan.body, marker.as_bytes());
        let answer = match sent.await {
            Ok(answer) => answer,
            Err(fault) => {
                found.faults.push(fault);
                return found;
            }
        };
        found.wholes.push(answer.whole.as_micros() as u64);
        found.bytes.push(answer.byte.as_micros() as u64);
        let right = if streams {
            found.deltas.push(answer.delta.as_micros() as u64);
            check::stream(plan.api, plan.tokens, &answer)
        } else {
            check::plain(plan.api, plan.tokens, &answer)
        };
        found.faults.extend(right.err());
        if matches!(plan.delivery, Delivery::Held(_)) || Instant::now() >= plan.until {
            return found;
        }
    }
}
