//! Characters that people do not see and models read: a way to give a model orders behind the back of
//! whoever looks at a tool (fault M6).

/// Text without such characters: zero-width and bidirectional controls, tags, variation selectors,
/// private use, controls other than line ends and tabs. For names and descriptions, which need none.
pub fn visible(text: &str) -> String {
    text.chars()
        .filter(|character| is_visible(*character))
        .collect()
}

/// The same for JSON, whose strings may have them escaped.
pub fn visible_json(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        kept.extend(before.chars().filter(|character| is_visible(*character)));
        let (escape, behind) = first_escape(after);
        if escape.is_none_or(is_visible) {
            let written = after.len() - behind.len();
            kept.push('\\');
            kept.push_str(after.get(..written).unwrap_or_default());
        }
        rest = behind;
    }
    kept.extend(rest.chars().filter(|character| is_visible(*character)));
    kept
}

/// The character of the escape that this text, behind its backslash, begins with; `None` for one that
/// is not known. And what follows it.
fn first_escape(text: &str) -> (Option<char>, &str) {
    let mut characters = text.chars();
    match characters.next() {
        Some('u') => {}
        Some('b') => return (Some('\u{8}'), characters.as_str()),
        Some('f') => return (Some('\u{c}'), characters.as_str()),
        Some(_) | None => return (None, characters.as_str()),
    }
    let Some((high, behind)) = unit(characters.as_str()) else {
        return (None, characters.as_str());
    };
    let low = behind.strip_prefix("\\u").and_then(unit);
    match (char::from_u32(high), low) {
        (None, Some((low, end))) => {
            let both = char::decode_utf16([high, low].map(|unit| u16::try_from(unit).unwrap_or(0)));
            let mut both = both.flatten();
            (both.next(), end)
        }
        (character, _) => (character, behind),
    }
}

/// Four hexadecimal digits, and what follows them.
fn unit(text: &str) -> Option<(u32, &str)> {
    let (digits, behind) = text.split_at_checked(4)?;
    let unit = u32::from_str_radix(digits, 16).ok()?;
    Some((unit, behind))
}

/// A result without what hides words in it.
///
/// Those are tags, bidirectional overrides, zero-width spaces, controls, and more than one joiner, mark
/// or selector in a row. Single ones stay, since emoji, Persian, Hindi and Hebrew need them.
pub fn readable(text: &str) -> String {
    let mut after_joiner = true;
    let kept = text.chars().filter(|character| {
        let joins = is_joiner(*character);
        let repeated = joins && after_joiner;
        after_joiner = joins;
        !repeated && (joins || !hides(*character))
    });
    kept.collect()
}

/// What single ones of are part of ordinary writing.
fn is_joiner(character: char) -> bool {
    matches!(
        u32::from(character),
        0xad | 0x061c | 0x200c..=0x200f | 0xfe00..=0xfe0f
    )
}

fn hides(character: char) -> bool {
    let is_private = matches!(u32::from(character), 0xe000..=0xf8ff);
    !is_private && !is_visible(character)
}

fn is_visible(character: char) -> bool {
    if matches!(character, '\n' | '\t' | '\r') {
        return true;
    }
    let hidden = matches!(
        u32::from(character),
        0xad | 0x034f | 0x061c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x3164 | 0xfeff | 0xffa0
            | 0x180b..=0x180f | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
            | 0xfe00..=0xfe0f | 0xfff0..=0xfffb | 0xe000..=0xf8ff | 0x1d173..=0x1d17a
            | 0xe0000..=0xe0fff | 0xf0000..=0x10_ffff
    );
    !hidden && !character.is_control()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn m6_results_lose_what_hides_and_keep_what_is_writing() {
        for (text, kept) in [
            ("a\u{200b}b\u{202e}c\u{2066}d", "abcd"),
            ("\u{e0049}\u{e0067}seen\u{e007f}", "seen"),
            ("\u{1b}[8mhidden\u{1b}[0m\0", "[8mhidden[0m"),
            // Bits in a row of selectors or joiners.
            (
                "x\u{fe00}\u{fe01}\u{fe0f}y\u{200c}\u{200d}\u{200c}",
                "x\u{fe00}y\u{200c}",
            ),
            (
                "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{2764}\u{fe0f}",
                "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{2764}\u{fe0f}",
            ),
            (
                "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
                "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            ),
            ("line\n\ttab\r\n\u{e0b0}", "line\n\ttab\r\n\u{e0b0}"),
        ] {
            assert_eq!(readable(text), kept);
        }
    }

    proptest! {
        #[test]
        fn m6_json_stays_json_and_means_what_is_visible(
            text in any::<String>(), hidden in "[\u{200b}\u{e0041}\u{1b}\\\\\"a\u{1f600}]{0,8}", escape in any::<bool>(),
        ) {
            let text = format!("{text}{hidden}");
            let mut json = Value::from(text.as_str()).to_string();
            if escape {
                let unit = |unit: &u16| format!("\\u{unit:04X}");
                json = format!("\"{}\"", text.encode_utf16().collect::<Vec<_>>().iter().map(unit).collect::<String>());
            }
            let read: String = serde_json::from_str(&visible_json(&json)).unwrap();
            prop_assert_eq!(read, visible(&text));
        }
    }
}
