//! Headers that a caller adds to the requests to its MCP server.
//!
//! They may carry keys; they may not change where a request goes, how it is framed, or what proxies
//! think of it.

use std::fmt;

use http::{HeaderName, HeaderValue};

use crate::secret::Secret;

/// Most headers of one server.
const MAX_HEADERS: usize = 32;
/// Longest value, in bytes.
const MAX_VALUE: usize = 8192;

/// Names that are the gateway's own business.
const OURS: [&str; 22] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "te",
    "trailer",
    "connection",
    "keep-alive",
    "upgrade",
    "expect",
    "max-forwards",
    "accept",
    "accept-encoding",
    "via",
    "forwarded",
    "x-real-ip",
    "last-event-id",
    "origin",
    "range",
    "traceparent",
    "http2-settings",
];
/// As [`OURS`], by how they begin.
const OUR_PREFIXES: [&str; 4] = ["proxy-", "x-forwarded-", "mcp-", "sec-"];

/// Vetted headers; `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CallerHeaders(Vec<(HeaderName, HeaderValue)>);

impl CallerHeaders {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl fmt::Debug for CallerHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Judges headers, and the token that becomes `Authorization: Bearer`, which replaces such a header.
///
/// # Errors
/// The rule that is broken, without name or value: both are the caller's text.
pub fn vet_headers<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a Secret)>,
    authorization: Option<&Secret>,
) -> Result<CallerHeaders, &'static str> {
    let mut vetted: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in headers {
        if vetted.len() == MAX_HEADERS {
            return Err("must have at most 32 members");
        }
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_bad| "must have names that are HTTP tokens")?;
        if OURS.contains(&name.as_str())
            || OUR_PREFIXES
                .iter()
                .any(|prefix| name.as_str().starts_with(prefix))
        {
            return Err(
                "must not set `Host` or headers of framing, connections, proxies or the MCP protocol",
            );
        }
        if name == http::header::AUTHORIZATION && authorization.is_some() {
            continue;
        }
        if vetted.iter().any(|(earlier, _)| *earlier == name) {
            return Err("must not have two members whose names differ in case only");
        }
        vetted.push((name, vet_value(value.expose())?));
    }
    if let Some(token) = authorization {
        let token = token.expose().trim();
        let bare = match token.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest.trim(),
            _ => token,
        };
        let value = vet_value(&format!("Bearer {bare}"))?;
        vetted.push((http::header::AUTHORIZATION, value));
    }
    Ok(CallerHeaders(vetted))
}

fn vet_value(value: &str) -> Result<HeaderValue, &'static str> {
    const RULE: &str = "must have values of visible ASCII characters and spaces, at most 8192 long";
    if value.len() > MAX_VALUE || !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(RULE);
    }
    let mut value = HeaderValue::from_str(value).map_err(|_bad| RULE)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vet(headers: &[(&str, &str)], token: Option<&str>) -> Result<CallerHeaders, &'static str> {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, Secret::new(value)))
            .collect();
        let token = token.map(Secret::new);
        vet_headers(
            headers.iter().map(|(name, value)| (*name, value)),
            token.as_ref(),
        )
    }

    #[test]
    fn headers_cannot_smuggle() {
        for name in [
            "Host",
            "HOST",
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "Proxy-Authorization",
            "proxy-connection",
            "X-Forwarded-For",
            "Forwarded",
            "Upgrade",
            "TE",
            "Expect",
            "Mcp-Session-Id",
            "bad name",
            "bad:name",
            "",
            "na\nme",
            "n\u{e4}me",
        ] {
            assert!(vet(&[(name, "v")], None).is_err(), "{name}");
        }
        for value in ["a\r\nHost: b", "a\nb", "a\0b", "a\tb", "\u{e4}", "\x7f"] {
            assert!(vet(&[("x-key", value)], None).is_err(), "{value:?}");
            assert!(vet(&[], Some(value)).is_err(), "{value:?}");
        }
        assert!(vet(&[("x-key", &"v".repeat(8193))], None).is_err());
        let many: Vec<_> = (0..33).map(|at| (format!("x-{at}"), "v")).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (&**name, *value)).collect();
        assert!(vet(&many, None).is_err());
    }

    #[test]
    fn the_token_replaces_an_authorization_header() {
        let vetted = vet(
            &[("AUTHORIZATION", "Basic x"), ("X-Key", "k")],
            Some("Bearer t"),
        )
        .unwrap();
        let seen: Vec<_> = vetted
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(seen, [("x-key", "k"), ("authorization", "Bearer t")]);
        let doubled = [("authorization", "a"), ("Authorization", "b")];
        assert!(vet(&doubled, None).is_err());
        assert_eq!(format!("{vetted:?}"), r#"["x-key", "authorization"]"#);
    }
}
