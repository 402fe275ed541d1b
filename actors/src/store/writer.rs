//! The writer: takes what is queued, commits it in groups, answers everybody.
//!
//! One commit at a time costs a transaction each; under load the queue fills while a transaction
//! runs, and the next one takes much of it (group commit). A group is bounded by bytes too, and the
//! time that it may take grows with them. What fails is taken apart until the write at fault is found:
//! nobody's write fails for another's. Maintenance never shares a transaction with writes.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use vllm_responses_protocol::ids::{Owner, ResponseId};

use super::Shared;
use super::backend::{Engine, Probe};
use super::facts::Counters;
use super::failure::Failure;
use super::messages::StoreError;
use super::pending::{GROUP, Waiting, allowance, next_group};
use super::pulse::{Side, UnderWay};
use super::rows::{ApprovalRow, Prepared};
use crate::secret::Secret;

/// Writes that may wait. Beyond it the store says that it is busy.
pub(super) const QUEUE: usize = 4096;
/// Between attempts while the server is away. Short beside what a write may wait.
const PAUSE: Duration = Duration::from_millis(50);

/// Rows that are written one by one cost a round trip each, which takes about as long as so many bytes.
const ROW: usize = 32 << 10;
/// How much longer than a small write a piece of maintenance may take: it is more than one transaction.
const CARE: Duration = Duration::from_secs(5);

/// What the writer can be given.
#[derive(Debug)]
pub(super) enum Job {
    Write(Write),
    Care(Care),
}

/// One queued write.
#[derive(Debug)]
pub(super) struct Write {
    what: Arc<What>,
    /// Gets whether something changed, after the commit.
    reply: Reply,
    since: Instant,
}

impl Write {
    pub(super) fn new(what: What, reply: Reply) -> Self {
        Self {
            what: Arc::new(what),
            reply,
            since: Instant::now(),
        }
    }
}

impl Waiting for Write {
    fn bytes(&self) -> usize {
        self.what.bytes()
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn is_dead(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Where the answer to a write goes.
pub(super) type Reply = oneshot::Sender<Result<bool, StoreError>>;

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
}

impl What {
    /// The response to insert.
    pub(super) fn new_response(&self) -> Option<&Prepared> {
        match self {
            Self::Insert(new) => Some(new),
            Self::Delete { .. } | Self::BeginEpoch(_) | Self::OfferSealKey(_) | Self::Claim(_) => {
                None
            }
        }
    }

    /// Bytes that it writes, without the small change; a row of its own counts as [`ROW`].
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Insert(new) => new.bytes(),
            Self::Claim(rows) => rows.len().saturating_mul(ROW),
            Self::Delete { .. } | Self::BeginEpoch(_) | Self::OfferSealKey(_) => 0,
        }
    }

    /// Whether it waits for whoever has its row.
    pub(super) fn wants_a_row(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }
}

