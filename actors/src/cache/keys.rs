//! Names of Redis keys. Pure.
//!
//! `vllm-responses:FORMAT:EPOCH:RUN:WHAT:OWNER:ID`. The format changes with the shape of entries, the
//! epoch with every deletion that could not reach Redis, the run with every start of the Redis
//! server: none of them can read what another wrote. Owner and id are escaped, so that no choice of
//! names makes two keys meet.

use std::fmt::Write as _;

use vllm_responses_protocol::ids::{MAX_ID_LEN, Owner, ResponseId};
use vllm_responses_protocol::record::SCHEMA_VERSION;

/// Version of the entries' own shape; see `entry`.
const FORMAT: i32 = 1;

/// Whose response, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) owner: Owner,
    pub(super) id: ResponseId,
}

impl Subject {
    /// Whether such a response can be in the cache at all: no id of ours is this long.
    pub(super) fn fits(&self) -> bool {
        self.id.as_str().len() <= MAX_ID_LEN
    }
}

/// The keys of one epoch on one run of the Redis server.
#[derive(Clone, Debug)]
pub(super) struct Names(String);

impl Names {
    pub(super) fn new(epoch: &str, run: &str) -> Self {
        Self(format!(
            "vllm-responses:{FORMAT}.{SCHEMA_VERSION}:{epoch}:{run}"
        ))
    }

    /// Says that the response is live, and names its ancestors.
    pub(super) fn head(&self, of: &Subject) -> String {
        self.name("head", &of.owner, &of.id)
    }

    /// What the response's own turn added.
    pub(super) fn row(&self, owner: &Owner, id: &ResponseId) -> String {
        self.name("row", owner, id)
    }

    /// The response's settings.
    pub(super) fn settings(&self, of: &Subject) -> String {
        self.name("settings", &of.owner, &of.id)
    }

    fn name(&self, what: &str, owner: &Owner, id: &ResponseId) -> String {
        let mut name = format!("{}:{what}:", self.0);
        escape(owner.as_str(), &mut name);
        name.push(':');
        escape(id.as_str(), &mut name);
        name
    }
}

fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _infallible: std::fmt::Result = write!(out, "%{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject(owner: &str, id: &str) -> Subject {
        Subject {
            owner: Owner::new(owner),
            id: ResponseId::new(id),
        }
    }

    #[test]
    fn a_key_is_readable() {
        let names = Names::new("e", "r");
        assert_eq!(
            names.head(&subject("team-a", "resp_1")),
            format!("vllm-responses:1.{SCHEMA_VERSION}:e:r:head:team-a:resp_1")
        );
        assert!(names.head(&subject("", "x y")).ends_with(":head::x%20y"));
    }

    #[test]
    fn ids_that_cannot_be_ours_stay_out() {
        assert!(subject("", "resp_1").fits());
        assert!(!subject("", &"x".repeat(MAX_ID_LEN + 1)).fits());
    }

    proptest! {
        #[test]
        fn no_two_subjects_share_a_key(a in "[:a%é]{0,4}", b in "[:a%é]{0,4}", c in "[:a%é]{0,4}", d in "[:a%é]{0,4}") {
            let names = Names::new("e", "r");
            let (one, other) = (subject(&a, &b), subject(&c, &d));
            prop_assert_eq!(names.head(&one) == names.head(&other), one == other);
            prop_assert_ne!(names.head(&one), names.row(&one.owner, &one.id));
        }
    }
}
