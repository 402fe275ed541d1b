//! Pure reader of `.env`: `NAME=VALUE` lines, comments, one pair of quotes, no interpolation.

/// Pairs in file order, and the numbers (from 1) of lines that are neither pair, comment nor blank.
pub(super) fn parse(text: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let (mut pairs, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        match line
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
        {
            Some((name, value)) if !name.is_empty() => {
                pairs.push((name.to_owned(), unquote(value).to_owned()));
            }
            _ => bad.push(index + 1),
        }
    }
    (pairs, bad)
}

fn unquote(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_quotes_comments_and_export() {
        let text = "# c\n\nA=1\nexport B = \"two words\"\nC='\"q\"'\nD=a=b\nE=\nF=$A\nG=\"\nnonsense\n=x\n";
        let (pairs, bad) = parse(text);
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "\"q\""),
            ("D", "a=b"),
            ("E", ""),
            ("F", "$A"),
            ("G", "\""),
        ];
        assert_eq!(pairs, expected);
        assert_eq!(bad, [10, 11]);
    }
}