/// Maintenance. Each has a transaction of its own.
#[derive(Debug)]
pub(super) enum Care {
    Purge(Purge),
    /// Approvals that nobody can give again.
    Forget {
        claims: Vec<ApprovalRow>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Data that nothing uses: as much as one transaction may remove.
    DropUnused {
        /// Gets how much it looked at.
        reply: oneshot::Sender<Result<usize, StoreError>>,
    },
    /// Can it be written?
    Probe {
        /// After a fault something is written, to see whether it is over.
        how: Probe,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Nothing comes after this.
    Close(oneshot::Sender<()>),
}

impl Care {
    fn is_dead(&self) -> bool {
        match self {
            Self::Purge(purge) => purge.reply.is_closed(),
            Self::Forget { reply, .. } | Self::Probe { reply, .. } => reply.is_closed(),
            Self::DropUnused { reply } => reply.is_closed(),
            Self::Close(_) => false,
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
    /// Gets how many rows went, and the ids that are still to be tried; none when another gateway
    /// sweeps.
    pub(super) reply: oneshot::Sender<Result<Removed, StoreError>>,
}

/// How many rows went, and the ids that are still to be tried; `None` when another gateway sweeps.
pub(super) type Removed = Option<(usize, Vec<String>)>;

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

/// Runs until the queue's senders are gone, or it is closed.
pub(super) async fn run(mut engine: Engine, mut queue: mpsc::Receiver<Job>, shared: Rc<Shared>) {
    let mut pending: Vec<Write> = Vec::new();
    let mut jobs = Vec::with_capacity(GROUP);
    loop {
        if pending.is_empty() && queue.recv_many(&mut jobs, GROUP).await == 0 {
            return;
        }
        // What came meanwhile may go before what is large.
        while jobs.len() + pending.len() < 2 * GROUP
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let cares = sort_out(&mut jobs, &mut pending);
        settle(&mut engine, next_group(&mut pending), &shared).await;
        shared.under_way.set(None);
        for care in cares {
            if let Care::Close(closed) = care {
                return close(engine, pending, closed, &shared).await;
            }
            if !care.is_dead() {
                tend(&mut engine, care, &shared).await;
                shared.under_way.set(None);
            }
        }
    }
}

/// Puts writes to those that wait; gives the maintenance.
fn sort_out(jobs: &mut Vec<Job>, pending: &mut Vec<Write>) -> Vec<Care> {
    let mut cares = Vec::new();
    for job in jobs.drain(..) {
        match job {
            Job::Write(write) => pending.push(write),
            Job::Care(care) => cares.push(care),
        }
    }
    cares
}

/// Writes what waits, and ends.
async fn close(
    mut engine: Engine,
    mut pending: Vec<Write>,
    closed: oneshot::Sender<()>,
    shared: &Shared,
) {
    while !pending.is_empty() {
        settle(&mut engine, next_group(&mut pending), shared).await;
    }
    engine.close().await;
    // Who gave up meanwhile does not listen.
    let _unheard: Result<(), ()> = closed.send(());
}

/// Does one piece of maintenance.
async fn tend(engine: &mut Engine, care: Care, shared: &Shared) {
    let allowance = match &care {
        Care::Probe { .. } => Duration::ZERO,
        Care::Purge(_) | Care::Forget { .. } | Care::DropUnused { .. } | Care::Close(_) => CARE,
    };
    shared.under_way.set(Some(UnderWay::begin(allowance)));
    // Who gave up meanwhile does not listen.
    match care {
        Care::Purge(purge) => {
            let removed = engine.purge(purge.ids, purge.before_ms, purge.most).await;
            if let Ok(Some((rows, _))) = &removed {
                shared.counters.note_purge(*rows);
            }
            let _unheard: Result<(), _> = purge.reply.send(removed);
        }
        Care::Forget { claims, reply } => {
            let _unheard: Result<(), _> = reply.send(engine.forget(claims).await);
        }
        Care::DropUnused { reply } => {
            let _unheard: Result<(), _> = reply.send(engine.drop_unused().await);
        }
        Care::Probe { how, reply } => {
            let began = Instant::now();
            let outcome = engine.probe(how).await;
            shared.note(Side::Writes, began, &outcome);
            let _unheard: Result<(), _> = reply.send(outcome);
        }
        Care::Close(_) => {}
    }
}

/// Commits a group, and answers each of its writes.
async fn settle(engine: &mut Engine, group: Vec<Write>, shared: &Shared) {
    if group.is_empty() {
        return;
    }
    let began = Instant::now();
    let size = group.len();
    let bytes: usize = group.iter().map(Waiting::bytes).sum();
    shared
        .under_way
        .set(Some(UnderWay::begin(allowance(bytes))));
    let deadline = began + 2 * (engine.write_limit() + allowance(bytes));
    // New responses go first and by themselves: what else is written may wait for others' locks.
    let is_new = |write: &Write| write.what.new_response().is_some();
    let (new, others): (Vec<_>, Vec<_>) = group.into_iter().partition(is_new);
    let mut parts = vec![(others, Attempt::First), (new, Attempt::First)];
    while let Some((mut part, attempt)) = parts.pop() {
        // Nobody would hear of it: its asker has told the client that it is not stored.
        part.retain(|write| !write.is_dead());
        if part.is_empty() {
            continue;
        }
        let whats: Vec<Arc<What>> = part.iter().map(|one| Arc::clone(&one.what)).collect();
        match engine.commit(whats, attempt).await {
            Ok(changed) => {
                shared.note(Side::Writes, began, &Ok(true));
                answer(part, changed.into_iter().map(Ok), &shared.counters);
            }
            Err(failure) if failure.may_pass() && Instant::now() < deadline => {
                // Trying again is safe: an insert that is there already succeeds.
                shared.counters.note(|facts| facts.retries += 1);
                tokio::time::sleep(PAUSE).await;
                parts.push((part, Attempt::Again));
            }
            Err(failure) if failure.may_be_of_one() && part.len() > 1 => {
                let attempt = if failure.may_be_done() {
                    Attempt::Again
                } else {
                    attempt
                };
                let second = part.split_off(part.len() / 2);
                parts.push((second, attempt));
                parts.push((part, attempt));
            }
            Err(failure) => fail(part, failure, (began, shared)),
        }
    }
    shared.counters.note_group(size, began.elapsed());
}

/// Tells these that they failed.
fn fail(part: Vec<Write>, failure: Failure, (began, shared): (Instant, &Shared)) {
    let of_row = matches!(failure, Failure::Row(_));
    let error = failure.into_error();
    if !of_row {
        shared.note(Side::Writes, began, &Err::<bool, _>(error.clone()));
    }
    let answers = std::iter::repeat_n(Err(error), part.len());
    answer(part, answers, &shared.counters);
}

/// Answers these writes.
fn answer(
    part: Vec<Write>,
    answers: impl Iterator<Item = Result<bool, StoreError>>,
    counters: &Counters,
) {
    for (write, answer) in part.into_iter().zip(answers) {
        counters.note(|facts| match answer {
            Ok(_) => facts.committed += 1,
            Err(_) => facts.failed += 1,
        });
        let _unheard: Result<(), _> = write.reply.send(answer);
    }
}
