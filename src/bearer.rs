//! The token of a service of ours that another process asks for.

use actix_web::http::header;
use actix_web::http::header::HeaderMap;
use vllm_responses_actors::secret::Secret;

/// Whether a request shows this token as its `Authorization: Bearer` value.
pub(crate) fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let shown = headers.get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    same(token.expose().as_bytes(), shown.unwrap_or_default())
}

/// Looks at every byte, so that time says nothing of the token.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b));
    a.len() == b.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn only_the_whole_token_is_one() {
        let token = Secret::new("abc");
        let shown = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(text));
            shows(&headers, &token)
        };
        assert!(shown("Bearer abc"));
        for wrong in [
            "Bearer ab",
            "Bearer abcd",
            "Bearer abd",
            "Bearer ",
            "abc",
            "bearer abc",
        ] {
            assert!(!shown(wrong), "{wrong}");
        }
        assert!(!shows(&HeaderMap::new(), &token));
    }
}
