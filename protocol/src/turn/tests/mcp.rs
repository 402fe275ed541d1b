//! MCP in a response: lists, calls, approvals, and what refuses the request.

use std::sync::Arc;

use super::super::effect::Claimed;
use super::*;
use crate::history;
use crate::mcp::catalogue::{RawTool, catalogue};
use crate::mcp::outcome::{CallError, Outcome};
use crate::tools::mcp::{ListError, Listed};
use crate::tools::{ToolCall, ToolOutcome};

pub(super) fn listed(names: &[&str]) -> Listed {
    let tools = names.iter().map(|name| RawTool {
        name: (*name).to_owned(),
        description: Some(format!("does {name}")),
        input_schema: r#"{"type":"object"}"#.to_owned(),
        annotations: None,
        read_only: name.starts_with("read"),
        in_headers: false,
    });
    Listed {
        tools: Arc::new(catalogue("s", tools.collect())),
        always_approve: false,
    }
}

/// A turn with the MCP server `s`.
pub(super) struct Mcp {
    pub(super) bench: Bench,
    pub(super) bodies: Vec<Value>,
    pub(super) runs: Vec<ToolCall>,
    pub(super) actions: Vec<String>,
}

impl Mcp {
    pub(super) fn new(tool: &Value, extra: &Value, history: Vec<Item>) -> Self {
        let mut declared = json!({"type": "mcp", "server_label": "s"});
        let mut body = json!({"model": "m", "input": "x", "stream": true});
        for (name, value) in tool.as_object().unwrap() {
            declared[name] = value.clone();
        }
        body["tools"] = json!([declared]);
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let mut made = Self {
            bench: Bench::new(&body),
            bodies: Vec::new(),
            runs: Vec::new(),
            actions: Vec::new(),
        };
        made.step(Input::History(history));
        assert_eq!(made.actions, ["list 0"]);
        made.actions.clear();
        made
    }

    pub(super) fn plain() -> Self {
        let mut made = Self::new(&json!({}), &json!({}), Vec::new());
        made.answer(Ok(listed(&["add", "read_it"])));
        made
    }

    pub(super) fn answer(&mut self, answer: Result<Listed, ListError>) {
        self.step(Input::ToolsListed {
            tool_index: 0,
            answer,
        });
    }

    pub(super) fn step(&mut self, input: Input<'_>) {
        self.bench.turn.step(NOW, input, &mut self.bench.effects);
        for action in self.bench.effects.actions.drain(..) {
            if !matches!(action, Action::Used(_)) {
                self.actions.push(name(&action));
            }
            match action {
                Action::CallModel(body) => self.bodies.push(serde_json::from_slice(&body).unwrap()),
                Action::RunTool(call) => self.runs.push(call),
                Action::ListTools { .. }
                | Action::FindItems(_)
                | Action::EffortRefused
                | Action::Used(_)
                | Action::CountTokens(_)
                | Action::ClaimApprovals(_)
                | Action::Suspect(_)
                | Action::LeftOut(_)
                | Action::Complained(_)
                | Action::LostCalls(_)
                | Action::Begin
                | Action::Answer
                | Action::Refuse(_)
                | Action::Persist(_)
                | Action::End => {}
            }
        }
    }

    pub(super) fn calls(&mut self, calls: &[(&str, &str)]) {
        for (index, (name, arguments)) in calls.iter().enumerate() {
            let call = json!({"index": index, "id": format!("u{index}"), "function": {"name": name, "arguments": arguments}});
            self.step(Input::UpstreamBytes(&delta(&json!({"tool_calls": [call]}))));
        }
        self.ends("tool_calls");
    }

    pub(super) fn ends(&mut self, reason: &str) {
        self.step(Input::UpstreamBytes(&finish(reason)));
        self.step(Input::UpstreamBytes(b"data: [DONE]\n\n"));
    }

    pub(super) fn says(&mut self, text: &str) {
        self.step(Input::UpstreamBytes(&says(text)));
        self.ends("stop");
    }

