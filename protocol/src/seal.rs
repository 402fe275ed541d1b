//! Sealed reasoning: what a client keeps for us when we keep nothing (decision 24).
//!
//! An envelope is the raw reasoning, encrypted and authenticated, bound to its owner and model. Each
//! has a key of its own, derived from a lasting key and 128 fresh bits, so that no nonce is ever used
//! twice however many are made. Several lasting keys may be known: the first seals, all open, so that
//! keys can be rotated.
//!
//! ```text
//! base64url( version 1 | key id 8 | unix seconds 8 | fresh bits 16 | ciphertext | tag 16 )
//! ```
//!
//! The model is the first thing in the ciphertext (`length 2 | model | text`), so that who opens an
//! envelope of another model can be told so. Envelopes of version 1, which have the model in what is
//! authenticated beside the text, are opened still.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use crate::ids::{IdSource, Owner};

/// The version that is written.
const VERSION: u8 = 2;
/// The version that has nothing but the text in its ciphertext.
const TEXT_ONLY: u8 = 1;
const KEY_ID: usize = 8;
const HEAD: usize = 1 + KEY_ID + 8 + 16;

/// A lasting key.
#[derive(Clone)]
struct SealKey {
    id: [u8; KEY_ID],
    secret: [u8; 32],
}

/// The lasting keys, and how long their envelopes hold.
#[derive(Clone)]
pub struct SealKeys {
    /// The first seals; never empty.
    keys: Vec<SealKey>,
    max_age_ms: Option<i64>,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeys({} keys)", self.keys.len())
    }
}

/// Why an envelope does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// It is the owner's, and another model thought it.
    OtherModel,
    /// It was changed, is another's, has expired, or its key is not known. Which of these it was is
    /// nobody's business.
    Foreign,
}

/// What an envelope is bound to: one that is opened for another owner or model does not open.
#[derive(Clone, Copy, Debug)]
pub struct Bond<'a> {
    /// Whose it is.
    pub owner: &'a Owner,
    /// The model that thought it; no model has the empty name.
    pub model: &'a str,
}

impl SealKeys {
    /// Keys of 32 random bytes each: `first` seals, it and the others open. With `max_age_ms`, older
    /// envelopes do not open.
    pub fn new(first: [u8; 32], others: &[[u8; 32]], max_age_ms: Option<i64>) -> Self {
        let keys = std::iter::once(&first).chain(others);
        Self {
            keys: keys.map(|secret| SealKey::new(*secret)).collect(),
            max_age_ms,
        }
    }

    /// Seals a text; `ids` gives the fresh bits.
    pub fn seal(
        &self,
        text: &str,
        bond: Bond<'_>,
        now_ms: i64,
        ids: &mut dyn IdSource,
    ) -> Option<String> {
        let key = self.keys.first()?;
        let mut envelope = Vec::with_capacity(HEAD + text.len() + AES_256_GCM.tag_len());
        envelope.push(VERSION);
        envelope.extend_from_slice(&key.id);
        envelope.extend_from_slice(&now_ms.div_euclid(1000).to_be_bytes());
        let bits = ids.next_bits().to_be_bytes();
        envelope.extend_from_slice(&bits);
        let about = bond.about(&envelope);
        let model = bond.model.as_bytes();
        let length = u16::try_from(model.len()).ok()?.to_be_bytes();
        let mut body = [&length[..], model, text.as_bytes()].concat();
        let once = key.once(&bits)?;
        once.seal_in_place_append_tag(nonce(), Aad::from(&about), &mut body)
            .ok()?;
        envelope.append(&mut body);
        Some(URL_SAFE_NO_PAD.encode(envelope))
    }

