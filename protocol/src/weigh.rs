//! How much there is in a JSON text, told before it is read: many small values take many times their
//! length in memory, a few long strings hardly more than once.

use memchr::memchr2;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Length of the text.
    pub bytes: usize,
    /// Objects in lists that stand in the outermost object, or in the outermost list: where items are.
    pub items: usize,
    /// Other objects and lists, and commas between values.
    pub values: usize,
}

/// The weight of a request's body: items are objects at depth 2.
#[must_use]
pub fn request(text: &[u8]) -> Weight {
    weigh(text, 2)
}

/// The weight of a list of items: they are objects at depth 1.
#[must_use]
pub fn list(text: &[u8]) -> Weight {
    weigh(text, 1)
}

impl std::ops::Add for Weight {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            items: self.items + other.items,
            values: self.values + other.values,
        }
    }
}

impl std::ops::Mul<usize> for Weight {
    type Output = Self;

    fn mul(self, copies: usize) -> Self {
        Self {
            bytes: self.bytes.saturating_mul(copies),
            items: self.items.saturating_mul(copies),
            values: self.values.saturating_mul(copies),
        }
    }
}

/// One linear look. Text that is no JSON has some weight too; that it is none is said elsewhere.
fn weigh(text: &[u8], items_at: usize) -> Weight {
    let mut weight = Weight {
        bytes: text.len(),
        ..Weight::default()
    };
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at = behind_string(text, at),
            b'{' if depth == items_at => {
                weight.items += 1;
                depth += 1;
            }
            b'{' | b'[' => {
                weight.values += 1;
                depth += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => weight.values += 1,
            _ => {}
        }
    }
    weight
}

/// Where a string that begins at `at` is over.
fn behind_string(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found + 1;
        if text.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_values_are_told_apart_and_strings_have_none() {
        let seen = |text: &str| {
            let weight = request(text.as_bytes());
            assert_eq!(weight.bytes, text.len());
            (weight.items, weight.values)
        };
        assert_eq!(seen(r#"{"input":"{[,{[,\"{"}"#), (0, 1));
        assert_eq!(seen(r#"{"input":[{"id":"x"},{"id":"y"}]}"#), (2, 3));
        assert_eq!(seen(r#"{"input":[{"content":[{"a":1},{}]}]}"#), (1, 6));
        assert_eq!(list(br#"[{"a":{}},{}]"#).items, 2);
        for open in ["\"", "\"\\", "{\"", "]]]}}{"] {
            let _no_matter: Weight = request(open.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn as_many_items_as_there_are(texts: Vec<String>) {
            let items: Vec<_> = texts.iter().map(|text| serde_json::json!({"content": text})).collect();
            let count = items.len();
            let body = serde_json::json!({"model": "m", "input": items}).to_string();
            proptest::prop_assert_eq!(request(body.as_bytes()).items, count);
        }
    }
}
