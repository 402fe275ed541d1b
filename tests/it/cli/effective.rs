//! K2: what `check-config` prints, where values come from, and the small commands.

use super::{Place, text};

fn line<'a>(toml: &'a str, name: &str) -> &'a str {
    toml.lines()
        .find(|line| line.starts_with(&format!("{name} = ")))
        .unwrap()
}

#[test]
fn k2_layers_win_in_order_and_each_place_is_named() {
    let place = Place::new();
    place.file(
        "c.toml",
        "[gateway]\nhost = \"::1\"\nport = 1\nworkers = 2\n[lifecycle]\ndrain_delay = \"7s\"\n",
    );
    place.file(
        ".env",
        "export VR_PORT='3'\nVR_WORKERS=3\nVR_CONFIG=c.toml\n",
    );
    let env = [
        ("VR_WORKERS", "4"),
        ("VR_LLM_API_BASE", "http://h/"),
        ("VR_HOST", ""),
        ("VR_PROT", "1"),
    ];
    let output = place.run(&["check-config", "--drain-delay", "0"], &env);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        line(&out, "host"),
        "host = \"::1\" # `gateway.host` in c.toml"
    );
    assert_eq!(line(&out, "port"), "port = 3 # `VR_PORT` in .env");
    assert_eq!(line(&out, "workers"), "workers = 4 # `VR_WORKERS`");
    assert_eq!(
        line(&out, "drain_delay"),
        "drain_delay = \"0\" # `--drain-delay`"
    );
    assert_eq!(
        line(&out, "shutdown_grace"),
        "shutdown_grace = \"30s\" # default"
    );
    assert!(
        text(&output.stderr)
            .contains("`VR_PROT` is ignored: no such variable; did you mean `VR_PORT`?")
    );
    assert!(out.parse::<toml::Table>().is_ok(), "{out}");
}

/// What editors of Windows put first is no part of the first name, and the effective values are
/// taken back as they were.
#[test]
fn k2_marks_modes_and_overruled_values() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.file(".env", "\u{feff}VR_PORT=3\nVR_OPENAI_API_KEY=CANARY\n");
    place.file(
        "c.toml",
        "\u{feff}[store]\ndatabase = \"mine.db\"\n[upstream]\nurl = \"http://h\"\n",
    );
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.0.path().join(".env"), mode).unwrap();
    };
    mode(0o644);
    let arguments = ["check-config", "--config", "c.toml"];
    let output = place.run(&arguments, &[("VR_DB_PATH", "postgresql://u:CANARY@h/d")]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(line(&out, "port"), "port = 3 # `VR_PORT` in .env");
    assert!(out.contains("# database: \"postgresql://u@h/d\""), "{out}");
    assert!(
        out.contains("# api_key: a secret that is not shown"),
        "{out}"
    );
    assert!(err.contains("`store.database` of the configuration file is not used: `VR_DB_PATH`"));
    assert!(err.contains("`.env` has mode 0644"), "{err}");
    assert!(!(out.clone() + &err).contains("CANARY"));
    mode(0o600);
    place.file("again.toml", &out);
    let output = place.run(&["check-config", "--config", "again.toml"], &[]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(text(&output.stdout).contains("database = \"vllm_responses.db\" # default"));
    assert!(!err.contains("has mode"), "{err}");
}

#[test]
fn k2_keys_are_appended_once() {
    let place = Place::new();
    for name in ["ann", "bob"] {
        let output = place.run(&["keys", "new", name, "--append", "keys"], &[]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let key = text(&output.stdout);
        assert!(key.starts_with("vr-") && key.lines().count() == 1, "{key}");
    }
    let output = place.run(&["keys", "new", "ann", "--append", "keys"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let file = std::fs::read_to_string(place.0.path().join("keys")).unwrap();
    assert_eq!(file.lines().count(), 2, "{file}");
    let keys = [
        ("VR_API_KEYS_FILE", "keys"),
        ("VR_LLM_API_BASE", "http://h"),
    ];
    let output = place.run(&["check-config"], &keys);
    assert_eq!(
        (output.status.code(), text(&output.stderr).as_str()),
        (Some(0), "")
    );
}

/// A key that nobody saw opens nothing, and what is no file of keys is told as it is.
#[test]
fn k2_a_key_that_cannot_be_shown_or_written_is_not_added() {
    let place = Place::new();
    let at = |name: &str| place.0.path().join(name);
    place.file("keys", "# keys\n");
    let new = |file: &str, stdout: &str| {
        let program = env!("CARGO_BIN_EXE_vllm-responses");
        let line = format!("exec timeout 20 \"$0\" keys new ann --append {file} > {stdout}");
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &line, program])
            .current_dir(place.0.path());
        let output = shell.output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = new("keys", "/dev/full");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("could not be shown, and was not added"),
        "{said}"
    );
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    for (file, why) in [
        ("pipe", "it is no regular file but a pipe"),
        ("/dev/full", "it is no regular file but a device"),
        ("folder", "it is a folder"),
        ("none/keys", "cannot be written"),
    ] {
        let (code, said) = new(file, "printed");
        assert_eq!(code, Some(1), "{file}: {said}");
        assert!(
            said.contains(why) && said.contains("no key was added"),
            "{said}"
        );
        assert_eq!(
            std::fs::read_to_string(at("printed")).unwrap(),
            "",
            "{file}"
        );
    }
    assert_eq!(std::fs::read_to_string(at("keys")).unwrap(), "# keys\n");
    for file in ["pipe", "/dev/zero", "folder"] {
        let env = [("VR_API_KEYS_FILE", file), ("VR_LLM_API_BASE", "http://h")];
        let output = place.run(&["check-config"], &env);
        assert_eq!(output.status.code(), Some(2), "{file}");
        let said = text(&output.stderr);
        assert!(
            said.contains("`VR_API_KEYS_FILE`: cannot be read"),
            "{said}"
        );
    }
    let (code, said) = new("keys", "printed");
    assert_eq!(code, Some(0), "{said}");
    let names = std::fs::read_dir(place.0.path()).unwrap().count();
    assert_eq!(
        names, 4,
        "nothing is left beside: keys, pipe, folder, printed"
    );
}

#[test]
fn k2_secrets_are_never_printed() {
    let place = Place::new();
    let env = [
        ("VR_OPENAI_API_KEY", "CANARY"),
        ("VR_DB_PATH", "a.db"),
        ("VR_REDIS_URL", "redis://:CANARY@h"),
        ("RUST_LOG", "trace"),
    ];
    for command in ["check-config", "serve"] {
        // Nothing listens there, so that `serve` ends by itself.
        let flags = [
            "--upstream",
            "http://127.0.0.1:9",
            "--upstream-ready-timeout",
            "1s",
            "--gateway-port",
            "0",
        ];
        let args: Vec<_> = [command].into_iter().chain(flags).collect();
        let output = place.run(&args, &env);
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(!all.contains("CANARY"), "{all}");
        if command == "check-config" {
            assert_eq!(all.matches("not shown").count(), 2, "{all}");
        }
    }
}

#[test]
fn k2_an_overruled_upstream_is_noticed() {
    let env = [("VR_LLM_API_BASE", "http://other")];
    let output = Place::new().run(&["check-config", "--upstream", "http://h"], &env);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("`VR_LLM_API_BASE` is ignored: `--upstream` differs"));
}

#[test]
fn k2_keys_of_the_interpreter_service_are_noticed_where_they_have_no_effect() {
    let words = "`VR_CODE_INTERPRETER_WORKERS` has no effect with `--code-interpreter external`";
    let env = [("VR_CODE_INTERPRETER_WORKERS", "3")];
    for (mode, noticed) in [("external", true), ("disabled", false)] {
        let line = [
            "check-config",
            "--upstream",
            "http://h",
            "--code-interpreter",
            mode,
        ];
        let output = Place::new().run(&line, &env);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stderr).contains(words), noticed, "{mode}");
        assert!(
            !text(&output.stderr).contains("MAX_WORKERS"),
            "it is not set"
        );
    }
}

