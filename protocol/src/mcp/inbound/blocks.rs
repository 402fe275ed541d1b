//! The content of a result, block by block, without a list of them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::text;
use crate::json::{Kind, kind};

/// Most pictures of one result that a model is shown.
const MAX_PICTURES: usize = 16;

/// What was read of a result's content.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Its text, one block a line; what is beyond `room` is counted only.
    pub(super) text: String,
    /// Bytes that all its text would have.
    pub(super) whole: usize,
    /// Bytes of text that are kept.
    room: usize,
    /// Text blocks so far: whether the text is that of one.
    pub(super) texts: usize,
    /// `data:` URLs.
    pub(super) pictures: Vec<Box<str>>,
}

impl Content {
    /// Reads `content`: a list, as it should be, or a lone block or text.
    pub(super) fn read(raw: Option<&RawValue>, room: usize) -> Self {
        let mut content = Self {
            room,
            ..Self::default()
        };
        let Some(raw) = raw else {
            return content;
        };
        match kind(raw) {
            Kind::Array => {
                let mut reader = serde_json::Deserializer::from_str(raw.get());
                // What was read before a block that is no JSON is kept.
                drop((&mut reader).deserialize_seq(Blocks(&mut content)));
            }
            Kind::Null => {}
            Kind::Object | Kind::String | Kind::Bool | Kind::Number => content.block(raw),
        }
        content
    }

    fn block(&mut self, raw: &RawValue) {
        if let Some(words) = text::of(Some(raw)) {
            self.texts += 1;
            return self.line(&words);
        }
        let block: Option<Block<'_>> = serde_json::from_str(raw.get()).ok();
        let Some(block) = block.filter(|_| kind(raw) == Kind::Object) else {
            return self.line("[content of a kind that is not known]");
        };
        match block.r#type.as_deref() {
            Some("image") => self.binary("image", &block),
            Some("audio") => self.binary("audio", &block),
            Some("resource_link") => self.link(&block),
            Some("resource") => self.resource(&block),
            _ => match text::of(block.text) {
                Some(words) => {
                    self.texts += 1;
                    self.line(&words);
                }
                None => self.line("[content of a kind that is not known]"),
            },
        }
    }

    fn resource(&mut self, block: &Block<'_>) {
        let resource = block.resource.filter(|raw| kind(raw) == Kind::Object);
        let resource: Option<Block<'_>> =
            resource.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let Some(resource) = resource else {
            return self.line("[resource]");
        };
        let uri = text::of(resource.uri).unwrap_or_default();
        if let Some(words) = text::of(resource.text) {
            self.line(&format!("[resource {uri}]"));
            self.line(&words);
        } else {
            self.line(&format!("[resource {uri}]"));
            self.binary("data", &resource);
        }
    }

    fn link(&mut self, block: &Block<'_>) {
        let name = text::of(block.name).unwrap_or_default();
        let title = text::of(block.title).filter(|title| *title != name);
        let uri = text::of(block.uri).unwrap_or_default();
        let mut line = match title {
            Some(title) => format!("[{title}]({uri}) {name}"),
            None => format!("[{name}]({uri})"),
        };
        if let Some(words) = text::of(block.description).filter(|words| !words.is_empty()) {
            line.push_str(": ");
            line.push_str(&words);
        }
        self.line(line.trim_end());
    }

    /// A picture is kept as one; of other bytes it is said that they are there, since their base64
    /// would cost the model its context.
    fn binary(&mut self, what: &str, block: &Block<'_>) {
        let data = text::of(block.data).or_else(|| text::of(block.blob));
        let data = data.unwrap_or_default();
        let bytes = data.len() / 4 * 3;
        let given = text::of(block.mime_type).filter(|kind| is_plain(kind));
        if let Some((kind, data)) = picture(given.as_deref(), &data)
            && self.pictures.len() < MAX_PICTURES
        {
            self.line(&format!("[image {kind}, {bytes} bytes]"));
            self.pictures
                .push(format!("data:{kind};base64,{data}").into());
            return;
        }
        let given = given.as_deref().unwrap_or("application/octet-stream");
        self.line(&format!("[{what} {given}, {bytes} bytes, not shown]"));
    }

    fn line(&mut self, words: &str) {
        if self.whole > 0 {
            self.push("\n");
        }
        self.push(words);
    }

    fn push(&mut self, words: &str) {
        let left = self.room.saturating_sub(self.text.len());
        self.text.push_str(crate::error::head(words, left));
        self.whole += words.len();
    }
}

/// Whether a MIME type is one, as far as it matters in a line of text.
fn is_plain(kind: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-._".contains(&byte);
    kind.len() <= 100 && kind.bytes().all(fits)
}

/// The type and the base64 of a picture that models take; by its first bytes where they tell.
fn picture<'a>(given: Option<&str>, data: &'a str) -> Option<(&'static str, Cow<'a, str>)> {
    const KINDS: [(&str, &str); 4] = [
        ("image/png", "iVBORw"),
        ("image/jpeg", "/9j/"),
        ("image/gif", "R0lGOD"),
        ("image/webp", "UklGR"),
    ];
    let data = match data.strip_prefix("data:") {
        Some(url) => url.split_once(',')?.1,
        None => data,
    };
    let by_bytes = KINDS.iter().find(|(_, begin)| data.starts_with(begin));
    let by_name = KINDS.iter().find(|(kind, _)| {
        let given = given.map(str::to_ascii_lowercase);
        given.as_deref().map(|given| given.replace("/jpg", "/jpeg")) == Some((*kind).to_owned())
    });
    let (kind, _) = by_bytes.or(by_name)?;
    let broken = data.contains(['\n', '\r']);
    let data = if broken {
        Cow::Owned(data.replace(['\n', '\r'], ""))
    } else {
        Cow::Borrowed(data)
    };
    let whole = !data.is_empty()
        && data.len() % 4 == 0
        && data
            .trim_end_matches('=')
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    whole.then_some((*kind, data))
}

/// A block, or the resource inside one: any member may be missing or of any type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    blob: Option<&'a RawValue>,
    #[serde(borrow, default)]
    mime_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    title: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
}

struct Blocks<'a>(&'a mut Content);

impl<'de> Visitor<'de> for Blocks<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of blocks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(raw) = list.next_element::<&'de RawValue>()? {
            self.0.block(raw);
        }
        Ok(())
    }
}
