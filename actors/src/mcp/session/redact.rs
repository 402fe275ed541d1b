//! A server's words without the secrets that it was given: one that repeats a token in an error, or
//! gives its own environment as a result, must not get it into a database, a log or a model.

use std::fmt;

use vllm_responses_protocol::mcp::catalogue::RawTool;
use vllm_responses_protocol::mcp::outcome::{CUT, CallError, Outcome};

use super::secrets::Found;
use super::{Endpoint, Reason};
use crate::mask::{End, Mask};
use crate::mcp::hosted;

/// The secrets of one session.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    /// Tokens, headers, and variables and arguments that may be secrets: taken out of everything.
    told: Mask,
    /// All variables of a process beside these: taken out of errors only, since results may well speak of
    /// a folder or a host that one of them names.
    errors: Mask,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Of what the server at this endpoint is given.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let Found(told) = found(endpoint);
        let env: &[_] = match endpoint {
            Endpoint::Stdio { env, .. } => env,
            Endpoint::Http { .. } => &[],
        };
        let env = env.iter().filter(|(name, _)| !hosted::is_passed(name));
        let env = env.filter_map(|(_, value)| value.to_str());
        Self {
            errors: Mask::of(env.chain(told.iter().map(String::as_str))),
            told: Mask::of(&told),
        }
    }

    /// The list for lines of the server: the same as for its results.
    pub(super) fn into_lines(self) -> Mask {
        self.told
    }

    /// An outcome as it may be told.
    pub(super) fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Output { text, pictures } => Outcome::Output {
                text: result(&self.told, text),
                pictures,
            },
            Outcome::Failed {
                error: CallError::Tool { mut content },
            } => {
                for part in &mut content {
                    part.text = result(&self.errors, std::mem::take(&mut part.text));
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
        RawTool {
            name: self.word(tool.name),
            description: tool.description.map(|text| self.word(text)),
            input_schema: self.word(tool.input_schema),
            annotations: tool.annotations.map(|text| self.word(text)),
            ..tool
        }
    }

    /// A text of a list as it may be told.
    pub(super) fn word(&self, text: String) -> String {
        self.told.text(text.into(), End::Whole).into()
    }

    /// Why something failed, as it may be told.
    pub(super) fn reason(&self, reason: Reason) -> Reason {
        match reason {
            Reason::Rpc { code, message } => Reason::Rpc {
                code,
                message: result(&self.errors, message),
            },
            Reason::Start(words) => Reason::Start(result(&self.errors, words)),
            Reason::Ended(words) => Reason::Ended(result(&self.errors, words)),
            Reason::TimedOut(_)
            | Reason::Trouble(_)
            | Reason::Closed
            | Reason::WantsInput
            | Reason::BadArguments
            | Reason::Protocol => reason,
        }
    }
}

/// The secrets of a server, each as it was given.
fn found(endpoint: &Endpoint) -> Found {
    let mut found = Found::default();
    match endpoint {
        Endpoint::Stdio {
            command,
            env,
            filled,
            ..
        } => {
            found.variables(env);
            found.arguments(command);
            found.filled(filled, None);
        }
        Endpoint::Http {
            to,
            headers,
            filled,
            ..
        } => {
            let values = headers.iter().filter_map(|(_, value)| value.to_str().ok());
            values.for_each(|value| found.header(value));
            found.url(&to.url);
            found.filled(filled, to.url.host_str());
        }
    }
    found
}