#[test]
fn a_new_key_fits_its_line_and_is_fresh() {
    let place = Place::new();
    let key_and_line = || {
        let output = text(&place.run(&["keys", "new", "ann"], &[]).stdout);
        let find = |start: &str| {
            output
                .lines()
                .find(|line| line.starts_with(start))
                .unwrap()
                .to_owned()
        };
        (find("vr-"), find("ann "))
    };
    let ((key, line), (other, _)) = (key_and_line(), key_and_line());
    assert_ne!(key, other);
    let ring = vllm_responses::keys::KeyRing::parse(&line).unwrap();
    assert_eq!(ring.asker(&key).unwrap().owner.as_str(), "ann");
    assert!(ring.asker(&other).is_none());
}

#[test]
fn help_teaches_and_version_answers() {
    let place = Place::new();
    for args in [&["--help"][..], &["serve", "--help"]] {
        let output = place.run(args, &[]);
        assert_eq!(output.status.code(), Some(0));
        for part in [
            "--upstream http://127.0.0.1:8000",
            "`.env`",
            "Exit codes",
            "check-config",
        ] {
            assert!(text(&output.stdout).contains(part), "{part}");
        }
    }
    assert!(text(&place.run(&["--version"], &[]).stdout).starts_with("vllm-responses 0."));
}

/// The shipped examples are valid, the default file included.
#[test]
fn k2_the_example_files_are_accepted() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for (file, rest) in [
        ("default.toml", &["--upstream", "http://h"][..]),
        ("external-vllm.toml", &[]),
        ("spawned.toml", &["--", "m"]),
    ] {
        let path = folder.join(file);
        let mut args = vec!["check-config", "--config", path.to_str().unwrap()];
        args.extend(rest);
        let output = Place::new().run(&args, &[]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{file}: {}",
            text(&output.stderr)
        );
    }
}
