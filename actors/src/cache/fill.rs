//! Writing chains to Redis, behind the answers that made them known.
//!
//! A few at a time, and never more of them waiting than [`WAITING_KIB`] of memory: a fill that finds
//! no room is left out, and a later look-up makes up for it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use vllm_responses_protocol::ids::ResponseId;
use vllm_responses_protocol::record::{Chain, Link};

use super::entry::{self, Head};
use super::keys::{Names, Subject};
use super::remote::Remote;
use crate::env::{Clock as _, SystemClock};

/// Chains being written at once.
const AT_ONCE: usize = 4;
/// Chains that may wait.
const WAITING: usize = 256;
/// Their memory.
const WAITING_KIB: usize = 64 * 1024;
/// What goes to Redis in one operation, in bytes: within the limit of one also on a slow network.
const BATCH: usize = 1 << 20;

/// The right to fill one head: what stands there now and must still stand there then.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) names: Names,
    pub(super) subject: Subject,
    pub(super) expected: Vec<u8>,
}

/// What is to be written.
#[derive(Debug)]
pub(super) enum Content {
    /// A whole chain, from the store.
    Chain(Chain),
    /// One response that was just committed, and the chain that it continues.
    Latest {
        link: Arc<Link>,
        expires_at_ms: Option<i64>,
        settings: Option<Arc<str>>,
        previous: Option<(ResponseId, Head)>,
    },
}

/// One chain on its way.
#[derive(Debug)]
pub(super) struct Fill {
    claim: Claim,
    content: Content,
    _memory: OwnedSemaphorePermit,
}

/// Where fills wait.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Fill>,
    memory: Arc<Semaphore>,
}

/// A queue and its other end, for [`run`].
pub(super) fn queue() -> (Queue, mpsc::Receiver<Fill>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let memory = Arc::new(Semaphore::new(WAITING_KIB));
    (Queue { sender, memory }, receiver)
}

impl Queue {
    /// Hands a fill over, if there is room for it.
    pub(super) fn put(&self, claim: Claim, content: Content) {
        let kib = u32::try_from(content.bytes() / 1024 + 1).unwrap_or(u32::MAX);
        if let Ok(memory) = Arc::clone(&self.memory).try_acquire_many_owned(kib) {
            let fill = Fill {
                claim,
                content,
                _memory: memory,
            };
            // Full: the next look-up of this chain fills it.
            let _left_out: Result<(), _> = self.sender.try_send(fill);
        }
    }
}

impl Content {
    fn bytes(&self) -> usize {
        let link = |link: &Arc<Link>| link.input_items.len() + link.response.len();
        match self {
            Self::Chain(chain) => chain.links.iter().map(link).sum(),
            Self::Latest { link: latest, .. } => link(latest),
        }
    }
}

/// Writes what is queued until the queue's other end is gone.
pub(super) async fn run(redis: Rc<Remote>, ttl: Duration, fills: mpsc::Receiver<Fill>) {
    let fills = futures_util::stream::unfold(fills, |mut fills| async {
        let fill = fills.recv().await?;
        Some((fill, fills))
    });
    fills
        .for_each_concurrent(AT_ONCE, |fill| write(&redis, ttl, fill))
        .await;
}

/// Writes one chain, its head last: a reader that sees the head sees the rows.
async fn write(redis: &Remote, ttl: Duration, fill: Fill) {
    let Fill {
        claim,
        content,
        _memory,
    } = fill;
    let expires_at_ms = match &content {
        Content::Chain(chain) => chain.expires_at_ms,
        Content::Latest { expires_at_ms, .. } => *expires_at_ms,
    };
    let Some(life) = life(ttl, expires_at_ms, SystemClock.now_ms()) else {
        return;
    };
    let Some(entries) = entries(&claim, content).await else {
        return;
    };
    let head = claim.names.head(&claim.subject);
    for batch in batches(entries) {
        let under = (head.as_str(), claim.expected.as_slice());
        let bytes = batch.iter().map(|(_, entry)| entry.len()).sum();
        let filled = redis.run_for(bytes, async |line| line.fill(under, life, &batch).await);
        if filled.await != Some(true) {
            return;
        }
    }
    redis.count(|facts| facts.fills += 1);
}

