//! Tools inherited from the response that is continued (`VR_INHERIT_TOOLS`, decision 1).
//!
//! Off, as in the live API, a request without `tools` has none. On, it has those of the previous
//! response, and its choice among them unless that one forced a call. An explicit null, or any list,
//! is the request's own. The echo shows what was applied.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::tool::{self, AllowedMode, Known, MayGrow, ToolChoice};
use super::CreateRequest;
use crate::error::{ApiError, ApiErrorCode};
use crate::json::{Fields, Place, Problems, read};

/// What a request that continues a response and does not mention tools has; configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OmittedTools {
    /// None.
    #[default]
    None,
    /// Those of the response that it continues.
    Inherited,
}

/// Whose tools a request has.
#[derive(Clone, Debug)]
pub enum ToolsFrom {
    /// Its own.
    Request,
    /// Those of the response that it continues, once they are known.
    Previous {
        /// Its `tool_choice` as it came: only then can be checked what it names.
        choice: Option<Box<RawValue>>,
    },
}

impl ToolsFrom {
    /// Whose tools the request with these members has.
    pub(super) fn of(fields: &Fields<'_, '_>, rule: OmittedTools) -> Self {
        let omitted = !fields.has("tools") && fields.given("previous_response_id");
        if rule == OmittedTools::Inherited && omitted {
            Self::Previous { choice: None }
        } else {
            Self::Request
        }
    }
}

/// The members of stored settings that are inherited.
#[derive(Deserialize)]
struct StoredChoice<'a> {
    #[serde(borrow)]
    tools: &'a RawValue,
    #[serde(borrow)]
    tool_choice: &'a RawValue,
}

impl CreateRequest {
    /// Whether the settings of the previous response are needed.
    pub fn inherits_tools(&self) -> bool {
        matches!(self.tools_from, ToolsFrom::Previous { .. })
    }

    /// Takes over the tools of the previous response, whose settings these are.
    ///
    /// # Errors
    /// When the request's `tool_choice` names what is not among them, or the settings are damaged.
    pub fn inherit_tools(&mut self, settings: &str) -> Result<(), ApiError> {
        let ToolsFrom::Previous { choice } = &self.tools_from else {
            return Ok(());
        };
        let stored: StoredChoice<'_> =
            serde_json::from_str(settings).map_err(|_error| damaged())?;
        let mut damage = Problems::default();
        let place = Place::Root.member("tools");
        let elements = read::elements(stored.tools, &place, &mut damage).unwrap_or_default();
        let tools = tool::decode_tools(&elements, &place, &mut damage);
        let place = Place::Root.member("tool_choice");
        let mut problems = Problems::default();
        let known = Known {
            tools: &tools,
            may_grow: MayGrow::No,
        };
        let choice = match choice {
            Some(own) => tool::decode_choice(own, known, &place, &mut problems),
            None => tool::decode_choice(stored.tool_choice, known, &place, &mut damage)
                .filter(|choice| !is_forced(choice)),
        };
        if !damage.is_empty() {
            return Err(damaged());
        }
        if let Some(error) = problems.into_error() {
            return Err(error);
        }
        tool::refuse_unkept(&tools)?;
        self.settings.tools = tools;
        self.settings.tool_choice = choice;
        Ok(())
    }
}

/// Whether the model has to call a tool: inherited, that would never end.
fn is_forced(choice: &ToolChoice) -> bool {
    match choice {
        ToolChoice::None | ToolChoice::Auto => false,
        ToolChoice::Allowed { mode, .. } => *mode == AllowedMode::Required,
        ToolChoice::Required
        | ToolChoice::Function { .. }
        | ToolChoice::Custom { .. }
        | ToolChoice::Mcp { .. }
        | ToolChoice::OfType { .. } => true,
    }
}

