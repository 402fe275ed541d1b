//! What the gateway says once it is ready: a banner on a terminal, one structured line elsewhere.

use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use vllm_responses_actors::process;
use vllm_responses_actors::store::StoreStartError;
use vllm_responses_actors::store::settings::{Database, StoreSettings};

use crate::config::LogFormat;
use crate::logging;
use crate::status::{ToolState, ToolStatus, printable};

/// The facts of a ready gateway; none of them is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Where the API is, one for each address.
    pub(crate) urls: Vec<String>,
    /// A model to try.
    pub(crate) model: Option<String>,
    /// The tools of the gateway.
    pub(crate) tools: Vec<ToolStatus>,
    /// Where responses are kept, in words.
    pub(crate) store: String,
    /// Whether clients need a key.
    pub(crate) keyed: bool,
    /// Whether other machines reach it.
    pub(crate) exposed: bool,
    /// From start to ready.
    pub(crate) took_ms: u64,
}

/// The API's URL at this address, as a client on this machine would write it.
pub(crate) fn api_url(address: &SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    format!("http://{}/v1", SocketAddr::new(ip, address.port()))
}

/// Where responses are kept: a path, or a URL without its password.
pub(crate) fn place(settings: &StoreSettings) -> String {
    match &settings.database {
        Database::Sqlite(path) => format!("SQLite, {}", printable(&path.display().to_string())),
        Database::Postgres(url) => format!("PostgreSQL, {}", printable(&url.without_password())),
    }
}

/// Why the database in use cannot be used: with its place, and how another is named. The default has
/// the same words, so no setting is blamed that nobody made.
pub(crate) fn unusable(settings: &StoreSettings, error: &StoreStartError) -> String {
    let place = place(settings);
    format!("{error} (it is {place}; `VR_DB_PATH` names another)")
}

impl Ready {
    /// Says it.
    pub(crate) fn announce(&self, format: LogFormat) {
        let to_people = format == LogFormat::Text && io::stderr().is_terminal();
        if to_people && log::log_enabled!(log::Level::Info) {
            logging::say(&self.banner());
        } else {
            let (urls, model) = (self.urls.join(" "), self.model.as_deref().unwrap_or(""));
            let (tools, store) = (self.offered(), self.store.as_str());
            let ready_ms = self.took_ms;
            log::info!(url = urls, model, tools, store, ready_ms; "ready");
        }
    }

