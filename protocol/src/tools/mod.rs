//! Gateway tools: what the model is shown of them, what a call of one asks for, what became of it.
//!
//! A call has one owner. The **client** runs functions; the **gateway** runs the tools of this
//! module, and the turn goes on with their results; tools of unknown types are echoed and not shown.
//! The machine sees a gateway tool through three types: [`Route`] says how a call by a name is
//! composed, [`GatewayCall`] what is to be run, [`ToolOutcome`] what it gave.

pub mod catalogue;
pub mod code_interpreter;
pub mod mcp;
pub(crate) mod shown;

use crate::mcp::outcome::Outcome;
pub use catalogue::{Catalogue, Route};
use code_interpreter::{CodeCall, CodeOutcome};
use mcp::McpToolCall;

/// A call that the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Index of its item in `output`, which names the call within its response.
    pub output_index: usize,
    /// What is to be run.
    pub call: GatewayCall,
}

/// What is to be run, one variant per gateway tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayCall {
    /// Python, in a sandbox.
    CodeInterpreter(CodeCall),
    /// A tool of an MCP server.
    Mcp(McpToolCall),
}

/// What became of a call, one variant per gateway tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolOutcome {
    /// Of the code interpreter.
    CodeInterpreter(CodeOutcome),
    /// Of an MCP tool.
    Mcp(Outcome),
}

impl ToolOutcome {
    /// Whether the tool, or the way to it, failed.
    pub fn has_failed(&self) -> bool {
        match self {
            Self::CodeInterpreter(outcome) => outcome.failure.is_some(),
            Self::Mcp(outcome) => matches!(outcome, Outcome::Failed { .. }),
        }
    }

    /// About how many bytes its texts have.
    pub fn size(&self) -> usize {
        match self {
            Self::CodeInterpreter(outcome) => {
                let images = outcome.images.iter().map(|image| image.len());
                outcome.logs.len() + images.sum::<usize>()
            }
            Self::Mcp(Outcome::Output { text, pictures }) => {
                text.len() + pictures.iter().map(|url| url.len()).sum::<usize>()
            }
            Self::Mcp(Outcome::Failed { .. }) => 0,
        }
    }
}

/// Whether a tool of this gateway can be used at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    /// Requests that name it are served.
    Offered,
    /// Switched off: the tool is echoed and not shown (decision 5).
    #[default]
    Off,
    /// It should be there and is not: requests that name it are refused with this sentence, which
    /// says how to get it.
    Missing(Box<str>),
}

/// The gateway's tools at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// `{"type":"code_interpreter"}`
    pub code_interpreter: Availability,
    /// What its Python has.
    pub python_packages: PythonPackages,
}

/// What the interpreter's Python has beside the standard library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PythonPackages {
    /// It is not known: a service of somebody else's.
    #[default]
    Unknown,
    /// Nothing.
    Core,
    /// numpy, pandas, matplotlib and their like.
    Science,
}

/// Bounds of the tool loop of one response (decision 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopLimits {
    /// Model calls with gateway tools; when spent, one last is made without them.
    pub rounds: u32,
    /// Milliseconds from the response's creation; when spent after a first round of tools, the
    /// response fails.
    pub wall_ms: i64,
}

impl Default for LoopLimits {
    fn default() -> Self {
        Self {
            rounds: 32,
            wall_ms: 600_000,
        }
    }
}
