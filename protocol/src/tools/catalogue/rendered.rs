//! The functions as chat completions take them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::super::shown;
use super::{Catalogue, Entry, Shown};
use crate::chat::request::{ChatFunction, ChatTool};
use crate::translate::ChoiceMode;

impl Catalogue {
    /// The functions as chat completions take them; without the gateway's own in a last round.
    pub(crate) fn chat_tools(&self, choice: ChoiceMode) -> Vec<ChatTool<'_>> {
        let with_gateway = choice != ChoiceMode::WithoutGatewayTools;
        let any = choice != ChoiceMode::Summary;
        let shown = self.entries.iter().filter(|_| any);
        let shown = shown.filter(|entry| with_gateway || !entry.route.is_gateway());
        let first = self.first.as_deref();
        let first = first.filter(|_| choice == ChoiceMode::AsAsked);
        let shown = shown.filter(|entry| first.is_none_or(|label| self.is_of(entry, label)));
        let mut introduced = BTreeSet::new();
        shown
            .map(|entry| {
                let namespace = entry.own.namespace.as_deref();
                let first = namespace.is_some_and(|name| introduced.insert(name));
                let mut function = entry.chat_function();
                if first {
                    entry.introduce(&mut function);
                }
                ChatTool {
                    r#type: "function",
                    function,
                }
            })
            .collect()
    }
}

impl Entry {
    fn chat_function(&self) -> ChatFunction<'_> {
        match &self.shown {
            Shown::Function(function) => ChatFunction {
                name: &self.name,
                description: function.description.as_deref().map(Cow::Borrowed),
                parameters: function.parameters.as_deref(),
                strict: function.strict,
            },
            Shown::Gateway {
                description,
                parameters,
                strict,
            } => ChatFunction {
                name: &self.name,
                description: Some(Cow::Borrowed(description)),
                parameters: Some(parameters),
                strict: *strict,
            },
        }
    }

    /// Tells what the namespace is for, with the first function of it that the model is shown: chat
    /// completions have no other place for it, and each of its tools saying it would cost a prompt.
    fn introduce(&self, function: &mut ChatFunction<'_>) {
        let (Some(name), Some(about)) = (&self.own.namespace, &self.space) else {
            return;
        };
        if !about.trim().is_empty() {
            let own = function.description.as_deref();
            function.description = Some(Cow::Owned(shown::introduced(name, about, own)));
        }
    }
}
