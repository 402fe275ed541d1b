//! A server's words without the secrets that it was given: one that repeats a token in an error, or
//! gives its own environment as a result, must not get it into a database, a log or a model.

use std::ffi::OsString;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use url::{Url, form_urlencoded};
use vllm_responses_protocol::mcp::catalogue::RawTool;
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome};

use super::{Endpoint, Reason};
use crate::mcp::hosted;
use crate::redact::spellings;

/// What stands where a secret stood.
const MARK: &str = "***";
/// Shorter values are ordinary words, and are no secrets worth the name.
const SHORTEST: usize = 8;
/// Shorter values without a digit may be ordinary words.
const NO_WORD: usize = 20;
/// Shorter parts of a path are names.
const SHORTEST_SEGMENT: usize = 16;

/// The secrets of one session.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    /// Tokens and header values: taken out of everything.
    keys: Vec<Box<str>>,
    /// Variables of a process: taken out of errors only, since results may well speak of a folder or a
    /// host that one of them names.
    variables: Vec<Box<str>>,
    /// Of those, the ones that may be secrets: taken out of lists and results too.
    given: Vec<Box<str>>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Of what the server at this endpoint is given.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Stdio { env, .. } => Self {
                keys: Vec::new(),
                given: given(env),
                variables: secrets(env.iter().filter_map(|(name, value)| {
                    let passed = hosted::is_passed(name);
                    value.to_str().filter(|_| !passed)
                })),
            },
            Endpoint::Http { to, headers, .. } => {
                let values = headers.iter().filter_map(|(_, value)| value.to_str().ok());
                let mut keys: Vec<String> = values.flat_map(of_header).collect();
                keys.extend(of_url(&to.url));
                Self {
                    keys: secrets(keys.iter().map(String::as_str)),
                    variables: Vec::new(),
                    given: Vec::new(),
                }
            }
        }
    }

    /// An outcome as it may be told.
    pub(super) fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Output { text, pictures } => Outcome::Output {
                text: without(without(text, &self.keys), &self.given),
                pictures,
            },
            Outcome::Failed {
                error: CallError::Tool { mut content },
            } => {
                for part in &mut content {
                    part.text = self.error(std::mem::take(&mut part.text));
                }
                Outcome::Failed {
                    error: CallError::Tool { content },
                }
            }
            other @ Outcome::Failed { .. } => other,
        }
    }

    /// A definition as it may be told. A secret that is taken out of the name or the schema makes the
    /// tool one that cannot be called, which is as it should be.
    pub(super) fn tool(&self, tool: RawTool) -> RawTool {
        if self.keys.is_empty() && self.given.is_empty() {
            return tool;
        }
        let clean = |text: String| {
            let text = without(text.into(), &self.keys);
            String::from(without(text, &self.given))
        };
        RawTool {
            name: clean(tool.name),
            description: tool.description.map(clean),
            input_schema: clean(tool.input_schema),
            annotations: tool.annotations.map(clean),
            ..tool
        }
    }

    /// Why something failed, as it may be told.
    pub(super) fn reason(&self, reason: Reason) -> Reason {
        match reason {
            Reason::Rpc { code, message } => Reason::Rpc {
                code,
                message: self.error(message),
            },
            Reason::Start(words) => Reason::Start(self.error(words)),
            Reason::Ended(words) => Reason::Ended(self.error(words)),
            Reason::TimedOut(_)
            | Reason::Trouble(_)
            | Reason::Closed
            | Reason::WantsInput
            | Reason::BadArguments
            | Reason::Protocol => reason,
        }
    }

    fn error(&self, text: Box<str>) -> Box<str> {
        without(without(text, &self.keys), &self.variables)
    }
}

/// What of a header may be a secret: all of it, what follows the scheme, what `Basic` has encoded, and its
/// parts, as of a cookie.
fn of_header(value: &str) -> Vec<String> {
    let value = value.trim();
    let mut found = vec![value.to_owned()];
    if let Some((scheme, rest)) = value.split_once(' ') {
        let rest = rest.trim();
        found.push(rest.to_owned());
        if scheme.eq_ignore_ascii_case("basic")
            && let Ok(bytes) = BASE64.decode(rest)
            && let Ok(pair) = String::from_utf8(bytes)
        {
            let password = pair
                .split_once(':')
                .map(|(_, password)| password.to_owned());
            found.extend(password);
            found.push(pair);
        }
    }
    let parts = value.split([';', ',', ' ', '=', '"']).map(str::trim);
    found.extend(parts.filter(|part| !is_word(part)).map(str::to_owned));
    found
}

