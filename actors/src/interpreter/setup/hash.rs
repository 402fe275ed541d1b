//! SHA-256 as lower-case hexadecimal, the form that pins and Pyodide's list have.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::error::SetupError;

/// Of these bytes.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of several parts, kept apart by their lengths.
pub(super) fn sha256_of_parts(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hasher.update(length.to_be_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// Refuses bytes that are not the wanted ones.
pub(super) fn check(
    what: &str,
    bytes: &[u8],
    wanted: &str,
    remedy: &'static str,
) -> Result<(), SetupError> {
    let found = sha256(bytes);
    if found == wanted {
        return Ok(());
    }
    Err(SetupError::Checksum {
        what: what.to_owned(),
        found,
        wanted: wanted.to_owned(),
        remedy,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
