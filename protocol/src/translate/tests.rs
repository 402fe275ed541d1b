//! Conversations as the upstream must get them.

use super::*;
use crate::history;
use crate::ids::{CountingIds, ResponseId};
use crate::record::{Chain, Link, Status};
use crate::responses::request::Rules;
use crate::tools::catalogue::Lists;
use crate::tools::{Availability, Offers};

fn decode(body: &str) -> CreateRequest {
    CreateRequest::decode(
        body.as_bytes(),
        &Rules::default(),
        &mut CountingIds::default(),
    )
    .unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn body_of(request: &CreateRequest, history: &[Item]) -> Result<String, ApiError> {
    asked(request, history, StreamMode::Whole, ChoiceMode::AsAsked)
}

fn asked(
    request: &CreateRequest,
    history: &[Item],
    mode: StreamMode,
    choice: ChoiceMode,
) -> Result<String, ApiError> {
    let offers = Offers {
        code_interpreter: Availability::Offered,
        ..Offers::default()
    };
    let body = chat_body(Ask {
        request,
        catalogue: &Catalogue::of(
            &request.settings,
            &offers,
            &Lists::new(),
            history
                .iter()
                .chain(&request.input)
                .flat_map(Item::loaded_tools),
        )?,
        history,
        produced: &[],
        mode,
        choice,
        efforts: Efforts::AsAsked,
        max_output_tokens: request.settings.max_output_tokens,
        left_out: 0,
        pictures: Pictures::Shown,
    })?;
    Ok(String::from_utf8(body).unwrap())
}

fn messages(items: &str) -> Result<String, ApiError> {
    let request = decode(&format!(r#"{{"model":"m","input":{items}}}"#));
    let body = body_of(&request, &[])?;
    let messages = body.strip_prefix(r#"{"model":"m","messages":"#).unwrap();
    Ok(messages
        .strip_suffix(r#","stream":false}"#)
        .unwrap()
        .to_owned())
}

const CALL: &str = r#"{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}"}"#;
const OUTPUT: &str = r#"{"type":"function_call_output","call_id":"c1","output":"ok"}"#;

#[test]
fn a_whole_body() {
    let request = decode(
        r#"{"model":"m","input":"hi","instructions":"be brief","temperature":0,"top_logprobs":2,
        "max_output_tokens":9,"top_k":40,"parallel_tool_calls":false,"include":["message.output_text.logprobs"],
        "reasoning":{"effort":"max"},"tool_choice":{"type":"function","name":"f"},
        "text":{"format":{"type":"json_schema","name":"n","schema":{"type": "object"},"strict":true}},
        "tools":[{"type":"function","name":"f","parameters":{ "x" : 1 },"strict":true},{"type":"web_search"}]}"#,
    );
    assert_eq!(
        asked(&request, &[], StreamMode::Stream, ChoiceMode::AsAsked).unwrap(),
        concat!(
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}],"#,
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{ "x" : 1 },"strict":true}}],"#,
            r#""tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,"#,
            r#""temperature":0.0,"max_completion_tokens":9,"logprobs":true,"top_logprobs":2,"#,
            r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type": "object"},"strict":true}},"#,
            r#""reasoning_effort":"max","top_k":40,"stream":true,"stream_options":{"include_usage":true}}"#
        )
    );
}

