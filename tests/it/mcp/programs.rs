//! Programs of `mcp.json`: how their end is told, and what of their variables is.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{STDIO, calls, eventually, wait_available, write_file};
use crate::api::keys::new_key;
use crate::harness::tree::until;
use crate::harness::{Fake, Script, TestGateway};

fn start(fake: &Fake, folder: &TempDir, servers: &Value) -> TestGateway {
    let file = write_file(folder.path(), servers);
    TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .start()
}

fn shell(line: &str, env: &Value) -> Value {
    json!({"command": "/bin/sh", "args": ["-c", line], "env": env})
}

/// The fault: a program that ended at once was `the connection broke off`, without how and why.
#[test]
fn a_program_that_ends_is_told_with_its_end_and_its_last_line() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let servers = json!({
        "coded": shell("echo one >&2; echo 'boom: no such module' >&2; exit 3", &json!({})),
        "struck": shell("kill -9 $$", &json!({})),
        "hushed": shell("echo \"bad key $SOME_TOKEN\" >&2; exit 1", &json!({"SOME_TOKEN": "abcdefgh-1"})),
    });
    let gateway = start(&fake, &folder, &servers);
    for (label, expected) in [
        (
            "coded",
            "its program `sh` ended (exit status 3; its last line: boom: no such module)",
        ),
        (
            "struck",
            "its program `sh` ended (killed by SIGKILL; without a word on standard error)",
        ),
        (
            "hushed",
            "its program `sh` ended (exit status 1; its last line: bad key ***)",
        ),
    ] {
        let error = |servers: &Value| {
            let mut all = servers["data"]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .into_iter();
            let own = all.find(|server| server["server_label"] == label);
            own.map_or(Value::Null, |own| own["error"].clone())
        };
        let servers = eventually(gateway.client(), "/v1/mcp/servers", |_, servers| {
            error(servers).is_string()
        });
        let said = error(&servers).to_string();
        assert!(said.contains(expected), "{said}");
        assert!(said.contains(&format!("`mcpServers.{label}`")), "{said}");
        until("the log has it", || gateway.log().contains(expected));
    }
    assert!(!gateway.log().contains("abcdefgh-1"));
}

/// What the operator gave a program may be a secret whatever its name: it comes back nowhere.
#[test]
fn t5_variables_of_a_program_come_back_in_no_result_list_or_log() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    std::fs::write(
        folder.path().join("said.py"),
        STDIO.replace("All variables", "For acc-00112233"),
    )
    .unwrap();
    let line = format!(
        "echo \"for $ACCOUNT with $GITHUB_TOKEN\" >&2; exec python3 {}/said.py",
        folder.path().display()
    );
    let env =
        json!({"ACCOUNT": "acc-00112233", "GITHUB_TOKEN": "correct-horse", "PLACE": "/srv/place"});
    let gateway = start(&fake, &folder, &json!({"p": shell(&line, &env)}));
    wait_available(gateway.client(), "p");
    fake.set(
        "m",
        [calls(&[("mcp__p__env", "{}")]), Script::completion("x")],
    );
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let reply = gateway
        .client()
        .create(&json!({"model": "m", "input": "x", "tools": tools}));
    let said = reply.text();
    assert!(
        said.contains("/srv/place") && said.contains("For ***"),
        "{said}"
    );
    until("the log has it", || {
        gateway.log().contains("mcp p| for *** with ***")
    });
    let listed = gateway.client().get("/v1/mcp/servers/p/tools").text();
    for text in [said, listed, gateway.log(), format!("{:?}", fake.seen("m"))] {
        assert!(
            !text.contains("acc-00112233") && !text.contains("correct-horse"),
            "{text}"
        );
    }
}