/// Some servers take their key in the URL: in the query, in the path, or as the password.
fn of_url(url: &Url) -> Vec<String> {
    let query = url.query().unwrap_or_default().split(['&', '=']);
    let segments = url.path().split('/').filter(|segment| {
        let has_digit = segment.contains(|letter: char| letter.is_ascii_digit());
        segment.len() >= SHORTEST_SEGMENT && has_digit
    });
    let written = query.chain(segments).chain(url.password());
    let written = written.filter(|part| !part.is_empty());
    written
        .flat_map(|part| {
            let decoded = form_urlencoded::parse(part.as_bytes()).next();
            let decoded = decoded.map(|(name, _)| name.into_owned());
            [Some(part.to_owned()), decoded]
        })
        .flatten()
        .collect()
}

/// The values of variables that a program was given and that may be secrets, with the passwords of URLs
/// among them. Left out are places, which its results are about, and words that it may well say, unless
/// their names call them secrets.
pub(super) fn given(env: &[(OsString, OsString)]) -> Vec<Box<str>> {
    let given = env.iter().filter(|(name, _)| !hosted::is_passed(name));
    let given = given.filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
    secrets(given.flat_map(|(name, value)| {
        let is_secret = names_secret(name) || !(is_place(value) || is_word(value));
        [password(value), Some(value).filter(|_| is_secret)]
            .into_iter()
            .flatten()
    }))
}

/// A path, or a URL without a password and a query.
fn is_place(value: &str) -> bool {
    let is_path = ["/", "./", "../", "~"]
        .iter()
        .any(|start| value.starts_with(start));
    let is_url = value
        .split_once("://")
        .is_some_and(|(_, rest)| !rest.contains(['@', '?', '#']));
    is_path || is_url
}

/// As short texts without a digit are, which the redaction of model servers' answers leaves alone too.
fn is_word(value: &str) -> bool {
    value.len() < NO_WORD && !value.contains(|letter: char| letter.is_ascii_digit())
}

