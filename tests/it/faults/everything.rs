//! B4: everything at once, in a memory cgroup of 1 GiB, which is what the deployments give: bombs, large
//! bodies, large conversations, answers that nobody takes, stalled uploads. The process grows by the
//! limit and 64 MiB at most, is never killed, and serves small requests or says that it cannot.
//!
//! `EVERYTHING=bombs,readers` runs only these, to find out who takes too much.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::SockRef;

use super::memory::{BESIDE, MIB, album, bomb, gateway_on, mark, metric, post, resident, until};
use crate::harness::cgroup::MemoryGroup;
use crate::harness::client::request;
use crate::harness::{TestGateway, bulk, knobs};

const LIMIT: usize = 512 * MIB;

/// One kind of client.
struct Kind {
    name: &'static str,
    /// How many of them there are.
    clients: usize,
    /// What each sends, again and again.
    asks: Vec<Vec<u8>>,
    /// How long the answer is not read.
    unread: Duration,
    /// Whether the request is ever sent whole.
    whole: bool,
}

impl Kind {
    fn new(name: &'static str, clients: usize, asks: Vec<Vec<u8>>) -> Self {
        Self {
            name,
            clients,
            asks,
            unread: Duration::ZERO,
            whole: true,
        }
    }

    fn unread(mut self, time: Duration) -> Self {
        self.unread = time;
        self
    }
}

fn create(body: &serde_json::Value) -> Vec<u8> {
    post("/v1/responses", &[], body.to_string().as_bytes())
}

/// Requests of every kind; `last` is a stored response of a conversation of 48 MB.
fn kinds(last: &str) -> Vec<Kind> {
    let long = "a".repeat(15 * MIB);
    let small_items = vec![r#"{"id":"x"}"#; MIB / 11].join(",");
    let small_items = format!(r#"{{"model":"m","input":[{small_items}]}}"#);
    let text = json!({"model": "m", "input": long});
    let streamed = json!({"model": "m", "input": long, "stream": true});
    let told = json!({"model": "m", "input": "x", "instructions": long, "store": false});
    let mut told_again = told.clone();
    told_again["stream"] = true.into();
    let goes_on = json!({"model": "m", "input": "x", "previous_response_id": last});
    let answer = json!({"model": "long", "input": "x"});
    let flood = json!({"model": "long", "input": "x", "stream": true});
    let chat = json!({"model": "long", "messages": [{"role": "user", "content": long}]});
    let chat = post("/v1/chat/completions", &[], chat.to_string().as_bytes());
    let count = post(
        "/v1/responses/input_tokens",
        &[],
        text.to_string().as_bytes(),
    );
    let get = |path: &str| request("GET", path, &[], b"");
    let resource = format!("/v1/responses/{last}");
    let reads = vec![
        get(&resource),
        get(&format!("{resource}/input_items?limit=100")),
        get(&format!("{resource}/input_items?limit=100&order=asc")),
    ];
    let awhile = Duration::from_secs(3);
    let mut stalled = Kind::new("stalled", 3, vec![create(&text)]);
    stalled.whole = false;
    vec![
        Kind::new("bombs", 4, vec![bomb()]),
        Kind::new(
            "items",
            2,
            vec![post("/v1/responses", &[], small_items.as_bytes())],
        ),
        Kind::new("texts", 4, vec![create(&text), create(&streamed)]),
        Kind::new("turns", 6, vec![create(&goes_on)]),
        Kind::new("readers", 8, reads).unread(awhile),
        Kind::new("told", 6, vec![create(&told)]).unread(awhile),
        Kind::new("told_again", 6, vec![create(&told_again)]).unread(awhile),
        Kind::new("answers", 4, vec![create(&answer)]).unread(awhile),
        Kind::new("floods", 4, vec![create(&flood)]).unread(awhile),
        Kind::new("floods_read", 2, vec![create(&flood)]),
        Kind::new("passing", 4, vec![chat]).unread(awhile),
        Kind::new("counting", 2, vec![count]),
        Kind::new("models", 20, vec![get("/v1/models")]).unread(awhile),
        stalled,
    ]
}

/// Sends, waits, reads to the end; gives the status.
fn meet(address: SocketAddr, kind: &Kind, ask: &[u8], over: &AtomicBool) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    let limit = Some(Duration::from_secs(10));
    stream.set_read_timeout(limit).ok()?;
    stream.set_write_timeout(limit).ok()?;
    if !kind.unread.is_zero() {
        // What the kernel takes for a client is taken.
        SockRef::from(&stream).set_recv_buffer_size(4096).ok()?;
    }
    let sent = if kind.whole { ask.len() } else { ask.len() / 2 };
    // A refusal may come before everything was taken.
    let _refused = stream.write_all(&ask[..sent]);
    let began = Instant::now();
    while began.elapsed() < kind.unread && !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    let status = std::str::from_utf8(&head[9..]).ok()?.parse().ok();
    let mut buffer = vec![0; 1 << 16];
    let mut end = Vec::new();
    // To its end, or as long as something comes; connections are not used again.
    while began.elapsed() < Duration::from_secs(20) && !over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => end.extend_from_slice(&buffer[count.saturating_sub(64)..count]),
        }
        end.drain(..end.len().saturating_sub(64));
        if end.ends_with(b"0\r\n\r\n") || end.ends_with(b"}") {
            break;
        }
    }
    status
}

