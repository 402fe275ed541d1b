//! The writer: takes what is queued, commits it as one transaction, answers everybody.
//!
//! One commit at a time costs a transaction each; under load the queue fills while a transaction
//! runs, and the next one takes all of it (group commit).

use diesel::QueryResult;
use diesel::result::Error as DieselError;
use diesel::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use vllm_responses_protocol::ids::{Owner, ResponseId};

use super::messages::StoreError;
use super::queries;
use super::rows::Prepared;
use super::sqlite::{Wrapped, store_error};

/// Most writes in one transaction; beyond this a group gains nothing and makes others wait.
const GROUP: usize = 256;
/// Writes that may wait. Beyond it the store says that it is busy.
pub(super) const QUEUE: usize = 4096;

/// One queued write.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) what: What,
    /// Gets whether something changed, after the commit.
    pub(super) reply: oneshot::Sender<Result<bool, StoreError>>,
}

/// What to write.
#[derive(Debug)]
pub(super) enum What {
    Insert(Prepared),
    Delete {
        owner: Owner,
        id: ResponseId,
        now_ms: i64,
    },
    BeginEpoch(String),
}

/// Runs until the queue's senders are gone.
pub(super) async fn run(mut connection: Wrapped, mut queue: mpsc::Receiver<Write>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        // A write whose asker gave up is dropped before it starts: nobody will hear of it.
        group.retain(|write: &Write| !write.reply.is_closed());
        if group.is_empty() {
            continue;
        }
        let (whats, replies): (Vec<What>, Vec<_>) = group
            .drain(..)
            .map(|write| (write.what, write.reply))
            .unzip();
        let outcome = connection.spawn_blocking(move |connection| Ok(commit(connection, &whats)));
        let answers = match outcome.await {
            Ok(answers) => answers,
            Err(error) => vec![Err(store_error(&error)); replies.len()],
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Who gave up meanwhile does not listen.
            let _unheard: Result<(), _> = reply.send(answer);
        }
    }
}

/// Commits a group. When a single write is at fault the others must not suffer, so each is then
/// tried alone; when the database is, they all fail at once instead of waiting one after another.
fn commit(connection: &mut SqliteConnection, group: &[What]) -> Vec<Result<bool, StoreError>> {
    match transaction(connection, group) {
        Ok(changed) => changed.into_iter().map(Ok).collect(),
        Err(error) if group.len() > 1 && blames_one_row(&error) => group
            .iter()
            .map(|what| {
                transaction(connection, std::slice::from_ref(what))
                    .map(|changed| changed.first().copied().unwrap_or_default())
                    .map_err(|error| store_error(&error))
            })
            .collect(),
        Err(error) => vec![Err(store_error(&error)); group.len()],
    }
}

fn transaction(connection: &mut SqliteConnection, group: &[What]) -> QueryResult<Vec<bool>> {
    connection.immediate_transaction(|connection| {
        group.iter().map(|what| write(connection, what)).collect()
    })
}

fn write(connection: &mut SqliteConnection, what: &What) -> QueryResult<bool> {
    match what {
        What::Insert(new) => queries::insert(connection, new).map(|()| true),
        What::Delete { owner, id, now_ms } => queries::delete(connection, owner, id, *now_ms),
        What::BeginEpoch(word) => queries::begin_epoch(connection, word).map(|()| true),
    }
}

fn blames_one_row(error: &DieselError) -> bool {
    use diesel::result::DatabaseErrorKind as Kind;
    matches!(
        error,
        DieselError::DatabaseError(
            Kind::UniqueViolation | Kind::CheckViolation | Kind::NotNullViolation,
            _
        ) | DieselError::SerializationError(_)
    )
}
