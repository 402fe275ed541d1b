//! Pure: loose values to a [`Config`], or every problem at once.
//!
//! A problem names the key as its user wrote it, the rule and a remedy; it never quotes the value.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use vllm_responses_actors::cache::settings::CacheSettings;
use vllm_responses_actors::seal::{self, SealSettings};
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::store::messages::Extent;
use vllm_responses_actors::store::settings::{Database, StoreSettings, Synchronous};
use vllm_responses_actors::store::sweep::GRACE;
use vllm_responses_actors::supervisor::restart::OnExit;
use vllm_responses_actors::vllm::command;
use vllm_responses_actors::vllm::settings::{CallDeadlines, SpawnSettings, UpstreamSettings};
use vllm_responses_protocol::responses::request::{OmittedTools, Retention};
use vllm_responses_protocol::tools::LoopLimits;

use super::raw::{DEFAULT, Raw, RawValue};
use super::{
    Config, GatewaySettings, Lifecycle, Privacy, ProtocolSettings, ReasoningEvents, SpawnUpstream,
    Strictness, Upstream, values,
};

const DURATION: &str = "must be a duration; write for example `30s`, `500ms`, `5m`, `2h` or `30d`";
/// The problem of a configuration that names no model server.
pub(crate) const NO_UPSTREAM: &str = "no upstream is configured; give the URL of a vLLM server with `--upstream URL`, with \
     `VR_LLM_API_BASE=URL` in the environment or in `.env`, or with `url = \"URL\"` under `[upstream]` in the TOML file, or start one with `serve -- MODEL`";

/// Judges every value.
///
/// # Errors
/// All problems, those found while reading included.
pub fn validate(raw: &Raw) -> Result<Config, Vec<String>> {
    let mut reader = Reader {
        raw,
        problems: raw.problems.clone(),
    };
    let config = reader.config();
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(reader.problems),
    }
}

/// Judges the keys of the store.
///
/// # Errors
/// As [`validate`].
pub fn store(raw: &Raw) -> Result<StoreSettings, Vec<String>> {
    let mut reader = Reader {
        raw,
        problems: raw.problems.clone(),
    };
    let store = reader.store();
    match store {
        Some(store) if reader.problems.is_empty() => Ok(store),
        _ => Err(reader.problems),
    }
}

