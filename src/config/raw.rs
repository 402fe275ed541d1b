//! Loose values with their origin, merged from the layers. Nothing is judged here but names.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use config::{ConfigError, Map, Source, Value, ValueKind};
use vllm_responses_actors::secret::Secret;

use super::dotenv::{self, Bad};
use super::files;
use super::notices;
use super::table::{CONFIG, Kind, Row, TABLE};

/// What the outside world says, gathered once by `main`.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Values of flags by TOML key.
    pub flags: BTreeMap<&'static str, String>,
    /// What stood behind `--`; `None` without `--`.
    pub spawn: Option<Vec<String>>,
    /// The process environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Directory whose `.env` is read.
    pub directory: PathBuf,
    /// What was read of a pipe that `--config` names, or why nothing: it can be read once.
    pub piped: Option<Result<String, String>>,
}

/// One value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawValue {
    /// The text, not yet judged.
    pub text: String,
    /// Where it stands, in the user's own terms: a flag, a variable, a key of a file, `default`.
    pub place: String,
}

/// Every key's effective text, and what was noticed on the way.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// By dotted key; every row of the table is present.
    pub values: BTreeMap<&'static str, RawValue>,
    /// What stood behind `--`.
    pub spawn: Option<Vec<String>>,
    /// `RUST_LOG`, when set.
    pub rust_log: Option<String>,
    /// Where programs of this user keep what they can get again: `XDG_CACHE_HOME`, or `~/.cache`.
    pub cache_home: Option<PathBuf>,
    /// `VR_API_KEY`, when set: what `status` shows to a gateway that has keys.
    pub client_key: Option<Secret>,
    /// Errors of names and files.
    pub problems: Vec<String>,
    /// Worth a line in the log, but no reason to stop.
    pub notices: Vec<String>,
}

/// Read by `status` only, so it is no key of the configuration.
pub(super) const CLIENT_KEY: &str = "VR_API_KEY";

/// Place of a value that nobody set.
pub const DEFAULT: &str = "default";

/// One layer: dotted key to text, each value carrying its place as origin.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer(Map<String, Value>);

impl Layer {
    fn put(&mut self, key: &str, text: &str, place: &str) {
        let value = Value::new(Some(&place.to_owned()), ValueKind::String(text.to_owned()));
        self.0.insert(key.to_owned(), value);
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.0
            .get(key)
            .and_then(|value| value.clone().into_string().ok())
    }
}

impl Layer {
    /// Where a value stands.
    pub(super) fn place(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.origin()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Reads all layers and merges them: flags, environment, `.env`, TOML file, defaults.
pub fn gather(inputs: &Inputs) -> Raw {
    let mut raw = Raw {
        spawn: inputs.spawn.clone(),
        cache_home: cache_home(&inputs.env),
        ..Raw::default()
    };
    let flags = flag_layer(inputs);
    let env = env_layer(&inputs.env, &mut raw);
    let dot = dotenv_layer(inputs, &mut raw);
    let file = [&flags, &env, &dot]
        .into_iter()
        .find_map(|layer| layer.text(CONFIG));
    let toml = file.map_or_else(Layer::default, |path| toml_layer(inputs, &path, &mut raw));
    notices::overruled_upstream(&flags, &[&env, &dot], &mut raw);
    notices::overruled_file(&toml, &[&env, &dot], &mut raw);
    notices::modes(inputs, &toml, &dot, &mut raw);
    let merged = config::Config::builder()
        .add_source(default_layer())
        .add_source(toml)
        .add_source(dot)
        .add_source(env)
        .add_source(flags)
        .build();
    match merged {
        Ok(merged) => {
            raw.values = TABLE
                .iter()
                .map(|row| (row.key, lookup(&merged, row)))
                .collect();
        }
        Err(_) => raw
            .problems
            .push("the configuration layers cannot be merged".to_owned()),
    }
    notices::keys_of_the_service(&mut raw);
    notices::refuse_the_word_for_secrets(&mut raw);
    raw
}

fn lookup(merged: &config::Config, row: &Row) -> RawValue {
    merged.get::<Value>(row.key).map_or_else(
        |_| RawValue {
            text: row.default.to_owned(),
            place: DEFAULT.to_owned(),
        },
        |_| from_tree(&merged.cache, row),
    )
}

/// Walks the merged tree by hand, because `Config::get` drops a value's origin.
fn from_tree(root: &Value, row: &Row) -> RawValue {
    let leaf = row.key.split('.').try_fold(root, |at, part| {
        if let ValueKind::Table(table) = &at.kind {
            table.get(part)
        } else {
            None
        }
    });
    let place = leaf.and_then(Value::origin).unwrap_or(DEFAULT).to_owned();
    let text = leaf.and_then(|value| value.clone().into_string().ok());
    RawValue {
        text: text.unwrap_or_else(|| row.default.to_owned()),
        place,
    }
}

fn default_layer() -> Layer {
    let mut layer = Layer::default();
    for row in TABLE {
        layer.put(row.key, row.default, DEFAULT);
    }
    layer
}

fn flag_layer(inputs: &Inputs) -> Layer {
    let mut layer = Layer::default();
    for (key, text) in &inputs.flags {
        let flag = Row::find(key).and_then(|row| row.flag).unwrap_or(key);
        layer.put(key, text, &format!("`{flag}`"));
    }
    layer
}

fn env_layer(env: &BTreeMap<OsString, OsString>, raw: &mut Raw) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in env {
        let Some(name) = name.to_str() else { continue };
        match value.to_str() {
            Some("") => {}
            Some(text) if name == "RUST_LOG" => raw.rust_log = Some(text.to_owned()),
            Some(text) => put_variable(&mut layer, name, text, "", raw),
            None if name.starts_with("VR_") => {
                raw.problems.push(format!(
                    "`{name}`: must be UTF-8 text; set it again or unset it"
                ));
            }
            None => {}
        }
    }
    layer
}

fn dotenv_layer(inputs: &Inputs, raw: &mut Raw) -> Layer {
    let mut layer = Layer::default();
    let path = inputs.directory.join(".env");
    let text = match files::read(&path) {
        Ok(text) => text,
        // One that is not there is none; a link that leads nowhere is neither.
        Err(_) if !path.is_symlink() && !path.exists() => return layer,
        Err(why) => {
            raw.problems.push(format!(
                "`.env`: cannot be read ({why}); repair or remove it"
            ));
            return layer;
        }
    };
    let (pairs, bad_lines) = dotenv::parse(&text);
    for Bad { line, is_ours } in bad_lines {
        if is_ours {
            raw.problems.push(format!(
                "`.env` line {line}: must be NAME=VALUE, the name of letters, digits and `_`; \
                 repair or remove it"
            ));
        } else {
            raw.notices.push(format!(
                "`.env` line {line} is ignored: it is not NAME=VALUE"
            ));
        }
    }
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        put_variable(&mut layer, name, value, " in .env", raw);
    }
    layer
}

