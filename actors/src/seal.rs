//! Where the keys come from that seal reasoning (decision 24).
//!
//! That is the configuration, or a key that is made at the first start and kept with the responses, so
//! that a restart, or another gateway on the same database, opens what this one sealed: in a file beside
//! SQLite, in a row in PostgreSQL.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::Recipient;
use vllm_responses_protocol::seal::SealKeys;

use crate::ask::ask;
use crate::plain_file;
use crate::secret::Secret;
use crate::store::messages::KeepSealKey;
use crate::store::settings::Database;

/// A key in the file or the configuration: this many bytes, twice as many hexadecimal digits.
const KEY: usize = 32;

/// How reasoning is sealed (`VR_SEAL_KEYS`, `VR_SEAL_MAX_AGE`).
#[derive(Clone, Default)]
pub struct SealSettings {
    /// The first seals, all open; without any, one is made and kept.
    pub keys: Vec<[u8; KEY]>,
    /// Age at which an envelope is refused; `None` accepts it as long as its key is known.
    pub max_age: Option<Duration>,
}

impl fmt::Debug for SealSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealSettings")
            .field("keys", &self.keys.len())
            .field("max_age", &self.max_age)
            .finish()
    }
}

/// How long the database may take to keep a key.
const LIMIT: Duration = Duration::from_secs(30);

/// The keys, from the settings, from the file beside the database or from the database itself (by way
/// of `keeper`). Called once, when the store is open.
///
/// # Errors
/// A sentence with the place and the remedy.
pub async fn open(
    settings: &SealSettings,
    database: &Database,
    keeper: &Recipient<KeepSealKey>,
) -> Result<SealKeys, String> {
    let max_age = settings.max_age.map(|age| age.as_millis());
    let max_age = max_age.map(|age| i64::try_from(age).unwrap_or(i64::MAX));
    if let Some((first, others)) = settings.keys.split_first() {
        return Ok(SealKeys::new(*first, others, max_age));
    }
    let key = match database {
        Database::Sqlite(path) => {
            let file = beside(path);
            kept(&file).map_err(|error| {
                format!(
                    "the key that seals reasoning cannot be read from {} ({error}): give keys in \
                     `VR_SEAL_KEYS`, or remove the file",
                    file.display()
                )
            })?
        }
        Database::Postgres(_) => in_database(keeper).await.map_err(|problem| {
            format!(
                "the key that seals reasoning cannot be read from the database ({problem}): give \
                 keys in `VR_SEAL_KEYS`, or delete the row of the table `seal_key`"
            )
        })?,
    };
    Ok(SealKeys::new(key, &[], max_age))
}

/// The key in the database; made if there is none.
async fn in_database(keeper: &Recipient<KeepSealKey>) -> Result<[u8; KEY], String> {
    let offer = KeepSealKey(Secret::new(&digits(fresh()?)));
    let kept = ask(keeper, offer, LIMIT)
        .await
        .map_err(|gone| gone.to_string())?
        .map_err(|error| error.to_string())?;
    parse(kept.expose()).ok_or_else(|| "it holds no key of 64 hexadecimal digits".to_owned())
}

/// The key's file: the database's name and `.seal-key`.
fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".seal-key");
    PathBuf::from(name)
}

/// The key in this file; made if there is none. Of several processes that start at once, one makes
/// it: a file appears whole or not at all.
fn kept(file: &Path) -> io::Result<[u8; KEY]> {
    match plain_file::read_own(file) {
        Ok(text) => {
            warn_of_readers(file);
            return read(&text);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key = fresh().map_err(io::Error::other)?;
    match keep(file, key) {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(&plain_file::read_own(file)?)
        }
        // Where no file can be made there is no database either, and that says it better.
        Err(error) => {
            log::warn!("the key that seals reasoning is not kept: {error}");
            Ok(key)
        }
    }
}

/// Makes the file, whole.
fn keep(file: &Path, key: [u8; KEY]) -> io::Result<()> {
    let (draft, out) = plain_file::draft(file)?;
    let made = write(out, key).and_then(|()| fs::hard_link(&draft, file));
    let removed = fs::remove_file(&draft);
    made.and(removed)
}

fn write(mut out: File, key: [u8; KEY]) -> io::Result<()> {
    writeln!(out, "{}", digits(key))?;
    out.sync_all()
}

/// Whoever has the key opens and forges what it seals.
fn warn_of_readers(file: &Path) {
    let mode = fs::metadata(file).map_or(0, |about| about.permissions().mode());
    if mode & 0o044 != 0 {
        let place = file.display();
        log::warn!("the key that seals reasoning can be read by others: `chmod 600 {place}`");
    }
}

fn read(text: &[u8]) -> io::Result<[u8; KEY]> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    parse(text.trim()).ok_or_else(|| io::Error::other("it holds no key of 64 hexadecimal digits"))
}

