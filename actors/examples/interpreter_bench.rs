//! Measures the code interpreter: `cargo run --release --example interpreter_bench -- BUNDLE`.
//!
//! Prints one line per figure. The machine should be idle; times are medians unless said.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use tokio_util::sync::CancellationToken;
use vllm_responses_actors::env::{SystemClock, SystemIds};
use vllm_responses_actors::interpreter::actor::{CodeInterpreterActor, InterpreterSettings};
use vllm_responses_actors::interpreter::bundle::Bundle;
use vllm_responses_actors::interpreter::limits::CallLimits;
use vllm_responses_actors::interpreter::messages::{
    Container, Execute, Executed, InterpreterStatus, Observe, Release,
};
use vllm_responses_actors::interpreter::pool::PoolSettings;
use vllm_responses_actors::interpreter::settings::Limits;
use vllm_responses_actors::interpreter::worker::PyodideBackend;
use vllm_responses_actors::process::sandbox::Walls;
use vllm_responses_actors::process::{self, Launcher};
use vllm_responses_protocol::ids::Owner;

fn main() -> ExitCode {
    if let Some(code) = process::entry(std::env::args_os()) {
        return code;
    }
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("give the folder of a bundle");
        return ExitCode::from(2);
    };
    let bundle = match Bundle::open(Path::new(&folder)) {
        Ok(bundle) => bundle,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    actix_rt::System::new().block_on(measure(&bundle));
    ExitCode::SUCCESS
}

type Interpreter = Addr<CodeInterpreterActor>;

fn start(bundle: &Bundle, idle: usize) -> Interpreter {
    let launcher = Launcher::start("/proc/self/exe".into(), Box::new(std::io::stderr())).unwrap();
    let mut settings = InterpreterSettings {
        pool: PoolSettings {
            idle,
            most_live: 12,
            ..PoolSettings::default()
        },
        ..InterpreterSettings::default()
    };
    settings.sessions.keep = 0;
    CodeInterpreterActor::new(
        Box::new(PyodideBackend::new(launcher, bundle, &Limits::default())),
        settings,
        Walls::of_this_machine(),
        (Box::new(SystemClock), Box::new(SystemIds)),
    )
    .start()
}

async fn status(interpreter: &Interpreter) -> InterpreterStatus {
    interpreter.send(Observe).await.unwrap()
}

async fn until(interpreter: &Interpreter, what: impl Fn(&InterpreterStatus) -> bool) {
    while !what(&status(interpreter).await) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn call(interpreter: &Interpreter, container: Container, code: &str) -> Executed {
    let execute = Execute {
        owner: Owner::default(),
        container,
        code: code.to_owned(),
        limits: CallLimits::default(),
        cancel: CancellationToken::new(),
    };
    interpreter.send(execute).await.unwrap().unwrap()
}

async fn release(interpreter: &Interpreter, executed: Executed) {
    let release = Release {
        owner: Owner::default(),
        container_id: executed.container_id,
    };
    interpreter.send(release).await.unwrap();
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    format!("{:.2} ms", middle.as_secs_f64() * 1000.0)
}

fn line(what: &str, figure: &str) {
    println!("{what:<52} {figure}");
}

/// Resident memory of every Deno and every guardian below this process, in MiB.
fn memory(name: &str) -> Vec<u64> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let texts = pids.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
    texts
        .filter(|text| {
            text.lines()
                .next()
                .is_some_and(|line| line.split_whitespace().nth(1) == Some(name))
        })
        .filter_map(|text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("VmRSS"))?
                .to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map(|kib| kib / 1024)
        .collect()
}

async fn measure(bundle: &Bundle) {
    let warms = !bundle.manifest().imports.is_empty();
    let begin = Instant::now();
    let interpreter = start(bundle, 2);
    until(&interpreter, |status| status.starts == 1).await;
    line(
        "start to the first usable interpreter",
        &median(vec![begin.elapsed()]),
    );
    until(&interpreter, |s| s.idle == 2 || (warms && s.warm == 1)).await;
    line("start to a full stock", &median(vec![begin.elapsed()]));
    line(
        "resident, waiting interpreters (MiB)",
        &format!("{:?}", memory("deno")),
    );
    line(
        "resident, their guardians (MiB)",
        &format!("{:?}", memory("guard:interpret")),
    );
    waits(&interpreter, "1 + 1", |status| status.idle >= 1).await;
    if warms {
        let plot = "import pandas as pd\nimport matplotlib.pyplot as plt\n\
                    pd.DataFrame({'a': [1, 2]}).plot()\nplt.show()";
        waits(&interpreter, plot, |status| status.warm >= 1).await;
    }
    round_trips(&interpreter).await;
    sustained(&interpreter).await;
}

/// A first call in a fresh interpreter, with the stock there: waiting for it, being started included.
async fn waits(
    interpreter: &Interpreter,
    code: &str,
    stocked: impl Fn(&InterpreterStatus) -> bool,
) {
    let (mut fresh, mut second, mut refill) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        until(interpreter, &stocked).await;
        until(interpreter, |status| status.live <= 2).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begin = Instant::now();
        let executed = call(interpreter, Container::New, code).await;
        fresh.push(begin.elapsed());
        let begin_again = Instant::now();
        let id = executed.container_id.clone();
        call(interpreter, Container::Named(id), code).await;
        second.push(begin_again.elapsed());
        until(interpreter, &stocked).await;
        refill.push(begin.elapsed());
        release(interpreter, executed).await;
    }
    let shown = code.lines().next().unwrap_or_default();
    line(
        &format!("`{shown}`: first call, fresh, stock there"),
        &median(fresh),
    );
    line(
        &format!("`{shown}`: second call, same container"),
        &median(second),
    );
    line(
        &format!("`{shown}`: stock full again after"),
        &median(refill),
    );
}

async fn round_trips(interpreter: &Interpreter) {
    let executed = call(interpreter, Container::New, "x = 1").await;
    let id = Container::Named(executed.container_id.clone());
    until(interpreter, |status| status.live >= 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut times = Vec::new();
    for _ in 0..300 {
        let begin = Instant::now();
        call(interpreter, id.clone(), "x + 1").await;
        times.push(begin.elapsed());
    }
    line("round trip in a running container", &median(times));
    release(interpreter, executed).await;
}

/// Calls one after the other in eight containers, and fresh interpreters as fast as they come.
async fn sustained(interpreter: &Interpreter) {
    let mut containers = Vec::new();
    for _ in 0..4 {
        containers.push(call(interpreter, Container::New, "x = 1").await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begin = Instant::now();
    let loops = containers.iter().map(|executed| async {
        let id = Container::Named(executed.container_id.clone());
        for _ in 0..500 {
            call(interpreter, id.clone(), "sum(range(1000))").await;
        }
    });
    futures_util::future::join_all(loops).await;
    let rate = 2000.0 / begin.elapsed().as_secs_f64();
    line(
        "calls per second, 4 running containers",
        &format!("{rate:.0}"),
    );
    for executed in containers {
        release(interpreter, executed).await;
    }
    let begin = Instant::now();
    let fresh = (0..20).map(|_| async {
        let executed = call(interpreter, Container::New, "1 + 1").await;
        release(interpreter, executed).await;
    });
    futures_util::future::join_all(fresh).await;
    let rate = 20.0 / begin.elapsed().as_secs_f64();
    line(
        "fresh interpreters per second, sustained",
        &format!("{rate:.2}"),
    );
}
