//! The one table of configuration keys: names, default, meaning.
//!
//! Layers, `--help`, `config/default.toml` and `docs/configuration.md` are all made from it, so that
//! a key has every name everywhere or does not exist.

/// How a value is written, for help texts and for quoting in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number; bare in TOML.
    Number,
    /// A number with decimals; bare in TOML.
    Fraction,
    /// A boolean; bare in TOML.
    Switch,
    /// `30`, `30s`, `500ms`, `5m`, `2h`, `30d`.
    Duration,
    /// Bytes: `1048576`, `32MiB`.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One key with all its names.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Dotted TOML key; the identity of the row.
    pub key: &'static str,
    /// Flag of `serve` and `check-config`, dashes included. Secrets have none: process lists show flags.
    pub flag: Option<&'static str>,
    /// Environment variable.
    pub env: &'static str,
    /// Default as a user would write it; empty means unset.
    pub default: &'static str,
    /// How a value is written.
    pub kind: Kind,
    /// One sentence for a newcomer.
    pub meaning: &'static str,
    /// Never printed.
    pub secret: bool,
}

impl Row {
    const fn new(key: &'static str, env: &'static str, default: &'static str, kind: Kind) -> Self {
        Self {
            key,
            flag: None,
            env,
            default,
            kind,
            meaning: "",
            secret: false,
        }
    }

    const fn flag(self, flag: &'static str) -> Self {
        Self {
            flag: Some(flag),
            ..self
        }
    }

    const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }

    const fn means(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    /// The row of a dotted key.
    pub fn find(key: &str) -> Option<&'static Self> {
        TABLE.iter().find(|row| row.key == key)
    }

    /// Whether the key may stand in a TOML file: a file cannot name another file.
    pub fn in_toml(&self) -> bool {
        self.key != CONFIG
    }
}

/// Key of the TOML file's own path.
pub const CONFIG: &str = "config";

use Kind::{Choice, Duration, Fraction, Number, Size, Switch, Text};

