//! The writer: takes what is queued, commits it as one transaction, answers everybody.
//!
//! One commit at a time costs a transaction each; under load the queue fills while a transaction
//! runs, and the next one takes all of it (group commit).

use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use vllm_responses_protocol::ids::{Owner, ResponseId};

use super::backend::Engine;
use super::facts::Counters;
use super::failure::Failure;
use super::messages::StoreError;
use super::rows::{ApprovalRow, Prepared};
use crate::secret::Secret;

/// Most writes in one transaction; beyond this a group gains nothing and makes others wait.
const GROUP: usize = 256;
/// Writes that may wait. Beyond it the store says that it is busy.
pub(super) const QUEUE: usize = 4096;
/// Between attempts while the server is away. Short beside what a write may wait.
const PAUSE: Duration = Duration::from_millis(50);

/// What the writer can be given.
#[derive(Debug)]
pub(super) enum Job {
    Write(Write),
    Purge(Purge),
}

/// One queued write.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) what: What,
    /// Gets whether something changed, after the commit.
    pub(super) reply: Reply,
}

/// Where the answer to a write goes.
type Reply = oneshot::Sender<Result<bool, StoreError>>;

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
    OfferSealKey(Secret),
    /// Approvals of one response, in their order: all or none.
    Claim(Vec<ApprovalRow>),
    /// Some of the approvals before this time that nobody can give again.
    ForgetClaims {
        before_ms: i64,
    },
}

impl What {
    /// The response to insert.
    pub(super) fn new_response(&self) -> Option<&Prepared> {
        match self {
            Self::Insert(new) => Some(new),
            Self::Delete { .. }
            | Self::BeginEpoch(_)
            | Self::OfferSealKey(_)
            | Self::Claim(_)
            | Self::ForgetClaims { .. } => None,
        }
    }
}

/// Responses to remove for good, in a transaction of their own.
#[derive(Debug)]
pub(super) struct Purge {
    pub(super) ids: Vec<String>,
    /// Only those that ended before this time, Unix milliseconds.
    pub(super) before_ms: i64,
    /// Most rows to try, ancestors included.
    pub(super) most: usize,
    /// Gets how many rows went, and the ids that are still to be tried.
    pub(super) reply: oneshot::Sender<Result<(usize, Vec<String>), StoreError>>,
}

/// What a purge removed.
#[derive(Debug, Default)]
pub(super) struct Purged {
    pub(super) rows: usize,
    /// Ids that are still to be tried.
    pub(super) left: Vec<String>,
    /// Settings (owner, hash) that those rows had.
    pub(super) settings: HashSet<(String, String)>,
}

/// Whether a write may have been committed before, by an attempt whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    Again,
}

/// Runs until the queue's senders are gone.
pub(super) async fn run(
    mut engine: Engine,
    mut queue: mpsc::Receiver<Job>,
    counters: Rc<Counters>,
) {
    let mut jobs = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut jobs, GROUP).await > 0 {
        let (mut whats, mut replies, mut purges) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs.drain(..) {
            match job {
                // A write whose asker gave up is dropped before it starts: nobody will hear of it.
                Job::Write(write) if write.reply.is_closed() => {}
                Job::Write(write) => {
                    whats.push(write.what);
                    replies.push(write.reply);
                }
                Job::Purge(purge) => purges.push(purge),
            }
        }
        if !whats.is_empty() {
            commit(&mut engine, &Arc::new(whats), replies, &counters).await;
        }
        for purge in purges {
            let removed = engine.purge(purge.ids, purge.before_ms, purge.most).await;
            if let Ok((rows, _)) = &removed {
                counters.note_purge(*rows);
            }
            // Who gave up meanwhile does not listen.
            let _unheard: Result<(), _> = purge.reply.send(removed);
        }
    }
}

/// Commits a group. When a single write is at fault the others must not suffer, so each is then
/// tried alone; when the database is, they all fail at once instead of waiting one after another.
async fn commit(
    engine: &mut Engine,
    whats: &Arc<Vec<What>>,
    replies: Vec<Reply>,
    counters: &Counters,
) {
    let began = Instant::now();
    let whole = 0..whats.len();
    let several = whole.len() > 1;
    let answers = match persist(engine, whats, whole, &replies, counters).await {
        Ok(changed) => changed.into_iter().map(Ok).collect(),
        Err(Failure::Row(_)) if several => {
            let mut answers = Vec::with_capacity(replies.len());
            for (at, reply) in replies.iter().enumerate() {
                let reply = std::slice::from_ref(reply);
                let one = persist(engine, whats, at..at + 1, reply, counters).await;
                answers.push(
                    one.map(|changed| changed.first().copied().unwrap_or_default())
                        .map_err(Failure::into_error),
                );
            }
            answers
        }
        Err(failure) => vec![Err(failure.into_error()); replies.len()],
    };
    counters.note_group(whats.len(), began.elapsed());
    for (reply, answer) in replies.into_iter().zip(answers) {
        counters.note(|facts| match answer {
            Ok(_) => facts.committed += 1,
            Err(_) => facts.failed += 1,
        });
        let _unheard: Result<(), _> = reply.send(answer);
    }
}

/// Tries these writes until the database has an opinion on them, or nobody waits any more. Trying
/// again is safe: an insert that is there already succeeds.
async fn persist(
    engine: &mut Engine,
    whats: &Arc<Vec<What>>,
    which: Range<usize>,
    replies: &[Reply],
    counters: &Counters,
) -> Result<Vec<bool>, Failure> {
    let mut attempt = Attempt::First;
    loop {
        match engine.commit(whats, which.clone(), attempt).await {
            Err(Failure::Passing(error)) if replies.iter().any(|reply| !reply.is_closed()) => {
                if attempt == Attempt::First {
                    log::warn!("a write is tried again: {error}");
                }
                attempt = Attempt::Again;
                counters.note(|facts| facts.retries += 1);
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}
