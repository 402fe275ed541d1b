//! T2, T4: whose responses are whose, on every route and in every body field that takes an id.
//!
//! The routes come from the source of `src/http`, the fields from that of the decoders: a new one
//! fails until it is listed here. What belongs to another key is answered byte for byte like what
//! never was.
//!
//! Mutations tried, each failed: a route that is not listed; the owner left out of the store's query,
//! and out of the names of Redis keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::keys::{ask, new_key};
use crate::harness::redis::Redis;
use crate::harness::{Fake, Reply, Script, TestGateway};

/// What of a route belongs to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    /// The response that the path names.
    Path,
    /// What [`FIELDS`] name in the body.
    Body,
    /// Nothing, but a key is needed.
    Nothing,
    /// Nothing, and everyone may come (decision 21).
    Open,
}

const ROUTES: &[(&str, &str, Belongs)] = &[
    ("POST", "/v1/responses", Belongs::Body),
    ("POST", "/v1/responses/compact", Belongs::Body),
    ("POST", "/v1/responses/input_tokens", Belongs::Body),
    ("GET", "/v1/responses/{id}", Belongs::Path),
    ("DELETE", "/v1/responses/{id}", Belongs::Path),
    ("POST", "/v1/responses/{id}/cancel", Belongs::Path),
    ("GET", "/v1/responses/{id}/input_items", Belongs::Path),
    ("GET", "/v1/models", Belongs::Nothing),
    ("GET", "/v1/models/{id}", Belongs::Nothing),
    ("POST", "/v1/chat/completions", Belongs::Nothing),
    ("GET", "/v1/mcp/servers", Belongs::Nothing),
    (
        "GET",
        "/v1/mcp/servers/{server_label}/tools",
        Belongs::Nothing,
    ),
    ("GET", "/v1/status", Belongs::Nothing),
    ("GET", "/health", Belongs::Open),
    ("GET", "/health/ready", Belongs::Open),
];

/// Body fields whose value names something of a key's.
const FIELDS: &[&str] = &["previous_response_id"];

/// Body fields that look like it and are not: names within one request, and what is refused.
const OTHER_FIELDS: &[&str] = &[
    "id",                  // of an input item; a reference to one has a test of its own
    "call_id",             // joins a call and its output within one conversation
    "container_id",        // of an item that is history; never looked up
    "container",           // the interpreter's: it checks the owner when it opens one
    "approval_request_id", // of a request in the same conversation
    "file_id",             // refused
    "continuation_id",     // groups background work; never looked up
    "conversation",        // refused
    "connector_id",        // refused
    "tunnel_id",           // refused
];

/// The routes that the source of `src/http` adds.
fn routes_in_source() -> BTreeSet<(String, String)> {
    let source = include_str!("../../../src/http/mod.rs");
    // `reads` is GET, and HEAD as its shadow.
    let source = source.replace("reads()", "web::get()");
    let mut routes = BTreeSet::new();
    for piece in source.split("web::resource(\"").skip(1) {
        let path = piece.split('"').next().unwrap().replace("{id:.+}", "{id}");
        let own = piece.split(".default_service").next().unwrap();
        for route in own.split("web::").skip(1) {
            let method = route.split('(').next().unwrap().to_uppercase();
            let prefix = if path.starts_with("/health") {
                ""
            } else {
                "/v1"
            };
            routes.insert((method, format!("{prefix}{path}")));
        }
    }
    routes
}

#[test]
fn t2_every_route_is_listed() {
    let listed = ROUTES.iter();
    let listed: BTreeSet<_> = listed
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(listed, routes_in_source());
}

/// Names of members that the decoders look for and that may hold an id.
fn id_fields_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            id_fields_below(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap();
            let literals = product.split('"').skip(1).step_by(2);
            let is_id = |name: &&str| {
                let named =
                    name.ends_with("_id") || ["id", "conversation", "container"].contains(name);
                named
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            };
            found.extend(literals.filter(is_id).map(str::to_owned));
        }
    }
}

