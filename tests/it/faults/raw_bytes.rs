//! F9: bytes that are nearly HTTP, on the real program. None hangs it, ends it, or reaches the model by
//! a way that a whole request would not.
//!
//! Mutation tried, and it failed: a handler that panics at a `%` in an id.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::harness::{Client, Fake, Script, TestGateway, knobs};

/// Requests to begin with.
const SEEDS: [&str; 8] = [
    "GET /health HTTP/1.1\r\nhost: g\r\n\r\n",
    "POST /v1/responses HTTP/1.1\r\nhost: g\r\ncontent-length: 25\r\n\r\n{\"model\":\"m\",\"input\":\"x\"}",
    "POST /v1/responses HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n19\r\n{\"model\":\"m\",\"input\":\"x\"}\r\n0\r\n\r\n",
    "GET /v1/responses/resp_%00%ff%2e%2e HTTP/1.1\r\nhost: g\r\n\r\n",
    "DELETE /v1/responses/resp_1?a=b HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n",
    "GET /v1/responses/resp_1/input_items?limit=9999999999999999999&after=x&order=up HTTP/1.1\r\nhost: g\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: g\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: g\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: g\r\n\r\n",
];

/// What stands where it should not.
const WORDS: [&[u8]; 14] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\0",
    b":",
    b"\xff",
    b"%",
    b"//",
    b"?",
    b"content-length: -1\r\n",
    b"transfer-encoding: chunked\r\n",
    b"HTTP/9.9",
    b"ffffffffffffffff",
];

/// A place, how many bytes go there, and what comes.
type Change = (prop::sample::Index, usize, Vec<u8>);

fn change() -> impl Strategy<Value = Change> {
    let word = prop::sample::select(WORDS.to_vec()).prop_map(<[u8]>::to_vec);
    let new = prop_oneof![word, prop::collection::vec(any::<u8>(), 0..4)];
    (any::<prop::sample::Index>(), 0..4_usize, new)
}

fn changed(seed: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.as_bytes().to_vec();
    for (at, count, new) in changes {
        let at = at.index(bytes.len() + 1);
        let end = (at + count).min(bytes.len());
        bytes.splice(at..end, new.iter().copied());
    }
    bytes
}

/// Sends, says that this was all, and reads to the end.
fn answer(client: Client, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(client.address).expect("connect");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("timeout");
    let mut out = Vec::new();
    if stream.write_all(bytes).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
        let _ = stream.shutdown(Shutdown::Write);
        // A reset is an answer too.
        let _ = stream.read_to_end(&mut out);
    }
    out
}

#[test]
fn f9_nearly_http_neither_hangs_nor_ends_the_gateway() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let cases = knobs::rounds(400, 20_000);
    let mut runner = TestRunner::new(Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        ..Config::default()
    });
    let input = (
        prop::sample::select(SEEDS.to_vec()),
        prop::collection::vec(change(), 0..5),
    );
    let run = runner.run(&input, |(seed, changes)| {
        let bytes = changed(seed, &changes);
        let began = Instant::now();
        let said = answer(client, &bytes);
        let took = began.elapsed();
        prop_assert!(
            took < Duration::from_secs(25),
            "{:?}",
            bytes.escape_ascii().to_string()
        );
        let head = String::from_utf8_lossy(&said);
        prop_assert!(said.is_empty() || head.starts_with("HTTP/1."), "{head}");
        prop_assert!(!head.starts_with("HTTP/1.1 500"), "{head}");
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(
        client.create(&json!({"model": "m", "input": "x"})).status,
        200
    );
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}
