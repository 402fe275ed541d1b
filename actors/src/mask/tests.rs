//! Every form of a secret in every kind of text, and bounds of the work.

use std::fmt::Write as _;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn told(secrets: &[&str], said: &str) -> String {
    Mask::of(secrets).text(said.into(), End::Whole).into()
}

/// The fault: a form was known or not, each by itself.
#[test]
fn a_secret_is_found_in_each_of_its_forms() {
    let pem = "-----BEGIN KEY-----\nMIIEpemline1\n-----END KEY-----";
    let cases: &[(&str, &str, &str)] = &[
        ("key-abcd1", "a key-abcd1, key-abcd1", "a ***, ***"),
        (pem, pem, "***"),
        (
            pem,
            r#"{"k":"-----BEGIN KEY-----\nMIIEpemline1\n-----END KEY-----","n":"\u00e9"}"#,
            r#"{"k":"***","n":"\u00e9"}"#,
        ),
        (
            pem,
            r#"{"k":"{\"in\":\"-----BEGIN KEY-----\\nMIIEpemline1\\n-----END KEY-----\"}"}"#,
            r#"{"k":"{\"in\":\"***\"}"}"#,
        ),
        ("a\tb\r\nc-12345", r"x a\tb\r\nc-12345 y", "x *** y"),
        ("pässwort1", r#""p\u00e4sswort1""#, r#""***""#),
        ("pässwort1", r#""p\u00E4sswort1""#, r#""***""#),
        ("pässwort1", r"'p\xe4sswort1'", "'***'"),
        ("pässwort1", r"b'p\xc3\xa4sswort1'", "b'***'"),
        ("pässwort1", "p%C3%A4sswort1 p%c3%a4sswort1", "*** ***"),
        ("pässwort1", "p&#228;sswort1 p&#xE4;sswort1", "*** ***"),
        ("pässwort1", r"p\u{e4}sswort1", "***"),
        ("smile-😀-1", r"smile-\ud83d\uDE00-1", "***"),
        ("smile-😀-1", r"'smile-\U0001f600-1'", "'***'"),
        ("ab/cd/efgh1", r"ab\/cd\/efgh1", "***"),
        ("ab+cd/efgh1=", r"ab\u002Bcd\/efgh1\u003d", "***"),
        (r#"ab"cd\efgh1"#, r#"ab\"cd\\efgh1"#, "***"),
        ("ab&cd<efgh1", "ab&amp;cd&lt;efgh1", "***"),
        (r"C:\new\table1", r"C:\new\table1", "***"),
        // As of JSON in a text of JSON.
        (
            "abcdefgh1",
            r"\\u0061bcdefgh1 \u0061bcdefgh1 \\u0062",
            r"*** *** \\u0062",
        ),
        (
            "abcdefgh1",
            r"\ud800abcdefgh \u12 \x \u{} \u{110000} %4 &#; &amp \",
            r"\ud800abcdefgh \u12 \x \u{} \u{110000} %4 &#; &amp \",
        ),
        ("seven77", "seven77", "seven77"),
    ];
    for (secret, said, expected) in cases {
        assert_eq!(told(&[secret], said), *expected, "{secret} in {said}");
    }
}

/// The longer of two, both where they overlap, and one that begins with another.
#[test]
fn secrets_that_share_letters_leave_none() {
    let secrets = ["abcdefgh", "abcdefghij", "abcdefghijkl-x", "ghijklmnopq"];
    for (said, expected) in [
        ("abcdefghz", "***z"),
        ("abcdefghijz", "***z"),
        ("abcdefghijkl-", "***kl-"),
        ("abcdefghijklmnopqr", "***r"),
        ("abcdefghabcdefgh", "***"),
    ] {
        assert_eq!(told(&secrets, said), expected);
    }
}

/// The fault: of a secret that the end of a long line cuts, the beginning was told.
#[test]
fn the_beginning_of_a_secret_at_a_cut_is_marked() {
    let mask = Mask::of(["pässwort-of-the-program"]);
    let cut = |text: &str| mask.text(text.into(), End::Cut);
    assert_eq!(&*cut("it is pässwort-of-t"), "it is ***");
    assert_eq!(&*cut(r"it is p\u00e4sswort-of"), "it is ***");
    assert_eq!(&*cut(r"it is p\u00"), "it is ***");
    assert_eq!(&*cut("it is p\u{fffd}"), "it is ***");
    assert_eq!(&*cut("it is not"), "it is not");
    assert_eq!(
        &*mask.text("it is pässwort-of-t".into(), End::Whole),
        "it is pässwort-of-t"
    );
    let long = "0123456789".repeat(100_000);
    let mask = Mask::of([&long]);
    let bytes = mask.bytes(Cow::Borrowed(&long.as_bytes()[..8192]), End::Cut);
    assert_eq!(*bytes, *b"***");
}

#[test]
fn what_has_no_secret_is_not_copied_and_bytes_stay_bytes() {
    let mask = Mask::of(["other-key"]);
    let bytes = |text: &'static [u8]| mask.bytes(Cow::Borrowed(text), End::Whole);
    assert_eq!(*bytes(b"\xffother-key"), *b"\xff***");
    assert!(matches!(bytes(b"\\u0041 other-ke"), Cow::Borrowed(_)));
    assert_eq!(
        format!("{mask:?} {:?}", Mask::default()),
        "Mask(true) Mask(false)"
    );
}

/// Whoever writes the text, and whatever it repeats: linear. A build without optimisation takes about 2 s
/// for the worst; quadratic work would take hours.
#[test]
fn p7_the_work_is_bounded() {
    let same = "a".repeat(1 << 20);
    let many: Vec<String> = (0..500)
        .map(|number| format!("{}-{number}", "a".repeat(number)))
        .collect();
    let lines: Vec<String> = (0..16_000)
        .map(|number| format!("sk-proj-{number:056}"))
        .collect();
    let mask = Mask::of(many.iter().chain(&lines).chain([&same]));
    let escaped = r"\\\\\\\\n".repeat(1 << 15);
    let texts = [
        format!("{}b", "a".repeat(1 << 18)),
        "sk-proj-".repeat(1 << 15),
        escaped,
        "%61&#97;\\u0061".repeat(1 << 14),
    ];
    for text in texts {
        let begun = Instant::now();
        mask.text(text.into(), End::Cut);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}

proptest! {
    /// Whatever a secret is and however its letters are escaped, it is found; the text around it stays.
    #[test]
    fn any_mix_of_escapes_is_undone(secret in "[ -~äß€😀\\n\\t]{8,300}", ways in proptest::collection::vec(0..4_u8, 300)) {
        let mut spelt = String::new();
        for (letter, way) in secret.chars().zip(ways.iter().cycle()) {
            match (letter, way) {
                ('\n', _) => spelt.push_str("\\n"),
                ('\t', _) => spelt.push_str("\\t"),
                ('"' | '\\', _) => spelt.extend(['\\', letter]),
                (_, 0) => {
                    let mut units = [0; 2];
                    for unit in letter.encode_utf16(&mut units) {
                        let _written = write!(spelt, "\\u{unit:04x}");
                    }
                }
                ('/', 1) => spelt.push_str("\\/"),
                _ => spelt.push(letter),
            }
        }
        let mask = Mask::of([&secret]);
        let said = format!("{{\"\u{17f}\":\"{spelt}\"}}");
        let clean = mask.text(said.into(), End::Whole);
        prop_assert!(!clean.contains(&spelt), "{clean}");
        prop_assert!(clean.starts_with("{\"\u{17f}\":\"***"), "{clean}");
        let raw = mask.text(secret.clone().into(), End::Whole);
        prop_assert_eq!(&*raw, "***");
    }
}
