//! PostgreSQL and Redis of this run alone, by `scripts/test-services`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::say;

/// Where they are.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub(crate) database: String,
    pub(crate) redis: String,
}

/// Started when they are first asked for, and ended with this.
pub(crate) struct Services {
    folder: PathBuf,
    state: State,
}

enum State {
    NotAsked,
    Missing,
    Up(Urls),
}

impl Services {
    /// Their data will be in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            state: State::NotAsked,
        }
    }

    /// Where they are; `None` where the machine has them not, which is said once.
    pub(crate) async fn urls(&mut self) -> Option<Urls> {
        if matches!(self.state, State::NotAsked) {
            say("starting PostgreSQL and Redis ...");
            let folder = self.folder.clone();
            let started = tokio::task::spawn_blocking(move || start(&folder)).await;
            self.state = match started {
                Ok(Ok(urls)) => State::Up(urls),
                Ok(Err(problem)) => missing(&problem),
                Err(error) => missing(&error.to_string()),
            };
        }
        match &self.state {
            State::Up(urls) => Some(urls.clone()),
            State::NotAsked | State::Missing => None,
        }
    }
}

fn missing(problem: &str) -> State {
    say(&format!("left out: PostgreSQL and Redis ({problem})"));
    State::Missing
}

impl Drop for Services {
    fn drop(&mut self) {
        if matches!(self.state, State::NotAsked) {
            return;
        }
        // A server that cannot be stopped is left to its owner.
        drop(script("stop", &self.folder).status());
    }
}

fn script(verb: &str, folder: &Path) -> Command {
    let mut script = Command::new("scripts/test-services");
    script.arg(verb).arg(folder);
    script
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    script
}

fn start(folder: &Path) -> Result<Urls, String> {
    let output = script("start", folder)
        .stdout(Stdio::piped())
        .output()
        .map_err(|error| format!("scripts/test-services cannot be run: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let url = |name: &str| {
        let start = format!("export {name}=");
        let value = printed.lines().find_map(|line| line.strip_prefix(&start))?;
        Some(value.trim_matches(['\'', '"']).to_owned())
    };
    match (url("TEST_DATABASE_URL"), url("TEST_REDIS_URL")) {
        (Some(database), Some(redis)) if output.status.success() => Ok(Urls { database, redis }),
        _ => Err("scripts/test-services start did not start them".to_owned()),
    }
}
