//! What the stub writes: answers in vLLM's shape, serialised once for each model.
//!
//! The model's name has the knobs: `-t64` tokens (16 by default); `-r50` tokens a second or `-p2000`
//! ms between tokens, without either all at once; `-d100` ms until anything is written; `-c3` rounds
//! that call the request's first tool before the answer.

use std::time::Duration;

/// Each token of every answer.
pub(crate) const WORD: &str = " word";

/// Head of a stream.
pub(crate) const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nserver: stub\r\n\
    content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
/// The list of models.
pub(crate) const MODELS: &str = r#"{"object":"list","data":[{"id":"stub","object":"model","created":1,"owned_by":"stub","root":"stub","parent":null,"max_model_len":100000000}]}"#;

/// Answers of one model, ready to be written.
pub(crate) struct Prepared {
    pub(crate) model: String,
    pub(crate) tokens: usize,
    /// Between tokens; all at once without it.
    pub(crate) period: Option<Duration>,
    /// Until anything is written.
    pub(crate) delay: Duration,
    /// Rounds of tool calls before the answer.
    pub(crate) calls: usize,
    /// Events as HTTP chunks, which is how vLLM sends them.
    pub(crate) role: Vec<u8>,
    pub(crate) token: Vec<u8>,
    pub(crate) finish: Vec<u8>,
    /// All of them.
    pub(crate) burst: Vec<u8>,
    /// A whole answer, up to its usage.
    whole: String,
}

impl Prepared {
    /// The answers of this model.
    pub(crate) fn new(model: &str) -> Self {
        let tokens = knob(model, 't').unwrap_or(16);
        let millis = |letter| knob(model, letter).map(|it| Duration::from_millis(it as u64));
        let rate = knob(model, 'r').map(|rate| Duration::from_secs(1) / rate.max(1) as u32);
        let role = event(
            model,
            r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#,
        );
        let token = event(
            model,
            &format!(
                r#"{{"index":0,"delta":{{"content":"{WORD}"}},"logprobs":null,"finish_reason":null,"token_ids":null}}"#
            ),
        );
        let finish = event(
            model,
            r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}"#,
        );
        let burst = [&role[..], &token.repeat(tokens), &finish].concat();
        let text = WORD.repeat(tokens);
        let whole = completion(
            model,
            &format!(
                r#"{{"role":"assistant","content":"{text}","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null}}"#
            ),
            "stop",
        );
        Self {
            model: model.to_owned(),
            tokens,
            period: rate.or(millis('p')),
            delay: millis('d').unwrap_or_default(),
            calls: knob(model, 'c').unwrap_or(0),
            role,
            token,
            finish,
            burst,
            whole,
        }
    }

    /// A whole answer to a request of so many messages.
    pub(crate) fn answer(&self, messages: usize) -> Vec<u8> {
        plain(&format!("{}{}}}", self.whole, self.usage(messages))).into_bytes()
    }

    /// The end of a stream behind its last choice.
    pub(crate) fn end(&self, messages: usize) -> Vec<u8> {
        let mut end = chunk(&format!(
            r#"{{"id":"chatcmpl-b3918194d0472041","object":"chat.completion.chunk","created":1795336662,"model":"{}","choices":[],{}}}"#,
            self.model,
            self.usage(messages)
        ));
        end.extend_from_slice(&chunk("[DONE]"));
        end.extend_from_slice(b"0\r\n\r\n");
        end
    }

    /// A whole answer that calls a tool.
    pub(crate) fn call(&self, name: &str, round: usize) -> Vec<u8> {
        let message = format!(
            r#"{{"role":"assistant","content":null,"tool_calls":[{}]}}"#,
            tool_call(name, round, "")
        );
        let whole = completion(&self.model, &message, "tool_calls");
        plain(&format!("{whole}{}}}", self.usage(1))).into_bytes()
    }

    /// A stream that calls a tool.
    pub(crate) fn call_stream(&self, name: &str, round: usize) -> Vec<u8> {
        let call = event(
            &self.model,
            &format!(
                r#"{{"index":0,"delta":{{"tool_calls":[{}]}},"logprobs":null,"finish_reason":null}}"#,
                tool_call(name, round, r#""index":0,"#)
            ),
        );
        let finish = event(
            &self.model,
            r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}"#,
        );
        [STREAM_HEAD, &self.role, &call, &finish, &self.end(1)].concat()
    }

    fn usage(&self, messages: usize) -> String {
        format!(
            r#""usage":{{"prompt_tokens":{messages},"total_tokens":{},"completion_tokens":{}}}"#,
            messages + self.tokens,
            self.tokens
        )
    }
}

/// Rounds differ in their arguments: the same call again and again would be stopped.
fn tool_call(name: &str, round: usize, index: &str) -> String {
    format!(
        r#"{{{index}"id":"call_{round}","type":"function","function":{{"name":"{name}","arguments":"{{\"round\":{round}}}"}}}}"#
    )
}

/// A whole answer, up to its usage.
fn completion(model: &str, message: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-b3918194d0472041","object":"chat.completion","created":1795336662,"model":"{model}","choices":[{{"index":0,"message":{message},"logprobs":null,"finish_reason":"{finish}","stop_reason":null,"token_ids":null}}],"#
    )
}

fn event(model: &str, choice: &str) -> Vec<u8> {
    chunk(&format!(
        r#"{{"id":"chatcmpl-b3918194d0472041","object":"chat.completion.chunk","created":1795336662,"model":"{model}","choices":[{choice}]}}"#
    ))
}

/// One event as one HTTP chunk, which is how vLLM sends them.
fn chunk(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// A JSON answer with its head.
pub(crate) fn plain(json: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nserver: stub\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{json}",
        json.len()
    )
}

/// The number after `-` and `letter` in the model's name.
fn knob(model: &str, letter: char) -> Option<usize> {
    let mut parts = model.split('-');
    parts.find_map(|part| part.strip_prefix(letter)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_name_has_the_knobs() {
        let prepared = Prepared::new("stub-t7-p20-d5-c2");
        assert_eq!((prepared.tokens, prepared.calls), (7, 2));
        assert_eq!(prepared.period, Some(Duration::from_millis(20)));
        assert_eq!(prepared.delay, Duration::from_millis(5));
        assert_eq!(
            Prepared::new("stub-r50").period,
            Some(Duration::from_millis(20))
        );
        assert_eq!(Prepared::new("stub").period, None);
    }
}
