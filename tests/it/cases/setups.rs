//! How it is set up: what asks for its health, what stands between, servers that come and go.

use serde_json::json;

use super::{Case, Stage};
use crate::harness::client::{Open, request};
use crate::harness::postgres::FreshDatabase;
use crate::harness::tree::until;
use crate::harness::{Fake, Script, TestGateway, check_stream};

#[test]
fn head_health() {
    let stage = Stage::open();
    for turn in Case::load("head-health").play(&stage) {
        assert_eq!(turn.reply.status, 200);
        assert_eq!(turn.reply.text(), "", "a body behind HEAD");
    }
}

#[test]
fn one_connection() {
    let stage = Stage::open();
    let mut open = Open::connect(stage.client().address).expect("connect");
    let json = [("content-type", "application/json")];
    let whole = json!({"model": "m", "input": "x"}).to_string();
    let stream = json!({"model": "m", "input": "x", "stream": true}).to_string();
    let mut ask = |method: &str, path: &str, body: &str, script: Script| {
        stage.fake.set("m", [script]);
        open.write(&request(method, path, &json, body.as_bytes()))
            .expect("write");
        let reply = match method {
            "HEAD" => open.head(),
            _ => open.reply(),
        };
        let reply = reply.expect("reply");
        assert_eq!(reply.status, 200, "{method} {path}");
        reply.text()
    };
    let path = "/v1/responses";
    assert!(ask("POST", path, &whole, Script::completion("one")).contains("one"));
    let behind = ask("HEAD", "/health", "", Script::completion(""));
    assert_eq!(behind, "", "a body behind HEAD");
    check_stream(&ask("POST", path, &stream, Script::says("two")));
    assert!(ask("POST", path, &whole, Script::completion("three")).contains("three"));
}

#[test]
fn nul_in_postgres() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_DB_PATH", &database.url())
        .start();
    let stage = Stage { fake, gateway };
    let says = [Script::completion("before\0behind")];
    let first = stage.turn(
        "POST /v1/responses",
        &json!({"model": "m", "input": "go"}),
        &says,
    );
    assert_eq!(first.ok().response["store"], true);
    let id = first.response["id"].as_str().expect("id");
    let stored = stage.client().get(&format!("/v1/responses/{id}"));
    assert_eq!(stored.body, first.reply.body);
    let body = json!({"model": "m", "input": "on", "previous_response_id": id});
    let second = stage.turn("POST /v1/responses", &body, &says);
    assert!(second.ok().messages()[1].to_string().contains("behind"));
}

#[test]
fn proxy_variables() {
    let (fake, proxy) = (Fake::start(), Fake::start());
    let names = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let proxies: Vec<(&str, String)> = names.iter().map(|name| (*name, proxy.url())).collect();
    let gateway = TestGateway::on(&fake.url()).envs(&proxies).start();
    let stage = Stage { fake, gateway };
    let body = json!({"model": "m", "input": "x"});
    stage
        .turn("POST /v1/responses", &body, &[Script::completion("ok")])
        .ok();
    assert_eq!(proxy.connections(), 0, "the proxy was asked");
}

#[test]
fn upstream_behind_a_path() {
    for path in ["/v1", "/v1/", "/", "/vllm", "/vllm/v1/", "/proxy/8000/v1"] {
        let fake = Fake::start();
        let gateway = TestGateway::on(&format!("{}{path}", fake.url()))
            .env("VR_UPSTREAM_READY_TIMEOUT", "1s")
            .begin();
        until("the model server is asked", || !fake.all_seen().is_empty());
        let asked = &fake.all_seen()[0].path;
        assert!(
            !asked.contains("//") && asked.matches("/v1").count() <= 1,
            "{path}: {asked}"
        );
        drop(gateway);
    }
}

#[test]
fn upstream_comes_and_goes() {
    let fake = Fake::start();
    let (address, url) = (fake.address(), fake.url());
    drop(fake);
    let gateway = TestGateway::on(&url).begin();
    let client = gateway.client();
    let ready = || {
        client
            .try_send("GET", "/health/ready", &[], b"")
            .map_or(0, |reply| reply.status)
    };
    until("it listens", || ready() == 503);
    let body = json!({"model": "m", "input": "x"});
    assert!([502, 503].contains(&client.create(&body).status));
    for _ in 0..2 {
        let fake = Fake::start_at(address);
        fake.set("m", [Script::completion("ok")]);
        until("it is ready", || ready() == 200);
        assert_eq!(client.create(&body).status, 200);
        drop(fake);
        // A connection that the model server is about to close may serve once more.
        until("it is away", || client.create(&body).status != 200);
        assert!(
            [502, 503].contains(&client.create(&body).status),
            "{}",
            client.create(&body).text()
        );
    }
}
