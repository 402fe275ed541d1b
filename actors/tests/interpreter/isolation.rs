//! State lasts within a container and goes nowhere else; a real interpreter does what a notebook does.
//!
//! Mutation: without `random.seed()` in the harness's `begin`, `restored_interpreters_differ` fails.

use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vllm_responses_actors::interpreter::messages::{CallError, ExecuteError, Executed};

use crate::stage::{Stage, again, core, first, raised, run, sized, with_harness};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_call_shows_what_a_notebook_shows", notebook),
        trial("state_lasts_within_a_container", stateful),
        trial("nothing_of_one_container_is_in_another", isolated),
        trial("restored_interpreters_differ", seeds),
        trial("errors_name_the_line", errors),
        trial("output_is_capped", output),
        trial("p2_a_killed_interpreter_ends_its_call_only", killed),
        trial("p2_one_killed_while_it_waits_costs_no_call", killed_idle),
        trial("a_cancelled_call_ends_within_a_second", cancelled),
        trial("kept_containers_go_on", kept),
    ]
}

fn notebook() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 3));
        let mut executed = stage.fresh("print('é\\ud800')\n1 + 1").await;
        assert_eq!(executed.error, None);
        assert_eq!(executed.logs, "é\\ud800\n2\n");
        for (code, logs) in [
            ("_ + 1", "3\n"),
            ("None", ""),
            ("5;", ""),
            ("x = 7", ""),
            ("import asyncio\nawait asyncio.sleep(0.01)\nx", "7\n"),
            ("async def f():\n    return x * 2\nawait f()", "14\n"),
            ("asyncio.run(f())", "14\n"),
            (
                "import sys; sys.stderr.write('to err\\n'); None",
                "to err\n",
            ),
            ("display('a', 1)", "'a'\n1\n"),
            ("__name__", "'__main__'\n"),
            ("import os; os.getcwd()", "'/mnt/data'\n"),
            ("open('a.txt', 'w').write('text')", "4\n"),
            ("open('/mnt/data/a.txt').read()", "'text'\n"),
            (
                "from dataclasses import dataclass\nimport pickle\n@dataclass\nclass P:\n    x: int\n\
                 pickle.loads(pickle.dumps(P(1)))",
                "P(x=1)\n",
            ),
            (
                "import sqlite3\nsqlite3.connect(':memory:').execute('select 1').fetchone()",
                "(1,)\n",
            ),
            ("print('no newline', end='')", "no newline"),
        ] {
            executed = stage.again(&executed, code).await;
            assert_eq!(executed.error, None, "{code}");
            assert_eq!(executed.logs, logs, "{code}");
        }
    });
}

fn stateful() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 3));
        let first = stage.fresh("import math\nvalue = math.pi").await;
        let second = stage.again(&first, "round(value, 2)").await;
        assert_eq!(second.logs, "3.14\n");
        assert_eq!(second.container_id, first.container_id);
        // An exception leaves the state as it was.
        let third = stage
            .again(&first, "value = 1\nraise ValueError(value)")
            .await;
        assert!(raised(&third).ends_with("ValueError: 1\n"));
        assert_eq!(stage.again(&first, "value").await.logs, "1\n");
    });
}

fn isolated() {
    run(async {
        let stage = Stage::on(&core(), sized(2, 4));
        let soiled = "\
import sys, os, json, builtins
marker = 'HERE'
open('/mnt/data/marker', 'w').write('HERE')
open('/tmp/marker', 'w').write('HERE')
os.environ['MARKER'] = 'HERE'
sys.modules['marker'] = sys
json.marker = builtins.marker = 'HERE'
builtins.print = None
sys.stdout.write('left in the buffer')
sys.stdout = None";
        let first = stage.fresh(soiled).await;
        assert_eq!(first.error, None, "{:?}", first.logs);
        let look = "\
import sys, os, json, builtins
print(os.listdir('/mnt/data'), os.path.exists('/tmp/marker'), 'MARKER' in os.environ)
print('marker' in sys.modules, hasattr(json, 'marker'), hasattr(builtins, 'marker'))
print('marker' in globals())";
        let other = stage.fresh(look).await;
        assert_eq!(other.error, None);
        assert_eq!(other.logs, "[] False False\nFalse False False\nFalse\n");
        assert_ne!(other.container_id, first.container_id);
    });
}

fn seeds() {
    run(async {
        let stage = Stage::on(&core(), sized(2, 4));
        let draw = "import random, uuid, os, tempfile\n\
                    print(random.random(), random.getrandbits(64), uuid.uuid4(), os.urandom(8))";
        let one = stage.fresh(draw).await.logs;
        let two = stage.fresh(draw).await.logs;
        for (a, b) in one.split_whitespace().zip(two.split_whitespace()) {
            assert_ne!(a, b, "the same in two interpreters");
        }
    });
}

