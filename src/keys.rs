//! API keys: the reader of their file, the ring that answers whose key was presented, and its reload.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use vllm_responses_protocol::ids::Owner;

type Hash = [u8; 32];

/// The keys of a gateway: names and SHA-256 hashes, never the keys themselves.
#[derive(Clone, Default)]
pub struct KeyRing(Vec<(Owner, Hash)>);

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

impl KeyRing {
    /// Reads `NAME SHA256HEX` lines; `#` opens a comment line.
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
                Ok((name, _)) if !names.insert(name) => {
                    problems.push(format!(
                        "line {}: a name occurs twice; give each key its own",
                        index + 1
                    ));
                }
                Ok((_, hash)) if !hashes.insert(hash) => {
                    problems.push(format!(
                        "line {}: a key occurs twice; make a new one",
                        index + 1
                    ));
                }
                Ok((name, hash)) => ring.push((Owner::new(name), hash)),
                Err(rule) => problems.push(format!("line {}: {rule}", index + 1)),
            }
        }
        if ring.is_empty() && problems.is_empty() {
            problems.push("holds no key; make one with `vllm-responses keys new NAME`".to_owned());
        }
        if problems.is_empty() {
            Ok(Self(ring))
        } else {
            Err(problems)
        }
    }

    /// Whose key this is. All hashes are compared in full, so that time tells nothing.
    pub fn owner_of(&self, presented: &str) -> Option<Owner> {
        let hash: Hash = Sha256::digest(presented.as_bytes()).into();
        let mut found = None;
        for (owner, known) in &self.0 {
            let difference = known
                .iter()
                .zip(&hash)
                .fold(0u8, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(owner);
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

    /// Reads the file again. A bad file changes nothing: the old keys stay in force.
    pub fn reload(&self) {
        let Some(file) = &self.file else { return };
        match load(file) {
            Ok(ring) => {
                self.seen.send_replace(Some(Arc::new(ring)));
                log::info!("API keys read again");
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
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![format!(
            "cannot be read ({}); correct the path",
            error.kind()
        )]
    })?;
    KeyRing::parse(&text)
}

fn read_line(line: &str) -> Result<(&str, Hash), &'static str> {
    const SHAPE: &str = "must be `NAME SHA256HEX`; make one with `vllm-responses keys new NAME`";
    let mut words = line.split_whitespace();
    let (Some(name), Some(hex), None) = (words.next(), words.next(), words.next()) else {
        return Err(SHAPE);
    };
    if !valid_name(name) {
        return Err("the name must be 1 to 64 letters, digits, `.`, `_` or `-`");
    }
    unhex(hex)
        .map(|hash| (name, hash))
        .ok_or("the hash must be 64 hexadecimal digits")
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
        assert_eq!(ring.owner_of("k1").unwrap().as_str(), "ann");
        assert_eq!(ring.owner_of("k2").unwrap().as_str(), "BOB");
        for stranger in ["", "k3", "ann", "K1"] {
            assert!(ring.owner_of(stranger).is_none(), "{stranger}");
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
}
