//! JSON text whose strings every reader takes.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::{read, surrogates};

/// The message as text: bytes that are no UTF-8, and escapes of half a surrogate pair, become U+FFFD.
pub(super) fn mended(message: &[u8]) -> Cow<'_, str> {
    // Some servers begin with a byte order mark.
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let text = String::from_utf8_lossy(message);
    match text {
        Cow::Borrowed(text) => surrogates::mended(text),
        Cow::Owned(text) => Cow::Owned(surrogates::mended(&text).into_owned()),
    }
}

/// The text of a JSON string; nothing for what is none.
pub(super) fn of(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    read::text(raw?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_refuse_is_mended() {
        assert_eq!(
            mended(b"\xef\xbb\xbf{\"a\":\"\xff\\ud83d\"}"),
            "{\"a\":\"\u{fffd}\\ufffd\"}"
        );
    }
}
