//! Requests to the model server, with the gateway's own key.

use std::time::Duration;

use vllm_responses_protocol::trace::{TRACEPARENT, TRACESTATE, TraceContext};

use super::settings::UpstreamSettings;
use crate::http1::{Client, Payload, Request};
use crate::origin::Hops;
use crate::redact::Secrets;

impl UpstreamSettings {
    /// A client for this thread.
    pub fn client(&self) -> Client {
        self.client_within(self.deadlines.connect)
    }

    /// A client for this thread with another limit for connecting. Where the upstream is a vLLM of our
    /// own, a connection that was not made to it is none.
    pub(super) fn client_within(&self, connect: Duration) -> Client {
        let client = Client::new(&self.base_url, connect);
        match self.vouch.clone() {
            Some(vouch) => client.checked(move |address| vouch.confirms(address)),
            None => client,
        }
    }

    /// `GET` of an endpoint, `path` beginning with a slash.
    pub fn get(&self, path: &str) -> Request {
        self.authorize(Request::get(format!("{}{path}", self.root())))
    }

    /// `POST` to an endpoint, `path` beginning with a slash.
    pub fn post(&self, path: &str, body: impl Into<Payload>) -> Request {
        self.authorize(Request::post(format!("{}{path}", self.root()), body))
    }

    /// `POST` to one of vLLM's own endpoints, which stand beside `/v1`.
    pub(crate) fn post_beside(&self, path: &str, body: impl Into<Payload>) -> Request {
        let root = self.root();
        let root = root.strip_suffix("/v1").unwrap_or(root);
        self.authorize(Request::post(format!("{root}{path}"), body))
    }

    fn root(&self) -> &str {
        self.base_url.path().trim_end_matches('/')
    }

    fn authorize(&self, request: Request) -> Request {
        match &self.api_key {
            Some(key) => request.header("authorization", format!("Bearer {}", key.expose())),
            None => request,
        }
    }

    /// What an answer of this server may not show anybody.
    pub fn secrets(&self) -> Secrets {
        Secrets::of(self.api_key.as_ref())
    }
}

/// Tells the server how many gateways the request has passed: `hops`, and this one.
pub fn after(request: Request, hops: Hops) -> Request {
    request.header(Hops::HEADER, hops.and_this().number().to_string())
}

/// Tells the server where its work stands in a trace; the only thing of a client's headers that goes on.
pub fn in_trace(request: Request, context: Option<&TraceContext>) -> Request {
    let Some(context) = context else {
        return request;
    };
    let request = request.header(TRACEPARENT, context.parent());
    match context.state() {
        "" => request,
        state => request.header(TRACESTATE, state),
    }
}
