//! The operating system's wall alone: Deno with every permission, which must still reach nothing.
//!
//! Each attempt is first made without the wall, where it succeeds: so the attempts are real ones.
//!
//! Mutation: with `socketpair` let through for datagram sockets nothing here fails, since no API of
//! Deno makes one; with `libc::SYS_socket` in the list, `udp`, `unix` and `tcp` fail.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::settings::Limits;
use vllm_responses_actors::interpreter::worker;
use vllm_responses_actors::process::sandbox::Walls;
use vllm_responses_actors::process::{ChildSpec, EnvPolicy, Stdin};

use crate::stage::{core, launcher, run};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_wall_alone_holds", the_wall_alone_holds),
        trial("a_walled_process_keeps_its_limits", limits),
    ]
}

/// Prints the names of the attempts that succeeded.
const ATTEMPTS: &str = r#"
const [folder, tcp, udp, parent] = Deno.args;
const done = [];
const attempt = async (name, action) => {
  try {
    if ((await action()) !== false) done.push(name);
  } catch { /* stopped */ }
};
const symbols = {
  kill: { parameters: ["i32", "i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  unshare: { parameters: ["i32"], result: "i32" },
  syscall: { parameters: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], result: "i64" } };
const c = (text) => new TextEncoder().encode(text + "\0");
const libc = Deno.dlopen("libc.so.6", symbols).symbols;
await attempt("read", () => Deno.readTextFileSync("/etc/passwd"));
await attempt("list", () => [...Deno.readDirSync("/etc")]);
await attempt("environ", () => Deno.readTextFileSync("/proc/self/environ"));
await attempt("parents_environ", () => Deno.readTextFileSync(`/proc/${parent}/environ`));
await attempt("memory", () => Deno.openSync("/proc/self/mem", { read: true, write: true }));
await attempt("write", () => Deno.writeTextFileSync(`${folder}/written`, "x"));
await attempt("append", () => Deno.writeTextFileSync(`${folder}/secret`, "x", { append: true }));
await attempt("truncate", () => Deno.truncateSync(`${folder}/secret`, 1));
await attempt("folder", () => Deno.mkdirSync(`${folder}/made`));
await attempt("remove", () => Deno.removeSync(`${folder}/victim`));
await attempt("rename", () => Deno.renameSync(`${folder}/old`, `${folder}/new`));
await attempt("link", () => Deno.symlinkSync("/etc/passwd", `${folder}/link`));
await attempt("mode", () => Deno.chmodSync(`${folder}/secret`, 0o777));
await attempt("spawn", () => new Deno.Command("/bin/true").outputSync());
await attempt("tcp", async () => (await Deno.connect({ port: Number(tcp) })).close());
await attempt("unix", async () => (await Deno.connect({ transport: "unix", path: `${folder}/unix` })).close());
await attempt("udp", async () => {
  const socket = Deno.listenDatagram({ port: 0, transport: "udp", hostname: "127.0.0.1" });
  await socket.send(new Uint8Array([1]), { transport: "udp", port: Number(udp), hostname: "127.0.0.1" });
});
await attempt("listen", () => Deno.listen({ port: 0 }));
await attempt("signal", () => Deno.kill(Number(parent), "SIGURG"));
await attempt("native_signal", () => libc.kill(Number(parent), 0) === 0);
await attempt("native_inet", () => libc.socket(2, 1, 0) >= 0);
await attempt("native_unix", () => libc.socket(1, 2, 0) >= 0);
await attempt("native_netlink", () => libc.socket(16, 3, 0) >= 0);
await attempt("native_unshare", () => libc.unshare(0x400) === 0);
await attempt("native_keyctl", () => libc.syscall(250n, 0n, -3n, 1n, 0n, 0n, 0n) >= 0n);
await attempt("native_memfd", () => libc.syscall(319n, BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(c("x")))), 0n, 0n, 0n, 0n, 0n) >= 0n);
await attempt("native_io_uring", () => libc.syscall(425n, 1n, BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(new Uint8Array(256)))), 0n, 0n, 0n, 0n) >= 0n);
await attempt("native_second_numbering", () => libc.syscall(0x40000000n + 39n, 0n, 0n, 0n, 0n, 0n, 0n) > 0n);
console.log("DONE " + done.join(" "));
Deno.exit(0);
"#;

