//! The processes under measurement: start, readiness, CPU and memory from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::process::{Child, Command};

use crate::client::Client;

/// Linux reports CPU time in ticks of 1/100 s on every architecture we build for.
const TICK_MICROS: u64 = 10_000;
/// How long a child may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A child process that serves on a port; killed when dropped.
pub(crate) struct Served {
    pub(crate) address: String,
    pub(crate) pid: u32,
    _child: Child,
}

/// Starts `command`, which will listen on `port`, and waits until a GET of `ready` gives 200;
/// also returns how long that took.
pub(crate) async fn start(
    mut command: Command,
    port: u16,
    ready: &str,
) -> Result<(Served, Duration), String> {
    let begun = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start a program of the benchmark: {error}"))?;
    let served = Served {
        address: format!("127.0.0.1:{port}"),
        pid: child.id().ok_or("a child ended at once")?,
        _child: child,
    };
    while begun.elapsed() < START_LIMIT {
        if let Ok(mut client) = Client::connect(&served.address).await
            && client.get(ready).await.is_ok_and(|it| it.status == 200)
        {
            return Ok((served, begun.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(format!("nothing is ready on port {port}"))
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16, String> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|error| format!("no port is free: {error}"))
}

/// A process with all its descendants, as they were when this was made.
#[derive(Clone, Debug)]
pub(crate) struct Tree(Vec<u32>);

impl Tree {
    /// The process and whatever it has started, and they.
    pub(crate) fn of(pid: u32) -> Self {
        let children = children();
        let mut found = vec![pid];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(children.get(&parent).into_iter().flatten());
            at += 1;
        }
        Self(found)
    }

    /// CPU time that the processes and their threads, ended ones too, have used; in µs, steps of
    /// 10 ms.
    pub(crate) fn cpu_micros(&self) -> Option<u64> {
        self.sum(|pid| {
            let fields = stat(pid)?;
            // User and system time are the 12th and 13th field behind the name.
            let mut times = fields.split_whitespace().skip(11);
            let user: u64 = times.next()?.parse().ok()?;
            let system: u64 = times.next()?.parse().ok()?;
            Some((user + system) * TICK_MICROS)
        })
    }

    /// CPU time of the threads that live now, in µs; finer, and blind to ended ones.
    pub(crate) fn cpu_micros_fine(&self) -> Option<u64> {
        self.sum(|pid| {
            let mut nanos = 0;
            for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
                let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
                nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
            }
            Some(nanos / 1000)
        })
    }

    /// `VmRSS` or `VmHWM` of all, in MiB.
    pub(crate) fn memory_mib(&self, field: &str) -> Option<f64> {
        self.sum(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib / 1024.0)
        })
    }

    /// Open descriptors of all.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        self.sum(|pid| Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
    }

    /// Makes `VmHWM` count from now.
    pub(crate) fn reset_peak(&self) {
        for pid in &self.0 {
            // Where the kernel refuses, the peak since the start is reported, which is no smaller.
            drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
        }
    }

    /// Over all that are there still; `None` when the first, which is under measurement, is gone.
    fn sum<T: std::iter::Sum>(&self, of: impl Fn(u32) -> Option<T>) -> Option<T> {
        let (first, others) = self.0.split_first()?;
        let first = of(*first)?;
        Some(
            std::iter::once(first)
                .chain(others.iter().filter_map(|pid| of(*pid)))
                .sum(),
        )
    }
}

/// Fields of `/proc/PID/stat` behind the name, which stands in parentheses and may hold blanks.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')').map(|(_, fields)| fields.to_owned())
}

/// Who has which children, on the whole machine.
fn children() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let parent = pid.and_then(|pid| stat(pid)?.split_whitespace().nth(1)?.parse().ok());
        if let (Some(pid), Some(parent)) = (pid, parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// Lets this process and those it starts have as many descriptors as may be; says how many.
pub(crate) fn raise_descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    usize::try_from(raised).unwrap_or(usize::MAX)
}

/// Processor, cores, kernel and load of this machine, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or(": unknown")
        .trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{model}, {cores} cores, Linux {}, load average before {}",
        kernel.trim(),
        load_average()
    )
}

/// Of the last 1, 5 and 15 minutes.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let figures: Vec<&str> = text.split(' ').take(3).collect();
    figures.join(" ")
}
