//! What the store needs to know; parsed from `VR_DB_PATH` and its neighbours by `src/config`.

use std::path::PathBuf;
use std::time::Duration;

use super::postgres_url::PostgresUrl;

/// Where responses are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file of this machine; several processes may share it.
    Sqlite(PathBuf),
    /// A server; several gateways on several machines may share the database.
    Postgres(PostgresUrl),
}

impl Database {
    /// Reads `VR_DB_PATH`: `sqlite+aiosqlite:///FILE`, `sqlite:///FILE` (four slashes for an
    /// absolute path), `postgresql+asyncpg://...`, `postgresql://...`, `postgres://...`, or a bare
    /// file path.
    ///
    /// # Errors
    /// A sentence that names the accepted forms; it never quotes the text, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "must be a file path, `sqlite:///FILE`, `sqlite+aiosqlite:///FILE`, \
             `postgresql://USER@HOST/DB`, `postgresql+asyncpg://...` or `postgres://...`";
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "sqlite" | "sqlite+aiosqlite" => match rest.strip_prefix('/') {
                    Some(path) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
                    Some(_) | None => Err(FORMS.to_owned()),
                },
                "postgresql" | "postgresql+asyncpg" | "postgres" => {
                    PostgresUrl::parse(rest).map(Self::Postgres)
                }
                _ => Err(FORMS.to_owned()),
            };
        }
        if text.is_empty() || is_connection(text) {
            Err(FORMS.to_owned())
        } else {
            Ok(Self::Sqlite(PathBuf::from(text)))
        }
    }
}

/// Whether a text is meant for a server, in another form than a URL: as a file's name, its password would
/// be there for everybody to read.
fn is_connection(text: &str) -> bool {
    const MEMBERS: [&str; 7] = [
        "host", "hostaddr", "dbname", "user", "password", "port", "service",
    ];
    let names = text
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    let has_members = names.into_iter().any(|(name, _)| MEMBERS.contains(&name));
    let scheme = text.split_once(":/").map(|(scheme, _)| scheme);
    let has_scheme = scheme.is_some_and(|scheme| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
    });
    has_members || has_scheme || (text.contains('@') && text.contains(':'))
}

/// When SQLite's commit waits for the disk (`VR_DB_SYNCHRONOUS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// Survives a crash of the process; a power cut may lose the last commits.
    Normal,
    /// Survives a power cut; every group commit waits for the disk.
    Full,
}

/// Settings of `StoreActor`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Where responses are kept.
    pub database: Database,
    /// SQLite only.
    pub synchronous: Synchronous,
    /// PostgreSQL only: most connections of this process (`VR_DB_POOL_SIZE`), at least 2.
    pub pool_size: u32,
    /// Age at which a response expires; `None` keeps it for ever (`VR_RETENTION`).
    pub retention: Option<Duration>,
    /// How often responses that have ended are removed (`VR_DB_PURGE_INTERVAL`); `None` never.
    pub purge_interval: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_forms() {
        let sqlite = |path: &str| Ok(Database::Sqlite(PathBuf::from(path)));
        assert_eq!(Database::parse("a.db"), sqlite("a.db"));
        assert_eq!(Database::parse("sqlite:///a.db"), sqlite("a.db"));
        assert_eq!(
            Database::parse("sqlite+aiosqlite:////tmp/a.db"),
            sqlite("/tmp/a.db")
        );
        for url in [
            "postgresql+asyncpg://u:p@h/d",
            "postgresql://u:p@h/d",
            "postgres://u:p@h/d",
        ] {
            let expected = PostgresUrl::parse("u:p@h/d").map(Database::Postgres);
            assert_eq!(Database::parse(url), expected);
        }
        assert_eq!(Database::parse("/srv/a=b/c.db"), sqlite("/srv/a=b/c.db"));
        for wrong in [
            "",
            "mysql://h/d",
            "sqlite:///",
            "sqlite://a.db",
            "postgres://",
            "host=h password=x",
            "dbname=d",
            "postgresql:/u:x@h/d",
            "u:x@h/d",
        ] {
            assert!(Database::parse(wrong).is_err(), "{wrong}");
        }
    }
}
