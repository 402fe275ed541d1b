//! Limits in HTTP's terms: `x-ratelimit-*`, and the words of a 429.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use vllm_responses_actors::limits::bucket::Standing;
use vllm_responses_actors::limits::{Limited, Quota, Scope, What};

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Tells the caller how it stands; nothing of what is not limited.
pub(super) fn tell(quota: &Quota, headers: &mut HeaderMap) {
    for (names, standing) in [(REQUESTS, quota.requests), (TOKENS, quota.tokens)] {
        let Some(standing) = standing else { continue };
        let Standing {
            limit,
            remaining,
            full_after,
            ..
        } = standing;
        let values = [
            HeaderValue::from(limit),
            HeaderValue::from(remaining),
            reset(full_after),
        ];
        for (name, value) in names.into_iter().zip(values) {
            headers.insert(name, value);
        }
    }
}

/// As OpenAI writes it: `20ms`, `1.5s`, `6m0s`, `1h0m0s`.
fn reset(after: Duration) -> HeaderValue {
    let (seconds, millis) = (after.as_secs(), after.subsec_millis());
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = match millis {
        0 => String::new(),
        _ => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    let text = match (hours, minutes, rest) {
        (0, 0, 0) => format!("{millis}ms"),
        (0, 0, _) => format!("{rest}{fraction}s"),
        (0, _, _) => format!("{minutes}m{rest}{fraction}s"),
        _ => format!("{hours}h{minutes}m{rest}{fraction}s"),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0ms"))
}

/// Whole seconds after which the caller is let in: never too few, at least one.
pub(super) fn retry_after(wait: Duration) -> u64 {
    let part = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + part).max(1)
}

/// Says which limit is reached.
pub(super) fn words(limited: &Limited) -> String {
    let whose = match limited.scope {
        Scope::Key => "this API key",
        Scope::All => "all users of this gateway together",
    };
    let of = |standing: Option<Standing>| standing.map_or(0, |standing| standing.limit);
    let what = match limited.what {
        What::Concurrent => {
            return format!(
                "{whose} runs as many responses at once as it may; wait until one has ended"
            );
        }
        What::Requests => ("requests", of(limited.quota.requests)),
        What::Tokens => ("tokens", of(limited.quota.tokens)),
    };
    let seconds = retry_after(limited.wait);
    let (unit, limit) = what;
    match limited.scope {
        Scope::Key => format!(
            "rate limit reached for {whose}: {limit} {unit} per minute; try again in {seconds} s"
        ),
        // The limit in the answer's headers may be the key's.
        Scope::All => format!("rate limit of {unit} reached for {whose}; try again in {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_does() {
        for (millis, text) in [
            (0, "0ms"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (360_000, "6m0s"),
            (61_050, "1m1.05s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(reset(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn t6_retry_after_is_never_too_short() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(retry_after(Duration::from_millis(millis)), seconds);
        }
    }
}