#[test]
fn t2_every_field_that_takes_an_id_is_listed() {
    let mut found = BTreeSet::new();
    let below = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/src/responses");
    for folder in ["request", "decode", "tool"] {
        id_fields_below(&below.join(folder), &mut found);
    }
    let listed = FIELDS
        .iter()
        .chain(OTHER_FIELDS)
        .map(|&name| name.to_owned());
    assert_eq!(found, listed.collect());
}

/// What a client can see of an answer, but for what is different each time.
fn seen(reply: &Reply) -> (u16, String, Vec<(String, String)>) {
    let changing = ["x-request-id", "openai-processing-ms", "date"];
    let headers = reply.headers.iter();
    let headers = headers.filter(|(name, _)| !changing.contains(&name.as_str()));
    (reply.status, reply.text(), headers.cloned().collect())
}

/// Ids that nobody has: of our shape, of other shapes, and of none.
fn ids_of_nobody() -> Vec<String> {
    let long = "x".repeat(200);
    let mut ids = vec![format!("resp_{:032x}", 7)];
    ids.extend(["resp_0", "resp_", "x", "resp-68a1", "chatcmpl-1", "0"].map(str::to_owned));
    ids.extend(["%27--", "%00", "%C3%A9", "resp_%2e%2e", &long].map(str::to_owned));
    ids
}

struct Case {
    gateway: TestGateway,
    ann: String,
    bob: String,
    _fake: Fake,
    _keys: tempfile::TempDir,
}

impl Case {
    fn new(redis: Option<&Redis>) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("keys");
        let ((ann, ann_line), (bob, bob_line)) = (new_key("ann"), new_key("bob"));
        fs::write(&file, format!("{ann_line}\n{bob_line}\n")).unwrap();
        let fake = Fake::start();
        fake.on("m", [Script::completion("ok")]);
        fake.on("s", [Script::says("ok")]);
        let mut settings =
            TestGateway::on(&fake.url()).env("VR_API_KEYS_FILE", file.to_str().unwrap());
        if let Some(redis) = redis {
            settings = settings
                .env("VR_RESPONSE_STORE_CACHE", "1")
                .env("VR_REDIS_URL", &redis.url());
        }
        Self {
            gateway: settings.start(),
            ann,
            bob,
            _fake: fake,
            _keys: keys,
        }
    }

    fn ask(&self, key: &str, method: &str, path: &str, body: &Value) -> Reply {
        let body = if method == "POST" && !body.is_null() {
            body.to_string()
        } else {
            String::new()
        };
        ask(&self.gateway, Some(key), (method, path), &body)
    }

    fn make(&self, key: &str) -> Value {
        let body = json!({"model": "m", "input": "a"});
        self.ask(key, "POST", "/v1/responses", &body).json()
    }

    /// Everything that can be asked about a response by its id.
    fn questions(id: &str) -> Vec<(&'static str, String, Value)> {
        let mut questions = Vec::new();
        for (method, path, belongs) in ROUTES {
            match belongs {
                Belongs::Path => {
                    questions.push((*method, path.replace("{id}", id), Value::Null));
                }
                Belongs::Body => {
                    for (field, stream, store) in FIELDS.iter().flat_map(|field| {
                        [
                            (field, true, true),
                            (field, false, true),
                            (field, false, false),
                        ]
                    }) {
                        // Only this one streams, whatever the others are asked.
                        let streams = stream && *path == "/v1/responses";
                        let model = if streams { "s" } else { "m" };
                        let mut body =
                            json!({"model": model, "input": "b", "stream": stream, "store": store});
                        body[*field] = json!(id);
                        questions.push((*method, (*path).to_owned(), body));
                    }
                }
                Belongs::Nothing | Belongs::Open => {}
            }
        }
        questions
    }
}

