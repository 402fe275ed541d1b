//! What gateway and service say to each other when the code interpreter is a service of its own. Pure.
//!
//! The gateway trusts a service no further than a worker: what comes back is held to what was asked
//! and to the gateway's own limits ([`vet`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vllm_responses_protocol::ids::Owner;

use super::frames::{FATAL_BYTES, cut, is_png};
use super::limits::{self, CallLimits};
use super::messages::{CallError, Container, ExecuteError, Executed, InterpreterStatus};

/// Changes when the two could misunderstand each other.
pub const PROTOCOL: u32 = 1;

/// Name of the service, of its token file.
pub const SERVICE: &str = "code-interpreter";

/// `GET`: a [`Report`].
pub const STATUS_PATH: &str = "/internal/interpreter/status";
/// `POST` an [`Order`]: an [`Answer`]. Whoever closes the connection gives the call up.
pub const EXECUTE_PATH: &str = "/internal/interpreter/execute";
/// `POST` a [`GivenBack`].
pub const RELEASE_PATH: &str = "/internal/interpreter/release";
/// `GET`, without a token: 200 while calls are taken.
pub const HEALTH_PATH: &str = "/health";

/// The largest body of an order: code with every character escaped, and what is around it.
pub const ORDER_BYTES: usize = 6 * limits::CODE_BYTES + 64 * 1024;
/// The largest report.
pub const REPORT_BYTES: usize = 64 * 1024;

/// Code to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// On whose behalf; a container is known to its owner only.
    pub owner: Owner,
    /// Where.
    pub container: Container,
    /// Python.
    pub code: String,
    /// What it may use; the service's own limits hold beside these.
    pub limits: WireLimits,
}

/// [`CallLimits`], on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireLimits {
    wall_ms: u64,
    output_bytes: usize,
    images: usize,
    image_bytes: usize,
}

impl From<CallLimits> for WireLimits {
    fn from(limits: CallLimits) -> Self {
        Self {
            wall_ms: u64::try_from(limits.wall.as_millis()).unwrap_or(u64::MAX),
            output_bytes: limits.output_bytes,
            images: limits.images,
            image_bytes: limits.image_bytes,
        }
    }
}

impl WireLimits {
    /// The tighter of each.
    pub fn within(self, own: CallLimits) -> CallLimits {
        CallLimits {
            wall: own.wall.min(Duration::from_millis(self.wall_ms)),
            output_bytes: own.output_bytes.min(self.output_bytes),
            images: own.images.min(self.images),
            image_bytes: own.image_bytes.min(self.image_bytes),
        }
    }
}

/// What came of an order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It ran.
    Ran(Executed),
    /// It did not.
    Refused(ExecuteError),
}

impl From<Result<Executed, ExecuteError>> for Answer {
    fn from(result: Result<Executed, ExecuteError>) -> Self {
        match result {
            Ok(executed) => Self::Ran(executed),
            Err(error) => Self::Refused(error),
        }
    }
}

/// A container that its response uses no more.
#[derive(Debug, Serialize, Deserialize)]
pub struct GivenBack {
    /// On whose behalf.
    pub owner: Owner,
    /// Which.
    pub container_id: String,
}

/// How the service is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`PROTOCOL`] of the service.
    pub protocol: u32,
    /// Of the service's program.
    pub version: String,
    /// The interpreters.
    pub status: InterpreterStatus,
}

/// The most bytes that an honest answer has at these limits: text with every character escaped,
/// pictures in base64.
pub fn most_answer_bytes(limits: &CallLimits) -> usize {
    let text = limits.output_bytes.saturating_add(limits::ERROR_BYTES);
    let picture = limits.image_bytes.saturating_mul(4) / 3 + 16;
    text.saturating_mul(6)
        .saturating_add(picture.saturating_mul(limits.images))
        .saturating_add(64 * 1024)
}

/// Drops what is more than these limits allow, and says that something was dropped.
pub fn trim(mut executed: Executed, limits: &CallLimits) -> Executed {
    let kept = cut(&executed.logs, limits.output_bytes).len();
    let largest = limits.image_bytes.div_ceil(3).saturating_mul(4);
    let before = (executed.logs.len(), executed.images.len());
    executed.logs.truncate(kept);
    executed.images.retain(|png| png.len() <= largest);
    executed.images.truncate(limits.images);
    executed.truncated |= before != (executed.logs.len(), executed.images.len());
    executed
}

/// What may be believed of an answer to a call in this container; `None` of one that no service of
/// ours gives.
pub fn vet(
    answer: Answer,
    container: &str,
    limits: &CallLimits,
) -> Option<Result<Executed, ExecuteError>> {
    let executed = match answer {
        Answer::Ran(executed) => executed,
        Answer::Refused(ExecuteError::Unavailable(reason)) => {
            let reason = shown(&reason);
            return Some(Err(ExecuteError::Unavailable(reason)));
        }
        Answer::Refused(error) => return Some(Err(error)),
    };
    let mut executed = trim(executed, limits);
    let is_sound = executed.container_id == container
        && executed
            .images
            .iter()
            .all(|png| is_png(png, limits.image_bytes));
    if let Some(CallError::Raised(text)) = &mut executed.error {
        let kept = cut(text, limits::ERROR_BYTES).len();
        text.truncate(kept);
    }
    is_sound.then_some(Ok(executed))
}