/// How many requests of each kind came to which status.
type Counts = Mutex<BTreeMap<(&'static str, Option<u16>), usize>>;

/// One client: its requests again and again, until all is over.
fn go_on(address: SocketAddr, kind: &Kind, client: usize, (over, counts): (&AtomicBool, &Counts)) {
    for ask in kind.asks.iter().cycle().skip(client) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let status = meet(address, kind, ask, over);
        *counts
            .lock()
            .unwrap()
            .entry((kind.name, status))
            .or_insert(0) += 1;
        thread::sleep(Duration::from_millis(20));
    }
}

/// How much more the process has than it has counted, beyond what it had before.
fn uncounted(gateway: &TestGateway, before: usize) -> Option<usize> {
    let page = gateway
        .client()
        .try_send("GET", "/metrics", &[], b"")
        .ok()?;
    let now = resident(gateway).1;
    let page = page.text();
    let line = (page.lines()).find_map(|line| line.strip_prefix("vllm_responses_buffered_bytes "));
    let counted: usize = line?.trim().split('.').next()?.parse().ok()?;
    Some(now.saturating_sub(before).saturating_sub(counted))
}

/// Lets all kinds run at once for so long; meanwhile small turns are asked for. Says how many of these
/// were served and refused.
fn storm(gateway: &TestGateway, kinds: &[Kind], time: Duration) -> (usize, usize) {
    let (over, address) = (AtomicBool::new(false), gateway.client().address);
    let counts = Counts::default();
    let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (before, mut beyond) = (resident(gateway).1, 0);
    thread::scope(|scope| {
        for kind in kinds {
            for client in 0..kind.clients {
                let (over, counts) = (&over, &counts);
                scope.spawn(move || go_on(address, kind, client, (over, counts)));
            }
        }
        let began = Instant::now();
        while began.elapsed() < time {
            let small = json!({"model": "m", "input": "x"});
            let reply = gateway.client().try_send(
                "POST",
                "/v1/responses",
                &[("content-type", "application/json")],
                small.to_string().as_bytes(),
            );
            match reply.map(|reply| (reply.status, reply.header("retry-after").is_some())) {
                Ok((200, _)) => served.fetch_add(1, Ordering::Relaxed),
                Ok((503, true)) => refused.fetch_add(1, Ordering::Relaxed),
                other => panic!("a small turn came to {other:?}"),
            };
            beyond = uncounted(gateway, before).unwrap_or(0).max(beyond);
            thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
    });
    eprintln!("{:?}", counts.lock().unwrap());
    eprintln!("{} MiB beyond what was counted at most", beyond / MIB);
    (served.into_inner(), refused.into_inner())
}

#[test]
fn b4_everything_at_once_stays_within_the_limit_and_64_mib() {
    let Some(group) = MemoryGroup::make(1024 * MIB) else {
        return;
    };
    let upstream = bulk::upstream();
    let mut gateway = gateway_on(&upstream, "512MiB");
    let last = album(&gateway);
    gateway.restart();
    group.take(gateway.pid());
    let Some(before) = mark(&gateway) else { return };
    let mut kinds = kinds(&last);
    if let Ok(only) = std::env::var("EVERYTHING") {
        kinds.retain(|kind| only.split(',').any(|name| name == kind.name));
    }
    let seconds = u64::try_from(knobs::rounds(30, 300)).unwrap();
    let (served, refused) = storm(&gateway, &kinds, Duration::from_secs(seconds));
    let (most, now) = resident(&gateway);
    let grown = most.saturating_sub(before);
    eprintln!(
        "small turns: {served} served, {refused} refused; grown by {} MiB at most, {} MiB now",
        grown / MIB,
        now.saturating_sub(before) / MIB
    );
    assert_eq!(group.killed(), 0, "killed for want of memory");
    assert!(grown <= LIMIT + BESIDE, "grown by {} MiB", grown / MIB);
    assert!(served > 0, "nobody was served");
    // Those who took nothing are cut off after a minute.
    until("free again", Duration::from_secs(90), || {
        metric(&gateway, "vllm_responses_buffered_bytes ") < 1e6
    });
    drop(gateway);
}