/// What a server said, which may have been cut.
fn result(mask: &Mask, text: Box<str>) -> Box<str> {
    let Some(at) = text.rfind(CUT) else {
        return mask.text(text, End::Whole);
    };
    let (said, mark) = text.split_at(at);
    let said = mask.text(said.into(), End::Cut);
    format!("{said}{}", mask.text(mark.into(), End::Whole)).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use url::Url;
    use vllm_responses_protocol::mcp::file::{Filled, HttpKind};
    use vllm_responses_protocol::mcp::outcome::cap_of;

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
            kind: HttpKind::Auto,
            filled: Vec::new(),
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

    fn program(env: &[(&str, &str)], args: &[&str], filled: &[(&str, &str)]) -> Redactor {
        let mut found = Found::default();
        let env: Vec<_> = env.iter().map(|(n, v)| (n.into(), v.into())).collect();
        found.variables(&env);
        let args: Vec<_> = args.iter().map(Into::into).collect();
        found.arguments(&args);
        let filled = filled.iter().map(|(name, value)| Filled {
            name: (*name).into(),
            value: Secret::new(value),
        });
        found.filled(&filled.collect::<Vec<_>>(), Some("api2.example.com"));
        Redactor {
            told: Mask::of(&found.0),
            ..Redactor::default()
        }
    }

    /// The same in a result and in a line of its standard error.
    fn assert_told(redactor: &Redactor, cases: &[(&str, &str)]) {
        for (said, told) in cases {
            assert_eq!(redactor.outcome(Outcome::text(*said)), Outcome::text(*told));
            let lines = redactor.clone().into_lines();
            let line = lines.bytes(said.as_bytes().into(), End::Whole);
            assert_eq!(*line, *told.as_bytes(), "{said}");
        }
    }

    /// The fault: a secret was known in one spelling only, as `Bearer` and a whole header.
    #[test]
    fn a_secret_is_found_in_each_of_its_forms() {
        let told = |value: &str, said: &str| {
            let mut found = Found::default();
            found.header(value);
            Mask::of(found.0)
                .text(said.into(), End::Whole)
                .into_string()
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
        let mut found = Found::default();
        found.url(&url);
        let said = "path1CANARYsecret9 qq%2Fabcdef qq/abcdef mcp";
        let said = Mask::of(found.0).text(said.into(), End::Whole);
        assert_eq!(&*said, "*** *** *** mcp");
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
        let cases = [
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
        ];
        assert_told(&program(&env, &[], &[]), &cases);
    }

    /// The fault: values were known whole only, so a key of several lines passed line by line, and what a
    /// variable's JSON or list has in it passed by itself.
    #[test]
    fn parts_of_a_value_are_secrets_too() {
        let env = [
            (
                "APP_PRIVATE_KEY",
                "-----BEGIN KEY-----\r\nMIIEpemline1\r\n  MIIEpemline2\nshort\n",
            ),
            (
                "GOOGLE_CREDENTIALS",
                r#" {"type": "service_account", "client_secret": "hunter-two", "private_key":
                 "----BEGIN\nMIIEjsonline1\n", "n": 1, "t": [true, null, 2.5, -1, {"k": "list-0001"}],
                 "token_uri": "https://host.example/token", "more": "{\"pass_word\": \"in\\\\side1\"}",
                 "cut": "#,
            ),
            (
                "CONNECTION",
                "Server=db.example;Password='correct-horse';X=a",
            ),
        ];
        let cases = [
            ("bad key: MIIEpemline1", "bad key: ***"),
            ("  MIIEpemline2 short", "  *** short"),
            (
                r#"{"k": "MIIEpemline1\r\n  MIIEpemline2\nshort"}"#,
                r#"{"k": "***\r\n  ***\nshort"}"#,
            ),
            ("a service_account", "a service_account"),
            ("it is hunter-two", "it is ***"),
            ("MIIEjsonline1 list-0001", "*** ***"),
            (r#""in\\side1""#, r#""***""#),
            ("https://host.example/token", "https://host.example/token"),
            ("db.example: correct-horse", "db.example: ***"),
        ];
        assert_told(&program(&env, &[], &[]), &cases);
    }

    /// The fault: arguments were no secrets to anybody.
    #[test]
    fn arguments_that_say_so_and_what_was_filled_in_are_secrets() {
        let args = [
            "-y",
            "--api-token=argtoken-one",
            "--Secret",
            "correct-horse",
            "--header",
            "X-Team:Bearer headervalue1",
            "-H",
            "Authorization: Basic dXNlcjpDQU5BUllwYXNz",
            "-e",
            "GITHUB_TOKEN=ghp-abcdefg",
            "X-Api-Key: keyofline",
            "--key-file",
            "/run/secrets/key1",
            "--auth",
            "--verbose-0001",
            "https://me:hunter-two@host.example/mcp?k=query-0001",
            "/srv/data-0001",
        ];
        let filled = [
            ("ARG", "fill-0001"),
            ("HOST", "api2.example.com"),
            ("SOME_TOKEN", "plain-words"),
            ("DIR", "/srv/filled-0001"),
            ("HOME", "/root-0001"),
        ];
        let same = "/run/secrets/key1 --verbose-0001 /srv/data-0001 api2.example.com /srv/filled-0001 /root-0001";
        let cases = [
            ("argtoken-one, correct-horse", "***, ***"),
            ("headervalue1 CANARYpass ghp-abcdefg", "*** *** ***"),
            ("keyofline hunter-two query-0001", "*** *** ***"),
            ("fill-0001 plain-words", "*** ***"),
            (same, same),
        ];
        assert_told(&program(&[], &args, &filled), &cases);
    }

    /// The fault: the end of a result that was cut told half a secret.
    #[test]
    fn a_cut_result_ends_before_a_secret() {
        let redactor = program(&[("KEY", "correct-horse-battery")], &[], &[]);
        let text = cap_of("x correct-ho", 100, 200);
        let told = redactor.outcome(Outcome::Output {
            text,
            pictures: Vec::new(),
        });
        let expected = "x ***\n[cut: 200 bytes in all, 100 are shown]";
        assert_eq!(told, Outcome::text(expected));
    }
}
