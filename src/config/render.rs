//! Texts made from the key table: `config/default.toml`, `docs/configuration.md`, `check-config`.

use std::fmt::Write as _;

use super::notices;
use super::raw::Raw;
use super::table::{Kind, Row, TABLE};

/// Text of `config/default.toml`.
pub fn default_toml() -> String {
    let mut out = String::from(
        "# Every key with its default. An empty text means unset.\n# Made from the key table; \
         `UPDATE_GENERATED=1 cargo test --lib config::render` writes it anew.\n",
    );
    sections(&mut out, |out, row, name| {
        let value = literal(row, row.default);
        write_line(
            out,
            &format!("# {} ({})\n{name} = {value}", row.meaning, names(row)),
        );
    });
    out
}

/// Text of `check-config`: TOML of the effective values, each with its place.
pub fn effective(raw: &Raw) -> String {
    let mut out = String::new();
    sections(&mut out, |out, row, name| {
        let Some(value) = raw.values.get(row.key) else {
            return;
        };
        let place = value.place.replace('\n', " ");
        let line = if !notices::holds_secret(row, &value.text) {
            format!("{name} = {} # {place}", literal(row, &value.text))
        } else if let (Some(url), true) =
            (notices::shown_url(&value.text), value.text.contains("://"))
        {
            format!(
                "# {name}: {} and a password that is not shown # {place}",
                literal(row, &url)
            )
        } else {
            format!("# {name}: a secret that is not shown # {place}")
        };
        write_line(out, &line);
    });
    if let Some(words) = &raw.spawn {
        let count = words.len();
        let words = format!("# vLLM is started by the gateway, with the {count} words behind `--`");
        write_line(&mut out, &format!("\n{words}"));
    }
    // A section begins with a blank line; the text does not.
    out.trim_start().to_owned()
}

/// Text of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for row in TABLE {
        let code = |text: &str| {
            if text.is_empty() {
                "–".to_owned()
            } else {
                format!("`{text}`")
            }
        };
        let key = if row.in_toml() {
            code(row.key)
        } else {
            "–".to_owned()
        };
        let default = code(row.default);
        let flag = code(row.flag.unwrap_or_default());
        let secret = if row.secret { " Secret." } else { "" };
        write_line(
            &mut out,
            &format!(
                "| {key} | {flag} | `{}` | {default} | {}{secret} |",
                row.env, row.meaning
            ),
        );
    }
    out
}

const INTRODUCTION: &str = "# Configuration

A value is looked for in this order; the first one found counts:

1. the command line,
2. the process environment,
3. `.env` in the working directory (`NAME=VALUE` lines, `#` comments (behind a value too, after a blank), one pair of quotes, no interpolation),
4. the TOML file named by `--config` or `VR_CONFIG`,
5. the default.

An empty variable counts as unset. Booleans are `1 true t yes y on` or `0 false f no n off` in any case.
Durations are `30` (seconds), `500ms`, `30s`, `5m`, `2h`, `30d`; sizes `1048576`, `512KiB`, `32MiB`.
An unknown TOML key is an error; an unknown `VR_` variable is a warning. All errors are reported at once and
the exit code is 2. `vllm-responses check-config` prints the effective values and where each came from.
Secrets have no flag and are never printed; `check-config` puts a comment in their place, and of a database
its path, or its URL without the password.

API keys: `vllm-responses keys new NAME` prints a new key and the line for the file of `VR_API_KEYS_FILE`;
with `--append FILE` it adds the line to that file and prints the key alone. SIGHUP reads the file again:
one that is emptied or deleted takes every key away, one with a mistake changes nothing.
A file with secrets that other users can read, and a keys file that they can change, is named in a warning.
`vllm-responses status` takes its own key from `VR_API_KEY`, which is no setting of the gateway.

This page is made from the key table in `src/config/table.rs`;
`UPDATE_GENERATED=1 cargo test --lib config::render` writes it and `config/default.toml` anew.

| TOML key | flag | environment | default | meaning |
|---|---|---|---|---|
";

fn sections(out: &mut String, mut each: impl FnMut(&mut String, &Row, &str)) {
    let mut current = "";
    for row in TABLE.iter().filter(|row| row.in_toml()) {
        let Some((section, name)) = row.key.split_once('.') else {
            continue;
        };
        if section != current {
            write_line(out, &format!("\n[{section}]"));
            current = section;
        }
        each(out, row, name);
    }
}

fn names(row: &Row) -> String {
    row.flag
        .map_or_else(|| row.env.to_owned(), |flag| format!("{}, {flag}", row.env))
}

/// A TOML literal; numbers and booleans bare when they are such.
fn literal(row: &Row, text: &str) -> String {
    let bare = match row.kind {
        Kind::Number => text.parse::<i64>().ok().map(|number| number.to_string()),
        Kind::Fraction => fraction(text),
        Kind::Switch => super::values::switch(text).map(|on| on.to_string()),
        Kind::Text | Kind::Duration | Kind::Size | Kind::Choice(_) => None,
    };
    bare.unwrap_or_else(|| toml::Value::String(text.to_owned()).to_string())
}

/// With a decimal point, so that TOML reads it as such.
fn fraction(text: &str) -> Option<String> {
    let number = text.parse::<f64>().ok()?;
    number.is_finite().then(|| format!("{number:?}"))
}

fn write_line(out: &mut String, line: &str) {
    if writeln!(out, "{line}").is_err() {
        log::debug!("a text could not be written to memory");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::raw::{DEFAULT, Inputs, gather};

    fn matches_file(path: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            text,
            "set UPDATE_GENERATED=1 to write it anew"
        );
    }

    #[test]
    fn default_toml_is_current() {
        matches_file("config/default.toml", &default_toml());
    }

    #[test]
    fn configuration_page_is_current() {
        matches_file("docs/configuration.md", &markdown());
    }

    #[test]
    fn the_default_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("d.toml"), default_toml()).unwrap();
        let mut inputs = Inputs {
            directory: directory.path().to_owned(),
            ..Inputs::default()
        };
        let plain = gather(&inputs);
        inputs.flags.insert("config", "d.toml".to_owned());
        let filed = gather(&inputs);
        assert_eq!(filed.problems, Vec::<String>::new());
        for row in TABLE.iter().filter(|row| row.in_toml()) {
            assert_eq!(
                plain.values[row.key].text, filed.values[row.key].text,
                "{}",
                row.key
            );
            assert_eq!(plain.values[row.key].place, DEFAULT);
        }
    }
}