/// How long entries live: never longer than the response.
fn life(ttl: Duration, expires_at_ms: Option<i64>, now_ms: i64) -> Option<Duration> {
    let left = match expires_at_ms {
        None => ttl,
        Some(at) => ttl.min(Duration::from_millis(u64::try_from(at - now_ms).ok()?)),
    };
    (!left.is_zero()).then_some(left)
}

/// The entries, rows first; `None` when something is too large to keep.
async fn entries(claim: &Claim, content: Content) -> Option<Vec<(String, Vec<u8>)>> {
    let Claim { names, subject, .. } = claim;
    let (links, expires_at_ms, settings, mut head) = match content {
        Content::Chain(chain) => {
            let head = Head::default();
            (chain.links, chain.expires_at_ms, chain.settings, head)
        }
        Content::Latest {
            link,
            expires_at_ms,
            settings,
            previous,
        } => {
            let head = previous.map_or_else(Head::default, |(id, mut head)| {
                head.ancestors.push(id);
                head
            });
            (vec![link], expires_at_ms, settings, head)
        }
    };
    head.expires_at_ms = expires_at_ms;
    // Before the work of sealing, which is in vain for what is too large.
    let sizes = links
        .iter()
        .map(|link| link.input_items.len() + link.response.len());
    if head.chain_bytes + sizes.sum::<usize>() > entry::MAX_CHAIN {
        return None;
    }
    let mut entries = Vec::with_capacity(links.len() + 2);
    let last = links.len().checked_sub(1)?;
    for (position, link) in links.iter().enumerate() {
        let key = names.row(&subject.owner, &link.id);
        let row = entry::seal(&key, &**link)?;
        head.chain_bytes += row.len();
        entries.push((key, row));
        if position < last {
            head.ancestors.push(link.id.clone());
        }
        // A long chain is worked on in pieces: the store shares this thread.
        tokio::task::yield_now().await;
    }
    if let Some(settings) = settings {
        let key = names.settings(subject);
        let settings = entry::seal(&key, &settings)?;
        entries.push((key, settings));
    }
    if head.chain_bytes > entry::MAX_CHAIN || head.ancestors.len() > entry::MAX_ANCESTORS {
        return None;
    }
    let key = names.head(subject);
    let sealed = entry::seal(&key, &head)?;
    entries.push((key, sealed));
    Some(entries)
}

/// Cuts entries into batches, in order.
fn batches(entries: Vec<(String, Vec<u8>)>) -> Vec<Vec<(String, Vec<u8>)>> {
    let mut batches = vec![Vec::new()];
    let mut size = 0;
    for (key, entry) in entries {
        if size + entry.len() > BATCH && size > 0 {
            batches.push(Vec::new());
            size = 0;
        }
        size += entry.len();
        if let Some(batch) = batches.last_mut() {
            batch.push((key, entry));
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_live_no_longer_than_their_response() {
        let ttl = Duration::from_secs(60);
        assert_eq!(life(ttl, None, 5), Some(ttl));
        assert_eq!(life(ttl, Some(100_000), 5), Some(ttl));
        assert_eq!(life(ttl, Some(1_005), 5), Some(Duration::from_secs(1)));
        assert_eq!(life(ttl, Some(5), 5), None);
        assert_eq!(life(ttl, Some(4), 5), None);
    }

    #[test]
    fn batches_keep_the_order_and_the_size() {
        let entries: Vec<_> = (0..5)
            .map(|n| (n.to_string(), vec![0; BATCH / 2]))
            .collect();
        let batches = batches(entries);
        let shape: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(shape, [2, 2, 1]);
        let order: Vec<String> = batches.into_iter().flatten().map(|(key, _)| key).collect();
        assert_eq!(order, ["0", "1", "2", "3", "4"]);
    }
}
