//! Python that models write, on the real interpreter: `TEST_INTERPRETER_BUNDLE` names a bundle;
//! without it these tests say that they are skipped.

use serde_json::Value;

use super::{Case, Stage, Turn};
use crate::harness::{Fake, TestGateway};

/// The turns of a case; none without an interpreter.
#[track_caller]
fn play(name: &str) -> Option<Vec<Turn>> {
    let Ok(folder) = std::env::var("TEST_INTERPRETER_BUNDLE") else {
        eprintln!("SKIPPED: set TEST_INTERPRETER_BUNDLE to an installed interpreter");
        return None;
    };
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .flag("--code-interpreter")
        .flag("spawn")
        .flag("--code-interpreter-bundle")
        .flag(&folder)
        .start();
    let turns = Case::load(name).play(&Stage { fake, gateway });
    for turn in &turns {
        turn.ok();
        assert_eq!(turn.response["status"], "completed", "{}", turn.response);
    }
    Some(turns)
}

/// For each of its calls, what the model was told and what the client.
fn told(turn: &Turn) -> Vec<(String, String)> {
    let tools = turn
        .messages()
        .iter()
        .filter(|message| message["role"] == "tool");
    let tools = tools.map(|message| message["content"].as_str().unwrap_or("").to_owned());
    let logs = turn.items("code_interpreter_call").into_iter().map(|call| {
        let outputs = call["outputs"].as_array().into_iter().flatten();
        outputs
            .filter_map(|output| output["logs"].as_str())
            .collect::<String>()
    });
    tools.zip(logs).collect()
}

#[track_caller]
fn model_hears(turn: &Turn, expected: &[&str]) {
    let told = told(turn);
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((model, _), expected) in told.iter().zip(expected) {
        assert!(model.contains(expected), "{expected:?} is not in {model:?}");
    }
}

#[test]
fn last_value() {
    let Some(turns) = play("python-last-value") else {
        return;
    };
    model_hears(&turns[0], &["42", "no newline", "a", "text", ""]);
}

#[test]
fn asyncio() {
    let Some(turns) = play("python-asyncio") else {
        return;
    };
    model_hears(&turns[0], &["RAN", "TOP"]);
}

#[test]
fn excel() {
    let Some(turns) = play("python-excel") else {
        return;
    };
    for ((model, _), module) in told(&turns[0]).iter().zip(["openpyxl", "pandas"]) {
        assert!(model.contains(module), "{model}");
    }
}

#[test]
fn fences_and_magics() {
    let Some(turns) = play("python-fences-and-magics") else {
        return;
    };
    for ((model, _), text) in told(&turns[0]).iter().zip(["FENCED", "MAGIC", "BANG"]) {
        assert!(
            model.contains(text) || model.contains("SyntaxError"),
            "{model}"
        );
    }
}

#[test]
fn exits() {
    let Some(turns) = play("python-exits") else {
        return;
    };
    let told = told(&turns[0]);
    assert!(
        told[1].0.contains("one"),
        "output before the exit: {told:?}"
    );
    assert!(told.iter().any(|(model, _)| model.contains("MAIN")));
    let (last, _) = told.last().expect("calls");
    assert!(last.contains('5'), "state is kept: {last}");
    let deep = told
        .iter()
        .find(|(model, _)| model.contains("ZeroDivisionError"));
    assert!(
        deep.is_some_and(|(model, _)| model.len() < 8192),
        "a short traceback"
    );
}

#[test]
fn odd_bytes() {
    let Some(turns) = play("python-odd-bytes") else {
        return;
    };
    let told = told(&turns[0]);
    for (at, pieces) in [["A", "B"], ["C", "D"], ["E", "F"]].iter().enumerate() {
        assert!(
            pieces.iter().all(|piece| told[at].0.contains(piece)),
            "{:?}",
            told[at]
        );
    }
}

#[test]
fn odd_arguments() {
    let Some(turns) = play("python-odd-arguments") else {
        return;
    };
    let last = turns[0]
        .messages()
        .iter()
        .rfind(|message| message["role"] == "tool");
    let last = last.map_or(&Value::Null, |message| &message["content"]);
    assert!(
        last.to_string().contains("144"),
        "a good call after bad ones: {last}"
    );
}
