//! What continues, what does not, and what of a parent reaches the model.

use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _};
use serde_json::json;

use crate::harness::upstream::script::{finish, reasoning, text, tool_call, usage};
use crate::harness::{Fake, Script, TestGateway, check_resource, check_stream};

#[test]
fn incomplete_parents_continue_and_failed_ones_do_not() {
    let fake = Fake::start();
    fake.on("cut", [Script::stream().data(&text("par")).end("length")]);
    fake.on("fails", [Script::stream().data(&text("par")).close_body()]);
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    for (model, status) in [("cut", "incomplete"), ("fails", "failed")] {
        let body = json!({"model": model, "input": "a", "stream": true});
        let last = check_stream(&client.create(&body).text()).pop().unwrap();
        let told = &last["response"];
        assert_eq!(told["status"], status);
        let body = json!({"model": "m", "input": "b", "previous_response_id": told["id"]});
        let next = client.create(&body);
        if status == "failed" {
            next.error(400);
            assert!(next.text().contains("failed"), "{}", next.text());
        } else {
            check_resource(&next.json());
            assert_eq!(fake.seen("m")[0].body["messages"][1]["content"], "par");
        }
    }
}

#[test]
fn a_tool_round_trip_by_id_and_by_full_input_asks_the_same() {
    let fake = Fake::start();
    let call = tool_call(0, "call_1", "f", &["{\"a\"", ":1}"]);
    let script = Script::stream()
        .data(&reasoning("thought"))
        .all(&call)
        .data(&finish("tool_calls"))
        .data(&usage(7, 3))
        .done();
    fake.on("m", [script, Script::completion("done")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}}]);
    let body = json!({"model": "m", "input": "a", "stream": true, "tools": tools,
        "instructions": "first turn only"});
    let last = check_stream(&client.create(&body).text()).pop().unwrap();
    let told = &last["response"];
    let answer = json!({"type": "function_call_output", "call_id": "call_1", "output": "42"});
    let body = json!({"model": "m", "input": [answer], "previous_response_id": told["id"]});
    let next = client.create(&body).json();
    check_resource(&next);
    assert_eq!(next["tools"], json!([]), "tools are not inherited");
    assert_eq!(next["instructions"], json!(null));
    let mut input = vec![json!({"role": "user", "content": "a"})];
    input.extend(told["output"].as_array().unwrap().iter().cloned());
    input.push(answer);
    check_resource(&client.create(&json!({"model": "m", "input": input})).json());
    let seen = fake.seen("m");
    assert_eq!(
        seen[1].body, seen[2].body,
        "continue and replay ask the same"
    );
    let text = seen[1].body["messages"].to_string();
    assert!(text.contains("thought") && text.contains("call_1") && text.contains("42"));
    assert!(!text.contains("first turn only"), "{text}");
    assert!(seen[1].body.get("tools").is_none());
}

#[test]
fn a_deleted_parent_is_unknown() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let told = client.create(&json!({"model": "m", "input": "a"})).json();
    let path = format!("/v1/responses/{}", told["id"].as_str().unwrap());
    assert_eq!(client.delete(&path).status, 200);
    client.delete(&path).error(404);
    client.get(&format!("{path}/input_items")).error(404);
    let body = json!({"model": "m", "input": "b", "previous_response_id": told["id"]});
    let code = client.create(&body).error(400);
    assert_eq!(code, "previous_response_not_found");
}

#[test]
fn input_items_come_in_pages() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let input: Vec<_> = (0..5)
        .map(|n| json!({"role": "user", "content": format!("t{n}")}))
        .collect();
    let told = client.create(&json!({"model": "m", "input": input})).json();
    let path = format!("/v1/responses/{}/input_items", told["id"].as_str().unwrap());
    let texts = crate::harness::history::user_texts;
    assert_eq!(
        texts(&client.get(&path).json()),
        ["t4", "t3", "t2", "t1", "t0"]
    );
    let page = client.get(&format!("{path}?order=asc&limit=2")).json();
    assert_eq!(
        (texts(&page), &page["has_more"]),
        (vec!["t0".into(), "t1".into()], &json!(true))
    );
    let after = page["last_id"].as_str().unwrap();
    let page = client
        .get(&format!("{path}?order=asc&after={after}"))
        .json();
    assert_eq!((texts(&page).len(), &page["has_more"]), (3, &json!(false)));
    for query in ["limit=0", "limit=101", "limit=x", "order=up"] {
        client.get(&format!("{path}?{query}")).error(400);
    }
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

#[test]
fn store_false_writes_nothing() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let rows = || {
        let path = gateway.db();
        let mut database = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        diesel::sql_query(
            "SELECT (SELECT count(*) FROM responses) + (SELECT count(*) FROM settings) AS rows",
        )
        .get_result::<Count>(&mut database)
        .unwrap()
        .rows
    };
    for store in [false, true] {
        let body = json!({"model": "m", "input": "a", "store": store});
        assert_eq!(gateway.client().create(&body).json()["store"], store);
        assert_eq!(rows() > 0, store);
    }
}

#[test]
fn tools_are_inherited_where_that_is_switched_on() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_INHERIT_TOOLS", "1")
        .start();
    let client = gateway.client();
    let tools = json!([{"type": "function", "name": "f", "description": null,
        "parameters": {"type": "object"}, "strict": null}]);
    let forced = json!({"type": "function", "name": "f"});
    let first = json!({"model": "m", "input": "a", "tools": tools, "tool_choice": forced});
    let first = client.create(&first).json();
    let second = json!({"model": "m", "input": "b", "previous_response_id": first["id"]});
    let second = client.create(&second).json();
    assert_eq!(second["tools"], tools, "the echo shows what was applied");
    assert_eq!(second["tool_choice"], "auto", "a forced choice is not");
    let path = format!("/v1/responses/{}", second["id"].as_str().unwrap());
    assert_eq!(client.get(&path).json(), second);
    let third = json!({"model": "m", "input": "c", "previous_response_id": second["id"],
        "tools": []});
    let third = client.create(&third).json();
    let fourth = json!({"model": "m", "input": "d", "previous_response_id": third["id"]});
    let fourth = client.create(&fourth).json();
    assert_eq!(
        (&third["tools"], &fourth["tools"]),
        (&json!([]), &json!([]))
    );
    let shown = |n: usize| fake.seen("m")[n].body["tools"][0]["function"]["name"].clone();
    assert_eq!([shown(0), shown(1)], ["f", "f"]);
    assert_eq!([shown(2), shown(3)], [json!(null), json!(null)]);
}
