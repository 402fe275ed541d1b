//! HTTP to one MCP server: redirects under the guard, credentials for one origin, bounded bodies.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::Stream;
use http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use vllm_responses_protocol::trace::{TRACEPARENT, TRACESTATE};

use super::connect::Connector;
use super::events::{self, Answering};
use super::intake::Intake;
use super::pace::Pace;
use super::{MAX_MESSAGE, Progress, Trouble};
use crate::mcp::guard::{CallerHeaders, Destination, Guard};

/// Most redirects that are followed.
const MAX_HOPS: usize = 3;
/// Idle connections are kept for the next call of a conversation.
const IDLE: std::time::Duration = std::time::Duration::from_secs(30);
/// Longest words of a refusal that are read.
const MAX_WORDS: usize = 64 * 1024;
const AGENT: &str = concat!("vllm-responses/", env!("CARGO_PKG_VERSION"));

/// The HTTP side of one session. Clones share connections.
#[derive(Clone, Debug)]
pub(in crate::mcp) struct Http {
    client: Client<Connector, Full<Bytes>>,
    guard: Arc<Guard>,
    progress: Progress,
    /// Where credentials may go.
    home: Arc<Destination>,
    credentials: Arc<CallerHeaders>,
    intake: Intake,
    /// The streams of events so far, and when the last one began.
    pace: watch::Sender<(Pace, Option<Instant>)>,
}

impl Http {
    pub(in crate::mcp) fn new(
        connector: Connector,
        home: Destination,
        credentials: CallerHeaders,
    ) -> Self {
        let (guard, progress) = (Arc::clone(&connector.guard), connector.progress.clone());
        let intake = connector.dialer.intake().clone();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(4)
            .build(connector);
        Self {
            client,
            guard,
            progress,
            home: Arc::new(home),
            credentials: Arc::new(credentials),
            intake,
            pace: watch::Sender::new((Pace::default(), None)),
        }
    }

    /// Where this session began.
    pub(in crate::mcp) fn home(&self) -> &Destination {
        &self.home
    }

    /// Judges a URL that the server gave.
    pub(in crate::mcp) fn vet_location(&self, location: &str) -> Result<Destination, Trouble> {
        let judged = self.guard.vet_location(&self.home.url, location);
        judged.map_err(|_refused| self.progress.trouble(Trouble::Refused))
    }

    pub(in crate::mcp) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Sends a request and follows redirects that keep its method: 307 and 308, and for GET all.
    pub(in crate::mcp) async fn send(
        &self,
        method: Method,
        to: &Destination,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Trouble> {
        let mut to = to.clone();
        for _ in 0..=MAX_HOPS {
            let request = self.request(&method, &to, &headers, body.clone())?;
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| self.progress.trouble(classify(&error)))?;
            let follows = match answer.status() {
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
                StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
                    method == Method::GET
                }
                _ => return Ok(answer),
            };
            let location = answer.headers().get(LOCATION);
            let Some(location) = location
                .and_then(|value| value.to_str().ok())
                .filter(|_| follows)
            else {
                return Err(self
                    .progress
                    .trouble(Trouble::Status(answer.status().as_u16())));
            };
            let next = self.guard.vet_location(&to.url, location);
            to = next.map_err(|_refused| self.progress.trouble(Trouble::Refused))?;
        }
        Err(self
            .progress
            .trouble(Trouble::Status(StatusCode::LOOP_DETECTED.as_u16())))
    }

    fn request(
        &self,
        method: &Method,
        to: &Destination,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(to.url.as_str())
            .body(Full::new(body))
            .map_err(|_bad| self.progress.trouble(Trouble::Refused))?;
        let target = request.headers_mut();
        target.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in headers {
            // A session id is a credential too.
            if name != "mcp-session-id" || to.same_origin(&self.home) {
                target.insert(name.clone(), value.clone());
            }
        }
        if to.same_origin(&self.home) {
            for (name, value) in self.credentials.iter() {
                target.insert(name.clone(), value.clone());
            }
        }
        Ok(request)
    }

    /// Counts and reads what arrives.
    pub(in crate::mcp) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Waits until another stream of events may be opened; `false` when none may be any more.
    pub(in crate::mcp) async fn may_listen(&self) -> bool {
        let mut wait = None;
        self.pace.send_modify(|(pace, began)| {
            let now = Instant::now();
            wait = pace.next(began.map(|began| now.saturating_duration_since(began)));
            *began = wait.map(|wait| now + wait).or(*began);
        });
        let Some(wait) = wait else {
            return false;
        };
        sleep(wait).await;
        true
    }

    /// The beginning of a body: the words of a refusal.
    pub(in crate::mcp) async fn words(&self, mut body: Incoming) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(more) = frame.into_data() {
                bytes.extend_from_slice(&more);
            }
            if bytes.len() > MAX_WORDS {
                bytes.truncate(MAX_WORDS);
                break;
            }
        }
        bytes
    }

    /// A body; of one of more than [`MAX_MESSAGE`] bytes about as much as that.
    pub(in crate::mcp) async fn body(&self, mut body: Incoming) -> Result<Body, Trouble> {
        let mut bytes = Vec::new();
        let mut arriving = self.intake.arriving();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_broken| self.progress.trouble(Trouble::Broken))?;
            if let Ok(more) = frame.into_data() {
                bytes.extend_from_slice(&more);
            }
            let fits = arriving.reaches(bytes.len());
            fits.map_err(|trouble| self.progress.trouble(trouble))?;
            if bytes.len() > MAX_MESSAGE {
                return Ok(Body::Beginning(bytes));
            }
        }
        Ok(Body::Whole(bytes))
    }

    /// A body of events as they come.
    pub(in crate::mcp) fn events(
        &self,
        body: Incoming,
        answering: Answering,
    ) -> impl Stream<Item = Result<Bytes, Trouble>> + Send + use<> {
        let arriving = self.intake.arriving();
        events::events(body, answering, self.progress.clone(), arriving)
    }
}

/// What was read of a body.
#[derive(Debug)]
pub(in crate::mcp) enum Body {
    /// All.
    Whole(Vec<u8>),
    /// The beginning: it is too large.
    Beginning(Vec<u8>),
}

/// A call's place in a trace, from the message to the headers, where proxies and servers look for it.
pub(super) fn lift_trace(message: &ClientJsonRpcMessage, headers: &mut HeaderMap) {
    let ClientJsonRpcMessage::Request(request) = message else {
        return;
    };
    let ClientRequest::CallToolRequest(call) = &request.request else {
        return;
    };
    let Some(meta) = &call.params.meta else {
        return;
    };
    let pairs = [
        (TRACEPARENT, meta.get_traceparent()),
        (TRACESTATE, meta.get_tracestate()),
    ];
    for (name, value) in pairs {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// What the connector said is inside the client's error.
fn classify(error: &(dyn Error + 'static)) -> Trouble {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(trouble) = error.downcast_ref::<Trouble>() {
            return *trouble;
        }
        at = error.source();
    }
    Trouble::Broken
}
