//! What clients of several keys were told, and the rules that every later reading has to keep.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;

use crate::harness::history::user_texts;
use crate::harness::{Client, Reply};

/// What is known of an acknowledged response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It must be there.
    Kept,
    /// A deletion was sent, and nobody knows whether it came to pass.
    Unknown,
    /// A deletion was acknowledged.
    Gone,
}

#[derive(Clone, Debug)]
struct Entry {
    body: Value,
    /// Texts of the users from the root to this response.
    inputs: Vec<String>,
    key: usize,
    life: Life,
}

/// All acknowledgements.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<String, Entry>>);

impl Ledger {
    /// Notes a terminal resource that a client received.
    pub(super) fn told(&self, body: &Value, key: usize, input: &str) {
        if body["store"] != true {
            return;
        }
        let id = body["id"].as_str().expect("id").to_owned();
        let mut entries = self.0.lock().unwrap();
        let parent = body["previous_response_id"].as_str();
        let mut inputs = parent.map_or_else(Vec::new, |parent| entries[parent].inputs.clone());
        inputs.push(input.to_owned());
        let entry = Entry {
            body: body.clone(),
            inputs,
            key,
            life: Life::Kept,
        };
        assert!(entries.insert(id, entry).is_none(), "an id was given twice");
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn pick(&self, nth: u64, fits: impl Fn(&Entry) -> bool) -> Option<String> {
        let entries = self.0.lock().unwrap();
        let mut ids: Vec<&String> = entries
            .iter()
            .filter(|(_, entry)| fits(entry))
            .map(|(id, _)| id)
            .collect();
        ids.sort();
        let at = usize::try_from(nth % u64::try_from(ids.len()).ok()?.max(1)).ok()?;
        ids.get(at).map(|id| (*id).clone())
    }

    /// Any response of this key.
    pub(super) fn any(&self, key: usize, nth: u64) -> Option<String> {
        self.pick(nth, |entry| entry.key == key)
    }

    /// One that may be continued.
    pub(super) fn anchor(&self, key: usize, nth: u64) -> Option<String> {
        self.pick(nth, |entry| {
            let completed = entry.body["status"] == "completed";
            entry.key == key && completed && entry.life == Life::Kept && entry.inputs.len() < 40
        })
    }

    pub(super) fn life(&self, id: &str) -> Life {
        self.0.lock().unwrap()[id].life
    }

    /// A deletion was sent or acknowledged; the latter stays.
    pub(super) fn ends(&self, id: &str, life: Life) {
        let mut entries = self.0.lock().unwrap();
        let entry = entries.get_mut(id).expect("it was told");
        if entry.life != Life::Gone {
            entry.life = life;
        }
    }

    /// A reading, which began when this was known of the response.
    #[track_caller]
    pub(super) fn read(&self, id: &str, before: Life, reply: &Reply) {
        let entry = self.0.lock().unwrap()[id].clone();
        match reply.status {
            200 => {
                assert_ne!(before, Life::Gone, "{id} was read after its deletion");
                assert_eq!(reply.json(), entry.body, "{id} has another body");
            }
            404 => assert_ne!(entry.life, Life::Kept, "{id} is lost"),
            status => panic!("{id}: {status} {}", reply.text()),
        }
    }

    /// The texts of the users that lead to a response.
    #[track_caller]
    pub(super) fn chain(&self, id: &str, seen: &[String]) {
        let entry = self.0.lock().unwrap()[id].clone();
        assert_eq!(seen, entry.inputs, "{id} has another chain");
    }

    /// Violations found by reading everything on both gateways with both keys.
    pub(super) fn violations(&self, clients: [Client; 2], keys: &[String; 2]) -> Vec<String> {
        let entries = self.0.lock().unwrap().clone();
        let mut out = Vec::new();
        for (id, entry) in entries {
            let path = format!("/v1/responses/{id}");
            let seen = clients.map(|client| get(client, &path, &keys[entry.key]));
            let foreign = get(clients[0], &path, &keys[1 - entry.key]);
            if foreign.status != 404 {
                out.push(format!("{id}: another key is told {}", foreign.status));
            }
            if seen[0].status != seen[1].status {
                out.push(format!("{id}: {} and {}", seen[0].status, seen[1].status));
            }
            match (entry.life, seen[0].status) {
                (Life::Kept | Life::Unknown, 200) => {
                    if seen[0].json() != entry.body || seen[1].json() != entry.body {
                        out.push(format!("{id}: another body"));
                    }
                    let items = format!("{path}/input_items?order=asc&limit=100");
                    let page = get(clients[1], &items, &keys[entry.key]).json();
                    if user_texts(&page) != entry.inputs && page["has_more"] == false {
                        out.push(format!("{id}: another chain"));
                    }
                }
                (Life::Gone | Life::Unknown, 404) => {}
                (life, status) => out.push(format!("{id}: {life:?}, GET says {status}")),
            }
        }
        out
    }
}

fn get(client: Client, path: &str, key: &str) -> Reply {
    let bearer = format!("Bearer {key}");
    client.send("GET", path, &[("authorization", &bearer)], b"")
}