fn put_variable(layer: &mut Layer, name: &str, text: &str, whence: &str, raw: &mut Raw) {
    if let Some(row) = TABLE.iter().find(|row| row.env == name) {
        layer.put(row.key, text, &format!("`{name}`{whence}"));
    } else if name == CLIENT_KEY {
        raw.client_key.get_or_insert_with(|| Secret::new(text));
        layer.put(CLIENT_KEY, "", whence);
    } else if let Some(row) = TABLE
        .iter()
        .find(|row| name != row.env && row.env.eq_ignore_ascii_case(name))
    {
        raw.problems.push(format!(
            "`{name}`{whence}: names are upper case; write `{}`",
            row.env
        ));
    } else if name.starts_with("VR_") {
        let hint = suggestion(name, TABLE.iter().map(|row| row.env));
        raw.notices.push(format!(
            "`{name}`{whence} is ignored: no such variable{hint}"
        ));
    }
}

fn toml_layer(inputs: &Inputs, path: &str, raw: &mut Raw) -> Layer {
    let mut layer = Layer::default();
    let file = || files::read(&inputs.directory.join(path));
    let text = match inputs.piped.clone().unwrap_or_else(file) {
        Ok(text) => text,
        Err(why) => {
            raw.problems.push(format!(
                "configuration file `{path}`: cannot be read ({why}); correct `--config` or `VR_CONFIG`"
            ));
            return layer;
        }
    };
    match text.parse::<toml::Table>() {
        Ok(table) => flatten("", &table, path, &mut layer, raw),
        // The parser's own message may quote the line, and with it a secret.
        Err(error) => {
            let end = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(end).filter(|byte| *byte == b'\n').count() + 1;
            raw.problems.push(format!(
                "configuration file `{path}` line {line}: not valid TOML; write `key = value`, text in quotes"
            ));
        }
    }
    layer
}

fn flatten(prefix: &str, table: &toml::Table, path: &str, layer: &mut Layer, raw: &mut Raw) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let place = format!("`{key}` in {path}");
        let section = format!("{key}.");
        let known = Row::find(&key).filter(|row| row.in_toml());
        match (known, value) {
            (Some(_), toml::Value::String(text)) if text.is_empty() => {}
            (Some(_), toml::Value::String(text)) => layer.put(&key, text, &place),
            (Some(_), toml::Value::Integer(number)) => layer.put(&key, &number.to_string(), &place),
            (Some(row), toml::Value::Float(number)) if row.kind == Kind::Fraction => {
                layer.put(&key, &number.to_string(), &place);
            }
            (Some(_), toml::Value::Boolean(on)) => layer.put(&key, &on.to_string(), &place),
            (Some(_), _) => {
                raw.problems.push(format!(
                    "{place}: must be text, a whole number or a boolean"
                ));
            }
            (None, toml::Value::Table(inner))
                if TABLE.iter().any(|row| row.key.starts_with(&section)) =>
            {
                flatten(&key, inner, path, layer, raw);
            }
            (None, inner) => {
                let known = TABLE.iter().filter(|row| row.in_toml()).map(|row| row.key);
                let hint = if inner.is_table() {
                    let sections = known.filter_map(|key| Some(key.split_once('.')?.0));
                    suggestion(&key, sections)
                } else {
                    suggestion(&key, known)
                };
                raw.problems
                    .push(format!("{place}: unknown key{hint}; correct or remove it"));
            }
        }
    }
}

/// A relative path is to be ignored, says the XDG specification.
fn cache_home(env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let folder = |name: &str| {
        let path = PathBuf::from(env.get(OsStr::new(name))?);
        path.is_absolute().then_some(path)
    };
    folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))
}

/// `; did you mean ...?` for the nearest name, or nothing when none is near.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|other| (distance(name, other), other)).min();
    match nearest {
        Some((far, other)) if far <= 2.max(name.len() / 4) => format!("; did you mean `{other}`?"),
        _ => String::new(),
    }
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for ((to, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            left = (left + 1)
                .min(above + 1)
                .min(diagonal + usize::from(from != *to));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_typo_gets_a_suggestion_and_noise_gets_none() {
        let keys = || TABLE.iter().map(|row| row.key);
        assert_eq!(
            suggestion("gateway.prot", keys()),
            "; did you mean `gateway.port`?"
        );
        assert_eq!(suggestion("zzzzzzzzzz", keys()), "");
    }
}