    /// The oldest call ends so.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        let call = self.runs.remove(0);
        self.step(Input::ToolEnded {
            output_index: call.output_index,
            outcome: ToolOutcome::Mcp(outcome),
        });
    }

    pub(super) fn gives(&mut self, text: &str) {
        self.ended(Outcome::text(text));
    }

    /// The finished resource, and the items as a later turn has them.
    pub(super) fn stored(mut self) -> (Value, Vec<Item>) {
        self.step(Input::Stored(Kept::Yes));
        let resource = self.bench.events().last().unwrap()["response"].clone();
        assert_eq!(resource["status"], "completed");
        let items = history::parse_items(&resource["output"].to_string()).unwrap();
        (resource, items)
    }

    pub(super) fn tool_names(&self, body: usize) -> Vec<&str> {
        let tools = self.bodies[body]["tools"].as_array().into_iter().flatten();
        tools
            .filter_map(|tool| tool["function"]["name"].as_str())
            .collect()
    }

    pub(super) fn refusal(&mut self) -> u16 {
        let refused = self
            .actions
            .iter()
            .find_map(|action| action.strip_prefix("refuse "));
        refused.unwrap().parse().unwrap()
    }
}

pub(super) const ADD: (&str, &str) = ("mcp__s__add", r#"{"a":1}"#);

#[test]
fn a_list_a_call_and_an_answer() {
    let mut turn = Mcp::plain();
    assert_eq!(turn.tool_names(0), ["mcp__s__add", "mcp__s__read_it"]);
    turn.calls(&[ADD]);
    let GatewayCall::Mcp(call) = &turn.runs[0].call else {
        panic!("not MCP");
    };
    assert_eq!((&*call.tool, &*call.arguments), ("add", r#"{"a":1}"#));
    turn.gives("3");
    assert_eq!(turn.bodies[1]["messages"][2]["content"], "3");
    assert_eq!(
        turn.bodies[1]["messages"][1]["tool_calls"][0]["function"]["name"],
        "mcp__s__add"
    );
    turn.says("three");
    let types = turn.bench.types();
    assert_eq!(
        types[2..12],
        [
            "response.output_item.added",
            "response.mcp_list_tools.in_progress",
            "response.mcp_list_tools.completed",
            "response.output_item.done",
            "response.output_item.added",
            "response.mcp_call.in_progress",
            "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done",
            "response.mcp_call.completed",
            "response.output_item.done",
        ]
    );
    let (resource, items) = turn.stored();
    assert_eq!(resource["output"][0]["tools"][0]["name"], "add");
    assert_eq!(resource["output"][1]["output"], "3");
    assert_eq!(resource["output"][1]["error"], Value::Null);

    // The same list is not told again; a changed one is. The old call is replayed.
    let mut again = Mcp::new(&json!({}), &json!({}), items.clone());
    again.answer(Ok(listed(&["add", "read_it"])));
    again.says("x");
    assert_eq!(again.bodies[0]["messages"][1]["content"], "3");
    assert_eq!(again.stored().0["output"].as_array().unwrap().len(), 1);
    let mut changed = Mcp::new(&json!({}), &json!({}), items);
    changed.answer(Ok(listed(&["add"])));
    changed.says("x");
    assert_eq!(changed.stored().0["output"][0]["type"], "mcp_list_tools");
}

#[test]
fn m13_a_failed_call_is_an_item_and_its_neighbour_runs() {
    let mut turn = Mcp::plain();
    turn.calls(&[ADD, ("mcp__s__read_it", "{}"), ("mcp__s__read_it", "[1")]);
    assert_eq!(turn.runs.len(), 2);
    turn.ended(Outcome::Failed {
        error: CallError::tool("boom"),
    });
    turn.gives("ok");
    turn.says("done");
    let (resource, _) = turn.stored();
    let output = resource["output"].as_array().unwrap();
    let statuses: Vec<_> = output[1..4].iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, ["failed", "completed", "failed"]);
    assert_eq!(output[1]["error"]["type"], "mcp_tool_execution_error");
    assert_eq!(output[3]["error"]["code"], -32602);
}

#[test]
fn an_approval_ends_the_response_and_resumes_it_once() {
    let ask = json!({"require_approval": {"never": {"tool_names": ["read_it"]}}});
    let mut turn = Mcp::new(&ask, &json!({}), Vec::new());
    turn.answer(Ok(listed(&["add", "read_it"])));
    turn.calls(&[ADD]);
    assert!(turn.runs.is_empty());
    let (resource, items) = turn.stored();
    let request = &resource["output"][1];
    assert_eq!(request["type"], "mcp_approval_request");
    assert_eq!(request["arguments"], r#"{"a":1}"#);
    let say = |approve: bool| json!({"input": [{"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}]});

    let mut yes = Mcp::new(&ask, &say(true), items.clone());
    yes.answer(Ok(listed(&["add", "read_it"])));
    assert_eq!(yes.actions, ["claim"]);
    yes.step(Input::Claimed(Claimed::Yes));
    assert_eq!(yes.actions, ["claim", "begin", "run 0"]);
    yes.gives("3");
    assert_eq!(yes.bodies[0]["messages"][1]["content"], "3");
    yes.says("three");
    let (resource, more) = yes.stored();
    assert_eq!(resource["output"][0]["approval_request_id"], request["id"]);

    let mut all = items.clone();
    all.extend(more);
    let mut twice = Mcp::new(&ask, &say(true), all);
    twice.answer(Ok(listed(&["add", "read_it"])));
    assert_eq!(twice.refusal(), 400);

    let mut no = Mcp::new(&ask, &say(false), items.clone());
    no.answer(Ok(listed(&["add", "read_it"])));
    assert!(no.runs.is_empty());
    let told = no.bodies[0]["messages"][1]["content"].as_str().unwrap();
    assert!(told.contains("did not approve"), "{told}");

    // Neither an unknown request nor a tool that is not allowed any more can be approved.
    let mut unknown = Mcp::new(&ask, &say(true), Vec::new());
    unknown.answer(Ok(listed(&["add"])));
    assert_eq!(unknown.refusal(), 400);
    let only = json!({"allowed_tools": ["read_it"]});
    let mut forbidden = Mcp::new(&only, &say(true), items);
    forbidden.answer(Ok(listed(&["add", "read_it"])));
    assert_eq!(forbidden.refusal(), 400);
}

/// A call whose arguments the token limit cut could not be run: nobody is asked to approve it.
#[test]
fn a_cut_call_is_not_put_up_for_approval() {
    let ask = json!({"require_approval": "always"});
    for (reason, kind) in [("length", "incomplete"), ("tool_calls", "failed")] {
        let mut turn = Mcp::new(&ask, &json!({}), Vec::new());
        turn.answer(Ok(listed(&["add", "read_it"])));
        let call =
            json!({"index": 0, "id": "c", "function": {"name": ADD.0, "arguments": "{\"a\": 1"}});
        turn.step(Input::UpstreamBytes(&delta(&json!({"tool_calls": [call]}))));
        turn.ends(reason);
        if reason == "tool_calls" {
            turn.says("then not");
        }
        assert!(turn.runs.is_empty());
        turn.step(Input::Stored(Kept::Yes));
        let events = turn.bench.events();
        let item = &events.last().unwrap()["response"]["output"][1];
        assert_eq!(
            (&item["type"], &item["status"]),
            (&json!("mcp_call"), &json!(kind))
        );
    }
}

#[test]
fn a_whole_history_approves_too() {
    let input = json!({"input": approving()});
    let mut turn = Mcp::new(&json!({}), &input, Vec::new());
    turn.answer(Ok(listed(&["add"])));
    turn.step(Input::Claimed(Claimed::Yes));
    assert_eq!(turn.actions, ["claim", "begin", "run 1"]);
    turn.gives("3");
    turn.says("three");
    let (resource, items) = turn.stored();
    assert_eq!(resource["output"][1]["approval_request_id"], "mcpr_1");
    // Sent whole once more, with the call: it is not run again.
    let mut longer = input;
    let list = longer["input"].as_array_mut().unwrap();
    list.push(serde_json::to_value(&items[1]).unwrap());
    list.push(json!({"type": "message", "role": "user", "content": "and?"}));
    let mut again = Mcp::new(&json!({}), &longer, Vec::new());
    again.answer(Ok(listed(&["add"])));
    assert!(again.runs.is_empty());
    assert_eq!(again.bodies.len(), 1);
}

#[test]
fn decision_26_who_cannot_list() {
    for (error, status) in [
        (ListError::Connector("no".into()), 424),
        (ListError::Request("no".into()), 400),
    ] {
        let mut turn = Mcp::new(&json!({}), &json!({}), Vec::new());
        turn.answer(Err(error));
        assert_eq!(turn.refusal(), status);
        assert!(turn.bench.effects.bytes.is_empty());
    }
    let mut turn = Mcp::new(&json!({}), &json!({}), Vec::new());
    turn.answer(Err(ListError::Unavailable("it hangs".into())));
    turn.says("without");
    assert_eq!(turn.bench.types()[4], "response.mcp_list_tools.failed");
    let (resource, _) = turn.stored();
    assert_eq!(resource["output"][0]["error"], "it hangs");
}

#[test]
fn secrets_are_neither_echoed_nor_stored() {
    let secret = json!({"server_url": "https://mcp.example.com/", "authorization": "HUSH1", "headers": {"x-key": "HUSH2"}, "require_approval": "never"});
    let mut turn = Mcp::new(&secret, &json!({}), Vec::new());
    turn.answer(Ok(listed(&["add"])));
    turn.says("x");
    turn.bench
        .turn
        .step(NOW, Input::Stored(Kept::Yes), &mut turn.bench.effects);
    assert!(!turn.bench.text().contains("HUSH"), "{}", turn.bench.text());
    assert!(turn.bench.text().contains("mcp.example.com"));
    assert!(!turn.bench.turn.identity().settings.contains("HUSH"));
    for bad in [
        json!({"authorization": "HUSH"}),
        json!({"headers": {"a": "HUSH"}}),
        json!({"connector_id": "c"}),
        json!({"require_approval": "sometimes"}),
        json!({"server_label": "a b"}),
        json!({"allowed_tools": [1]}),
    ] {
        let mut tool = json!({"type": "mcp", "server_label": "s"});
        for (name, value) in bad.as_object().unwrap() {
            tool[name] = value.clone();
        }
        let body = json!({"model": "m", "input": "x", "tools": [tool]}).to_string();
        let read = CreateRequest::decode(
            body.as_bytes(),
            &Rules::default(),
            &mut CountingIds::default(),
        );
        let error = read.err().unwrap_or_else(|| panic!("{body}"));
        assert!(!error.message.contains("HUSH"), "{}", error.message);
    }
}

/// An input that approves a call of `add`.
fn approving() -> Value {
    json!([
        {"type": "message", "role": "user", "content": "x"},
        {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "add", "arguments": "{}"},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": true},
    ])
}

#[test]
fn an_approval_that_another_response_took_runs_nothing() {
    for (claimed, status) in [(Claimed::No, 400), (Claimed::Unknown, 503)] {
        let mut turn = Mcp::new(&json!({}), &json!({"input": approving()}), Vec::new());
        turn.answer(Ok(listed(&["add"])));
        turn.step(Input::Claimed(claimed));
        assert_eq!(turn.refusal(), status);
        assert!(turn.runs.is_empty() && turn.bodies.is_empty());
        assert!(turn.bench.effects.bytes.is_empty());
    }
    // One who leaves in between hears nothing, and nothing runs.
    let mut turn = Mcp::new(&json!({}), &json!({"input": approving()}), Vec::new());
    turn.answer(Ok(listed(&["add"])));
    turn.step(Input::Cancelled(Cancel::ClientLeft));
    turn.step(Input::Claimed(Claimed::Yes));
    assert_eq!(turn.actions, ["claim", "end"]);
}

#[test]
fn counting_runs_nothing_that_is_approved() {
    let mut turn = Mcp::new(&json!({}), &json!({"input": approving()}), Vec::new());
    turn.bench.turn.purpose = Purpose::Count;
    turn.answer(Ok(listed(&["add"])));
    assert_eq!(turn.actions, ["count"]);
}

#[test]
fn code_after_an_approved_call_has_a_session() {
    let tools = json!([
        {"type": "mcp", "server_label": "s"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
    ]);
    let extra = json!({"tools": tools, "input": approving()});
    let mut turn = Mcp::new(&json!({}), &extra, Vec::new());
    turn.answer(Ok(listed(&["add"])));
    turn.step(Input::Claimed(Claimed::Yes));
    turn.gives("3");
    let name = turn.tool_names(0)[1].to_owned();
    turn.calls(&[(&name, r#"{"code":"1"}"#)]);
    assert_eq!(&*code_of(&turn.runs[0].call).code, "1");
}

#[test]
fn a_loaded_function_takes_no_servers_place() {
    let loaded = json!({"input": [
        {"type": "message", "role": "user", "content": "x"},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": ADD.0}]},
    ]});
    let mut turn = Mcp::new(&json!({}), &loaded, Vec::new());
    turn.answer(Ok(listed(&["add"])));
    let own = turn.tool_names(0)[1].to_owned();
    assert_eq!(turn.tool_names(0)[0], ADD.0);
    assert_ne!(own, ADD.0);
    turn.calls(&[ADD, (&own, "{}")]);
    assert_eq!(turn.runs.len(), 1);
    turn.gives("3");
    let (resource, _) = turn.stored();
    assert_eq!(resource["output"][1]["type"], "mcp_call");
    assert_eq!(resource["output"][2]["type"], "function_call");
    assert_eq!(resource["output"][2]["name"], ADD.0);
}
