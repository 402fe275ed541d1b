//! Requests as clients may write them, table by table.

use super::*;
use crate::error::ApiErrorCode::{
    IntegerAboveMaxValue, IntegerBelowMinValue, InvalidRequest, InvalidType, InvalidValue,
    MissingRequiredParameter, UnsupportedValue,
};
use crate::error::MAX_ERROR_BODY;
use crate::ids::CountingIds;

fn decode(body: &str) -> Result<CreateRequest, ApiError> {
    CreateRequest::decode(
        body.as_bytes(),
        &Rules::default(),
        &mut CountingIds::default(),
    )
}

fn with(member: &str) -> Result<CreateRequest, ApiError> {
    decode(&format!(r#"{{"model":"m","input":"hi",{member}}}"#))
}

/// Members, and values that they take.
const ACCEPTED: &[(&str, &[&str])] = &[
    ("instructions", &[r#""be brief""#, r#""""#]),
    ("stream", &["true", "false"]),
    ("stream_options", &[r#"{"include_obfuscation":false}"#]),
    ("store", &["true", "false"]),
    ("background", &["false"]),
    ("previous_response_id", &[r#""resp_1""#]),
    (
        "include",
        &[
            "[]",
            r#"["reasoning.encrypted_content","message.output_text.logprobs"]"#,
        ],
    ),
    ("max_output_tokens", &["1", "16", "100000"]),
    ("max_tool_calls", &["1", "9"]),
    ("temperature", &["0", "0.5", "2", "2.0"]),
    ("top_p", &["0", "1"]),
    ("top_logprobs", &["0", "20"]),
    ("presence_penalty", &["-2", "2"]),
    ("frequency_penalty", &["-2", "2"]),
    ("parallel_tool_calls", &["true", "false"]),
    (
        "tools",
        &[
            "[]",
            r#"[{"type":"function","name":"f"}]"#,
            r#"[{"type":"web_search"}]"#,
        ],
    ),
    ("tool_choice", &[r#""none""#, r#""auto""#]),
    (
        "text",
        &[
            "{}",
            r#"{"format":null,"verbosity":"low"}"#,
            r#"{"format":{"type":"text"}}"#,
            r#"{"format":{"type":"json_object"}}"#,
            r#"{"format":{"type":"json_schema","name":"n","schema":{},"strict":null}}"#,
        ],
    ),
    (
        "reasoning",
        &[
            "{}",
            r#"{"effort":"xhigh","summary":"auto"}"#,
            r#"{"context":"all_turns"}"#,
        ],
    ),
    ("truncation", &[r#""auto""#, r#""disabled""#]),
    ("metadata", &["{}", r#"{"a":"b"}"#]),
    ("prompt_cache_key", &[r#""k""#]),
    ("prompt_cache_retention", &[r#""24h""#, r#""in_memory""#]),
    ("safety_identifier", &[r#""u""#]),
    ("user", &[r#""u""#]),
    ("service_tier", &[r#""flex""#]),
    ("client_metadata", &[r#"{"a":1}"#]),
    ("conversation", &[]),
    ("prompt", &[]),
    ("top_k", &["40"]),
    ("stop", &[r#""x""#, r#"["x","y"]"#]),
    ("logit_bias", &[r#"{"5":1}"#]),
];

#[test]
fn a_body_without_anything_is_called_empty() {
    for body in ["", " \r\n"] {
        let error = decode(body).unwrap_err();
        assert!(error.message.contains("body is empty"), "{}", error.message);
    }
}

#[test]
fn every_member_takes_its_values_and_null() {
    for &(name, values) in ACCEPTED {
        for value in values.iter().chain(&["null"]) {
            let request = with(&format!("{name:?}:{value}"));
            let request = request.unwrap_or_else(|error| panic!("{name} {value}: {error}"));
            serde_json::from_str::<serde::de::IgnoredAny>(&request.settings.echo()).unwrap();
            if name != "tools" {
                assert_eq!(request.warnings, Vec::<String>::new(), "{name} {value}");
            }
        }
    }
}

/// What is refused, with what code, blaming what.
const REFUSED: &[(&str, &str, ApiErrorCode, &str)] = &[
    ("instructions", "5", InvalidType, "instructions"),
    ("stream", r#""yes""#, InvalidType, "stream"),
    ("store", "1", InvalidType, "store"),
    ("background", "true", UnsupportedValue, "background"),
    (
        "conversation",
        r#""conv_1""#,
        UnsupportedValue,
        "conversation",
    ),
    ("prompt", r#"{"id":"p"}"#, UnsupportedValue, "prompt"),
    (
        "previous_response_id",
        "7",
        InvalidType,
        "previous_response_id",
    ),
    ("include", r#""x""#, InvalidType, "include"),
    ("include", r#"["x"]"#, InvalidValue, "include[0]"),
    ("include", "[null]", InvalidType, "include[0]"),
    (
        "max_output_tokens",
        "0",
        IntegerBelowMinValue,
        "max_output_tokens",
    ),
    (
        "max_output_tokens",
        "-1",
        IntegerBelowMinValue,
        "max_output_tokens",
    ),
    ("max_output_tokens", "1.5", InvalidType, "max_output_tokens"),
    (
        "max_output_tokens",
        "99999999999999999999999",
        IntegerAboveMaxValue,
        "max_output_tokens",
    ),
    (
        "max_tool_calls",
        "0",
        IntegerBelowMinValue,
        "max_tool_calls",
    ),
    ("temperature", "2.1", InvalidValue, "temperature"),
    ("temperature", r#""hot""#, InvalidType, "temperature"),
    ("top_p", "-0.1", InvalidValue, "top_p"),
    ("top_logprobs", "21", IntegerAboveMaxValue, "top_logprobs"),
    ("presence_penalty", "3", InvalidValue, "presence_penalty"),
    ("frequency_penalty", "-3", InvalidValue, "frequency_penalty"),
    (
        "parallel_tool_calls",
        "{}",
        InvalidType,
        "parallel_tool_calls",
    ),
    ("tools", "{}", InvalidType, "tools"),
    ("tools", "[1]", InvalidType, "tools[0]"),
    ("tools", "[{}]", MissingRequiredParameter, "tools[0].type"),
    (
        "tools",
        r#"[{"type":"function"}]"#,
        MissingRequiredParameter,
        "tools[0].name",
    ),
    (
        "tools",
        r#"[{"type":"function","name":"a b"}]"#,
        InvalidValue,
        "tools[0].name",
    ),
    (
        "tools",
        r#"[{"type":"function","name":"f"},{"type":"function","name":"f"}]"#,
        InvalidValue,
        "tools[1].name",
    ),
    (
        "tools",
        r#"[{"type":"function","name":"f","parameters":"x"}]"#,
        InvalidType,
        "tools[0].parameters",
    ),
    ("tool_choice", "5", InvalidType, "tool_choice"),
    ("tool_choice", r#""some""#, InvalidValue, "tool_choice"),
    ("tool_choice", r#""required""#, InvalidValue, "tool_choice"),
    (
        "tool_choice",
        r#"{"type":"function","name":"g"}"#,
        InvalidRequest,
        "tool_choice",
    ),
    ("text", r#""x""#, InvalidType, "text"),
    (
        "text",
        r#"{"format":{"type":"xml"}}"#,
        InvalidValue,
        "text.format.type",
    ),
    (
        "text",
        r#"{"format":{"type":"json_schema","name":"n"}}"#,
        MissingRequiredParameter,
        "text.format.schema",
    ),
    (
        "text",
        r#"{"verbosity":"loud"}"#,
        InvalidValue,
        "text.verbosity",
    ),
    (
        "reasoning",
        r#"{"effort":"huge"}"#,
        InvalidValue,
        "reasoning.effort",
    ),
    (
        "reasoning",
        r#"{"summary":5}"#,
        InvalidType,
        "reasoning.summary",
    ),
    ("truncation", r#""some""#, InvalidValue, "truncation"),
    ("metadata", "[]", InvalidType, "metadata"),
    ("metadata", r#"{"a":1}"#, InvalidType, "metadata.a"),
    (
        "prompt_cache_retention",
        r#""1y""#,
        InvalidValue,
        "prompt_cache_retention",
    ),
    ("top_k", r#""x""#, InvalidType, "top_k"),
];

#[test]
fn every_member_refuses_what_it_must() {
    for &(name, value, code, param) in REFUSED {
        let error = with(&format!("{name:?}:{value}")).expect_err(name);
        assert_eq!(
            error.param.as_deref(),
            Some(param),
            "{name} {value}: {error}"
        );
        assert_eq!(error.code, code, "{name} {value}: {error}");
        assert_eq!(error.status, 400);
    }
}

/// What is refused, with what code, blaming what.
const BAD_ITEMS: &[(&str, ApiErrorCode, &str)] = &[
    ("5", InvalidType, "input[0]"),
    ("{}", MissingRequiredParameter, "input[0].type"),
    (r#"{"type":"no_such_item"}"#, InvalidValue, "input[0].type"),
    (
        r#"{"type":"message"}"#,
        MissingRequiredParameter,
        "input[0].role",
    ),
    (
        r#"{"role":"tool","content":""}"#,
        InvalidValue,
        "input[0].role",
    ),
    (
        r#"{"role":"user"}"#,
        MissingRequiredParameter,
        "input[0].content",
    ),
    (
        r#"{"role":"user","content":5}"#,
        InvalidType,
        "input[0].content",
    ),
    (
        r#"{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"audio"}]}"#,
        InvalidValue,
        "input[0].content[1].type",
    ),
    (
        r#"{"role":"user","content":[{"type":"input_file","file_id":"f"}]}"#,
        UnsupportedValue,
        "input[0].content[0].type",
    ),
    (
        r#"{"role":"user","content":[{"type":"input_image","file_id":"f"}]}"#,
        UnsupportedValue,
        "input[0].content[0].file_id",
    ),
    (
        r#"{"type":"function_call","call_id":"","name":"f","arguments":""}"#,
        InvalidValue,
        "input[0].call_id",
    ),
    (
        r#"{"type":"function_call","call_id":"c","name":"f","arguments":{}}"#,
        InvalidType,
        "input[0].arguments",
    ),
    (
        r#"{"type":"function_call_output","call_id":"c","output":5}"#,
        InvalidType,
        "input[0].output",
    ),
    (
        r#"{"type":"reasoning","summary":[{"type":"x"}]}"#,
        MissingRequiredParameter,
        "input[0].summary[0].text",
    ),
];

#[test]
fn items_say_where_they_are_wrong() {
    for &(item, code, param) in BAD_ITEMS {
        let error = decode(&format!(r#"{{"model":"m","input":[{item}]}}"#)).expect_err(item);
        assert_eq!(error.param.as_deref(), Some(param), "{item}: {error}");
        assert_eq!(error.code, code, "{item}: {error}");
    }
}

#[test]
fn long_texts_are_refused() {
    let long = "x".repeat(513);
    for (member, param) in [
        (format!(r#""metadata":{{"a":"{long}"}}"#), "metadata.a"),
        (format!(r#""metadata":{{"{long}":"a"}}"#), "metadata"),
        (format!(r#""user":"{long}""#), "user"),
    ] {
        let error = with(&member).unwrap_err();
        assert_eq!(error.code, InvalidValue);
        assert_eq!(error.param.as_deref(), Some(param));
        assert!(!error.message.contains(&long));
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = decode(r#"{"temperature":"hot","stream":5,"input":[]}"#).unwrap_err();
    assert_eq!(error.code, MissingRequiredParameter);
    assert_eq!(error.param.as_deref(), Some("model"));
    for name in ["`model`", "`temperature`", "`stream`", "`input`"] {
        assert!(error.message.contains(name), "{error}");
    }
    assert!(!error.message.contains("hot"));
}

#[test]
fn missing_input_conversations_and_doubles() {
    assert_eq!(
        decode(r#"{"model":"m"}"#).unwrap_err().code,
        MissingRequiredParameter
    );
    let request = decode(r#"{"model":"m","previous_response_id":"resp_1"}"#).unwrap();
    assert!(request.input.is_empty());
    assert_eq!(
        with(r#""previous_response_id":"r","conversation":"c""#)
            .unwrap_err()
            .code,
        ApiErrorCode::MutuallyExclusiveParameters
    );
    let error = with(r#""stream":true,"stream":false"#).unwrap_err();
    assert_eq!(error.code, ApiErrorCode::InvalidJson);
    assert_eq!(error.param.as_deref(), Some("stream"));
}

#[test]
fn what_is_not_served_warns_or_is_refused() {
    let member = r#""frobnicate":1,"tools":[{"type":"carrier_pigeon","server_label":"s","authorization":"secret","headers":{"x":"secret"}}]"#;
    let request = with(member).unwrap();
    assert_eq!(request.warnings.len(), 2, "{:?}", request.warnings);
    let echo = request.settings.echo();
    assert!(
        echo.contains(r#""tools":[{"type":"carrier_pigeon","server_label":"s"}]"#),
        "{echo}"
    );
    let strict = Rules {
        strict_requests: true,
        strict_tools: true,
        ..Rules::default()
    };
    let body = format!(r#"{{"model":"m","input":"x",{member}}}"#);
    let error =
        CreateRequest::decode(body.as_bytes(), &strict, &mut CountingIds::default()).unwrap_err();
    assert_eq!(error.code, UnsupportedValue);
    assert!(error.message.contains("`frobnicate`"), "{error}");
    assert!(!error.message.contains("secret"), "{error}");
    // Tools may also come by an item.
    let body = br#"{"model":"m","input":[{"role":"user","content":"x"},
        {"type":"additional_tools","role":"developer","tools":[{"type":"carrier_pigeon"}]}]}"#;
    let mut ids = CountingIds::default();
    let request = CreateRequest::decode(body, &Rules::default(), &mut ids).unwrap();
    assert_eq!(
        request.warnings,
        ["tool `carrier_pigeon` of `input[1].tools` is not shown to the model"]
    );
    let error = CreateRequest::decode(body, &strict, &mut ids).unwrap_err();
    assert_eq!(error.code, UnsupportedValue);
    assert_eq!(error.param.as_deref(), Some("input[1].tools[0]"));
}

#[test]
fn the_echo_shows_defaults() {
    let request = with(r#""tools":[{"type":"function","name":"f"}]"#).unwrap();
    assert_eq!(
        &*request.settings.echo(),
        concat!(
            r#"{"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"#,
            r#""parallel_tool_calls":true,"temperature":1.0,"top_p":1.0,"presence_penalty":0.0,"#,
            r#""frequency_penalty":0.0,"top_logprobs":0,"reasoning":{"effort":null,"summary":null},"#,
            r#""text":{"format":{"type":"text"},"verbosity":"medium"},"truncation":"disabled","tool_choice":"auto","#,
            r#""tools":[{"type":"function","name":"f","description":null,"parameters":null,"strict":null}],"#,
            r#""service_tier":"default","safety_identifier":null,"prompt_cache_key":null,"user":null}"#
        )
    );
}

#[test]
fn c5_bodies_are_refused_with_small_errors() {
    let many: Vec<String> = (0..1_000_000).map(|at| format!("\"k{at}\":1")).collect();
    for body in [
        Vec::new(),
        b"\xff\xfe".to_vec(),
        b"nonsense".to_vec(),
        b"[]".to_vec(),
        b"{\"model\":\"m\"".to_vec(),
        "[".repeat(100_000).into_bytes(),
        format!("{{{}}}", many.join(",")).into_bytes(),
        format!(
            r#"{{"model":"m","input":"x","temperature":{}}}"#,
            "9".repeat(10_000_000)
        )
        .into(),
        br#"{"model":"m","input":"x","seed":1e999}"#.to_vec(),
    ] {
        let error = CreateRequest::decode(&body, &Rules::default(), &mut CountingIds::default())
            .expect_err("refused");
        assert!(error.status == 400 && error.body().len() <= MAX_ERROR_BODY);
    }
}

#[test]
fn c8_payloads_are_never_echoed() {
    let payload = "QUJD".repeat(5_000_000);
    let error = with(&format!(r#""stream":"{payload}""#)).unwrap_err();
    let body = String::from_utf8(error.body()).unwrap();
    assert!(body.len() <= MAX_ERROR_BODY && body.contains("`stream`") && !body.contains("QUJD"));
}