fn damaged() -> ApiError {
    ApiError::new(
        ApiErrorCode::ServerError,
        "the stored tools of the response in `previous_response_id` cannot be read",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::OmittedTools::Inherited;
    use super::*;
    use crate::ids::CountingIds;

    const TOOLS: &str = r#"[{"type":"function","name":"f","description":null,"parameters":null,"strict":null},{"type":"image_generation","n":1}]"#;
    const CONTINUES: &str = r#","previous_response_id":"r""#;

    fn decode(members: &str, rule: OmittedTools) -> Result<CreateRequest, ApiError> {
        let rules = Rules {
            omitted_tools: rule,
            ..Rules::default()
        };
        let body = format!(r#"{{"model":"m","input":"x"{members}}}"#);
        CreateRequest::decode(body.as_bytes(), &rules, &mut CountingIds::default())
    }

    /// The tools and the choice that the echo shows.
    fn echoed(members: &str, stored_choice: &str) -> Result<(String, String), ApiError> {
        let mut request = decode(members, Inherited)?;
        request.inherit_tools(&format!(
            r#"{{"tools":{TOOLS},"tool_choice":{stored_choice}}}"#
        ))?;
        let echo = request.settings.echo();
        let echo: StoredChoice<'_> = serde_json::from_str(&echo).unwrap();
        Ok((
            echo.tools.get().to_owned(),
            echo.tool_choice.get().to_owned(),
        ))
    }

    #[test]
    fn only_omitted_tools_are_inherited_and_only_when_switched_on() {
        let own = format!(r#"{CONTINUES},"tools":[]"#);
        let null = format!(r#"{CONTINUES},"tools":null"#);
        for (members, rule, expected) in [
            (CONTINUES, Inherited, true),
            (CONTINUES, OmittedTools::None, false),
            (&own, Inherited, false),
            (&null, Inherited, false),
            ("", Inherited, false),
        ] {
            let request = decode(members, rule).unwrap();
            assert_eq!(request.inherits_tools(), expected, "{members} {rule:?}");
        }
        assert_eq!(echoed(CONTINUES, r#""auto""#).unwrap().0, TOOLS);
        assert_eq!(echoed(&own, r#""auto""#).unwrap().0, "[]");
    }

    #[test]
    fn a_forced_choice_is_never_inherited() {
        let allowed = |mode: &str| {
            let tools = r#"[{"type":"function","name":"f"}]"#;
            format!(r#"{{"type":"allowed_tools","mode":"{mode}","tools":{tools}}}"#)
        };
        for (stored, expected) in [
            (r#""auto""#, r#""auto""#),
            (r#""none""#, r#""none""#),
            (r#""required""#, r#""auto""#),
            (r#"{"type":"function","name":"f"}"#, r#""auto""#),
            (r#"{"type":"image_generation"}"#, r#""auto""#),
            (&allowed("auto"), &allowed("auto")),
            (&allowed("required"), r#""auto""#),
        ] {
            let (_, choice) = echoed(CONTINUES, stored).unwrap();
            assert_eq!(choice, expected, "{stored}");
        }
    }

    #[test]
    fn the_requests_own_choice_is_checked_against_what_it_inherits() {
        let with = |choice: &str| format!(r#"{CONTINUES},"tool_choice":{choice}"#);
        let forced = r#"{"type":"function","name":"f"}"#;
        assert_eq!(echoed(&with(forced), r#""none""#).unwrap().1, forced);
        let error = echoed(&with(r#"{"type":"function","name":"g"}"#), r#""auto""#).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("tool_choice"));
    }

    #[test]
    fn damaged_settings_are_no_fault_of_the_client() {
        for settings in [
            "",
            "[]",
            r#"{"tools":1,"tool_choice":"auto"}"#,
            r#"{"tools":[{}]}"#,
        ] {
            let mut request = decode(CONTINUES, Inherited).unwrap();
            let error = request.inherit_tools(settings).unwrap_err();
            assert_eq!(error.code, ApiErrorCode::ServerError, "{settings}");
        }
    }
}
