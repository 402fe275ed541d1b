//! What the scripted upstream does with one request: a list of steps on the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// A point where a script waits until the test lets it go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// One step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These bytes in one write, flushed; with `TCP_NODELAY` one segment when small.
    Send(Vec<u8>),
    Sleep(Duration),
    Wait(Gate),
    /// Say nothing until the peer leaves.
    Hold,
    /// Close with a reset.
    Reset,
    /// Close in order, whatever framing is open.
    Fin,
}

/// The answer to one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// Only raw steps; nothing is sent by itself.
    pub(crate) fn bare() -> Self {
        Self::default()
    }

    /// A streamed answer, its head sent and chunked coding begun.
    pub(crate) fn stream() -> Self {
        Self::bare().wire(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
             transfer-encoding: chunked\r\n\r\n",
        )
    }

    /// A whole answer with a length.
    pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Self::bare().wire(bytes)
    }

    /// A JSON answer.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::answer(
            status,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// vLLM's error body under a status.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::json(status, &error_body(status, message))
    }

    /// A complete non-streamed completion with this text.
    pub(crate) fn completion(text: &str) -> Self {
        Self::message(&json!({"role": "assistant", "content": text}), "stop")
    }

    /// A complete non-streamed completion with this message.
    pub(crate) fn message(message: &Value, finish: &str) -> Self {
        Self::json(
            200,
            &json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}),
        )
    }

    /// A complete stream with this text.
    pub(crate) fn says(text: &str) -> Self {
        Self::stream()
            .data(&role())
            .data(&self::text(text))
            .end("stop")
    }

    /// Everything that it sends.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let sends = self.steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        sends.collect::<Vec<_>>().concat()
    }

    /// Bytes as they are on the wire.
    pub(crate) fn wire(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    /// Bytes as one HTTP chunk.
    pub(crate) fn chunk(self, bytes: impl AsRef<[u8]>) -> Self {
        self.wire(framed(bytes.as_ref()))
    }

    /// One `data:` event in one HTTP chunk.
    pub(crate) fn data(self, value: &Value) -> Self {
        self.chunk(format!("data: {value}\n\n"))
    }

    /// Many events in one chunk each.
    pub(crate) fn all(mut self, values: &[Value]) -> Self {
        for value in values {
            self = self.data(value);
        }
        self
    }

    /// Finish reason, usage, `[DONE]` and the last chunk.
    pub(crate) fn end(self, finish: &str) -> Self {
        self.data(&self::finish(finish)).data(&usage(7, 3)).done()
    }

    /// `[DONE]` and the last chunk.
    pub(crate) fn done(self) -> Self {
        self.chunk("data: [DONE]\n\n").wire("0\r\n\r\n")
    }

    /// The last chunk without `[DONE]`.
    pub(crate) fn close_body(self) -> Self {
        self.wire("0\r\n\r\n")
    }

    pub(crate) fn sleep(mut self, millis: u64) -> Self {
        self.steps.push(Step::Sleep(Duration::from_millis(millis)));
        self
    }

    pub(crate) fn wait(mut self, gate: &Gate) -> Self {
        self.steps.push(Step::Wait(gate.clone()));
        self
    }

    pub(crate) fn hold(mut self) -> Self {
        self.steps.push(Step::Hold);
        self
    }

    pub(crate) fn reset(mut self) -> Self {
        self.steps.push(Step::Reset);
        self
    }

    pub(crate) fn fin(mut self) -> Self {
        self.steps.push(Step::Fin);
        self
    }
}

/// HTTP/1.1 chunk framing.
pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

fn chunk_of(delta: &Value, finish: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]})
}

pub(crate) fn delta(delta: &Value) -> Value {
    chunk_of(delta, &Value::Null)
}

pub(crate) fn role() -> Value {
    delta(&json!({"role": "assistant", "content": ""}))
}

pub(crate) fn text(text: &str) -> Value {
    delta(&json!({"content": text}))
}

pub(crate) fn reasoning(text: &str) -> Value {
    delta(&json!({"reasoning": text}))
}

pub(crate) fn finish(reason: &str) -> Value {
    chunk_of(&json!({}), &json!(reason))
}

pub(crate) fn usage(input: u64, output: u64) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output,
        "total_tokens": input + output}})
}

/// A call as vLLM streams it: id and name first, then the argument pieces.
pub(crate) fn tool_call(index: u64, id: &str, name: &str, pieces: &[&str]) -> Vec<Value> {
    let mut out = vec![delta(&json!({"tool_calls": [{"index": index, "id": id,
        "type": "function", "function": {"name": name, "arguments": ""}}]}))];
    for piece in pieces {
        out.push(arguments(index, piece));
    }
    out
}

pub(crate) fn arguments(index: u64, piece: &str) -> Value {
    delta(&json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
}

pub(crate) fn error_body(status: u16, message: &str) -> Value {
    json!({"error": {"message": message, "type": "BadRequestError", "param": null, "code": status}})
}
