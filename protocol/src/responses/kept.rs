//! Items that are kept and echoed as they came: outputs of client tools with types of their own, and
//! what tools of other servers did earlier in a conversation.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::words::words;
use crate::ids::Prefix;

words! {
    /// The types of kept items.
    KeptKind {
        /// What a local shell command gave.
        LocalShellOutput = "local_shell_call_output",
        /// What shell command lines gave.
        ShellOutput = "shell_call_output",
        /// What became of a patch.
        ApplyPatchOutput = "apply_patch_call_output",
        /// A step at a computer.
        ComputerCall = "computer_call",
        /// The screen after it.
        ComputerOutput = "computer_call_output",
        /// A search of the web.
        WebSearchCall = "web_search_call",
        /// A search of files.
        FileSearchCall = "file_search_call",
        /// A picture that was made.
        ImageGenerationCall = "image_generation_call",
    }
}

/// What a kept item is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptRole {
    /// A call that an output answers.
    Call,
    /// The output of a call.
    Output,
    /// A call with its result.
    Whole,
}

impl KeptKind {
    /// What it is in a conversation.
    pub fn role(self) -> KeptRole {
        match self {
            Self::LocalShellOutput
            | Self::ShellOutput
            | Self::ApplyPatchOutput
            | Self::ComputerOutput => KeptRole::Output,
            Self::ComputerCall => KeptRole::Call,
            Self::WebSearchCall | Self::FileSearchCall | Self::ImageGenerationCall => {
                KeptRole::Whole
            }
        }
    }

    /// Prefix of its ids.
    pub fn prefix(self) -> Prefix {
        match self {
            Self::LocalShellOutput => Prefix::LocalShellCallOutput,
            Self::ShellOutput => Prefix::ShellCallOutput,
            Self::ApplyPatchOutput => Prefix::ApplyPatchCallOutput,
            Self::ComputerCall => Prefix::ComputerCall,
            Self::ComputerOutput => Prefix::ComputerCallOutput,
            Self::WebSearchCall => Prefix::WebSearchCall,
            Self::FileSearchCall => Prefix::FileSearchCall,
            Self::ImageGenerationCall => Prefix::ImageGenerationCall,
        }
    }
}

/// An item that is kept as it came.
#[derive(Clone, Debug)]
pub struct KeptItem {
    /// Its type.
    pub kind: KeptKind,
    /// Its id, among the members too unless it came without.
    pub id: Box<str>,
    /// Joins a call and its output; empty for others.
    pub call_id: Box<str>,
    /// All its members but `type` and `id`.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

impl KeptItem {
    /// The text of a member as JSON.
    pub fn member(&self, name: &str) -> Option<&RawValue> {
        let found = self.members.iter().find(|(known, _)| &**known == name);
        found.map(|(_, raw)| &**raw)
    }
}

impl Serialize for KeptItem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.members.len() + 2))?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("id", &self.id)?;
        for (name, raw) in &self.members {
            map.serialize_entry(name, raw)?;
        }
        map.end()
    }
}