    fn offered(&self) -> String {
        let offered = self
            .tools
            .iter()
            .filter(|tool| tool.state == ToolState::Offered);
        offered
            .map(|tool| tool.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn banner(&self) -> String {
        let tools = match self.offered() {
            none if none.is_empty() => "none of the gateway's own".to_owned(),
            some => some,
        };
        let rows = [
            ("API", self.urls.join(" ")),
            (
                "model",
                self.model.clone().unwrap_or_else(|| "unknown".to_owned()),
            ),
            ("tools", tools),
            ("responses", self.store.clone()),
            (
                "keys",
                match (self.keyed, self.exposed) {
                    (true, _) => "needed",
                    (false, true) => {
                        "none: whoever reaches this machine may use it (`VR_API_KEYS_FILE`)"
                    }
                    (false, false) => "not needed; only this machine reaches it",
                }
                .to_owned(),
            ),
        ];
        let mut text = format!(
            "\nvllm-responses {} is ready ({} ms)\n\n",
            env!("CARGO_PKG_VERSION"),
            self.took_ms
        );
        for (name, value) in rows {
            text.extend([&format!("  {name:10} "), &printable(&value), "\n"]);
        }
        text.extend(["\nTry it:\n", &self.curl(), "\nCtrl-C stops it.\n\n"]);
        text
    }

    /// A command that can be pasted into a shell, whatever the model is called.
    fn curl(&self) -> String {
        let body = Trial {
            model: self.model.as_deref().unwrap_or("MODEL"),
            input: "Say hello.",
            stream: true,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let key = if self.keyed {
            "-H \"authorization: Bearer $VR_API_KEY\" "
        } else {
            ""
        };
        format!(
            "  curl -N {}/responses {key}-H 'content-type: application/json' \\\n    -d '{}'\n",
            self.urls.first().map_or("", String::as_str),
            body.replace('\'', r"'\''")
        )
    }
}

#[derive(Serialize)]
struct Trial<'a> {
    model: &'a str,
    input: &'a str,
    stream: bool,
}

/// Whoever attached itself before the process hid stays attached, and sees everything.
pub(crate) fn warn_of_tracer() {
    if let Some(tracer) = process::traced_by() {
        log::warn!(
            tracer;
            "another process traces this one and can read its secrets and all that passes through it; if \
             that is no debugger of yours, end it and change the secrets"
        );
    }
}

/// Nobody needs a key: said once, at the start.
pub(crate) fn warn_of_open_door() {
    log::warn!(
        "no API keys are configured (`VR_API_KEYS_FILE`): everyone who reaches this address \
         may use the gateway and read its responses"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vllm_responses_actors::store::settings::Synchronous;

    use super::*;

    fn tool(state: ToolState) -> ToolStatus {
        ToolStatus {
            name: "code_interpreter".to_owned(),
            state,
            remedy: None,
        }
    }

    #[test]
    fn the_banner_has_all_facts_and_a_command_that_is_safe_to_paste() {
        let ready = Ready {
            urls: vec!["http://127.0.0.1:5969/v1".to_owned()],
            model: Some("it's\u{1b}[2J $(reboot)".to_owned()),
            tools: vec![tool(ToolState::Offered)],
            store: "SQLite, a.db".to_owned(),
            keyed: true,
            exposed: true,
            took_ms: 38,
        };
        let expected = concat!(
            "\nvllm-responses ",
            env!("CARGO_PKG_VERSION"),
            r#" is ready (38 ms)

  API        http://127.0.0.1:5969/v1
  model      it's�[2J $(reboot)
  tools      code_interpreter
  responses  SQLite, a.db
  keys       needed

Try it:
  curl -N http://127.0.0.1:5969/v1/responses -H "authorization: Bearer $VR_API_KEY" -H 'content-type: application/json' \
    -d '{"model":"it'\''s\u001b[2J $(reboot)","input":"Say hello.","stream":true}'

Ctrl-C stops it.

"#
        );
        assert_eq!(ready.banner(), expected);
        let bare = Ready {
            model: None,
            tools: vec![tool(ToolState::Off)],
            keyed: false,
            ..ready
        };
        let banner = bare.banner();
        assert!(banner.contains("  keys       none: whoever reaches this machine may use it"));
        assert!(banner.contains("  tools      none of the gateway's own\n"));
        assert!(banner.contains(r#""model":"MODEL""#) && !banner.contains("Bearer"));
    }

    #[test]
    fn urls_can_be_called_from_this_machine() {
        for (address, expected) in [
            ("0.0.0.0:1", "http://127.0.0.1:1/v1"),
            ("[::]:1", "http://[::1]:1/v1"),
            ("[::1]:1", "http://[::1]:1/v1"),
            ("10.0.0.1:1", "http://10.0.0.1:1/v1"),
        ] {
            assert_eq!(api_url(&address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_place_of_responses_has_no_secret() {
        let settings = |database| StoreSettings {
            database,
            synchronous: Synchronous::Normal,
            retention: Some(Duration::from_secs(1)),
            pool_size: 2,
            purge_interval: None,
        };
        let named = |database| place(&settings(database));
        assert_eq!(
            named(Database::parse("postgres://u:s3cret@h:5/d").unwrap()),
            "PostgreSQL, postgresql://u@h:5/d"
        );
        let own = Database::parse("postgres://h/d?user=u&password=s3cret").unwrap();
        assert!(!named(own).contains("s3cret"));
        assert_eq!(
            named(Database::Sqlite("/var/a.db".into())),
            "SQLite, /var/a.db"
        );
    }
}
