//! F3: a request body is refused with a short typed error, or becomes a valid call of the model that
//! says the same.

use serde_json::Value;
use vllm_responses_protocol::error::MAX_ERROR_BODY;
use vllm_responses_protocol::ids::CountingIds;
use vllm_responses_protocol::responses::request::{CreateRequest, Rules};
use vllm_responses_protocol::turn::effect::{Action, Effects, Input};

use crate::chunks::turn_of;

/// Members that go to the model as they came, and their names there.
const KEPT: [(&str, &str); 8] = [
    ("model", "model"),
    ("stream", "stream"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("max_output_tokens", "max_completion_tokens"),
    ("presence_penalty", "presence_penalty"),
    ("seed", "seed"),
    ("top_k", "top_k"),
];

/// The bytes are a request's body.
pub fn check(bytes: &[u8]) {
    let decode = || CreateRequest::decode(bytes, &Rules::default(), &mut CountingIds::default());
    let request = match decode() {
        Ok(request) => request,
        Err(error) => {
            assert!((400..500).contains(&error.status), "{error:?}");
            let body = error.body();
            assert!(body.len() <= MAX_ERROR_BODY, "{} bytes", body.len());
            let body: Value = serde_json::from_slice(&body).expect("an error is JSON");
            assert!(body["error"]["message"].is_string());
            return;
        }
    };
    let Ok(asked) = serde_json::from_slice::<Value>(bytes) else {
        // Half a surrogate pair, which is mended: other readers of JSON refuse it.
        return;
    };
    // Approvals and references need a store; that they are asked for is enough.
    let mut turn = turn_of(request);
    let mut effects = Effects::default();
    turn.step(0, Input::History(Vec::new()), &mut effects);
    for action in &effects.actions {
        match action {
            Action::CallModel(body) => assert_says_the_same(&asked, body),
            Action::Refuse(refusal) => {
                assert!(refusal.error.body().len() <= MAX_ERROR_BODY);
            }
            Action::FindItems(_)
            | Action::CountTokens(_)
            | Action::LeftOut(_)
            | Action::Complained(_)
            | Action::LostCalls(_)
            | Action::EffortRefused
            | Action::Used(_)
            | Action::Suspect(_)
            | Action::ClaimApprovals(_)
            | Action::ListTools { .. }
            | Action::RunTool(_)
            | Action::Begin
            | Action::Answer
            | Action::Persist(_)
            | Action::End => {}
        }
    }
    assert!(!effects.actions.is_empty(), "a request leads to something");
}

fn assert_says_the_same(asked: &Value, body: &[u8]) {
    let sent: Value = serde_json::from_slice(body).expect("the model's body is JSON");
    for (ours, theirs) in KEPT {
        let (ours, theirs) = (&asked[ours], &sent[theirs]);
        let same = ours == theirs || (ours.is_null() && theirs == &Value::Bool(false));
        // 1 and 1.0 are one number.
        let same = same || (ours.is_number() && ours.as_f64() == theirs.as_f64());
        assert!(same, "asked {ours}, sent {theirs}");
    }
    let messages = sent["messages"].as_array().expect("messages");
    assert!(!messages.is_empty(), "a call has a message");
    for message in messages {
        assert!(message["role"].is_string(), "{message}");
    }
    if let Some(text) = asked["input"].as_str() {
        let last = &messages[messages.len() - 1];
        let said = last["content"].as_str();
        assert_eq!((said, last["role"].as_str()), (Some(text), Some("user")));
    }
    if let Some(text) = asked["instructions"]
        .as_str()
        .filter(|text| !text.is_empty())
    {
        assert_eq!(messages[0]["content"].as_str(), Some(text));
    }
}
