//! The service: who may use it, what gateways share, how it starts and stops.
//!
//! Mutations, not tried yet: with `authorize` left out, `only_the_token_opens_it` fails; with the drop guard of
//! `execute` left out, `a_client_that_leaves_ends_its_call_at_the_service`.

use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    EXECUTE, STATUS, Service, TOKEN, auto, body, bundle, call_of, gateway_on, logs_of, order,
    processes, run, runs,
};
use crate::harness::tree::{free_port, is_alive, until};
use crate::harness::{Fake, check_resource};

#[test]
fn gateways_share_containers_and_each_owner_has_its_own() {
    let Some(bundle) = bundle() else { return };
    let (fake, service) = (Fake::start(), Service::start(&bundle, &[]));
    let (one, two) = (
        gateway_on(&fake, &service.url()).start(),
        gateway_on(&fake, &service.url()).start(),
    );
    let first = run(
        &fake,
        one.client(),
        "x = 41\nopen('a.txt', 'w').write('kept')",
    );
    check_resource(&first);
    assert_eq!(call_of(&first)["status"], "completed");
    let container = call_of(&first)["container_id"].clone();
    fake.set("m", runs("print(x + 1, open('a.txt').read())"));
    let second = two.client().create(&body("m", &container)).json();
    assert_eq!(logs_of(&second), "42 kept\n");
    // Straight to the service, as the gateway of somebody else would.
    for how in ["named", "shared"] {
        let theirs = order("somebody", &json!({how: container}), "print(x)");
        let answer = service.ask("POST", EXECUTE, &theirs).json();
        assert_eq!(answer, json!({"refused": "unknown_container"}));
    }
    let page = one.client().get("/v1/status").json();
    let view = &page["code_interpreter"];
    assert_eq!(view["service"], format!("{}/", service.url()));
    assert_eq!(view["phase"], "ready");
    assert!(!page.to_string().contains(TOKEN) && !one.log().contains(TOKEN));
    assert_eq!(page["tools"][0]["state"], "offered");
}

