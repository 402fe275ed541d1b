//! A scripted vLLM in raw TCP: a thread per connection, answers chosen by the request's model.
//!
//! Scripts are registered under model names, so tests that share one upstream are independent.
//! The last script of a name answers all further requests; an unregistered name gets vLLM's 404.

pub(crate) mod invariants;
pub(crate) mod script;

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

pub(crate) use script::{Gate, Script, Step};

/// How a connection ended, as the upstream saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The script closed it, or the answer was complete.
    ByScript,
    PeerFin,
    PeerReset,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) raw: Vec<u8>,
    pub(crate) body: Value,
    pub(crate) at: Instant,
    /// When and how the answer ended; none while it runs.
    pub(crate) closed: Option<(Closed, Instant)>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(other, value)| (other == name).then_some(value.as_str()))
    }
}

#[derive(Default)]
struct State {
    scripts: HashMap<String, VecDeque<Script>>,
    seen: Vec<Seen>,
    broken: Vec<String>,
    connections: usize,
}

/// The running fake; stops on drop.
pub(crate) struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Fake {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    /// On a given address, for restarts; waits for the port to be free.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let until = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < until, "bind {address}: {error}"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (shared, stopped) = (Arc::clone(&shared), Arc::clone(&stopped));
                lock(&shared).connections += 1;
                thread::spawn(move || {
                    Connection {
                        stream,
                        state: shared,
                        stop: stopped,
                    }
                    .run();
                });
            }
        });
        Self {
            address,
            state,
            stop,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Appends scripts for a model.
    pub(crate) fn on(&self, model: &str, scripts: impl IntoIterator<Item = Script>) {
        let mut state = lock(&self.state);
        state
            .scripts
            .entry(model.to_owned())
            .or_default()
            .extend(scripts);
    }

    /// Forgets the scripts of a model and sets new ones.
    pub(crate) fn set(&self, model: &str, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.state).scripts.remove(model);
        self.on(model, scripts);
    }

    /// Chat requests for a model, oldest first.
    pub(crate) fn seen(&self, model: &str) -> Vec<Seen> {
        lock(&self.state)
            .seen
            .iter()
            .filter(|s| s.body["model"] == model)
            .cloned()
            .collect()
    }

    /// Every request, whatever it was.
    pub(crate) fn all_seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// Waits until the model was asked for `count` times.
    pub(crate) fn wait_seen(&self, model: &str, count: usize) -> Vec<Seen> {
        self.wait(model, |seen| seen.len() >= count)
    }

    /// Waits until every answer for the model has ended.
    pub(crate) fn wait_closed(&self, model: &str) -> Vec<Seen> {
        self.wait(model, |seen| {
            !seen.is_empty() && seen.iter().all(|s| s.closed.is_some())
        })
    }

    fn wait(&self, model: &str, ready: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.seen(model);
            if ready(&seen) {
                return seen;
            }
            assert!(
                Instant::now() < until,
                "upstream state for {model} not reached: {seen:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// Fails when any request of this model, or of all when none is named, broke an invariant.
    pub(crate) fn assert_sound(&self) {
        let broken = lock(&self.state).broken.clone();
        assert!(
            broken.is_empty(),
            "the gateway sent unsound requests: {broken:#?}"
        );
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if !thread::panicking() {
            self.assert_sound();
        }
    }
}

struct Connection {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Connection {
    fn run(mut self) {
        let _ = self.stream.set_nodelay(true);
        while self.is_asked()
            && let Some(seen) = self.read_request()
        {
            let script = self.choose(&seen);
            let index = {
                let mut state = lock(&self.state);
                // A packed body is passed through, and not read here.
                let packed = seen
                    .headers
                    .iter()
                    .any(|(name, _)| name == "content-encoding");
                let rules = if seen.path.ends_with("/chat/completions") && !packed {
                    invariants::broken_rules(&seen.body)
                } else {
                    Vec::new()
                };
                let model = seen.body["model"].to_string();
                state
                    .broken
                    .extend(rules.into_iter().map(|rule| format!("{model}: {rule}")));
                state.seen.push(seen);
                state.seen.len() - 1
            };
            let closed = self.play(&script);
            let end = closed.unwrap_or(Closed::ByScript);
            lock(&self.state).seen[index].closed = Some((end, Instant::now()));
            if closed.is_some() {
                return;
            }
        }
    }

    fn choose(&self, seen: &Seen) -> Script {
        match (
            seen.method.as_str(),
            seen.path.split('?').next().unwrap_or(""),
        ) {
            ("GET", "/health") => Script::answer(200, &[], b""),
            ("GET", "/v1/models") => Script::json(
                200,
                &json!({"object": "list", "data": [{"id": "test-model", "object": "model",
                    "created": 1, "owned_by": "vllm", "root": "test-model",
                    "max_model_len": 4096}]}),
            ),
            (
                "POST",
                "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" | "/tokenize",
            ) => {
                let mut state = lock(&self.state);
                let mut model = seen.body["model"].as_str().unwrap_or("").to_owned();
                if seen.path == "/tokenize" {
                    model.insert_str(0, "tokenize ");
                }
                match state.scripts.get_mut(&model) {
                    Some(queue) if queue.len() > 1 => queue.pop_front().unwrap_or_default(),
                    Some(queue) => queue.front().cloned().unwrap_or_default(),
                    None => Script::json(
                        404,
                        &json!({"error": {"message": "The model does not exist.",
                            "type": "NotFoundError", "param": "model", "code": 404}}),
                    ),
                }
            }
            _ => Script::json(404, &json!({"detail": "Not Found"})),
        }
    }

    /// None when the answer is complete and the connection goes on.
    fn play(&mut self, script: &Script) -> Option<Closed> {
        for step in &script.steps {
            match step {
                Step::Send(bytes) => {
                    if let Err(error) = self.stream.write_all(bytes) {
                        return Some(match error.kind() {
                            ErrorKind::ConnectionReset => Closed::PeerReset,
                            _ => Closed::PeerFin,
                        });
                    }
                }
                Step::Sleep(time) => {
                    let until = Instant::now() + *time;
                    if let Some(end) = self.watch(|| Instant::now() >= until) {
                        return Some(end);
                    }
                }
                Step::Wait(gate) => {
                    if let Some(end) = self.watch(|| gate.is_open()) {
                        return Some(end);
                    }
                }
                Step::Hold => return self.watch(|| false),
                Step::Reset => {
                    let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                    return Some(Closed::ByScript);
                }
                Step::Fin => return Some(Closed::ByScript),
            }
        }
        None
    }

    /// Waits for the condition while noticing that the peer left.
    fn watch(&self, ready: impl Fn() -> bool) -> Option<Closed> {
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(5)));
        while !ready() {
            if self.stop.load(Ordering::SeqCst) {
                return Some(Closed::ByScript);
            }
            match self.stream.peek(&mut [0]) {
                Ok(0) => return Some(Closed::PeerFin),
                Ok(_) => thread::sleep(Duration::from_millis(5)),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Some(Closed::PeerReset),
            }
        }
        None
    }

    /// Waits for the next request; not when the peer leaves or the fake stops.
    fn is_asked(&self) -> bool {
        let _ = (self.stream).set_read_timeout(Some(Duration::from_millis(250)));
        loop {
            let peeked = self.stream.peek(&mut [0]);
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            match peeked {
                Ok(count) => return count > 0,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return false,
            }
        }
    }

    fn read_request(&mut self) -> Option<Seen> {
        self.stream.set_read_timeout(None).ok()?;
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more(&mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let find = |name: &str| {
            headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.clone())
        };
        let chunked = find("transfer-encoding").is_some_and(|v| v.contains("chunked"));
        let length: usize = find("content-length")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        let raw = if chunked {
            loop {
                if let Some(body) = super::client::unchunk(&bytes[head_end..]) {
                    break body;
                }
                self.more(&mut bytes)?;
            }
        } else {
            while bytes.len() < head_end + length {
                self.more(&mut bytes)?;
            }
            bytes[head_end..head_end + length].to_vec()
        };
        let body = serde_json::from_slice(&raw).unwrap_or(Value::Null);
        Some(Seen {
            method,
            path,
            headers,
            raw,
            body,
            at: Instant::now(),
            closed: None,
        })
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => None,
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                Some(())
            }
        }
    }
}
