//! One child at a time: start, output, environment, stop, end.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vllm_responses_actors::process::sandbox::Walls;
use vllm_responses_actors::process::{
    Child, EnvPolicy, ExitKind, ExitReport, Limit, LimitKind, Output, SpawnError, Stdin,
};

use crate::gateway::{TREE, launcher, spec};
use crate::{gateway, look, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "an_exit_is_told_with_code_and_lines",
            an_exit_is_told_with_code_and_lines,
        ),
        trial("a_missing_program_is_said_to_be_missing", a_missing_program),
        trial("pipes_reach_the_child", pipes_reach_the_child),
        trial("a_limit_is_set_before_the_program_runs", a_limit_is_set),
        trial("what_a_child_leaves_behind_is_gone_with_it", leaves_behind),
        trial("a_dropped_handle_kills", a_dropped_handle_kills),
        trial(
            "p5_stop_is_term_then_kill_of_the_whole_tree",
            p5_stop_escalates,
        ),
        trial("p5_a_child_that_obeys_is_not_killed", p5_a_child_that_obeys),
        trial("p5_a_held_stdin_is_closed_by_stop", p5_held_stdin),
        trial("p6_a_stopped_child_dies_by_kill", p6_a_stopped_child),
        trial("p7_a_flood_blocks_nothing_and_costs_little", p7_flood),
        trial("p8_only_three_descriptors_are_inherited", p8_descriptors),
        trial("p8_the_environment_is_the_policy", p8_environment),
        trial("p9_a_thousand_restarts_leave_no_trace", p9_restarts),
        trial("a_killed_guardian_takes_its_tree_along", a_killed_guardian),
        trial(
            "a_group_of_its_own_bounds_a_child_and_goes_with_it",
            a_group,
        ),
    ]
}

fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

fn number(child: &Child) -> i32 {
    i32::try_from(child.pid()).unwrap()
}

/// The guardian of a child.
fn guardian(child: &Child) -> i32 {
    look::process(number(child)).unwrap().parent
}

async fn end_of(script: &[&str]) -> ExitReport {
    let spawned = launcher().spawn(spec("fake", script)).await.unwrap();
    spawned.child.wait().await.unwrap()
}

/// A child whose tree stands.
async fn tree(rest: &[&str], grace: Duration) -> (Child, Vec<look::Seen>) {
    let mut spec = spec("tree", &[&TREE[..], rest].concat());
    spec.grace = grace;
    let child = launcher().spawn(spec).await.unwrap().child;
    let guardian = guardian(&child);
    let mut tree = Vec::new();
    look::wait_until("the tree stands", || {
        tree = look::finished_trees(guardian, 1, 0).unwrap_or_default();
        !tree.is_empty()
    });
    (child, tree)
}

fn an_exit_is_told_with_code_and_lines() {
    run(async {
        let report = end_of(&["print", "one", "stderr", "two", "exit", "3"]).await;
        let last_lines = vec!["one".into(), "two".into()];
        assert_eq!(
            report,
            ExitReport {
                kind: ExitKind::Code(3),
                last_lines
            }
        );
        let report = end_of(&["exit", "0"]).await;
        assert_eq!(report.kind.exit_code(), 1, "an end is never a success");
    });
}

fn a_missing_program() {
    run(async {
        let mut spec = spec("gone", &[]);
        spec.program = "no-such-program-here".into();
        let error = launcher().spawn(spec).await.unwrap_err();
        assert_eq!(
            error,
            SpawnError::NotFound {
                name: "gone".into(),
                program: "no-such-program-here".into()
            }
        );
    });
}

fn pipes_reach_the_child() {
    run(async {
        let mut spec = spec("cat", &[]);
        spec.program = "cat".into();
        spec.args.clear();
        spec.stdin = Stdin::Piped;
        spec.output = Output::Protocol;
        let spawned = launcher().spawn(spec).await.unwrap();
        let mut stdin = spawned.stdin.unwrap();
        stdin.write_all(b"{}\n").unwrap();
        drop(stdin);
        assert_eq!(spawned.child.wait().await.unwrap().kind, ExitKind::Code(0));
        let mut text = String::new();
        spawned.stdout.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "{}\n");
    });
}

fn a_limit_is_set() {
    run(async {
        let mut spec = spec("shell", &[]);
        spec.program = "sh".into();
        spec.args = vec!["-c".into(), "ulimit -n".into()];
        spec.limits = vec![Limit {
            kind: LimitKind::OpenFiles,
            value: 77,
        }];
        let report = launcher()
            .spawn(spec)
            .await
            .unwrap()
            .child
            .wait()
            .await
            .unwrap();
        assert_eq!(report.last_lines, ["77"]);
    });
}

fn leaves_behind() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let (child, tree) = {
            let mut spec = spec("sh", &[]);
            spec.program = "sh".into();
            let fake = std::env::current_exe().unwrap();
            let line = format!(
                "{} __fake fork fork-setsid exit 0; while ! [ -e {} ]; do sleep 0.01; done; exit 0",
                fake.display(),
                go.display()
            );
            spec.args = vec!["-c".into(), line.into()];
            let child = launcher().spawn(spec).await.unwrap().child;
            let guardian = guardian(&child);
            let mut tree = Vec::new();
            look::wait_until("three orphans live", || {
                tree = look::children(guardian);
                tree.len() == 3 && look::descendants(guardian).len() >= 4
            });
            (child, look::descendants(guardian))
        };
        std::fs::write(go, "").unwrap();
        assert_eq!(child.wait().await.unwrap().kind, ExitKind::Code(0));
        assert_eq!(look::still_alive(&tree), []);
    });
}