/// A key as it is written.
fn digits(key: [u8; KEY]) -> String {
    key.iter().fold(String::new(), |mut out, byte| {
        let _never_fails: fmt::Result = write!(out, "{byte:02x}");
        out
    })
}

/// A key as it is written; `None` for anything but 64 hexadecimal digits.
pub fn parse(digits: &str) -> Option<[u8; KEY]> {
    let pairs = digits.as_bytes().chunks(2);
    if digits.len() != 2 * KEY {
        return None;
    }
    let mut key = [0; KEY];
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).ok()?;
        let is_hex = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)?;
    }
    Some(key)
}

fn fresh() -> Result<[u8; KEY], String> {
    let mut key = [0; KEY];
    getrandom::fill(&mut key)
        .map_err(|error| format!("the system has no random numbers ({error})"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use actix::Actor as _;
    use vllm_responses_protocol::ids::{CountingIds, Owner};
    use vllm_responses_protocol::seal::Bond;

    use super::*;
    use crate::store::StoreActor;
    use crate::store::settings::{StoreSettings, Synchronous};

    fn opens(one: &SealKeys, other: &SealKeys) -> bool {
        let owner = Owner::new("o");
        let bond = Bond {
            owner: &owner,
            model: "m",
        };
        let sealed = one.seal("t", bond, 0, &mut CountingIds::default());
        other.open(&sealed.unwrap(), bond, 0).is_ok()
    }

    /// A store that is there; `SQLite`'s key is not in it.
    async fn keeper(folder: &Path) -> Recipient<KeepSealKey> {
        let settings = StoreSettings {
            database: Database::Sqlite(folder.join("store.db")),
            synchronous: Synchronous::Normal,
            pool_size: 1,
            retention: None,
            purge_interval: None,
        };
        let store = StoreActor::open(&settings).await.unwrap();
        store.start().recipient()
    }

    #[actix_rt::test]
    async fn the_key_outlives_the_process_and_is_private() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keeper = keeper(elsewhere.path()).await;
        let path = folder.path().join("a.db");
        let database = Database::Sqlite(path.clone());
        let settings = SealSettings::default();
        let one = open(&settings, &database, &keeper).await.unwrap();
        let other = open(&settings, &database, &keeper).await.unwrap();
        assert!(opens(&one, &other) && opens(&other, &one));
        let file = beside(&path);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let another = Database::Sqlite(folder.path().join("b.db"));
        assert!(!opens(
            &one,
            &open(&settings, &another, &keeper).await.unwrap()
        ));
        fs::write(&file, "short").unwrap();
        let error = open(&settings, &database, &keeper).await.unwrap_err();
        assert!(error.contains("VR_SEAL_KEYS"), "{error}");
    }

    #[actix_rt::test]
    async fn configured_keys_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper(folder.path()).await;
        let database = Database::Sqlite("/nowhere/a.db".into());
        let with = async |keys: &[[u8; KEY]]| {
            let settings = SealSettings {
                keys: keys.to_vec(),
                max_age: None,
            };
            open(&settings, &database, &keeper).await.unwrap()
        };
        let (old, new) = (with(&[[1; KEY]]).await, with(&[[2; KEY], [1; KEY]]).await);
        assert!(opens(&old, &new) && !opens(&new, &old));
        assert!(
            !format!(
                "{:?}",
                SealSettings {
                    keys: vec![[7; KEY]],
                    max_age: None
                }
            )
            .contains('7')
        );
    }

    #[test]
    fn keys_are_64_hexadecimal_digits() {
        assert_eq!(parse(&"0f".repeat(KEY)), Some([15; KEY]));
        for wrong in [
            "",
            "0f",
            &"0g".repeat(KEY),
            &"+f".repeat(KEY),
            &"é".repeat(KEY),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
