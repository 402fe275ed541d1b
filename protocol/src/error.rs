//! The one table of public errors: wire code, type and HTTP status, and the body they are sent in.
//!
//! Messages name parameters and allowed values, never what the client sent, and a body is at most
//! [`MAX_ERROR_BODY`] bytes whatever went wrong.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// Longest error body, in bytes (fault C8).
pub const MAX_ERROR_BODY: usize = 2048;

/// Longest `param`, in bytes.
const MAX_PARAM: usize = 200;

/// What went wrong, as clients tell errors apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiErrorCode {
    /// A request that no narrower code fits; the wire code is null.
    InvalidRequest,
    /// The body is no JSON text, or one that is refused whole (too deep, too many members).
    InvalidJson,
    /// A value of the wrong JSON type.
    InvalidType,
    /// A word or number outside what is allowed.
    InvalidValue,
    /// A whole number that is too small.
    IntegerBelowMinValue,
    /// A whole number that is too large.
    IntegerAboveMaxValue,
    /// A parameter that must be there is not.
    MissingRequiredParameter,
    /// A parameter that the gateway does not know, when it is told to be strict.
    UnknownParameter,
    /// Two parameters that exclude each other.
    MutuallyExclusiveParameters,
    /// A tool or feature that this gateway does not serve.
    UnsupportedValue,
    /// Sealed content that does not open.
    InvalidEncryptedContent,
    /// The response to continue is unknown, expired, of another owner, or was not stored.
    PreviousResponseNotFound,
    /// The prompt is longer than the model takes.
    ContextLengthExceeded,
    /// No or a wrong API key.
    InvalidApiKey,
    /// A web page, or a name of the gateway, that is not let in.
    Forbidden,
    /// The model is not served.
    ModelNotFound,
    /// No such response or path; the wire code is null.
    NotFound,
    /// The MCP server is known and not available now.
    McpUnavailable,
    /// A server that the request names for MCP failed before the first byte.
    ExternalConnector,
    /// The path knows other methods; the wire code is null.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is longer than the limit.
    PayloadTooLarge,
    /// A content coding that is not served.
    UnsupportedEncoding,
    /// A body that does not say it is JSON.
    UnsupportedMediaType,
    /// Too many requests.
    RateLimitExceeded,
    /// A fault of the gateway.
    ServerError,
    /// The model server cannot be reached, broke off, or refuses the gateway.
    UpstreamUnavailable,
    /// The model server answered with something that is no chat completion.
    UpstreamBadResponse,
    /// The model server sent a chunk that is none.
    UpstreamBadChunk,
    /// No room for one more request, or the gateway is starting or stopping.
    ServerIsOverloaded,
    /// The model server was silent for too long.
    UpstreamTimeout,
    /// The request has passed too many gateways: they call each other.
    LoopDetected,
}

/// One line of the table.
struct Line {
    wire: Option<&'static str>,
    error_type: &'static str,
    status: u16,
}

const fn line(wire: Option<&'static str>, error_type: &'static str, status: u16) -> Line {
    Line {
        wire,
        error_type,
        status,
    }
}

const REQUEST: &str = "invalid_request_error";
const RATE: &str = "rate_limit_error";
const SERVER: &str = "server_error";

impl ApiErrorCode {
    /// The table.
    const fn line(self) -> Line {
        match self {
            Self::InvalidRequest => line(None, REQUEST, 400),
            Self::InvalidJson => line(Some("invalid_json"), REQUEST, 400),
            Self::InvalidType => line(Some("invalid_type"), REQUEST, 400),
            Self::InvalidValue => line(Some("invalid_value"), REQUEST, 400),
            Self::IntegerBelowMinValue => line(Some("integer_below_min_value"), REQUEST, 400),
            Self::IntegerAboveMaxValue => line(Some("integer_above_max_value"), REQUEST, 400),
            Self::MissingRequiredParameter => {
                line(Some("missing_required_parameter"), REQUEST, 400)
            }
            Self::UnknownParameter => line(Some("unknown_parameter"), REQUEST, 400),
            Self::MutuallyExclusiveParameters => {
                line(Some("mutually_exclusive_parameters"), REQUEST, 400)
            }
            Self::UnsupportedValue => line(Some("unsupported_value"), REQUEST, 400),
            Self::InvalidEncryptedContent => line(Some("invalid_encrypted_content"), REQUEST, 400),
            Self::PreviousResponseNotFound => {
                line(Some("previous_response_not_found"), REQUEST, 400)
            }
            Self::ContextLengthExceeded => line(Some("context_length_exceeded"), REQUEST, 400),
            Self::InvalidApiKey => line(Some("invalid_api_key"), REQUEST, 401),
            Self::Forbidden => line(Some("origin_not_allowed"), REQUEST, 403),
            Self::ModelNotFound => line(Some("model_not_found"), REQUEST, 404),
            Self::NotFound => line(None, REQUEST, 404),
            Self::McpUnavailable => line(Some("mcp_server_unavailable"), REQUEST, 409),
            Self::ExternalConnector => line(Some("http_error"), "external_connector_error", 424),
            Self::MethodNotAllowed => line(None, REQUEST, 405),
            Self::RequestTimeout => line(Some("request_timeout"), REQUEST, 408),
            Self::PayloadTooLarge => line(Some("payload_too_large"), REQUEST, 413),
            Self::UnsupportedEncoding => line(Some("unsupported_encoding"), REQUEST, 415),
            Self::UnsupportedMediaType => line(Some("unsupported_media_type"), REQUEST, 415),
            Self::RateLimitExceeded => line(Some("rate_limit_exceeded"), RATE, 429),
            Self::ServerError => line(Some("server_error"), SERVER, 500),
            Self::UpstreamUnavailable => line(Some("upstream_unavailable"), SERVER, 502),
            Self::UpstreamBadResponse => line(Some("upstream_bad_response"), SERVER, 502),
            Self::UpstreamBadChunk => line(Some("upstream_bad_chunk"), SERVER, 502),
            Self::ServerIsOverloaded => line(Some("server_is_overloaded"), SERVER, 503),
            Self::UpstreamTimeout => line(Some("upstream_timeout"), SERVER, 504),
            Self::LoopDetected => line(Some("loop_detected"), SERVER, 508),
        }
    }

