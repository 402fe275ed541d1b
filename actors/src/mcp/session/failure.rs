//! Why something with a server failed: which server, in which phase, by which limit.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ServiceError;
use rmcp::service::ClientInitializeError;
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use vllm_responses_protocol::mcp::hidden::visible;
use vllm_responses_protocol::mcp::outcome::{CallError, INVALID_PARAMS, SERVER_ERROR, cap};

use crate::mcp::net::{Progress, Trouble};

/// Longest text of a server that goes into an error.
const MAX_WORDS: usize = 4096;

/// Where in the life of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Name, TCP, TLS; the start of a process.
    Connect,
    /// The handshake.
    Initialize,
    /// The tool list.
    List,
    /// A call.
    Call,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Initialize => "initialize",
            Self::List => "tools/list",
            Self::Call => "tools/call",
        })
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its deadline.
    TimedOut(Duration),
    /// Bytes did not get through.
    Trouble(Trouble),
    /// A process could not be started.
    Start(Box<str>),
    /// The server answered with a JSON-RPC error.
    Rpc {
        /// Its code.
        code: i64,
        /// Its words, visible characters only and cut.
        message: Box<str>,
    },
    /// The program ended, with how and its last line.
    Ended(Box<str>),
    /// The session ended.
    Closed,
    /// The server wants a person's input, which is refused.
    WantsInput,
    /// The arguments are no JSON object.
    BadArguments,
    /// Something that the protocol does not allow.
    Protocol,
}

impl From<Trouble> for Reason {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "no answer within {limit:?}"),
            Self::Trouble(trouble) => write!(f, "{trouble}"),
            Self::Start(reason) | Self::Ended(reason) => f.write_str(reason),
            Self::Rpc { code, message } if (100..600).contains(code) => {
                write!(f, "HTTP status {code}: {message}")
            }
            Self::Rpc { code, message } => write!(f, "JSON-RPC error {code}: {message}"),
            Self::Closed => f.write_str("the session has ended"),
            Self::WantsInput => f.write_str("it wants input from a person, which is not served"),
            Self::BadArguments => f.write_str("the arguments must be a JSON object"),
            Self::Protocol => f.write_str("it broke the protocol"),
        }
    }
}

/// A failure, told as one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MCP server `{label}` failed at {phase}: {reason}")]
pub struct Failure {
    /// Which server.
    pub label: Arc<str>,
    /// When.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
}

impl Failure {
    pub(crate) fn new(label: &str, phase: Phase, reason: Reason) -> Self {
        Self {
            label: label.into(),
            phase,
            reason,
        }
    }

    /// Whether the session may be of no more use: somebody should look.
    pub fn may_end_session(&self) -> bool {
        self.lost_session() || matches!(self.reason, Reason::TimedOut(_))
    }

    /// Whether the connection is gone, so that no answer will come.
    pub fn lost_session(&self) -> bool {
        match &self.reason {
            Reason::Trouble(trouble) => !matches!(trouble, Trouble::NoRoom),
            Reason::Closed | Reason::Ended(_) => true,
            Reason::TimedOut(_)
            | Reason::Start(_)
            | Reason::Rpc { .. }
            | Reason::WantsInput
            | Reason::BadArguments
            | Reason::Protocol => false,
        }
    }

    /// Whether the guard said no while the connection was made.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.reason,
            Reason::Trouble(Trouble::Refused | Trouble::NoName)
        )
    }

    /// Whether the server was not reached: no connection, or none that speaks TLS or HTTP.
    pub fn is_unreached(&self) -> bool {
        match &self.reason {
            Reason::TimedOut(_) => self.phase == Phase::Connect,
            Reason::Ended(_) => self.phase != Phase::Call,
            Reason::Trouble(trouble) => match trouble {
                Trouble::ConnectTimedOut | Trouble::Unreachable(_) | Trouble::Tls => true,
                Trouble::Broken => self.phase != Phase::Call,
                Trouble::Refused
                | Trouble::NoName
                | Trouble::Status(_)
                | Trouble::TooLarge
                | Trouble::NoRoom
                | Trouble::SessionLost
                | Trouble::NotMcp => false,
            },
            Reason::Start(_)
            | Reason::Rpc { .. }
            | Reason::Closed
            | Reason::WantsInput
            | Reason::BadArguments
            | Reason::Protocol => false,
        }
    }

    /// As the `error` of an item.
    pub fn to_call_error(&self) -> CallError {
        match &self.reason {
            Reason::Trouble(Trouble::Status(status)) => CallError::Http {
                code: *status,
                message: self.to_string().into(),
            },
            Reason::Rpc { code, .. } => CallError::protocol(*code, self.to_string()),
            Reason::BadArguments => CallError::protocol(INVALID_PARAMS, self.to_string()),
            Reason::TimedOut(_)
            | Reason::Trouble(_)
            | Reason::Start(_)
            | Reason::Ended(_)
            | Reason::Closed
            | Reason::WantsInput
            | Reason::Protocol => CallError::protocol(SERVER_ERROR, self.to_string()),
        }
    }
}

/// What the SDK's error means. Its own words may quote the server and are not used.
pub(super) fn reason(error: &ServiceError, progress: &Progress) -> Reason {
    let known = progress.last_trouble().map(Reason::Trouble);
    match error {
        ServiceError::McpError(error) => rpc(error),
        ServiceError::TransportClosed => known.unwrap_or(Reason::Closed),
        // Calls run side by side: what is inside this error is this call's own trouble.
        ServiceError::TransportSend(error) => match trouble_in(error) {
            Some(own) => Reason::Trouble(own),
            None => known.unwrap_or(Reason::Trouble(Trouble::Broken)),
        },
        ServiceError::UnexpectedResponse | _ => Reason::Protocol,
    }
}

/// As [`reason`], for the handshake.
pub(super) fn initialize_reason(error: &ClientInitializeError, progress: &Progress) -> Reason {
    let known = progress.last_trouble().map(Reason::Trouble);
    match error {
        ClientInitializeError::JsonRpcError(error) => rpc(error),
        ClientInitializeError::TransportError { .. } => {
            known.unwrap_or(Reason::Trouble(Trouble::Broken))
        }
        ClientInitializeError::ConnectionClosed(_) => known.unwrap_or(Reason::Closed),
        ClientInitializeError::ExpectedInitResponse(_) | _ => Reason::Protocol,
    }
}

/// What our own HTTP client said, inside of what the SDK made of it.
fn trouble_in(error: &DynamicTransportError) -> Option<Trouble> {
    let mut at: Option<&(dyn Error + 'static)> = Some(&*error.error);
    while let Some(error) = at {
        if let Some(trouble) = error.downcast_ref::<Trouble>() {
            return Some(*trouble);
        }
        match error.downcast_ref::<StreamableHttpError<Trouble>>() {
            Some(StreamableHttpError::Client(trouble)) => return Some(*trouble),
            Some(
                StreamableHttpError::SessionExpired
                | StreamableHttpError::SessionRecoveryTimeout
                | StreamableHttpError::ReinitializationFailed(_),
            ) => return Some(Trouble::SessionLost),
            _ => {}
        }
        at = error.source();
    }
    None
}

fn rpc(error: &rmcp::ErrorData) -> Reason {
    Reason::Rpc {
        code: i64::from(error.code.0),
        message: cap(&visible(&error.message), MAX_WORDS),
    }
}