#[test]
fn t2_a_foreign_item_is_answered_like_an_unknown_one() {
    let case = Case::new(None);
    let made = case.make(&case.ann);
    let own = made["output"][0]["id"].as_str().unwrap();
    // Of the same shape, of a response that nobody has.
    let digits: String = own.chars().rev().collect();
    let (prefix, _) = own.split_once('_').unwrap();
    let tail = digits.split('_').next().unwrap();
    let unknown = format!("{prefix}_{tail}");
    let refers = |key: &str, id: &str| {
        let input = json!([{"type": "item_reference", "id": id}, {"role": "user", "content": "b"}]);
        let body = json!({"model": "m", "input": input});
        seen(&case.ask(key, "POST", "/v1/responses", &body))
    };
    assert_eq!(refers(&case.ann, own).0, 200);
    let foreign = refers(&case.bob, own);
    assert!(foreign.0 >= 400, "{foreign:?}");
    assert_eq!(foreign, refers(&case.bob, &unknown));
}

fn matrix(redis: Option<&Redis>) {
    let case = Case::new(redis);
    let (of_ann, of_bob) = (case.make(&case.ann), case.make(&case.bob));
    let id = |response: &Value| response["id"].as_str().unwrap().to_owned();
    let (ann_id, bob_id) = (id(&of_ann), id(&of_bob));
    let deleted = id(&case.make(&case.bob));
    let gone = case.ask(
        &case.bob,
        "DELETE",
        &format!("/v1/responses/{deleted}"),
        &json!({}),
    );
    assert_eq!(gone.status, 200);
    let never = Case::questions(&ids_of_nobody()[0]);
    let expected: Vec<_> = never
        .iter()
        .map(|(method, path, body)| seen(&case.ask(&case.bob, method, path, body)))
        .collect();
    for (status, text, _) in &expected {
        assert!([400, 404].contains(status), "{status} {text}");
    }
    // Twice: what a first look-up puts into Redis must not answer a second one.
    for other in ids_of_nobody().iter().chain([&ann_id, &deleted, &ann_id]) {
        for ((method, path, body), expected) in Case::questions(other).iter().zip(&expected) {
            let found = seen(&case.ask(&case.bob, method, path, body));
            assert_eq!(&found, expected, "{method} {path} {body}");
        }
    }
    let path = format!("/v1/responses/{ann_id}");
    assert_eq!(case.ask(&case.ann, "GET", &path, &json!({})).json(), of_ann);
    for (method, path, body) in Case::questions(&bob_id) {
        if method != "DELETE" {
            let expected = match path.rsplit('/').next() {
                // The scripted upstream counts no tokens: the answer is its own lack of a tokenizer.
                Some("input_tokens") => 502,
                // Found, and made without `background`.
                Some("cancel") => 400,
                _ => 200,
            };
            let status = case.ask(&case.bob, method, &path, &body).status;
            assert_eq!(status, expected, "{path}");
        }
    }
}

#[test]
fn t2_what_is_anothers_looks_like_nothing() {
    matrix(None);
}

#[test]
fn t2_what_is_anothers_looks_like_nothing_with_redis() {
    if let Some(redis) = Redis::start(&[]) {
        matrix(Some(&redis));
        assert!(!redis.keys().is_empty(), "Redis was not used");
    }
}

#[test]
fn t4_every_route_needs_a_key() {
    let case = Case::new(None);
    let mut denials = BTreeSet::new();
    for (method, path, belongs) in ROUTES {
        let path = path.replace("{id}", "resp_0");
        for key in [None, Some("vr-wrong"), Some("")] {
            let reply = ask(&case.gateway, key, (method, &path), "{}");
            match belongs {
                Belongs::Open => assert_eq!(reply.status, 200, "{path}"),
                Belongs::Path | Belongs::Body | Belongs::Nothing => {
                    assert_eq!(reply.error(401), "invalid_api_key", "{method} {path}");
                    denials.insert(reply.text());
                }
            }
        }
    }
    assert_eq!(denials.len(), 1, "a denial tells nothing of the route");
}