    /// Opens an envelope.
    ///
    /// # Errors
    /// Why it does not open.
    pub fn open(&self, text: &str, bond: Bond<'_>, now_ms: i64) -> Result<String, Unopened> {
        let (version, body) = self.opened(text, bond, now_ms).ok_or(Unopened::Foreign)?;
        let text = if version == TEXT_ONLY {
            &body[..]
        } else {
            let (length, rest) = body.split_first_chunk().ok_or(Unopened::Foreign)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (model, text) = rest.split_at_checked(length).ok_or(Unopened::Foreign)?;
            if model != bond.model.as_bytes() {
                return Err(other(model, bond));
            }
            text
        };
        String::from_utf8(text.to_vec()).map_err(|_no_text| Unopened::Foreign)
    }

    /// Version and content of an envelope that is the owner's and holds still.
    fn opened(&self, text: &str, bond: Bond<'_>, now_ms: i64) -> Option<(u8, Vec<u8>)> {
        let envelope = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (head, body) = envelope.split_at_checked(HEAD)?;
        let (version, rest) = head.split_first()?;
        let (id, rest) = rest.split_at_checked(KEY_ID)?;
        let (seconds, bits) = rest.split_at_checked(8)?;
        let sealed_ms = i64::from_be_bytes(seconds.try_into().ok()?).saturating_mul(1000);
        let age = now_ms.saturating_sub(sealed_ms);
        if self.max_age_ms.is_some_and(|most| age > most) {
            return None;
        }
        let about = match *version {
            VERSION => bond.about(head),
            TEXT_ONLY => [&bond.about(head)[..], bond.model.as_bytes()].concat(),
            _ => return None,
        };
        let key = self.keys.iter().find(|key| key.id == id)?;
        let mut body = body.to_vec();
        let once = key.once(bits)?;
        let plain = once.open_in_place(nonce(), Aad::from(&about), &mut body);
        Some((*version, plain.ok()?.to_vec()))
    }
}

/// What an envelope of another model is: a summary, which is bound to none, is no thinking.
fn other(model: &[u8], bond: Bond<'_>) -> Unopened {
    if model.is_empty() || bond.model.is_empty() {
        Unopened::Foreign
    } else {
        Unopened::OtherModel
    }
}

impl SealKey {
    fn new(secret: [u8; 32]) -> Self {
        let mut id = [0; KEY_ID];
        id.copy_from_slice(
            derived(&secret, b"key id")
                .get(..KEY_ID)
                .unwrap_or(&[0; KEY_ID]),
        );
        Self { id, secret }
    }

    /// The key of one envelope.
    fn once(&self, bits: &[u8]) -> Option<LessSafeKey> {
        let key = derived(&self.secret, bits);
        UnboundKey::new(&AES_256_GCM, &key)
            .ok()
            .map(LessSafeKey::new)
    }
}

/// 32 bytes that depend on both and tell of neither.
fn derived(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let parts = [purpose];
    let pseudorandom = Salt::new(HKDF_SHA256, b"vllm-responses sealed reasoning").extract(secret);
    if let Ok(expanded) = pseudorandom.expand(&parts, HKDF_SHA256) {
        // As long as the hash: it always fits.
        let _always = expanded.fill(&mut out);
    }
    out
}

/// Each key encrypts one text.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl<'a> Bond<'a> {
    /// That of a summary of a conversation, which outlives the model that wrote it.
    pub fn of_summary(owner: &'a Owner) -> Self {
        Self { owner, model: "" }
    }
}

