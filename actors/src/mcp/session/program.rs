//! The program at the other end of a session: how it ended is why the session did.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use vllm_responses_protocol::mcp::hidden::visible;

use super::{Endpoint, Failure, Reason};
use crate::process::{Child, ExitReport};

/// How long a program that has closed its output may take until its end is known.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Letters of its last line that are told.
const LONGEST_LINE: usize = 300;

/// A program that was started for a session.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name in `mcp.json`.
    label: Box<str>,
    /// The last part of its path.
    name: Box<str>,
    child: Child,
}

impl Program {
    pub(super) fn new(label: &str, endpoint: &Endpoint, child: &Child) -> Self {
        let name = match endpoint {
            Endpoint::Stdio { command, .. } => command.first().map(|program| name_of(program)),
            Endpoint::Http { .. } => None,
        };
        Self {
            label: label.into(),
            name: name.unwrap_or_default().into(),
            child: child.clone(),
        }
    }

    /// The failure as it is, or with how the program ended where its end is the cause.
    pub(super) async fn explain(&self, failure: Failure) -> Failure {
        if !failure.lost_session() {
            return failure;
        }
        match timeout(LAST_WORDS, self.child.wait()).await {
            Ok(Some(report)) => Failure {
                reason: Reason::Ended(self.end(&report).into()),
                ..failure
            },
            Ok(None) | Err(_) => failure,
        }
    }

    fn end(&self, report: &ExitReport) -> String {
        let Self { label, name, .. } = self;
        let last = report.last_lines.iter().rev();
        let last = last
            .map(|line| visible(line))
            .find(|line| !line.trim().is_empty());
        let last = match last {
            Some(line) => {
                let line: String = line.trim().chars().take(LONGEST_LINE).collect();
                format!("its last line: {line}")
            }
            None => "without a word on standard error".to_owned(),
        };
        format!(
            "its program `{name}` ended ({}; {last}): see `command`, `args` and `env` of \
             `mcpServers.{label}`, and run it by hand",
            report.kind
        )
    }
}

/// What a program is called in messages: not its whole path, which is long.
pub(super) fn name_of(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or_default();
    visible(&name.to_string_lossy()).chars().take(64).collect()
}