/// What succeeds where nothing is in the way. The rest depends on the machine.
const MUST_SUCCEED_OUTSIDE: &[&str] = &[
    "read",
    "list",
    "environ",
    "parents_environ",
    "memory",
    "write",
    "append",
    "truncate",
    "folder",
    "remove",
    "rename",
    "link",
    "mode",
    "spawn",
    "tcp",
    "unix",
    "udp",
    "listen",
    "signal",
    "native_signal",
    "native_inet",
    "native_unix",
    "native_netlink",
    "native_unshare",
    "native_memfd",
];

/// The worker's own specification with another program for Deno to run, and no permission denied.
fn spec(folder: &std::path::Path, rest: &[String]) -> ChildSpec {
    let bundle = core();
    let mut spec = worker::spec(&bundle, &Limits::default());
    let script = folder.join("attempts.mjs");
    std::fs::write(&script, ATTEMPTS).unwrap();
    let mut args: Vec<String> = [
        "run",
        "-A",
        "--unstable-net",
        "--no-prompt",
        "--quiet",
        "--no-config",
        "--no-lock",
    ]
    .map(str::to_owned)
    .to_vec();
    args.push(script.display().to_string());
    args.push(folder.display().to_string());
    args.extend_from_slice(rest);
    spec.args = args.into_iter().map(Into::into).collect();
    spec.stdin = Stdin::Null;
    spec.sandbox.as_mut().unwrap().read.push(script);
    spec
}

async fn succeeded(spec: ChildSpec) -> Vec<String> {
    let spawned = launcher().spawn(spec).await.unwrap();
    let mut stdout = spawned.stdout.unwrap();
    let report = tokio::time::timeout(Duration::from_secs(60), spawned.child.wait()).await;
    let report = report.expect("it ends").unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let done = text.trim().strip_prefix("DONE");
    let done = done.unwrap_or_else(|| panic!("{report:?} {text}"));
    done.split_whitespace().map(str::to_owned).collect()
}

fn the_wall_alone_holds() {
    run(async {
        let walls = Walls::of_this_machine();
        if !walls.are_complete() {
            eprintln!("SKIPPED: this kernel has no complete wall: {walls:?}");
            return;
        }
        for is_walled in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().canonicalize().unwrap();
            for name in ["secret", "victim", "old"] {
                std::fs::write(place.join(name), "secret").unwrap();
            }
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let unix = UnixListener::bind(place.join("unix")).unwrap();
            let rest = [
                tcp.local_addr().unwrap().port().to_string(),
                udp.local_addr().unwrap().port().to_string(),
                std::process::id().to_string(),
            ];
            let mut spec = spec(&place, &rest);
            if !is_walled {
                spec.sandbox = None;
                spec.limits.clear();
                spec.env = EnvPolicy::Only(vec![("HOME".into(), place.clone().into())]);
            }
            let succeeded = succeeded(spec).await;
            tcp.set_nonblocking(true).unwrap();
            udp.set_nonblocking(true).unwrap();
            unix.set_nonblocking(true).unwrap();
            let touched =
                tcp.accept().is_ok() || unix.accept().is_ok() || udp.recv(&mut [0]).is_ok();
            assert_eq!(touched, !is_walled, "the listeners");
            if is_walled {
                assert_eq!(succeeded, Vec::<String>::new());
            } else {
                for name in MUST_SUCCEED_OUTSIDE {
                    assert!(
                        succeeded.iter().any(|done| done == name),
                        "`{name}` is no attempt"
                    );
                }
            }
        }
    });
}

fn limits() {
    run(async {
        let mut spec = worker::spec(&core(), &Limits::default());
        spec.args.clear();
        spec.program = "/bin/cat".into();
        spec.args.push("/proc/self/limits".into());
        spec.stdin = Stdin::Null;
        spec.sandbox = None;
        let spawned = launcher().spawn(spec).await.unwrap();
        let mut text = String::new();
        spawned.stdout.unwrap().read_to_string(&mut text).unwrap();
        for (name, value) in [
            ("Max data size", "2147483648"),
            ("Max file size", "0"),
            ("Max core file size", "0"),
            ("Max open files", "64"),
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.contains(&format!(" {value} ")), "{line}");
        }
    });
}
