//! Secrets that must not show up where things are kept or told, as they are or as libraries write
//! bytes: decimals, hexadecimal digits, base64.

use std::fmt::Write as _;

/// Panics where one of the canaries is in what a sink holds, or the sink holds nothing.
#[track_caller]
pub(crate) fn search(sink: &str, bytes: &[u8], canaries: &[&str]) {
    assert!(!bytes.is_empty(), "{sink} is empty: nothing was searched");
    // Texts are searched faster than bytes; what is no UTF-8 in between hides nothing.
    let text = String::from_utf8_lossy(bytes);
    for canary in canaries {
        for form in forms(canary) {
            if let Some(at) = text.find(&form) {
                let around: String = text.split_at(at).1.chars().take(300).collect();
                panic!("{canary} in {sink}, written as {form}: {around}");
            }
        }
    }
}

/// How a text may stand in a log.
fn forms(canary: &str) -> Vec<String> {
    let bytes = canary.as_bytes();
    let decimals = |between: &str| {
        let numbers: Vec<String> = bytes.iter().map(ToString::to_string).collect();
        numbers.join(between)
    };
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").unwrap();
    }
    let mut forms = vec![
        canary.to_owned(),
        decimals(", "),
        decimals(","),
        hex.to_uppercase(),
        hex,
    ];
    // Where it begins within a group of three bytes is not known.
    forms.extend((0..3).map(|skipped| base64(&bytes[skipped..])));
    forms
}

/// The whole groups only: what follows changes the rest.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = group
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        for shift in [18, 12, 6, 0] {
            text.push(char::from(LETTERS[(bits >> shift & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_in_every_dress() {
        for dress in [
            "a PROMPTCANARY b",
            "[1, 80, 82, 79, 77, 80, 84, 67, 65, 78, 65, 82, 89, 2]",
            "\\x50524f4d505443414e415259",
            "eyJ4IjoiUFJPTVBUQ0FOQVJZIn0=",
            "IlBST01QVENBTkFSWSI=",
            "ICJQUk9NUFRDQU5BUlki",
        ] {
            let found =
                std::panic::catch_unwind(|| search("it", dress.as_bytes(), &["PROMPTCANARY"]));
            assert!(found.is_err(), "{dress}");
        }
        search("it", b"nothing, 80, 82", &["PROMPTCANARY"]);
    }
}
