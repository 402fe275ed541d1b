//! Figures of the code interpreter, by the program that measures it alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// The installed bundle, below the user's cache folder.
const BUNDLES: &str = "vllm-responses/code-interpreter";

/// What that program printed.
#[derive(Debug, Serialize)]
pub(crate) struct Interpreter {
    /// Name and figure, in its order.
    pub(crate) figures: Vec<(String, String)>,
}

/// One figure of its JSON; several where each process has its own.
#[derive(Deserialize)]
#[serde(untagged)]
enum Figure {
    One(f64),
    Each(Vec<f64>),
}

/// Runs it; the reason where that cannot be.
pub(crate) async fn measure(bundle: Option<&Path>) -> Result<Interpreter, String> {
    let ours = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = ours.with_file_name("examples").join("interpreter_bench");
    let bundle = bundle.map(Path::to_owned).or_else(installed);
    let bundle = bundle.ok_or("it is not installed: `vllm-responses setup code-interpreter`")?;
    let output = Command::new(program)
        .arg(bundle)
        .arg("--json")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("its program cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("its program ended with {}", output.status));
    }
    let figures = read(&String::from_utf8_lossy(&output.stdout));
    if figures.is_empty() {
        return Err("its program printed no figures".to_owned());
    }
    Ok(Interpreter { figures })
}

/// One object of figures, whose names end with their unit; none where it is something else.
fn read(printed: &str) -> Vec<(String, String)> {
    let figures: BTreeMap<String, Figure> = serde_json::from_str(printed).unwrap_or_default();
    let told = figures.into_iter().map(|(name, figure)| {
        let values = match figure {
            Figure::One(value) => vec![value],
            Figure::Each(values) => values,
        };
        let values: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
        (name.replace('_', " "), values.join(", "))
    });
    told.collect()
}

/// The newest bundle in the user's cache.
#[expect(
    clippy::disallowed_methods,
    reason = "the cache folder is known by the environment alone"
)]
fn installed() -> Option<PathBuf> {
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join(".cache")));
    let bundles = std::fs::read_dir(cache.ok()?.join(BUNDLES)).ok()?;
    let bundles = bundles.flatten().map(|entry| entry.path());
    let whole = bundles.filter(|path| path.join("manifest.json").is_file());
    whole.max_by_key(|path| path.metadata().and_then(|it| it.modified()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_are_printed() {
        let printed = r#"{"cold_start_ms":475.1,"memory_mib":[223.0,232.25]}"#;
        let wanted = [
            ("cold start ms", "475.10"),
            ("memory mib", "223.00, 232.25"),
        ];
        assert_eq!(
            read(printed),
            wanted.map(|(name, figure)| (name.to_owned(), figure.to_owned()))
        );
        assert_eq!(read("no figures"), []);
    }
}
