//! Streamable HTTP for the MCP SDK, on our connections.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};
use vllm_responses_protocol::mcp::salvage::salvage;

use super::Trouble;
use super::events::Answering;
use super::http::{Body, Http, lift_trace};
use crate::mcp::guard::Destination;

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

type Failure = StreamableHttpError<Trouble>;

impl Http {
    fn refuse(&self, trouble: Trouble) -> Failure {
        StreamableHttpError::Client(self.progress().trouble(trouble))
    }

    /// The SDK's own headers (protocol version and the like) and the session.
    fn protocol_headers(
        session: Option<&Arc<str>>,
        own: HashMap<HeaderName, HeaderValue>,
    ) -> Result<HeaderMap, Failure> {
        let mut headers: HeaderMap = own.into_iter().collect();
        headers.insert(ACCEPT, BOTH);
        if let Some(session) = session {
            let value = HeaderValue::from_str(session).map_err(|_bad| {
                StreamableHttpError::UnexpectedServerResponse(Cow::from("unusable session id"))
            })?;
            headers.insert(SESSION, value);
        }
        Ok(headers)
    }

    fn events_of(
        &self,
        answer: Response<Incoming>,
        answering: Answering,
    ) -> BoxStream<'static, Result<Sse, SseError>> {
        let events = self.events(answer.into_body(), answering);
        SseStream::from_bytes_stream(Box::pin(events)).boxed()
    }

    /// The one place the SDK may send to: the session's own URL.
    fn target(&self) -> Destination {
        self.home().clone()
    }

    async fn read_answer(
        &self,
        answer: Response<Incoming>,
        sent: &ClientJsonRpcMessage,
        session: Option<&Arc<str>>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let status = answer.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if status == StatusCode::NOT_FOUND && session.is_some() {
            return Err(StreamableHttpError::SessionExpired);
        }
        let session = answer
            .headers()
            .get(SESSION)
            .and_then(|value| value.to_str().ok())
            .filter(|id| id.len() <= 1024)
            .map(str::to_owned);
        let kind = content_type(&answer);
        if !status.is_success() {
            let trouble = Trouble::Status(status.as_u16());
            let is_login = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if is_login || !kind.starts_with(JSON) {
                return Err(self.refuse(trouble));
            }
            let body = self.whole(answer.into_body()).await;
            let body = body.map_err(|trouble| self.refuse(trouble))?;
            return match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
                Ok(message @ JsonRpcMessage::Error(_)) => {
                    Ok(StreamableHttpPostResponse::Json(message, session))
                }
                _ => Err(self.refuse(trouble)),
            };
        }
        if kind.starts_with(EVENTS) {
            return Ok(StreamableHttpPostResponse::Sse(
                self.events_of(answer, answering(sent)),
                session,
            ));
        }
        let body = self.body(answer.into_body()).await;
        let body = match body.map_err(|trouble| self.refuse(trouble))? {
            Body::Whole(body) => body,
            Body::Beginning(beginning) => {
                let kept = salvage(&beginning, request_id(sent).as_deref());
                kept.ok_or_else(|| self.refuse(Trouble::TooLarge))?.into()
            }
        };
        match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
            Ok(message) if kind.starts_with(JSON) => {
                Ok(StreamableHttpPostResponse::Json(message, session))
            }
            _ if !matches!(sent, ClientJsonRpcMessage::Request(_)) => {
                Ok(StreamableHttpPostResponse::Accepted)
            }
            _ => Err(self.refuse(Trouble::NotMcp)),
        }
    }
}

impl StreamableHttpClient for Http {
    type Error = Trouble;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _token: Option<String>,
        own: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let mut headers = Self::protocol_headers(session.as_ref(), own)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        lift_trace(&message, &mut headers);
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let answer = self.send(Method::POST, &self.target(), headers, body).await;
        let answer = answer.map_err(StreamableHttpError::Client)?;
        self.read_answer(answer, &message, session.as_ref()).await
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session: Arc<str>,
        _token: Option<String>,
        own: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        let headers = Self::protocol_headers(Some(&session), own)?;
        let target = self.target();
        // Not every server lets sessions be ended; it is a courtesy.
        drop(
            self.send(Method::DELETE, &target, headers, Bytes::new())
                .await,
        );
        Ok(())
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _token: Option<String>,
        own: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let mut headers = Self::protocol_headers(session.as_ref(), own)?;
        headers.insert(ACCEPT, HeaderValue::from_static(EVENTS));
        if let Some(id) = last_event.and_then(|id| HeaderValue::from_str(&id).ok()) {
            headers.insert(LAST_EVENT, id);
        }
        let answer = self
            .send(Method::GET, &self.target(), headers, Bytes::new())
            .await;
        let answer = answer.map_err(StreamableHttpError::Client)?;
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportSse),
            StatusCode::NOT_FOUND if session.is_some() => Err(StreamableHttpError::SessionExpired),
            status if !status.is_success() => Err(self.refuse(Trouble::Status(status.as_u16()))),
            _ if content_type(&answer).starts_with(EVENTS) => {
                Ok(self.events_of(answer, Answering::Everything))
            }
            _ => Err(StreamableHttpError::UnexpectedContentType(None)),
        }
    }
}

/// The id of a request, as JSON.
fn request_id(sent: &ClientJsonRpcMessage) -> Option<String> {
    let JsonRpcMessage::Request(request) = sent else {
        return None;
    };
    serde_json::to_string(&request.id).ok()
}

fn answering(sent: &ClientJsonRpcMessage) -> Answering {
    request_id(sent).map_or(Answering::Everything, Answering::Request)
}

fn content_type(answer: &Response<Incoming>) -> String {
    let value = answer.headers().get(CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_ascii_lowercase()
}
