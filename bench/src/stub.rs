//! A model server that costs next to nothing: answers are serialised once and written whole.
//!
//! The model's name steers it: `-t64` tokens (16 by default), `-r50` tokens a second, without it
//! all at once. `usage.prompt_tokens` is the number of messages seen, so that a chain is checkable.

use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Each token of every answer.
pub(crate) const WORD: &str = " word";

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nserver: stub\r\n\
    content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
const MODELS: &str = r#"{"object":"list","data":[{"id":"stub","object":"model","created":1,"owned_by":"stub","root":"stub","parent":null,"max_model_len":1000000}]}"#;

/// Serves on `127.0.0.1:port` until the process is killed.
pub(crate) async fn serve(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("the stub cannot listen: {error}"))?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _peer) = accepted.map_err(|error| format!("cannot accept: {error}"))?;
                connections.spawn(connection(stream));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Answers of one model, ready to be written.
struct Prepared {
    model: String,
    /// Tokens a second; all at once without it.
    rate: Option<u32>,
    /// The role, then one event a token, then the finish; each an HTTP chunk.
    events: Vec<Vec<u8>>,
    /// Status line to the end of the text.
    whole: String,
    tokens: usize,
}

async fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::with_capacity(16 << 10);
    let mut prepared = Prepared::new("stub");
    loop {
        let (head, length) = loop {
            if let Some(at) = memmem::find(&unread, b"\r\n\r\n") {
                break (at + 4, body_length(&unread));
            }
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        };
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
        if prepared.model != model {
            prepared = Prepared::new(&model);
        }
        let messages = memmem::find_iter(&request, b"\"role\":").count();
        if memmem::find(&request, b"\"stream\":true").is_none() {
            stream.write_all(&prepared.answer(messages)).await?;
        } else {
            prepared.stream(&mut stream, messages).await?;
        }
    }
}

impl Prepared {
    fn new(model: &str) -> Self {
        let tokens = knob(model, 't').unwrap_or(16) as usize;
        let event = |choice: &str| {
            chunk(&format!(
                r#"{{"id":"chatcmpl-b3918194d0472041","object":"chat.completion.chunk","created":1795336662,"model":"{model}","choices":[{choice}]}}"#
            ))
        };
        let role = event(
            r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#,
        );
        let token = event(&format!(
            r#"{{"index":0,"delta":{{"content":"{WORD}"}},"logprobs":null,"finish_reason":null,"token_ids":null}}"#
        ));
        let finish = event(
            r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}"#,
        );
        let mut events = vec![role];
        events.extend(std::iter::repeat_n(token, tokens));
        events.push(finish);
        let text = WORD.repeat(tokens);
        let whole = format!(
            r#"{{"id":"chatcmpl-b3918194d0472041","object":"chat.completion","created":1795336662,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null}},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}}],"#
        );
        Self {
            model: model.to_owned(),
            rate: knob(model, 'r'),
            events,
            whole,
            tokens,
        }
    }

    fn usage(&self, messages: usize) -> String {
        format!(
            r#""usage":{{"prompt_tokens":{messages},"total_tokens":{},"completion_tokens":{}}}"#,
            messages + self.tokens,
            self.tokens
        )
    }

    fn answer(&self, messages: usize) -> Vec<u8> {
        plain(&format!("{}{}}}", self.whole, self.usage(messages))).into_bytes()
    }

    async fn stream(&self, stream: &mut TcpStream, messages: usize) -> std::io::Result<()> {
        let mut end = chunk(&format!(
            r#"{{"id":"chatcmpl-b3918194d0472041","object":"chat.completion.chunk","created":1795336662,"model":"{}","choices":[],{}}}"#,
            self.model,
            self.usage(messages)
        ));
        end.extend_from_slice(&chunk("[DONE]"));
        end.extend_from_slice(b"0\r\n\r\n");
        let Some(rate) = self.rate else {
            let parts = [STREAM_HEAD, &self.events.concat(), &end];
            return stream.write_all(&parts.concat()).await;
        };
        let period = Duration::from_secs(1) / rate.max(1);
        let mut ticks = interval_at(Instant::now(), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        stream.write_all(STREAM_HEAD).await?;
        for event in &self.events {
            ticks.tick().await;
            stream.write_all(event).await?;
        }
        stream.write_all(&end).await
    }
}

/// One event as one HTTP chunk, which is how vLLM sends them.
fn chunk(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn plain(json: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nserver: stub\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{json}",
        json.len()
    )
}

/// The number after `-` and `letter` in the model's name.
fn knob(model: &str, letter: char) -> Option<u32> {
    let mut parts = model.split('-');
    parts.find_map(|part| part.strip_prefix(letter)?.parse().ok())
}

/// The JSON string that follows `key`; empty without one.
fn text_after(request: &[u8], key: &[u8]) -> String {
    let at = memmem::find(request, key).map(|at| at + key.len());
    let rest = at.and_then(|at| request.get(at..)).unwrap_or_default();
    let text = rest.split(|byte| *byte == b'"').nth(1).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn body_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let lines = head.lines().take_while(|line| !line.is_empty());
    let mut lengths = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    lengths.next().unwrap_or(0)
}
