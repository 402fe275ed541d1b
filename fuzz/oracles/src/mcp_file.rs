//! F4: `mcp.json` is read, or every problem of it is told with its place and without a value.

use vllm_responses_protocol::mcp::file::{self, McpFile, Surroundings};

use crate::halves;

/// Stands in variables of the environment.
const CANARY: &str = "canary-9b1f";

fn decode(text: &str) -> Result<McpFile, Vec<String>> {
    let env = |name: &str| name.len().is_multiple_of(2).then(|| CANARY.to_owned());
    let is_url = |text: &str| url::Url::parse(text).is_ok_and(|url| url.has_host());
    file::decode(
        text,
        Surroundings {
            env: &env,
            is_url: &is_url,
        },
    )
}

/// The bytes are the file.
pub fn check(bytes: &[u8]) {
    let (bytes, _) = halves(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (one, two) = (decode(text), decode(text));
    assert_eq!(format!("{one:?}"), format!("{two:?}"), "read twice alike");
    match one {
        Ok(file) => {
            for label in file.servers.keys() {
                assert!(
                    (1..=64).contains(&label.len()) && label.is_ascii(),
                    "{label}"
                );
            }
            assert!(!format!("{file:?}").contains(&format!("Bearer {CANARY}")));
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in &problems {
                assert!(problem.len() < 4096, "{} bytes", problem.len());
                assert!(!problem.contains(CANARY), "a value in {problem}");
                // Very many are counted at the end.
                let placed = problem.contains('`') || problem.contains("the file");
                let placed = placed || problem.starts_with("and ");
                assert!(placed, "no place in {problem}");
            }
        }
    }
}
