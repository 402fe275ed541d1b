//! Reads a PostgreSQL URL: pure, so that a wrong one is a configuration error and not a late one.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode as Wire;

use crate::secret::Secret;

/// What is asked of the connection's encryption (`sslmode`, with libpq's meaning).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted when the server can; nothing is verified.
    Prefer,
    /// Encrypted or refused; nothing is verified unless `sslrootcert` is given.
    Require,
    /// The certificate must come from a trusted authority.
    VerifyCa,
    /// As `VerifyCa`, and it must name the host.
    VerifyFull,
}

impl SslMode {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

/// A PostgreSQL database and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    /// The URL without what is read here; it holds the password.
    url: Secret,
    /// `sslmode`, or `ssl` as Python's asyncpg spells it.
    pub ssl: SslMode,
    /// `sslrootcert`: a PEM file of authorities that replace the system's.
    pub root: Option<PathBuf>,
}

const FORM: &str = "must be `postgresql://USER:PASSWORD@HOST:PORT/DB`, with `%` escapes in the \
    password";
const SSL_FORM: &str =
    "`sslmode` must be `disable`, `prefer`, `require`, `verify-ca` or `verify-full`";

impl PostgresUrl {
    /// The URL, for people: without user's password, and without parameters, which may hold one.
    pub fn without_password(&self) -> String {
        let text = self.url.expose();
        let text = text.split_once('?').map_or(text, |(place, _)| place);
        let Some((user, host)) = text
            .strip_prefix("postgresql://")
            .and_then(|rest| rest.rsplit_once('@'))
        else {
            return text.to_owned();
        };
        let name = user.split_once(':').map_or(user, |(name, _)| name);
        format!("postgresql://{name}@{host}")
    }

    /// Reads what follows `postgresql://`.
    ///
    /// # Errors
    /// The rule that the text breaks; it never quotes the text.
    pub fn parse(rest: &str) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut ssl, mut root, mut others) = (SslMode::Prefer, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode" | "ssl", word)) => {
                    ssl = SslMode::parse(word).ok_or_else(|| SSL_FORM.to_owned())?;
                }
                Some(("sslrootcert", path)) => root = Some(PathBuf::from(path)),
                _ => others.push(pair),
            }
        }
        if root.is_some() && ssl == SslMode::Require {
            ssl = SslMode::VerifyCa;
        }
        let query = if others.is_empty() {
            String::new()
        } else {
            format!("?{}", others.join("&"))
        };
        let read = Self {
            url: Secret::new(&format!("postgresql://{place}{query}")),
            ssl,
            root,
        };
        let config = read.config()?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(FORM.to_owned());
        }
        Ok(read)
    }

    /// The client's own form of the URL.
    ///
    /// # Errors
    /// As [`PostgresUrl::parse`]; none for a value that it made.
    pub fn config(&self) -> Result<Config, String> {
        // The parser's own words may quote the URL.
        let Ok(mut config) = self.url.expose().parse::<Config>() else {
            return Err(FORM.to_owned());
        };
        config.ssl_mode(match self.ssl {
            SslMode::Disable => Wire::Disable,
            SslMode::Prefer => Wire::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Wire::Require,
        });
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssl_words_are_read_and_the_rest_is_passed_on() {
        let read = |query: &str| PostgresUrl::parse(&format!("u:p@h:5433/d{query}"));
        let ssl = |query| read(query).unwrap().ssl;
        assert_eq!(ssl(""), SslMode::Prefer);
        assert_eq!(ssl("?sslmode=disable"), SslMode::Disable);
        assert_eq!(ssl("?ssl=require"), SslMode::Require);
        assert_eq!(ssl("?sslmode=verify-full"), SslMode::VerifyFull);
        assert_eq!(ssl("?sslmode=require&sslrootcert=/ca"), SslMode::VerifyCa);
        let both = read("?connect_timeout=2&sslmode=verify-ca&sslrootcert=/ca").unwrap();
        assert_eq!(both.root, Some(PathBuf::from("/ca")));
        let config = both.config().unwrap();
        assert_eq!(config.get_ports(), [5433]);
        assert_eq!(config.get_password(), Some(b"p".as_slice()));
        assert_eq!(config.get_ssl_mode(), Wire::Require);
        let timeout = std::time::Duration::from_secs(2);
        assert_eq!(config.get_connect_timeout(), Some(&timeout));
    }

    #[test]
    fn problems_name_the_rule_and_never_the_text() {
        for wrong in [
            "u:CANARY@h/d?sslmode=CANARY",
            "u:CANARY@h:CANARY/d",
            "u:CANARY@h/d?CANARY=1",
            "u:CANARY@h/d?connect_timeout=CANARY",
            "u:CANARY@",
            "/CANARY",
        ] {
            let problem = PostgresUrl::parse(wrong).unwrap_err();
            assert!(!problem.contains("CANARY"), "{problem}");
            assert!(problem.contains('`'), "{problem}");
        }
        let kept = PostgresUrl::parse("u:CANARY@h/d").unwrap();
        assert!(!format!("{kept:?}").contains("CANARY"));
    }
}