impl Bond<'_> {
    /// What is authenticated beside the text. The length keeps the owner apart from what may follow.
    fn about(self, head: &[u8]) -> Vec<u8> {
        let owner = self.owner.as_str().as_bytes();
        let length = u64::try_from(owner.len()).unwrap_or(u64::MAX).to_be_bytes();
        [head, &length, owner].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::CountingIds;

    const NOW: i64 = 1_700_000_000_123;
    const OF_0_1_0: &str =
        "ATpID2S7krWtAAAAAGVT8QAAAQIDBAUGBwgJCgsMDQ4PZYCgJYvBGaZMODnVfLfr-yh9GodGTO8";

    fn sealed(keys: &SealKeys, text: &str) -> String {
        let owner = Owner::new("o");
        let bond = Bond {
            owner: &owner,
            model: "m",
        };
        keys.seal(text, bond, NOW, &mut CountingIds::default())
            .unwrap()
    }

    fn opened(
        keys: &SealKeys,
        text: &str,
        (owner, model): (&str, &str),
        at: i64,
    ) -> Result<String, Unopened> {
        let owner = Owner::new(owner);
        let bond = Bond {
            owner: &owner,
            model,
        };
        keys.open(text, bond, at)
    }

    #[test]
    fn bound_to_owner_and_model() {
        let keys = SealKeys::new([1; 32], &[], None);
        let text = sealed(&keys, "thought");
        assert_eq!(
            opened(&keys, &text, ("o", "m"), NOW).as_deref(),
            Ok("thought")
        );
        for (bond, why) in [
            (("p", "m"), Unopened::Foreign),
            (("o", "n"), Unopened::OtherModel),
            (("o", ""), Unopened::Foreign),
            (("om", ""), Unopened::Foreign),
            (("", "om"), Unopened::Foreign),
        ] {
            assert_eq!(opened(&keys, &text, bond, NOW), Err(why), "{bond:?}");
        }
    }

    #[test]
    fn envelopes_of_the_first_version_open() {
        // As 0.1.0 wrote them, with this key for this owner and model.
        let keys = SealKeys::new([1; 32], &[], None);
        assert_eq!(
            opened(&keys, OF_0_1_0, ("o", "m"), NOW).as_deref(),
            Ok("thought")
        );
        for bond in [("p", "m"), ("o", "n"), ("o", "")] {
            assert_eq!(
                opened(&keys, OF_0_1_0, bond, NOW),
                Err(Unopened::Foreign),
                "{bond:?}"
            );
        }
    }

    #[test]
    fn keys_rotate() {
        let text = sealed(&SealKeys::new([1; 32], &[], None), "t");
        let rotated = SealKeys::new([2; 32], &[[1; 32]], None);
        assert!(opened(&rotated, &text, ("o", "m"), NOW).is_ok());
        let forgotten = SealKeys::new([2; 32], &[], None);
        assert!(opened(&forgotten, &text, ("o", "m"), NOW).is_err());
        let fresh = sealed(&rotated, "t");
        assert!(opened(&forgotten, &fresh, ("o", "m"), NOW).is_ok());
        assert!(!format!("{rotated:?}").contains('2'.to_string().repeat(2).as_str()));
    }

    #[test]
    fn envelopes_expire() {
        let keys = SealKeys::new([1; 32], &[], Some(60_000));
        let text = sealed(&keys, "t");
        assert!(opened(&keys, &text, ("o", "m"), NOW + 59_000).is_ok());
        assert!(opened(&keys, &text, ("o", "m"), NOW + 61_000).is_err());
    }

    #[test]
    fn the_same_text_never_looks_the_same() {
        let keys = SealKeys::new([1; 32], &[], None);
        let (owner, mut ids) = (Owner::new("o"), CountingIds::default());
        let bond = Bond {
            owner: &owner,
            model: "m",
        };
        let one = keys.seal("t", bond, NOW, &mut ids);
        assert_ne!(one, keys.seal("t", bond, NOW, &mut ids));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_any_changed_byte_does_not(text in any::<String>(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let keys = SealKeys::new([1; 32], &[], None);
            let envelope = sealed(&keys, &text);
            prop_assert_eq!(opened(&keys, &envelope, ("o", "m"), NOW), Ok(text));
            let mut bytes = URL_SAFE_NO_PAD.decode(&envelope).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let changed = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert_eq!(opened(&keys, &changed, ("o", "m"), NOW), Err(Unopened::Foreign));
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..at]);
            prop_assert_eq!(opened(&keys, &cut, ("o", "m"), NOW), Err(Unopened::Foreign));
        }

        #[test]
        fn garbage_does_not_open(text in any::<String>()) {
            let keys = SealKeys::new([1; 32], &[], None);
            prop_assert_eq!(opened(&keys, &text, ("o", "m"), NOW), Err(Unopened::Foreign));
        }
    }
}
