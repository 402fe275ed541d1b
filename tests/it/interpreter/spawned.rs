//! P2: interpreters below the gateway.
//!
//! Mutation: with `NotBegun` taken for `Died` in the actor's `settle`, the same case of the actor's own
//! suite (`p2_one_killed_while_it_waits_costs_no_call`) fails.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{auto, body, bundle, call_of, logs_of, processes, run, runs, told};
use crate::harness::{Fake, TestGateway, check_resource};

#[test]
fn p2_kill_of_the_interpreter_mid_call_is_one_failed_item() {
    let Some(bundle) = bundle() else { return };
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .flag("--code-interpreter")
        .flag("spawn")
        .flag("--code-interpreter-bundle")
        .flag(&bundle)
        .start();
    let client = gateway.client();
    fake.set("m", runs("print('so far')\nwhile True: pass"));
    let asked = thread::spawn(move || {
        let reply = client.create(&body("m", &auto()));
        (reply.json(), Instant::now())
    });
    processes::busy_interpreter(gateway.pid());
    // All of them, those that wait for a call too.
    let killed = Instant::now();
    processes::kill_hard(&processes::interpreters(gateway.pid()));
    let (response, answered) = asked.join().unwrap();
    assert!(answered.duration_since(killed) < Duration::from_secs(15));
    check_resource(&response);
    assert_eq!(response["status"], "completed");
    assert_eq!(call_of(&response)["status"], "failed");
    assert!(logs_of(&response).starts_with("so far\n"), "{response}");
    let told = told(&fake);
    assert!(told.contains("ended during this call"), "{told}");
    let next = run(&fake, client, "print(6 * 7)");
    assert_eq!(
        (call_of(&next)["status"].clone(), logs_of(&next)),
        (json!("completed"), "42\n".to_owned())
    );
    assert!(killed.elapsed() < Duration::from_secs(60));
    // One that is killed while it waits costs nothing.
    for _ in 0..3 {
        processes::kill_hard(&processes::interpreters(gateway.pid()));
        assert_eq!(logs_of(&run(&fake, client, "print(1)")), "1\n");
    }
}