/// Every key, grouped as in the TOML file.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    Row::new(CONFIG, "VR_CONFIG", "", Text).flag("--config").means("TOML file with any of these keys; the flag may also name a pipe, as `<(...)` and `/dev/stdin` are."),

    Row::new("gateway.host", "VR_HOST", "0.0.0.0", Text).flag("--gateway-host").means("Address to listen on."),
    Row::new("gateway.port", "VR_PORT", "5969", Number).flag("--gateway-port").means("Port to listen on; 0 lets the system choose."),
    Row::new("gateway.workers", "VR_WORKERS", "1", Number).flag("--gateway-workers").means("Threads that serve HTTP, all in one process."),
    Row::new("gateway.head_timeout", "VR_HEAD_TIMEOUT", "10s", Duration).means("How long a client may take to send the head of a request."),
    Row::new("gateway.body_timeout", "VR_BODY_TIMEOUT", "30s", Duration).means("How long a request body may come more slowly than a kibibyte a second; 10 s without a byte end it too."),
    Row::new("gateway.write_stall", "VR_WRITE_STALL", "60s", Duration).means("How long a client may take no bytes of its answer before it is cut off."),
    Row::new("gateway.cors_origins", "VR_CORS_ORIGINS", "", Text).means("Web pages that may use the gateway: origins such as `https://app.example.com` with commas between, or `*`; unset lets none."),
    Row::new("gateway.allowed_hosts", "VR_ALLOWED_HOSTS", "", Text).means("Names that a gateway without keys may be called by, with commas between, besides addresses, names without a dot and names of private domains such as `.internal`."),

    Row::new("upstream.url", "VR_LLM_API_BASE", "", Text).flag("--upstream").means("URL of a running vLLM server; `/v1` at its end is optional."),
    Row::new("upstream.api_key", "VR_OPENAI_API_KEY", "", Text).secret().means("Bearer token that the upstream asks for."),
    Row::new("upstream.ready_timeout", "VR_UPSTREAM_READY_TIMEOUT", "1800s", Duration).flag("--upstream-ready-timeout").means("How long start-up waits for the upstream's model list."),
    Row::new("upstream.ready_interval", "VR_UPSTREAM_READY_INTERVAL", "5s", Duration).flag("--upstream-ready-interval").means("How often waiting for the upstream is reported."),
    Row::new("upstream.connect_timeout", "VR_UPSTREAM_CONNECT_TIMEOUT", "5s", Duration).means("Longest wait for a connection to the upstream."),
    Row::new("upstream.head_timeout", "VR_UPSTREAM_HEAD_TIMEOUT", "240s", Duration).means("Longest wait for the upstream's status line, streamed calls."),
    Row::new("upstream.idle_timeout", "VR_UPSTREAM_IDLE_TIMEOUT", "240s", Duration).means("Longest silence within an upstream stream."),
    Row::new("upstream.whole_timeout", "VR_UPSTREAM_WHOLE_TIMEOUT", "1800s", Duration).means("Longest duration of an upstream call that is not streamed. At most `1h`."),
    Row::new("upstream.hold_status", "VR_HOLD_STATUS", "5s", Duration).means("How long the client's status line waits for the upstream's."),
    Row::new("upstream.keep_alive", "VR_KEEP_ALIVE", "15s", Duration).means("Silence towards a streaming client after which a comment is sent."),

    Row::new("store.database", "VR_DB_PATH", "vllm_responses.db", Text).secret().means("Where responses are kept: a file path, `sqlite:///FILE` or `postgresql://USER@HOST/DB?sslmode=MODE`."),
    Row::new("store.synchronous", "VR_DB_SYNCHRONOUS", "normal", Choice(&["normal", "full"])).means("SQLite: `full` survives a power cut, `normal` a crash of the process."),
    Row::new("store.pool_size", "VR_DB_POOL_SIZE", "8", Number).means("PostgreSQL: most connections that this process opens, at least 2."),
    Row::new("store.retention", "VR_RETENTION", "", Duration).means("Age at which a response expires; unset keeps it for ever."),
    Row::new("store.purge_interval", "VR_DB_PURGE_INTERVAL", "60s", Duration).means("How often expired and deleted responses are removed; 0 leaves it to `vllm-responses db purge`."),

    Row::new("cache.enabled", "VR_RESPONSE_STORE_CACHE", "false", Switch).means("Whether Redis caches stored responses."),
    Row::new("cache.redis_host", "VR_REDIS_HOST", "localhost", Text).means("Host of Redis, when no Redis URL is given."),
    Row::new("cache.redis_port", "VR_REDIS_PORT", "6379", Number).means("Port of Redis, when no Redis URL is given."),
    Row::new("cache.redis_url", "VR_REDIS_URL", "", Text).secret().means("`redis://` or `rediss://` URL, for TLS, a password or a database number."),
    Row::new("cache.ttl_seconds", "VR_RESPONSE_STORE_CACHE_TTL_SECONDS", "3600", Duration).means("How long a cached response lives; at least one second."),

    Row::new("vllm.program", "VR_VLLM_BIN", "vllm", Text).means("Executable that `serve -- MODEL ...` starts."),
    Row::new("vllm.startup_timeout", "VR_VLLM_STARTUP_TIMEOUT", "1800s", Duration).flag("--vllm-startup-timeout").means("How long a vLLM of ours may load its model."),
    Row::new("vllm.ready_interval", "VR_VLLM_READY_INTERVAL", "5s", Duration).flag("--vllm-ready-interval").means("How often its loading is reported."),
    Row::new("vllm.on_exit", "VR_ON_VLLM_EXIT", "restart", Choice(&["restart", "stop"])).flag("--on-vllm-exit").means("What the end of a vLLM of ours means: start it again, or stop the gateway."),

    Row::new("code_interpreter.mode", "VR_CODE_INTERPRETER_MODE", "", Choice(&["spawn", "external", "disabled"])).flag("--code-interpreter").means("Who runs Python for the model: `spawn`ed processes, an `external` service, or nobody; unset is `spawn` that is done without when it is not installed."),
    Row::new("code_interpreter.bundle", "VR_CODE_INTERPRETER_BUNDLE", "", Text).flag("--code-interpreter-bundle").means("Folder of an installed interpreter; unset means the one of `setup code-interpreter`."),
    Row::new("code_interpreter.cache_dir", "VR_PYODIDE_CACHE_DIR", "", Text).means("Where interpreters are installed; unset means `vllm-responses/code-interpreter` in `$XDG_CACHE_HOME` or `~/.cache`."),
    Row::new("code_interpreter.url", "VR_CODE_INTERPRETER_URL", "", Text).flag("--code-interpreter-url").means("The service of `external`; unset means the one at `code_interpreter.port` of this machine."),
    Row::new("code_interpreter.token", "VR_CODE_INTERPRETER_TOKEN", "", Text).secret().means("Bearer token between `external` and `vllm-responses code-interpreter`; needed unless both are on one machine."),
    Row::new("code_interpreter.host", "VR_CODE_INTERPRETER_HOST", "127.0.0.1", Text).flag("--code-interpreter-host").means("Address that `vllm-responses code-interpreter` listens on; another machine's needs the token, and TLS in front."),
    Row::new("code_interpreter.port", "VR_CODE_INTERPRETER_PORT", "5970", Number).flag("--code-interpreter-port").means("Port of `vllm-responses code-interpreter`."),
    Row::new("code_interpreter.workers", "VR_CODE_INTERPRETER_WORKERS", "2", Number).flag("--code-interpreter-workers").means("Interpreter processes that wait for a call; 0 starts each when it is needed."),
    Row::new("code_interpreter.max_workers", "VR_CODE_INTERPRETER_MAX_WORKERS", "0", Number).means("Most interpreter processes; 0 computes it from the machine's memory."),
    Row::new("code_interpreter.startup_timeout", "VR_CODE_INTERPRETER_STARTUP_TIMEOUT", "600s", Duration).flag("--code-interpreter-startup-timeout").means("How long the first interpreter, or the service of `external`, may take to be there."),
    Row::new("code_interpreter.kept_sessions", "VR_CODE_INTERPRETER_KEPT_SESSIONS", "4", Number).means("Interpreters kept after their response, for a container that is asked for again; 0 keeps none."),
    Row::new("code_interpreter.session_idle", "VR_CODE_INTERPRETER_SESSION_IDLE", "20m", Duration).means("How long one is kept without a call."),
    Row::new("code_interpreter.require_os_sandbox", "VR_CODE_INTERPRETER_REQUIRE_OS_SANDBOX", "false", Switch).flag("--code-interpreter-require-os-sandbox").means("Whether a kernel without Landlock or seccomp is a start-up error instead of a warning."),
    Row::new("code_interpreter.call_timeout", "VR_CODE_INTERPRETER_CALL_TIMEOUT", "30s", Duration).means("Longest run of one call; then its process is killed."),
    Row::new("code_interpreter.python_memory", "VR_CODE_INTERPRETER_PYTHON_MEMORY", "768MiB", Size).means("Python's memory; more is a `MemoryError`."),
    Row::new("code_interpreter.process_memory", "VR_CODE_INTERPRETER_PROCESS_MEMORY", "1536MiB", Size).means("Memory of an interpreter process, held by the kernel."),
    Row::new("code_interpreter.v8_heap", "VR_CODE_INTERPRETER_V8_HEAP", "512MiB", Size).means("JavaScript heap of an interpreter process."),
    Row::new("code_interpreter.output", "VR_CODE_INTERPRETER_OUTPUT", "1MiB", Size).means("Text that a call may write; the rest is dropped and said so."),
    Row::new("code_interpreter.images", "VR_CODE_INTERPRETER_IMAGES", "10", Number).means("Images of a call."),
    Row::new("code_interpreter.image", "VR_CODE_INTERPRETER_IMAGE", "5MiB", Size).means("Size of an image."),

    Row::new("limits.body", "VR_BODY_LIMIT", "32MiB", Size).means("Largest request body."),
    Row::new("limits.json_depth", "VR_JSON_DEPTH", "64", Number).means("Deepest nesting of a request's JSON, 1 to 127."),
    Row::new("limits.max_in_flight", "VR_MAX_IN_FLIGHT", "0", Number).means("Responses that may run at once; 0 computes it from the limit of open files."),
    Row::new("limits.memory", "VR_MEMORY_LIMIT", "512MiB", Size).means("Bytes that requests may make the process take; above 95 % new ones are refused, above 98 % the slowest end."),
    Row::new("limits.requests_per_minute", "VR_REQUESTS_PER_MINUTE", "0", Number).means("Requests of all callers together in any minute; 0 is no limit."),
    Row::new("limits.tokens_per_minute", "VR_TOKENS_PER_MINUTE", "0", Number).means("Tokens, read and written, of all callers together in any minute; 0 is no limit."),
    Row::new("limits.key_concurrent", "VR_KEY_CONCURRENT", "0", Number).means("Responses of one API key that may run at once; 0 is no limit."),
    Row::new("limits.key_requests_per_minute", "VR_KEY_REQUESTS_PER_MINUTE", "0", Number).means("Requests of one API key in any minute; 0 is no limit."),
    Row::new("limits.key_tokens_per_minute", "VR_KEY_TOKENS_PER_MINUTE", "0", Number).means("Tokens, read and written, of one API key in any minute; 0 is no limit."),
    Row::new("limits.window", "VR_LIMIT_WINDOW", "60s", Duration).means("What a minute is in these limits; for tests."),

    Row::new("tools.max_rounds", "VR_MAX_TOOL_ROUNDS", "32", Number).means("Answers of one response that may call gateway tools; then one last is asked for without them."),
    Row::new("tools.time_limit", "VR_TOOL_TIME_LIMIT", "600s", Duration).means("Age at which a response that has called gateway tools fails. At most `1h`."),

    Row::new("protocol.reasoning_events", "VR_REASONING_EVENTS", "openai", Choice(&["openai", "open_responses"])).means("Whose names reasoning events carry."),
    Row::new("protocol.strict_requests", "VR_STRICT_REQUESTS", "false", Switch).means("Whether an unknown request field is refused instead of logged."),
    Row::new("protocol.strict_tools", "VR_STRICT_TOOLS", "false", Switch).means("Whether an unknown tool is refused instead of left out."),
    Row::new("protocol.inherit_tools", "VR_INHERIT_TOOLS", "false", Switch).means("Whether a request that continues a response and omits `tools` has that response's."),

    Row::new("privacy.zdr", "VR_ZDR", "false", Switch).means("Whether no response may be kept: `store: true` and everything that continues by id are refused."),
    Row::new("privacy.seal_keys", "VR_SEAL_KEYS", "", Text).secret().means("Keys of 64 hexadecimal digits, comma between, that seal reasoning for clients: the first seals, all open; unset makes one and keeps it beside the SQLite file or in a row of PostgreSQL."),
    Row::new("privacy.seal_max_age", "VR_SEAL_MAX_AGE", "", Duration).means("Age at which sealed reasoning is refused; unset accepts it as long as its key is known."),

    Row::new("mcp.file", "VR_MCP_CONFIG_PATH", "", Text).flag("--mcp-config").means("`mcp.json` with the operator's MCP servers; when given, the gateway starts their runtime."),
    Row::new("mcp.port", "VR_MCP_PORT", "5981", Number).flag("--mcp-port").means("Port of a runtime that is started by itself, on 127.0.0.1; the gateway's own has none."),
    Row::new("mcp.runtime_url", "VR_MCP_BUILTIN_RUNTIME_URL", "", Text).means("URL of a runtime that runs already, when no `mcp.json` is given; for `mcp-runtime`, the port to listen on."),
    Row::new("mcp.runtime_token", "VR_MCP_RUNTIME_TOKEN", "", Text).secret().means("Bearer token of a runtime that the gateway does not start; needed unless it is on this machine."),
    Row::new("mcp.startup_timeout", "VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "10s", Duration).means("Longest connection, handshake and tool list of an MCP server over HTTP, each."),
    Row::new("mcp.program_startup_timeout", "VR_MCP_STDIO_STARTUP_TIMEOUT_SEC", "60s", Duration).means("The same for servers that are programs, which `npx` and the like fetch first; unless this is set, a `startup_timeout` that is set holds for them too."),
    Row::new("mcp.tool_timeout", "VR_MCP_HOSTED_TOOL_TIMEOUT_SEC", "60s", Duration).means("Longest call of an MCP tool."),
    Row::new("mcp.strict_definitions", "VR_MCP_STRICT_DEFINITIONS", "false", Switch).means("Whether a tool of the operator's servers is left out once its definition has changed."),
    Row::new("mcp.remote_enabled", "VR_MCP_REQUEST_REMOTE_ENABLED", "true", Switch).means("Whether requests may name MCP servers by `server_url`."),
    Row::new("mcp.remote_url_checks", "VR_MCP_REQUEST_REMOTE_URL_CHECKS", "true", Switch).means("Whether those must be `https` URLs of public hosts; `false` opens this machine's networks to every client."),
    Row::new("mcp.remote_allowed_hosts", "VR_MCP_REMOTE_ALLOWED_HOSTS", "", Text).means("Exceptions, `HOST` or `HOST:PORT` with commas between: exactly these may be private and plain `http`."),
    Row::new("mcp.remote_default_approval", "VR_MCP_REMOTE_DEFAULT_APPROVAL", "always", Choice(&["always", "never"])).means("Whether calls of those servers wait for approval when the request does not say."),

    Row::new("lifecycle.drain_delay", "VR_DRAIN_DELAY", "0s", Duration).flag("--drain-delay").means("After SIGTERM, how long requests are still taken while readiness is false."),
    Row::new("lifecycle.shutdown_grace", "VR_SHUTDOWN_GRACE", "30s", Duration).flag("--shutdown-grace").means("How long running requests may take to finish at a stop."),

    Row::new("logging.level", "VR_LOG_LEVEL", "info", Choice(&["off", "error", "warn", "info", "debug", "trace"])).flag("--log-level").means("Least severe log line that is written; `RUST_LOG` replaces it."),
    Row::new("logging.format", "VR_LOG_FORMAT", "text", Choice(&["text", "json"])).means("`text` for people, `json` for one JSON object a line."),
    Row::new("logging.access", "VR_LOG_ACCESS", "true", Switch).means("Whether each request is a line at `info`: method, route, status, time, key, model, tokens; probes and scrapes are at `debug`."),
    Row::new("logging.timings", "VR_LOG_TIMINGS", "false", Switch).means("Whether each response logs where its time went."),
    Row::new("logging.model_messages", "VR_LOG_MODEL_MESSAGES", "false", Switch).means("Whether messages to and from the model are logged, shortened."),

    Row::new("tracing.enabled", "VR_TRACING_ENABLED", "false", Switch).means("Whether spans of requests are sent to a collector, over OTLP and gRPC."),
    Row::new("tracing.service_name", "VR_OTEL_SERVICE_NAME", "vllm-responses", Text).means("Name of this service in traces."),
    Row::new("tracing.sample_ratio", "VR_TRACING_SAMPLE_RATIO", "0.01", Fraction).means("Share of the traces begun here that are recorded, 0 to 1; of a trace that a client began, the client decides."),
    Row::new("tracing.host", "VR_OPENTELEMETRY_HOST", "otel-collector", Text).means("Host of the collector."),
    Row::new("tracing.port", "VR_OPENTELEMETRY_PORT", "4317", Number).means("Its port for OTLP over gRPC, without TLS."),

    Row::new("metrics.enabled", "VR_METRICS_ENABLED", "true", Switch).means("Whether there is a page of metrics."),
    Row::new("metrics.path", "VR_METRICS_PATH", "/metrics", Text).means("Path of that page."),
    Row::new("metrics.auth", "VR_METRICS_AUTH", "false", Switch).means("Whether that page needs a key too, where keys are configured."),

    Row::new("auth.api_keys_file", "VR_API_KEYS_FILE", "", Text).means("File of `NAME SHA256HEX` lines, limits of the key behind them; when given, clients need one of its keys."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_names_and_a_meaning_of_its_own() {
        let unique = |names: Vec<&str>| {
            let count = names.len();
            assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), count);
        };
        unique(TABLE.iter().map(|row| row.key).collect());
        unique(TABLE.iter().map(|row| row.env).collect());
        unique(TABLE.iter().filter_map(|row| row.flag).collect());
        for row in TABLE {
            assert!(row.env.starts_with("VR_"), "{}", row.key);
            assert!(row.meaning.ends_with('.'), "{}", row.key);
            assert!(!(row.secret && row.flag.is_some()), "{}", row.key);
        }
    }
}
