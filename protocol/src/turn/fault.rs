//! What an upstream fault means to the client: one table from fault to status, code and words.

use super::effect::Cancel;
use super::meaning::{asks_too_much, in_our_terms, is_overflow, status_of};
use crate::chat::complaint::{Complaint, complaint_in};
use crate::chat::fault::{UpstreamFault, Waited};
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
            | ApiErrorCode::IntegerBelowMinValue
            | ApiErrorCode::IntegerAboveMaxValue
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
            | ApiErrorCode::UpstreamTimeout
            | ApiErrorCode::LoopDetected => "server_error",
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
            let complaint = complaint_in(&body);
            Explained {
                retry_after,
                ..explain_status(status, &complaint)
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
        UpstreamFault::PartGone => Explained::new(
            ApiErrorCode::ServerError,
            "the stored conversation cannot be read: a part of it is not stored any more",
        ),
        UpstreamFault::PartUnread => Explained::new(
            ApiErrorCode::ServerIsOverloaded,
            "the response store is unavailable, so the conversation cannot be read; try again",
        ),
    }
}

/// Explains an error that came in place of an answer, or inside one.
pub(super) fn explain_in_answer(complaint: &Complaint<'_>) -> Explained {
    let kind = complaint.codes.iter().find_map(|code| status_of(code));
    let status = complaint.status.or(kind).unwrap_or(500);
    let words = without_values(&complaint.words);
    if status < 500 || status == 503 || words.is_empty() || is_overflow(complaint, &words) {
        return explain_status(status, complaint);
    }
    Explained::new(
        ApiErrorCode::UpstreamUnavailable,
        format!("the upstream model server failed: {words}"),
    )
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
        ApiErrorCode::UpstreamBadResponse,
        "the model gave no whole summary of the conversation: allow it more \
         `max_output_tokens`, or have a shorter conversation summed up",
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

/// vLLM gave the request up, maybe after minutes of work.
pub(super) fn aborted() -> Explained {
    Explained::new(
        ApiErrorCode::UpstreamBadResponse,
        "the upstream model server aborted the request",
    )
}

fn explain_status(status: u16, complaint: &Complaint<'_>) -> Explained {
    let words = without_values(&complaint.words);
    let or = |otherwise: &str| {
        let words = if words.is_empty() { otherwise } else { &words };
        words.to_owned()
    };
    let blame = |code, words: String, param: &str| {
        let mut explained = Explained::new(code, words);
        explained.error.param = Some(param.to_owned());
        explained
    };
    match status {
        401 | 403 => Explained::new(
            ApiErrorCode::UpstreamUnavailable,
            "the upstream model server refuses the gateway's key: the operator must set \
             `VR_OPENAI_API_KEY`",
        ),
        429 => Explained::new(
            ApiErrorCode::RateLimitExceeded,
            or("the upstream model server limits the rate of requests"),
        ),
        // Another gateway's: the words say which of them to set right.
        508 => Explained::new(
            ApiErrorCode::LoopDetected,
            or("the upstream model server says that the request goes round in a circle"),
        ),
        503 => Explained::new(
            ApiErrorCode::ServerIsOverloaded,
            or("the upstream model server is overloaded or not ready"),
        ),
        _ if asks_too_much(&words) => {
            let words = in_our_terms(&words);
            blame(ApiErrorCode::InvalidValue, words, "max_output_tokens")
        }
        _ if is_overflow(complaint, &words) => {
            // LangChain does not look at the code: it knows an overflow by these words.
            let words = format!("the prompt is too long: {}", or("the model server says so"));
            blame(ApiErrorCode::ContextLengthExceeded, words, "input")
        }
        404 if is_of_model(complaint, &words) => blame(
            ApiErrorCode::ModelNotFound,
            or("the model is not served"),
            "model",
        ),
        404 => Explained::new(
            ApiErrorCode::NotFound,
            format!(
                "the upstream model server has no chat completions at this address: the operator \
                 must check the upstream's URL (it says: {})",
                or("nothing")
            ),
        ),
        400..=499 => {
            let words = or("the upstream model server refuses the request without saying why");
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

fn is_of_model(complaint: &Complaint<'_>, words: &str) -> bool {
    let code = complaint.codes.iter().any(|code| code == "model_not_found");
    code || words.to_ascii_lowercase().contains("model")
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
    let words = words.trim();
    let mut lines = words.lines();
    let first = before_dump(lines.next().unwrap_or_default());
    let mut text = first.to_owned();
    if first.contains("validation error") {
        let details = lines.map(detail).filter(|detail| !detail.is_empty());
        let details: Vec<String> = details.take(MAX_DETAILS).collect();
        text = format!("{} {}", first.trim_end_matches(':'), details.join(", "));
    }
    let text = text.replace(char::is_control, " ");
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
