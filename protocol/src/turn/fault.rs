//! What an upstream fault means to the client: one table from fault to status, code and words.

use super::effect::Cancel;
use crate::chat::fault::{ErrorBody, ErrorCode, ErrorObject, UpstreamFault, Waited};
use crate::error::{ApiError, ApiErrorCode, head};

/// Longest piece of an upstream's own message that is passed on, in bytes.
const MAX_PASSED_ON: usize = 1024;

/// A fault in the client's terms.
#[derive(Clone, Debug)]
pub(super) struct Explained {
    /// For an HTTP answer, and the flat and nested halves of the `error` event.
    pub(super) error: ApiError,
    /// `Retry-After` of the upstream.
    pub(super) retry_after: Option<Box<str>>,
}

impl Explained {
    pub(super) fn new(code: ApiErrorCode, message: impl Into<String>) -> Self {
        Self {
            error: ApiError::new(code, message),
            retry_after: None,
        }
    }

    /// A fault of the gateway's own.
    pub(super) fn of(error: ApiError) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }

    /// `error.code` of a failed response: the SDK's type knows few codes, and only two more are
    /// allowed (decision 3); the `error` event before it has the precise one.
    pub(super) fn response_code(&self) -> &'static str {
        match self.error.code {
            ApiErrorCode::ContextLengthExceeded => "context_length_exceeded",
            ApiErrorCode::RateLimitExceeded => "rate_limit_exceeded",
            ApiErrorCode::ServerIsOverloaded => "server_is_overloaded",
            ApiErrorCode::InvalidRequest => "invalid_prompt",
            ApiErrorCode::InvalidJson
            | ApiErrorCode::InvalidType
            | ApiErrorCode::InvalidValue
            | ApiErrorCode::MissingRequiredParameter
            | ApiErrorCode::UnknownParameter
            | ApiErrorCode::MutuallyExclusiveParameters
            | ApiErrorCode::UnsupportedValue
            | ApiErrorCode::InvalidEncryptedContent
            | ApiErrorCode::PreviousResponseNotFound
            | ApiErrorCode::InvalidApiKey
            | ApiErrorCode::Forbidden
            | ApiErrorCode::ModelNotFound
            | ApiErrorCode::NotFound
            | ApiErrorCode::McpUnavailable
            | ApiErrorCode::ExternalConnector
            | ApiErrorCode::MethodNotAllowed
            | ApiErrorCode::RequestTimeout
            | ApiErrorCode::PayloadTooLarge
            | ApiErrorCode::UnsupportedEncoding
            | ApiErrorCode::UnsupportedMediaType
            | ApiErrorCode::ServerError
            | ApiErrorCode::UpstreamUnavailable
            | ApiErrorCode::UpstreamBadResponse
            | ApiErrorCode::UpstreamBadChunk
            | ApiErrorCode::UpstreamTimeout => "server_error",
        }
    }
}

/// Explains a fault.
pub(super) fn explain(fault: UpstreamFault) -> Explained {
    match fault {
        UpstreamFault::Unreachable => Explained::new(
            ApiErrorCode::UpstreamUnavailable,
            "the upstream model server cannot be reached",
        ),
        UpstreamFault::Status {
            status,
            retry_after,
            body,
        } => {
            let parsed: ErrorBody<'_> = serde_json::from_slice(&body).unwrap_or_default();
            Explained {
                retry_after,
                ..explain_status(status, parsed.error.as_ref())
            }
        }
        UpstreamFault::WrongContentType => Explained::new(
            ApiErrorCode::UpstreamBadResponse,
            "the upstream model server answered with something else than a chat completion",
        ),
        UpstreamFault::TimedOut(waited) => {
            Explained::new(ApiErrorCode::UpstreamTimeout, timed_out(waited))
        }
        UpstreamFault::Reset => Explained::new(
            ApiErrorCode::UpstreamUnavailable,
            "the connection to the upstream model server broke before the answer was complete",
        ),
        UpstreamFault::TooLong => Explained::new(
            ApiErrorCode::UpstreamBadResponse,
            "the upstream model server sent more than the gateway buffers",
        ),
    }
}

/// Explains an error object that came inside a 200 stream.
pub(super) fn explain_in_stream(error: &ErrorObject<'_>) -> Explained {
    let status = match &error.code {
        Some(ErrorCode::Number(status)) => *status,
        Some(ErrorCode::Word(_)) | None => 500,
    };
    explain_status(status, Some(error))
}

/// The upstream's stream had a chunk that is no chunk (fault U5).
pub(super) fn bad_chunk() -> Explained {
    Explained::new(
        ApiErrorCode::UpstreamBadChunk,
        "the upstream model server sent a malformed chunk",
    )
}

/// The upstream's stream ended before it said why.
pub(super) fn cut_short() -> Explained {
    Explained::new(
        ApiErrorCode::UpstreamUnavailable,
        "the upstream model server ended the answer without a finish reason",
    )
}

/// The conversation was to be summed up, and was not.
pub(super) fn no_summary() -> Explained {
    Explained::new(
        ApiErrorCode::ServerError,
        "the model gave no whole summary of the conversation: try again, with more \
         `max_output_tokens` if they were limited",
    )
}

/// The turn is ended from outside.
pub(super) fn ended(why: Cancel) -> Explained {
    let server_error = |words| Explained::new(ApiErrorCode::ServerError, words);
    match why {
        // Decision 2.
        Cancel::ToolTimeSpent => server_error("the time for tool calls of one response is spent"),
        // Fault B4.
        Cancel::Overloaded => Explained {
            retry_after: Some("1".into()),
            ..Explained::new(
                ApiErrorCode::ServerIsOverloaded,
                "the gateway is short of memory and ends the responses that are read most slowly; \
                 try again",
            )
        },
        // One whose client has left is abandoned without words.
        Cancel::Shutdown | Cancel::ClientLeft => server_error("the gateway is shutting down"),
    }
}

