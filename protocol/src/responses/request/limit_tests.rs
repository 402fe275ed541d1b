//! Choices, limits and credentials of requests.

use super::*;
use crate::error::ApiErrorCode::MissingRequiredParameter;
use crate::ids::CountingIds;

fn with(members: &str) -> Result<CreateRequest, ApiError> {
    let body = format!(r#"{{"model":"m","input":"x",{members}}}"#);
    CreateRequest::decode(
        body.as_bytes(),
        &Rules::default(),
        &mut CountingIds::default(),
    )
}

#[test]
fn a_choice_names_a_known_type_and_a_tool_that_is_there() {
    for (members, param, code) in [
        (
            r#""tool_choice":{"type":"anything"}"#,
            "tool_choice.type",
            Some("invalid_value"),
        ),
        (
            r#""tool_choice":{"type":"code_interpreter"}"#,
            "tool_choice",
            None,
        ),
        (
            r#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}"#,
            "tool_choice",
            None,
        ),
        (
            r#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","tools":[{"type":"hat"}]}"#,
            "tool_choice.tools[0].type",
            Some("invalid_value"),
        ),
    ] {
        let error = with(members).unwrap_err();
        assert_eq!(
            (error.param.as_deref(), error.code.wire()),
            (Some(param), code),
            "{members}"
        );
    }
    let long = format!(r#""tool_choice":{{"type":"{}"}}"#, "x".repeat(100_000));
    assert_eq!(
        with(&long).unwrap_err().param.as_deref(),
        Some("tool_choice")
    );
    let versions =
        r#""tools":[{"type":"web_search"}],"tool_choice":{"type":"web_search_preview","x":"y"}"#;
    let echo = with(versions).unwrap().settings.echo();
    assert!(
        echo.contains(r#""tool_choice":{"type":"web_search_preview"}"#),
        "{echo}"
    );
}

#[test]
fn whole_numbers_out_of_range_have_codes_of_their_own() {
    for (members, code) in [
        (r#""max_tool_calls":0"#, "integer_below_min_value"),
        (r#""max_output_tokens":-1"#, "integer_below_min_value"),
        (r#""top_logprobs":21"#, "integer_above_max_value"),
    ] {
        assert_eq!(
            with(members).unwrap_err().code.wire(),
            Some(code),
            "{members}"
        );
    }
}

#[test]
fn background_options_are_read_and_not_echoed() {
    let options = r#""background_options":{"completion_window":"soonest","continuation_id":"a"}"#;
    let request = with(options).unwrap();
    assert!(request.warnings.is_empty());
    assert!(!request.settings.echo().contains("soonest"));
    for (window, param) in [
        ("2h", "background_options.completion_window"),
        ("1y", "background_options.completion_window"),
    ] {
        let members = format!(r#""background_options":{{"completion_window":"{window}"}}"#);
        assert_eq!(with(&members).unwrap_err().param.as_deref(), Some(param));
    }
}

#[test]
fn a_request_has_few_warnings_however_many_tools_it_has() {
    let tool = r#"{"type":"hat"},{"type":"coat"}"#;
    let list = format!(r#"{{"type":"additional_tools","tools":[{tool}]}}"#);
    let lists = vec![list; 500].join(",");
    let body = format!(r#"{{"model":"m","input":[{{"role":"user","content":"x"}},{lists}]}}"#);
    let request = CreateRequest::decode(
        body.as_bytes(),
        &Rules::default(),
        &mut CountingIds::default(),
    )
    .unwrap();
    assert_eq!(request.warnings.len(), 2);
    assert!(
        request.warnings[0].contains("499 more"),
        "{:?}",
        request.warnings
    );
}

#[test]
fn a_request_has_so_many_items_and_no_more() {
    let body = |count: usize| {
        let items = vec![r#"{"id":"x"}"#; count].join(",");
        format!(r#"{{"model":"m","input":[{items}]}}"#)
    };
    let decode = |count| {
        CreateRequest::decode(
            body(count).as_bytes(),
            &Rules::default(),
            &mut CountingIds::default(),
        )
    };
    assert!(decode(20_000).is_ok());
    assert_eq!(decode(20_001).unwrap_err().param.as_deref(), Some("input"));
}

#[test]
fn parameters_that_are_called_headers_stay() {
    let schema =
        r#"{"type":"object","properties":{"url":{},"headers":{}},"required":["url","headers"]}"#;
    let space = format!(
        r#"{{"type":"namespace","name":"web","authorization":"HUSH","tools":[{{"type":"function","name":"fetch","parameters":{schema}}}]}}"#
    );
    let custom = r#"{"type":"custom","name":"c","headers":"HUSH","format":{"type":"grammar","syntax":"regex","definition":"headers"}}"#;
    let mine = r#"{"type":"mcp","server_label":"a","server_url":"https://u:HUSH@mcp.example.com/HUSH/mcp?key=HUSH","headers":{"x":"HUSH"}}"#;
    let odd = format!(
        r#"{{"type":"hat","headers":"HUSH","deep":{{"authorization":"HUSH"}},"parameters":{schema}}}"#
    );
    let request = with(&format!(r#""tools":[{space},{custom},{mine},{odd}]"#)).unwrap();
    let echo = request.settings.echo();
    assert!(!echo.contains("HUSH"), "{echo}");
    assert_eq!(echo.matches(schema).count(), 2, "{echo}");
    assert!(
        echo.contains(r#""server_url":"https://mcp.example.com""#),
        "{echo}"
    );
}

/// As the API has it, in both of its shapes; what earlier versions stored may not say it.
#[test]
fn code_runs_in_a_container_that_the_request_names() {
    for good in [r#""cntr_1""#, r#"{"type":"auto"}"#] {
        let tool = format!(r#""tools":[{{"type":"code_interpreter","container":{good}}}]"#);
        assert!(with(&tool).is_ok(), "{good}");
    }
    let tool = r#"{"type":"code_interpreter"}"#;
    for (members, param) in [
        (format!(r#""tools":[{tool}]"#), "tools[0].container"),
        (
            format!(r#""tools":[{{"type":"function","name":"f"}},{tool}]"#),
            "tools[1].container",
        ),
    ] {
        let error = with(&members).unwrap_err();
        assert_eq!(error.code, MissingRequiredParameter, "{members}");
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)));
    }
}
