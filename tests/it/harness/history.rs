//! The history checker: what clients were told, compared with what the store says later.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;

use super::client::Client;

/// What one client was told of one response.
#[derive(Clone, Debug)]
struct Told {
    body: Value,
    /// Texts of the users' inputs from the root to this response.
    inputs: Vec<String>,
}

/// All acknowledgements of one case.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<HashMap<String, Told>>);

impl History {
    /// Notes a terminal resource that a client received; `input` is the text it had sent.
    pub(crate) fn acknowledge(&self, body: &Value, input: &str) {
        if body["store"] != true {
            return;
        }
        let id = body["id"].as_str().expect("id").to_owned();
        let mut told = self.0.lock().unwrap();
        let mut inputs = match body["previous_response_id"].as_str() {
            Some(parent) => told
                .get(parent)
                .expect("parent was acknowledged")
                .inputs
                .clone(),
            None => Vec::new(),
        };
        inputs.push(input.to_owned());
        let before = told.insert(
            id.clone(),
            Told {
                body: body.clone(),
                inputs,
            },
        );
        assert!(before.is_none(), "id {id} given twice");
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Violations found by reading everything back.
    pub(crate) fn violations(&self, client: Client) -> Vec<String> {
        let told = self.0.lock().unwrap().clone();
        let mut out = Vec::new();
        for (id, told) in told {
            let reply = client.get(&format!("/v1/responses/{id}"));
            if reply.status != 200 {
                out.push(format!("{id}: lost, GET says {}", reply.status));
                continue;
            }
            compare(&id, &told.body, &reply.json(), &mut out);
            let seen = all_user_texts(client, &id);
            if seen != told.inputs {
                out.push(format!("{id}: chain {seen:?}, told {:?}", told.inputs));
            }
        }
        out
    }
}

/// Texts of the users of the whole chain, all pages.
fn all_user_texts(client: Client, id: &str) -> Vec<String> {
    let path = format!("/v1/responses/{id}/input_items?order=asc&limit=100");
    let (mut out, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}{after}")).json();
        out.extend(user_texts(&page));
        if page["has_more"] != true {
            return out;
        }
        after = format!("&after={}", page["last_id"].as_str().expect("last_id"));
    }
}

fn compare(id: &str, told: &Value, read: &Value, out: &mut Vec<String>) {
    if told["status"] != read["status"] {
        out.push(format!(
            "{id}: told {}, store says {}",
            told["status"], read["status"]
        ));
    } else if told != read {
        out.push(format!("{id}: another body: told {told}, read {read}"));
    }
}

/// Texts of the user messages of an item list.
pub(crate) fn user_texts(list: &Value) -> Vec<String> {
    let items = list["data"].as_array().into_iter().flatten();
    items
        .filter(|item| item["role"] == "user")
        .filter_map(|item| item["content"][0]["text"].as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_status_and_another_body_are_violations() {
        let told = json!({"id": "a", "status": "completed", "output": []});
        let mut out = Vec::new();
        compare("a", &told, &told, &mut out);
        assert!(out.is_empty());
        compare(
            "a",
            &told,
            &json!({"id": "a", "status": "failed"}),
            &mut out,
        );
        compare(
            "a",
            &told,
            &json!({"id": "a", "status": "completed"}),
            &mut out,
        );
        assert_eq!(out.len(), 2);
    }
}
