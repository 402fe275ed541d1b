//! Secrets that must not show up where things are kept or told.

/// Panics where one of the canaries is in what a sink holds, or the sink holds nothing.
#[track_caller]
pub(crate) fn search(sink: &str, bytes: &[u8], canaries: &[&str]) {
    assert!(!bytes.is_empty(), "{sink} is empty: nothing was searched");
    for canary in canaries {
        let at = bytes
            .windows(canary.len())
            .position(|part| part == canary.as_bytes());
        if let Some(at) = at {
            let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 100)];
            panic!("{canary} in {sink}: {}", String::from_utf8_lossy(around));
        }
    }
}
