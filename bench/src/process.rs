//! The processes under measurement: start, readiness, CPU and memory from `/proc`.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

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

/// CPU time that the process and its threads, ended ones too, have used; in µs, steps of 10 ms.
pub(crate) fn cpu_micros(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks; user and system time are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some((user + system) * TICK_MICROS)
}

/// CPU time of the threads that live now, in µs; finer than [`cpu_micros`], blind to ended ones.
pub(crate) fn cpu_micros_fine(pid: u32) -> Option<u64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanos / 1000)
}

/// `VmRSS` or `VmHWM`, in MiB.
pub(crate) fn memory_mib(pid: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Makes `VmHWM` count from now.
pub(crate) fn reset_peak(pid: u32) {
    // Where the kernel refuses, the peak since the start is reported, which is no smaller.
    drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
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
