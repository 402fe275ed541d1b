//! After its answer an interpreter rests, or it is ended; and who has many calls waits behind who has few.
//!
//! Mutations, not tried yet: without the sign of life `one_that_does_not_come_to_rest_is_ended` fails,
//! without the look at processor time `one_that_only_seems_to_rest_is_ended`, and with one line for all
//! owners `owners_take_turns`.

use std::time::Duration;

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::actor::InterpreterSettings;
use vllm_responses_actors::interpreter::limits;
use vllm_responses_actors::interpreter::messages::{Execute, ExecuteError, Executed, Release};
use vllm_responses_actors::process::sandbox::Walls;
use vllm_responses_protocol::ids::Owner;

use crate::isolation::interpreters;
use crate::stage::{Stage, again, core, first, run, sized, with_harness};
use crate::{fake, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("one_that_does_not_come_to_rest_is_ended", restless),
        trial("one_that_only_seems_to_rest_is_ended", works_on),
        trial("owners_take_turns", turns),
        trial("a_full_queue_has_room_for_who_has_less_in_it", room),
    ]
}

pub(crate) fn real_trials() -> Vec<Trial> {
    vec![
        trial("interpreters_give_way_to_the_machine", give_way),
        trial("what_code_leaves_behind_does_not_run_on", left_behind),
    ]
}

/// Work that begins with the answer or behind it: the process stands still, or is gone.
fn left_behind() {
    run(async {
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, sized(1, 4));
        for code in [
            "import asyncio\nasync def f():\n    while True: await asyncio.sleep(0)\nasyncio.ensure_future(f())",
            "import asyncio\nasync def f():\n    while True: pass\nasyncio.ensure_future(f())",
            "import js\nfrom pyodide.ffi import create_proxy\ndef f(*a):\n    while True: pass\njs.setTimeout(create_proxy(f), 0)",
            "import js\nfrom pyodide.ffi import create_proxy\ndef f(*a):\n    while True: pass\njs.Promise.resolve(1).then(create_proxy(f))",
        ] {
            let executed = stage.fresh(&format!("{code}\n'left'")).await;
            stage.release(&executed).await;
        }
        stage
            .until(|status| status.idle >= 1 && status.held == 0)
            .await;
        // What was found at work has been ended by now, and its successor has started.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let before = used(folder.path());
        tokio::time::sleep(Duration::from_secs(3)).await;
        for (pid, ticks) in used(folder.path()) {
            let earlier = before.iter().find(|(other, _)| *other == pid);
            let spent = earlier.map_or(0, |(_, earlier)| ticks - earlier);
            assert!(spent < 50, "{pid} has used {spent} ticks in 3 s");
        }
    });
}

/// Processor time of each interpreter, in hundredths of a second.
fn used(folder: &std::path::Path) -> Vec<(i32, u64)> {
    let ticks = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    let pids = interpreters(folder).into_iter();
    pids.filter_map(|pid| ticks(&pid).map(|used| (pid, used)))
        .collect()
}

/// Its answer is whole all the same.
fn restless() {
    run(async {
        let stage = Stage::scripted(fake::spec("restless"), sized(1, 3));
        let answered = stage.fresh("1").await;
        assert_eq!((answered.error.as_ref(), &*answered.logs), (None, "before"));
        let later = stage.execute(again(&answered, "2")).await;
        assert_eq!(later, Err(ExecuteError::UnknownContainer));
        stage
            .until(|status| status.held == 0 && status.live == 1)
            .await;
    });
}

fn works_on() {
    run(async {
        let stage = Stage::scripted(fake::spec("works_on"), sized(1, 3));
        let answered = stage.fresh("1").await;
        assert_eq!(answered.error, None);
        stage.until(|status| status.live == 2).await;
        stage
            .until(|status| status.held == 0 && status.live == 1)
            .await;
    });
}

fn of(owner: &str, execute: Execute) -> Execute {
    Execute {
        owner: Owner::new(owner),
        ..execute
    }
}

/// Four calls of one owner wait already as the other's only one comes.
fn turns() {
    run(async {
        let stage = Stage::scripted(fake::spec("good"), sized(1, 1));
        let held = stage.execute(of("a", first("1"))).await.unwrap();
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (before, owner) in ["a", "a", "a", "a", "b"].into_iter().enumerate() {
            let (there, sender) = (stage.clone(), sender.clone());
            #[expect(clippy::disallowed_methods, reason = "the test ends with its system")]
            actix_rt::spawn(async move {
                let executed = there.execute(of(owner, first("1"))).await.unwrap();
                sender.send(owner).ok();
                there.actor.send(give_back(owner, executed)).await.unwrap();
            });
            stage.until(|status| status.waiting > before).await;
        }
        stage.actor.send(give_back("a", held)).await.unwrap();
        let answered = (order.recv().await, order.recv().await);
        assert_eq!(answered, (Some("a"), Some("b")));
    });
}

fn give_back(owner: &str, executed: Executed) -> Release {
    Release {
        owner: Owner::new(owner),
        container_id: executed.container_id,
    }
}

fn room() {
    run(async {
        let settings = InterpreterSettings {
            queue: 3,
            queue_wait: Duration::from_secs(3),
            ..sized(1, 1)
        };
        let stage = Stage::scripted(fake::spec("good"), settings);
        // The only interpreter is held, and one owner fills the queue.
        stage.fresh("1").await;
        let calls = (0..3).map(|_| stage.execute(of("a", first("1"))));
        let full = futures_util::future::join_all(calls);
        let other = async {
            stage.until(|status| status.waiting == 3).await;
            let start = std::time::Instant::now();
            let answer = stage.execute(of("b", first("1"))).await;
            assert_eq!(answer, Err(ExecuteError::Busy));
            start.elapsed()
        };
        let (_, waited) = tokio::join!(full, other);
        assert!(
            waited > Duration::from_secs(2),
            "it had a place: {waited:?}"
        );
    });
}

fn give_way() {
    run(async {
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, sized(1, 1));
        stage.until(|status| status.idle == 1).await;
        for pid in interpreters(folder.path()) {
            let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            assert_eq!(score.trim(), "1000");
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let tail = stat.rsplit_once(')').unwrap().1;
            assert_eq!(
                tail.split_ascii_whitespace().nth(16),
                Some("10"),
                "niceness"
            );
            let threads: u64 = tail
                .split_ascii_whitespace()
                .nth(17)
                .unwrap()
                .parse()
                .unwrap();
            assert!(threads * 2 <= limits::TASKS, "{threads} threads at rest");
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let held = Walls::of_this_machine().with_group().group;
            assert_eq!(groups.contains("/vllm-responses-"), held.tasks, "{groups}");
        }
    });
}
