//! An upstream that keeps nothing of what it is sent, for requests of tens of megabytes: a thread for
//! each connection. The model `long` answers with [`LONG`] bytes of text, `paced` with a word every
//! [`PACE`] for [`PACED`] words, every other one with a word.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::Script;
use super::upstream::script::{finish, framed, text, usage};

/// Length of a long answer.
pub(crate) const LONG: usize = 20 << 20;
/// Between two words of a paced answer.
pub(crate) const PACE: Duration = Duration::from_millis(20);
/// Words of a paced answer.
pub(crate) const PACED: usize = 250;
/// How much of a body's beginning and end is looked at.
const SEEN: usize = 4096;

/// Its URL; it lives as long as the test's process.
pub(crate) fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let address = listener.local_addr().expect("port");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A gateway that leaves ends it.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    format!("http://{address}")
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let mut seen = Vec::new();
        let head = loop {
            if let Some(at) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            let count = some(stream.read(&mut buffer)?)?;
            seen.extend_from_slice(&buffer[..count]);
        };
        let words = String::from_utf8_lossy(&seen[..head]).to_ascii_lowercase();
        let length = words
            .lines()
            .find_map(|l| l.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |l| l.trim().parse().unwrap_or(0));
        let mut left = (head + length).saturating_sub(seen.len());
        let mut end = Vec::new();
        while left > 0 {
            let count = some(stream.read(&mut buffer)?)?;
            left = left.saturating_sub(count);
            if seen.len() < SEEN {
                seen.extend_from_slice(&buffer[..count.min(SEEN)]);
            }
            end.extend_from_slice(&buffer[count.saturating_sub(SEEN)..count]);
            end.drain(..end.len().saturating_sub(SEEN));
        }
        seen.extend_from_slice(&end);
        answer(&mut stream, &seen, words.starts_with("get "))?;
    }
}

/// A read of nothing is the end.
fn some(count: usize) -> io::Result<usize> {
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

fn answer(stream: &mut TcpStream, asked: &[u8], lists: bool) -> io::Result<()> {
    let says = |word: &[u8]| asked.windows(word.len()).any(|w| w == word);
    if lists {
        let model = json!({"id": "m", "object": "model", "root": "r".repeat(1 << 20)});
        let list = json!({"object": "list", "data": [model]});
        return stream.write_all(&Script::json(200, &list).bytes());
    }
    let is_long = says(b"\"model\":\"long\"");
    let length = if is_long { LONG } else { 2 };
    if !says(b"\"stream\":true") {
        return stream.write_all(&Script::completion(&"w".repeat(length)).bytes());
    }
    stream.write_all(&Script::stream().bytes())?;
    let is_paced = says(b"\"model\":\"paced\"");
    let piece = length.min(16 << 10);
    let word = framed(format!("data: {}\n\n", text(&"w".repeat(piece))).as_bytes());
    let words = if is_paced { PACED } else { length / piece };
    for _ in 0..words {
        stream.write_all(&word)?;
        if is_paced {
            thread::sleep(PACE);
        }
    }
    for event in [finish("stop"), usage(7, 7)] {
        stream.write_all(&framed(format!("data: {event}\n\n").as_bytes()))?;
    }
    stream.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
}
