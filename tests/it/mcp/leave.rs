//! C1, C2 where a tool is involved: a client that leaves ends the tool's call, and no round begins any more.
//!
//! Mutation tried, and it failed: a call that is not given the turn's cancellation. Not tried yet: a turn
//! that goes on without its client.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::peer::Peer;
use super::{free_port, wait_available, write_file};
use crate::harness::client::Open;
use crate::harness::upstream::Closed;
use crate::harness::upstream::script::tool_call;
use crate::harness::{Fake, Script, TestGateway, knobs};

/// A gateway with one MCP server.
struct Scene {
    fake: Fake,
    peer: Peer,
    gateway: TestGateway,
    _folder: TempDir,
}

impl Scene {
    fn start() -> Self {
        let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
        let peer = Peer::start(&["hang", "echo"]);
        let file = write_file(folder.path(), &json!({"p": {"url": peer.url()}}));
        let gateway = TestGateway::on(&fake.url())
            .flag("--mcp-config")
            .flag(file.to_str().unwrap())
            .flag("--mcp-port")
            .flag(&free_port().to_string())
            .start();
        wait_available(gateway.client(), "p");
        Self {
            fake,
            peer,
            gateway,
            _folder: folder,
        }
    }

    /// A model that calls this tool, and then holds its second answer.
    fn model(&self, name: &str, tool: &str) -> String {
        let call = tool_call(0, "c1", &format!("mcp__p__{tool}"), &["{}"]);
        let first = Script::stream().all(&call).end("tool_calls");
        self.fake.set(name, [first, Script::stream().hold()]);
        name.to_owned()
    }

    fn ask(&self, model: &str, stream: bool) -> Open {
        let tools = json!([{"type": "mcp", "server_label": "p"}]);
        let body = json!({"model": model, "input": "x", "stream": stream, "tools": tools});
        self.gateway.client().open(&body)
    }

    fn assert_usable(&self) {
        self.fake.set("next", [Script::completion("ok")]);
        let next = json!({"model": "next", "input": "x"});
        assert_eq!(self.gateway.client().create(&next).status, 200);
    }
}

fn leave(open: Open, trial: usize) {
    if trial.is_multiple_of(2) {
        open.leave_fin();
    } else {
        open.leave_reset();
    }
}

#[track_caller]
fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The promise is a second; the limit has room for a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn c1_one_who_leaves_in_a_tool_call_ends_it() {
    let scene = Scene::start();
    for trial in 0..knobs::rounds(6, 100) {
        let model = scene.model(&format!("stream-{trial}"), "hang");
        let called = scene.peer.count("call hang");
        let cancelled = scene.peer.count("notifications/cancelled");
        let mut open = scene.ask(&model, true);
        open.read_until("response.mcp_call.in_progress");
        within(SOON, "the tool is called", || {
            scene.peer.count("call hang") > called
        });
        leave(open, trial);
        within(SOON, "the server is told", || {
            scene.peer.count("notifications/cancelled") > cancelled
        });
        assert_eq!(scene.fake.seen(&model).len(), 1, "no round begins any more");
    }
    scene.assert_usable();
}

#[test]
fn c2_one_who_leaves_in_a_tool_call_ends_it_without_streaming_too() {
    let scene = Scene::start();
    for trial in 0..knobs::rounds(4, 100) {
        let model = format!("whole-{trial}");
        let function = json!({"name": "mcp__p__hang", "arguments": "{}"});
        let call = json!([{"id": "c1", "type": "function", "function": function}]);
        let message = json!({"role": "assistant", "content": null, "tool_calls": call});
        scene.fake.set(
            &model,
            [
                Script::message(&message, "tool_calls"),
                Script::bare().hold(),
            ],
        );
        let called = scene.peer.count("call hang");
        let cancelled = scene.peer.count("notifications/cancelled");
        let open = scene.ask(&model, false);
        within(SOON, "the tool is called", || {
            scene.peer.count("call hang") > called
        });
        leave(open, trial);
        within(SOON, "the server is told", || {
            scene.peer.count("notifications/cancelled") > cancelled
        });
        assert_eq!(scene.fake.seen(&model).len(), 1, "no round begins any more");
    }
    scene.assert_usable();
}

/// At a moment that moves from the end of the first call into the second.
#[test]
fn c1_one_who_leaves_between_rounds_is_noticed() {
    let scene = Scene::start();
    let (mut before, mut within_second) = (0, 0);
    let trials = knobs::rounds(10, 100);
    for trial in 0..trials {
        let model = scene.model(&format!("rounds-{trial}"), "echo");
        let mut open = scene.ask(&model, true);
        open.read_until("response.mcp_call_arguments.done");
        thread::sleep(Duration::from_millis(3 * (trial as u64 % 12)));
        leave(open, trial);
        let seen = settled(&scene.fake, &model);
        match seen.as_slice() {
            [_] => before += 1,
            [_, second] => {
                within_second += 1;
                let how = second["how"].as_str().unwrap();
                assert_ne!(
                    how,
                    format!("{:?}", Closed::ByScript),
                    "closed by the gateway"
                );
            }
            more => panic!("{} rounds", more.len()),
        }
    }
    eprintln!("{before} left before the second round, {within_second} in it");
    scene.assert_usable();
}

/// How every call of this model ended, once all have and no other follows.
fn settled(fake: &Fake, model: &str) -> Vec<Value> {
    let ended = |fake: &Fake| {
        let seen = fake.wait_closed(model);
        let how = seen
            .iter()
            .map(|seen| format!("{:?}", seen.closed.unwrap().0));
        how.map(|how| json!({"how": how})).collect::<Vec<_>>()
    };
    let first = ended(fake);
    // A round that began in the same moment is seen now.
    thread::sleep(Duration::from_millis(200));
    let second = ended(fake);
    assert!(
        second.len() <= first.len() + 1,
        "rounds begin one after another"
    );
    second
}
