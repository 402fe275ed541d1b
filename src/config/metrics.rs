//! Pure: the keys of the metrics page, judged.

use vllm_responses_actors::metrics::{MetricsDoor, MetricsSettings};

use super::validate::Reader;

/// What other pages have.
const TAKEN: [&str; 2] = ["/v1", "/health"];

impl Reader<'_> {
    pub(super) fn metrics(&mut self) -> Option<MetricsSettings> {
        let enabled = self.switch("metrics.enabled");
        let keyed = self.switch("metrics.auth");
        let rule = "must be a path of its own, of letters, digits, `-`, `_`, `.` and `/`; write for \
                    example `/metrics`";
        let path = self.read("metrics.path", rule, path);
        let door = MetricsDoor {
            path: path?,
            keyed: keyed?,
        };
        Some(MetricsSettings {
            door: enabled?.then_some(door),
        })
    }
}

fn path(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let taken = |prefix: &str| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let fits = text.len() > 1 && text.starts_with('/') && !text.ends_with('/');
    let fits = fits && text.bytes().all(plain) && !TAKEN.iter().any(|prefix| taken(prefix));
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_plain_and_their_own() {
        for good in ["/metrics", "/a/b", "/v1metrics", "/healthy"] {
            assert_eq!(path(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            "/",
            "metrics",
            "/m/",
            "/{id}",
            "/a b",
            "/v1",
            "/v1/metrics",
            "/health/m",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
