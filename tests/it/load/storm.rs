//! Many streams at once, on one thread: an upstream that paces them and clients that read them.
//!
//! The model's name steers the answer: `events-N-MS` is N words, one every MS milliseconds;
//! `flood-N` is N kibibytes at once, and then silence.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::harness::client::{request, unchunk};
use crate::harness::upstream::script::{Step, finish, framed, text, usage};
use crate::harness::{Script, check_stream};

/// An upstream on a thread of its own; lives as long as the test's process.
pub(crate) fn upstream() -> String {
    let (told, address) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            let mut connections = JoinSet::new();
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                connections.spawn(connection(stream));
                while connections.try_join_next().is_some() {}
            }
        });
    });
    format!("http://{}", address.recv().unwrap())
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::new();
    loop {
        let Some(asked) = read_request(&mut stream, &mut unread).await? else {
            return Ok(());
        };
        if asked.starts_with(b"GET ") {
            let list = json!({"object": "list", "data": [{"id": "m", "object": "model"}]});
            stream.write_all(&Script::json(200, &list).bytes()).await?;
            continue;
        }
        let body = asked.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let body: Value = serde_json::from_slice(&asked[body..]).map_err(io::Error::other)?;
        answer(&mut stream, body["model"].as_str().unwrap_or("")).await?;
    }
}

async fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(at) = unread.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |l| l.trim().parse().unwrap());
            if unread.len() >= at + 4 + length {
                return Ok(Some(unread.drain(..at + 4 + length).collect()));
            }
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
}

async fn answer(stream: &mut TcpStream, model: &str) -> io::Result<()> {
    stream.write_all(&Script::stream().bytes()).await?;
    let mut parts = model.split('-');
    let kind = parts.next();
    let mut number = || {
        parts
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0)
    };
    if kind == Some("flood") {
        let word = event(&text(&"x".repeat(8192)));
        for _ in 0..number() / 8 {
            stream.write_all(&word).await?;
        }
        // Until the gateway leaves.
        stream.read_u8().await?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (events, pause) = (number(), Duration::from_millis(number()));
    for n in 0..events {
        stream.write_all(&event(&text(&format!(" {n}")))).await?;
        tokio::time::sleep(pause).await;
    }
    let end = [event(&finish("stop")), event(&usage(7, events))].concat();
    stream.write_all(&end).await?;
    for step in Script::bare().done().steps {
        if let Step::Send(bytes) = step {
            stream.write_all(&bytes).await?;
        }
    }
    Ok(())
}

fn event(value: &Value) -> Vec<u8> {
    framed(format!("data: {value}\n\n").as_bytes())
}

/// How one stream went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) whole: usize,
    pub(crate) refused: usize,
    /// What was neither, in words.
    pub(crate) broken: Vec<String>,
}

/// Opens so many streams at once and reads them to their ends; every whole one is checked.
pub(crate) fn streams(gateway: SocketAddr, count: usize, model: &str) -> Tally {
    runtime().block_on(async {
        let mut running = JoinSet::new();
        for _ in 0..count {
            running.spawn(one(gateway, model.to_owned()));
        }
        let mut tally = Tally::default();
        while let Some(ended) = running.join_next().await {
            match ended.unwrap() {
                Ok(wire) => judge(&wire, model, &mut tally),
                Err(error) => tally.broken.push(error.to_string()),
            }
        }
        tally
    })
}

fn judge(wire: &[u8], model: &str, tally: &mut Tally) {
    let head = wire.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
    let words = String::from_utf8_lossy(&wire[..head]).to_ascii_lowercase();
    if words.starts_with("http/1.1 503") && words.contains("retry-after: 1") {
        tally.refused += 1;
        return;
    }
    let Some(body) = unchunk(&wire[head + 4..]).filter(|_| words.starts_with("http/1.1 200"))
    else {
        tally.broken.push(format!("{words}: {} bytes", wire.len()));
        return;
    };
    let events = check_stream(&String::from_utf8(body).unwrap());
    let last = &events[events.len() - 1];
    let said = last["response"]["output"][0]["content"][0]["text"].as_str();
    let count: u64 = model.split('-').nth(1).unwrap().parse().unwrap();
    let words: Vec<String> = (0..count).map(|n| format!(" {n}")).collect();
    let expected = words.concat();
    if last["type"] == "response.completed" && said == Some(&*expected) {
        tally.whole += 1;
    } else {
        tally.broken.push(last.to_string());
    }
}

/// Everything that one client gets.
async fn one(gateway: SocketAddr, model: String) -> io::Result<Vec<u8>> {
    let mut stream = open(gateway, &model).await?;
    let mut wire = Vec::new();
    loop {
        let ended = stream.read_buf(&mut wire).await? == 0;
        let is_last = wire.ends_with(b"0\r\n\r\n") || is_whole_refusal(&wire);
        if ended || is_last {
            return Ok(wire);
        }
    }
}

fn is_whole_refusal(wire: &[u8]) -> bool {
    wire.starts_with(b"HTTP/1.1 5") && wire.ends_with(b"}}")
}

/// A stream that was asked for; what comes of it is the caller's to read.
pub(crate) async fn open(gateway: SocketAddr, model: &str) -> io::Result<TcpStream> {
    let body = json!({"model": model, "input": "x", "stream": true, "store": false});
    let json = [("content-type", "application/json")];
    let bytes = request("POST", "/v1/responses", &json, body.to_string().as_bytes());
    let socket = TcpSocket::new_v4()?;
    if model.starts_with("flood") {
        // What the kernel takes for a client is a part of the answer that was read.
        socket.set_recv_buffer_size(4096)?;
    }
    let mut stream = socket.connect(gateway).await?;
    stream.write_all(&bytes).await?;
    Ok(stream)
}
