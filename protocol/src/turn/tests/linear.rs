//! What a request may have thousands of costs twice as much where there is twice as much of it: one
//! request stops no worker.

use std::time::{Duration, Instant};

use super::mcp::{Mcp, listed};
use super::*;
use crate::history;
use crate::responses::item::Item;
use crate::turn::effect::Claimed;

/// Each took ten times as long when its loop was quadratic; the machine may be busy.
const LONGEST: Duration = Duration::from_secs(15);

fn items(items: &[Value]) -> Vec<Item> {
    history::parse_items(&json!(items).to_string()).unwrap()
}

fn item_id(response: usize) -> String {
    format!("msg_{response:032x}0001")
}

fn message(response: usize) -> Value {
    json!({"type": "message", "id": item_id(response), "role": "user", "content": "said"})
}

#[track_caller]
fn in_time(begun: Instant) {
    assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
}

/// An agent's client refers to all that came before, of which each step is a response of its own.
#[test]
fn s1_4_s1_5_thousands_of_references_to_as_many_responses() {
    let count = 10_000;
    let references: Vec<Value> = (0..count).map(|at| json!({"id": item_id(at)})).collect();
    let found = items(&(0..count).map(message).collect::<Vec<_>>());
    let body = json!({"model": "m", "input": references});
    let mut bench = Bench::new(&body);
    let begun = Instant::now();
    let asked = bench.step(Input::History(Vec::new()));
    assert!(asked.len() == 1 && asked[0].starts_with("find ["));
    assert_eq!(bench.step(Input::Found(found)), ["call"]);
    in_time(begun);
    // The same into a history of as many items.
    let body = json!({"model": "m", "previous_response_id": "resp_1", "input": references});
    let known = items(&(0..count).map(message).collect::<Vec<_>>());
    let mut bench = Bench::new(&body);
    let begun = Instant::now();
    assert_eq!(bench.step(Input::History(known)), ["call"]);
    in_time(begun);
}

#[test]
fn s1_5_thousands_of_approvals() {
    let count = 5_000;
    let request = |at: usize| {
        json!({"type": "mcp_approval_request", "id": format!("mcpr_{at}"), "server_label": "s",
            "name": "add", "arguments": "{}"})
    };
    let word = |at: usize, approve: bool| {
        json!({"type": "mcp_approval_response", "id": format!("w{at}"),
            "approval_request_id": format!("mcpr_{at}"), "approve": approve})
    };
    let history: Vec<Value> = (0..count).map(request).collect();
    for approve in [false, true] {
        let input: Vec<Value> = (0..count).map(|at| word(at, approve)).collect();
        let history = items(&history);
        let begun = Instant::now();
        let mut turn = Mcp::new(&json!({}), &json!({"input": input}), history);
        turn.answer(Ok(listed(&["add"])));
        if approve {
            turn.step(Input::Claimed(Claimed::Yes));
            assert_eq!(turn.runs.len(), count);
            for _ in 0..count {
                turn.gives("done");
            }
        }
        assert_eq!(turn.bodies.len(), 1);
        in_time(begun);
    }
}

#[test]
fn s1_5_thousands_of_loaded_tools() {
    let list = |from: usize| -> Value {
        let tools: Vec<Value> = (from..from + 128)
            .map(|at| json!({"type": "function", "name": format!("f{at}"), "parameters": {}}))
            .collect();
        json!({"type": "additional_tools", "role": "developer", "tools": tools})
    };
    // As many as may be, and the same again and again: what was loaded last holds.
    let mut input = vec![json!({"role": "user", "content": "x"})];
    for _ in 0..20 {
        input.extend((0..8).map(|at| list(128 * at)));
    }
    let mut bench = Bench::new(&json!({"model": "m", "input": input}));
    let begun = Instant::now();
    assert_eq!(bench.step(Input::History(Vec::new())), ["call"]);
    in_time(begun);
    let mut many = vec![json!({"role": "user", "content": "x"})];
    many.extend((0..150).map(|at| list(128 * at)));
    let mut bench = Bench::new(&json!({"model": "m", "input": many}));
    let begun = Instant::now();
    assert_eq!(
        bench.step(Input::History(Vec::new())),
        ["refuse 400", "end"]
    );
    in_time(begun);
}
