//! API keys: the reader of their file, the ring that answers whose key was presented, and its reload.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use vllm_responses_actors::limits::{Asker, OwnLimits};
use vllm_responses_protocol::ids::Owner;

use crate::config::files;

type Hash = [u8; 32];

/// Highest limit, so that sums of it stay numbers.
pub(crate) const MOST: u64 = 1_000_000_000_000;

const EMPTY: &str = "holds no key; make one with `vllm-responses keys new NAME`";

/// The keys of a gateway: names and SHA-256 hashes, never the keys themselves.
#[derive(Clone, Default)]
pub struct KeyRing(Vec<(Asker, Hash)>);

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

impl KeyRing {
    /// Reads `NAME SHA256HEX` lines, with limits of the key behind them: `concurrent=N`,
    /// `requests=N` and `tokens=N` a minute, 0 for none. `#` opens a comment line.
    ///
    /// # Errors
    /// Every problem, each with its line number and without the line's text.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut ring, mut problems) = (Vec::new(), Vec::new());
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match read_line(line) {
                Ok((name, ..)) if !names.insert(name) => {
                    problems.push(format!(
                        "line {}: a name occurs twice; give each key its own",
                        index + 1
                    ));
                }
                Ok((_, hash, _)) if !hashes.insert(hash) => {
                    problems.push(format!(
                        "line {}: a key occurs twice; make a new one",
                        index + 1
                    ));
                }
                Ok((name, hash, own)) => {
                    let owner = Owner::new(name);
                    ring.push((Asker { owner, own }, hash));
                }
                Err(rule) => problems.push(format!("line {}: {rule}", index + 1)),
            }
        }
        if ring.is_empty() && problems.is_empty() {
            problems.push(EMPTY.to_owned());
        }
        if problems.is_empty() {
            Ok(Self(ring))
        } else {
            Err(problems)
        }
    }

    /// Whose key this is, and its limits. All hashes are compared in full, so that time tells
    /// nothing.
    pub fn asker(&self, presented: &str) -> Option<Asker> {
        let hash: Hash = Sha256::digest(presented.as_bytes()).into();
        let mut found = None;
        for (asker, known) in &self.0 {
            let difference = known
                .iter()
                .zip(&hash)
                .fold(0u8, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(asker);
            }
        }
        found.cloned()
    }
}

/// The keys file of a running gateway, and who is told of its content.
#[derive(Debug)]
pub struct Keys {
    file: Option<PathBuf>,
    seen: watch::Sender<Option<Arc<KeyRing>>>,
}

impl Keys {
    /// Reads the file; without one everyone is let in.
    ///
    /// # Errors
    /// As [`load`].
    pub fn open(file: Option<PathBuf>) -> Result<Self, Vec<String>> {
        let ring = file.as_deref().map(load).transpose()?;
        Ok(Self {
            file,
            seen: watch::Sender::new(ring.map(Arc::new)),
        })
    }

    /// The keys of this moment and of later ones.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<KeyRing>>> {
        self.seen.subscribe()
    }

    /// Reads the file again. A bad file changes nothing: the old keys stay in force. One that is gone,
    /// or has no key any more, takes every key away: whoever does that is in a hurry.
    pub fn reload(&self) {
        let Some(file) = &self.file else { return };
        let is_gone = || !file.exists();
        match load(file) {
            Ok(ring) => {
                self.seen.send_replace(Some(Arc::new(ring)));
                log::info!("API keys read again");
            }
            Err(problems) if problems == [EMPTY] || is_gone() => {
                self.seen.send_replace(Some(Arc::default()));
                log::error!(
                    "all API keys are revoked, since their file is empty or gone: every request is \
                     refused until it has a key and SIGHUP comes again"
                );
            }
            Err(problems) => {
                log::error!(
                    "API keys not changed, their file is bad: {}",
                    problems.join("; ")
                );
            }
        }
    }
}

/// Reads the API keys file.
///
/// # Errors
/// Every problem, as in [`KeyRing::parse`], or the one that the file cannot be read.
pub fn load(path: &Path) -> Result<KeyRing, Vec<String>> {
    let text = files::read(path)
        .map_err(|why| vec![format!("cannot be read ({why}); correct the path")])?;
    KeyRing::parse(&text)
}

fn read_line(line: &str) -> Result<(&str, Hash, OwnLimits), &'static str> {
    const SHAPE: &str = "must be `NAME SHA256HEX`; make one with `vllm-responses keys new NAME`";
    const PLAIN: &str = "holds a key itself, where its hash belongs: take the line that \
         `vllm-responses keys new NAME` prints, or `NAME` and what `printf %s KEY | sha256sum` says";
    let mut words = line.split_whitespace();
    let (Some(name), Some(hex)) = (words.next(), words.next()) else {
        return Err(if line.starts_with("vr-") || line.starts_with("sk-") {
            PLAIN
        } else {
            SHAPE
        });
    };
    if hex.starts_with("vr-") || hex.starts_with("sk-") {
        return Err(PLAIN);
    }
    if !valid_name(name) {
        return Err("the name must be 1 to 64 letters, digits, `.`, `_` or `-`");
    }
    let hash = unhex(hex).ok_or("the hash must be 64 hexadecimal digits")?;
    let mut own = OwnLimits::default();
    for word in words {
        read_limit(word, &mut own).ok_or(
            "behind the hash may stand `concurrent=N`, `requests=N` and `tokens=N`, each once; 0 \
             means no limit",
        )?;
    }
    Ok((name, hash, own))
}