/// The password of a URL.
fn password(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let (user, _) = rest.split_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

/// Whether a variable of this name has a secret in it.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASS",
        "PWD",
        "CREDENTIAL",
        "AUTH",
        "PRIVATE",
        "COOKIE",
        "DSN",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Longer ones first: one may be a part of another. Each as JSON writers may spell it, too.
fn secrets<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Box<str>> {
    let values = values.filter(|value| value.len() >= SHORTEST);
    let mut secrets: Vec<Box<str>> = values.flat_map(spellings).map(Into::into).collect();
    secrets.sort_by(|a, b| (b.len(), a).cmp(&(a.len(), b)));
    secrets.dedup();
    secrets
}

fn without(text: Box<str>, secrets: &[Box<str>]) -> Box<str> {
    let mut text = text;
    for secret in secrets {
        if text.contains(&**secret) {
            text = text.replace(&**secret, MARK).into();
        }
    }
    // JSON as a server wrote it may have any letter as its number.
    if !secrets.is_empty() && text.contains("\\u") {
        let flat = unescaped(&text);
        if secrets.iter().any(|secret| flat.contains(&**secret)) {
            return without(flat.into(), secrets);
        }
    }
    text
}

/// The text with visible letters in the place of their numbers: of JSON, the same JSON.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        let code = behind.strip_prefix('u').and_then(|digits| digits.get(..4));
        let code = code.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let letter = code.and_then(char::from_u32);
        let is_plain = |letter: &char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\');
        let length = if let Some(letter) = letter.filter(is_plain) {
            out.push(letter);
            5
        } else {
            // A backslash that is escaped itself begins nothing.
            let taken = behind.chars().next();
            out.push('\\');
            out.extend(taken);
            taken.map_or(0, char::len_utf8)
        };
        rest = behind.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mcp::guard::{Guard, vet_headers};
    use crate::mcp::net::connect::{Dialer, SystemNetwork};
    use crate::secret::Secret;

    #[test]
    fn what_a_server_repeats_of_its_secrets_is_marked() {
        let values = [("x-key", "key-of-the-server"), ("x-team", "support")];
        let values = values.map(|(name, value)| (name, Secret::new(value)));
        let token = Secret::new("Bearer token-of-the-caller");
        let headers = values.iter().map(|(name, value)| (*name, value));
        let endpoint = Endpoint::Http {
            to: Box::new(Guard::Operator.vet("http://h/").unwrap()),
            guard: Arc::new(Guard::Operator),
            headers: vet_headers(headers, Some(&token)).unwrap(),
            kind: vllm_responses_protocol::mcp::file::HttpKind::Auto,
            dialer: Arc::new(Dialer::new(Arc::new(SystemNetwork))),
        };
        let redactor = Redactor::of(&endpoint);
        let text = "no token-of-the-caller for support, only key-of-the-server";
        let told = "no *** for support, only ***";
        let output = redactor.outcome(Outcome::text(text));
        assert_eq!(output, Outcome::text(told));
        let error = CallError::tool(text);
        let failed = redactor.outcome(Outcome::Failed { error });
        assert_eq!(
            failed,
            Outcome::Failed {
                error: CallError::tool(told)
            }
        );
        let reason = Reason::Rpc {
            code: 1,
            message: text.into(),
        };
        let message = told.into();
        assert_eq!(redactor.reason(reason), Reason::Rpc { code: 1, message });
        assert_eq!(format!("{redactor:?}"), "Redactor");
    }

    /// The fault: a secret was known in one spelling only, as `Bearer` and a whole header.
    #[test]
    fn a_secret_is_found_in_each_of_its_forms() {
        let told = |value: &str, said: &str| {
            let keys = of_header(value);
            without(said.into(), &secrets(keys.iter().map(String::as_str))).into_string()
        };
        for (value, said, expected) in [
            ("Basic dXNlcjpDQU5BUllwYXNz", "dXNlcjpDQU5BUllwYXNz", "***"),
            (
                "Basic dXNlcjpDQU5BUllwYXNz",
                "it is CANARYpass",
                "it is ***",
            ),
            ("token ghpCANARYxyz123", "ghpCANARYxyz123!", "***!"),
            ("bearer lowCANARYtoken12", "a lowCANARYtoken12", "a ***"),
            (
                "Bearer ctrl1token/aa+bb==",
                r#"{"k":"ctrl1token\/aa+bb=="}"#,
                r#"{"k":"***"}"#,
            ),
            (
                "Bearer ctrl1token/aa",
                r#"{"k":"\u0063trl1\u0074oken/aa","n":"\u00e9\\u0063"}"#,
                r#"{"k":"***","n":"\u00e9\\u0063"}"#,
            ),
            (
                "session=abcd1234efgh; theme=dark",
                "abcd1234efgh dark",
                "*** dark",
            ),
        ] {
            assert_eq!(told(value, said), expected, "{value}");
        }
        let url = Url::parse("http://h/s/path1CANARYsecret9/mcp?api_key=qq%2Fabcdef").unwrap();
        let keys = of_url(&url);
        let keys = secrets(keys.iter().map(String::as_str));
        let said = "path1CANARYsecret9 qq%2Fabcdef qq/abcdef mcp";
        assert_eq!(&*without(said.into(), &keys), "*** *** *** mcp");
    }

    /// A program that prints its environment tells its key, but may speak of its folder.
    #[test]
    fn results_and_lists_are_without_what_may_be_a_secret_of_a_program() {
        let env = [
            ("GITHUB_TOKEN", "correct-horse"),
            ("api_key", "abcdefgh"),
            ("ACCOUNT", "acc-00112233"),
            ("DATABASE", "postgres://me:hunter-two@db.example/x"),
            ("ROOT", "/srv/folder"),
            ("SITE", "https://host.example/v1"),
            ("NODE_ENV", "production"),
            ("PATH", "/usr/bin:/opt/1234567"),
            ("SHORT_KEY", "seven77"),
        ];
        let env: Vec<_> = env.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let redactor = Redactor {
            given: given(&env),
            ..Redactor::default()
        };
        for (said, told) in [
            ("T=correct-horse", "T=***"),
            ("abcdefghi", "***i"),
            ("acc-00112233", "***"),
            ("postgres://me:hunter-two@db.example/x", "***"),
            ("it is hunter-two", "it is ***"),
            ("/srv/folder/a.txt", "/srv/folder/a.txt"),
            ("https://host.example/v1", "https://host.example/v1"),
            ("in production", "in production"),
            ("/usr/bin:/opt/1234567", "/usr/bin:/opt/1234567"),
            ("seven77", "seven77"),
        ] {
            assert_eq!(redactor.outcome(Outcome::text(said)), Outcome::text(told));
        }
    }
}
