//! F7: a stored row is read or told to be corrupt, and what is read can be written and read again.

use std::sync::Arc;

use serde_json::Value;
use vllm_responses_protocol::blob::Marks;
use vllm_responses_protocol::history;
use vllm_responses_protocol::ids::ResponseId;
use vllm_responses_protocol::record::{Chain, Link, Status, Stored};
use vllm_responses_protocol::responses::item::CodeOutputs;

use crate::halves;

const MARKS: Marks = Marks::new(7);

/// The first part is the column `input_items`, the second `response`.
pub fn check(bytes: &[u8]) {
    let (input_items, response) = halves(bytes);
    let (Ok(input_items), Ok(response)) = (
        std::str::from_utf8(input_items),
        std::str::from_utf8(response),
    ) else {
        return;
    };
    let link = Arc::new(Link {
        id: ResponseId::new("resp_1"),
        status: Status::Completed,
        input_items: input_items.into(),
        response: response.into(),
    });
    let chain = Chain {
        links: vec![Arc::clone(&link), link],
        expires_at_ms: None,
        settings: None,
    };
    let whole = history::from_chain(&chain, MARKS);
    if let Ok(items) = &whole {
        let written = history::items_json(items);
        let again = history::parse_items(&written).expect("what was written can be read");
        assert_eq!(
            history::items_json(&again),
            written,
            "read as it was written"
        );
        history::effective_input(&chain, MARKS).expect("a part of them");
    }
    let stored = Stored {
        response: response.into(),
        settings: r#"{"tools":[]}"#.into(),
    };
    let shown = stored.resource(CodeOutputs::Shown, MARKS);
    let hidden = stored.resource(CodeOutputs::Hidden, MARKS);
    if whole.is_ok() && serde_json::from_str::<Value>(response).is_ok_and(|read| read.is_object()) {
        for resource in [shown, hidden] {
            let trimmed = response.ends_with('}') && response.starts_with('{');
            let read = serde_json::from_str::<Value>(&resource);
            assert!(!trimmed || read.is_ok(), "{resource}");
        }
    }
}