/// The fault: whatever a program wrote to its standard error was on the status page of every client, with
/// the secrets that it had been given.
#[test]
fn t5_lines_of_programs_have_no_secret_and_are_not_for_clients() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let env = json!({"API_TOKEN": "canary+token/3", "DB_PASS": "correct-horse",
        "DSN": "postgres://u:canary-password@h/d"});
    let line = "echo \"fatal: cannot log in with $API_TOKEN, $DB_PASS, $DSN\" >&2; \
                echo '{\"token\": \"canary+token\\/3\"}' >&2; exit 3";
    let servers = json!({"d": shell(line, &env)});
    let told = "fatal: cannot log in with ***, ***, ***";
    let secrets = ["canary", "correct-horse"];
    let clean = |text: &str| {
        assert!(
            !secrets.iter().any(|secret| text.contains(secret)),
            "{text}"
        );
    };
    let open = start(&fake, &folder, &servers);
    until("the log has it", || open.log().contains(told));
    // Without keys, the page of this machine has the lines.
    until("the page has it", || {
        open.client().get("/v1/status").text().contains(told)
    });
    let servers_page = open.client().get("/v1/mcp/servers").text();
    for text in [
        open.log(),
        open.client().get("/v1/status").text(),
        servers_page,
    ] {
        clean(&text);
    }
    drop(open);
    let (key, line) = new_key("ann");
    let keys = folder.path().join("keys");
    std::fs::write(&keys, line).unwrap();
    let file = write_file(folder.path(), &servers);
    let closed = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .env("VR_API_KEYS_FILE", keys.to_str().unwrap())
        .start();
    until("the log has it", || closed.log().contains(told));
    let shown = ("authorization", format!("Bearer {key}"));
    let shown = [(shown.0, shown.1.as_str())];
    let page = closed.client().send("GET", "/v1/status", &shown, b"");
    let page = page.json();
    let runtime = &page["children"][0];
    assert_eq!(runtime["name"], "mcp-runtime", "{page}");
    assert_eq!(runtime["last_lines"], json!([]), "{page}");
    clean(&closed.log());
}

/// The fault: it was told as a program that is missing.
#[test]
fn a_folder_that_is_missing_is_told_as_such() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let mut server = shell("exit 0", &json!({}));
    server["cwd"] = json!("/no/such/folder");
    let gateway = start(&fake, &folder, &json!({"nocwd": server}));
    let servers = eventually(gateway.client(), "/v1/mcp/servers", |_, servers| {
        servers["data"][0]["error"].is_string()
    });
    let said = servers["data"][0]["error"].to_string();
    assert!(
        said.contains("its working directory (`cwd`) is not there") && !said.contains("not found"),
        "{said}"
    );
}

/// The fault: a key of several lines, letters that are not ASCII, what a variable's JSON has in it, and
/// arguments came back in results, lines and the database.
#[test]
fn t5_secrets_of_programs_come_back_in_no_form() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    std::fs::write(folder.path().join("said.py"), STDIO).unwrap();
    let line = format!(
        "printf '%s\\n' \"key: $APP_PRIVATE_KEY\" \"with $DB_PASSWORD\" \"is $2 or $3\" \
         '{{\"p\": \"p\\u00e4ss-canary-1\", \"s\": \"gc-canary-2\"}}' end-of-lines >&2; \
         SHOWN=\"so $2 or $3\" INNER=gc-canary-2 exec python3 {}/said.py",
        folder.path().display()
    );
    let mut server = shell(
        &line,
        &json!({
            "APP_PRIVATE_KEY": "-----BEGIN PRIVATE KEY-----\nMIIEcanary3\nMIIEcanary4\n-----END PRIVATE KEY-----",
            "DB_PASSWORD": "p\u{e4}ss-canary-1",
            "GOOGLE_CREDENTIALS": r#"{"type": "account", "client_secret": "gc-canary-2"}"#,
        }),
    );
    let args = server["args"].as_array_mut().unwrap();
    args.extend(["sh", "--header", "X-Key: arg-canary-5", "${ARGTOK}"].map(Value::from));
    let file = write_file(folder.path(), &json!({"p": server}));
    let gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .env("ARGTOK", "filled-canary-6")
        .start();
    wait_available(gateway.client(), "p");
    let script = [calls(&[("mcp__p__env", "{}")]), Script::completion("x")];
    fake.set("m", script);
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let asked = json!({"model": "m", "input": "x", "tools": tools});
    let said = gateway.client().create(&asked).text();
    assert!(
        said.contains("GOOGLE_CREDENTIALS") && said.contains("so X-Key: *** or ***"),
        "{said}"
    );
    until("the log has it", || gateway.log().contains("end-of-lines"));
    let log = gateway.log();
    for told in [
        "mcp p| key: ***",
        "mcp p| with ***",
        "mcp p| is X-Key: *** or ***",
    ] {
        assert!(log.contains(told), "{log}");
    }
    assert!(log.contains(r#"{"p": "***", "s": "***"}"#), "{log}");
    let status = gateway.client().get("/v1/status").text();
    for text in [said, status, log, format!("{:?}", fake.seen("m"))] {
        assert!(!text.contains("canary"), "{text}");
    }
}
