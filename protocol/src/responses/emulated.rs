//! Calls with a type of their own that the client runs: shells and patches.
//!
//! The model is shown a function for each; what it writes as arguments becomes the typed action of
//! the item, and the other way round when the item comes back.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error as _};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::item::ItemStatus;
use super::said::Said;
use super::words::words;
use crate::ids::Prefix;

words! {
    /// The tools whose calls are emulated, by the tool's type.
    Emulated {
        /// One command with its arguments; the older form.
        LocalShell = "local_shell",
        /// Command lines.
        Shell = "shell",
        /// One file made, changed or removed.
        ApplyPatch = "apply_patch",
    }
}

impl Emulated {
    /// `type` of its calls.
    pub fn call_type(self) -> &'static str {
        match self {
            Self::LocalShell => "local_shell_call",
            Self::Shell => "shell_call",
            Self::ApplyPatch => "apply_patch_call",
        }
    }

    /// Prefix of its calls' ids.
    pub fn prefix(self) -> Prefix {
        match self {
            Self::LocalShell => Prefix::LocalShellCall,
            Self::Shell => Prefix::ShellCall,
            Self::ApplyPatch => Prefix::ApplyPatchCall,
        }
    }
}

/// A call of an emulated tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatedCall {
    /// By the kind: `lsh_...`, `sh_...`, `apc_...`
    pub id: Box<str>,
    /// Whole or cut.
    pub status: ItemStatus,
    /// Joins the call with its output.
    pub call_id: Box<str>,
    /// What is asked for.
    pub action: Action,
    /// For the model server alone.
    pub said: Option<Box<Said>>,
}

/// What a call of an emulated tool asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Of `local_shell`.
    LocalShell(ShellCommand),
    /// Of `shell`.
    Shell(ShellCommands),
    /// Of `apply_patch`.
    ApplyPatch(FileOperation),
}

/// One command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShellCommand {
    /// The program and its arguments.
    pub command: Vec<Box<str>>,
    /// Environment variables.
    #[serde(default, deserialize_with = "or_default")]
    pub env: BTreeMap<Box<str>, Box<str>>,
    /// Milliseconds.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole"
    )]
    pub timeout_ms: Option<u64>,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Box<str>>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<Box<str>>,
}

/// Command lines, each for a shell of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShellCommands {
    /// The lines.
    pub commands: Vec<Box<str>>,
    /// Milliseconds.
    #[serde(default, deserialize_with = "whole")]
    pub timeout_ms: Option<u64>,
    /// Most characters of output that are told.
    #[serde(default, deserialize_with = "whole")]
    pub max_output_length: Option<u64>,
}

/// What is to be done to one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FileOperation {
    /// A new file.
    CreateFile {
        /// Its path.
        path: Box<str>,
        /// Its lines, each after a `+`.
        diff: Box<str>,
    },
    /// Changes in a file.
    UpdateFile {
        /// Its path.
        path: Box<str>,
        /// The hunks.
        diff: Box<str>,
    },
    /// The file goes.
    DeleteFile {
        /// Its path.
        path: Box<str>,
    },
}

/// Null is as good as absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A number of milliseconds or characters: models write fractions too. Where one says nothing, nobody
/// is bound by it.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let raw: Option<&RawValue> = Option::deserialize(deserializer)?;
    let Some(text) = raw.map(RawValue::get) else {
        return Ok(None);
    };
    if let Ok(whole) = text.parse() {
        return Ok(Some(whole));
    }
    let number: f64 = text.parse().map_err(|_no| D::Error::custom("no number"))?;
    // The digits before the point, as they are written without an exponent.
    Ok(format!("{:.0}", number.max(0.0).floor()).parse().ok())
}

impl Action {
    /// Reads what the model wrote, or a client sent; `None` for anything else than the tool takes.
    pub fn parse(kind: Emulated, text: &str) -> Option<Self> {
        // A derived struct would also be read from an array.
        if !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        let action = match kind {
            Emulated::LocalShell => serde_json::from_str(text).map(Self::LocalShell),
            Emulated::Shell => serde_json::from_str(text).map(Self::Shell),
            Emulated::ApplyPatch => serde_json::from_str(text).map(Self::ApplyPatch),
        };
        action.ok()
    }

