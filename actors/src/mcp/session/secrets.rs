//! What may be a secret of what a server was given: variables, arguments, headers, its URL. Pure.

use std::ffi::{OsStr, OsString};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use url::{Url, form_urlencoded};
use vllm_responses_protocol::mcp::file::Filled;

use super::json_strings;
use crate::mask::SHORTEST;
use crate::mcp::hosted;

/// Shorter values without a digit may be ordinary words.
const NO_WORD: usize = 20;
/// Shorter parts of a path are names.
const SHORTEST_SEGMENT: usize = 16;
/// JSON in a text of JSON, as far as anybody goes.
const DEEPEST: usize = 3;

/// Texts that may be secrets, each as it is.
#[derive(Default)]
pub(super) struct Found(pub(super) Vec<String>);

impl Found {
    /// The variables of a program. Left out are places, which its results are about, and words that it may
    /// well say, unless their names call them secrets.
    pub(super) fn variables(&mut self, env: &[(OsString, OsString)]) {
        for (name, value) in env {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
                self.value(name, value);
            }
        }
    }

    /// What `${NAME}` stood for, wherever in the server's entry; `host` is that of its URL, of which
    /// results speak.
    pub(super) fn filled(&mut self, filled: &[Filled], host: Option<&str>) {
        for Filled { name, value } in filled {
            let value = value.expose();
            let of_host = host.is_some_and(|host| host.contains(value));
            if !of_host || names_secret(name) {
                self.value(name, value);
            }
        }
    }

    /// A value with a name. Of several lines, of JSON and of `NAME=VALUE` lists each part is judged too.
    pub(super) fn value(&mut self, name: &str, value: &str) {
        if hosted::is_passed(OsStr::new(name)) {
            return;
        }
        let named = names_secret(name);
        if named || !(is_place(value) || is_word(value)) {
            self.add(value);
            self.add(value.trim());
        }
        self.parts(value, named, DEEPEST);
    }

    fn parts(&mut self, value: &str, named: bool, depth: usize) {
        self.0.extend(password(value).map(str::to_owned));
        if value.trim().contains(['\n', '\r']) {
            let lines = value.split(['\n', '\r']).map(str::trim);
            for line in lines.filter(|line| !is_word(line)) {
                if named || !is_place(line) {
                    self.add(line);
                }
            }
        }
        for pair in value.split([';', ',', '&', '?', ' ', '\t', '\n', '\r']) {
            if let Some((name, value)) = pair.split_once('=')
                && is_secret_of(name, value)
            {
                self.add(value.trim_matches(['"', '\'']));
            }
        }
        let Some(depth) = depth.checked_sub(1) else {
            return;
        };
        for (name, text) in json_strings::of(value) {
            let named = is_secret_of(&name, &text);
            if named || !(is_place(&text) || is_word(&text)) {
                self.add(&text);
            }
            self.parts(&text, named, depth);
        }
    }

    /// The arguments of a program: those behind a name that says so, headers, and keys in URLs.
    pub(super) fn arguments(&mut self, args: &[OsString]) {
        let mut expected = None;
        for arg in args.iter().filter_map(|arg| arg.to_str()) {
            if let Some(name) = expected.take().filter(|_| !arg.starts_with("--")) {
                self.argument(name, arg);
            }
            if let Some((name, value)) = arg.split_once('=') {
                // A line for a shell is no name.
                if !name.contains(char::is_whitespace) {
                    self.argument(name, value);
                }
            } else if arg.starts_with('-') {
                expected = Some(arg);
            }
            self.header_line(arg);
            self.0.extend(password(arg).map(str::to_owned));
            if let Ok(url) = Url::parse(arg)
                && url.has_host()
            {
                self.url(&url);
            }
        }
    }

    fn argument(&mut self, name: &str, value: &str) {
        if is_secret_of(name, value) {
            self.value(name, value);
        }
        if name == "-H" || name.to_ascii_uppercase().contains("HEADER") {
            let (_, behind) = value.split_once([':', '=']).unwrap_or(("", value));
            self.header(behind);
        } else {
            self.header_line(value);
        }
    }

    /// `NAME: VALUE`, where the name says secret.
    fn header_line(&mut self, line: &str) {
        if let Some((name, value)) = line.split_once(':')
            && !name.contains(char::is_whitespace)
            && !value.starts_with("//")
            && is_secret_of(name, value.trim())
        {
            self.header(value);
        }
    }

    /// What of a header may be a secret: all of it, what follows the scheme, what `Basic` has encoded, and
    /// its parts, as of a cookie.
    pub(super) fn header(&mut self, value: &str) {
        let value = value.trim();
        self.add(value);
        if let Some((scheme, rest)) = value.split_once(' ') {
            let rest = rest.trim();
            self.add(rest);
            if scheme.eq_ignore_ascii_case("basic")
                && let Ok(bytes) = BASE64.decode(rest)
                && let Ok(pair) = String::from_utf8(bytes)
            {
                if let Some((_, password)) = pair.split_once(':') {
                    self.add(password);
                }
                self.add(&pair);
            }
        }
        let parts = value.split([';', ',', ' ', '=', '"']).map(str::trim);
        for part in parts.filter(|part| !is_word(part)) {
            self.add(part);
        }
    }

    /// Some servers take their key in the URL: in the query, in the path, or as the password.
    pub(super) fn url(&mut self, url: &Url) {
        let query = url.query().unwrap_or_default().split(['&', '=']);
        let segments = url.path().split('/').filter(|segment| {
            let has_digit = segment.contains(|letter: char| letter.is_ascii_digit());
            segment.len() >= SHORTEST_SEGMENT && has_digit
        });
        for part in query.chain(segments).chain(url.password()) {
            self.add(part);
            let decoded = form_urlencoded::parse(part.as_bytes()).next();
            if let Some((name, _)) = decoded {
                self.add(&name);
            }
        }
    }

    fn add(&mut self, text: &str) {
        if text.len() >= SHORTEST {
            self.0.push(text.to_owned());
        }
    }
}

/// Whether a name says secret; not of a place unless it is more than where a secret is kept or got.
fn is_secret_of(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let of_place = ["FILE", "PATH", "DIR", "URL", "URI", "ENDPOINT"];
    let of_place = of_place.iter().any(|word| name.contains(word));
    names_secret(&name) && !(of_place && is_place(value))
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