#[test]
fn choices_relax_and_limit() {
    let tools = r#""tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}]"#;
    for (choice, mode, expected) in [
        (
            r#""required""#,
            ChoiceMode::AsAsked,
            r#""tool_choice":"required""#,
        ),
        (r#""required""#, ChoiceMode::Auto, r#""tool_choice":"auto""#),
        (r#""none""#, ChoiceMode::Auto, r#""tool_choice":"none""#),
        (
            r#"{"type":"function","name":"f"}"#,
            ChoiceMode::Auto,
            r#""tool_choice":"auto""#,
        ),
        (
            r#"{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}"#,
            ChoiceMode::AsAsked,
            r#""tools":[{"type":"function","function":{"name":"g"}}],"tool_choice":"required""#,
        ),
    ] {
        let request = decode(&format!(
            r#"{{"model":"m","input":"x","tool_choice":{choice},{tools}}}"#
        ));
        let body = asked(&request, &[], StreamMode::Whole, mode).unwrap();
        assert!(body.contains(expected), "{choice}: {body}");
    }
}

#[test]
fn effort_none_switches_thinking_off() {
    let request = decode(r#"{"model":"m","input":"x","reasoning":{"effort":"none"}}"#);
    let body = body_of(&request, &[]).unwrap();
    assert!(
        body.contains(r#""chat_template_kwargs":{"enable_thinking":false}"#),
        "{body}"
    );
    assert!(!body.contains("reasoning_effort"), "{body}");
}

#[test]
fn one_assistant_run_is_one_message() {
    let items = format!(
        r#"[{{"role":"user","content":"q"}},{{"type":"reasoning","summary":[],"content":[{{"type":"reasoning_text","text":"think"}}]}},
        {{"role":"assistant","content":[{{"type":"output_text","text":"a"}},{{"type":"input_text","text":"b"}}]}},{CALL},{OUTPUT},
        {{"role":"assistant","content":"done"}},{{"role":"developer","content":[{{"type":"input_text","text":"x"}},{{"type":"input_text","text":"y"}}]}}]"#
    );
    assert_eq!(
        messages(&items).unwrap(),
        concat!(
            r#"[{"role":"user","content":"q"},"#,
            r#"{"role":"assistant","content":"ab","reasoning_content":"think","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"#,
            r#"{"role":"tool","content":"ok","tool_call_id":"c1"},"#,
            r#"{"role":"assistant","content":"done"},{"role":"user","content":"x\ny"}]"#
        )
    );
}

#[test]
fn outputs_follow_their_calls_in_call_order() {
    let call = |id: &str| CALL.replace("c1", id);
    let output = |id: &str| OUTPUT.replace("c1", id);
    let (c1, c2, o1, o2) = (call("c1"), call("c2"), output("c1"), output("c2"));
    let user = r#"{"role":"user","content":"q"}"#;
    let regrouped = messages(&format!("[{c1},{c2},{o1},{o2}]")).unwrap();
    for order in [
        format!("[{c1},{c2},{o2},{o1}]"),
        format!("[{o2},{c1},{c2},{o1}]"),
    ] {
        assert_eq!(messages(&order).unwrap(), regrouped);
    }
    assert!(regrouped.starts_with(r#"[{"role":"assistant","content":null,"tool_calls""#));
    let late = messages(&format!("[{c1},{user},{o1}]")).unwrap();
    let ends =
        r#"{"role":"tool","content":"ok","tool_call_id":"c1"},{"role":"user","content":"q"}]"#;
    assert!(late.ends_with(ends), "{late}");
    let rounds = messages(&format!("[{c1},{o1},{c2},{o2}]")).unwrap();
    assert_eq!(rounds.matches("assistant").count(), 2, "{rounds}");
    let reused = messages(&format!("[{c1},{o1},{c1},{o1}]")).unwrap();
    assert_eq!(reused.matches(r#""role":"tool""#).count(), 2, "{reused}");
}

#[test]
fn calls_and_outputs_must_match() {
    let user = r#"{"role":"user","content":"q"}"#;
    for (items, index) in [
        (format!("[{user},{OUTPUT}]"), "input[1]"),
        (format!("[{user},{CALL}]"), "input[1]"),
        (format!("[{CALL},{user}]"), "input[0]"),
    ] {
        let error = messages(&items).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input"));
        assert_eq!(error.code.wire(), None);
        assert!(error.message.contains(index), "{error}");
    }
}

#[test]
fn cut_calls_do_not_poison_the_next_turn() {
    let cut = r#"{"type":"function_call","status":"incomplete","call_id":"c1","name":"f","arguments":"{\"a\""}"#;
    let user = r#"{"role":"user","content":"q"}"#;
    assert_eq!(
        messages(&format!("[{cut},{user}]")).unwrap(),
        r#"[{"role":"user","content":"q"}]"#
    );
    let answered = messages(&format!("[{cut},{OUTPUT}]")).unwrap();
    assert!(answered.contains(r#""arguments":"{}""#), "{answered}");
}

#[test]
fn pictures_go_as_parts() {
    let items = r#"[{"role":"user","content":[{"type":"input_text","text":"t"},{"type":"input_image","image_url":"data:x"}]}]"#;
    assert_eq!(
        messages(items).unwrap(),
        r#"[{"role":"user","content":[{"type":"text","text":"t"},{"type":"image_url","image_url":{"url":"data:x","detail":"auto"}}]}]"#
    );
}

#[test]
fn thinking_of_earlier_turns_is_left_out_when_asked() {
    let thought = |text: &str| {
        format!(
            r#"{{"type":"reasoning","summary":[],"content":[{{"type":"reasoning_text","text":"{text}"}}]}}"#
        )
    };
    let input = format!(
        r#"[{{"role":"user","content":"a"}},{},{{"role":"assistant","content":"b"}},{{"role":"user","content":"c"}},{},{CALL},{OUTPUT}]"#,
        thought("early"),
        thought("late")
    );
    for (context, early) in [("auto", true), ("all_turns", true), ("current_turn", false)] {
        let request = decode(&format!(
            r#"{{"model":"m","input":{input},"reasoning":{{"context":"{context}"}}}}"#
        ));
        let body = body_of(&request, &[]).unwrap();
        assert_eq!(body.contains("early"), early, "{context}: {body}");
        assert!(body.contains("late"), "{context}: {body}");
        assert!(
            request
                .settings
                .echo()
                .contains(&format!(r#""context":"{context}""#))
        );
    }
}

#[test]
fn the_last_turn_is_never_left_out() {
    let request = decode(
        r#"{"model":"m","input":[{"role":"system","content":"s"},{"role":"user","content":"a"},
        {"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#,
    );
    let catalogue = Catalogue::default();
    let ask = |left_out| Ask {
        request: &request,
        catalogue: &catalogue,
        history: &[],
        produced: &[],
        mode: StreamMode::Whole,
        choice: ChoiceMode::AsAsked,
        efforts: Efforts::AsAsked,
        max_output_tokens: None,
        left_out,
        pictures: Pictures::Shown,
    };
    assert_eq!(turns_to_leave_out(ask(0)), 1);
    let kept = |left_out| String::from_utf8(chat_body(ask(left_out)).unwrap()).unwrap();
    let shortest = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"c"}],"stream":false}"#;
    assert_eq!(kept(1), shortest);
    assert_eq!(kept(9), shortest);
}

#[test]
fn nothing_to_answer_is_an_error() {
    let request = decode(r#"{"model":"m","previous_response_id":"r"}"#);
    let error = body_of(&request, &[]).unwrap_err();
    assert_eq!(error.code, ApiErrorCode::InvalidValue);
}

fn arbitrary_item() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let text = || any::<String>().prop_map(|text| text.replace('\0', ""));
    let json = |text: &str| serde_json::to_string(text).unwrap();
    prop_oneof![
        text().prop_map(move |text| format!(r#"{{"role":"user","content":{}}}"#, json(&text))),
        text().prop_map(move |text| format!(
            r#"{{"type":"message","role":"assistant","phase":"commentary","content":[{{"type":"output_text","text":{},"annotations":[{{"type":"x"}}],"logprobs":[{{"token":"t","logprob":-0.1,"bytes":[116],"top_logprobs":[]}}]}},{{"type":"refusal","refusal":"no"}}]}}"#,
            json(&text)
        )),
        text().prop_map(move |text| format!(
            r#"{{"type":"reasoning","summary":[{{"type":"summary_text","text":"s"}}],"content":[{{"type":"reasoning_text","text":{0}}}],"encrypted_content":{0}}}"#,
            json(&text)
        )),
        text().prop_map(move |text| format!(
            r#"{CALL},{{"type":"function_call_output","call_id":"c1","output":{}}}"#,
            json(&text)
        )),
        Just(format!(
            r#"{CALL},{{"type":"function_call_output","call_id":"c1","output":[{{"type":"input_text","text":"t"}},{{"type":"input_image","image_url":"u","detail":"high"}}]}}"#
        )),
    ]
}

proptest::proptest! {
    #[test]
    fn continuing_sends_what_replaying_sends(
        turns in proptest::collection::vec(
            (
                proptest::collection::vec(arbitrary_item(), 1..4),
                proptest::collection::vec(arbitrary_item(), 1..4),
            ),
            1..4,
        ),
    ) {
        let mut chain = Chain::default();
        let mut all = Vec::new();
        let read = |items: &[String]| {
            decode(&format!(r#"{{"model":"m","input":[{}]}}"#, items.join(","))).input
        };
        for (input, output) in &turns {
            chain.links.push(std::sync::Arc::new(Link {
                id: ResponseId::new("resp_1"),
                status: Status::Completed,
                input_items: history::items_json(&read(input)).into(),
                response: format!(
                    r#"{{"id":"resp_1","output":{},"usage":null}}"#,
                    history::items_json(&read(output))
                ).into(),
            }));
            all.extend(input.iter().chain(output).cloned());
        }
        let next = r#"{"role":"user","content":"next"}"#;
        let stored = history::from_chain(&chain, crate::blob::Marks::new(0)).unwrap();
        let continued = body_of(&decode(&format!(r#"{{"model":"m","input":[{next}]}}"#)), &stored);
        all.push(next.to_owned());
        let replayed = decode(&format!(r#"{{"model":"m","input":[{}]}}"#, all.join(",")));
        proptest::prop_assert_eq!(continued, body_of(&replayed, &[]));
    }

    #[test]
    fn items_survive_storage(items in proptest::collection::vec(arbitrary_item(), 0..6)) {
        let items = items.join(",");
        let request = decode(&format!(r#"{{"model":"m","previous_response_id":"r","input":[{items}]}}"#));
        let text = history::items_json(&request.input);
        let back = history::parse_items(&text).unwrap();
        proptest::prop_assert_eq!(history::items_json(&back), text);
    }

    #[test]
    fn arbitrary_bytes_are_answered(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        if let Err(error) = CreateRequest::decode(&body, &Rules::default(), &mut CountingIds::default()) {
            proptest::prop_assert!(error.body().len() <= crate::error::MAX_ERROR_BODY);
        }
    }

    #[test]
    fn arbitrary_members_are_answered(
        name in "model|input|tools|tool_choice|text|reasoning|metadata|include|stop",
        value in r#"(\[|\{|\]|\}|"type"|"name"|:|,|"function"|null|1|true|"x"|"content"|"role"|"user"){0,12}"#,
    ) {
        let body = format!(r#"{{"model":"m",{name:?}:{value}}}"#);
        match CreateRequest::decode(body.as_bytes(), &Rules::default(), &mut CountingIds::default()) {
            Ok(request) => drop(body_of(&request, &[])),
            Err(error) => proptest::prop_assert!(error.body().len() <= crate::error::MAX_ERROR_BODY),
        }
    }
}
