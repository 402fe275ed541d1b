//! Workers that break the protocol, fail to start, or are killed: the call says so, the next one works.
//!
//! Mutation: with the id no longer compared in `Gathered::take`, `wrong_id` and `old_id` fail.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tokio_util::sync::CancellationToken;
use vllm_responses_actors::interpreter::actor::InterpreterSettings;
use vllm_responses_actors::interpreter::limits;
use vllm_responses_actors::interpreter::messages::{
    CallError, Container, Execute, ExecuteError, Stop,
};
use vllm_responses_actors::interpreter::sessions::SessionSettings;
use vllm_responses_protocol::ids::Owner;

use crate::stage::{Stage, again, brief, call, first, run, sized};
use crate::{fake, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_broken_frame_ends_the_worker", broken_frames),
        trial(
            "a_second_result_is_not_taken_for_the_next_call",
            extra_result,
        ),
        trial("a_worker_that_hangs_is_ended_in_time", hanging),
        trial("starts_that_fail_open_the_circuit", failing_starts),
        trial("a_worker_that_does_not_begin_properly_is_none", no_ready),
        trial("a_full_queue_says_busy", full_queue),
        trial("patience_has_an_end", patience),
        trial("waits_for_a_fresh_one_are_counted", waits_are_counted),
        trial("a_cancelled_call_leaves_the_queue", cancelled_in_queue),
        trial("containers_are_bound_to_their_owner", owners),
        trial("kept_containers_make_room", room),
        trial("code_has_a_longest_length", long_code),
        trial("p2_two_hundred_calls_at_once", two_hundred),
        trial("a_stop_ends_everything", stop),
    ]
}

fn broken_frames() {
    run(async {
        for script in [
            "oversize",
            "wrong_id",
            "old_id",
            "deep",
            "garbage",
            "twice_ready",
            "bad_image",
            "exit",
            "truncated",
            "flood",
        ] {
            let stage = Stage::scripted(fake::spec(script), sized(1, 3));
            let start = Instant::now();
            let executed = stage.fresh("1").await;
            assert_eq!(executed.error, Some(CallError::Died), "{script}");
            assert!(executed.logs.starts_with("before"), "{script}");
            assert!(executed.logs.len() <= limits::OUTPUT_BYTES, "{script}");
            assert!(start.elapsed() < Duration::from_secs(60), "{script}");
            let id = Container::Named(executed.container_id);
            let again = stage.execute(call(id, "1")).await;
            assert_eq!(again, Err(ExecuteError::UnknownContainer), "{script}");
            stage
                .until(|status| status.live == 1 && status.idle == 1)
                .await;
        }
    });
}

fn extra_result() {
    run(async {
        let stage = Stage::scripted(fake::spec("extra_result"), sized(1, 3));
        let first = stage.fresh("1").await;
        assert_eq!(first.error, Some(CallError::Raised("first".into())));
        // The second result of call 1 comes instead of the sign of rest: there is no call 2.
        let second = stage.execute(again(&first, "2")).await;
        assert_eq!(second, Err(ExecuteError::UnknownContainer));
    });
}

fn hanging() {
    run(async {
        let stage = Stage::scripted(fake::spec("half"), sized(1, 3));
        let executed = stage
            .execute(brief("1", Duration::from_millis(300)))
            .await
            .unwrap();
        assert_eq!(executed.error, Some(CallError::TimedOut { seconds: 0 }));
        assert_eq!(executed.logs, "before");
        // Small frames without end are read until the time is up, and hold up nobody else.
        let flood = Stage::scripted(fake::spec("tiny_flood"), sized(1, 3));
        let (answer, other) =
            tokio::join!(flood.execute(brief("1", Duration::from_secs(2))), async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                stage.status().await
            },);
        let error = answer.unwrap().error.unwrap();
        assert!(error.is_state_lost() && other.live > 0);
        let cancel = CancellationToken::new();
        let (started, execute) = (
            Instant::now(),
            Execute {
                cancel: cancel.clone(),
                ..first("1")
            },
        );
        let (answer, ()) = tokio::join!(stage.execute(execute), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        });
        assert_eq!(answer, Err(ExecuteError::Cancelled));
        assert!(started.elapsed() < Duration::from_secs(5));
        stage.until(|status| status.live == 1).await;
    });
}

