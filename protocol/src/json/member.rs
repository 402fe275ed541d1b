//! The text of one member of a JSON object that arrives in pieces.
//!
//! Models write the code for an interpreter, or the input of a custom tool, as one string inside
//! the arguments of a function. Clients want to see it grow, so it is picked out while it comes.

/// Longest name of a member that is compared; longer ones are not the wanted one.
const MAX_NAME: usize = 64;

/// Picks the string member with a given name out of an object's text, whatever the pieces.
///
/// It is lenient, since the whole text is checked once it is there: text that is no object simply
/// gives nothing. The first member of that name counts.
#[derive(Debug)]
pub(crate) struct MemberText {
    wanted: &'static str,
    state: State,
    /// Nesting below the object's own members.
    depth: usize,
    /// The name being read.
    name: String,
    escape: Escape,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the object.
    Outside,
    /// Where a name may begin.
    Between,
    /// In a name.
    Name,
    /// After a name.
    Colon,
    /// Before a value of the wanted member, or of another.
    Value { wanted: bool },
    /// In the wanted string.
    Wanted,
    /// In a string that is not wanted.
    OtherText,
    /// In a value that is no string, outside strings.
    Other,
    /// Nothing more is of interest.
    Over,
}

/// Where an escape sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    Begun,
    /// In `\u`: digits so far and their value.
    Unicode(u8, u16),
}

impl MemberText {
    /// Looks for the member `wanted`.
    pub(crate) fn new(wanted: &'static str) -> Self {
        Self {
            wanted,
            state: State::Outside,
            depth: 0,
            name: String::new(),
            escape: Escape::No,
            high: None,
        }
    }

    /// Takes the next piece; appends what it says of the wanted text to `out`.
    pub(crate) fn push(&mut self, piece: &str, out: &mut String) {
        for character in piece.chars() {
            match self.state {
                State::Over => return,
                State::Wanted => self.in_wanted(character, out),
                State::Name => self.in_name(character),
                State::OtherText => self.in_other_text(character),
                State::Outside | State::Between | State::Colon | State::Value { .. } => {
                    self.at_structure(character);
                }
                State::Other => self.in_other(character),
            }
        }
    }

    fn at_structure(&mut self, character: char) {
        self.state = match (self.state, character) {
            (state, ' ' | '\n' | '\r' | '\t') => state,
            (State::Outside, '{') | (State::Between, ',') => State::Between,
            (State::Between, '"') => {
                self.name.clear();
                State::Name
            }
            (State::Colon, ':') => State::Value {
                wanted: self.name == self.wanted,
            },
            (State::Value { wanted: true }, '"') => State::Wanted,
            (State::Value { wanted: false }, '"') => State::OtherText,
            (State::Value { .. }, other) => {
                self.state = State::Other;
                self.depth = 0;
                return self.in_other(other);
            }
            _ => State::Over,
        };
    }

    fn in_name(&mut self, character: char) {
        match character {
            '"' => self.state = State::Colon,
            // A wanted name has no escapes.
            '\\' => self.state = State::Over,
            other if self.name.len() < MAX_NAME => self.name.push(other),
            _ => {}
        }
    }

    fn in_other_text(&mut self, character: char) {
        match (self.escape, character) {
            (Escape::No, '\\') => self.escape = Escape::Begun,
            (Escape::No, '"') => {
                self.state = if self.depth == 0 {
                    State::Between
                } else {
                    State::Other
                }
            }
            _ => self.escape = Escape::No,
        }
    }

    fn in_other(&mut self, character: char) {
        match character {
            '"' => self.state = State::OtherText,
            '{' | '[' => self.depth += 1,
            '}' | ']' if self.depth > 0 => self.depth -= 1,
            '}' | ']' => self.state = State::Over,
            ',' if self.depth == 0 => self.state = State::Between,
            _ => {}
        }
    }

