//! Whatever a text has in it, taking its data out and putting it back gives the same bytes.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::ids::{Owner, ResponseId};
use crate::record::Status;

const MARKS: Marks = Marks(0x0123_4567_89ab_cdef);
/// So small that tests can have much of it.
const SMALL: usize = 40;

/// A marked text with its data put back.
fn whole(marked: &[u8], blobs: &[Blob]) -> Vec<u8> {
    let mut whole = Vec::new();
    for piece in MARKS.cut(marked) {
        match piece {
            Piece::Text(range) => whole.extend_from_slice(&marked[range]),
            Piece::Blob(at) => {
                let blob = blobs.iter().find(|blob| blob.at == at).expect("known");
                let data = blob.data.as_ref().expect("there");
                assert_eq!((data.len(), BlobRef::of(data)), (at.bytes(), at));
                whole.extend_from_slice(data.as_bytes());
            }
        }
    }
    assert_eq!(MARKS.whole_length(marked), whole.len());
    whole
}

fn url(length: usize) -> String {
    format!("data:image/png;base64,{}", "Az09+/=".repeat(length))
}

#[test]
fn large_data_is_taken_out_and_read_again() {
    let large = url(10_000);
    let items = format!(
        r#"[{{"image_url":"{large}","detail":"auto"}},{{"a":["{large}","{}"]}}]"#,
        url(5)
    );
    let record = Record {
        id: ResponseId::new("resp_1"),
        previous: None,
        owner: Owner::new("alice"),
        model: "m".into(),
        status: Status::Completed,
        created_at_ms: 1,
        completed_at_ms: None,
        expires_at_ms: None,
        input_items: items.clone().into(),
        response: "{}".into(),
        settings: "{}".into(),
        blobs: Vec::new(),
    };
    let record = MARKS.store(Box::new(record));
    assert_eq!(record.blobs.len(), 1);
    assert!(record.input_items.len() < 600, "{}", record.input_items);
    assert!(
        record
            .input_items
            .contains("\"data:image/png;base64,\u{1}sha256:")
    );
    let marked = MARKS.read(&record.input_items);
    assert!(marked.contains("\"data:image/png;base64,vrblob-"));
    assert_eq!(whole(marked.as_bytes(), &record.blobs), items.as_bytes());
}

