//! Many calls at once on real interpreters: each is answered, or told that it is busy, and memory stays
//! within what the number of interpreters allows.
//!
//! Mutation, not tried yet: with `is_full` of the pool always false there are more of them than allowed.

use std::time::Duration;

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::actor::InterpreterSettings;
use vllm_responses_actors::interpreter::messages::ExecuteError;
use vllm_responses_actors::interpreter::sessions::SessionSettings;

use crate::isolation::interpreters;
use crate::stage::{Stage, core, first, run, sized, with_harness};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_crowd_is_answered_or_told_that_it_is_busy", || {
            crowd(30, 20);
        }),
        trial("full_two_hundred_calls_on_real_interpreters", || {
            crowd(200, 150);
        })
        .with_ignored_flag(true),
    ]
}

/// Interpreters at once.
const MOST: usize = 3;
/// Resident in an interpreter with the standard library, at most; measured 230.
const MOST_MIB: usize = 400;

fn crowd(calls: usize, queue: usize) {
    run(async {
        let settings = InterpreterSettings {
            sessions: SessionSettings {
                keep: 0,
                ..SessionSettings::default()
            },
            queue,
            queue_wait: Duration::from_secs(20),
            ..sized(2, MOST)
        };
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, settings);
        stage.until(|status| status.idle == 2).await;
        let asked = (0..calls).map(|number| {
            let stage = stage.clone();
            async move {
                let code = format!("x = 'a' * 10_000_000\nlen(x) + {number}");
                let answer = stage.execute(first(&code)).await;
                assert!(stage.status().await.live <= MOST);
                match answer {
                    Ok(executed) => {
                        let logs = format!("{}\n", 10_000_000 + number);
                        assert_eq!((&executed.error, &executed.logs), (&None, &logs));
                        stage.release(&executed).await;
                        true
                    }
                    Err(error) => {
                        assert_eq!(error, ExecuteError::Busy);
                        false
                    }
                }
            }
        });
        let all = futures_util::future::join_all(asked);
        let watched = async {
            loop {
                let resident: usize = interpreters(folder.path()).into_iter().map(mib).sum();
                assert!(resident <= MOST * MOST_MIB, "{resident} MiB");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let answers = tokio::select! {
            answers = all => answers,
            () = watched => Vec::new(),
        };
        let answered = answers.iter().filter(|&&answered| answered).count();
        // Two interpreters wait, and more come; the queue takes no more than it says.
        assert!(answered >= 2 && answered < calls, "{answered}");
        stage
            .until(|status| status.waiting == 0 && status.held == 0)
            .await;
        assert_eq!(stage.fresh("1").await.logs, "1\n");
    });
}

/// Resident memory of a process.
fn mib(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.unwrap_or(0) / 1024
}
