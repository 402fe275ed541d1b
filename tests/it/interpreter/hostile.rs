//! A service that lies: whatever it answers is an item's failure at most.
//!
//! Mutation, not tried yet: with `vet` letting everything through, the case of another's container fails.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::{EXECUTE, TOKEN, call_of, gateway_on, run, told};
use crate::harness::Fake;

/// Says that all is well, and answers calls with these bytes; `CONTAINER` in them is the one asked for.
struct Liar {
    url: String,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let liar = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            answer: Arc::default(),
            asked: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&liar.answer), Arc::clone(&liar.asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                thread::spawn(move || serve(stream, &answer, &asked));
            }
        });
        liar
    }

    fn says(&self, bytes: Vec<u8>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn serve(mut stream: TcpStream, answer: &Mutex<Vec<u8>>, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(head.clone());
        let bytes = if head.contains(EXECUTE) {
            let order: Value = serde_json::from_slice(&body).unwrap();
            let container = order["container"]["shared"].as_str().unwrap_or("");
            let answer = answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            // The ids are as long as the placeholder.
            replace(answer, container)
        } else {
            let walls = json!({"landlock": 7, "seccomp": true});
            let status = json!({"ready": true, "idle": 1, "warm": 0, "live": 1, "held": 0, "kept": 0,
                "waiting": 0, "starts": 1, "failures": 0, "last_error": "a\u{1b}[2Jb", "walls": walls});
            let report = json!({"protocol": 1, "version": "0", "status": status});
            http("200 OK", report.to_string().as_bytes())
        };
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

const PLACEHOLDER: &[u8] = b"cntr_CONTAINERCONTAINERCONTAINERCONTA";

fn replace(mut bytes: Vec<u8>, container: &str) -> Vec<u8> {
    assert_eq!(container.len(), PLACEHOLDER.len());
    if let Some(at) = bytes
        .windows(PLACEHOLDER.len())
        .position(|part| part == PLACEHOLDER)
    {
        bytes[at..at + PLACEHOLDER.len()].copy_from_slice(container.as_bytes());
    }
    bytes
}

fn ran(container: &str, images: &Value) -> Vec<u8> {
    let ran = json!({"ran": {"container_id": container, "logs": "lie", "images": images,
        "error": null, "truncated": false}});
    http("200 OK", ran.to_string().as_bytes())
}

#[test]
fn whatever_the_service_answers_is_an_item_at_most() {
    let (fake, liar) = (Fake::start(), Liar::start());
    let gateway = gateway_on(&fake, &liar.url).start();
    let ours = std::str::from_utf8(PLACEHOLDER).unwrap();
    liar.says(ran(ours, &json!([])));
    let honest = run(&fake, gateway.client(), "1");
    assert_eq!(call_of(&honest)["status"], "completed", "{honest}");
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let redirect = format!(
        "HTTP/1.1 307 X\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.local_addr().unwrap()
    );
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let cases: [(&str, Vec<u8>); 9] = [
        ("another container", ran("cntr_0", &json!([]))),
        ("no PNG", ran(ours, &json!(["PHNjcmlwdD4="]))),
        ("a redirect", redirect.into_bytes()),
        ("no JSON", http("200 OK", b"<html>")),
        ("deep", http("200 OK", deep.as_bytes())),
        ("500", http("500 X", b"")),
        ("401", http("401 X", b"")),
        (
            "too long",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec(),
        ),
        ("nonsense", b"\0\x01\x02 nonsense\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        liar.says(bytes);
        let response = run(&fake, gateway.client(), "1");
        assert_eq!(response["status"], "completed", "{what}");
        assert_eq!(call_of(&response)["status"], "failed", "{what}: {response}");
        assert!(!told(&fake).contains("lie"), "{what}");
    }
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "a redirect was followed");
    let asked = liar.asked.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(
        asked.iter().all(|head| head.contains(TOKEN)),
        "the token is shown each time"
    );
    let page = gateway.client().get("/v1/status").json();
    let error = page["code_interpreter"]["last_error"]
        .as_str()
        .unwrap_or("");
    assert!(!error.contains('\u{1b}'), "{error}");
}