#[test]
fn a_version_that_does_not_know_references_cannot_read_the_text() {
    let text = format!(r#"[{{"image_url":"{}"}}]"#, url(10_000));
    let stored = MARKS.taken_out(&text, LEAST, &mut Vec::new()).unwrap();
    assert!(serde_json::from_str::<Vec<Box<RawValue>>>(&text).is_ok());
    assert!(serde_json::from_str::<Vec<Box<RawValue>>>(&stored).is_err());
}

#[test]
fn what_stays_whole() {
    let data = "A".repeat(100);
    for text in [
        format!(r#"["data:image/png;base64,{}"]"#, "A".repeat(10)),
        format!(r#"["xdata:image/png;base64,{data}"]"#),
        format!(r#"["data:image/png;base64,{data}\n"]"#),
        format!(r#"["data:image/png;base64,{data}\/"]"#),
        format!(r#"["data:image/png;base64,{data}é"]"#),
        format!(r#"["data:{}"]"#, "A".repeat(400)),
        format!(r#"{{"arguments":"data:x,{data}"}}"#),
        format!(r#"{{"a":"{{\"url\":\"data:x,{data}\"}}"}}"#),
    ] {
        let mut blobs = Vec::new();
        assert_eq!(MARKS.taken_out(&text, SMALL, &mut blobs), None, "{text}");
        assert_eq!(blobs, []);
    }
}

#[test]
fn marks_of_others_are_text() {
    let at = BlobRef::of("x");
    for forged in [Marks(7).mark(at), "vrblob-".to_owned(), MARKS.prefix()] {
        assert_eq!(MARKS.cut(forged.as_bytes()), [Piece::Text(0..forged.len())]);
        assert!(!MARKS.are_in(forged.as_bytes()));
    }
    for damaged in ["\u{1}", "\u{1}sha256:00:1\u{1}", "a\u{1}sha1:\u{1}b"] {
        assert_eq!(MARKS.read(damaged), damaged);
    }
}

#[test]
fn a_marked_text_is_the_same_as_the_whole_one() {
    let text = format!(r#"{{"url":"{}"}}"#, url(10_000));
    let stored = MARKS.taken_out(&text, LEAST, &mut Vec::new()).unwrap();
    let marked = MARKS.read(&stored);
    assert_eq!(MARKS.canonical(&marked), MARKS.canonical(&text));
    let other = text.replace("Az09", "Az08");
    assert_ne!(MARKS.canonical(&marked), MARKS.canonical(&other));
}

#[test]
fn what_people_are_shown_has_no_marks() {
    let marked = format!("a{}b", MARKS.mark(BlobRef::of("xyz")));
    assert_eq!(MARKS.shown(marked.as_bytes(), 100), b"a[3 bytes]b");
    assert_eq!(MARKS.shown(marked.as_bytes(), 4), b"a[3 ");
    assert_eq!(format!("{MARKS:?}"), "Marks");
}

/// Strings that look like what is taken out, escaped anyhow, and like references and marks.
fn string() -> impl Strategy<Value = String> {
    let data = "[A-Za-z0-9+/=]{0,90}";
    let forged = MARKS.mark(BlobRef::of("no")).replace("vrblob", "vrblo");
    prop_oneof![
        data.prop_map(|data| format!("data:image/png;base64,{data}")),
        "data:,?[ -~é\n]{0,90}",
        ".{0,60}",
        Just(forged),
        Just("{\"_blob\":\"sha256:".to_owned()),
        Just("\u{1}sha256:00:1\u{1}".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        string().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![
            string(),
            Just("arguments".to_owned()),
            Just("url".to_owned())
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::vec((key, inner.clone()), 0..5).prop_map(|members| members
                .into_iter()
                .collect::<serde_json::Map<_, _>>()
                .into()),
            // A text in a text, escaped once more.
            inner.prop_map(|inner| inner.to_string().into()),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_comes_back_byte_for_byte(value in value(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let mut blobs = Vec::new();
        let Some(stored) = MARKS.taken_out(&text, SMALL, &mut blobs) else {
            prop_assert_eq!(&*MARKS.read(&text), &*text);
            return Ok(());
        };
        prop_assert!(serde_json::from_str::<serde_json::Value>(&stored).is_err());
        let marked = MARKS.read(&stored).into_owned();
        prop_assert_eq!(whole(marked.as_bytes(), &blobs), text.as_bytes());
        prop_assert!(!MARKS.shown(marked.as_bytes(), usize::MAX / 2).windows(7).any(|seven| seven == b"vrblob-"));
        // Marks survive writing, at any depth.
        let nested = serde_json::to_string(&marked).unwrap();
        let again = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(whole(nested.as_bytes(), &blobs), again.as_bytes());
        // And are stored again as they were, without their data.
        let mut known = Vec::new();
        prop_assert_eq!(MARKS.taken_out(&marked, SMALL, &mut known), Some(stored));
        prop_assert_eq!(known.len(), blobs.len());
    }

    #[test]
    fn any_bytes_can_be_looked_at(text in "[\"\\\\data:,\u{1}a-f0-9-]{0,200}", cut in any::<prop::sample::Index>()) {
        let mark = MARKS.mark(BlobRef::of("x"));
        let text = format!("{text}{mark}{text}");
        let at = cut.index(text.len());
        let text = text.get(..at).unwrap_or_default();
        let _no_matter = MARKS.taken_out(text, 1, &mut Vec::new());
        let _no_matter = MARKS.read(text);
        let _no_matter = MARKS.cut(text.as_bytes());
    }
}
