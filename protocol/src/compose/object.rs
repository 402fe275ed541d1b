//! Where a JSON object that comes in pieces ends.

/// Counts the brackets of a text outside its strings: each byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjectEnd {
    depth: usize,
    inside: bool,
    escaped: bool,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// Nothing but white space yet, or in the middle.
    #[default]
    Open,
    /// The last bracket is closed.
    Closed,
    /// It is no object.
    Broken,
}

impl ObjectEnd {
    /// Takes the next piece, up to the end of the object; says how much of it that is.
    pub(super) fn push(&mut self, piece: &str) -> usize {
        for (at, byte) in piece.bytes().enumerate() {
            match self.end {
                End::Open => self.byte(byte),
                // A bracket is one byte.
                End::Closed => return at,
                End::Broken => break,
            }
        }
        piece.len()
    }

    /// Whether the object is over.
    pub(super) fn is_over(self) -> bool {
        self.end == End::Closed
    }

    fn byte(&mut self, byte: u8) {
        if self.inside {
            self.inside = byte != b'"' || self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
            return;
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b'{' => self.depth += 1,
            _ if self.depth == 0 => self.end = End::Broken,
            b'[' => self.depth += 1,
            b'"' => self.inside = true,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.end = End::Closed;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_with_its_last_bracket() {
        for (text, over) in [
            ("{}", true),
            (" {\"a\": [{}, \"}\"]} \n", true),
            ("{\"a\\\\\":\"\\\"}\"}", true),
            ("", false),
            ("{", false),
            ("{\"}", false),
            ("{}{", true),
            ("[]", false),
            ("x{}", false),
            ("{} x", true),
        ] {
            for cut in 0..text.len() {
                let mut end = ObjectEnd::default();
                let (head, tail) = text.split_at(cut);
                let taken = end.push(head);
                let rest = if taken < head.len() {
                    0
                } else {
                    end.push(tail)
                };
                let whole = text.get(..taken + rest).unwrap_or_default();
                assert!(!over || whole.ends_with('}'), "{text}: {whole}");
                assert_eq!(end.is_over(), over, "{text}");
            }
        }
    }
}
