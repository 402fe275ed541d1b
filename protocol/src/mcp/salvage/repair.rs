//! Closes JSON that was cut anywhere. Pure; one pass, and no more memory than the text.

/// Deeper nesting is not closed.
const MAX_DEPTH: usize = 64;

/// The text up to the last place where it can be closed, closed; `None` for what is not the beginning
/// of an object, and for nesting without end. What is not JSON before the cut stays so.
pub(super) fn close(text: &str) -> Option<String> {
    let mut scan = Scan::default();
    for (at, byte) in text.bytes().enumerate() {
        scan.take(at, byte)?;
    }
    let mut closed = String::with_capacity(text.len() + MAX_DEPTH + 1);
    closed.push_str(text.get(..scan.end(text.len()))?);
    if scan.in_value() {
        closed.push('"');
    }
    closed.extend(scan.open.iter().rev().map(|kind| kind.closing()));
    Some(closed).filter(|text| text.trim_start().starts_with('{'))
}

/// A container that is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Object,
    Array,
}

impl Open {
    fn closing(self) -> char {
        match self {
            Self::Object => '}',
            Self::Array => ']',
        }
    }
}

/// Where in a string the scan is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// In none.
    Nothing,
    /// In plain characters.
    Plain,
    /// In an escape that began here.
    Escape(usize),
    /// In the digits of a `\u` that began here; how many are still to come.
    Unit(usize, u8),
}

/// What a string can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A member's name.
    Name,
    /// A value.
    Value,
}

impl Part {
    /// What stands first in a container, and after its commas.
    fn first_in(container: Option<Open>) -> Self {
        match container {
            Some(Open::Object) => Self::Name,
            Some(Open::Array) | None => Self::Value,
        }
    }
}

struct Scan {
    open: Vec<Open>,
    within: Within,
    /// What the string is.
    string: Part,
    /// What comes next.
    next: Part,
    /// A number or word is being read.
    in_word: bool,
    /// Everything before it can be closed.
    safe: usize,
    /// Where the first half of a character of two units began, which is nothing alone.
    half: Option<usize>,
    /// The unit that is being read.
    unit: u32,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            within: Within::Nothing,
            string: Part::Value,
            next: Part::Value,
            in_word: false,
            safe: 0,
            half: None,
            unit: 0,
        }
    }
}

impl Scan {
    /// Takes one byte; `None` when nothing of it can be closed.
    fn take(&mut self, at: usize, byte: u8) -> Option<()> {
        if self.within != Within::Nothing {
            self.take_in_string(at, byte);
            return Some(());
        }
        if self.in_word && matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t') {
            self.in_word = false;
            self.safe = at;
        }
        match byte {
            b'"' => {
                self.within = Within::Plain;
                self.string = self.next;
                self.half = None;
            }
            b'{' | b'[' => self.push(at, byte)?,
            b'}' | b']' => {
                self.open.pop();
                self.safe = at + 1;
            }
            b',' => self.next = Part::first_in(self.open.last().copied()),
            b':' => self.next = Part::Value,
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => self.in_word = true,
        }
        Some(())
    }

    fn push(&mut self, at: usize, byte: u8) -> Option<()> {
        if self.open.len() == MAX_DEPTH {
            return None;
        }
        let kind = if byte == b'{' {
            Open::Object
        } else {
            Open::Array
        };
        self.open.push(kind);
        self.next = Part::first_in(Some(kind));
        self.safe = at + 1;
        Some(())
    }

    fn take_in_string(&mut self, at: usize, byte: u8) {
        match (self.within, byte) {
            (Within::Escape(began), b'u') => {
                self.within = Within::Unit(began, 4);
                self.unit = 0;
            }
            (Within::Escape(_), _) => {
                self.within = Within::Plain;
                self.half = None;
            }
            (Within::Unit(began, left), _) => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.unit = self.unit << 4 | digit;
                if left > 1 {
                    self.within = Within::Unit(began, left - 1);
                    return;
                }
                self.within = Within::Plain;
                self.half = (0xd800..0xdc00).contains(&self.unit).then_some(began);
            }
            (Within::Plain, b'\\') => self.within = Within::Escape(at),
            (Within::Plain, b'"') => {
                self.within = Within::Nothing;
                if self.string == Part::Value {
                    self.safe = at + 1;
                }
            }
            (Within::Plain | Within::Nothing, _) => self.half = None,
        }
    }

    /// Whether the cut is in a string that can be ended there.
    fn in_value(&self) -> bool {
        self.within != Within::Nothing && self.string == Part::Value
    }

    /// Where the text ends that is kept.
    fn end(&self, length: usize) -> usize {
        if !self.in_value() {
            return self.safe;
        }
        let cut = match self.within {
            Within::Escape(began) | Within::Unit(began, _) => began,
            Within::Plain | Within::Nothing => length,
        };
        self.half.map_or(cut, |half| half.min(cut))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\\\\"\u{1f600}\u{0}\u{e4}/]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a\"\\\\:]{0,3}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// As another writer has it: everything but ASCII escaped.
    fn escaped(text: &str) -> String {
        let write = |character: char| {
            if character.is_ascii() {
                return character.to_string();
            }
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units).iter();
            let units: Vec<String> = units.map(|unit| format!("\\u{unit:04x}")).collect();
            units.concat()
        };
        text.chars().map(write).collect()
    }

    proptest! {
        #[test]
        fn m3_a_text_cut_anywhere_can_be_read(value in json(), at in any::<prop::sample::Index>()) {
            let value = Value::Object([("a".to_owned(), value)].into_iter().collect());
            let plain = value.to_string();
            for text in [escaped(&plain), plain] {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
                let cut = crate::error::head(&text, at.index(text.len() + 1));
                match close(cut) {
                    Some(closed) => {
                        prop_assert!(serde_json::from_str::<Value>(&closed).is_ok(), "{cut} gave {closed}");
                    }
                    None => prop_assert!(cut.trim().is_empty(), "{cut}"),
                }
            }
        }
    }
}