fn a_dropped_handle_kills() {
    run(async {
        let (child, tree) = tree(&["live"], Duration::from_secs(60)).await;
        drop(child);
        look::wait_until("all are dead", || look::still_alive(&tree).is_empty());
    });
}

fn p5_stop_escalates() {
    run(async {
        let (child, tree) = tree(&["live"], Duration::from_millis(100)).await;
        assert_eq!(child.stop().await.unwrap().kind, ExitKind::Signal(9));
        assert_eq!(look::still_alive(&tree), []);
    });
}

fn p5_a_child_that_obeys() {
    run(async {
        let child = launcher()
            .spawn(spec("meek", &["live"]))
            .await
            .unwrap()
            .child;
        assert_eq!(child.stop().await.unwrap().kind, ExitKind::Signal(15));
    });
}

fn p5_held_stdin() {
    run(async {
        let mut spec = spec(
            "reader",
            &["ignore-term", "print", "up", "stdin", "exit", "4"],
        );
        spec.stdin = Stdin::Held;
        let child = launcher().spawn(spec).await.unwrap().child;
        wait_for_line(&child, "up").await;
        assert_eq!(child.stop().await.unwrap().kind, ExitKind::Code(4));
    });
}

async fn wait_for_line(child: &Child, line: &str) {
    while child.last_lines().last().is_none_or(|last| last != line) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn p6_a_stopped_child() {
    run(async {
        let (child, tree) = tree(&["live"], Duration::from_secs(60)).await;
        kill(Pid::from_raw(number(&child)), Signal::SIGSTOP).unwrap();
        assert_eq!(child.kill().await.unwrap().kind, ExitKind::Signal(9));
        assert_eq!(look::still_alive(&tree), []);
    });
}

fn p7_flood() {
    assert!(
        gateway::command(&["flood", "300"])
            .status()
            .unwrap()
            .success()
    );
}

fn p8_descriptors() {
    run(async {
        // An open descriptor of ours that an exec would hand on.
        let file = File::open("/dev/null").unwrap();
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let report = end_of(&["descriptors", "exit", "1"]).await;
        assert_eq!(report.last_lines, ["[0, 1, 2]"]);
        assert!(file.as_raw_fd() > 2);
    });
}

fn p8_environment() {
    run(async {
        let mut spec = spec("bare", &["environment", "exit", "1"]);
        spec.env = EnvPolicy::Only(vec![("HOME".into(), "/nowhere".into())]);
        let report = launcher()
            .spawn(spec)
            .await
            .unwrap()
            .child
            .wait()
            .await
            .unwrap();
        assert_eq!(report.last_lines, ["HOME=/nowhere"]);
    });
}

fn p9_restarts() {
    assert!(
        gateway::command(&["restarts", "1000"])
            .status()
            .unwrap()
            .success()
    );
}

/// Where this machine lets a control group be made: the child is in it, its bounds stand there, and
/// nothing is left of it.
fn a_group() {
    let held = Walls::of_this_machine().with_group().group;
    if !held.tasks {
        eprintln!("SKIPPED: no control group can be made here");
        return;
    }
    run(async {
        let mut spec = spec("grouped", &["print", "up", "fork", "live"]);
        let limit = |kind, value| Limit { kind, value };
        spec.limits = vec![
            limit(LimitKind::GroupMemory, 256 << 20),
            limit(LimitKind::GroupTasks, 10),
        ];
        let spawned = launcher().spawn(spec).await.unwrap();
        let pid = number(&spawned.child);
        let name = format!("vllm-responses-{}", guardian(&spawned.child));
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let folders: Vec<_> = folders_named(&name).collect();
        assert!(groups.contains(&name) && !folders.is_empty(), "{groups}");
        let read = |file: &str| {
            let found = folders
                .iter()
                .find_map(|folder| std::fs::read_to_string(folder.join(file)).ok());
            found.map(|text| text.trim().to_owned())
        };
        assert_eq!(read("pids.max").as_deref(), Some("10"));
        let memory = read("memory.max").or_else(|| read("memory.limit_in_bytes"));
        assert_eq!(memory.as_deref(), Some("268435456"));
        spawned.child.kill().await.unwrap();
        assert_eq!(folders_named(&name).count(), 0);
    });
}

fn folders_named(name: &str) -> impl Iterator<Item = std::path::PathBuf> {
    let output = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", name])
        .output()
        .unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    let found: Vec<_> = found.lines().map(Into::into).collect();
    found.into_iter()
}

fn a_killed_guardian() {
    run(async {
        let (child, tree) = tree(&["live"], Duration::from_secs(60)).await;
        kill(Pid::from_raw(guardian(&child)), Signal::SIGKILL).unwrap();
        assert_eq!(child.wait().await.unwrap().kind, ExitKind::GuardianLost);
        assert_eq!(look::still_alive(&tree), []);
    });
}
