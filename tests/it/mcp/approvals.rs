//! Approvals on the real program: a call is made once, whoever approves it and wherever.
//!
//! Mutation tried, and it failed: a store that gives a taken request away. Not tried yet: in the machine,
//! an approved call that runs without its claim.

use std::path::Path;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use super::calls;
use super::peer::Peer;
use crate::harness::postgres::FreshDatabase;
use crate::harness::{Client, Fake, Script, TestGateway};

/// A gateway with two workers on this database.
fn gateway(fake: &Fake, peer: &Peer, database: &str) -> TestGateway {
    TestGateway::on(&fake.url())
        .flag("--gateway-workers")
        .flag("2")
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &peer.address.to_string())
        .db(Path::new(database))
        .start()
}

fn tools(peer: &Peer) -> Value {
    json!([{"type": "mcp", "server_label": "r", "server_url": peer.url()}])
}

/// A response that waits for approval: its id, and that of the request.
fn waiting(fake: &Fake, client: Client, peer: &Peer, store: bool) -> (Value, Value) {
    fake.set("m", [calls(&[("mcp__r__echo", r#"{"text":"hi"}"#)])]);
    let body = json!({"model": "m", "input": "x", "tools": tools(peer), "store": store});
    let resource = client.create(&body).json();
    let item = resource["output"].as_array().unwrap().last().unwrap();
    assert_eq!(item["type"], "mcp_approval_request", "{resource}");
    (resource["id"].clone(), item.clone())
}

fn approves(request: &Value) -> Value {
    json!({"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": true})
}

/// Sends these bodies at once, to one client after the other; gives the statuses.
fn at_once(clients: &[Client], bodies: &[Value]) -> Vec<u16> {
    let start = Barrier::new(bodies.len());
    thread::scope(|scope| {
        let asks = bodies.iter().zip(clients.iter().cycle());
        let asks = asks.map(|(body, client)| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                client.create(body).status
            })
        });
        let asks: Vec<_> = asks.collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    })
}

#[track_caller]
fn assert_once(statuses: &[u16]) {
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(
        (count(200), count(400)),
        (1, statuses.len() - 1),
        "{statuses:?}"
    );
}

fn race(database: &str) {
    let (fake, peer) = (Fake::start(), Peer::start(&["echo"]));
    let gateways = [
        gateway(&fake, &peer, database),
        gateway(&fake, &peer, database),
    ];
    let clients = gateways.each_ref().map(TestGateway::client);
    for round in 1..=5 {
        // Two forks, each with an answer of its own, on two workers of two gateways; and one that was
        // made by going on in between.
        let (id, request) = waiting(&fake, clients[0], &peer, true);
        fake.set("m", vec![Script::completion("aside"); 1]);
        let aside = json!({"model": "m", "input": "wait", "previous_response_id": id, "tools": tools(&peer)});
        let aside = clients[1].create(&aside).json()["id"].clone();
        fake.set("m", vec![Script::completion("done"); 16]);
        let body = |at: usize| {
            let previous = if at.is_multiple_of(3) { &aside } else { &id };
            json!({"model": "m", "input": [approves(&request)], "previous_response_id": previous, "tools": tools(&peer)})
        };
        assert_once(&at_once(&clients, &(0..8).map(body).collect::<Vec<_>>()));
        assert_eq!(peer.count("call echo"), round);
    }
    // Also where the client keeps the conversation: the request and its id are all there is.
    let (_, request) = waiting(&fake, clients[0], &peer, false);
    fake.set("m", vec![Script::completion("done"); 16]);
    let input = json!([{"role": "user", "content": "x"}, request, approves(&request)]);
    let body = json!({"model": "m", "input": input, "store": false, "tools": tools(&peer)});
    assert_once(&at_once(&clients, &vec![body.clone(); 8]));
    assert_eq!(peer.count("call echo"), 6);
    // And after a restart.
    drop(gateways);
    let again = gateway(&fake, &peer, database);
    let refused = again.client().create(&body);
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("answered before"),
        "{}",
        refused.text()
    );
    assert_eq!(peer.count("call echo"), 6);
}

#[test]
fn a_race_of_answers_makes_one_call_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    race(folder.path().join("it.db").to_str().unwrap());
}

#[test]
fn a_race_of_answers_makes_one_call_on_postgres() {
    if let Some(database) = FreshDatabase::make() {
        race(&database.url());
    }
}
