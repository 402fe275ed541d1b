//! What clap cannot know of a wrong command line: which word was meant.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags that people know from elsewhere, and what does it here.
const ELSEWHERE: [(&str, &str); 8] = [
    (
        "--port",
        "the gateway's port is `--gateway-port`; vLLM's own stands behind `--`",
    ),
    ("-p", "the gateway's port is `--gateway-port`"),
    (
        "--host",
        "the gateway's address is `--gateway-host`; vLLM's own stands behind `--`",
    ),
    (
        "--model",
        "a vLLM of the gateway's own is started with `serve -- MODEL`",
    ),
    (
        "--api-key",
        "keys of clients are in the file of `VR_API_KEYS_FILE`; the model server's is `VR_OPENAI_API_KEY`",
    ),
    (
        "--workers",
        "threads of the gateway are `--gateway-workers`",
    ),
    ("--base-url", "the model server's URL is `--upstream`"),
    ("--url", "the model server's URL is `--upstream`"),
];

/// Words that people try for `serve`.
const START: [&str; 6] = ["start", "run", "up", "server", "launch", "gateway"];

/// What is seen to with an editor.
const KEYS: &str =
    "keys are lines of the file of `VR_API_KEYS_FILE`: edit it, then `kill -HUP` the gateway";
/// Commands that people try, and what does it here.
const COMMANDS: [(&str, &str); 7] = [
    ("list", KEYS),
    ("ls", KEYS),
    ("rm", KEYS),
    ("remove", KEYS),
    ("revoke", KEYS),
    ("delete", KEYS),
    (
        "version",
        "the version is told by `vllm-responses --version`",
    ),
];

/// Commands that help does not show.
const HIDDEN: &str = "mcp-probe";

/// The same error, with better advice.
pub(super) fn add(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::Strings(shown)) = error.get(ContextKind::ValidSubcommand) {
        let shown = shown.iter().filter(|name| *name != HIDDEN).cloned();
        let shown = ContextValue::Strings(shown.collect());
        error.insert(ContextKind::ValidSubcommand, shown);
    }
    if error.kind() == ErrorKind::InvalidSubcommand {
        let word = text(&error, ContextKind::InvalidSubcommand);
        if START.contains(&word.as_str()) {
            let meant = ContextValue::Strings(vec!["serve".to_owned()]);
            error.insert(ContextKind::SuggestedSubcommand, meant);
        } else if let Some((_, tip)) = COMMANDS.iter().find(|(other, _)| *other == word) {
            error.remove(ContextKind::SuggestedSubcommand);
            let tips = ContextValue::StyledStrs(vec![(*tip).into()]);
            error.insert(ContextKind::Suggested, tips);
        }
    } else if error.kind() == ErrorKind::UnknownArgument {
        tell_argument(&mut error);
    }
    error
}

fn tell_argument(error: &mut clap::Error) {
    let word = text(error, ContextKind::InvalidArg);
    let flag = word.split('=').next().unwrap_or_default();
    let known = ELSEWHERE.iter().find(|(other, _)| *other == flag);
    let tip = match known {
        Some((_, tip)) => (*tip).to_owned(),
        None if is_short(flag) => {
            "flags have two dashes and whole names: `--upstream`, see `--help`".to_owned()
        }
        None if !word.starts_with('-') => {
            "to start vLLM with a model, put it behind `--`: `vllm-responses serve -- MODEL`"
                .to_owned()
        }
        None => return,
    };
    error.remove(ContextKind::SuggestedArg);
    error.remove(ContextKind::TrailingArg);
    let tips = ContextValue::StyledStrs(vec![tip.into()]);
    error.insert(ContextKind::Suggested, tips);
}

fn is_short(flag: &str) -> bool {
    flag.len() == 2 && flag.starts_with('-') && flag != "--"
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    if let Some(ContextValue::String(text)) = error.get(kind) {
        text.clone()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::args;
    use super::*;

    fn told(words: &[&str]) -> String {
        let words = ["vllm-responses"].iter().chain(words);
        let error = args::command().try_get_matches_from(words).unwrap_err();
        add(error).to_string()
    }

    #[test]
    fn what_was_meant_is_named() {
        for (words, tip, not) in [
            (
                &["serve", "--port", "8000"][..],
                "--gateway-port",
                "-- --port",
            ),
            (&["serve", "--port=8000"], "--gateway-port", "-- --port"),
            (&["serve", "Qwen/Qwen3-0.6B"], "serve -- MODEL", "zzz"),
            (&["start"], "'serve'", "'status'"),
            (&["serve", "--upstrem", "x"], "--upstream", "zzz"),
            (&["serve", "-upstream", "x"], "two dashes", "-- -u"),
            (&["keys", "list"], "kill -HUP", "zzz"),
            (&["version"], "--version", "zzz"),
        ] {
            let told = told(words);
            assert!(
                told.contains(tip) && !told.contains(not),
                "{words:?}: {told}"
            );
        }
        assert!(!told(&[]).contains(HIDDEN));
    }
}
