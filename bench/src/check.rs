//! What a right answer is: every one that is measured must pass.

use memchr::{memchr_iter, memmem};
use serde::Deserialize;

use crate::answers::WORD;
use crate::client::Answer;

/// Whose API a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// Chat completions: the stub itself and the relay.
    Chat,
    /// Responses: gateways.
    Responses,
}

/// A complete response, as far as it is checked.
#[derive(Deserialize)]
pub(crate) struct Response {
    pub(crate) id: String,
    pub(crate) status: String,
    output: Vec<Output>,
    pub(crate) usage: Usage,
}

#[derive(Deserialize)]
struct Output {
    r#type: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    content: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

/// Tokens taken in: the stub counts messages there.
#[derive(Deserialize)]
pub(crate) struct Usage {
    pub(crate) input_tokens: usize,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

/// Whether `answer` is a whole and right answer of `tokens` tokens.
pub(crate) fn plain(api: Api, tokens: usize, answer: &Answer) -> Result<(), String> {
    match api {
        Api::Chat => {
            let completion: Completion = parse(answer)?;
            let texts = completion.choices.iter().map(|it| it.message.content.len());
            length(texts.sum(), tokens)
        }
        Api::Responses => response(tokens, answer).map(drop),
    }
}

/// The response in `answer`, when it is completed and has `tokens` tokens.
pub(crate) fn response(tokens: usize, answer: &Answer) -> Result<Response, String> {
    let response: Response = parse(answer)?;
    if response.status != "completed" {
        return Err("a response is not completed".to_owned());
    }
    let parts = response.output.iter().flat_map(|item| &item.content);
    length(parts.map(|part| part.text.len()).sum(), tokens)?;
    Ok(response)
}

/// The response in `answer`, when it is completed, has `tokens` tokens, and ran `calls` MCP tools.
pub(crate) fn tool_response(tokens: usize, calls: usize, answer: &Answer) -> Result<(), String> {
    let response = response(tokens, answer)?;
    let ran = |item: &&Output| item.r#type == "mcp_call" && item.status == "completed";
    match response.output.iter().filter(ran).count() {
        ran if ran == calls => Ok(()),
        ran => Err(format!("{ran} tools were run instead of {calls}")),
    }
}

/// Whether `answer` is a whole and right stream of `tokens` tokens.
pub(crate) fn stream(api: Api, tokens: usize, answer: &Answer) -> Result<(), String> {
    status(answer)?;
    if !answer.body.trim_ascii_end().ends_with(b"data: [DONE]") {
        return Err("a stream does not end with [DONE]".to_owned());
    }
    match api {
        Api::Chat => {
            let chunks = memmem::find_iter(&answer.body, b"\"delta\":{\"content\":").count();
            length(chunks * WORD.len(), tokens)
        }
        Api::Responses => events(tokens, &answer.body),
    }
}

/// Dense sequence numbers from 0, exactly one terminal event and that the last, the whole text; of
/// each event its name before its data.
fn events(tokens: usize, body: &[u8]) -> Result<(), String> {
    let (mut next, mut terminal, mut text, mut start) = (0, None, 0, 0);
    let mut name: &[u8] = b"";
    for end in memchr_iter(b'\n', body) {
        let line = body.get(start..end).unwrap_or_default();
        start = end + 1;
        if let Some(named) = line.strip_prefix(b"event: ") {
            name = named;
        }
        let Some(data) = line.strip_prefix(b"data: {") else {
            continue;
        };
        let typed = data.strip_prefix(b"\"type\":\"");
        if !typed.is_some_and(|rest| rest.starts_with(name)) {
            return Err(format!("event {next} is named otherwise than its data"));
        }
        let number = number_after(data, b"\"sequence_number\":");
        if number != Some(next) {
            return Err(format!("event {next} does not have that sequence number"));
        }
        if name == b"response.output_text.delta" {
            text += after(data, b"\"delta\":")
                .and_then(|rest| rest.split(|byte| *byte == b'"').nth(1))
                .map_or(0, <[u8]>::len);
        } else if ends(name) && terminal.replace(next).is_some() {
            return Err("a stream has two terminal events".to_owned());
        }
        next += 1;
    }
    if terminal.is_none_or(|at| at + 1 != next) {
        return Err("a stream does not end with a terminal event".to_owned());
    }
    length(text, tokens)
}

fn ends(name: &[u8]) -> bool {
    [
        &b"response.completed"[..],
        b"response.failed",
        b"response.incomplete",
    ]
    .contains(&name)
}

fn after<'a>(data: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    data.get(memmem::find(data, key)? + key.len()..)
}

fn number_after(data: &[u8], key: &[u8]) -> Option<usize> {
    let rest = after(data, key)?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

fn length(found: usize, tokens: usize) -> Result<(), String> {
    let expected = tokens * WORD.len();
    if found == expected {
        return Ok(());
    }
    Err(format!("a text has {found} bytes instead of {expected}"))
}

fn status(answer: &Answer) -> Result<(), String> {
    match answer.status {
        200 => Ok(()),
        other => Err(format!("an answer has status {other}")),
    }
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, String> {
    status(answer)?;
    serde_json::from_slice(&answer.body).map_err(|error| format!("an answer is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELTA: &str = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":0,\"delta\":\" word\"}\n\n";
    const END: &str = "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":1}\n\n";

    #[test]
    fn a_right_stream_passes() {
        assert_eq!(events(1, format!("{DELTA}{END}").as_bytes()), Ok(()));
    }

    #[test]
    fn wrong_streams_do_not_pass() {
        let late = END.replace(":1}", ":2}");
        for wrong in [
            DELTA.to_owned(),
            format!("{DELTA}{late}"),
            format!("{DELTA}{END}{late}"),
            END.replace(":1}", ":0}"),
            format!("{DELTA}{END}").replacen("event: response.output_text.delta", "event: x", 1),
        ] {
            assert!(events(1, wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
