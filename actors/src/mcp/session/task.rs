//! Results, and calls that a server answers later (tasks of 2026-07-28): they are asked for until they
//! have ended, within the time of a call.

use std::time::Duration;

use rmcp::model::{CancelTaskParams, ContentBlock, GetTaskParams, JsonObject, Task, TaskPayload};
use rmcp::{Peer, RoleClient, ServiceError};
use tokio::time::sleep;
use vllm_responses_protocol::mcp::hidden::readable;
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome, SERVER_ERROR, cap};

/// Least and longest time between two questions.
const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(5);
/// Longest words of a failed task.
const MAX_WORDS: usize = 4096;
/// When the server does not say.
const USUAL: Duration = Duration::from_secs(1);

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum Stop {
    /// A person would have to answer.
    WantsInput,
    /// A question failed.
    Failed(ServiceError),
}

/// The outcome that stands in a result: `inbound` wrote it, and lets no content of a server's through.
/// A result without any is none of a call.
pub(super) fn outcome(content: &[ContentBlock]) -> Option<Outcome> {
    match content {
        [ContentBlock::Text(text)] => serde_json::from_str(&text.text).ok(),
        [] | [_, ..] => None,
    }
}

/// Asks for a task until it has ended.
pub(super) async fn ended(peer: &Peer<RoleClient>, task: Task) -> Result<Option<Outcome>, Stop> {
    let id = task.task_id;
    let mut pause = task.poll_interval_ms;
    loop {
        let wait = pause.map_or(USUAL, Duration::from_millis);
        sleep(wait.clamp(LEAST, MOST)).await;
        let told = peer.get_task(GetTaskParams::new(id.clone())).await;
        let told = told.map_err(Stop::Failed)?.task;
        pause = told.task.poll_interval_ms.or(pause);
        match told.payload {
            TaskPayload::Working => {}
            TaskPayload::Completed { result } => return Ok(of_result(&result)),
            TaskPayload::Failed { error } => return Ok(Some(of_error(&error))),
            TaskPayload::Cancelled => {
                let error = CallError::protocol(SERVER_ERROR, "the server cancelled the task");
                return Ok(Some(Outcome::Failed { error }));
            }
            TaskPayload::InputRequired { .. } | _ => {
                // Nobody will answer: the server need not wait.
                drop(peer.cancel_task(CancelTaskParams::new(id)).await);
                return Err(Stop::WantsInput);
            }
        }
    }
}

fn of_result(result: &JsonObject) -> Option<Outcome> {
    let content = result.get("content")?;
    let content: Vec<ContentBlock> = serde_json::from_value(content.clone()).ok()?;
    outcome(&content)
}

fn of_error(error: &JsonObject) -> Outcome {
    let code = || error.get("code")?.as_i64();
    let words = || error.get("message")?.as_str();
    let words = words().unwrap_or("the task failed without saying why");
    // As the words of every other error are.
    let words = readable(words);
    Outcome::Failed {
        error: CallError::protocol(code().unwrap_or(SERVER_ERROR), cap(&words, MAX_WORDS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_failed_task_are_clean_and_short() {
        let words = format!("\u{1b}[31m\u{202e}{}", "x".repeat(9000));
        let mut error = JsonObject::new();
        error.insert("message".to_owned(), words.into());
        let Outcome::Failed { error } = of_error(&error) else {
            panic!("not failed");
        };
        let told = error.for_model();
        assert!(told.len() < 5000);
        assert!(!told.contains(['\u{1b}', '\u{202e}']));
    }
}
