//! Denial of service: every way to use too much ends in an error or in the end of one interpreter.
//!
//! Mutation, not tried yet: without `RLIMIT_DATA` the bombs of JavaScript's memory should fail.

use std::time::Duration;

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::messages::{CallError, Executed};

use crate::stage::{Stage, brief, core, raised, run, sized};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_never_ends_is_ended", endless),
        trial("p11_memory_is_bounded", memory),
        trial("p11_what_would_multiply_cannot", multiply),
        trial("what_ends_the_interpreter_ends_its_call", ends),
        trial("an_interpreter_survives_its_memory_error", survives),
    ]
}

async fn attempt(stage: &Stage, code: &str, wall: Duration) -> Executed {
    let executed = stage.execute(brief(code, wall)).await.unwrap();
    stage.release(&executed).await;
    executed
}

fn endless() {
    run(async {
        let stage = Stage::on(&core(), sized(2, 4));
        for code in [
            "while True: pass",
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
            "import re; re.match(r'(a+)+b', 'a' * 40)",
            "9 ** 9 ** 9",
            "import time; time.sleep(1000)",
            "import asyncio; await asyncio.sleep(1000)",
            "import signal; signal.signal(signal.SIGTERM, lambda *a: 0)\nwhile True: pass",
            "while True: print('x' * 1000)",
        ] {
            let code = format!("print('begin')\n{code}");
            let executed = attempt(&stage, &code, Duration::from_secs(1)).await;
            assert_eq!(
                executed.error,
                Some(CallError::TimedOut { seconds: 1 }),
                "{code}"
            );
            assert!(executed.logs.starts_with("begin\n"), "{code}");
        }
        stage
            .until(|status| status.held == 0 && status.live <= 3)
            .await;
    });
}

/// An error, or the end of the interpreter; never a process beyond its limit.
fn memory() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 2));
        for code in [
            "b = []\nwhile True: b.append(bytearray(10_000_000))",
            "[0] * 10_000_000_000",
            "'x' * (2**31 - 1)",
            "f = open('/mnt/data/f', 'wb')\nwhile True: f.write(bytes(10_000_000))",
            "import js\nb = []\nwhile True: b.append(js.Uint8Array.new(100_000_000))",
            "import js\nb = js.Array.new()\nwhile True: b.push(js.Array.new(1_000_000))",
            "import sys\nsys.setrecursionlimit(10**8)\ndef f(n): return f(n + 1)\nf(0)",
            "def f(n): return f(n + 1)\nf(0)",
            "x = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        ] {
            let executed = attempt(&stage, code, Duration::from_secs(20)).await;
            match executed.error {
                Some(CallError::Raised(text)) => assert!(
                    [
                        "MemoryError",
                        "OverflowError",
                        "RecursionError",
                        "OSError",
                        "JsException"
                    ]
                    .iter()
                    .any(|name| text.contains(name)),
                    "{code}: {text}"
                ),
                Some(CallError::Died | CallError::TimedOut { .. }) => {}
                None => panic!("{code}: nothing stopped it"),
            }
        }
    });
}

fn multiply() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 3));
        for code in [
            "import os; os.fork()",
            "import subprocess; subprocess.Popen(['sh'])",
            "import threading; threading.Thread(target=print).start()",
            "import multiprocessing; multiprocessing.Process(target=print).start()",
            "from concurrent.futures import ThreadPoolExecutor as T; T().submit(print)",
            "import js; js.Worker.new('data:,')",
        ] {
            let executed = attempt(&stage, code, Duration::from_secs(20)).await;
            raised(&executed);
        }
    });
}

fn ends() {
    run(async {
        let stage = Stage::on(&core(), sized(2, 4));
        for code in [
            "import os; os._exit(0)",
            "import os; os.abort()",
            "import ctypes; ctypes.string_at(2**32 - 1)",
            "import ctypes; ctypes.CDLL(None).abort()",
            "import ctypes; ctypes.CDLL(None).system(b'id')",
        ] {
            let executed = attempt(&stage, code, Duration::from_secs(20)).await;
            // Some of these emscripten turns into an exception; none may look like success and leave
            // the interpreter half dead.
            if executed.error.as_ref().is_none_or(CallError::is_state_lost) {
                assert!(executed.error.is_some(), "{code}");
            } else {
                assert_eq!(stage.again(&executed, "1 + 1").await.logs, "2\n", "{code}");
            }
        }
    });
}

fn survives() {
    run(async {
        let stage = Stage::on(&core(), sized(1, 2));
        let code = "x = 1\nb = []\nwhile True: b.append(bytearray(10_000_000))";
        let first = attempt(&stage, code, Duration::from_secs(20)).await;
        assert!(raised(&first).ends_with("MemoryError\n"));
        let next = stage
            .again(&first, "del b\nlen(bytearray(50_000_000)) + x")
            .await;
        assert_eq!((next.error, next.logs.as_str()), (None, "50000001\n"));
    });
}
