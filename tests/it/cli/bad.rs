//! K1: bad configurations. Each ends with exit code 2 and all its errors; no bad value is shown.

use super::{Place, text};

/// Arguments after `check-config`, environment, TOML (via `VR_CONFIG`), `.env`, and the beginnings of
/// the expected error lines, in any order but complete.
struct Case {
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    toml: &'static str,
    dotenv: &'static str,
    errors: &'static [&'static str],
}

const GOOD: &str = "http://h";

const fn flags(args: &'static [&'static str], errors: &'static [&'static str]) -> Case {
    Case {
        args,
        env: &[],
        toml: "",
        dotenv: "",
        errors,
    }
}

const fn env(
    env: &'static [(&'static str, &'static str)],
    errors: &'static [&'static str],
) -> Case {
    Case {
        args: &["--upstream", GOOD],
        env,
        toml: "",
        dotenv: "",
        errors,
    }
}

const fn toml(toml: &'static str, errors: &'static [&'static str]) -> Case {
    Case {
        args: &["--upstream", GOOD],
        env: &[],
        toml,
        dotenv: "",
        errors,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    flags(&[], &["no upstream is configured; give the URL of a vLLM server with `--upstream URL`, with `VR_LLM_API_BASE=URL`"]),
    flags(&["--upstream", ""], &["`--upstream`: must be a URL"]),
    flags(&["--upstream", "h:1"], &["`--upstream`: must begin with http://"]),
    flags(&["--upstream", "ftp://h"], &["`--upstream`: must begin with http://"]),
    flags(&["--upstream", "http://u:CANARY@h"], &["`--upstream`: must not hold a user"]),
    flags(&["--upstream", "http://h?k=CANARY"], &["`--upstream`: must have no query"]),
    flags(&["--upstream", "http://h#f"], &["`--upstream`: must have no query"]),
    flags(&["--upstream", "http://h/v1/chat/completions"], &["`--upstream`: names an endpoint"]),
    env(&[("VR_DB_PATH", "[redacted]")], &["`VR_DB_PATH`: `[redacted]` stands for a secret"]),
    env(&[("vr_port", "1")], &["`vr_port`: names are upper case; write `VR_PORT`"]),
    env(&[("VR_BODY_LIMIT", "32MB")], &["`VR_BODY_LIMIT`: must be a size of at least one byte, in `KiB`, `MiB`"]),
    env(&[("VR_ALLOWED_HOSTS", "http://h")], &["`VR_ALLOWED_HOSTS`: must be host names"]),
    env(&[("VR_MCP_REMOTE_ALLOWED_HOSTS", "*.corp")], &["`VR_MCP_REMOTE_ALLOWED_HOSTS`: must be `HOST`"]),
    toml("[upstrem]\nurl = \"http://h\"\n", &["`upstrem` in c.toml: unknown key; did you mean `upstream`?"]),
    Case { args: &["--upstream", GOOD], env: &[], toml: "", dotenv: "set VR_API_KEYS_FILE=CANARY\n",
        errors: &["`.env` line 1: must be NAME=VALUE"] },
    flags(&["--upstream", GOOD, "--", "m"], &["`--upstream` and `--` exclude each other"]),
    flags(&["--upstream", GOOD, "--mcp-port", "5000"], &["`--mcp-port`: is of use with an `mcp.json` only"]),
    flags(&["--upstream", GOOD, "--mcp-config", "no-such-file"], &["`--mcp-config`: the file cannot be read"]),
    env(&[("VR_MCP_BUILTIN_RUNTIME_URL", "http://mcp.example.com:5981")], &["`VR_MCP_BUILTIN_RUNTIME_URL`: must be on this machine"]),
    env(&[("VR_MCP_BUILTIN_RUNTIME_URL", "https://mcp.example.com")], &["`VR_MCP_BUILTIN_RUNTIME_URL`: must be on this machine"]),
    env(&[("VR_MCP_BUILTIN_RUNTIME_URL", "http://u:CANARY@127.0.0.1:1")], &["`VR_MCP_BUILTIN_RUNTIME_URL`: must be an `http` or `https` URL"]),
    env(&[("VR_MCP_REMOTE_ALLOWED_HOSTS", "a/b")], &["`VR_MCP_REMOTE_ALLOWED_HOSTS`: must be `HOST` or `HOST:PORT`"]),
    env(&[("VR_MCP_REMOTE_DEFAULT_APPROVAL", "maybe")], &["`VR_MCP_REMOTE_DEFAULT_APPROVAL`: must be `always` or `never`"]),
    flags(&["--"], &["nothing follows `--`; give the model"]),
    flags(&["--", "--port", "1"], &["the first argument after `--` must be the model"]),
    flags(&["--", "m", "--port", "x", "--uds", "s"], &["`--port` after `--` must be a number", "`--uds` after `--` is not supported"]),
    flags(&["--upstream", GOOD, "--gateway-port", "abc"], &["`--gateway-port`: must be a port"]),
    flags(&["--upstream", GOOD, "--gateway-port", "65536"], &["`--gateway-port`: must be a port"]),
    flags(&["--upstream", GOOD, "--gateway-port", "-1"], &["`--gateway-port`: must be a port"]),
    flags(&["--upstream", GOOD, "--gateway-workers", "0"], &["`--gateway-workers`: must be a whole number; write one from 1"]),
    flags(&["--upstream", GOOD, "--gateway-host", "a b"], &["`--gateway-host`: must be an IP address"]),
    flags(&["--upstream", GOOD, "--drain-delay", "5 weeks"], &["`--drain-delay`: must be a duration"]),
    flags(&["--upstream", GOOD, "--shutdown-grace", "-1"], &["`--shutdown-grace`: must be a duration"]),
    flags(&["--upstream", GOOD, "--upstream-ready-timeout", "0"], &["`--upstream-ready-timeout`: must be longer than zero"]),
    flags(&["--upstream", GOOD, "--log-level", "loud"], &["`--log-level`: must be `off`"]),
    flags(&["--upstream", GOOD, "--config", "absent.toml"], &["configuration file `absent.toml`: cannot be read"]),
    env(&[("VR_PORT", "70000")], &["`VR_PORT`: must be a port"]),
    env(&[("VR_WORKERS", "many")], &["`VR_WORKERS`: must be a whole number"]),
    env(&[("VR_OPENAI_API_KEY", "CANARY two")], &["`VR_OPENAI_API_KEY`: must be printable"]),
    env(&[("VR_DB_PATH", "mysql://u:CANARY@h/d")], &["`VR_DB_PATH`: must be a file path"]),
    env(&[("VR_DB_SYNCHRONOUS", "off")], &["`VR_DB_SYNCHRONOUS`: must be `normal`"]),
    env(&[("VR_RETENTION", "0")], &["`VR_RETENTION`: must be longer than zero"]),
    env(&[("VR_RETENTION", "month")], &["`VR_RETENTION`: must be a duration"]),
    env(&[("VR_DB_PATH", "postgres://u:CANARY@h:port/d")], &["`VR_DB_PATH`: must be `postgresql://USER"]),
    env(&[("VR_DB_PATH", "postgres://u:CANARY@h/d?sslmode=on")], &["`VR_DB_PATH`: `sslmode` must be `disable`"]),
    env(&[("VR_DB_POOL_SIZE", "1")], &["`VR_DB_POOL_SIZE`: must be a whole number; write one from 2"]),
    env(&[("VR_DB_PURGE_INTERVAL", "often")], &["`VR_DB_PURGE_INTERVAL`: must be a duration"]),
    env(&[("VR_RESPONSE_STORE_CACHE", "2")], &["`VR_RESPONSE_STORE_CACHE`: must be a boolean"]),
    env(&[("VR_REDIS_HOST", "redis://:CANARY@h")], &["`VR_REDIS_HOST`: must be an IP address"]),
    env(&[("VR_REDIS_PORT", "0")], &["`VR_REDIS_PORT`: must be a port"]),
    env(&[("VR_REDIS_URL", "http://:CANARY@h")], &["`VR_REDIS_URL`: must be `redis://HOST`"]),
    env(&[("VR_RESPONSE_STORE_CACHE_TTL_SECONDS", "0")], &["`VR_RESPONSE_STORE_CACHE_TTL_SECONDS`: must be at least one second"]),
    env(&[("VR_BODY_LIMIT", "1MB")], &["`VR_BODY_LIMIT`: must be a size"]),
    env(&[("VR_BODY_LIMIT", "0")], &["`VR_BODY_LIMIT`: must be a size"]),
    env(&[("VR_JSON_DEPTH", "128")], &["`VR_JSON_DEPTH`: must be a whole number; write one from 1 to 127"]),
    env(&[("VR_MAX_IN_FLIGHT", "-1")], &["`VR_MAX_IN_FLIGHT`: must be a whole number"]),
    env(&[("VR_REASONING_EVENTS", "both")], &["`VR_REASONING_EVENTS`: must be `openai`"]),
    env(&[("VR_STRICT_TOOLS", "maybe")], &["`VR_STRICT_TOOLS`: must be a boolean"]),
    env(&[("VR_LOG_FORMAT", "xml")], &["`VR_LOG_FORMAT`: must be `text`"]),
    env(&[("VR_UPSTREAM_IDLE_TIMEOUT", "0s")], &["`VR_UPSTREAM_IDLE_TIMEOUT`: must be longer than zero"]),
    env(&[("VR_WRITE_STALL", "soon")], &["`VR_WRITE_STALL`: must be a duration"]),
    env(&[("VR_UPSTREAM_CONNECT_TIMEOUT", "0")], &["`VR_UPSTREAM_CONNECT_TIMEOUT`: must be longer than zero"]),
    env(&[("VR_UPSTREAM_HEAD_TIMEOUT", "1.5s")], &["`VR_UPSTREAM_HEAD_TIMEOUT`: must be a duration"]),
    env(&[("VR_UPSTREAM_WHOLE_TIMEOUT", "0")], &["`VR_UPSTREAM_WHOLE_TIMEOUT`: must be longer than zero"]),
    env(&[("VR_HOLD_STATUS", "-1s")], &["`VR_HOLD_STATUS`: must be a duration"]),
    env(&[("VR_KEEP_ALIVE", "0")], &["`VR_KEEP_ALIVE`: must be longer than zero"]),
    env(&[("VR_UPSTREAM_READY_INTERVAL", "0s")], &["`VR_UPSTREAM_READY_INTERVAL`: must be longer than zero"]),
    env(&[("VR_MAX_TOOL_ROUNDS", "0")], &["`VR_MAX_TOOL_ROUNDS`: must be a whole number; write one from 1"]),
    env(&[("VR_TOOL_TIME_LIMIT", "2h")], &["`VR_TOOL_TIME_LIMIT`: must be at most `1h`"]),
    env(&[("VR_TOOL_TIME_LIMIT", "0")], &["`VR_TOOL_TIME_LIMIT`: must be longer than zero"]),
    env(&[("VR_STRICT_REQUESTS", "2")], &["`VR_STRICT_REQUESTS`: must be a boolean"]),
    env(&[("VR_INHERIT_TOOLS", "some")], &["`VR_INHERIT_TOOLS`: must be a boolean"]),
    env(&[("VR_ZDR", "maybe")], &["`VR_ZDR`: must be a boolean"]),
    env(&[("VR_SEAL_KEYS", "CANARY")], &["`VR_SEAL_KEYS`: must be keys of 64 hexadecimal digits"]),
    env(&[("VR_SEAL_MAX_AGE", "0")], &["`VR_SEAL_MAX_AGE`: must be longer than zero"]),
    env(&[("VR_DRAIN_DELAY", "ten")], &["`VR_DRAIN_DELAY`: must be a duration"]),
    env(&[("VR_LOG_TIMINGS", "ms")], &["`VR_LOG_TIMINGS`: must be a boolean"]),
    env(&[("VR_LOG_MODEL_MESSAGES", "2")], &["`VR_LOG_MODEL_MESSAGES`: must be a boolean"]),
    env(&[("VR_LOG_LEVEL", "verbose")], &["`VR_LOG_LEVEL`: must be `off`"]),
    env(&[("VR_TRACING_ENABLED", "otlp")], &["`VR_TRACING_ENABLED`: must be a boolean"]),
    env(&[("VR_TRACING_SAMPLE_RATIO", "1.5")], &["`VR_TRACING_SAMPLE_RATIO`: must be a share from 0 to 1"]),
    env(&[("VR_TRACING_SAMPLE_RATIO", "nan")], &["`VR_TRACING_SAMPLE_RATIO`: must be a share from 0 to 1"]),
    env(&[("VR_TRACING_SAMPLE_RATIO", "1%")], &["`VR_TRACING_SAMPLE_RATIO`: must be a share from 0 to 1"]),
    env(&[("VR_OTEL_SERVICE_NAME", "two\nlines")], &["`VR_OTEL_SERVICE_NAME`: must be a name"]),
    env(&[("VR_OPENTELEMETRY_HOST", "http://u:CANARY@h")], &["`VR_OPENTELEMETRY_HOST`: must be an IP address"]),
    env(&[("VR_OPENTELEMETRY_PORT", "0")], &["`VR_OPENTELEMETRY_PORT`: must be a port"]),
    env(&[("VR_CORS_ORIGINS", "app.example.com")], &["`VR_CORS_ORIGINS`: must be `*`, or origins"]),
    env(&[("VR_CORS_ORIGINS", "https://a.example/,*")], &["`VR_CORS_ORIGINS`: must be `*`, or origins"]),
    env(&[("VR_MCP_REQUEST_REMOTE_ENABLED", "x")], &["`VR_MCP_REQUEST_REMOTE_ENABLED`: must be a boolean"]),
    env(&[("VR_MCP_REQUEST_REMOTE_URL_CHECKS", "x")], &["`VR_MCP_REQUEST_REMOTE_URL_CHECKS`: must be a boolean"]),
    env(&[("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "0")], &["`VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC`: must be longer than zero"]),
    env(&[("VR_MCP_HOSTED_TOOL_TIMEOUT_SEC", "no")], &["`VR_MCP_HOSTED_TOOL_TIMEOUT_SEC`: must be a duration"]),
    env(&[("VR_MCP_STRICT_DEFINITIONS", "3")], &["`VR_MCP_STRICT_DEFINITIONS`: must be a boolean"]),
    env(&[("VR_CODE_INTERPRETER_KEPT_SESSIONS", "-1")], &["`VR_CODE_INTERPRETER_KEPT_SESSIONS`: must be a whole number"]),
    env(&[("VR_CODE_INTERPRETER_CALL_TIMEOUT", "0")], &["`VR_CODE_INTERPRETER_CALL_TIMEOUT`: must be"]),
    env(&[("VR_CODE_INTERPRETER_OUTPUT", "lots")], &["`VR_CODE_INTERPRETER_OUTPUT`: must be"]),
    env(&[("VR_API_KEYS_FILE", "absent")], &["`VR_API_KEYS_FILE`: cannot be read"]),
    env(&[("VR_API_KEYS_FILE", ".env")], &["`VR_API_KEYS_FILE`: holds no key"]),
    flags(&["--upstream", GOOD, "--code-interpreter", "spawn"], &["`--code-interpreter`: no code interpreter at"]),
    flags(&["--upstream", GOOD, "--code-interpreter-bundle", "absent"], &["`--code-interpreter-bundle`: no code interpreter at absent: manifest.json is not there; run `vllm-responses setup"]),
    flags(&["--upstream", GOOD, "--code-interpreter", "maybe"], &["`--code-interpreter`: must be `spawn`"]),
    flags(&["--upstream", GOOD, "--code-interpreter", "external", "--code-interpreter-url", "http://h:5970"], &["`--code-interpreter-url`: must be on this machine"]),
    flags(&["--upstream", GOOD, "--code-interpreter", "external", "--code-interpreter-url", "https://h"], &["`--code-interpreter-url`: must be on this machine (127.0.0.1, ::1 or localhost), or `https` with"]),
    flags(&["--upstream", GOOD, "--code-interpreter", "external", "--code-interpreter-url", "https://localhost", "--code-interpreter-port", "1"], &["`--code-interpreter-port`: is where `vllm-responses code-interpreter` listens"]),
    flags(&["--upstream", GOOD, "--code-interpreter-port", "5971"], &["`--code-interpreter-port`: is where `vllm-responses code-interpreter` listens"]),
    env(&[("VR_CODE_INTERPRETER_HOST", "example.com")], &["`VR_CODE_INTERPRETER_HOST`: must be an IP address"]),
    env(&[("VR_CODE_INTERPRETER_TOKEN", "CANARY")], &["`VR_CODE_INTERPRETER_TOKEN`: is used with `--code-interpreter external` only"]),
    flags(&["--upstream", GOOD, "--code-interpreter-url", "http://h"], &["`--code-interpreter-url`: is used with `--code-interpreter external` only"]),
    flags(&["--upstream", GOOD, "--code-interpreter", "external", "--code-interpreter-port", "0"], &["`--code-interpreter-port`: must be a port"]),
    flags(&["--upstream", GOOD, "--code-interpreter-workers", "65"], &["`--code-interpreter-workers`: must be a whole number"]),
    flags(&["--upstream", GOOD, "--code-interpreter-require-os-sandbox=maybe"], &["`--code-interpreter-require-os-sandbox`: must be a boolean"]),
    flags(&["--upstream", GOOD, "--code-interpreter", "external", "--code-interpreter-url", "http://u:CANARY@h"], &["`--code-interpreter-url`: must be a URL like"]),
    env(&[("VR_CODE_INTERPRETER_MODE", "spawn")], &["`VR_CODE_INTERPRETER_MODE`: no code interpreter at"]),
    env(&[("VR_CODE_INTERPRETER_MODE", "external"), ("VR_CODE_INTERPRETER_TOKEN", "CANARY two")], &["`VR_CODE_INTERPRETER_TOKEN`: must be printable"]),
    env(&[("VR_CODE_INTERPRETER_PYTHON_MEMORY", "8GiB"), ("VR_CODE_INTERPRETER_PROCESS_MEMORY", "9GiB")], &["`VR_CODE_INTERPRETER_PYTHON_MEMORY`: must be at most `4GiB`"]),
    env(&[("VR_CODE_INTERPRETER_PROCESS_MEMORY", "768MiB")], &["`VR_CODE_INTERPRETER_PROCESS_MEMORY`: must be at least `code_interpreter.python_memory`"]),
    env(&[("VR_CODE_INTERPRETER_MAX_WORKERS", "1")], &["`VR_CODE_INTERPRETER_MAX_WORKERS`: must be at least"]),
    toml("gateway.prot = 1", &["`gateway.prot` in c.toml: unknown key; did you mean `gateway.port`?"]),
    toml("[gatewy]\nport = 1", &["`gatewy` in c.toml: unknown key"]),
    toml("config = \"x\"", &["`config` in c.toml: unknown key"]),
    toml("gateway.port = [1]", &["`gateway.port` in c.toml: must be text, a whole number"]),
    toml("gateway = 1", &["`gateway` in c.toml: unknown key"]),
    toml("gateway.port = 1.5", &["`gateway.port` in c.toml: must be text, a whole number"]),
    toml("tracing.sample_ratio = 2.0", &["`tracing.sample_ratio` in c.toml: must be a share from 0 to 1"]),
    toml("tracing.ratio = 1", &["`tracing.ratio` in c.toml: unknown key"]),
    toml("[logging]\ntiming = true", &["`logging.timing` in c.toml: unknown key; did you mean `logging.timings`?"]),
    toml("[gateway]\nport = 1\nport = 2", &["configuration file `c.toml` line 3: not valid TOML"]),
    toml("gateway.port = \"x\"", &["`gateway.port` in c.toml: must be a port"]),
    toml("[upstream]\napi_key = CANARY", &["configuration file `c.toml` line 2: not valid TOML"]),
    Case { args: &[], env: &[], toml: "", dotenv: "VR_LLM_API_BASE=ftp://CANARY", errors: &["`VR_LLM_API_BASE` in .env: must begin with http://"] },
    Case {
        args: &["--gateway-port", "x", "--gateway-workers", "0"],
        env: &[("VR_LOG_FORMAT", "xml"), ("VR_DB_PATH", "mysql://CANARY")],
        toml: "limits.json_depth = 0\nstore.retain = \"1d\"",
        dotenv: "VR_REDIS_PORT=no\n",
        errors: &[
            "no upstream is configured", "`--gateway-port`: must", "`--gateway-workers`: must", "`VR_LOG_FORMAT`: must",
            "`VR_DB_PATH`: must", "`limits.json_depth` in c.toml: must", "`store.retain` in c.toml: unknown key",
            "`VR_REDIS_PORT` in .env: must",
        ],
    },
];

#[test]
fn k1_every_problem_is_reported_and_the_exit_code_is_2() {
    for (index, case) in CASES.iter().enumerate() {
        for command in ["check-config", "serve"] {
            let place = Place::new();
            place.file("c.toml", case.toml);
            place.file(".env", case.dotenv);
            let args: Vec<_> = [command].iter().chain(case.args).copied().collect();
            let mut env = case.env.to_vec();
            if !case.args.contains(&"--config") {
                env.push(("VR_CONFIG", "c.toml"));
            }
            let output = place.run(&args, &env);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "case {index}: {stderr}");
            // What is only unfinished is shown.
            let shown = command == "check-config"
                && case.errors.len() == 1
                && case.errors[0].starts_with("no upstream is configured");
            assert_eq!(output.stdout.is_empty(), !shown, "case {index}");
            assert!(!stderr.contains("CANARY"), "case {index}: {stderr}");
            assert_eq!(
                stderr
                    .lines()
                    .filter(|line| line.starts_with("error: "))
                    .count(),
                case.errors.len(),
                "case {index}: {stderr}"
            );
            for error in case.errors {
                let found = stderr
                    .lines()
                    .any(|line| line.starts_with(&format!("error: {error}")));
                assert!(found, "case {index}: no `{error}` in: {stderr}");
            }
        }
    }
    assert!(CASES.len() + super::bad_files::cases() >= 100);
}

#[test]
fn k1_wrong_usage_is_2_and_quotes_no_secret() {
    for args in [
        &[][..],
        &["serv"],
        &["serve", "stray"],
        &["serve", "--openai-api-key=CANARY"],
        &["keys", "new", "a/b"],
    ] {
        let output = Place::new().run(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            !text(&output.stderr).is_empty() && !text(&output.stderr).contains("CANARY"),
            "{args:?}"
        );
    }
}
