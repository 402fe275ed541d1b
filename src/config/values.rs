//! Pure readers of single values: switches, durations, sizes, hosts, upstream URLs.

use std::net::IpAddr;
use std::time::Duration;

use url::Url;

use crate::http::cors::CorsOrigins;

/// A hundred years; beyond it, adding to a clock could overflow.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// `1 true t yes y on` / `0 false f no n off`, in any case.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// `30` (seconds), `500ms`, `30s`, `5m`, `2h`, `30d`; at most a hundred years.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)).filter(|value| *value <= LONGEST),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?)).filter(|value| *value <= LONGEST)
}

/// Bytes: `1048576`, `16B`, `512KiB`, `32MiB`, `1GiB`.
pub(super) fn size(text: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    usize::try_from(number.checked_mul(factor)?).ok()
}

/// An IP address or a host name; brackets of an IPv6 address are taken off.
pub(super) fn host(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Some(bare.to_owned());
    }
    let label = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let numeric = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    (text.len() <= 253 && !numeric && text.split('.').all(label)).then(|| text.to_owned())
}

/// Host names with commas between, in lower case; none for an empty text.
pub(super) fn hosts(text: &str) -> Option<Vec<String>> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|_| !text.trim().is_empty());
    names
        .map(|name| host(name).map(|name| name.to_ascii_lowercase()))
        .collect()
}

/// What [`origins`] wants.
pub(super) const ORIGINS: &str = "must be `*`, or origins as browsers send them with commas between; write for \
     example `https://app.example.com,http://localhost:3000`";

/// Nothing, `*`, or a list of origins.
pub(super) fn origins(text: &str) -> Option<CorsOrigins> {
    match text.trim() {
        "" => return Some(CorsOrigins::None),
        "*" => return Some(CorsOrigins::Any),
        _ => {}
    }
    let listed: Option<Vec<String>> = text.split(',').map(|one| origin(one.trim())).collect();
    listed.map(CorsOrigins::Listed)
}

/// An origin, spelled as a browser spells it; in any other spelling it would never match.
fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty() && !host.contains('*'))?;
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let spelled = format!("{}://{host}{port}", url.scheme());
    (spelled == text).then_some(spelled)
}

/// Last parts of paths that are requests, not servers.
const ENDPOINTS: [&str; 5] = [
    "/completions",
    "/responses",
    "/models",
    "/embeddings",
    "/health",
];

/// The upstream's base URL, ending in `/v1` without a slash behind it.
///
/// # Errors
/// The rule that the text breaks; never the text, which may hold a password.
pub(super) fn upstream(text: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(text)
        .ok()
        .ok_or("must be a URL; write for example `http://127.0.0.1:8000`")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(
            "must begin with http:// or https://; write for example `http://127.0.0.1:8000`",
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password; put the token into `VR_OPENAI_API_KEY`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must have no query and no fragment; end it at the path");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if ENDPOINTS.iter().any(|endpoint| path.ends_with(endpoint)) {
        return Err("names an endpoint; end it before that, such as `http://127.0.0.1:8000`");
    }
    let path = if path.ends_with("/v1") {
        path
    } else {
        format!("{path}/v1")
    };
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches() {
        for on in ["1", "true", "T", "yes", "Y", "ON"] {
            assert_eq!(switch(on), Some(true), "{on}");
        }
        for off in ["0", "False", "f", "no", "n", "off"] {
            assert_eq!(switch(off), Some(false), "{off}");
        }
        assert_eq!(switch("2"), None);
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("30"), Some(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("30d"), Some(Duration::from_secs(2_592_000)));
        for wrong in [
            "",
            "s",
            "-1",
            "1.5s",
            "5 weeks",
            "99999999999999999999",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        assert_eq!(size("32MiB"), Some(33_554_432));
        assert_eq!(size("1048576"), Some(1_048_576));
        for wrong in ["", "MiB", "1MB", "99999999999GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(host("[::1]"), Some("::1".to_owned()));
        assert_eq!(host("redis.example"), Some("redis.example".to_owned()));
        for wrong in ["", "a b", "u:p@h", "redis://h", "300.1.1.1", "a..b"] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn origins_are_spelled_as_browsers_do() {
        assert_eq!(origins(""), Some(CorsOrigins::None));
        assert_eq!(origins(" * "), Some(CorsOrigins::Any));
        let list = [
            "https://a.example",
            "http://localhost:3000",
            "http://[::1]:1",
            "app://x",
        ];
        let listed = list.map(str::to_owned).to_vec();
        assert_eq!(origins(&list.join(", ")), Some(CorsOrigins::Listed(listed)));
        for wrong in [
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "https://u@a.example",
            "https://a.example?q",
            "https://a.example,*",
            "https://a.example,",
            "null",
            "https://*.example",
        ] {
            assert_eq!(origins(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn upstream_urls_gain_v1_once() {
        for (given, expected) in [
            ("http://h:1", "http://h:1/v1"),
            ("http://h:1/", "http://h:1/v1"),
            ("http://h:1/v1", "http://h:1/v1"),
            ("https://h/v1/", "https://h/v1"),
            ("http://h/p//", "http://h/p/v1"),
        ] {
            assert_eq!(upstream(given).map(String::from), Ok(expected.to_owned()));
        }
        for wrong in [
            "",
            "h:1",
            "ftp://h",
            "http://u@h",
            "http://u:p@h",
            "http://h?q",
            "http://h#f",
            "http://h/v1/chat/completions",
            "http://h/v1/models/",
        ] {
            assert!(upstream(wrong).is_err(), "{wrong}");
        }
    }
}
