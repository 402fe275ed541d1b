//! SIGHUP: logging is read again, what is bad changes nothing, and nothing ends.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Fake, Script, TestGateway};

#[track_caller]
fn wait_log(gateway: &TestGateway, words: &str, times: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while gateway.log().matches(words).count() < times {
        assert!(
            Instant::now() < until,
            "{words:?} is not there:\n{}",
            gateway.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn g_sighup_reads_logging_again() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("gateway.toml");
    fs::write(&file, "[logging]\nlevel = \"error\"\n").unwrap();
    let gateway = TestGateway::on(&fake.url())
        .flag("--config")
        .flag(file.to_str().unwrap())
        .start();
    let ask = || {
        let body = json!({"model": "m", "input": "a", "no_such_field": 1});
        assert_eq!(gateway.client().create(&body).status, 200);
    };
    ask();
    assert!(
        !gateway.log().contains("no_such_field"),
        "{}",
        gateway.log()
    );

    let chatty = "[logging]\nlevel = \"info\"\nformat = \"json\"\ntimings = true\n";
    fs::write(&file, chatty).unwrap();
    gateway.signal(Signal::SIGHUP);
    wait_log(&gateway, "\"message\":\"logging is configured anew\"", 1);
    ask();
    wait_log(&gateway, "no_such_field", 1);
    wait_log(&gateway, "\"message\":\"timings\"", 1);

    fs::write(&file, "[logging]\nlevel = \"error\"\ntiming = false\n").unwrap();
    gateway.signal(Signal::SIGHUP);
    wait_log(&gateway, "logging not changed", 1);
    assert!(
        gateway.log().contains("did you mean `logging.timings`?"),
        "{}",
        gateway.log()
    );
    ask();
    wait_log(&gateway, "\"message\":\"timings\"", 2);
}
