//! Items that are kept as they came, as the model is told of them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chat::request::{ChatContent, ChatPart, ImageUrl};
use crate::json::{kind, read};
use crate::responses::content::ImageDetail;
use crate::responses::kept::{KeptItem, KeptKind};
use crate::responses::tool::Tool;
use crate::tools::Catalogue;

/// Name and arguments of the call that a kept item stands for.
pub(super) fn call(item: &KeptItem) -> (&'static str, Cow<'_, str>) {
    let of_kind = |name: &str, wanted| item.member(name).filter(|raw| kind(raw) == wanted);
    let whole = |name| of_kind(name, read::Kind::Object).map(|raw| Cow::Borrowed(raw.get()));
    let as_member = |name| {
        let list = of_kind(name, read::Kind::Array)?;
        Some(Cow::Owned(format!("{{\"{name}\":{}}}", list.get())))
    };
    let (name, arguments) = match item.kind {
        KeptKind::ComputerCall => ("computer", whole("action").or_else(|| as_member("actions"))),
        KeptKind::WebSearchCall => ("web_search", whole("action")),
        KeptKind::FileSearchCall => ("file_search", as_member("queries")),
        KeptKind::ImageGenerationCall => ("image_generation", None),
        KeptKind::LocalShellOutput
        | KeptKind::ShellOutput
        | KeptKind::ApplyPatchOutput
        | KeptKind::ComputerOutput => ("tool", None),
    };
    (name, arguments.unwrap_or(Cow::Borrowed("{}")))
}

/// What the model is told of the outcome.
pub(super) fn told(item: &KeptItem) -> ChatContent<'_> {
    match item.kind {
        KeptKind::ShellOutput => text(shell(item)),
        KeptKind::ApplyPatchOutput => text(patch(item)),
        KeptKind::ComputerOutput => screen(item),
        KeptKind::LocalShellOutput => {
            let output = item.member("output").and_then(read::text);
            ChatContent::Text(output.unwrap_or_default())
        }
        KeptKind::FileSearchCall => {
            let results = item
                .member("results")
                .filter(|raw| kind(raw) == read::Kind::Array);
            let results = results.map_or("(the results are not known any more)", RawValue::get);
            ChatContent::Text(Cow::Borrowed(results))
        }
        KeptKind::ImageGenerationCall => text("[a picture was made and shown]"),
        KeptKind::WebSearchCall => text("(the results are not known any more)"),
        KeptKind::ComputerCall => text(""),
    }
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> ChatContent<'a> {
    ChatContent::Text(text.into())
}

/// One line of a shell's output.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Printed {
    stdout: String,
    stderr: String,
    outcome: Option<Outcome>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Outcome {
    Exit { exit_code: i64 },
    Timeout,
}

fn shell(item: &KeptItem) -> String {
    let raw = item.member("output").map_or("[]", RawValue::get);
    let Ok(printed) = serde_json::from_str::<Vec<Printed>>(raw) else {
        // Not as the API has it, but the client's own words all the same.
        return raw.to_owned();
    };
    let mut told = String::new();
    for one in printed {
        line(&mut told, &one.stdout);
        line(&mut told, &one.stderr);
        match one.outcome {
            Some(Outcome::Exit { exit_code }) => line(&mut told, &format!("[exit {exit_code}]")),
            Some(Outcome::Timeout) => line(&mut told, "[timed out]"),
            None => {}
        }
    }
    told
}

fn line(text: &mut String, line: &str) {
    if !line.is_empty() && !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

fn patch(item: &KeptItem) -> String {
    let status = item.member("status").and_then(read::text);
    let output = item.member("output").and_then(read::text);
    let mut told = match status.as_deref() {
        Some("failed") => "failed".to_owned(),
        _ => "done".to_owned(),
    };
    line(&mut told, output.as_deref().unwrap_or_default());
    told
}

/// What a picture of the screen is.
#[derive(Deserialize)]
struct Screen<'a> {
    #[serde(borrow, default)]
    image_url: Option<&'a RawValue>,
}

fn screen(item: &KeptItem) -> ChatContent<'_> {
    let raw = item.member("output").map_or("{}", RawValue::get);
    let screen = serde_json::from_str(raw).unwrap_or(Screen { image_url: None });
    match screen.image_url.and_then(read::text) {
        Some(url) => ChatContent::Parts(vec![ChatPart::ImageUrl {
            image_url: ImageUrl {
                url,
                detail: ImageDetail::Auto,
            },
        }]),
        None => text("[a picture of the screen]"),
    }
}

/// The tools that a search found, by the names that the model calls.
pub(super) fn found(tools: &[Tool], catalogue: &Catalogue) -> String {
    let mut names = Vec::new();
    collect(tools, None, catalogue, &mut names);
    if names.is_empty() {
        return "no tools were found".to_owned();
    }
    format!("these tools can be called now: {}", names.join(", "))
}

fn collect(
    tools: &[Tool],
    namespace: Option<&str>,
    catalogue: &Catalogue,
    names: &mut Vec<String>,
) {
    for tool in tools {
        match tool {
            Tool::Function(tool) => {
                names.push(catalogue.shown_name(&tool.name, namespace).into_owned());
            }
            Tool::Custom(tool) => {
                names.push(catalogue.shown_name(&tool.name, namespace).into_owned());
            }
            Tool::Namespace(space) => {
                collect(&space.tools, Some(&space.name), catalogue, names);
            }
            Tool::Emulated(tool) => names.push(tool.kind.as_str().to_owned()),
            Tool::ToolSearch(_) | Tool::CodeInterpreter(_) | Tool::Mcp(_) | Tool::Unserved(_) => {}
        }
    }
}
