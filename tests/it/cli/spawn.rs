//! `serve -- MODEL`: vLLM and the gateway share one life.
//!
//! Mutation that makes the group fail: in `guardian.rs`, end at end-of-file without killing.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::{Place, text};
use crate::harness::tree::{Tree, is_alive, until};

#[test]
fn p1_vllm_is_started_restarted_and_stopped_with_the_gateway() {
    let mut gateway = Tree::start("", &[], &[]);
    gateway.wait_ready();
    let first = gateway.pids();
    kill(first[0], Signal::SIGKILL).unwrap();
    gateway.wait_restarts(1);
    until("the first one's engine is gone", || {
        !first.iter().copied().any(is_alive)
    });
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
    gateway.wait_nothing_left();
}

#[test]
fn p4_a_killed_gateway_leaves_nothing_behind() {
    let mut gateway = Tree::start("", &[], &[]);
    gateway.wait_ready();
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit(Duration::from_secs(20));
    gateway.wait_nothing_left();
    assert_eq!(gateway.pids().len(), 2);
}

#[test]
fn p10_a_taken_vllm_port_is_refused_before_anything_starts() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let args = [
        "serve",
        "--gateway-host",
        "127.0.0.1",
        "--gateway-port",
        "0",
    ];
    let args: Vec<&str> = args
        .into_iter()
        .chain(["--", "m", "--port", &port])
        .collect();
    let output = place.run(&args, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&format!("vLLM's port {port} is taken")));
}
