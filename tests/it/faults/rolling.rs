//! G3: two gateways behind one port are restarted one after the other under load, and nobody notices.
//!
//! Mutation tried, and it failed: no `--drain-delay`, with which the balancer sends
//! requests to a gateway that takes none any more.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::history::History;
use crate::harness::{Client, Fake, Script, TestGateway, check_stream, knobs};

/// Where a gateway is, and whether its last probe said that it is ready.
type Backend = (SocketAddr, bool);

/// What stands in front of two gateways in a deployment: it asks each whether it is ready, and gives new
/// connections to those that are, in turn.
struct Balancer {
    address: SocketAddr,
    backends: Arc<Mutex<Vec<Backend>>>,
    stop: Arc<AtomicBool>,
}

impl Balancer {
    fn start(addresses: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let backends = addresses.iter().map(|address| (*address, true)).collect();
        let balancer = Self {
            address: listener.local_addr().expect("address"),
            backends: Arc::new(Mutex::new(backends)),
            stop: Arc::default(),
        };
        let (backends, stop) = (Arc::clone(&balancer.backends), Arc::clone(&balancer.stop));
        thread::spawn(move || probe(&backends, &stop));
        let (backends, stop) = (Arc::clone(&balancer.backends), Arc::clone(&balancer.stop));
        thread::spawn(move || {
            let turn = AtomicUsize::new(0);
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let ready: Vec<SocketAddr> = backends
                    .lock()
                    .unwrap()
                    .iter()
                    .filter_map(|(address, ready)| ready.then_some(*address))
                    .collect();
                if let Some(to) =
                    ready.get(turn.fetch_add(1, Ordering::SeqCst) % ready.len().max(1))
                {
                    join(&stream, *to);
                }
            }
        });
        balancer
    }

    /// One of the gateways is somewhere else now.
    fn moved(&self, which: usize, to: SocketAddr) {
        self.backends.lock().unwrap()[which] = (to, false);
    }

    fn is_ready(&self, which: usize) -> bool {
        self.backends.lock().unwrap()[which].1
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn probe(backends: &Mutex<Vec<Backend>>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let now = backends.lock().unwrap().clone();
        for (which, (address, _)) in now.into_iter().enumerate() {
            let asked = Client { address }.try_send("GET", "/health/ready", &[], b"");
            let ready = asked.is_ok_and(|reply| reply.status == 200);
            let mut backends = backends.lock().unwrap();
            if backends[which].0 == address {
                backends[which].1 = ready;
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Moves bytes both ways until either side ends.
fn join(client: &TcpStream, to: SocketAddr) {
    let Ok(server) = TcpStream::connect(to) else {
        return;
    };
    for (from, to) in [(client, &server), (&server, client)] {
        let _ = from.set_nodelay(true);
        let (mut from, mut to) = (
            from.try_clone().expect("clone"),
            to.try_clone().expect("clone"),
        );
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// Conversations at a steady pace, until they are told to stop. Every request must be answered and kept.
fn talk(client: Client, history: &History, writer: usize, stop: &AtomicBool) -> usize {
    let (mut parent, began) = (Value::Null, Instant::now());
    let json = [("content-type", "application/json")];
    for turn in 0.. {
        if stop.load(Ordering::SeqCst) {
            return turn;
        }
        // 20 writers, 10 requests a second each.
        let at = Duration::from_millis(100) * u32::try_from(turn).unwrap();
        thread::sleep(at.saturating_sub(began.elapsed()));
        let (input, stream) = (format!("writer {writer} turn {turn}"), turn % 2 == 0);
        let model = if stream { "s" } else { "m" };
        let body = json!({"model": model, "input": input, "stream": stream,
            "previous_response_id": parent});
        let sent = client.try_send("POST", "/v1/responses", &json, body.to_string().as_bytes());
        let reply = sent.unwrap_or_else(|error| panic!("{input} was lost: {error}"));
        assert_eq!(reply.status, 200, "{input} was refused: {}", reply.text());
        let told = if stream {
            check_stream(&reply.text()).pop().expect("events")["response"].take()
        } else {
            reply.json()
        };
        assert_eq!(
            (&told["status"], &told["store"]),
            (&json!("completed"), &json!(true))
        );
        history.acknowledge(&told, &input);
        parent = if turn % 10 == 9 {
            Value::Null
        } else {
            told["id"].clone()
        };
    }
    0
}

#[test]
fn g3_a_rolling_restart_refuses_and_loses_nothing() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    fake.on("m", [Script::completion("yes")]);
    fake.on("s", [Script::says("yes")]);
    let start = || {
        TestGateway::on(&fake.url())
            .db(&folder.path().join("it.db"))
            .flag("--drain-delay=2s")
            .env(knobs::SHUTDOWN_GRACE, "20s")
            .start()
    };
    let mut gateways = [start(), start()];
    let balancer = Balancer::start(&[gateways[0].client().address, gateways[1].client().address]);
    let client = Client {
        address: balancer.address,
    };
    let (history, stop) = (History::default(), AtomicBool::new(false));
    let sent: usize = thread::scope(|scope| {
        let talks: Vec<_> = (0..20)
            .map(|writer| {
                let (history, stop) = (&history, &stop);
                scope.spawn(move || talk(client, history, writer, stop))
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        for _round in 0..knobs::rounds(1, 10) {
            for (which, gateway) in gateways.iter_mut().enumerate() {
                gateway.signal(Signal::SIGTERM);
                let ended = gateway.wait_exit(Duration::from_secs(60));
                assert_eq!(ended.code(), Some(0));
                gateway.restart();
                balancer.moved(which, gateway.client().address);
                let until = Instant::now() + Duration::from_secs(30);
                while !balancer.is_ready(which) {
                    assert!(Instant::now() < until, "never ready again");
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
        talks
            .into_iter()
            .map(|talk| talk.join().expect("talk"))
            .sum()
    });
    assert_eq!(history.len(), sent, "every request was answered and kept");
    assert!(sent > 200, "only {sent} requests met the restarts");
    assert_eq!(history.violations(client), Vec::<String>::new());
}
