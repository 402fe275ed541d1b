//! Files of operators, good and bad.

use super::*;

fn read(text: &str) -> Result<McpFile, Vec<String>> {
    decode(
        text,
        Surroundings {
            env: &|name| (name == "TOKEN").then(|| "hush".to_owned()),
            is_url: &|url| url.starts_with("http") && url.contains("://h"),
        },
    )
}

#[test]
fn both_kinds_of_servers() {
    let file = read(
        r#"{"mcpServers": {
            "files": {"command": "npx", "args": ["-y", "${DIR:-/tmp}"], "env": {"KEY": "x${TOKEN}y"}, "cwd": "/srv"},
            "web": {"url": "https://host/mcp", "headers": {"X-Key": "${TOKEN}"}, "auth": "t",
                    "required": true, "require_approval": "always", "disabled": false}
        }}"#,
    )
    .unwrap();
    let Transport::Stdio(files) = &file.servers["files"].transport else {
        panic!("not stdio");
    };
    assert_eq!(*files.args[1], *"/tmp");
    assert_eq!(files.env[0].1.expose(), "xhushy");
    let web = &file.servers["web"];
    assert!(web.required);
    assert_eq!(web.approval, DefaultApproval::Always);
    assert_eq!(web.transport.word(), "auto");
    assert_eq!(file.notices, ["`mcpServers.web.disabled` is not used"]);
    assert!(!format!("{file:?}").contains("hush"), "secrets show");
}

#[test]
fn every_problem_is_reported_with_its_place_and_without_values() {
    let problems = read(
        r#"{"mcpServers": {
            "a b": {"url": "https://host"},
            "obj": 5,
            "nest": {"transport": {"type": "stdio", "command": "SECRET"}},
            "mix": {"command": "x", "url": "https://host", "transport": "sse"},
            "empty": {"command": "", "args": ["a", 1], "env": {"K": 2}},
            "none": {},
            "rel": {"url": "SECRET/mcp", "headers": {"H": null}},
            "tr": {"url": "https://host", "transport": "carrier-pigeon"},
            "bare": {"transport": "stdio"},
            "var": {"url": "https://host/${UNSET}", "auth": 3, "authentication": {}}
        }}"#,
    )
    .unwrap_err();
    let all = problems.join("\n");
    for wanted in [
        "`mcpServers.a b` must be named",
        "`mcpServers.obj` must be an object",
        "`mcpServers.nest.transport` must be a string; a stdio server has `command`",
        "`mcpServers.mix.url` must be absent",
        "`mcpServers.mix.transport` must be `stdio` or absent",
        "`mcpServers.empty.command` must be a non-empty string",
        "`mcpServers.empty.args[1]` must be a string",
        "`mcpServers.empty.env.K` must be a string",
        "`mcpServers.none.url` is required",
        "`mcpServers.rel.url` must be an absolute",
        "`mcpServers.rel.headers.H` must be a string",
        "`mcpServers.tr.transport` must be one of `auto`",
        "`mcpServers.bare.command` is required",
        "`mcpServers.var.url` must be resolvable: `UNSET` is not set",
        "`mcpServers.var.auth` must be a string",
        "`mcpServers.var.authentication` must be absent",
    ] {
        assert!(all.contains(wanted), "{wanted}\n---\n{all}");
    }
    assert!(!all.contains("SECRET"), "{all}");
}

#[test]
fn files_that_are_none() {
    assert!(read("{").unwrap_err()[0].contains("line 1, column 1"));
    assert!(read("[]").unwrap_err()[0].contains("must be one JSON object"));
    assert_eq!(read("{}").unwrap_err(), ["`mcpServers` is required"]);
    let open = r#"{"mcpServers":{"a":{"command":"${X"}}}"#;
    assert!(read(open).unwrap_err()[0].contains("needs its `}`"));
    let twice = r#"{"mcpServers":{"a":{"command":"x"},"a":{"command":"y"}}}"#;
    assert!(read(twice).unwrap_err()[0].contains("more than once"));
    assert!(read(&"[".repeat(50)).unwrap_err()[0].starts_with("the file must not be nested"));
    assert!(read(r#"{"mcpServers":{}}"#).unwrap().servers.is_empty());
}
