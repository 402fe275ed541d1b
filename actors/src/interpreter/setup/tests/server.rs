//! A registry of this machine that can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// What the server does with the next request for a file; afterwards it behaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Sends so many bytes of the body, then closes.
    Cut(usize),
    /// Answers this status.
    Status(u16),
    /// Ignores the range that is asked for.
    NoRanges,
}

pub(super) struct Server {
    pub(super) url: String,
    faults: Sender<Fault>,
    seen: Receiver<String>,
}

impl Server {
    /// Serves these files by the last part of the path.
    pub(super) fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (faults, planned) = channel();
        let (saw, seen) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let fault = planned.try_recv().ok();
                // The test is over when nobody listens any more.
                if saw.send(answer(&stream.unwrap(), &files, fault)).is_err() {
                    break;
                }
            }
        });
        Self { url, faults, seen }
    }

    /// Plans what happens to one of the next requests, in order.
    pub(super) fn plan(&self, fault: Fault) {
        self.faults.send(fault).unwrap();
    }

    /// `FILE` or `FILE from N` for each request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.try_iter().collect()
    }
}

fn answer(stream: &TcpStream, files: &BTreeMap<String, Vec<u8>>, fault: Option<Fault>) -> String {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let name = path.rsplit('/').next().unwrap().to_owned();
    let range = lines.take_while(|line| !line.is_empty()).find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("range: bytes=")
            .map(str::to_owned)
    });
    let from: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let seen = if from == 0 {
        name.clone()
    } else {
        format!("{name} from {from}")
    };
    let from = if matches!(fault, Some(Fault::NoRanges)) {
        0
    } else {
        from
    };
    let (status, mut body) = match (files.get(&name), fault) {
        (_, Some(Fault::Status(status))) => (status, Vec::new()),
        (None, _) => (404, Vec::new()),
        (Some(file), _) if from >= file.len() => (416, Vec::new()),
        (Some(file), _) if from > 0 => (206, file[from..].to_vec()),
        (Some(file), _) => (200, file.clone()),
    };
    let length = body.len();
    match fault {
        Some(Fault::Cut(most)) => body.truncate(most),
        Some(Fault::Status(_) | Fault::NoRanges) | None => {}
    }
    let range = if status == 206 {
        format!("content-range: bytes {from}-{}/*\r\n", from + length - 1)
    } else {
        String::new()
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{range}\r\n"
    );
    let mut stream = stream;
    // A client that gave up is what some tests are about.
    stream.write_all(head.as_bytes()).unwrap_or_default();
    stream.write_all(&body).unwrap_or_default();
    seen
}
