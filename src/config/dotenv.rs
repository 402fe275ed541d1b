//! Pure reader of `.env`: `NAME=VALUE` lines, comments, one pair of quotes, no interpolation.
//! A comment may also follow a value, behind a blank: without that `VR_DB_PATH=a.db # ours` names a
//! file of that whole name.

/// A line that is neither pair, comment nor blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// From 1.
    pub(super) line: usize,
    /// Whether a setting of ours was meant: going on without it could open what was to be closed.
    pub(super) is_ours: bool,
}

/// Pairs in file order, and the bad lines.
pub(super) fn parse(text: &str) -> (Vec<(String, String)>, Vec<Bad>) {
    let (mut pairs, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = match line.strip_prefix("export") {
            Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
            Some(_) | None => line,
        };
        match line
            .split_once('=')
            .map(|(name, value)| (name.trim(), value))
        {
            Some((name, value)) if is_identifier(name) => {
                pairs.push((name.to_owned(), bare(value).to_owned()));
            }
            Some(_) | None => bad.push(Bad {
                line: index + 1,
                is_ours: line.to_ascii_uppercase().contains("VR_"),
            }),
        }
    }
    (pairs, bad)
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The value itself: without blanks around it, one pair of quotes, and a comment behind it.
fn bare(value: &str) -> &str {
    let trimmed = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let inner = trimmed.strip_prefix(quote)?;
        let (inside, behind) = inner.split_once(quote)?;
        match behind.trim_start() {
            "" => Some(inside),
            rest if behind.starts_with([' ', '\t']) && rest.starts_with('#') => Some(inside),
            // Quotes within quotes.
            _ => inner.strip_suffix(quote),
        }
    });
    quoted.unwrap_or_else(|| {
        let marks = [" #", "\t#"].into_iter();
        let end = marks.filter_map(|mark| value.find(mark)).min();
        value
            .get(..end.unwrap_or(value.len()))
            .unwrap_or(value)
            .trim()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_behind_a_value_is_none_of_it() {
        for (line, value) in [
            ("A=5969 # port", "5969"),
            ("A=5969\t# port", "5969"),
            ("A= # nothing", ""),
            ("A=a#b", "a#b"),
            ("A=#b", "#b"),
            ("A=\"a # b\"", "a # b"),
            ("A=\"a # b\" # c \"d\"", "a # b"),
            ("A='a' # it's", "a"),
            ("A='it's'", "it's"),
            ("A=a b  # c # d", "a b"),
        ] {
            let (pairs, bad) = parse(line);
            assert_eq!(pairs, [("A".to_owned(), value.to_owned())], "{line}");
            assert!(bad.is_empty(), "{line}");
        }
    }

    #[test]
    fn lines_quotes_comments_and_export() {
        let text = "# c\n\nA=1\nexport\tH=1\nset VR_X=1\n1A=2\nexport B = \"two words\"\nC='\"q\"'\nD=a=b\nE=\nF=$A\nG=\"\nnonsense\n=x\n";
        let (pairs, bad) = parse(text);
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let expected = [
            ("A", "1"),
            ("H", "1"),
            ("B", "two words"),
            ("C", "\"q\""),
            ("D", "a=b"),
            ("E", ""),
            ("F", "$A"),
            ("G", "\""),
        ];
        assert_eq!(pairs, expected);
        let bad: Vec<_> = bad.iter().map(|bad| (bad.line, bad.is_ours)).collect();
        assert_eq!(bad, [(5, true), (6, false), (13, false), (14, false)]);
    }
}
