//! What was noticed of a configuration on the way: values that are not used, files that are open.

use std::ffi::OsStr;

use url::Url;

use super::files::{self, Guarded};
use super::raw::{CLIENT_KEY, DEFAULT, Inputs, Layer, Raw};
use super::table::{CONFIG, Row, TABLE};

/// A file made of what an older `check-config` printed would name a database called `[redacted]`.
pub(super) fn refuse_the_word_for_secrets(raw: &mut Raw) {
    let printed = raw.values.values();
    let printed = printed.filter(|value| value.text.contains("[redacted]"));
    let problems: Vec<_> = printed
        .map(|value| {
            let place = &value.place;
            format!("{place}: `[redacted]` stands for a secret that was not printed; write the value itself")
        })
        .collect();
    raw.problems.extend(problems);
}

/// The environment beats the file. Whoever edits the file should hear of it.
pub(super) fn overruled_file(toml: &Layer, above: &[&Layer], raw: &mut Raw) {
    for row in TABLE {
        let Some(text) = toml.text(row.key) else {
            continue;
        };
        let upper = above.iter().find(|layer| layer.text(row.key).is_some());
        if let Some(upper) = upper
            && upper.text(row.key).is_some_and(|upper| upper != text)
        {
            raw.notices.push(format!(
                "`{}` of the configuration file is not used: {} is set and beats it",
                row.key,
                upper.place(row.key).unwrap_or("the environment")
            ));
        }
    }
}

/// Files with secrets, or with rules, that others can read or change.
pub(super) fn modes(inputs: &Inputs, toml: &Layer, dot: &Layer, raw: &mut Raw) {
    let has_secret = |layer: &Layer| {
        let mut secrets = TABLE.iter().filter(|row| row.secret);
        secrets.any(|row| {
            layer
                .text(row.key)
                .is_some_and(|text| holds_secret(row, &text))
        })
    };
    let has_key = dot.text(CLIENT_KEY).is_some();
    let of = |secret: bool| {
        if secret {
            Guarded::Secret
        } else {
            Guarded::Rules
        }
    };
    let mut look = |name: &str, path: &str, guarded| {
        let path = inputs.directory.join(path);
        raw.notices.extend(files::notice_mode(name, &path, guarded));
    };
    look("`.env`", ".env", of(has_secret(dot) || has_key));
    let layer_text = |key: &str| {
        let merged = raw_text(inputs, key, [dot, toml]);
        merged.filter(|path| !path.is_empty())
    };
    if let Some(path) = layer_text(CONFIG) {
        look("the configuration file", &path, of(has_secret(toml)));
    }
    if let Some(path) = layer_text("auth.api_keys_file") {
        // Hashes of random keys tell nobody the keys.
        look("the file of API keys", &path, Guarded::Rules);
    }
    if let Some(path) = layer_text("mcp.file") {
        look("the file of MCP servers", &path, Guarded::Secret);
    }
}

/// A value before the layers are merged: flag, environment, then these.
fn raw_text<'a>(
    inputs: &Inputs,
    key: &str,
    layers: impl IntoIterator<Item = &'a Layer>,
) -> Option<String> {
    let flag = inputs.flags.get(key).cloned();
    let variable = || {
        let name = OsStr::new(Row::find(key)?.env);
        inputs.env.get(name)?.to_str().map(str::to_owned)
    };
    let below = || layers.into_iter().find_map(|layer| layer.text(key));
    flag.or_else(variable)
        .filter(|text| !text.is_empty())
        .or_else(below)
}

/// Whether this text of a key that may hold a secret does: a path does not.
pub(crate) fn holds_secret(row: &Row, text: &str) -> bool {
    match row.key {
        "store.database" | "cache.redis_url" => shown_url(text).as_deref() != Some(text),
        _ => row.secret && !text.is_empty(),
    }
}

/// A path as it is, a URL without what it holds of passwords; `None` for what is neither.
pub(crate) fn shown_url(text: &str) -> Option<String> {
    if !text.contains("://") || text.starts_with("sqlite") {
        return Some(text.to_owned());
    }
    let mut url = Url::parse(text).ok()?;
    if url.password().is_none() && url.query().is_none() {
        return Some(text.to_owned());
    }
    if url.password().is_some() {
        url.set_password(None).ok()?;
    }
    let kept: Vec<_> = url
        .query_pairs()
        .filter(|(name, _)| !name.contains("pass"))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    if kept.is_empty() {
        url.set_query(None);
    } else if kept.len() < url.query_pairs().count() {
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    Some(url.into())
}

/// Two places that name different upstreams.
pub(super) fn overruled_upstream(flags: &Layer, lower: &[&Layer], raw: &mut Raw) {
    let below = lower.iter().find_map(|layer| layer.text("upstream.url"));
    let Some(below) = below else { return };
    if raw.spawn.is_some() {
        raw.notices.push(
            "`VR_LLM_API_BASE` is ignored: vLLM is started from the arguments behind `--`"
                .to_owned(),
        );
    } else if flags.text("upstream.url").is_some_and(|flag| flag != below) {
        raw.notices
            .push("`VR_LLM_API_BASE` is ignored: `--upstream` differs from it".to_owned());
    }
}

/// Keys of the processes that the service of `external` runs, and it alone.
const OF_THE_SERVICE: [&str; 9] = [
    "bundle",
    "host",
    "kept_sessions",
    "max_workers",
    "process_memory",
    "python_memory",
    "session_idle",
    "v8_heap",
    "workers",
];

/// One environment may serve both programs, so such a key is no error.
pub(super) fn keys_of_the_service(raw: &mut Raw) {
    let value = |name: &str| raw.values.get(format!("code_interpreter.{name}").as_str());
    if value("mode").is_none_or(|mode| mode.text != "external") {
        return;
    }
    let set = OF_THE_SERVICE.iter().filter_map(|name| value(name));
    let set = set.filter(|value| value.place != DEFAULT);
    let notices: Vec<_> = set
        .map(|value| {
            format!(
                "{} has no effect with `--code-interpreter external`: set it where \
                 `vllm-responses code-interpreter` runs",
                value.place
            )
        })
        .collect();
    raw.notices.extend(notices);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_passwords() {
        for (text, shown) in [
            ("a.db", "a.db"),
            ("sqlite:////var/a.db", "sqlite:////var/a.db"),
            (
                "postgresql://u@h/d?sslmode=require",
                "postgresql://u@h/d?sslmode=require",
            ),
            (
                "postgresql://u:S@h:1/d?sslmode=require",
                "postgresql://u@h:1/d?sslmode=require",
            ),
            ("postgresql://u@h/d?password=S", "postgresql://u@h/d"),
            ("redis://:S@h:1/0", "redis://h:1/0"),
        ] {
            assert_eq!(shown_url(text).as_deref(), Some(shown));
        }
        assert_eq!(shown_url("postgresql://u:S@h:x/d"), None);
    }
}
