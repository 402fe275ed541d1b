//! Tracing: spans of a request, and where they go.
//!
//! A [`Span`] is one piece of work, a [`Scope`] the place below which further work hangs; both do
//! nothing but hand the client's own context on while tracing is off. What a span may say is the list
//! [`Fact`]: nothing else can get into one, so no prompt, header or secret does. `export` sends.

mod export;

use std::fmt;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use vllm_responses_protocol::trace::TraceContext;

pub use export::{Exporter, TracingSettings, start};

/// Longest text of a fact, in bytes: a span is bounded.
const MAX_TEXT: usize = 128;

/// Whose side of a call a span is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We answer a client.
    Server,
    /// We ask another server.
    Client,
    /// Our own work.
    Internal,
}

/// Everything that a span can say, beside its name, its times and a failure's fixed words.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// Method of the request.
    Method(&'a str),
    /// Pattern of the path, without values.
    Route(&'a str),
    /// HTTP status of the answer.
    HttpStatus(u16),
    /// Id of the request, as in the log.
    RequestId(&'a str),
    /// Id of the response, as in the log.
    ResponseId(&'a str),
    /// How the response ended: `completed` and the like.
    Ended(&'a str),
    /// Model, known to the upstream by this name.
    Model(&'a str),
    /// Which attempt of a call it is; the first is 0.
    Attempt(u32),
    /// Kind of a tool.
    Tool(&'static str),
    /// Label of one of the operator's MCP servers.
    Server(&'a str),
    /// Tokens of the prompts, summed.
    InputTokens(u64),
    /// Tokens that the model wrote, summed.
    OutputTokens(u64),
}

impl Fact<'_> {
    fn pair(self) -> KeyValue {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match self {
            Self::Method(method) => KeyValue::new("http.request.method", cut(method)),
            Self::Route(route) => KeyValue::new("http.route", cut(route)),
            Self::HttpStatus(status) => {
                KeyValue::new("http.response.status_code", i64::from(status))
            }
            Self::RequestId(id) => KeyValue::new("vllm_responses.request_id", cut(id)),
            Self::ResponseId(id) => KeyValue::new("gen_ai.response.id", cut(id)),
            Self::Ended(status) => KeyValue::new("vllm_responses.status", cut(status)),
            Self::Model(model) => KeyValue::new("gen_ai.request.model", cut(model)),
            Self::Attempt(attempt) => {
                KeyValue::new("http.request.resend_count", i64::from(attempt))
            }
            Self::Tool(kind) => KeyValue::new("gen_ai.tool.name", kind),
            Self::Server(label) => KeyValue::new("vllm_responses.mcp_server", cut(label)),
            Self::InputTokens(count) => KeyValue::new("gen_ai.usage.input_tokens", number(count)),
            Self::OutputTokens(count) => KeyValue::new("gen_ai.usage.output_tokens", number(count)),
        }
    }
}

/// The beginning of a text, at most [`MAX_TEXT`] bytes of whole characters.
fn cut(text: &str) -> String {
    text.char_indices()
        .take_while(|(at, letter)| at + letter.len_utf8() <= MAX_TEXT)
        .map(|(_, letter)| letter)
        .collect()
}

/// A place in a trace, below which work hangs. Cheap to clone; the default is nowhere.
#[derive(Clone, Default)]
pub struct Scope {
    /// `None` while tracing is off.
    tracer: Option<SdkTracer>,
    at: Option<TraceContext>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scope").field(&self.at).finish()
    }
}

impl Scope {
    /// The same tracer, below what a client sent.
    #[must_use]
    pub fn below(&self, incoming: Option<TraceContext>) -> Self {
        Self {
            tracer: self.tracer.clone(),
            at: incoming,
        }
    }

    /// What is to be sent to whoever works for us.
    pub fn context(&self) -> Option<&TraceContext> {
        self.at.as_ref()
    }

    /// Whether spans are made here at all; without, there is no use in preparing their names.
    pub fn is_on(&self) -> bool {
        self.tracer.is_some()
    }

    /// Begins a piece of work here.
    pub fn span(&self, side: Side, name: impl Into<std::borrow::Cow<'static, str>>) -> Span {
        let Some(tracer) = &self.tracer else {
            return Span {
                scope: self.clone(),
                span: None,
            };
        };
        let parent = match &self.at {
            Some(at) => Context::new().with_remote_span_context(remote(at)),
            None => Context::new(),
        };
        let kind = match side {
            Side::Server => SpanKind::Server,
            Side::Client => SpanKind::Client,
            Side::Internal => SpanKind::Internal,
        };
        let span = tracer
            .span_builder(name)
            .with_kind(kind)
            .start_with_context(tracer, &parent);
        let scope = self.below(context(span.span_context()));
        Span {
            scope,
            span: Some(Box::new(span)),
        }
    }
}

fn remote(at: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(at.trace_id.to_be_bytes()),
        SpanId::from_bytes(at.span_id.to_be_bytes()),
        TraceFlags::new(at.flags),
        true,
        at.state().parse::<TraceState>().unwrap_or_default(),
    )
}

fn context(of: &SpanContext) -> Option<TraceContext> {
    TraceContext::new(
        u128::from_be_bytes(of.trace_id().to_bytes()),
        u64::from_be_bytes(of.span_id().to_bytes()),
        of.trace_flags().to_u8(),
        &of.trace_state().header(),
    )
}

/// A piece of work; it ends when it is dropped.
#[derive(Default)]
pub struct Span {
    scope: Scope,
    /// `None` while tracing is off.
    span: Option<Box<SdkSpan>>,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.scope.at).finish()
    }
}

impl Span {
    /// The place of what is part of this work.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Says something of the work.
    pub fn note(&mut self, fact: Fact<'_>) {
        if let Some(span) = self.span.as_mut().filter(|span| span.is_recording()) {
            span.set_attribute(fact.pair());
        }
    }

    /// The work failed; `why` is ours, never anybody's text.
    pub fn fail(&mut self, why: &'static str) {
        if let Some(span) = &mut self.span {
            span.set_status(Status::error(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_off_the_clients_context_goes_on_unchanged() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let incoming = TraceContext::parse(parent, "a=1");
        let mut span = Scope::default()
            .below(incoming.clone())
            .span(Side::Server, "x");
        span.note(Fact::Attempt(1));
        let inner = span.scope().span(Side::Client, "y");
        assert_eq!(inner.scope().context(), incoming.as_ref());
        assert_eq!(
            Scope::default().span(Side::Server, "x").scope().context(),
            None
        );
    }

    #[test]
    fn texts_are_cut_at_whole_characters() {
        assert_eq!(cut(&"é".repeat(100)), "é".repeat(64));
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&format!("a{}", "é".repeat(100))).len(), 127);
    }
}
