//! What stands in Redis: heads, rows, settings. Pure; every byte that comes back is doubted.
//!
//! An entry is `vr1`, sixteen bytes of a SHA-256 over its key and its payload, and the payload. One
//! that is cut, changed, of another version, or found under another key is damage, and damage reads
//! like a missing entry. (The sum is no signature: who may write to Redis can also compute it.)

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use vllm_responses_protocol::ids::ResponseId;
use vllm_responses_protocol::record::{Chain, Link};

const MAGIC: &[u8] = b"vr1";
const SUM: usize = 16;
/// First byte of a lease: the right to fill a head that was missing.
const LEASE: u8 = b'L';
/// A head under which nothing may be filled: its response is being deleted.
pub(super) const BLOCKED: &[u8] = b"D";

/// Largest entry, in bytes. A response beyond it is read from the store, and so are its descendants.
pub(super) const MAX_ENTRY: usize = 1 << 20;
/// Largest chain that is kept in Redis, in bytes of its rows: more takes this thread, which is the
/// store's too, longer than the store takes to read it.
pub(super) const MAX_CHAIN: usize = 1 << 20;
/// Longest chain that is kept in Redis: each head names all ancestors.
pub(super) const MAX_ANCESTORS: usize = 1_000;

/// Says that a response is live, and what it continues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// As in the response's record.
    pub(super) expires_at_ms: Option<i64>,
    /// Oldest first.
    pub(super) ancestors: Vec<ResponseId>,
    /// Bytes of all rows of the chain, this response's own too.
    pub(super) chain_bytes: usize,
}

/// What was found under a head's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// Somebody is about to fill it, or its response is being deleted.
    Taken,
    /// A live response.
    Live(Head),
    /// Bytes that no version of ours wrote there.
    Damage,
}

impl Found {
    pub(super) fn read(key: &str, bytes: Option<&[u8]>) -> Self {
        match bytes {
            None => Self::Nothing,
            Some(bytes) if bytes == BLOCKED || bytes.first() == Some(&LEASE) => Self::Taken,
            Some(bytes) => open(key, bytes).map_or(Self::Damage, Self::Live),
        }
    }
}

/// A lease nobody else has.
pub(super) fn lease(bits: u128) -> Vec<u8> {
    let mut lease = vec![LEASE];
    lease.extend_from_slice(format!("{bits:032x}").as_bytes());
    lease
}

/// An entry as Redis keeps it; `None` when it is too large.
pub(super) fn seal(key: &str, payload: &impl Serialize) -> Option<Vec<u8>> {
    let mut entry = [MAGIC, &[0; SUM]].concat();
    serde_json::to_writer(&mut entry, payload).ok()?;
    if entry.len() > MAX_ENTRY {
        return None;
    }
    let (front, payload) = entry.split_at_mut(MAGIC.len() + SUM);
    front
        .get_mut(MAGIC.len()..)?
        .copy_from_slice(&sum(key, payload));
    Some(entry)
}

/// The payload of an entry; `None` for damage.
pub(super) fn open<T: DeserializeOwned>(key: &str, entry: &[u8]) -> Option<T> {
    let (found, payload) = entry.strip_prefix(MAGIC)?.split_at_checked(SUM)?;
    if found != sum(key, payload) {
        return None;
    }
    serde_json::from_slice(payload).ok()
}

fn sum(key: &str, payload: &[u8]) -> [u8; SUM] {
    let mut hash = Sha256::new();
    hash.update(key.as_bytes());
    hash.update([0]);
    hash.update(payload);
    let mut sum = [0; SUM];
    for (to, from) in sum.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    sum
}

/// A chain from its entries: the rows, oldest first and the asked-for response last. `None` when one
/// is missing, damaged or not the link it stands for.
pub(super) fn chain(head: &Head, rows: &[(String, Option<Vec<u8>>)]) -> Option<Chain> {
    let mut links = Vec::with_capacity(rows.len());
    for (key, entry) in rows {
        let link: Link = open(key, entry.as_deref()?)?;
        links.push(Arc::new(link));
    }
    Some(Chain {
        links,
        expires_at_ms: head.expires_at_ms,
        settings: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vllm_responses_protocol::record::Status;

    use super::*;

    fn link(text: &str) -> Link {
        Link {
            id: ResponseId::new("resp_1"),
            status: Status::Completed,
            input_items: text.into(),
            response: "{}".into(),
        }
    }

    fn head() -> Head {
        Head {
            expires_at_ms: Some(5),
            ancestors: vec![ResponseId::new("resp_0")],
            chain_bytes: 10,
        }
    }

    #[test]
    fn heads_leases_and_blocks_are_told_apart() {
        let sealed = seal("k", &head()).unwrap();
        assert_eq!(Found::read("k", Some(&sealed)), Found::Live(head()));
        assert_eq!(Found::read("k", None), Found::Nothing);
        assert_eq!(Found::read("k", Some(BLOCKED)), Found::Taken);
        assert_eq!(Found::read("k", Some(&lease(7))), Found::Taken);
        assert_ne!(lease(7), lease(8));
        for damage in [
            &b""[..],
            b"vr1",
            b"{}",
            b"\xff\xfe",
            b"vr0123456789abcdef{}",
        ] {
            assert_eq!(Found::read("k", Some(damage)), Found::Damage);
        }
    }

    #[test]
    fn an_entry_under_another_key_is_damage() {
        let sealed = seal("k:a", &link("x")).unwrap();
        assert_eq!(open::<Link>("k:b", &sealed), None);
        assert_eq!(open::<Link>("k:a", &sealed), Some(link("x")));
    }

    #[test]
    fn large_entries_are_not_kept() {
        assert!(seal("k", &link(&"x".repeat(MAX_ENTRY / 2))).is_some());
        assert!(seal("k", &link(&"x".repeat(MAX_ENTRY))).is_none());
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(text in ".{0,40}", at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut sealed = seal("k", &link(&text)).unwrap();
            prop_assert_eq!(open::<Link>("k", &sealed), Some(link(&text)));
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert_eq!(open::<Link>("k", &sealed), None);
        }

        #[test]
        fn any_cut_is_noticed(text in ".{0,40}", at in any::<prop::sample::Index>()) {
            let sealed = seal("k", &link(&text)).unwrap();
            prop_assert_eq!(open::<Link>("k", &sealed[..at.index(sealed.len())]), None);
        }
    }
}
