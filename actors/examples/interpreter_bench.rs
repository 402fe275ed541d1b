//! Measures the code interpreter: `cargo run --release --example interpreter_bench -- BUNDLE [--json]`.
//!
//! Prints one line per figure, or with `--json` one object with all of them. The machine should be
//! idle; times are medians unless said.

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
use vllm_responses_protocol::ids::{self, Owner, Prefix};

fn main() -> ExitCode {
    if let Some(code) = process::entry(std::env::args_os()) {
        return code;
    }
    let (flags, folders): (Vec<_>, Vec<_>) = std::env::args_os()
        .skip(1)
        .partition(|word| word.to_string_lossy().starts_with("--"));
    let (Some(folder), true) = (folders.first(), flags.iter().all(|flag| flag == "--json")) else {
        eprintln!("give the folder of a bundle, and `--json` if you like");
        return ExitCode::from(2);
    };
    let bundle = match Bundle::open(Path::new(folder)) {
        Ok(bundle) => bundle,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let figures = actix_rt::System::new().block_on(measure(&bundle));
    if flags.is_empty() {
        for figure in &figures {
            println!("{:<56} {}", figure.what, figure.shown());
        }
    } else {
        println!("{}", json(&figures));
    }
    ExitCode::SUCCESS
}

/// One thing that was measured.
struct Figure {
    /// In words; with the unit where it has one.
    what: String,
    /// Key in the JSON, which ends with the unit.
    key: String,
    /// Several where each process has its own.
    values: Vec<f64>,
}

impl Figure {
    fn one(key: &str, what: &str, value: f64) -> Self {
        Self {
            what: what.to_owned(),
            key: key.to_owned(),
            values: vec![value],
        }
    }

    fn shown(&self) -> String {
        let values: Vec<_> = self.values.iter().map(|v| format!("{v:.2}")).collect();
        values.join(" ")
    }
}

/// Keys are ours and values finite numbers: nothing needs escaping.
fn json(figures: &[Figure]) -> String {
    let fields: Vec<_> = figures
        .iter()
        .map(|figure| {
            let values: Vec<_> = figure.values.iter().map(|v| format!("{v:.3}")).collect();
            let value = match values.as_slice() {
                [one] => one.clone(),
                many => format!("[{}]", many.join(",")),
            };
            format!("\"{}\":{value}", figure.key)
        })
        .collect();
    format!("{{{}}}", fields.join(","))
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

/// A container that is not there yet.
fn new() -> Container {
    Container::Shared(ids::fresh(Prefix::Container, &mut SystemIds).into())
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

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1000.0
}

/// Resident memory of every Deno and every guardian below this process, in MiB.
fn memory(name: &str) -> Vec<f64> {
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
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        })
        .map(|kib| kib / 1024.0)
        .collect()
}

async fn measure(bundle: &Bundle) -> Vec<Figure> {
    let warms = !bundle.manifest().imports.is_empty();
    let begin = Instant::now();
    let interpreter = start(bundle, 2);
    until(&interpreter, |status| status.starts == 1).await;
    let cold = median(vec![begin.elapsed()]);
    until(&interpreter, |s| s.idle == 2 || (warms && s.warm == 1)).await;
    let stocked = median(vec![begin.elapsed()]);
    let memory = |key: &str, what: &str, name: &str| Figure {
        what: what.to_owned(),
        key: key.to_owned(),
        values: memory(name),
    };
    let mut figures = vec![
        Figure::one("cold_start_ms", "start to the first usable one (ms)", cold),
        Figure::one("full_stock_ms", "start to a full stock (ms)", stocked),
        memory("worker_mib", "resident, waiting interpreters (MiB)", "deno"),
        memory(
            "guardian_mib",
            "resident, their guardians (MiB)",
            "guard:interpret",
        ),
    ];
    figures.extend(waits(&interpreter, ("base", "1 + 1"), |status| status.idle >= 1).await);
    if warms {
        let plot = "import pandas as pd\nimport matplotlib.pyplot as plt\n\
                    pd.DataFrame({'a': [1, 2]}).plot()\nplt.show()";
        figures.extend(waits(&interpreter, ("plot", plot), |status| status.warm >= 1).await);
    }
    figures.push(round_trips(&interpreter).await);
    figures.extend(sustained(&interpreter).await);
    figures
}

/// A first call in a fresh interpreter, with the stock there: waiting for it, being started included.
async fn waits(
    interpreter: &Interpreter,
    (name, code): (&str, &str),
    stocked: impl Fn(&InterpreterStatus) -> bool,
) -> Vec<Figure> {
    let (mut fresh, mut second, mut refill) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        until(interpreter, &stocked).await;
        until(interpreter, |status| status.live <= 2).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begin = Instant::now();
        let executed = call(interpreter, new(), code).await;
        fresh.push(begin.elapsed());
        let begin_again = Instant::now();
        let id = executed.container_id.clone();
        call(interpreter, Container::Named(id), code).await;
        second.push(begin_again.elapsed());
        until(interpreter, &stocked).await;
        refill.push(begin.elapsed());
        release(interpreter, executed).await;
    }
    let figure = |key: &str, what: &str, times| {
        let key = format!("{name}_{key}_ms");
        Figure::one(&key, &format!("{name}: {what} (ms)"), median(times))
    };
    vec![
        figure("first_call", "first call, fresh, stock there", fresh),
        figure("second_call", "second call, same container", second),
        figure("refill", "stock full again after", refill),
    ]
}

async fn round_trips(interpreter: &Interpreter) -> Figure {
    let executed = call(interpreter, new(), "x = 1").await;
    let id = Container::Named(executed.container_id.clone());
    until(interpreter, |status| status.live >= 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut times = Vec::new();
    for _ in 0..300 {
        let begin = Instant::now();
        call(interpreter, id.clone(), "x + 1").await;
        times.push(begin.elapsed());
    }
    release(interpreter, executed).await;
    let what = "round trip in a running container (ms)";
    Figure::one("round_trip_ms", what, median(times))
}

/// Calls one after the other in four containers, and fresh interpreters as fast as they come.
async fn sustained(interpreter: &Interpreter) -> [Figure; 2] {
    let mut containers = Vec::new();
    for _ in 0..4 {
        containers.push(call(interpreter, new(), "x = 1").await);
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
    let calls = 2000.0 / begin.elapsed().as_secs_f64();
    for executed in containers {
        release(interpreter, executed).await;
    }
    let begin = Instant::now();
    let fresh = (0..20).map(|_| async {
        let executed = call(interpreter, new(), "1 + 1").await;
        release(interpreter, executed).await;
    });
    futures_util::future::join_all(fresh).await;
    let fresh = 20.0 / begin.elapsed().as_secs_f64();
    let calls_in = "calls per second, 4 running containers";
    [
        Figure::one("calls_per_s", calls_in, calls),
        Figure::one(
            "fresh_per_s",
            "fresh interpreters per second, sustained",
            fresh,
        ),
    ]
}
