//! P2: the service, or an interpreter of it, killed in a call.
//!
//! Mutation: with a broken connection taken for a refusal in `link.rs`, the model is told something
//! else and the first test fails.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    Service, auto, body, bundle, call_of, gateway_on, logs_of, processes, run, runs, told,
};
use crate::harness::tree::until;
use crate::harness::{Client, Fake, check_resource};

/// Asks for code that never ends, and has `fault` strike while it runs.
fn struck(fake: &Fake, client: Client, below: u32, fault: impl FnOnce(i32)) -> (Value, Instant) {
    fake.set("m", runs("while True: pass"));
    let asked = thread::spawn(move || {
        let reply = client.create(&body("m", &auto()));
        (reply.json(), Instant::now())
    });
    let busy = processes::busy_interpreter(below);
    let at = Instant::now();
    fault(busy);
    let (response, answered) = asked.join().unwrap();
    // Not by the limit of the call, which is 30 s.
    assert!(answered.duration_since(at) < Duration::from_secs(15));
    check_resource(&response);
    assert_eq!(response["status"], "completed");
    assert_eq!(call_of(&response)["status"], "failed");
    (response, at)
}

#[test]
fn p2_kill_of_the_external_service_mid_call_is_one_failed_item() {
    let Some(bundle) = bundle() else { return };
    let (fake, mut service) = (Fake::start(), Service::start(&bundle, &[]));
    let gateway = gateway_on(&fake, &service.url()).start();
    let client = gateway.client();
    let pid = service.child.id();
    struck(&fake, client, pid, |_| service.kill());
    assert!(told(&fake).contains("ended during this call"));
    until("the page says that it is down", || {
        client.get("/v1/status").json()["code_interpreter"]["phase"] == "down"
    });
    until("nothing of it is left", || {
        processes::interpreters(pid).is_empty()
    });
    assert_eq!(
        client.get("/health/ready").status,
        200,
        "only its tool is missing"
    );
    // While it is down a call fails at once, and the response goes on.
    let failed = run(&fake, client, "print(1)");
    assert_eq!(call_of(&failed)["status"], "failed");
    assert!(told(&fake).contains("does not answer"));
    service.restart();
    assert_eq!(logs_of(&run(&fake, client, "print(6 * 7)")), "42\n");
    until("the page says that it is back", || {
        client.get("/v1/status").json()["code_interpreter"]["phase"] == "ready"
    });
    assert_eq!(
        gateway
            .log()
            .matches("the code interpreter service is back")
            .count(),
        1
    );
}

#[test]
fn p2_kill_of_an_interpreter_of_the_service_is_one_failed_item() {
    let Some(bundle) = bundle() else { return };
    let (fake, service) = (Fake::start(), Service::start(&bundle, &[]));
    let gateway = gateway_on(&fake, &service.url()).start();
    let pid = service.child.id();
    let (_, at) = struck(&fake, gateway.client(), pid, |busy| {
        processes::kill_hard(&[busy]);
    });
    assert_eq!(logs_of(&run(&fake, gateway.client(), "print(2)")), "2\n");
    assert!(at.elapsed() < Duration::from_secs(60));
}