/// One limit of a key; `None` when it is none, or there already.
fn read_limit(word: &str, own: &mut OwnLimits) -> Option<()> {
    let (name, number) = word.split_once('=')?;
    let place = match name {
        "concurrent" => &mut own.concurrent,
        "requests" => &mut own.requests,
        "tokens" => &mut own.tokens,
        _ => return None,
    };
    let number = number.parse().ok().filter(|number| *number <= MOST)?;
    place.replace(number).is_none().then_some(())
}

/// Whether a key may be called this.
pub fn valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The line of the keys file for a key.
pub fn line_for(name: &str, key: &str) -> String {
    format!("{name} {}", hex(&Sha256::digest(key.as_bytes())))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or_default());
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or_default());
    }
    text
}

fn unhex(text: &str) -> Option<Hash> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = Hash::default();
    for (index, slot) in hash.iter_mut().enumerate() {
        *slot = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_owner_and_another_does_not() {
        let file = format!(
            "# keys\n\n{}\n{}\n",
            line_for("ann", "k1"),
            line_for("bob", "k2").to_uppercase()
        );
        let ring = KeyRing::parse(&file).unwrap();
        assert_eq!(ring.asker("k1").unwrap().owner.as_str(), "ann");
        assert_eq!(ring.asker("k2").unwrap().owner.as_str(), "BOB");
        for stranger in ["", "k3", "ann", "K1"] {
            assert!(ring.asker(stranger).is_none(), "{stranger}");
        }
    }

    #[test]
    fn every_bad_line_is_reported_without_its_text() {
        let good = line_for("ann", "k1");
        let other = good.replace("ann", "eve");
        let file = format!(
            "{good}\n{good}\n{other}\ncanary\na/b {0}\nx 12\nx é{1}\n",
            "0".repeat(64),
            "0".repeat(62)
        );
        let problems = KeyRing::parse(&file).unwrap_err();
        let lines: Vec<_> = problems
            .iter()
            .map(|text| text.split(':').next().unwrap())
            .collect();
        assert_eq!(
            lines,
            ["line 2", "line 3", "line 4", "line 5", "line 6", "line 7"]
        );
        assert!(!problems.concat().contains("canary"));
        assert!(KeyRing::parse("# nothing\n").is_err());
    }

    #[test]
    fn a_key_that_was_pasted_is_told_what_it_is() {
        for line in ["vr-12ab", "ann vr-12ab", "ann sk-12ab"] {
            let problems = KeyRing::parse(line).unwrap_err();
            assert!(problems[0].contains("keys new NAME") && problems[0].contains("sha256sum"));
            assert!(!problems[0].contains("12ab"));
        }
    }

    #[test]
    fn an_emptied_or_deleted_file_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let line = line_for("ann", "k1");
        let lets_in = |keys: &Keys| {
            let ring = keys.watch().borrow().clone();
            ring.expect("a gateway with a file never opens")
                .asker("k1")
                .is_some()
        };
        std::fs::write(&file, format!("\u{feff}{line}")).unwrap();
        let keys = Keys::open(Some(file.clone())).unwrap();
        assert!(lets_in(&keys));
        std::fs::write(&file, "# nobody\n").unwrap();
        keys.reload();
        assert!(!lets_in(&keys), "emptied");
        std::fs::write(&file, &line).unwrap();
        keys.reload();
        assert!(lets_in(&keys), "back");
        std::fs::write(&file, "nonsense").unwrap();
        keys.reload();
        assert!(lets_in(&keys), "a bad file changes nothing");
        std::fs::remove_file(&file).unwrap();
        keys.reload();
        assert!(!lets_in(&keys), "deleted");
    }

    #[test]
    fn a_line_may_have_limits() {
        let line = line_for("ann", "k");
        let read = |rest: &str| {
            let ring = KeyRing::parse(&format!("{line} {rest}"))?;
            Ok::<_, Vec<String>>(ring.asker("k").unwrap().own)
        };
        assert_eq!(read(""), Ok(OwnLimits::default()));
        let own = OwnLimits {
            concurrent: Some(4),
            requests: Some(0),
            tokens: Some(100_000),
        };
        assert_eq!(read("tokens=100000 concurrent=4 requests=0"), Ok(own));
        for wrong in [
            "tokens",
            "tokens=",
            "tokens=-1",
            "tokens=x",
            "token=1",
            "tokens=1 tokens=1",
            "tokens=1000000000001",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
