//! What is measured: the list of loads, and the request bodies that make them.

use std::time::Duration;

use crate::check::Api;
use crate::servers::Kind;

/// One load: `concurrency` connections, each sending its next request when the last is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The stub's knobs.
    pub(crate) model: &'static str,
    pub(crate) delivery: Delivery,
    pub(crate) concurrency: usize,
    /// Tokens an answer.
    pub(crate) tokens: usize,
    /// Who is asked, in the order of the table.
    pub(crate) servers: &'static [Kind],
}

/// How answers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Plain,
    /// Streamed, as fast as it goes.
    Burst,
    /// Streamed at the pace of tokens this far apart.
    Paced(Duration),
    /// As paced, and each connection asks once: streams that are open at the same time.
    Held(Duration),
}

impl Delivery {
    pub(crate) fn streams(self) -> bool {
        self != Self::Plain
    }

    /// Connections begin spread over this long.
    pub(crate) fn spread(self) -> Duration {
        match self {
            Self::Plain | Self::Burst => Duration::ZERO,
            Self::Paced(period) | Self::Held(period) => period,
        }
    }
}

const USUAL: &[Kind] = &[Kind::Direct, Kind::Relay, Kind::Gateway, Kind::Stored];
/// Also what a database server, a cache and a second worker change.
const ALL: &[Kind] = &[
    Kind::Direct,
    Kind::Relay,
    Kind::Gateway,
    Kind::Stored,
    Kind::Postgres,
    Kind::Redis,
    Kind::TwoWorkers,
];
const WORKERS: &[Kind] = &[
    Kind::Direct,
    Kind::Relay,
    Kind::Gateway,
    Kind::Stored,
    Kind::TwoWorkers,
];

/// Streams of [`HELD`].
pub(crate) const HELD_STREAMS: usize = 5000;
/// Their name, for what judges them.
pub(crate) const HELD: &str = "held-c5000";

/// Every load, in the order of the table.
pub(crate) const SCENARIOS: [Scenario; 9] = [
    plain("plain-c1", 1, USUAL),
    plain("plain-c16", 16, USUAL),
    plain("plain-c64", 64, ALL),
    plain("plain-c256", 256, USUAL),
    burst("stream-c1", 1, USUAL),
    burst("stream-c64", 64, WORKERS),
    Scenario {
        name: "paced-c64",
        model: "stub-t256-r50",
        delivery: Delivery::Paced(Duration::from_millis(20)),
        concurrency: 64,
        tokens: 256,
        servers: USUAL,
    },
    // Behind the others: the memory that it leaves allocated would be taken for theirs.
    burst("stream-c1000", 1000, USUAL),
    Scenario {
        name: HELD,
        model: "stub-t6-p2500",
        delivery: Delivery::Held(Duration::from_secs(5)),
        concurrency: HELD_STREAMS,
        tokens: 6,
        servers: &[Kind::Relay, Kind::Gateway],
    },
];

const fn plain(name: &'static str, concurrency: usize, servers: &'static [Kind]) -> Scenario {
    Scenario {
        name,
        model: "stub-t64",
        delivery: Delivery::Plain,
        concurrency,
        tokens: 64,
        servers,
    }
}

const fn burst(name: &'static str, concurrency: usize, servers: &'static [Kind]) -> Scenario {
    Scenario {
        name,
        model: "stub-t256",
        delivery: Delivery::Burst,
        concurrency,
        tokens: 256,
        servers,
    }
}

/// Where requests of an API go.
pub(crate) fn path(api: Api) -> &'static str {
    match api {
        Api::Chat => "/v1/chat/completions",
        Api::Responses => "/v1/responses",
    }
}

/// Whether a gateway is asked to keep the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    No,
    Yes,
}

/// The body of a request.
pub(crate) fn body(model: &str, api: Api, keep: Keep, delivery: Delivery) -> Vec<u8> {
    let stream = delivery.streams();
    match api {
        Api::Chat => format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"Say something."}}],"stream":{stream}}}"#
        ),
        Api::Responses => format!(
            r#"{{"model":"{model}","input":"Say something.","store":{},"stream":{stream}}}"#,
            keep == Keep::Yes
        ),
    }
    .into_bytes()
}