/// Reads keys and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) raw: &'a Raw,
    pub(super) problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn value(&self, key: &str) -> Option<&'a RawValue> {
        self.raw.values.get(key)
    }

    /// The text of a key that may be unset.
    pub(super) fn optional(&self, key: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        (!value.text.is_empty() || value.place != DEFAULT).then_some(value.text.as_str())
    }

    pub(super) fn problem(&mut self, key: &str, rule: &str) {
        let place = self.value(key).map_or(key, |value| value.place.as_str());
        self.problems.push(format!("{place}: {rule}"));
    }

    pub(super) fn read<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.value(key)?.text.as_str());
        if parsed.is_none() {
            self.problem(key, rule);
        }
        parsed
    }

    pub(super) fn switch(&mut self, key: &str) -> Option<bool> {
        self.read(
            key,
            "must be a boolean; write `true` or `false`",
            values::switch,
        )
    }

    pub(super) fn duration(&mut self, key: &str) -> Option<Duration> {
        self.read(key, DURATION, values::duration)
    }

    pub(super) fn positive(&mut self, key: &str) -> Option<Duration> {
        let value = self.duration(key)?;
        if value.is_zero() {
            self.problem(key, "must be longer than zero; write for example `30s`");
        }
        Some(value)
    }

    /// As [`Self::positive`], and not so long that what a turn continues is removed before its end.
    fn within_grace(&mut self, key: &str) -> Option<Duration> {
        let value = self.positive(key)?;
        if value > GRACE {
            self.problem(
                key,
                "must be at most `1h`: a deleted or expired response is removed an hour after its end, \
                 and a turn that continues it must not take longer",
            );
        }
        Some(value)
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Option<usize> {
        let rule = format!(
            "must be a whole number; write one from {} to {}",
            range.start(),
            range.end()
        );
        self.read(key, &rule, |text| {
            text.parse().ok().filter(|number| range.contains(number))
        })
    }

    /// A size of at least so many bytes.
    pub(super) fn size(&mut self, key: &str, rule: &str, least: usize) -> Option<usize> {
        self.read(key, rule, |text| {
            values::size(text).filter(|bytes| *bytes >= least)
        })
    }

    pub(super) fn port(&mut self, key: &str, least: u16) -> Option<u16> {
        let rule = format!(
            "must be a port; write a number from {least} to 65535 and nothing behind it, no comment either"
        );
        self.read(key, &rule, |text| {
            text.parse().ok().filter(|port| *port >= least)
        })
    }

    pub(super) fn host(&mut self, key: &str) -> Option<String> {
        self.read(
            key,
            "must be an IP address or a host name, without port or scheme",
            values::host,
        )
    }

    fn config(&mut self) -> Option<Config> {
        let gateway = self.gateway();
        let upstream = self.upstream();
        let store = self.store();
        let interpreter = self.interpreter();
        let limits = self.limits();
        let loop_limits = self.loop_limits();
        let protocol = self.protocol();
        let privacy = self.privacy();
        let cache = self.cache(protocol.map(|protocol| protocol.omitted_tools));
        let lifecycle = self.lifecycle();
        let logging = self.logging();
        let tracing = self.tracing();
        let mcp = self.mcp();
        let metrics = self.metrics();
        Some(Config {
            gateway: gateway?,
            upstream: upstream?,
            store: store?,
            cache,
            interpreter: interpreter?,
            limits: limits?,
            loop_limits: loop_limits?,
            protocol: protocol?,
            privacy: privacy?,
            lifecycle: lifecycle?,
            logging: logging?,
            tracing,
            mcp: mcp?,
            metrics: metrics?,
            api_keys_file: self.optional("auth.api_keys_file").map(PathBuf::from),
        })
    }

    fn gateway(&mut self) -> Option<GatewaySettings> {
        let host = self.host("gateway.host");
        let port = self.port("gateway.port", 0);
        let workers = self.number("gateway.workers", 1..=256);
        let write_stall = self.duration("gateway.write_stall");
        let head_timeout = self.positive("gateway.head_timeout");
        let body_timeout = self.positive("gateway.body_timeout");
        let cors = self.read("gateway.cors_origins", values::ORIGINS, values::origins);
        let rule = "must be host names with commas between, without port and scheme; write for example \
                    `llm.example.com`";
        let allowed_hosts = self.read("gateway.allowed_hosts", rule, values::hosts);
        Some(GatewaySettings {
            host: host?,
            port: port?,
            workers: workers?,
            write_stall: write_stall?,
            head_timeout: head_timeout?,
            body_timeout: body_timeout?,
            cors: cors?,
            allowed_hosts: allowed_hosts?,
        })
    }

    fn upstream(&mut self) -> Option<Upstream> {
        let api_key = self.optional("upstream.api_key").map(Secret::new);
        if api_key
            .as_ref()
            .is_some_and(|key| !key.expose().bytes().all(|byte| byte.is_ascii_graphic()))
        {
            self.problem(
                "upstream.api_key",
                "must be printable ASCII without spaces; copy the token again",
            );
        }
        let ready_timeout = self.positive("upstream.ready_timeout");
        let ready_interval = self.positive("upstream.ready_interval");
        let deadlines = self.deadlines();
        if let Some(args) = &self.raw.spawn {
            let spawned = self.spawn(args, api_key, deadlines);
            return spawned.map(|spawned| Upstream::Spawn(Box::new(spawned)));
        }
        let Some(text) = self.optional("upstream.url") else {
            self.problems.push(NO_UPSTREAM.to_owned());
            return None;
        };
        let base_url = values::upstream(text)
            .map_err(|rule| self.problem("upstream.url", rule))
            .ok();
        Some(Upstream::External(Box::new(UpstreamSettings {
            base_url: base_url?,
            api_key,
            ready_timeout: ready_timeout?,
            ready_interval: ready_interval?,
            deadlines: deadlines?,
            vouch: None,
        })))
    }

    fn spawn(
        &mut self,
        args: &[String],
        api_key: Option<Secret>,
        deadlines: Option<CallDeadlines>,
    ) -> Option<SpawnUpstream> {
        let flagged = |value: &RawValue| value.place == "`--upstream`";
        if self.value("upstream.url").is_some_and(flagged) {
            self.problems.push(
                "`--upstream` and `--` exclude each other; use an existing server or start one"
                    .to_owned(),
            );
        }
        let command = command::read(args).map_err(|errors| {
            self.problems.extend(errors.iter().map(ToString::to_string));
        });
        let startup_timeout = self.positive("vllm.startup_timeout");
        let ready_interval = self.positive("vllm.ready_interval");
        let rule = "must be `restart` or `stop`";
        let on_exit = self.read("vllm.on_exit", rule, |text| match text {
            "restart" => Some(OnExit::Restart),
            "stop" => Some(OnExit::Stop),
            _ => None,
        });
        let rule = "must be the path or name of an executable";
        let program = self.read("vllm.program", rule, |text| {
            (!text.is_empty()).then(|| text.to_owned())
        });
        let command = command.ok()?;
        let own = self
            .value("gateway.port")
            .map_or("5969", |own| own.text.as_str());
        if own == command.port.to_string() {
            self.problems.push(
                "`--port` after `--` is the gateway's own port: give vLLM another, or the gateway with \
                 `--gateway-port`"
                    .to_owned(),
            );
        }
        let spawn = SpawnSettings {
            program: program?,
            startup_timeout: startup_timeout?,
            ready_interval: ready_interval?,
            on_exit: on_exit?,
        };
        let upstream = UpstreamSettings {
            base_url: Url::parse(&command.base_url()).ok()?,
            api_key: command.api_key.clone().or(api_key),
            ready_timeout: startup_timeout?,
            ready_interval: ready_interval?,
            deadlines: deadlines?,
            vouch: None,
        };
        Some(SpawnUpstream {
            command,
            spawn,
            upstream,
        })
    }

    fn deadlines(&mut self) -> Option<CallDeadlines> {
        let connect = self.positive("upstream.connect_timeout");
        let head = self.positive("upstream.head_timeout");
        let idle = self.positive("upstream.idle_timeout");
        let whole = self.within_grace("upstream.whole_timeout");
        let hold_status = self.duration("upstream.hold_status");
        let keep_alive = self.positive("upstream.keep_alive");
        Some(CallDeadlines {
            connect: connect?,
            head: head?,
            idle: idle?,
            whole: whole?,
            hold_status: hold_status?,
            keep_alive: keep_alive?,
        })
    }

    fn store(&mut self) -> Option<StoreSettings> {
        let text = self.value("store.database")?.text.as_str();
        let database = Database::parse(text)
            .map_err(|rule| self.problem("store.database", &rule))
            .ok();
        let pool_size = self.number("store.pool_size", 2..=1000);
        let synchronous =
            self.read(
                "store.synchronous",
                "must be `normal` or `full`",
                |text| match text {
                    "normal" => Some(Synchronous::Normal),
                    "full" => Some(Synchronous::Full),
                    _ => None,
                },
            );
        let retention = match self.optional("store.retention") {
            Some(_) => self.positive("store.retention").map(Some),
            None => Some(None),
        };
        let purge_interval = self.duration("store.purge_interval");
        Some(StoreSettings {
            database: database?,
            synchronous: synchronous?,
            pool_size: pool_size.and_then(|size| u32::try_from(size).ok())?,
            retention: retention?,
            purge_interval: Some(purge_interval?).filter(|interval| !interval.is_zero()),
        })
    }

    /// `None` when the cache is off, or wrong and then reported.
    fn cache(&mut self, omitted_tools: Option<OmittedTools>) -> Option<CacheSettings> {
        const URL: &str =
            "must be `redis://HOST` or `rediss://HOST`, with port, user and database as needed";
        let enabled = self.switch("cache.enabled");
        let host = self.host("cache.redis_host");
        let port = self.port("cache.redis_port", 1);
        let ttl = self.duration("cache.ttl_seconds");
        if ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)) {
            self.problem(
                "cache.ttl_seconds",
                "must be at least one second; write for example `3600`",
            );
        }
        let url = match self.optional("cache.redis_url") {
            Some(_) => self.read("cache.redis_url", URL, redis_url),
            None => host
                .zip(port)
                .map(|(host, port)| default_redis(&host, port)),
        };
        let settings = CacheSettings {
            url: url?,
            ttl: ttl?,
            limit: CacheSettings::LIMIT,
            extent: match omitted_tools? {
                OmittedTools::None => Extent::Items,
                OmittedTools::Inherited => Extent::WithSettings,
            },
        };
        enabled?.then_some(settings)
    }

    fn loop_limits(&mut self) -> Option<LoopLimits> {
        let rounds = self.number("tools.max_rounds", 1..=1_000);
        let wall = self.within_grace("tools.time_limit");
        Some(LoopLimits {
            rounds: u32::try_from(rounds?).unwrap_or(u32::MAX),
            wall_ms: i64::try_from(wall?.as_millis()).unwrap_or(i64::MAX),
        })
    }

    fn protocol(&mut self) -> Option<ProtocolSettings> {
        let rule = "must be `openai` or `open_responses`";
        let reasoning_events = self.read("protocol.reasoning_events", rule, |text| match text {
            "openai" => Some(ReasoningEvents::OpenAi),
            "open_responses" => Some(ReasoningEvents::OpenResponses),
            _ => None,
        });
        let requests = self
            .switch("protocol.strict_requests")
            .map(Strictness::from);
        let tools = self.switch("protocol.strict_tools").map(Strictness::from);
        let inherit = self.switch("protocol.inherit_tools");
        Some(ProtocolSettings {
            reasoning_events: reasoning_events?,
            requests: requests?,
            tools: tools?,
            omitted_tools: if inherit? {
                OmittedTools::Inherited
            } else {
                OmittedTools::None
            },
        })
    }

    fn privacy(&mut self) -> Option<Privacy> {
        const KEYS: &str = "must be keys of 64 hexadecimal digits each, comma between; make one with \
             `openssl rand -hex 32`";
        let zdr = self.switch("privacy.zdr");
        let max_age = match self.optional("privacy.seal_max_age") {
            Some(_) => self.positive("privacy.seal_max_age").map(Some),
            None => Some(None),
        };
        let keys = match self.optional("privacy.seal_keys") {
            Some(_) => self.read("privacy.seal_keys", KEYS, |text| {
                let keys = text.split(',').map(|digits| seal::parse(digits.trim()));
                keys.collect()
            }),
            None => Some(Vec::new()),
        };
        Some(Privacy {
            retention: if zdr? {
                Retention::None
            } else {
                Retention::Asked
            },
            seal: SealSettings {
                keys: keys?,
                max_age: max_age?,
            },
        })
    }

    fn lifecycle(&mut self) -> Option<Lifecycle> {
        let drain_delay = self.duration("lifecycle.drain_delay");
        let shutdown_grace = self.duration("lifecycle.shutdown_grace");
        Some(Lifecycle {
            drain_delay: drain_delay?,
            shutdown_grace: shutdown_grace?,
        })
    }
}

fn redis_url(text: &str) -> Option<Secret> {
    let url = Url::parse(text).ok()?;
    let fits = matches!(url.scheme(), "redis" | "rediss")
        && url.host_str().is_some_and(|host| !host.is_empty());
    fits.then(|| Secret::new(text))
}

/// Database 1, as the Python gateway has it.
fn default_redis(host: &str, port: u16) -> Secret {
    if host.contains(':') {
        Secret::new(&format!("redis://[{host}]:{port}/1"))
    } else {
        Secret::new(&format!("redis://{host}:{port}/1"))
    }
}
