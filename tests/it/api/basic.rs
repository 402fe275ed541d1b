//! Create, stream, continue, read and delete.

use serde_json::json;

use crate::harness::history::{History, user_texts};
use crate::harness::{Fake, Script, TestGateway, check_resource, check_stream};

#[test]
fn create_continue_read_delete() {
    let fake = Fake::start();
    fake.on(
        "m",
        [
            Script::completion("one"),
            Script::completion("two"),
            Script::says("three"),
        ],
    );
    let gateway = TestGateway::on(&fake.url()).start();
    let (client, history) = (gateway.client(), History::default());
    let first = client.create(&json!({"model": "m", "input": "a"})).json();
    check_resource(&first);
    history.acknowledge(&first, "a");
    let body = json!({"model": "m", "input": "b", "previous_response_id": first["id"]});
    let second = client.create(&body).json();
    check_resource(&second);
    history.acknowledge(&second, "b");
    let body = json!({"model": "m", "input": "c", "stream": true,
        "previous_response_id": second["id"]});
    let events = check_stream(&client.create(&body).text());
    history.acknowledge(&events[events.len() - 1]["response"], "c");
    let sent = &fake.seen("m")[2].body["messages"];
    let contents: Vec<_> = sent
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["content"])
        .collect();
    assert_eq!(contents, ["a", "one", "b", "two", "c"]);
    assert_eq!(history.len(), 3);
    assert_eq!(history.violations(client), Vec::<String>::new());
    let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
    let items = client.get(&format!("{path}/input_items")).json();
    assert_eq!(user_texts(&items), ["a"]);
    assert_eq!(client.delete(&path).json()["deleted"], true);
    client.get(&path).error(404);
    assert_eq!(
        client.delete("/v1/responses/resp_none").error(404),
        json!(null)
    );
}

#[test]
fn unknown_parent_and_store_false() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("one")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let body = json!({"model": "m", "input": "a", "previous_response_id": "resp_none"});
    assert_eq!(
        client.create(&body).error(400),
        "previous_response_not_found"
    );
    let body = json!({"model": "m", "input": "a", "store": false});
    let told = client.create(&body).json();
    client
        .get(&format!("/v1/responses/{}", told["id"].as_str().unwrap()))
        .error(404);
}
