//! Answers of a real vLLM, served byte for byte to a fixed request; the outcome is a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Fake, Script, TestGateway, check_resource, check_stream, check_usage};

/// Ids and times replaced by what is the same in every run.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let id = key == "id" || key == "item_id";
                if id && value.is_string() {
                    *value = json!("ID");
                } else if (key == "created_at" || key == "completed_at") && value.is_number() {
                    *value = json!(0);
                } else {
                    normalise(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(normalise),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_recording_has_its_outcome() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let mut names = BTreeSet::new();
    for set in ["base", "reasoning"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/cassettes")
            .join(set);
        let index = fs::read(folder.join("index.json")).expect("index");
        let index: BTreeMap<String, Value> = serde_json::from_slice(&index).expect("index");
        for (name, entry) in index {
            let file = entry["file"].as_str().expect("file");
            let body = fs::read(folder.join(file)).expect("recording");
            let kind = entry["headers"]["content-type"]
                .as_str()
                .unwrap_or("application/json");
            let status = u16::try_from(entry["status"].as_u64().expect("status")).expect("status");
            let model = format!("{set}-{name}");
            fake.on(
                &model,
                [Script::answer(status, &[("content-type", kind)], &body)],
            );
            let stream = Path::new(file).extension().is_some_and(|e| e == "sse")
                || name.ends_with("-stream");
            let tool = json!({"type": "function", "name": "get_weather",
                "parameters": {"type": "object"}, "strict": false});
            let reply = gateway
                .client()
                .create(&json!({"model": model, "input": "x", "stream": stream, "tools": [tool]}));
            let mut outcome = if reply.status != 200 {
                json!({"status": reply.status, "body": reply.json()})
            } else if stream {
                let events = check_stream(&reply.text());
                check_usage(&events[events.len() - 1]["response"], &body);
                json!(events)
            } else {
                check_resource(&reply.json());
                check_usage(&reply.json(), &body);
                reply.json()
            };
            normalise(&mut outcome);
            names.insert(format!("{model}.snap"));
            let pretty = serde_json::to_string_pretty(&outcome).expect("json");
            insta::with_settings!({snapshot_path => "../../snapshots", prepend_module_to_snapshot => false}, {
                insta::assert_snapshot!(model, pretty);
            });
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let kept: BTreeSet<String> = fs::read_dir(folder)
        .expect("snapshots")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(kept, names, "one snapshot per recording, and no other");
}
