//! A process that uses the plumbing as the gateway does, to be measured or killed from outside.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use actix::Actor;
use vllm_responses_actors::mask::Mask;
use vllm_responses_actors::process::actor::{ChildActor, ChildSettings, FirstStart, SameSpec};
use vllm_responses_actors::process::messages::{Observe, Start, Stop};
use vllm_responses_actors::process::readiness::{Answer, HealthSettings, Probe, ReadySettings};
use vllm_responses_actors::process::{
    ChildSpec, EnvPolicy, ExitKind, Launcher, Output, Spawned, Stdin, sweep_leftovers,
};
use vllm_responses_actors::supervisor::restart::{OnExit, RestartSettings};

use crate::{fake, look};

/// The first argument that makes the test binary a gateway.
pub(crate) const ARGUMENT: &str = "__gateway";

/// Runs one scenario; exit code 0 is success.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    actix_rt::System::new().block_on(async {
        match words[..] {
            ["trees"] => trees().await,
            ["restarts", count] => restarts(count.parse().unwrap()).await,
            ["flood", megabytes] => flood(megabytes).await,
            ["sweep"] => println!("{}", sweep_leftovers().await),
            _ => panic!("unknown scenario {words:?}"),
        }
    });
    ExitCode::SUCCESS
}

/// This binary as gateway, with a scenario.
pub(crate) fn command(scenario: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).args(scenario);
    command
}

pub(crate) fn launcher() -> Launcher {
    Launcher::start("/proc/self/exe".into(), Box::new(std::io::stderr())).unwrap()
}

/// A fake child with a script.
pub(crate) fn spec(name: &str, script: &[&str]) -> ChildSpec {
    let mut args: Vec<OsString> = vec![fake::ARGUMENT.into()];
    args.extend(script.iter().map(OsString::from));
    ChildSpec {
        name: name.into(),
        program: std::env::current_exe().unwrap().into(),
        args,
        directory: None,
        env: EnvPolicy::InheritWithoutOurs {
            hidden: Vec::new(),
            set: Vec::new(),
        },
        stdin: Stdin::Null,
        output: Output::Captured,
        grace: Duration::from_secs(30),
        secrets: Mask::default(),
        limits: Vec::new(),
        sandbox: None,
    }
}

/// Guardian, child, a grandchild, a daemon in a session of its own with a child: twice.
pub(crate) const TREE: [&str; 6] = [
    "ignore-term",
    "fork",
    "fork-setsid",
    "fork-daemon",
    "print",
    "up",
];
/// Living processes below a gateway that runs `trees`.
pub(crate) const TREES_SIZE: usize = 2 * 7;

async fn trees() {
    let launcher = launcher();
    let script = [&TREE[..], &["live"]].concat();
    let mut children: Vec<Spawned> = Vec::new();
    for name in ["one", "two"] {
        children.push(launcher.spawn(spec(name, &script)).await.unwrap());
    }
    std::future::pending::<()>().await;
    drop(children);
}

/// One actor restarts its child `count` times; descriptors do not grow, no zombie stays.
async fn restarts(count: u32) {
    let mut spec = spec("brief", &[]);
    spec.program = "/bin/true".into();
    spec.args.clear();
    let settings = ChildSettings {
        ready: ReadySettings::default(),
        health: HealthSettings::default(),
        restart: RestartSettings {
            on_exit: OnExit::Restart,
            first_delay: Duration::ZERO,
            most_failures: usize::MAX,
            ..RestartSettings::default()
        },
        first_start: FirstStart::MayRetry,
    };
    let probe: Probe = Box::new(|| Box::pin(async { Answer::NotYet("never".into()) }));
    let launch = Rc::new(SameSpec {
        launcher: launcher(),
        spec,
    });
    let actor = ChildActor::new("brief", launch, probe, settings, Vec::new()).start();
    actor.send(Start).await.unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let mut at_first = 0;
    loop {
        let status = actor.send(Observe).await.unwrap();
        if at_first == 0 && status.restarts >= 10 {
            at_first = look::descriptors().len();
        }
        if status.restarts >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    actor.send(Stop).await.unwrap();
    let at_last = look::descriptors().len();
    assert!(
        at_last <= at_first,
        "descriptors grew from {at_first} to {at_last}"
    );
    look::wait_until("no process is left, dead or alive", || {
        look::descendants(me).is_empty()
    });
}

/// A flooding child is not held up by a reader that never reads, and costs little memory.
async fn flood(megabytes: &str) {
    let (unread, stuck) = std::io::pipe().unwrap();
    let launcher = Launcher::start("/proc/self/exe".into(), Box::new(stuck)).unwrap();
    let before = look::peak_memory();
    let mut spec = spec(
        "flood",
        &["flood", megabytes, "print", "the end", "exit", "5"],
    );
    spec.output = Output::Prefixed;
    let spawned = launcher.spawn(spec).await.unwrap();
    let report = spawned.child.wait().await.unwrap();
    assert_eq!(report.kind, ExitKind::Code(5));
    assert_eq!(report.last_lines.len(), 50);
    assert_eq!(report.last_lines.last().unwrap(), "the end");
    let grown = look::peak_memory() - before;
    assert!(grown < 16 * 1024, "grew by {grown} KiB");
    drop(unread);
}
