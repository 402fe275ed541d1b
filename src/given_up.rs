//! What is told when a vLLM of ours is given up.

use actix::Addr;
use vllm_responses_actors::process::ExitKind;
use vllm_responses_actors::process::messages::Phase;
use vllm_responses_actors::supervisor::SupervisorActor;
use vllm_responses_actors::supervisor::messages::{AwaitPhase, OwnProcess, Reached};

use crate::config::Upstream;
use crate::gateway::Failure;

/// How many of its last lines are told again, behind all that was said since.
const LINES: usize = 3;
/// Letters of a line.
const LONGEST: usize = 300;

/// What vLLM was started as, without its arguments, which may hold a key; empty where none is started.
pub(crate) fn command_of(upstream: &Upstream) -> String {
    match upstream {
        Upstream::Spawn(spawned) => {
            format!("{} serve {}", spawned.spawn.program, spawned.command.model)
        }
        Upstream::External(_) => String::new(),
    }
}

/// Resolves when a vLLM of ours is given up; never without one.
pub(crate) async fn given_up(supervisor: &Addr<SupervisorActor>, command: &str) -> Failure {
    let failed = AwaitPhase(OwnProcess::Vllm, Phase::Failed);
    match supervisor.send(failed).await {
        Ok(reached) => Failure {
            problem: words(command, &reached),
            code: reached.exit.map_or(1, ExitKind::exit_code),
        },
        Err(_gone) => std::future::pending().await,
    }
}

fn words(command: &str, reached: &Reached) -> String {
    let error = &reached.last_error;
    if error.contains("cannot start") {
        return format!(
            "vLLM was given up: {error}; see that it is a program that this user may run, or name another \
             with `VR_VLLM_BIN`"
        );
    }
    if error.contains("not found") {
        return format!(
            "vLLM was given up: {error}; `pip install vllm`, or name its program with `VR_VLLM_BIN`, or \
             use a server that runs with `--upstream`"
        );
    }
    let from = reached.last_lines.len().saturating_sub(LINES);
    let lines = reached.last_lines.iter().skip(from);
    let lines: Vec<String> = lines
        .map(|line| line.trim().chars().take(LONGEST).collect())
        .collect();
    let wrote = if lines.is_empty() {
        "it wrote nothing".to_owned()
    } else {
        format!("it wrote last: {}", lines.join(" / "))
    };
    format!(
        "vLLM was given up: {error}; {wrote}; it was started as `{command} ...`: run that by hand, change \
         what stands behind `--`, or use a server that runs with `--upstream`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_how_it_ended_and_its_last_lines_are_told() {
        let reached = |error: &str, lines: &[&str]| Reached {
            last_error: error.to_owned(),
            last_lines: lines.iter().map(|&line| line.to_owned()).collect(),
            exit: None,
        };
        let ended = "it ended before it was ready: exit status 1";
        let said = words("/bin/false serve m", &reached(ended, &[]));
        assert_eq!(
            said,
            "vLLM was given up: it ended before it was ready: exit status 1; it wrote nothing; it was \
             started as `/bin/false serve m ...`: run that by hand, change what stands behind `--`, or \
             use a server that runs with `--upstream`"
        );
        let said = words("vllm serve m", &reached(ended, &["a", "b", "c", " d "]));
        assert!(said.contains("it wrote last: b / c / d;"), "{said}");
        let denied = reached("cannot start vllm: `/tmp`: denied", &[]);
        let said = words("/tmp serve m", &denied);
        assert!(
            said.contains("`/tmp`") && said.contains("VR_VLLM_BIN"),
            "{said}"
        );
        let said = words(
            "vllm serve m",
            &reached("program `vllm` of vllm not found", &[]),
        );
        assert!(said.contains("VR_VLLM_BIN"), "{said}");
    }
}
