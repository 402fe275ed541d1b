//! F5: any TOML file and any environment are read, or every problem is told with its key and without a
//! secret; the same input gives the same answer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use vllm_responses::config::raw::{Inputs, Raw};
use vllm_responses::config::{self, Config, render};

use crate::halves;

/// Given for every secret.
const CANARY: &str = "canary-4c7e";

/// Variables of an environment, a `NAME=VALUE` line each.
fn variables(text: &str) -> BTreeMap<OsString, OsString> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let ours = pairs.filter(|(name, _)| name.starts_with("VR_") && *name != "VR_CONFIG");
    ours.map(|(name, value)| (name.into(), value.replace('\0', "").into()))
        .collect()
}

fn load(inputs: &Inputs) -> (Raw, Result<Config, Vec<String>>) {
    config::load(inputs)
}

/// The first part is the file, the second the environment.
pub fn check(bytes: &[u8]) {
    let (toml, env) = halves(bytes);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml");
    fs::write(&file, toml).expect("a file");
    let mut env = variables(&String::from_utf8_lossy(env));
    env.insert("VR_CONFIG".into(), file.into());
    for secret in [
        "VR_OPENAI_API_KEY",
        "VR_SEAL_KEYS",
        "VR_CODE_INTERPRETER_TOKEN",
    ] {
        env.entry(secret.into()).or_insert_with(|| CANARY.into());
    }
    env.entry("VR_REDIS_URL".into())
        .or_insert_with(|| format!("redis://:{CANARY}@127.0.0.1/0").into());
    let inputs = Inputs {
        env,
        directory: folder.path().to_owned(),
        ..Inputs::default()
    };
    let (raw, read) = load(&inputs);
    let (_, again) = load(&inputs);
    assert_eq!(
        format!("{read:?}"),
        format!("{again:?}"),
        "read twice alike"
    );
    assert!(
        !render::effective(&raw).contains(CANARY),
        "a secret is shown"
    );
    match read {
        Ok(config) => assert!(!format!("{config:?}").contains(CANARY), "a secret is shown"),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in &problems {
                assert!(!problem.contains(CANARY), "a secret in {problem}");
                assert!(
                    problem.contains('`') || problem.contains("config.toml"),
                    "{problem}"
                );
            }
        }
    }
}
