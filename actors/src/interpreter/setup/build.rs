//! Lets Deno finish a bundle: compile the standard library, lay out packages, take the snapshot.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;

use super::super::bundle;
use super::error::SetupError;
use super::progress::Progress;

/// Ten times what a slow machine takes.
const LIMIT: Duration = Duration::from_secs(900);
/// How long `deno --version` may take; a network drive is slow the first time.
const VERSION_LIMIT: Duration = Duration::from_secs(60);
/// How often a silent build is shown to be alive.
const TICK: Duration = Duration::from_secs(1);
/// How much of the end of the output is kept for the error.
const KEPT: usize = 2048;

/// Runs the build in `root`, which has Deno, Pyodide, the harness and the wheels.
pub(super) async fn finish(root: &Path, progress: &mut dyn Progress) -> Result<(), SetupError> {
    let (program, args) = bundle::build_command(root);
    let failed = |reason: String, output: &str| SetupError::Build {
        reason,
        output: output.trim().to_owned(),
    };
    let mut child = bare(&program)
        .args(args)
        .current_dir(root)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string(), ""))?;
    let mut output = Vec::new();
    let stderr = child.stderr.take();
    let run = async {
        if let Some(stderr) = stderr {
            listen(stderr, &mut output, progress).await;
        }
        child.wait().await
    };
    let ended = timeout(LIMIT, run).await;
    let output = String::from_utf8_lossy(&output);
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(status.to_string(), &output)),
        Ok(Err(error)) => Err(failed(error.to_string(), &output)),
        Err(_elapsed) => Err(failed("it took more than 15 minutes".to_owned(), &output)),
    }
}

/// The version that an executable claims, if it is a Deno that runs here.
pub(super) async fn deno_version(path: &Path) -> Result<String, SetupError> {
    let bad = |reason: String| SetupError::BadDeno {
        path: path.to_owned(),
        reason,
    };
    let asked = bare(path)
        .arg("--version")
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .output();
    let output = timeout(VERSION_LIMIT, asked)
        .await
        .map_err(|_elapsed| bad("it does not answer `--version`".to_owned()))?
        .map_err(|error| bad(error.to_string()))?;
    let told = |status: ExitStatus| bad(format!("`--version` ended with {status}"));
    if !output.status.success() {
        return Err(told(output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("deno"), Some(version)) if version.len() <= 32 => Ok(version.to_owned()),
        _ => Err(bad("it does not call itself deno".to_owned())),
    }
}

/// A command with nothing of ours in its environment, killed with its handle.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        // Folders that cannot exist, not even for root.
        .env("HOME", "/proc/none")
        .env("DENO_DIR", "/proc/none")
        .env("DENO_NO_UPDATE_CHECK", "1")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Passes lines on, and keeps the end.
async fn listen(mut stderr: ChildStderr, kept: &mut Vec<u8>, progress: &mut dyn Progress) {
    let mut buffer = [0; 1024];
    loop {
        let Ok(read) = timeout(TICK, stderr.read(&mut buffer)).await else {
            progress.tick();
            continue;
        };
        let count = read.unwrap_or(0);
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        kept.extend_from_slice(bytes);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
        let text = String::from_utf8_lossy(bytes);
        if let Some(line) = text.lines().rfind(|line| !line.trim().is_empty()) {
            progress.detail(line.trim());
        }
    }
}
