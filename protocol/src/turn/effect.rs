//! What goes into the turn machine and what comes out of it: data only.

use std::sync::Arc;

use crate::chat::fault::UpstreamFault;
use crate::chat::tokenize::TokenCount;
use crate::chat::usage::ChatUsage;
use crate::error::{ApiError, ApiErrorCode};
use crate::mcp::mentions::Mention;
use crate::record::Record;
use crate::responses::item::Item;
use crate::responses::tool::McpServer;
use crate::tools::mcp::{ListError, Listed};
use crate::tools::{ToolCall, ToolOutcome};

/// One thing that happened to a turn.
#[derive(Debug)]
pub enum Input<'a> {
    /// The items of the earlier turns, oldest first; empty without `previous_response_id`.
    History(Vec<Item>),
    /// The outcome of [`Action::FindItems`]: those of the items that there are.
    Found(Vec<Item>),
    /// The turn cannot be run: the chain is unknown or unreadable, or the gateway is stopping.
    Refused(ApiError),
    /// The answer to one [`Action::ListTools`].
    ToolsListed {
        /// Index of the tool in the request.
        tool_index: usize,
        /// The tools, or why there are none.
        answer: Result<Listed, ListError>,
    },
    /// The answer to [`Action::ClaimApprovals`].
    Claimed(Claimed),
    /// The outcome of [`Action::CountTokens`]; `None` when the upstream does not tell.
    Counted(Option<TokenCount>),
    /// The upstream answered 200 and begins to stream.
    UpstreamOpened,
    /// Bytes of the upstream's stream, cut anywhere.
    UpstreamBytes(&'a [u8]),
    /// The upstream's stream ended in good order.
    UpstreamEnded,
    /// The upstream's whole answer, for a client that does not stream.
    UpstreamAnswer(&'a [u8]),
    /// The upstream call failed; retries, where allowed, are spent.
    UpstreamFailed(UpstreamFault),
    /// The client's status line was held long enough: answer 200 and go on waiting.
    HoldExpired,
    /// The turn is to end now.
    Cancelled(Cancel),
    /// The outcome of one [`Action::RunTool`].
    ToolEnded {
        /// Index of its item.
        output_index: usize,
        /// What became of it.
        outcome: ToolOutcome,
    },
    /// The outcome of [`Action::Persist`].
    Stored(Kept),
}

/// Why a turn is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The client left, or reads too slowly: nobody hears the rest.
    ClientLeft,
    /// The gateway stops.
    Shutdown,
    /// The wall-clock cap of the tool loop is reached.
    ToolTimeSpent,
    /// Memory is short, and this client is among the slowest (fault B4).
    Overloaded,
}

/// Whether this response may make the calls that its request approves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody else may.
    Yes,
    /// Another response has made one of them.
    No,
    /// The store does not tell.
    Unknown,
}

/// Whether the store acknowledged a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Committed: readable from now on.
    Yes,
    /// Not committed, or not known to be.
    No,
}

/// One thing the actor has to do, in the order given.
#[derive(Debug)]
pub enum Action {
    /// Look these items of the same owner up, each in the response that its id names
    /// ([`crate::ids::response_of`]), then report [`Input::Found`] with those that there are.
    FindItems(Vec<Box<str>>),
    /// Post this body to the upstream's `/chat/completions`.
    CallModel(Vec<u8>),
    /// A model call has ended and this is what it used, as the upstream told. Comes before whatever
    /// ends the turn or calls the model again.
    Used(ChatUsage),
    /// Post this body to vLLM's `/tokenize`, then report [`Input::Counted`].
    CountTokens(Vec<u8>),
    /// Remember that this model refused a word for the effort of thinking; it is asked again with the
    /// nearest of `low`, `medium` and `high`.
    EffortRefused,
    /// Log that the prompt was too long and goes again without so many of its oldest turns.
    LeftOut(usize),
    /// Log that the model server told of a fault inside its answer.
    Complained(Complained),
    /// Log that so many calls of an answer were left out: they have no name, or are too many.
    LostCalls(usize),
    /// Ask this MCP server for its tools, then report [`Input::ToolsListed`]. Several may be asked at
    /// once.
    ListTools {
        /// Index of the tool in the request.
        tool_index: usize,
        /// The server.
        server: Arc<McpServer>,
    },
    /// Log that tools of the client's MCP servers speak of other servers' tools.
    Suspect(Vec<Mention>),
    /// Take these approval requests for this response, all or none, then report [`Input::Claimed`].
    ClaimApprovals(Vec<Box<str>>),
    /// Run this gateway call, then report [`Input::ToolEnded`]. Several may run at once.
    RunTool(ToolCall),
    /// Answer 200 with an event stream; [`Effects::bytes`] holds its beginning.
    Begin,
    /// Answer 200 with [`Effects::bytes`] as the whole body.
    Answer,
    /// Answer with this error.
    Refuse(Refusal),
    /// Commit this record, then report [`Input::Stored`].
    Persist(Box<Record>),
    /// The turn is over; nothing more will come of it.
    End,
}

/// What a model server said of a fault inside its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complained {
    /// The HTTP status that it names.
    pub status: Option<u16>,
    /// What it means to the client.
    pub code: ApiErrorCode,
    /// As the client is told it. May quote the prompt.
    pub words: Box<str>,
}

/// An HTTP error answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Status and body.
    pub error: ApiError,
    /// `Retry-After`, as the upstream or the gateway wants it.
    pub retry_after: Option<Box<str>>,
}

/// Where a step leaves its results; owned by the caller and used again for every step.
#[derive(Debug, Default)]
pub struct Effects {
    /// Bytes for the client, in order after all earlier ones.
    pub bytes: Vec<u8>,
    /// What else to do.
    pub actions: Vec<Action>,
}
