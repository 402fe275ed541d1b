//! `status`: asks a running gateway how it is, from its machine or from elsewhere.

mod page;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use actix_rt::System;
use awc::Client;
use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use url::Url;
use vllm_responses_actors::own_client;
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::tls;

use super::{USAGE, answer, complain};
use crate::config::raw::{self, Inputs, Raw};
use crate::status::{Status, printable};

/// To connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the whole answer; the gateway asks its own components for a second.
const LIMIT: Duration = Duration::from_secs(10);
/// Fifty children with their last lines would fit.
const LARGEST: usize = 1024 * 1024;

const AFTER: &str = "\
Without --url, the gateway of this machine is asked, at the port that `serve` would listen on here.

Environment:
  VR_API_KEY   a key of the gateway, where it has keys; also read from `.env`

Exit codes:
  0    the gateway answered; with --ready: and is ready
  1    it did not
  2    wrong usage";

/// The command's shape.
pub(super) fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    Command::new("status")
        .about("Show the state of a running gateway and of everything behind it")
        .after_help(AFTER)
        .arg(
            switch(
                "logs",
                "Also show the last lines of children that are ready",
            )
            .conflicts_with_all(["json", "ready"]),
        )
        .arg(switch("json", "Print the gateway's JSON as it is").conflicts_with("ready"))
        .arg(switch(
            "ready",
            "Only say whether it is ready, for health checks; needs no key",
        ))
        .arg(
            Arg::new("url")
                .long("url")
                .value_name("URL")
                .help("Where the gateway is; `/v1` at its end is optional"),
        )
}

/// What is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Page(Lines),
    Json,
    Readiness,
}

/// Whose last lines are on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    /// Those of children that are not ready.
    OfFailed,
    /// Those of all.
    OfAll,
}

/// Does it.
pub(super) fn run(given: &ArgMatches, inputs: &Inputs) -> ExitCode {
    let raw = raw::gather(inputs);
    let base = match given.get_one::<String>("url") {
        Some(url) => given_base(url),
        None => own_base(&raw),
    };
    let base = match base {
        Ok(base) => base,
        Err(problem) => {
            complain(&[format!("error: {problem}")]);
            return ExitCode::from(USAGE);
        }
    };
    let wanted = match (given.get_flag("json"), given.get_flag("ready")) {
        (true, _) => Wanted::Json,
        (_, true) => Wanted::Readiness,
        (false, false) if given.get_flag("logs") => Wanted::Page(Lines::OfAll),
        (false, false) => Wanted::Page(Lines::OfFailed),
    };
    tls::install();
    match System::new().block_on(shown(&base, raw.client_key.as_ref(), wanted)) {
        Ok(text) => answer(&text),
        Err(problem) => {
            complain(&[format!("error: {problem}")]);
            ExitCode::FAILURE
        }
    }
}

/// The URL of `--url` without a path; it may not hold a password, since errors quote it.
fn given_base(text: &str) -> Result<String, &'static str> {
    const SHAPE: &str = "`--url`: must be like `http://127.0.0.1:5969`, without user and query";
    let url = Url::parse(text).ok().ok_or(SHAPE)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let path = url.as_str().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path);
    plain.then(|| path.to_owned()).ok_or(SHAPE)
}

/// Where a gateway with this configuration listens.
fn own_base(raw: &Raw) -> Result<String, &'static str> {
    let text = |key: &str| raw.values.get(key).map_or("", |value| value.text.as_str());
    let host = match text("gateway.host")
        .trim_matches(['[', ']'])
        .parse::<IpAddr>()
    {
        Ok(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_name) => text("gateway.host").to_owned(),
    };
    match text("gateway.port").parse::<u16>() {
        Ok(port @ 1..) => given_base(&format!("http://{host}:{port}")),
        Ok(0) | Err(_) => Err("the gateway's port is not known here; name it with `--url`"),
    }
}

/// The text for stdout, or why there is none.
async fn shown(base: &str, key: Option<&Secret>, wanted: Wanted) -> Result<String, String> {
    let path = match wanted {
        Wanted::Readiness => "/health/ready",
        Wanted::Page(_) | Wanted::Json => "/v1/status",
    };
    let client = own_client::client(base, CONNECT_LIMIT);
    let (status, body) = tokio::time::timeout(LIMIT, get(&client, base, path, key))
        .await
        .unwrap_or_else(|_elapsed| {
            Err(format!("the gateway at {base} did not answer in {LIMIT:?}"))
        })?;
    match (status, wanted) {
        (200, Wanted::Readiness) => Ok("ready\n".to_owned()),
        (503, Wanted::Readiness) => Err(format!(
            "the gateway at {base} is not ready: {}",
            printable(&String::from_utf8_lossy(&body))
        )),
        (200, Wanted::Json) => Ok(format!("{}\n", String::from_utf8_lossy(&body))),
        (200, Wanted::Page(lines)) => serde_json::from_slice::<Status>(&body)
            .map(|status| page::page(base, &status, lines))
            .map_err(|_other| {
                format!(
                    "{base} is no gateway of this version ({}): `--json` shows its answer as it is",
                    env!("CARGO_PKG_VERSION")
                )
            }),
        (401, _) if key.is_some() => Err(format!(
            "the gateway at {base} refuses the key of `VR_API_KEY`: set one of its own"
        )),
        (401, _) => Err(format!(
            "the gateway at {base} wants an API key: set `VR_API_KEY`"
        )),
        (other, _) => Err(format!(
            "{base} answered with status {other}: name a vllm-responses gateway with `--url`"
        )),
    }
}

async fn get(
    client: &Client,
    base: &str,
    path: &str,
    key: Option<&Secret>,
) -> Result<(u16, Bytes), String> {
    let mut request = client.get(format!("{base}{path}"));
    if let Some(key) = key {
        request = request.bearer_auth(key.expose());
    }
    // The client's own words are left out: they may quote what was sent.
    let unreachable =
        || format!("no gateway answers at {base}: start it, or name another with `--url`");
    let mut answer = request.send().await.map_err(|_error| unreachable())?;
    let body = answer
        .body()
        .limit(LARGEST)
        .await
        .map_err(|_error| format!("the answer of {base} broke off or is too long"))?;
    Ok((answer.status().as_u16(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_path_and_hold_no_password() {
        for (given, expected) in [
            ("http://h", "http://h"),
            ("http://h:1/", "http://h:1"),
            ("https://h/v1/", "https://h"),
            ("http://h/gateway/v1", "http://h/gateway"),
        ] {
            assert_eq!(given_base(given).as_deref(), Ok(expected), "{given}");
        }
        for wrong in ["", "h:1", "ftp://h", "http://u:p@h", "http://h?key=1"] {
            assert!(given_base(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_own_gateway_is_found_by_its_configuration() {
        let base = |host: &str, port: &str| {
            let inputs = Inputs {
                env: [("VR_HOST", host), ("VR_PORT", port)]
                    .map(|(name, value)| (name.into(), value.into()))
                    .into(),
                ..Inputs::default()
            };
            own_base(&raw::gather(&inputs))
        };
        assert_eq!(base("", "").as_deref(), Ok("http://127.0.0.1:5969"));
        assert_eq!(base("::", "1").as_deref(), Ok("http://127.0.0.1:1"));
        assert_eq!(base("[::1]", "1").as_deref(), Ok("http://[::1]:1"));
        assert_eq!(base("box", "80").as_deref(), Ok("http://box"));
        for port in ["0", "x", "70000"] {
            assert!(base("", port).is_err(), "{port}");
        }
    }
}
