//! The fuzz targets on stable: every kept input, and mutations of them for as long as is asked for.
//!
//! Mutations of the product, not tried yet, that should each be seen by a target: a sequence number that is skipped (f2), CR
//! taken for no line end (f1), `top_p` left out of the model's body (f3), `100.64.0.0/10` taken for
//! public (f10), a refused seal key shown (f5), the owner left out of an envelope's bond (f8).

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test is told how long it may take; what cannot be read fails it"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vllm_responses_oracles::{TARGETS, Target};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(target)
}

/// The kept inputs of a target, in the order of their names.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(target)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

/// A single step away from an input.
#[derive(Clone, Debug)]
enum Change {
    Flip(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize, usize),
    Cut(usize),
}

/// Pieces on which parsers turn.
const WORDS: [&[u8]; 22] = [
    b"\0",
    b"\r",
    b"\n\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xff",
    b"data: ",
    b"event: error\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\ud800",
    b"null",
    b"1e999",
    b"-0",
    b"@",
    b"[::1]",
    b"127.1",
    "é🦀".as_bytes(),
];

fn change() -> impl Strategy<Value = Change> {
    let word = prop::sample::select(WORDS.to_vec()).prop_map(<[u8]>::to_vec);
    let bytes = prop::collection::vec(any::<u8>(), 1..8);
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (any::<usize>(), prop_oneof![3 => word, 1 => bytes])
            .prop_map(|(at, new)| Change::Insert(at, new)),
        (any::<usize>(), 1..16_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<usize>(), 1..32_usize, 1..40_usize)
            .prop_map(|(at, count, times)| Change::Repeat(at, count, times)),
        any::<usize>().prop_map(Change::Cut),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let size = bytes.len();
        let place = |at: usize| at % (size + 1);
        match change {
            Change::Flip(at, bits) if size > 0 => bytes[at % size] ^= bits,
            Change::Flip(..) => {}
            Change::Insert(at, new) => {
                let at = place(*at);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Remove(at, count) => {
                let at = place(*at);
                bytes.drain(at..(at + count).min(size));
            }
            Change::Repeat(at, count, times) => {
                let at = place(*at);
                let piece = bytes[at..(at + count).min(size)].repeat(*times);
                bytes.splice(at..at, piece);
            }
            Change::Cut(at) => bytes.truncate(place(*at)),
        }
    }
    bytes
}

/// Runs the oracle; names the input when it panics.
fn judge((name, oracle): Target, what: &str, bytes: &[u8]) {
    let began = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| oracle(bytes)));
    let shown: String = bytes.escape_ascii().take(4000).map(char::from).collect();
    assert!(passed.is_ok(), "{name} fails on {what}: b\"{shown}\"");
    // The promise is one second with the compiler's help.
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(20),
        "{name} took {took:?} on {what}: b\"{shown}\""
    );
}

/// So many mutations, or `FUZZ_SECONDS` of them.
fn mutate(target: Target, seed: &[Vec<u8>]) {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let limit = seconds.map(|text| Duration::from_secs(text.parse().unwrap()));
    let (began, mut ran) = (Instant::now(), 0_u64);
    let input = (
        any::<prop::sample::Index>(),
        prop::collection::vec(change(), 0..6),
    );
    loop {
        let mut runner = TestRunner::new(Config {
            cases: 256,
            failure_persistence: None,
            ..Config::default()
        });
        let run = runner.run(&input, |(which, changes)| {
            let bytes = changed(which.get(seed).clone(), &changes);
            judge(target, "a mutation", &bytes);
            Ok(())
        });
        if let Err(error) = run {
            panic!("{error}");
        }
        ran += 256;
        if limit.is_none_or(|limit| began.elapsed() > limit) {
            break;
        }
    }
    eprintln!("{}: {ran} mutations", target.0);
}

fn on_stable(name: &str) {
    let target = *TARGETS.iter().find(|target| target.0 == name).unwrap();
    let kept = kept(name);
    assert!(kept.len() > 3, "the corpus of {name} is missing");
    for (file, bytes) in &kept {
        judge(target, file, bytes);
    }
    let seed: Vec<Vec<u8>> = kept.into_iter().map(|(_, bytes)| bytes).collect();
    mutate(target, &seed);
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            on_stable(stringify!($name));
        })*

        #[test]
        fn every_target_is_run_here_and_has_its_fuzzer() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.0).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let fuzzers = folder("../fuzz_targets");
            let mut found: Vec<String> = fs::read_dir(fuzzers)
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            (found.sort(), names.sort());
            assert_eq!(found, names);
        }
    };
}

targets! {
    f1_sse f2_chunks f3_requests f4_mcp_file f5_configuration f6_mcp_messages f7_rows f8_sealed f10_guard
}
