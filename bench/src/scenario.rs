//! What is measured: the list of loads, and the request bodies that make them.

use crate::check::Api;

/// One load: `concurrency` connections, each sending its next request when the last is answered.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The stub's knobs.
    pub(crate) model: &'static str,
    pub(crate) delivery: Delivery,
    pub(crate) concurrency: usize,
    /// Tokens an answer.
    pub(crate) tokens: usize,
}

/// How answers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Plain,
    /// Streamed, as fast as it goes.
    Burst,
    /// Streamed at 50 tokens a second.
    Paced,
}

/// Every load but the chain, in the order of the table.
pub(crate) const SCENARIOS: [Scenario; 7] = [
    plain("plain-c1", 1),
    plain("plain-c16", 16),
    plain("plain-c64", 64),
    plain("plain-c256", 256),
    burst("stream-c1", 1),
    burst("stream-c64", 64),
    Scenario {
        name: "paced-c64",
        model: "stub-t256-r50",
        delivery: Delivery::Paced,
        concurrency: 64,
        tokens: 256,
    },
];

const fn plain(name: &'static str, concurrency: usize) -> Scenario {
    Scenario {
        name,
        model: "stub-t64",
        delivery: Delivery::Plain,
        concurrency,
        tokens: 64,
    }
}

const fn burst(name: &'static str, concurrency: usize) -> Scenario {
    Scenario {
        name,
        model: "stub-t256",
        delivery: Delivery::Burst,
        concurrency,
        tokens: 256,
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
    let stream = delivery != Delivery::Plain;
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