    fn in_wanted(&mut self, character: char, out: &mut String) {
        match (self.escape, character) {
            (Escape::No, '\\') => self.escape = Escape::Begun,
            (Escape::No, '"') => {
                self.lone_surrogate(out);
                self.state = State::Over;
            }
            (Escape::No, plain) => {
                self.lone_surrogate(out);
                out.push(plain);
            }
            (Escape::Begun, 'u') => self.escape = Escape::Unicode(0, 0),
            (Escape::Begun, letter) => {
                self.escape = Escape::No;
                self.lone_surrogate(out);
                out.push(match letter {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    other => other,
                });
            }
            (Escape::Unicode(digits, value), digit) => self.digit(digits, value, digit, out),
        }
    }

    fn digit(&mut self, digits: u8, value: u16, digit: char, out: &mut String) {
        let Some(digit) = digit
            .to_digit(16)
            .and_then(|digit| u16::try_from(digit).ok())
        else {
            self.state = State::Over;
            return;
        };
        let value = (value << 4) | digit;
        if digits < 3 {
            self.escape = Escape::Unicode(digits + 1, value);
            return;
        }
        self.escape = Escape::No;
        self.unit(value, out);
    }

    /// Takes one UTF-16 unit.
    fn unit(&mut self, unit: u16, out: &mut String) {
        if let Some(high) = self.high.take() {
            let pair = char::decode_utf16([high, unit]).collect::<Result<String, _>>();
            if let Ok(pair) = pair {
                out.push_str(&pair);
                return;
            }
            out.push(char::REPLACEMENT_CHARACTER);
        }
        match char::from_u32(u32::from(unit)) {
            Some(character) => out.push(character),
            None if (0xD800..0xDC00).contains(&unit) => self.high = Some(unit),
            None => out.push(char::REPLACEMENT_CHARACTER),
        }
    }

    fn lone_surrogate(&mut self, out: &mut String) {
        if self.high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn picked(pieces: &[&str]) -> String {
        let mut out = String::new();
        let mut member = MemberText::new("code");
        for piece in pieces {
            member.push(piece, &mut out);
        }
        out
    }

    #[test]
    fn picks_the_wanted_member_among_others() {
        let text = r#" {"a":[1,{"code":"no"},"]}"],"b":"\"code\":","c":-1.5e3,"code":"yes\n"} "#;
        assert_eq!(picked(&[text]), "yes\n");
        assert_eq!(picked(&[r#"{"code":null,"x":1}"#]), "");
        assert_eq!(picked(&[r#"{"code":{"code":"deep"}}"#]), "");
        assert_eq!(picked(&["print(1)"]), "");
        assert_eq!(picked(&[r#"["code","x"]"#]), "");
    }

    #[test]
    fn lone_surrogates_are_replaced() {
        assert_eq!(picked(&[r#"{"code":"a\ud83dz"}"#]), "a\u{fffd}z");
        assert_eq!(picked(&[r#"{"code":"\udc00"}"#]), "\u{fffd}");
        assert_eq!(picked(&[r#"{"code":"\ud83d\u"#, r#"de00"}"#]), "😀");
    }

    /// An object whose `code` is all escapes.
    fn escaped(code: &str) -> String {
        let mut text = "{\"code\":\"".to_owned();
        for unit in code.encode_utf16() {
            write!(text, "\\u{unit:04x}").unwrap();
        }
        text + "\"}"
    }

    proptest! {
        #[test]
        fn any_text_in_any_pieces(code in any::<String>(), before in any::<String>(), cut in 1_usize..7) {
            for text in [
                json!({"a": before, "code": code}).to_string(),
                // All characters escaped.
                escaped(&code),
            ] {
                let characters: Vec<char> = text.chars().collect();
                let pieces: Vec<String> = characters.chunks(cut).map(|c| c.iter().collect()).collect();
                let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                prop_assert_eq!(picked(&pieces), code.clone());
            }
        }

        #[test]
        fn garbage_gives_no_panic(text in any::<String>()) {
            let _whatever = picked(&[&text]);
        }
    }
}
