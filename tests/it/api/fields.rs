//! T8: every cell of the table in `docs/request-fields.md`, sent to a running gateway.
//!
//! Mutation tried, and failed here: `top_p` read up to 2.0.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Client, Fake, Reply, Script, TestGateway};

/// One line of the table.
struct Line {
    field: String,
    valid: Option<Value>,
    wrong_type: Option<Value>,
    out_of_range: Option<(Value, String)>,
    treatment: String,
}

fn table() -> Vec<Line> {
    let page = include_str!("../../../docs/request-fields.md");
    let lines = page.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [field, valid, wrong_type, range, treatment] = cells[..] else {
                panic!("not five cells: {line}")
            };
            let value = |cell: &str| {
                let quoted = cell.rsplit_once('`')?.0.trim_start_matches('`');
                Some(serde_json::from_str(quoted).unwrap_or_else(|e| panic!("{cell}: {e}")))
            };
            let code = range.rsplit_once('`').map_or("", |(_, code)| code.trim());
            let code = if code.is_empty() {
                "invalid_value"
            } else {
                code
            };
            Line {
                field: field.trim_matches('`').to_owned(),
                valid: value(valid),
                wrong_type: value(wrong_type),
                out_of_range: value(range).map(|value| (value, code.to_owned())),
                treatment: treatment.to_owned(),
            }
        })
        .collect()
}

/// A request with this field.
fn with(field: &str, value: &Value) -> Value {
    let mut body = json!({"model": "m", "input": "x"});
    body[field] = value.clone();
    body
}

#[track_caller]
fn refused(reply: &Reply, field: &str, code: &str) {
    assert_eq!(reply.error(400), code, "{field}: {}", reply.text());
    let error = &reply.json()["error"];
    let param = error["param"].as_str().unwrap_or("");
    let names = param == field
        || param.starts_with(&format!("{field}."))
        || param.starts_with(&format!("{field}["));
    assert!(names, "{field}: {error}");
}

/// A valid value does what the table says.
fn taken(fake: &Fake, client: Client, line: &Line) {
    let (field, treatment) = (&*line.field, &*line.treatment);
    let Some(valid) = &line.valid else { return };
    let reply = client.create(&with(field, valid));
    assert_eq!(reply.status, 200, "{field}: {}", reply.text());
    if treatment.contains("echoed") {
        assert_eq!(&reply.json()[field], valid, "{field} is echoed");
    }
    let sent = fake.seen("m").pop().unwrap().body;
    if let Some((_, name)) = treatment.split_once("sent as `") {
        let name = name.trim_end_matches('`');
        assert_eq!(&sent[name], valid, "{field} is sent");
    }
    assert!(
        treatment != "ignored" || sent.get(field).is_none(),
        "{sent}"
    );
}

/// Null is nothing, and the others are refused.
fn not_taken(client: Client, line: &Line) {
    let field = &*line.field;
    let null = client.create(&with(field, &Value::Null));
    if line.treatment.contains("required") {
        refused(&null, field, "missing_required_parameter");
    } else {
        assert_eq!(null.status, 200, "{field} null: {}", null.text());
    }
    if let Some(wrong) = &line.wrong_type {
        refused(&client.create(&with(field, wrong)), field, "invalid_type");
    }
    if let Some((value, code)) = &line.out_of_range {
        refused(&client.create(&with(field, value)), field, code);
    }
}

#[test]
fn t8_every_field_is_honoured_or_refused_as_published() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    for line in table() {
        taken(&fake, client, &line);
        not_taken(client, &line);
    }
    assert!(
        !gateway.log().contains("is unknown and ignored"),
        "{}",
        gateway.log()
    );
    let unknown = client.create(&with("no_such_field", &json!(1)));
    assert_eq!(unknown.status, 200);
    assert!(
        gateway
            .log()
            .contains("`no_such_field` is unknown and ignored")
    );
}

#[test]
fn t8_strict_gateways_know_the_fields_of_the_table_and_no_others() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_STRICT_REQUESTS", "1")
        .start();
    let client = gateway.client();
    let fields: BTreeSet<String> = table().into_iter().map(|line| line.field).collect();
    assert!(fields.len() > 40, "{fields:?}");
    for field in &fields {
        let code = client.create(&with(field, &json!({"deep": 1})));
        assert!(
            !code.text().contains("unknown_parameter"),
            "{field}: {}",
            code.text()
        );
    }
    for field in [
        "no_such_field",
        "Model",
        "messages",
        "n",
        "priority",
        "cache_salt",
    ] {
        refused(
            &client.create(&with(field, &json!(1))),
            field,
            "unknown_parameter",
        );
    }
}
