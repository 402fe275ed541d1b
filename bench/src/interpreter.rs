//! Figures of the code interpreter, by the program that measures it alone.

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

/// One figure of its JSON.
#[derive(Deserialize)]
struct Figure {
    name: String,
    value: f64,
    #[serde(default)]
    unit: String,
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

/// A JSON array of figures, or one object a line, or lines of a name, many blanks and a figure.
fn read(printed: &str) -> Vec<(String, String)> {
    let told = |figure: Figure| {
        let value = format!("{:.2} {}", figure.value, figure.unit);
        (figure.name, value.trim().to_owned())
    };
    if let Ok(figures) = serde_json::from_str::<Vec<Figure>>(printed) {
        return figures.into_iter().map(told).collect();
    }
    let figure = |line: &str| {
        if let Ok(figure) = serde_json::from_str::<Figure>(line) {
            return Some(told(figure));
        }
        let (name, figure) = line.split_once("  ")?;
        Some((name.trim().to_owned(), figure.trim().to_owned()))
    };
    printed.lines().filter_map(figure).collect()
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
    fn every_shape_of_figures_is_read() {
        let wanted = vec![("a b".to_owned(), "1.50 ms".to_owned())];
        assert_eq!(read(r#"[{"name":"a b","value":1.5,"unit":"ms"}]"#), wanted);
        assert_eq!(read(r#"{"name":"a b","value":1.5,"unit":"ms"}"#), wanted);
        assert_eq!(read("a b          1.50 ms\nnothing"), wanted);
    }
}
