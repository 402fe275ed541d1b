//! What programs write into such files each in its own way: time limits, another name for the list of
//! servers; and names that are nearly right.

use std::time::Duration;

use crate::json::{Fields, Place, Problems};

/// Longest limit that can be set.
const MOST: f64 = 86_400.0;
/// Members of a server.
const KNOWN: [&str; 8] = [
    "command",
    "args",
    "env",
    "cwd",
    "url",
    "headers",
    "auth",
    "transport",
];

/// The time limits of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Start, handshake and tool list, each.
    pub startup: Option<Duration>,
    /// One call.
    pub call: Option<Duration>,
}

/// `timeout` is in milliseconds, as Claude Code and Gemini CLI have it, and bounds a call;
/// `startup_timeout_sec` and `tool_timeout_sec` are Codex's, in seconds.
pub(super) fn limits(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Limits {
    let mut of = |name: &str, unit: f64| {
        let range = 1.0..=MOST / unit;
        let number = fields.number(name, range, problems)?;
        Some(Duration::from_secs_f64(number * unit))
    };
    let call = of("timeout", 0.001);
    let seconds = of("tool_timeout_sec", 1.0);
    let startup = of("startup_timeout_ms", 0.001);
    Limits {
        startup: of("startup_timeout_sec", 1.0).or(startup),
        call: seconds.or(call),
    }
}

/// The name of the list of servers: `mcpServers`, or `servers` as VS Code has it.
pub(super) fn list_name(root: &Fields<'_, '_>) -> &'static str {
    if !root.given("mcpServers") && root.given("servers") {
        return "servers";
    }
    "mcpServers"
}

/// Names a member that is nearly one of those that are known; whether there is one.
pub(super) fn misspelt(
    fields: &Fields<'_, '_>,
    place: &Place<'_>,
    problems: &mut Problems,
) -> bool {
    let mut found = false;
    for name in fields.unknown() {
        let near = KNOWN.iter().find(|known| is_near(name, known));
        if let Some(known) = near.filter(|known| **known != name) {
            problems.invalid(&place.member(name), format!("spelt `{known}`"));
            found = true;
        }
    }
    found
}

/// Whether one letter is missing, too many, or another, or two are exchanged.
fn is_near(written: &str, known: &str) -> bool {
    let (a, b) = (written.as_bytes(), known.as_bytes());
    let same = a.iter().zip(b);
    let begin = same.take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    let behind =
        |text: &'_ [u8], count: usize| text.get(begin + count..).map(<[u8]>::to_ascii_lowercase);
    let exchanged =
        a.len() == b.len() && a.get(begin) == b.get(begin + 1) && a.get(begin + 1) == b.get(begin);
    [(0, 0), (1, 0), (0, 1), (1, 1)]
        .into_iter()
        .any(|(i, j)| behind(a, i).is_some() && behind(a, i) == behind(b, j))
        || (exchanged && behind(a, 2) == behind(b, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_known() {
        for (written, known) in [
            ("comand", "command"),
            ("commmand", "command"),
            ("Command", "command"),
            ("ulr", "url"),
            ("arg", "args"),
            ("header", "headers"),
        ] {
            assert!(is_near(written, known), "{written}");
        }
        assert!(!is_near("disabled", "headers") && !is_near("cmd", "command"));
    }
}
