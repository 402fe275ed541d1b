//! An MCP server whose every answer is a test's own: status, content type, session and body.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::peer::request;

/// What is asked.
pub(super) struct Asked<'a> {
    pub(super) head: &'a str,
    pub(super) message: Value,
}

impl Asked<'_> {
    pub(super) fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or("")
    }

    /// The session that the request names.
    pub(super) fn session(&self) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("mcp-session-id");
            is_it.then(|| value.trim())
        })
    }

    /// A result of this request.
    pub(super) fn result(&self, result: &Value) -> Said {
        Said::json(&json!({"jsonrpc": "2.0", "id": self.message["id"], "result": result}))
    }

    /// An error of this request.
    pub(super) fn error(status: u16, code: i64, words: &str, id: &Value) -> Said {
        let error = json!({"code": code, "message": words});
        Said {
            status,
            ..Said::json(&json!({"jsonrpc": "2.0", "id": id, "error": error}))
        }
    }

    /// What a plain server of this version says.
    pub(super) fn usual(&self, version: &str, tools: &Value) -> Said {
        match self.method() {
            "initialize" => self.result(&json!({"protocolVersion": version,
                "capabilities": {"tools": {}}, "serverInfo": {"name": "odd", "version": "1"}})),
            "tools/list" => self.result(&json!({ "tools": tools })),
            "tools/call" => self.result(&json!({"content": [{"type": "text", "text": "fine"}]})),
            "ping" => self.result(&json!({})),
            _ => Said::status(202),
        }
    }
}

/// An answer.
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) session: Option<String>,
    pub(super) body: String,
}

impl Said {
    pub(super) fn json(body: &Value) -> Self {
        Self {
            status: 200,
            kind: "application/json",
            session: None,
            body: body.to_string(),
        }
    }

    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            body: String::new(),
            ..Self::json(&Value::Null)
        }
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self {
            kind: "text/plain",
            body: body.to_owned(),
            ..Self::status(status)
        }
    }

    pub(super) fn in_session(self, session: &str) -> Self {
        Self {
            session: Some(session.to_owned()),
            ..self
        }
    }
}

/// A running server; it lives as long as the test process.
pub(super) struct Odd {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Odd {
    pub(super) fn start(answer: impl Fn(&Asked<'_>) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, noted) = (Arc::new(answer), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                thread::spawn(move || serve(stream, &*answer, &noted));
            }
        });
        Self { address, asked }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// How often this was asked: a method, or `GET`.
    pub(super) fn count(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| *asked == what).count()
    }
}

fn serve(mut stream: TcpStream, answer: &impl Fn(&Asked<'_>) -> Said, noted: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    while let Some((head, body)) = request(&mut reader) {
        let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let asked = Asked {
            head: &head,
            message,
        };
        let verb = head.split(' ').next().unwrap_or("").to_owned();
        let what = if verb == "POST" {
            asked.method().to_owned()
        } else {
            verb
        };
        noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
        let said = answer(&asked);
        let session = said.session.map(|id| format!("mcp-session-id: {id}\r\n"));
        let head = format!(
            "HTTP/1.1 {} X\r\ncontent-type: {}\r\n{}content-length: {}\r\n\r\n",
            said.status,
            said.kind,
            session.unwrap_or_default(),
            said.body.len()
        );
        let whole = [head.as_bytes(), said.body.as_bytes()].concat();
        if stream.write_all(&whole).is_err() {
            return;
        }
    }
}

/// Counts from zero, for servers that change over time.
#[derive(Default)]
pub(super) struct Clock(AtomicUsize);

impl Clock {
    pub(super) fn tick(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