fn failing_starts() {
    run(async {
        let mut spec = fake::spec("good");
        spec.program = "/nonexistent/deno".into();
        let stage = Stage::scripted(spec, sized(1, 3));
        let refused = stage.execute(first("1")).await;
        let Err(ExecuteError::Unavailable(reason)) = refused else {
            panic!("{refused:?}")
        };
        assert!(reason.contains("not found"), "{reason}");
        let status = stage.status().await;
        assert!(status.failures >= 3 && !status.ready, "{status:?}");
        // With the circuit open a call is not kept waiting.
        let start = Instant::now();
        let refused = stage.execute(first("1")).await;
        assert!(matches!(refused, Err(ExecuteError::Unavailable(_))));
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

fn no_ready() {
    run(async {
        for script in ["never_ready", "not_ready_but"] {
            let stage = Stage::scripted(fake::spec(script), sized(1, 3));
            stage.until(|status| status.failures == 1).await;
            let status = stage.status().await;
            assert_eq!((status.starts, status.ready), (0, false), "{script}");
        }
    });
}

fn full_queue() {
    run(async {
        let settings = InterpreterSettings {
            queue: 2,
            queue_wait: Duration::from_secs(2),
            ..sized(1, 1)
        };
        let stage = Stage::scripted(fake::spec("good"), settings);
        stage.fresh("1").await;
        // The only interpreter is held: two may wait, the third is told at once.
        let start = Instant::now();
        let calls = (0..3).map(|_| async {
            let answer = stage.execute(first("1")).await;
            assert_eq!(answer, Err(ExecuteError::Busy));
            start.elapsed() < Duration::from_secs(1)
        });
        let at_once = futures_util::future::join_all(calls).await;
        assert_eq!(at_once.into_iter().filter(|at_once| *at_once).count(), 1);
    });
}

fn patience() {
    run(async {
        let settings = InterpreterSettings {
            queue_wait: Duration::from_millis(300),
            ..sized(1, 1)
        };
        let stage = Stage::scripted(fake::spec("good"), settings);
        stage.fresh("1").await;
        // The only interpreter is held by a response that does not end.
        let answer = stage.execute(first("1")).await;
        assert_eq!(answer, Err(ExecuteError::Busy));
        let status = stage.status().await;
        assert_eq!(status.waiting, 0);
        assert_eq!(status.waits.counts.iter().sum::<u64>(), 1, "it got none");
    });
}

fn waits_are_counted() {
    run(async {
        let stage = Stage::scripted(fake::spec("good"), sized(1, 1));
        let first = stage.fresh("1").await;
        let (second, ()) = tokio::join!(stage.fresh("1"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stage.release(&first).await;
        });
        // No wait for a fresh one: it has its own.
        stage.again(&second, "1").await;
        let waits = stage.status().await.waits;
        assert_eq!(waits.counts.iter().sum::<u64>(), 2);
        assert!(waits.sum_us >= 300_000, "{waits:?}");
    });
}

fn cancelled_in_queue() {
    run(async {
        let stage = Stage::scripted(fake::spec("good"), sized(1, 1));
        stage.fresh("1").await;
        let execute = first("1");
        let cancel = execute.cancel.clone();
        let (answer, ()) = tokio::join!(stage.execute(execute), async {
            stage.until(|status| status.waiting == 1).await;
            cancel.cancel();
        });
        assert_eq!(answer, Err(ExecuteError::Cancelled));
        assert_eq!(stage.status().await.waiting, 0);
    });
}

fn owners() {
    run(async {
        let stage = Stage::scripted(fake::spec("good"), sized(1, 3));
        let first = stage.fresh("1").await;
        let theirs = Execute {
            owner: Owner::new("someone"),
            ..call(Container::Named(first.container_id.clone()), "1")
        };
        let answer = stage.execute(theirs).await;
        assert_eq!(answer, Err(ExecuteError::UnknownContainer));
        assert_eq!(stage.again(&first, "1").await.error, None);
    });
}

fn room() {
    run(async {
        let stage = Stage::scripted(fake::spec("good"), sized(1, 2));
        let first = stage.fresh("1").await;
        let second = stage.fresh("1").await;
        stage.release(&first).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        stage.release(&second).await;
        assert_eq!(stage.status().await.kept, 2);
        let third = stage.fresh("1").await;
        assert_ne!(third.container_id, first.container_id);
        let id = Container::Named(first.container_id);
        let gone = stage.execute(call(id, "1")).await;
        assert_eq!(gone, Err(ExecuteError::UnknownContainer));
    });
}

fn long_code() {
    run(async {
        let stage = Stage::scripted(fake::spec("good"), sized(1, 2));
        let code = "#".repeat(limits::CODE_BYTES + 1);
        let answer = stage.execute(first(&code)).await;
        assert_eq!(answer, Err(ExecuteError::CodeTooLong));
    });
}

fn stop() {
    run(async {
        let stage = Stage::scripted(fake::spec("half"), sized(2, 3));
        let (answer, ()) = tokio::join!(stage.execute(first("1")), async {
            stage
                .until(|status| status.held == 1 && status.idle == 2)
                .await;
            stage.actor.send(Stop).await.unwrap();
        });
        assert_eq!(answer.unwrap().error, Some(CallError::Died));
        stage.until(|status| status.live == 0).await;
        let refused = stage.execute(first("1")).await;
        assert!(matches!(refused, Err(ExecuteError::Unavailable(_))));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.status().await.live, 0, "none is started again");
    });
}

/// Nobody shares, nobody is lost, and there are never more processes than allowed.
fn two_hundred() {
    run(async {
        let settings = InterpreterSettings {
            sessions: SessionSettings {
                keep: 0,
                ..SessionSettings::default()
            },
            ..sized(2, 6)
        };
        let stage = Stage::scripted(fake::spec("good"), settings);
        let calls = (0..200).map(|_| async {
            let executed = stage.fresh("1").await;
            assert!(stage.status().await.live <= 6);
            stage.release(&executed).await;
            executed.container_id
        });
        let ids: Vec<String> = futures_util::future::join_all(calls).await;
        let unique: std::collections::HashSet<&String> = ids.iter().collect();
        assert_eq!(unique.len(), 200);
        stage
            .until(|status| status.held == 0 && status.live == 2)
            .await;
    });
}
