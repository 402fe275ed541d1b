//! Denial of service: every way to use too much ends in an error or in the end of one interpreter.
//!
//! Mutation: without `RLIMIT_DATA`, `p11_the_kernel_bounds_the_process` fails. The bombs end all the same:
//! by Python's own limit, by V8's, or by their time.

use std::time::Duration;

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::limits;
use vllm_responses_actors::interpreter::messages::{CallError, Executed};

use crate::isolation::interpreters;
use crate::stage::{Stage, brief, core, raised, run, sized, with_harness};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_never_ends_is_ended", endless),
        trial("p11_memory_is_bounded", memory),
        trial("p11_the_kernel_bounds_the_process", bounded),
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

/// What the kernel says of a waiting interpreter.
fn bounded() {
    run(async {
        let (folder, spec) = with_harness(&core(), &[]);
        let stage = Stage::scripted(spec, sized(1, 1));
        stage.until(|status| status.idle == 1).await;
        let pid = interpreters(folder.path()).pop().unwrap();
        let said = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let data = (limits::PROCESS_DATA_MIB + limits::RESERVED_CODE_MIB) * limits::MIB;
        for (name, most) in [
            ("Max data size", data),
            ("Max file size", 0),
            ("Max core file size", 0),
            ("Max open files", limits::OPEN_FILES),
        ] {
            let of_this = said.lines().find_map(|line| line.strip_prefix(name));
            // Soft and hard, then the unit.
            let both: Vec<&str> = of_this.unwrap().split_whitespace().take(2).collect();
            let most = most.to_string();
            assert_eq!(both, [most.as_str(); 2], "{name}");
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
