//! `{"type":"code_interpreter"}`: what the model is shown, what it asks for, what it is told.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::PythonPackages;
use crate::responses::item::{CodeInterpreterCall, CodeOutput, CodeOutputs, ToolStatus};

/// `type` of the tool.
pub const TYPE: &str = "code_interpreter";

/// Names of the function: the second when a function of the client has the first.
pub(crate) const NAMES: [&str; 2] = ["code_interpreter", "gateway_code_interpreter"];

/// The member of the arguments that holds the code.
pub(crate) const CODE: &str = "code";

/// What the model is told of the tool.
fn description(packages: PythonPackages) -> String {
    let (gives, uses, has) = match packages {
        PythonPackages::Core => (
            "prints and the value of its last expression",
            "arithmetic, data analysis",
            "It has the standard library and no other packages.",
        ),
        PythonPackages::Science => (
            "prints, the value of its last expression, and the pictures it shows",
            "arithmetic, data analysis, plots",
            "numpy, pandas and matplotlib are installed; show a figure with plt.show().",
        ),
        PythonPackages::Unknown => (
            "prints, the value of its last expression, and the pictures it shows",
            "arithmetic, data analysis, plots",
            "numpy, pandas and matplotlib may be imported where they are installed; show a \
             figure with plt.show().",
        ),
    };
    format!(
        "Runs Python code in a sandbox and returns what it {gives}. Use it for {uses}, and to \
         check results. Variables, imports and files under /mnt/data stay between calls of one \
         conversation. {has} There is no network, and a call may take 30 seconds at most."
    )
}

const PARAMETERS: &str = r#"{"type":"object","properties":{"code":{"type":"string","description":"The Python code to run."}},"required":["code"],"additionalProperties":false}"#;

/// Description and parameters of the function.
pub(crate) fn shown(packages: PythonPackages) -> (Box<str>, Option<Box<RawValue>>) {
    // A constant that is JSON: see the test.
    let parameters = RawValue::from_string(PARAMETERS.to_owned()).ok();
    (description(packages).into(), parameters)
}

/// Code to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeCall {
    /// Where.
    pub container: Container,
    /// Python.
    pub code: Box<str>,
}

/// The interpreter session that a response's code runs in; its id is `cntr_...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// The request named it: unknown or expired is a failure.
    Named(Box<str>),
    /// An earlier turn of the chain, or an earlier call of this response, used it: where it has
    /// ended, a fresh one takes its place.
    Continued(Box<str>),
    /// A fresh one, with the id that its item announced.
    Fresh(Box<str>),
}

impl Container {
    /// The id that the item announces.
    pub fn id(&self) -> &str {
        match self {
            Self::Named(id) | Self::Continued(id) | Self::Fresh(id) => id,
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeOutcome {
    /// Where it ran, when that is not where it was meant to.
    pub container_id: Option<Box<str>>,
    /// What was printed, the last value, and the traceback of an exception.
    pub logs: String,
    /// Pictures, as `data:` URLs.
    pub images: Vec<Box<str>>,
    /// Why the interpreter itself failed: time, memory, death, no place. Code that raised an
    /// exception has not failed in this sense.
    pub failure: Option<Box<str>>,
}

/// The arguments of the function.
#[derive(Deserialize)]
struct Arguments {
    code: String,
}

/// The code in arguments that are what the function takes; what is wrong with them otherwise.
pub(crate) fn check(arguments: &str) -> Result<String, &'static str> {
    match serde_json::from_str::<Arguments>(arguments) {
        Ok(read) if arguments.trim_start().starts_with('{') => Ok(read.code),
        Ok(_) | Err(_) => {
            Err("not run: the arguments must be a JSON object with the Python code in `code`")
        }
    }
}

/// Writes an outcome into its item. Pictures are kept for clients that want outputs; for the
/// others, and for the model, a line says that there was one.
pub(crate) fn settle(item: &mut CodeInterpreterCall, outcome: CodeOutcome, shown: CodeOutputs) {
    if let Some(id) = outcome.container_id {
        item.container_id = id;
    }
    let mut logs = outcome.logs;
    let mut outputs = Vec::new();
    for url in outcome.images {
        if shown == CodeOutputs::Shown {
            outputs.push(CodeOutput::Image { url });
        } else {
            line(&mut logs, "[a picture was made]");
        }
    }
    item.status = ToolStatus::Completed;
    if let Some(failure) = outcome.failure {
        item.status = ToolStatus::Failed;
        line(&mut logs, &failure);
    }
    if !logs.is_empty() {
        outputs.insert(0, CodeOutput::Logs { logs: logs.into() });
    }
    item.outputs = Some(outputs);
}

fn line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

/// What the model is told of a call.
pub(crate) fn told(item: &CodeInterpreterCall) -> String {
    let Some(outputs) = &item.outputs else {
        return "(the output is not known any more)".to_owned();
    };
    let mut text = String::new();
    for output in outputs {
        match output {
            CodeOutput::Logs { logs } => line(&mut text, logs),
            CodeOutput::Image { .. } => line(&mut text, "[a picture was made and shown]"),
        }
    }
    if text.is_empty() {
        text.push_str("(no output)");
    }
    text
}

/// The arguments as they are replayed to the model.
pub(crate) fn arguments(code: &str) -> String {
    #[derive(serde::Serialize)]
    struct Replayed<'a> {
        code: &'a str,
    }
    // One string: nothing here can fail to be written.
    serde_json::to_string(&Replayed { code }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_told_of_packages_that_are_there_alone() {
        assert!(!description(PythonPackages::Core).contains("numpy"));
        assert!(description(PythonPackages::Science).contains("are installed"));
        assert!(description(PythonPackages::Unknown).contains("where they are"));
    }

    #[test]
    fn the_parameters_are_json() {
        assert!(shown(PythonPackages::Core).1.is_some());
    }

    #[test]
    fn arguments_are_an_object_with_code() {
        assert!(check(r#"{"code":"1"}"#).is_ok());
        assert!(check(&arguments("print(\"a\n\")")).is_ok());
        for bad in ["", "1", "[\"1\"]", "{}", r#"{"code":1}"#, r#"{"code":"1"#] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