    /// `code` on the wire; `None` is null.
    pub const fn wire(self) -> Option<&'static str> {
        self.line().wire
    }

    /// `type` on the wire.
    pub const fn error_type(self) -> &'static str {
        self.line().error_type
    }

    /// Whether the same request again would only be the same work again: the model may have answered for
    /// minutes, or its answer is of no use.
    pub fn is_work_again(self) -> bool {
        matches!(
            self,
            Self::UpstreamTimeout
                | Self::UpstreamBadResponse
                | Self::UpstreamBadChunk
                | Self::LoopDetected
        )
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        self.line().status
    }
}

/// An error as the client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What went wrong.
    pub code: ApiErrorCode,
    /// HTTP status: the table's, or one passed on from the upstream.
    pub status: u16,
    /// A sentence: lower case, cause and remedy, never an offending value.
    pub message: String,
    /// The parameter at fault, as `input[0].content[1].type`.
    pub param: Option<String>,
}

/// The body as it is written.
#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl ApiError {
    /// An error without `param`, with the table's status.
    pub fn new(code: ApiErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            message: message.into(),
            param: None,
        }
    }

    /// The same error, blaming a parameter.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// `{"error":{"message","type","param","code"}}`, at most [`MAX_ERROR_BODY`] bytes: a message
    /// that is too long is cut.
    pub fn body(&self) -> Vec<u8> {
        let mut limit = MAX_ERROR_BODY;
        loop {
            let body = self.body_within(limit);
            if body.len() <= MAX_ERROR_BODY || limit == 0 {
                return body;
            }
            // Escapes lengthen a text up to six times, so one cut may not do.
            limit = limit.saturating_sub((body.len().saturating_sub(MAX_ERROR_BODY) / 6).max(16));
        }
    }

    fn body_within(&self, limit: usize) -> Vec<u8> {
        let message = cut(&self.message, limit);
        let param = self.param.as_deref().map(|param| cut(param, MAX_PARAM));
        let body = Body {
            error: Inner {
                message: &message,
                r#type: self.code.error_type(),
                param: param.as_deref(),
                code: self.code.wire(),
            },
        };
        // Strings only: nothing here can fail to be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// The text, or its beginning and an ellipsis, in at most `limit` bytes.
fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    Cow::Owned([head(text, limit.saturating_sub(3)), "..."].concat())
}

/// The longest beginning of `text` of at most `limit` bytes that ends between characters.
pub(crate) fn head(text: &str, limit: usize) -> &str {
    // A character has at most four bytes, so one of these four places is between two.
    let mut ends = (limit.saturating_sub(3)..=limit).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or(text)
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_all_four_keys() {
        let error = ApiError::new(ApiErrorCode::NotFound, "no such response");
        assert_eq!(
            String::from_utf8(error.body()).unwrap(),
            r#"{"error":{"message":"no such response","type":"invalid_request_error","param":null,"code":null}}"#
        );
        assert_eq!(error.status, 404);
    }

    #[test]
    fn c8_bodies_stay_within_two_kib() {
        for text in ["a", "\u{1}", "\"", "ü", "\u{1f600}"] {
            let error = ApiError::new(ApiErrorCode::InvalidValue, text.repeat(50_000))
                .with_param("\u{1}".repeat(100_000));
            let body = error.body();
            assert!(body.len() <= MAX_ERROR_BODY, "{text:?}: {}", body.len());
            assert!(body.len() > 1024, "{text:?}: {}", body.len());
            serde_json::from_slice::<serde::de::IgnoredAny>(&body).unwrap();
        }
    }
}
