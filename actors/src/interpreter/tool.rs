//! The code interpreter as a gateway tool.

use actix::Recipient;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use vllm_responses_protocol::ids::Owner;
use vllm_responses_protocol::tools::code_interpreter::{self, CodeCall, CodeOutcome};
use vllm_responses_protocol::tools::{
    Availability, GatewayCall, Offers, PythonPackages, ToolOutcome,
};

use super::limits::CallLimits;
use super::messages::{Container, Execute, ExecuteError, Executed, Release};
use crate::tools::{CallContext, Tool};

/// The tool, served by whatever actor takes the messages.
#[derive(Clone, Debug)]
pub struct CodeInterpreter {
    /// Runs code.
    pub calls: Recipient<Execute>,
    /// Gets containers back.
    pub releases: Recipient<Release>,
    /// Of every call.
    pub limits: CallLimits,
    /// What its Python has.
    pub packages: PythonPackages,
}

impl Tool for CodeInterpreter {
    fn offer(&self, offers: &mut Offers) {
        offers.code_interpreter = Availability::Offered;
        offers.python_packages = self.packages;
    }

    fn run(
        &self,
        context: CallContext,
        call: GatewayCall,
    ) -> Result<BoxFuture<'static, ToolOutcome>, GatewayCall> {
        let GatewayCall::CodeInterpreter(call) = call else {
            return Err(call);
        };
        let asked = call.container.id().to_owned();
        let origin = context.origin.clone();
        let answer = self.calls.send(self.execute(context, call));
        // No deadline here: the actor bounds the wait in its queue and the call itself.
        let outcome = answer.map(move |answer| {
            let outcome = match answer {
                Ok(Ok(executed)) => of_executed(executed, &asked),
                Ok(Err(error)) => of_error(&error),
                Err(_gone) => of_error(&ExecuteError::Unavailable("it has stopped".to_owned())),
            };
            if let Some(failure) = &outcome.failure {
                // Our own words: what the code printed or raised is no failure.
                log::info!(request_id = &*origin.request_id, response_id = &*origin.response_id;
                    "a call of the code interpreter failed: {failure}");
            }
            ToolOutcome::CodeInterpreter(outcome)
        });
        Ok(outcome.boxed())
    }

    fn release(&self, owner: &Owner, container: &str) {
        self.releases.do_send(Release {
            owner: owner.clone(),
            container_id: container.to_owned(),
        });
    }
}

impl CodeInterpreter {
    fn execute(&self, context: CallContext, call: CodeCall) -> Execute {
        use code_interpreter::Container as Asked;
        let id = call.container.id().to_owned();
        Execute {
            owner: context.owner,
            container: match call.container {
                Asked::Named(_) => Container::Named(id),
                Asked::Continued(_) | Asked::Fresh(_) => Container::Shared(id),
            },
            code: call.code.into(),
            limits: self.limits,
            cancel: context.cancel,
        }
    }
}

/// A tool that should be there and is not: requests for it are refused with this sentence.
#[derive(Clone, Debug)]
pub struct MissingCodeInterpreter(pub Box<str>);

impl Tool for MissingCodeInterpreter {
    fn offer(&self, offers: &mut Offers) {
        offers.code_interpreter = Availability::Missing(self.0.clone());
    }

    fn run(
        &self,
        _: CallContext,
        call: GatewayCall,
    ) -> Result<BoxFuture<'static, ToolOutcome>, GatewayCall> {
        Err(call)
    }
}

fn of_executed(executed: Executed, asked: &str) -> CodeOutcome {
    let mut outcome = CodeOutcome {
        container_id: (executed.container_id != asked).then(|| executed.container_id.into()),
        logs: executed.logs,
        images: executed
            .images
            .into_iter()
            .map(|png| format!("data:image/png;base64,{png}").into())
            .collect(),
        failure: None,
    };
    if executed.truncated {
        append(
            &mut outcome.logs,
            "[some output was too much and was dropped]",
        );
    }
    match executed.error {
        // Code that raised has run: the traceback is its output.
        Some(error) if !error.is_state_lost() => append(&mut outcome.logs, &error.to_string()),
        Some(error) => outcome.failure = Some(error.to_string().into()),
        None => {}
    }
    outcome
}

fn of_error(error: &ExecuteError) -> CodeOutcome {
    CodeOutcome {
        failure: Some(error.to_string().into()),
        ..CodeOutcome::default()
    }
}

fn append(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}
