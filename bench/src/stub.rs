//! A model server that costs next to nothing: answers are serialised once and written whole.
//!
//! The model's name steers it, see [`crate::answers`]. `usage.prompt_tokens` is the number of
//! messages seen, so that a chain is checkable.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::answers::{MODELS, Prepared, STREAM_HEAD, plain};

/// Serves on `127.0.0.1:port` until the process is killed.
pub(crate) async fn serve(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("the stub cannot listen: {error}"))?;
    LocalSet::new().run_until(accept(listener)).await
}

async fn accept(listener: TcpListener) -> Result<(), String> {
    let cache = Rc::new(Cache::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _peer) = accepted.map_err(|error| format!("cannot accept: {error}"))?;
                connections.spawn_local(connection(stream, Rc::clone(&cache)));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Answers by model, shared by all connections.
#[derive(Default)]
struct Cache(RefCell<HashMap<String, Rc<Prepared>>>);

impl Cache {
    fn answers_of(&self, model: &str) -> Rc<Prepared> {
        let mut known = self.0.borrow_mut();
        if let Some(known) = known.get(model) {
            return Rc::clone(known);
        }
        let prepared = Rc::new(Prepared::new(model));
        known.insert(model.to_owned(), Rc::clone(&prepared));
        prepared
    }
}

async fn connection(mut stream: TcpStream, cache: Rc<Cache>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::with_capacity(4 << 10);
    let mut answers = cache.answers_of("stub");
    loop {
        let (head, length) = loop {
            if let Some(at) = memmem::find(&unread, b"\r\n\r\n") {
                break (at + 4, body_length(&unread));
            }
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        };
        unread.reserve((head + length).saturating_sub(unread.len()));
        while unread.len() < head + length {
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        }
        let request: Vec<u8> = unread.drain(..head + length).collect();
        if request.starts_with(b"GET ") {
            stream.write_all(plain(MODELS).as_bytes()).await?;
            continue;
        }
        let model = text_after(&request, b"\"model\":");
        if answers.model != model {
            answers = cache.answers_of(&model);
        }
        answer(&mut stream, &answers, &request).await?;
    }
}

async fn answer(stream: &mut TcpStream, answers: &Prepared, request: &[u8]) -> std::io::Result<()> {
    // A timer of no time still waits for the clock's next millisecond.
    if !answers.delay.is_zero() {
        tokio::time::sleep(answers.delay).await;
    }
    let messages = memmem::find_iter(request, b"\"role\":").count();
    let streamed = memmem::find(request, b"\"stream\":true").is_some();
    if let Some(round) = tool_round(answers, request) {
        let name = text_after(request, b"\"function\":{\"name\":");
        let bytes = if streamed {
            answers.call_stream(&name, round)
        } else {
            answers.call(&name, round)
        };
        return stream.write_all(&bytes).await;
    }
    if !streamed {
        return stream.write_all(&answers.answer(messages)).await;
    }
    match answers.period {
        None => {
            let end = answers.end(messages);
            stream
                .write_all(&[STREAM_HEAD, &answers.burst, &end].concat())
                .await
        }
        Some(period) => paced(stream, answers, messages, period).await,
    }
}

/// How many results the request already has, when the script wants a further call.
fn tool_round(answers: &Prepared, request: &[u8]) -> Option<usize> {
    if answers.calls == 0 || memmem::find(request, b"\"tools\":[").is_none() {
        return None;
    }
    let results = memmem::find_iter(request, b"\"role\":\"tool\"").count();
    (results < answers.calls).then_some(results)
}

async fn paced(
    stream: &mut TcpStream,
    answers: &Prepared,
    messages: usize,
    period: Duration,
) -> std::io::Result<()> {
    let mut ticks = interval_at(Instant::now(), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream
        .write_all(&[STREAM_HEAD, &answers.role].concat())
        .await?;
    for _ in 0..answers.tokens {
        ticks.tick().await;
        stream.write_all(&answers.token).await?;
    }
    ticks.tick().await;
    stream
        .write_all(&[&answers.finish[..], &answers.end(messages)].concat())
        .await
}

/// The JSON string that follows `key`; empty without one.
fn text_after(request: &[u8], key: &[u8]) -> String {
    let at = memmem::find(request, key).map(|at| at + key.len());
    let rest = at.and_then(|at| request.get(at..)).unwrap_or_default();
    let text = rest.split(|byte| *byte == b'"').nth(1).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn body_length(head: &[u8]) -> usize {
    let end = memmem::find(head, b"\r\n\r\n").unwrap_or(head.len());
    let head = String::from_utf8_lossy(head.get(..end).unwrap_or_default());
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    lengths.next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_calls_ends_with_an_answer() {
        let answers = Prepared::new("stub-c2");
        let with = |results: usize| {
            let mut request = br#"{"tools":[{"type":"function","function":{"name":"n"}}]"#.to_vec();
            request.extend(br#",{"role":"tool"}"#.repeat(results));
            request
        };
        let rounds: Vec<_> = (0..3).map(|it| tool_round(&answers, &with(it))).collect();
        assert_eq!(rounds, [Some(0), Some(1), None]);
        assert_eq!(tool_round(&answers, b"{}"), None);
        assert_eq!(text_after(&with(0), b"\"function\":{\"name\":"), "n");
    }

    #[test]
    fn lengths_are_read_from_the_head_alone() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\ncontent-length: 9";
        assert_eq!(body_length(request), 7);
    }
}
