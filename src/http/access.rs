//! One line of the log for each request, once its answer is whole or given up: who asked for what, how
//! it went, what it cost. Never what was said.

use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpMessage as _;
use actix_web::dev::ServiceResponse;
use log::kv::Value;
use log::{Level, Record};
use vllm_responses_actors::turn::Spent;
use vllm_responses_protocol::ids::{MAX_ID_LEN, Prefix};

use super::context::Caller;
use crate::logging::ACCESS;

/// Longest model name that is repeated, in letters: clients may invent some.
const LONGEST_MODEL: usize = 100;

/// Route label of paths that do not exist; theirs are the clients' own.
pub(super) const UNKNOWN: &str = "unknown";
/// Status of a request whose client left before the head of its answer, as nginx has it.
const LEFT: u16 = 499;

/// What a handler knows of its request; left in the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    model: Box<str>,
    response_id: Box<str>,
    /// What the call is named to the model server, where that does not follow from the response's id.
    upstream_id: Box<str>,
    spent: Arc<Spent>,
}

impl Noted {
    /// A blank in a client's word would end it, and what follows would read as fields of ours.
    pub(super) fn new(model: &str, response_id: &str, spent: Arc<Spent>) -> Self {
        let blankless = |letter: char| if letter.is_whitespace() { '_' } else { letter };
        Self {
            model: model.chars().take(LONGEST_MODEL).map(blankless).collect(),
            response_id: response_id.into(),
            upstream_id: Box::default(),
            spent,
        }
    }

    /// A call of the model server that makes no response.
    pub(super) fn call(upstream_id: &str) -> Self {
        Self {
            upstream_id: upstream_id.into(),
            ..Self::new("", "", Arc::default())
        }
    }
}

/// One request, told when it is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    level: Level,
    began: Instant,
    method: &'static str,
    route: Box<str>,
    status: u16,
    caller: Option<Caller>,
    /// Of a request that was denied, and so has no caller; its answer bears it.
    request_id: Box<str>,
    noted: Option<Noted>,
    /// Whether all of the answer was made, and of a stream taken.
    pub(super) is_whole: bool,
}

impl Visit {
    /// A request that has no answer yet; `None` where nobody would see its line.
    pub(super) fn begin((method, route): (&'static str, &str), began: Instant) -> Option<Self> {
        let is_api = route.starts_with("/v1") || route == UNKNOWN;
        let level = if is_api { Level::Info } else { Level::Debug };
        log::log_enabled!(target: ACCESS, level).then(|| Self {
            level,
            began,
            method,
            route: route.into(),
            status: LEFT,
            caller: None,
            request_id: Box::default(),
            noted: None,
            is_whole: false,
        })
    }

    /// The head of its answer is there.
    pub(super) fn answered<B>(&mut self, response: &ServiceResponse<B>) {
        let request = response.request();
        let extensions = request.extensions();
        let stored = || {
            let id = request.match_info().get("id")?;
            let is_ours = id.len() <= MAX_ID_LEN
                && id.starts_with(Prefix::Response.as_str())
                && id.bytes().all(|byte| byte.is_ascii_graphic());
            is_ours.then(|| Noted::new("", id, Arc::default()))
        };
        self.status = response.status().as_u16();
        self.caller = extensions.get::<Caller>().cloned();
        if self.caller.is_none()
            && let Some(id) = response.headers().get("x-request-id")
        {
            self.request_id = id.to_str().unwrap_or_default().into();
        }
        self.noted = extensions.get::<Noted>().cloned().or_else(stored);
        self.is_whole = true;
    }

    /// No handler made an answer.
    pub(super) fn failed(&mut self, status: u16) {
        (self.status, self.is_whole) = (status, true);
    }
}

impl Visit {
    /// Who asked and what was made of it; what is not known is empty.
    fn words(&self) -> [(&'static str, &str); 6] {
        let caller = self.caller.as_ref();
        let noted = self.noted.as_ref();
        [
            ("key", caller.map_or("", |caller| caller.owner.as_str())),
            ("request_id", caller.map_or("", |caller| &caller.request_id)),
            ("request_id", &self.request_id),
            ("response_id", noted.map_or("", |noted| &noted.response_id)),
            ("upstream_id", noted.map_or("", |noted| &noted.upstream_id)),
            ("model", noted.map_or("", |noted| &noted.model)),
        ]
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut pairs = vec![
            ("method", Value::from(self.method)),
            ("route", Value::from(&*self.route)),
            ("status", Value::from(self.status)),
            ("ms", Value::from(millis)),
        ];
        let words = self.words();
        let words = words.iter().filter(|(_, text)| !text.is_empty());
        pairs.extend(words.map(|(name, text)| (*name, Value::from(*text))));
        if let Some(noted) = &self.noted {
            let (input, output) = noted.spent.tokens();
            if input > 0 || output > 0 {
                pairs.push(("input_tokens", Value::from(input)));
                pairs.push(("output_tokens", Value::from(output)));
            }
        }
        if !self.is_whole {
            pairs.push(("cut", Value::from(true)));
        }
        let pairs = pairs.as_slice();
        let mut record = Record::builder();
        record.level(self.level).target(ACCESS).key_values(&pairs);
        log::logger().log(&record.args(format_args!("request")).build());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_adds_no_fields() {
        let noted = Noted::new("a b\u{a0}key=root\n", "", Arc::default());
        assert_eq!(&*noted.model, "a_b_key=root_");
    }
}