fn errors() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 3));
        let first = stage.fresh("def f():\n    return 1 / 0\nf()").await;
        let text = raised(&first);
        assert!(text.contains("line 2, in f\n    return 1 / 0"), "{text}");
        assert!(!text.contains("_interpreter"), "{text}");
        for (code, end) in [
            ("def f(:", "SyntaxError: invalid syntax\n"),
            ("import sys; sys.exit(3)", "SystemExit: 3\n"),
            ("import subprocess; subprocess.run(['id'])", "processes.\n"),
            (
                "import os; os.system('id')",
                "OSError: there are no processes here\n",
            ),
            ("input()", "EOFError: EOF when reading a line\n"),
            (
                "import numpy_of_nobody",
                "No module named 'numpy_of_nobody'\n",
            ),
            (
                "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E",
                "failed>\n",
            ),
        ] {
            let text = raised(&stage.again(&first, code).await).to_owned();
            assert!(text.ends_with(end), "{code}: {text}");
        }
        let long = stage.again(&first, "raise ValueError('x' * 10**6)").await;
        assert!(raised(&long).len() < 20_000);
    });
}

fn output() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 3));
        let flood = stage
            .fresh("for i in range(30): print('y' * 100_000)")
            .await;
        assert_eq!((flood.error.as_ref(), flood.truncated), (None, true));
        assert_eq!(flood.logs.len(), 1024 * 1024);
        let next = stage.again(&flood, "1").await;
        assert_eq!((next.logs.as_str(), next.truncated), ("1\n", false));
    });
}

/// The interpreters whose command line has this in it; other tests have theirs in the same process.
pub(crate) fn interpreters(mark: &Path) -> Vec<i32> {
    let mark = mark.display().to_string();
    let is_ours = |pid: &i32| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
        read("comm").starts_with(b"deno") && line.contains(&mark)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_ours)
        .collect()
}

fn killed() {
    run(async {
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, sized(1, 2));
        stage.until(|status| status.idle == 1).await;
        let before = interpreters(folder.path());
        assert_eq!(before.len(), 1);
        let execute = first("print('so far')\nwhile True: pass");
        let start = Instant::now();
        let (answer, ()) = tokio::join!(stage.execute(execute), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for pid in before {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
        });
        let executed = answer.unwrap();
        assert_eq!(executed.error, Some(CallError::Died));
        assert_eq!(executed.logs, "so far\n");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(stage.fresh("2").await.logs, "2\n");
    });
}

/// Whenever the kill comes, before the call, with it or just after: either another interpreter runs
/// the code, or the call says that its own ended. At first the code has never been read.
fn killed_idle() {
    run(async {
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, sized(2, 4));
        for _ in 0..10 {
            stage.until(|status| status.idle == 2).await;
            for pid in interpreters(folder.path()) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
            let executed = stage.fresh("1 + 1").await;
            assert_eq!((&executed.error, executed.logs.as_str()), (&None, "2\n"));
            stage.release(&executed).await;
            let kept = stage.again(&executed, "x = 1").await;
            for pid in interpreters(folder.path()) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
            // State is lost with its interpreter: that is never made up for.
            let lost = stage.execute(again(&kept, "x")).await;
            assert!(
                matches!(
                    &lost,
                    Ok(Executed {
                        error: Some(CallError::Died),
                        ..
                    })
                ) || lost == Err(ExecuteError::UnknownContainer),
                "{lost:?}"
            );
        }
    });
}

fn cancelled() {
    run(async {
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, sized(1, 1));
        stage.until(|status| status.idle == 1).await;
        let victim = interpreters(folder.path());
        let execute = first("while True: pass");
        let cancel = execute.cancel.clone();
        let (answer, cancelled_at) = tokio::join!(stage.execute(execute), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cancel.cancel();
            Instant::now()
        });
        assert_eq!(answer, Err(ExecuteError::Cancelled));
        assert!(cancelled_at.elapsed() < Duration::from_secs(1));
        stage
            .until(|status| status.held == 0 && status.idle == 1)
            .await;
        let left = interpreters(folder.path());
        assert!(
            left.len() == 1 && left != victim,
            "the cancelled one is gone"
        );
    });
}

fn kept() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 3));
        let first = stage.fresh("x = 41").await;
        stage.release(&first).await;
        assert_eq!(stage.status().await.kept, 1);
        assert_eq!(stage.again(&first, "x + 1").await.logs, "42\n");
        assert_eq!(stage.status().await.kept, 0);
    });
}