/// Words of the service for the status page and the model: short, and on one line.
pub fn shown(text: &str) -> String {
    let line = cut(text, FATAL_BYTES).chars();
    line.map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: CallLimits = CallLimits {
        wall: Duration::from_secs(30),
        output_bytes: 8,
        images: 2,
        image_bytes: 12,
    };
    /// The signature of a PNG and four bytes, in base64.
    const PNG: &str = "iVBORw0KGgoAAAAA";

    fn ran(logs: &str, images: &[&str]) -> Executed {
        Executed {
            container_id: "cntr_1".to_owned(),
            logs: logs.to_owned(),
            images: images.iter().map(|&image| image.to_owned()).collect(),
            error: None,
            truncated: false,
        }
    }

    fn vetted(executed: Executed) -> Option<Result<Executed, ExecuteError>> {
        vet(Answer::Ran(executed), "cntr_1", &LIMITS)
    }

    #[test]
    fn an_honest_answer_passes_unchanged() {
        let honest = ran("12345678", &[PNG, PNG]);
        assert_eq!(vetted(honest.clone()), Some(Ok(honest)));
    }

    #[test]
    fn too_much_is_dropped_and_said() {
        let Some(Ok(kept)) = vetted(ran("1234567é", &[PNG, PNG, PNG])) else {
            panic!("refused")
        };
        assert_eq!((kept.logs.as_str(), kept.images.len()), ("1234567", 2));
        assert!(kept.truncated);
        let large = format!("{PNG}AAAA");
        let Some(Ok(kept)) = vetted(ran("", &[&large, PNG])) else {
            panic!("refused")
        };
        assert_eq!(
            (kept.images.as_slice(), kept.truncated),
            (&[PNG.to_owned()][..], true)
        );
    }

    #[test]
    fn what_no_service_of_ours_says_is_not_believed() {
        assert_eq!(vetted(ran("", &["PHN2Zz4="])), None, "no PNG");
        assert_eq!(vetted(ran("", &["iVBORw0KGg\"<>&;A"])), None, "no base64");
        let foreign = Executed {
            container_id: "cntr_2".to_owned(),
            ..ran("", &[])
        };
        assert_eq!(vetted(foreign), None);
    }

    #[test]
    fn its_words_are_short_and_on_one_line() {
        let reason = "a\u{1b}[2J\n".repeat(1000);
        let refused = Answer::Refused(ExecuteError::Unavailable(reason));
        let Some(Err(ExecuteError::Unavailable(reason))) = vet(refused, "cntr_1", &LIMITS) else {
            panic!("not refused")
        };
        assert!(reason.len() <= FATAL_BYTES && !reason.contains(char::is_control));
        let raised = Executed {
            error: Some(CallError::Raised("é".repeat(limits::ERROR_BYTES))),
            ..ran("", &[])
        };
        let Some(Ok(Executed {
            error: Some(CallError::Raised(text)),
            ..
        })) = vetted(raised)
        else {
            panic!("refused")
        };
        assert_eq!(text.len(), limits::ERROR_BYTES);
    }

    #[test]
    fn the_tighter_limit_holds() {
        let asked = WireLimits::from(CallLimits {
            wall: Duration::from_secs(60),
            images: 1,
            ..LIMITS
        });
        let held = asked.within(LIMITS);
        assert_eq!((held.wall, held.images), (LIMITS.wall, 1));
    }

    #[test]
    fn messages_read_back() {
        let answers = [
            Answer::Ran(ran("a", &[PNG])),
            Answer::Ran(Executed {
                error: Some(CallError::TimedOut { seconds: 3 }),
                ..ran("", &[])
            }),
            Answer::Refused(ExecuteError::Busy),
            Answer::Refused(ExecuteError::Unavailable("why".to_owned())),
        ];
        for answer in answers {
            let text = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_within_the_limits_and_the_bytes_foreseen(
            logs in "\\PC{0,40}", images in proptest::collection::vec("[A-Za-z0-9+/]{0,24}", 0..5),
        ) {
            let mut executed = ran(&logs, &[]);
            executed.images = images;
            executed.images.push(PNG.to_owned());
            if let Some(Ok(kept)) = vetted(executed) {
                prop_assert!(kept.logs.len() <= 8 && logs.starts_with(&kept.logs));
                prop_assert!(kept.images.len() <= 2);
                let bytes = serde_json::to_string(&Answer::Ran(kept)).unwrap().len();
                prop_assert!(bytes <= most_answer_bytes(&LIMITS));
            }
        }
    }
}