#[test]
fn pictures_errors_and_limits_come_over_the_wire() {
    let Some(bundle) = bundle() else { return };
    let (fake, service) = (Fake::start(), Service::start(&bundle, &[]));
    let gateway = gateway_on(&fake, &service.url())
        .env("VR_CODE_INTERPRETER_OUTPUT", "1KiB")
        .env("VR_CODE_INTERPRETER_CALL_TIMEOUT", "2s")
        .start();
    let client = gateway.client();
    let raised = run(&fake, client, "print('a')\n1 / 0");
    assert_eq!(call_of(&raised)["status"], "completed");
    assert!(logs_of(&raised).contains("ZeroDivisionError"));
    // The gateway's limits are tighter than the service's, and hold.
    let flood = logs_of(&run(&fake, client, "print('y' * 100_000)"));
    assert!(flood.len() < 2000 && flood.contains("too much"), "{flood}");
    let endless = run(&fake, client, "while True: pass");
    assert_eq!(call_of(&endless)["status"], "failed");
    assert!(super::told(&fake).contains("timed out after 2 s"));
    // What stands for a picture where there is no matplotlib.
    let png = "\
import base64, sys, types
class Image:
    def save(self, to, *_): to.write(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=='))
sys.modules['PIL.Image'] = module = types.ModuleType('PIL.Image')
module.Image = Image
Image()";
    let drawn = run(&fake, client, png);
    let outputs = call_of(&drawn)["outputs"].to_string();
    assert!(
        outputs.contains("data:image/png;base64,iVBORw0KGgo"),
        "{outputs}"
    );
}

#[test]
fn only_the_token_opens_it() {
    let Some(bundle) = bundle() else { return };
    let service = Service::start(&bundle, &[]);
    let stranger = service.client();
    let json = [("content-type", "application/json")];
    let body = order("", &json!({"shared": "cntr_1"}), "1");
    for (method, path) in [
        ("GET", STATUS),
        ("POST", EXECUTE),
        ("POST", "/internal/interpreter/release"),
        ("GET", "/other"),
    ] {
        let reply = stranger.send(method, path, &json, body.as_bytes());
        assert_eq!(reply.status, 401, "{path}");
        let wrong = [json[0], ("authorization", "Bearer service-CANARx")];
        assert_eq!(
            stranger.send(method, path, &wrong, body.as_bytes()).status,
            401
        );
    }
    // What no gateway sends is refused, and the service goes on.
    for (body, status) in [
        ("{".to_owned(), 400),
        (order("", &json!("new"), "1"), 400),
        (" ".repeat(7 * 1024 * 1024), 413),
    ] {
        assert_eq!(service.ask("POST", EXECUTE, &body).status, status);
    }
    let long = order(
        "",
        &json!({"shared": "cntr_1"}),
        &"#".repeat(1024 * 1024 + 1),
    );
    assert_eq!(
        service.ask("POST", EXECUTE, &long).json(),
        json!({"refused": "code_too_long"})
    );
    let good = order("", &json!({"shared": "cntr_2"}), "6 * 7");
    assert_eq!(
        service.ask("POST", EXECUTE, &good).json()["ran"]["logs"],
        "42\n"
    );
    assert!(!service.log().contains("CANAR"), "{}", service.log());
}

#[test]
fn a_client_that_leaves_ends_its_call_at_the_service() {
    let Some(bundle) = bundle() else { return };
    let (fake, service) = (Fake::start(), Service::start(&bundle, &[]));
    let gateway = gateway_on(&fake, &service.url()).start();
    fake.set("m", runs("while True: pass"));
    let open = gateway.client().open(&body("m", &auto()));
    let victim = processes::busy_interpreter(service.child.id());
    open.leave_fin();
    until("its interpreter is killed", || {
        !is_alive(nix::unistd::Pid::from_raw(victim))
    });
    until("its container is forgotten", || {
        service.interpreters()["held"] == 0
    });
}

#[test]
fn a_stop_lets_the_running_call_end() {
    let Some(bundle) = bundle() else { return };
    let (fake, mut service) = (Fake::start(), Service::start(&bundle, &[]));
    let gateway = gateway_on(&fake, &service.url()).start();
    let client = gateway.client();
    let code = "import time\nend = time.time() + 6\nwhile time.time() < end: pass\nprint('whole')";
    fake.set("m", runs(code));
    let asked = thread::spawn(move || client.create(&body("m", &auto())).json());
    until("the call runs", || {
        let status = service.interpreters();
        status["held"] == 1 && status["waiting"] == 0
    });
    // Operators send it to all that runs, for the gateway to read its files again.
    service.signal(Signal::SIGHUP);
    until("it was heard", || {
        service.log().contains("nothing is read again here")
    });
    service.signal(Signal::SIGTERM);
    assert_eq!(logs_of(&asked.join().unwrap()), "whole\n");
    let status = service.wait_exit();
    assert!(status.success(), "{status} {}", service.log());
    let lines = service.log();
    assert_eq!(
        lines.matches("ready: the code interpreter is at").count(),
        1
    );
}

/// Runs the program to its end; exit code and stderr.
fn start(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn what_refuses_to_start() {
    let Some(bundle) = bundle() else { return };
    let port = free_port().to_string();
    let own = [
        "code-interpreter",
        "--code-interpreter-port",
        &port,
        "--code-interpreter-bundle",
    ];
    let open = [&own[..], &[&bundle, "--code-interpreter-host", "0.0.0.0"]].concat();
    let (code, said) = start(&open, &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`VR_CODE_INTERPRETER_TOKEN`"), "{said}");
    let (code, said) = start(&[&own[..], &["/nowhere"]].concat(), &[]);
    assert_eq!(code, Some(2), "{said}");
    let late = [
        &own[..],
        &[&bundle, "--code-interpreter-startup-timeout", "1ms"],
    ]
    .concat();
    let token = [("VR_CODE_INTERPRETER_TOKEN", TOKEN)];
    let (code, said) = start(&late, &token);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("`--code-interpreter-startup-timeout`"),
        "{said}"
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let occupied = listener.local_addr().unwrap().port().to_string();
    let (code, said) = start(
        &[
            "code-interpreter",
            "--code-interpreter-port",
            &occupied,
            "--code-interpreter-bundle",
            &bundle,
        ],
        &token,
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot listen on 127.0.0.1"), "{said}");
    drop(listener);
}

#[test]
fn a_gateway_whose_service_is_not_there_gives_up_in_time() {
    let port = free_port().to_string();
    let fake = Fake::start();
    let place = tempfile::tempdir().unwrap();
    let gateway = [
        "serve",
        "--upstream",
        &fake.url(),
        "--gateway-host",
        "127.0.0.1",
        "--gateway-port",
        &free_port().to_string(),
        "--code-interpreter",
        "external",
        "--code-interpreter-port",
        &port,
        "--code-interpreter-startup-timeout",
        "1s",
    ];
    let db = place.path().join("it.db");
    let (code, said) = start(&gateway, &[("VR_DB_PATH", db.to_str().unwrap())]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the code interpreter service does not answer"),
        "{said}"
    );
}

#[test]
fn a_gateway_waits_for_its_service() {
    let Some(bundle) = bundle() else { return };
    let (fake, mut service) = (Fake::start(), Service::start(&bundle, &[]));
    service.kill();
    let builder = gateway_on(&fake, &service.url());
    let starting = thread::spawn(move || builder.start());
    thread::sleep(Duration::from_secs(1));
    assert!(!starting.is_finished(), "ready without its interpreter");
    service.restart();
    let gateway = starting.join().unwrap();
    assert_eq!(logs_of(&run(&fake, gateway.client(), "print(1)")), "1\n");
}
