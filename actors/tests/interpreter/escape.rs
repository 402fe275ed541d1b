//! Every probe against the whole, and against the rest when the first wall is taken down.
//!
//! A probe passes when nothing of the host was read, written, reached or signalled. That the listeners
//! and the file would show it is checked by reaching them from here.
//!
//! Mutation: with `Deno.permissions.revokeSync` left out of the harness and the first wall down,
//! `25_bundle` and `25_snapshot` fail.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::bundle::Bundle;
use vllm_responses_actors::interpreter::messages::{CallError, Executed};

use crate::probes::{PRELUDE, PROBES, Probe};
use crate::stage::{Stage, brief, core, run, sized, with_harness};
use crate::{stage, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("no_probe_gets_out", || all_probes(&core())),
        trial(
            "no_probe_gets_out_with_javascript_at_hand",
            javascript_at_hand,
        ),
        trial("the_canaries_can_sing", canaries),
    ]
}

/// What must stay untouched on the host.
struct Host {
    folder: tempfile::TempDir,
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        std::fs::write(folder.path().join("secret.json"), format!("\"{SECRET}\"")).unwrap();
        let unix = UnixListener::bind(folder.path().join("unix")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        unix.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        Self {
            folder,
            tcp,
            udp,
            unix,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fill(&self, code: &str, bundle: &Bundle) -> String {
        code.replace("FOLDER", &self.folder.path().display().to_string())
            .replace("TCP", &self.tcp.local_addr().unwrap().port().to_string())
            .replace("UDP", &self.udp.local_addr().unwrap().port().to_string())
            .replace("PARENT", &std::process::id().to_string())
            .replace("BUNDLE", &bundle.root().display().to_string())
    }

    /// What was touched.
    fn traces(&self) -> Vec<&'static str> {
        let blocked = |kind: ErrorKind| kind == ErrorKind::WouldBlock;
        let mut traces = Vec::new();
        if !matches!(self.tcp.accept(), Err(error) if blocked(error.kind())) {
            traces.push("tcp");
        }
        if !matches!(self.unix.accept(), Err(error) if blocked(error.kind())) {
            traces.push("unix");
        }
        if !matches!(self.udp.recv(&mut [0]), Err(error) if blocked(error.kind())) {
            traces.push("udp");
        }
        if std::fs::read(self.file("secret")).unwrap() != SECRET.as_bytes() {
            traces.push("secret");
        }
        if self.file("touched").exists() {
            traces.push("touched");
        }
        traces
    }
}

const SECRET: &str = "the-secret-of-the-host";
const WALL: Duration = Duration::from_secs(8);

/// The names of the probes that got out.
async fn escaped(stage: &Stage, bundle: &Bundle, probe: &Probe) -> Option<String> {
    let host = Host::new();
    let code = host.fill(&format!("{PRELUDE}\n{}", probe.code), bundle);
    let executed = stage.execute(brief(&code, WALL)).await.unwrap();
    let said = said(&executed);
    let traces = host.traces();
    let is_out = said.contains("REACHED") || said.contains(SECRET) || !traces.is_empty();
    stage.release(&executed).await;
    is_out.then(|| format!("{}: {traces:?} {said}", probe.name))
}

/// Everything that came back, but the probe's own text, which tracebacks quote.
fn said(executed: &Executed) -> String {
    let error = match &executed.error {
        Some(CallError::Raised(text)) => text.lines().last().unwrap_or_default(),
        _ => "",
    };
    let images = executed.images.concat();
    format!("{}\n{error}\n{images}", executed.logs)
}

async fn none_escapes(stage: &Stage, bundle: &Bundle) {
    assert!(PROBES.len() >= 50);
    let mut out = Vec::new();
    // A few at a time: some only wait.
    for probes in PROBES.chunks(4) {
        let attempts = probes.iter().map(|probe| escaped(stage, bundle, probe));
        out.extend(
            futures_util::future::join_all(attempts)
                .await
                .into_iter()
                .flatten(),
        );
    }
    assert!(out.is_empty(), "{}", out.join("\n"));
    // Whatever was tried, the next call finds a whole interpreter.
    let call = stage::first("1 + 1");
    assert_eq!(stage.execute(call).await.unwrap().logs, "2\n");
}

pub(crate) fn all_probes(bundle: &Bundle) {
    run(async {
        let mut settings = sized(2, 6);
        settings.sessions.keep = 0;
        none_escapes(&Stage::on(bundle, settings), bundle).await;
    });
}

/// Without the first wall: all of JavaScript is at hand, and Deno's own and the kernel's hold.
fn javascript_at_hand() {
    run(async {
        let bundle = core();
        let (_folder, mut spec) = with_harness(
            &bundle,
            &[
                ("jsglobals: visible()", "jsglobals: globalThis"),
                ("if (!KEPT.has(name)) delete globalThis[name];", ""),
            ],
        );
        let flag = ",--disallow-code-generation-from-strings";
        for argument in &mut spec.args {
            *argument = argument.to_string_lossy().replace(flag, "").into();
        }
        let mut settings = sized(2, 6);
        settings.sessions.keep = 0;
        let stage = Stage::scripted(spec, settings);
        let control = format!("{PRELUDE}\nrun_text('typeof Deno.readTextFileSync')");
        let control = stage.fresh(&control).await;
        assert_eq!(control.logs, "'function'\n", "JavaScript is not at hand");
        none_escapes(&stage, &bundle).await;
    });
}

fn canaries() {
    let host = Host::new();
    assert_eq!(host.traces(), Vec::<&str>::new());
    drop(TcpStream::connect(host.tcp.local_addr().unwrap()).unwrap());
    drop(UnixStream::connect(host.file("unix")).unwrap());
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    from.send_to(b"x", host.udp.local_addr().unwrap()).unwrap();
    std::fs::write(host.file("touched"), "").unwrap();
    std::fs::write(host.file("secret"), "").unwrap();
    assert_eq!(host.traces(), ["tcp", "unix", "udp", "secret", "touched"]);
}