/// vLLM gave the request up.
pub(super) fn aborted() -> Explained {
    Explained::new(
        ApiErrorCode::ServerError,
        "the upstream model server aborted the request",
    )
}

fn explain_status(status: u16, error: Option<&ErrorObject<'_>>) -> Explained {
    let words = error
        .and_then(|error| error.message.as_ref())
        .map(|words| without_values(words.as_str()));
    let overflow = words
        .as_ref()
        .is_some_and(|words| words.contains("maximum context length"));
    match (status, words) {
        (400 | 413, Some(words)) if overflow => {
            // LangChain does not look at the code: it knows an overflow by these words.
            let words = format!("the prompt is too long: {words}");
            let mut explained = Explained::new(ApiErrorCode::ContextLengthExceeded, words);
            explained.error.param = Some("input".to_owned());
            explained
        }
        (404, Some(words)) => {
            let mut explained = Explained::new(ApiErrorCode::ModelNotFound, words);
            explained.error.param = Some("model".to_owned());
            explained
        }
        (401 | 403, _) => Explained::new(
            ApiErrorCode::UpstreamUnavailable,
            "the upstream model server refuses the gateway's key: the operator must set \
             `VR_OPENAI_API_KEY`",
        ),
        (429, words) => Explained::new(
            ApiErrorCode::RateLimitExceeded,
            words.unwrap_or_else(|| {
                "the upstream model server limits the rate of requests".to_owned()
            }),
        ),
        (503, words) => Explained::new(
            ApiErrorCode::ServerIsOverloaded,
            words.unwrap_or_else(|| {
                "the upstream model server is overloaded or not ready".to_owned()
            }),
        ),
        (400..=499, Some(words)) => {
            let mut explained = Explained::new(ApiErrorCode::InvalidRequest, words);
            explained.error.status = status;
            explained
        }
        _ => Explained::new(
            ApiErrorCode::UpstreamUnavailable,
            format!("the upstream model server answered with status {status}"),
        ),
    }
}

fn timed_out(waited: Waited) -> String {
    let (what, limit) = match waited {
        Waited::Head(limit) => ("did not answer", limit),
        Waited::Idle(limit) => ("fell silent", limit),
        Waited::Whole(limit) => ("did not finish the answer", limit),
    };
    format!("the upstream model server {what} within {limit:?}")
}

/// The part of an upstream's message that names what is wrong without quoting what was sent.
///
/// vLLM appends `(parameter=..., value=...)`, and its validator dumps the input (recordings
/// `error-context-length`, `error-wrong-type`, `error-unknown-part`); neither is passed on
/// (decision 4). Of the validator's report the places and the rules remain.
fn without_values(words: &str) -> String {
    let mut lines = words.lines();
    let first = before_dump(lines.next().unwrap_or_default());
    let mut text = first.to_owned();
    if first.contains("validation error") {
        let details = lines.map(detail).filter(|detail| !detail.is_empty());
        let details: Vec<String> = details.take(MAX_DETAILS).collect();
        text = format!("{} {}", first.trim_end_matches(':'), details.join(", "));
    }
    head(text.trim_end(), MAX_PASSED_ON).to_owned()
}

/// Lines of a validator's report that are passed on; the first ones name the cause.
const MAX_DETAILS: usize = 4;

/// One line of a validator's report: `{'loc': PLACE, 'msg': RULE, 'input': ...}`, or pydantic's own
/// place and rule on lines of their own.
fn detail(line: &str) -> String {
    let member = |name: &str| {
        let (_, rest) = line.split_once(&format!("'{name}': '"))?;
        rest.split_once("', '").map(|(value, _)| value)
    };
    match (member("loc"), member("msg")) {
        (Some(place), Some(rule)) => format!("at {place}: {rule}"),
        _ if line.contains("'input'") || line.contains("https://") => String::new(),
        _ => before_dump(line.trim()).to_owned(),
    }
}

fn before_dump(line: &str) -> &str {
    let dump = [" (parameter=", " [type="]
        .iter()
        .filter_map(|mark| line.find(mark))
        .min();
    line.get(..dump.unwrap_or(line.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_is_called_so() {
        let body = br#"{"error":{"message":"This model's maximum context length is 100 tokens."}}"#;
        let parsed: ErrorBody<'_> = serde_json::from_slice(body).unwrap();
        let explained = explain_status(400, parsed.error.as_ref());
        assert_eq!(explained.error.code, ApiErrorCode::ContextLengthExceeded);
        let words = "the prompt is too long: This model's maximum context length is 100 tokens.";
        assert_eq!(explained.error.message, words);
    }

    #[test]
    fn values_of_the_request_are_not_passed_on() {
        for (words, kept) in [
            (
                "too long. Reduce it. (parameter=input_tokens, value=2049)",
                "too long. Reduce it.",
            ),
            (
                "1 validation error:\n  {'type': 'float', 'loc': 'body.temperature', 'msg': 'Input \
                 should be a number', 'input': 'hot'}",
                "1 validation error at body.temperature: Input should be a number",
            ),
            (
                "1 validation error for X\n0.Part.text\n  Field required [type=missing, \
                 input_value={'k'}]\n    For further information visit https://e",
                "1 validation error for X 0.Part.text, Field required",
            ),
            (
                "Field required [type=missing, input_value=1]",
                "Field required",
            ),
            (
                "The model `m` does not exist.",
                "The model `m` does not exist.",
            ),
            ("", ""),
        ] {
            assert_eq!(without_values(words), kept);
        }
    }
}
