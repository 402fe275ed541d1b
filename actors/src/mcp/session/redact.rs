//! A server's words without the secrets that it was given: one that repeats a token in an error, or
//! gives its own environment as a result, must not get it into a database, a log or a model.

use std::fmt;

use vllm_responses_protocol::mcp::catalogue::RawTool;
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome};

use super::{Endpoint, Reason};

/// What stands where a secret stood.
const MARK: &str = "***";
/// Shorter values are ordinary words, and are no secrets worth the name.
const SHORTEST: usize = 8;

/// The secrets of one session.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    /// Tokens and header values: taken out of everything.
    keys: Vec<Box<str>>,
    /// Variables of a process: taken out of errors only, since results may well speak of a folder or a
    /// host that one of them names.
    variables: Vec<Box<str>>,
    /// Of those, the ones whose names say that they are secrets: taken out of lists and results too.
    named: Vec<Box<str>>,
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
                named: secrets(env.iter().filter_map(|(name, value)| {
                    let secret = name.to_str().is_some_and(names_secret);
                    value.to_str().filter(|_| secret)
                })),
                variables: secrets(env.iter().filter_map(|(name, value)| {
                    let passed = super::super::hosted::is_passed(name);
                    value.to_str().filter(|_| !passed)
                })),
            },
            Endpoint::Http { to, headers, .. } => {
                let values = headers.iter().filter_map(|(_, value)| value.to_str().ok());
                let values = values.map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
                // Some servers take their key in the URL.
                let query = to.url.query().unwrap_or_default().split(['&', '=']);
                Self {
                    keys: secrets(values.chain(query)),
                    variables: Vec::new(),
                    named: Vec::new(),
                }
            }
        }
    }

    /// An outcome as it may be told.
    pub(super) fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Output { text, pictures } => Outcome::Output {
                text: without(without(text, &self.keys), &self.named),
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
        if self.keys.is_empty() && self.named.is_empty() {
            return tool;
        }
        let clean = |text: String| {
            let text = without(text.into(), &self.keys);
            String::from(without(text, &self.named))
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
            Reason::TimedOut(_)
            | Reason::Trouble(_)
            | Reason::Start(_)
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

/// Whether a variable of this name has a secret in it.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "CREDENTIAL",
        "AUTH",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Longer ones first: one may be a part of another.
fn secrets<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Box<str>> {
    let values = values.filter(|value| value.len() >= SHORTEST);
    let mut secrets: Vec<Box<str>> = values.map(Into::into).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

fn without(text: Box<str>, secrets: &[Box<str>]) -> Box<str> {
    let mut text = text;
    for secret in secrets {
        if text.contains(&**secret) {
            text = text.replace(&**secret, MARK).into();
        }
    }
    text
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

    /// A program that prints its environment tells its key, but may speak of its folder.
    #[test]
    fn a_result_is_without_variables_that_are_secrets_by_name() {
        assert!(names_secret("GITHUB_TOKEN") && names_secret("api_key") && !names_secret("ROOT"));
        let redactor = Redactor {
            named: secrets(["key-of-the-program"].into_iter()),
            variables: secrets(["key-of-the-program", "/srv/folder"].into_iter()),
            ..Redactor::default()
        };
        let output = redactor.outcome(Outcome::text("KEY=key-of-the-program ROOT=/srv/folder"));
        assert_eq!(output, Outcome::text("KEY=*** ROOT=/srv/folder"));
    }
}
