//! After its answer an interpreter rests, or it is ended; and who has many calls waits behind who has few.
//!
//! Tried: without the sign of life `code_that_goes_on_after_its_answer_is_ended` finds an interpreter at
//! 100 % of a processor; without the look at processor time `one_that_only_seems_to_rest_is_ended` waits
//! in vain; with one line for all owners `owners_take_turns` gets its answer last.

use std::time::Duration;

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::actor::InterpreterSettings;
use vllm_responses_actors::interpreter::messages::{Execute, ExecuteError};
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
        trial("code_that_goes_on_after_its_answer_is_ended", goes_on),
        trial("interpreters_give_way_to_the_machine", give_way),
    ]
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
        let stage = Stage::scripted(fake::spec("slow"), sized(1, 1));
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (place, owner) in ["a", "a", "a", "a", "a", "b"].into_iter().enumerate() {
            let (there, sender) = (stage.clone(), sender.clone());
            actix_rt::spawn(async move {
                let call = of(owner, first("1"));
                let executed = there.execute(call).await.unwrap();
                drop(sender.send(owner));
                let release = vllm_responses_actors::interpreter::messages::Release {
                    owner: Owner::new(owner),
                    container_id: executed.container_id,
                };
                there.actor.send(release).await.unwrap();
            });
            stage
                .until(|status| status.waiting + status.held > place)
                .await;
        }
        let mut answered = Vec::new();
        while answered.len() < 3 {
            answered.extend(order.recv().await);
        }
        // The first was running, or about to be, as the other owner came.
        assert!(answered.contains(&"b"), "{answered:?}");
    });
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

/// Work that is queued in the call and begins with its end: the fourth link of a chain of promises.
const CHAIN: &str = "
import js
from pyodide.ffi import create_proxy
def link(left):
    def then(resolve, reject):
        if left == 0:
            while True: pass
        resolve(link(left - 1))
    one = js.Object.new()
    setattr(one, 'then', create_proxy(then))
    return one
js.Promise.resolve(link(LEFT))
'answered'
";

fn goes_on() {
    run(async {
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, sized(1, 2));
        let mut restless = 0;
        for left in 0..6 {
            let answer = stage.fresh(&CHAIN.replace("LEFT", &left.to_string())).await;
            let later = stage.execute(again(&answer, "1")).await;
            if answer.error.is_none() && later == Err(ExecuteError::UnknownContainer) {
                restless += 1;
            }
            if later.is_ok() {
                stage.release(&answer).await;
            }
        }
        assert!(restless > 0, "no chain was long enough to outlive its call");
        let busy = || {
            let all = interpreters(folder.path());
            all.into_iter().map(ticks).sum::<u64>()
        };
        stage.until(|status| status.idle == 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = busy();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let used = busy().saturating_sub(before);
        assert!(used < 100, "{used} hundredths of a second in 2 s of rest");
    });
}

/// Processor time in hundredths of a second; 0 of one that is gone.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let tail = stat.rsplit_once(')').map_or("", |(_, tail)| tail);
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse().ok());
    number(11).unwrap_or(0) + number(12).unwrap_or(0)
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
        }
    });
}