    /// Of which tool.
    pub fn kind(&self) -> Emulated {
        match self {
            Self::LocalShell(_) => Emulated::LocalShell,
            Self::Shell(_) => Emulated::Shell,
            Self::ApplyPatch(_) => Emulated::ApplyPatch,
        }
    }

    /// The arguments of the function, as they are replayed to the model.
    pub fn arguments(&self) -> String {
        let text = match self {
            Self::LocalShell(action) => serde_json::to_string(action),
            Self::Shell(action) => serde_json::to_string(action),
            Self::ApplyPatch(action) => serde_json::to_string(action),
        };
        // Strings and numbers under string keys: nothing here can fail to be written.
        text.unwrap_or_default()
    }
}

/// `action` of a local shell call as clients see it.
#[derive(Serialize)]
struct Exec<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    command: &'a ShellCommand,
}

/// `environment` of a shell call as clients see it.
#[derive(Serialize)]
struct LocalEnvironment {
    r#type: &'static str,
}

impl Serialize for EmulatedCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.action.kind().call_type())?;
        map.serialize_entry("id", &self.id)?;
        match (&self.action, self.status) {
            // Its type has no third word.
            (Action::ApplyPatch(_), ItemStatus::Incomplete) => {
                map.serialize_entry("status", &ItemStatus::InProgress)?;
            }
            (_, status) => map.serialize_entry("status", &status)?,
        }
        map.serialize_entry("call_id", &self.call_id)?;
        match &self.action {
            Action::LocalShell(command) => map.serialize_entry(
                "action",
                &Exec {
                    r#type: "exec",
                    command,
                },
            )?,
            Action::Shell(commands) => {
                map.serialize_entry("action", commands)?;
                map.serialize_entry("environment", &LocalEnvironment { r#type: "local" })?;
            }
            Action::ApplyPatch(operation) => map.serialize_entry("operation", operation)?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_written_as_the_model_wrote_them() {
        for (kind, text) in [
            (
                Emulated::LocalShell,
                r#"{"command":["ls","-l"],"env":{"A":"b"},"timeout_ms":5,"working_directory":"/"}"#,
            ),
            (
                Emulated::Shell,
                r#"{"commands":["ls"],"timeout_ms":null,"max_output_length":9}"#,
            ),
            (
                Emulated::ApplyPatch,
                r#"{"type":"update_file","path":"a","diff":"@@\n-a\n+b\n"}"#,
            ),
            (Emulated::ApplyPatch, r#"{"type":"delete_file","path":"a"}"#),
        ] {
            let action = Action::parse(kind, text).unwrap();
            assert_eq!(action.kind(), kind);
            assert_eq!(action.arguments(), text);
        }
    }

    #[test]
    fn nulls_and_fractions_are_taken() {
        let text = r#"{"command":["ls"],"env":null,"timeout_ms":1500.5,"user":null}"#;
        let action = Action::parse(Emulated::LocalShell, text).unwrap();
        assert_eq!(
            action.arguments(),
            r#"{"command":["ls"],"env":{},"timeout_ms":1500}"#
        );
        for (timeout, expected) in [("null", "null"), ("-1", "0"), ("2e3", "2000")] {
            let text = format!(r#"{{"commands":["ls"],"timeout_ms":{timeout}}}"#);
            let action = Action::parse(Emulated::Shell, &text).unwrap();
            let expected = format!(r#""timeout_ms":{expected},"#);
            assert!(action.arguments().contains(&expected), "{timeout}");
        }
    }

    #[test]
    fn what_the_tools_do_not_take_is_no_action() {
        for (kind, text) in [
            (Emulated::LocalShell, r#"{"command":"ls"}"#),
            (Emulated::LocalShell, r#"[["ls"]]"#),
            (Emulated::Shell, r#"{"commands":[1]}"#),
            (Emulated::Shell, "{}"),
            (Emulated::ApplyPatch, r#"{"type":"move","path":"a"}"#),
            (Emulated::ApplyPatch, r#"{"type":"create_file","path":"a"}"#),
        ] {
            assert_eq!(Action::parse(kind, text), None, "{text}");
        }
    }
}
