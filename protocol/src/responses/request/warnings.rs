//! What of a request is ignored: refused under strict rules, else one line each for the log, bounded
//! whatever the request has.

use std::collections::BTreeMap;

use super::Rules;
use crate::error::ApiErrorCode;
use crate::json::{Fields, Place, Problems};
use crate::responses::tool::Tool;

/// Tools that the model is not shown: of the request, and those that items bring.
#[derive(Default)]
pub(super) struct Unserved {
    /// How many there are of each type, and where the first is.
    kinds: BTreeMap<String, (usize, String)>,
    /// How many there are of further types.
    others: usize,
}

impl Unserved {
    pub(super) fn note(
        &mut self,
        tools: &[Tool],
        list: &Place<'_>,
        rules: &Rules,
        problems: &mut Problems,
    ) {
        /// More types than this say nothing more.
        const MAX_KINDS: usize = 16;
        for (index, tool) in tools.iter().enumerate() {
            let Tool::Unserved(tool) = tool else {
                continue;
            };
            if rules.strict_tools {
                let place = list.element(index);
                problems.add(
                    &place,
                    ApiErrorCode::UnsupportedValue,
                    format_args!("`{place}` has a type that this server does not offer"),
                );
                continue;
            }
            let kind = crate::json::problems::shown(&tool.kind);
            if let Some((count, _)) = self.kinds.get_mut(kind) {
                *count += 1;
            } else if self.kinds.len() < MAX_KINDS {
                self.kinds.insert(kind.to_owned(), (1, list.to_string()));
            } else {
                self.others += 1;
            }
        }
    }

    /// A line for each type, whatever the number of tools.
    pub(super) fn warnings(self) -> Vec<String> {
        let lines = self.kinds.into_iter().map(|(kind, (count, first))| {
            let times = if count > 1 {
                format!(", nor are {} more of its type", count - 1)
            } else {
                String::new()
            };
            format!("tool `{kind}` of `{first}` is not shown to the model{times}")
        });
        let others = format!(
            "{} tools of further types are not shown to the model",
            self.others
        );
        lines.chain((self.others > 0).then_some(others)).collect()
    }
}

pub(super) fn report_unknown(
    fields: &Fields<'_, '_>,
    rules: &Rules,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) {
    /// More names than this say nothing more.
    const MAX_NAMED: usize = 16;
    for name in fields.unknown().take(MAX_NAMED) {
        if rules.strict_requests {
            problems.add(
                &Place::Root.member(name),
                ApiErrorCode::UnknownParameter,
                format_args!("`{name}` is not a parameter of this endpoint"),
            );
        } else {
            warnings.push(format!("parameter `{name}` is unknown and ignored"));
        }
    }
}
