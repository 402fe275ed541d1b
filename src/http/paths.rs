//! Paths that are not served: the answer names the path, and the one that was meant where it is known.

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, Route, guard, web};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

use super::error;

/// Longest path that is repeated to its client, in letters.
const LONGEST: usize = 100;

/// Paths of the API, without what may stand behind them.
const SERVED: [&str; 8] = [
    "/v1/responses",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/mcp/servers",
    "/v1/status",
    "/health",
    "/health/ready",
    "/metrics",
];

/// Paths of vLLM and of `OpenAI` that are not passed on.
const ELSEWHERE: [&str; 16] = [
    "/v1/audio",
    "/v1/classify",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/files",
    "/v1/images",
    "/v1/messages",
    "/v1/moderations",
    "/v1/pooling",
    "/v1/rerank",
    "/v1/score",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/load",
    "/v1/ping",
    "/v1/version",
];

/// A route for GET, and for HEAD as its shadow: the same status and headers, no body (RFC 9110, 9.3.2).
pub(super) fn reads() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Answers whatever nobody else does.
pub(super) async fn unknown(request: HttpRequest) -> HttpResponse {
    error::answer(&ApiError::new(
        ApiErrorCode::NotFound,
        words(request.path()),
    ))
}

fn words(path: &str) -> String {
    // Every SDK has these calls, so a client deserves to be told what to do instead.
    if path.starts_with("/v1/conversations") {
        return "conversations are not served: continue a response by `previous_response_id`"
            .to_owned();
    }
    let shown = shown(path);
    if let Some(meant) = meant(path) {
        return format!("`{shown}` is not served: did you mean `{meant}`?");
    }
    let below = |known: &str| path.starts_with(known) || known.strip_prefix("/v1") == Some(path);
    if ELSEWHERE.iter().any(|known| below(known)) {
        return format!("`{shown}` is not served by this gateway: ask the model server itself");
    }
    format!("`{shown}` is not served: the API is under `/v1`, such as `/v1/responses`")
}

/// The served path that this one misses by slashes, or by a `/v1` too many or too few.
fn meant(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    while parts.first() == Some(&"v1") {
        parts.remove(0);
    }
    let tail = parts.join("/");
    let candidates = [format!("/v1/{tail}"), format!("/{tail}")];
    let meant = candidates.into_iter().find(|candidate| {
        SERVED.iter().any(|served| {
            let rest = candidate.strip_prefix(served);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    })?;
    (meant != path).then(|| shown(&meant))
}

/// Cut, and without anything that could be more than letters to whoever reads it.
fn shown(path: &str) -> String {
    let mut shown: String = path
        .chars()
        .take(LONGEST)
        .map(|letter| match letter {
            '`' | '"' | '<' | '>' | '&' => '?',
            plain if plain.is_ascii_graphic() => plain,
            _ => '?',
        })
        .collect();
    if path.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The answer to methods that a path does not take.
pub(super) fn wrong_method() -> Route {
    web::route().to(refuse_method)
}

async fn refuse_method(request: HttpRequest, method: Method) -> HttpResponse {
    let message = if request.headers().contains_key(header::UPGRADE) {
        "WebSockets are not served: send `POST` with `stream`".to_owned()
    } else {
        format!("this path does not take `{}`", shown(method.as_str()))
    };
    let mut response = error::answer(&ApiError::new(ApiErrorCode::MethodNotAllowed, message));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static(allowed(request.path()));
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// What `Allow` says (RFC 9110, 15.5.6).
fn allowed(path: &str) -> &'static str {
    match path {
        "/v1/responses"
        | "/v1/responses/compact"
        | "/v1/responses/input_tokens"
        | "/v1/chat/completions" => "POST",
        cancel if cancel.starts_with("/v1/responses/") && cancel.ends_with("/cancel") => "POST",
        items if items.starts_with("/v1/responses/") && items.ends_with("/input_items") => {
            "GET, HEAD"
        }
        stored if stored.starts_with("/v1/responses/") => "GET, HEAD, DELETE",
        _ => "GET, HEAD",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_told_its_path() {
        for (path, hint) in [
            ("/responses", "did you mean `/v1/responses`?"),
            ("/v1/responses/", "did you mean `/v1/responses`?"),
            ("//v1//responses", "did you mean `/v1/responses`?"),
            ("/v1/v1/responses", "did you mean `/v1/responses`?"),
            ("/chat/completions", "did you mean `/v1/chat/completions`?"),
            ("/models/a/b", "did you mean `/v1/models/a/b`?"),
            ("/v1/health", "did you mean `/health`?"),
            ("/v1/completions", "ask the model server itself"),
            ("/v1/embeddings", "ask the model server itself"),
            ("/tokenize", "ask the model server itself"),
            ("/v1/audio/speech", "ask the model server itself"),
            ("/", "such as `/v1/responses`"),
            ("/v2/x", "such as `/v1/responses`"),
            ("/v1/conversations/conv_1", "previous_response_id"),
        ] {
            let words = words(path);
            assert!(words.contains(hint), "{path}: {words}");
        }
    }

    #[test]
    fn a_path_is_repeated_short_and_plain() {
        let words = words(&format!("/`<b>\u{1b}[2J\u{202e}é{}", "x".repeat(5000)));
        assert!(words.is_ascii() && words.len() < 300, "{words}");
        assert_eq!(words.matches('`').count(), 6, "{words}");
    }
}
