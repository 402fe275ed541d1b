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
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorCode, ErrorData, JsonRpcMessage, ServerJsonRpcMessage,
};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};
use vllm_responses_protocol::mcp::inbound::{Fault, fault, forgets_session};
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

/// What a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// A session, which the server may have forgotten.
    Session,
    Nothing,
}

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
        let asked = match &answering {
            Answering::Request(id) => Some(id.clone()),
            Answering::Everything => None,
        };
        let events = self.events(answer.into_body(), answering);
        let events = SseStream::from_bytes_stream(Box::pin(events));
        let intake = self.intake().clone();
        let tamed = events.then(move |event| {
            let (intake, asked) = (intake.clone(), asked.clone());
            async move {
                let mut event = event?;
                if let Some(data) = event.data.take() {
                    event.data = intake.tame(data.into_bytes(), asked).await;
                }
                Ok(event)
            }
        });
        tamed.boxed()
    }

    /// The one place the SDK may send to: the session's own URL.
    fn target(&self) -> Destination {
        self.home().clone()
    }

    async fn read_answer(
        &self,
        answer: Response<Incoming>,
        sent: &ClientJsonRpcMessage,
        within: Within,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let status = answer.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if !status.is_success() {
            return self.read_refusal(answer, sent, within).await;
        }
        let session = answer
            .headers()
            .get(SESSION)
            .and_then(|value| value.to_str().ok())
            .filter(|id| id.len() <= 1024)
            .map(str::to_owned);
        if content_type(&answer).starts_with(EVENTS) {
            return Ok(StreamableHttpPostResponse::Sse(
                self.events_of(answer, answering(sent)),
                session,
            ));
        }
        let asked = request_id(sent);
        let body = self.body(answer.into_body()).await;
        let body = match body.map_err(|trouble| self.refuse(trouble))? {
            Body::Whole(body) => body,
            Body::Beginning(beginning) => {
                let kept = salvage(&beginning, asked.as_deref());
                kept.ok_or_else(|| self.refuse(Trouble::TooLarge))?.into()
            }
        };
        let told = self.intake().tame(body, asked.clone()).await;
        let message = told.and_then(|text| serde_json::from_str(&text).ok());
        if let Some(JsonRpcMessage::Error(error)) = &message {
            let told = fault_of(&error.error);
            if within == Within::Session && forgets_session(status.as_u16(), Some(&told)) {
                return Err(self.lost());
            }
            self.progress().refused(&words_of(&error.error));
        }
        match message {
            Some(message) => Ok(StreamableHttpPostResponse::Json(message, session)),
            None if asked.is_none() => Ok(StreamableHttpPostResponse::Accepted),
            None => Err(self.refuse(Trouble::NotMcp)),
        }
    }

    /// An HTTP error: its status and its body are one answer. It may mean that the session is gone, be
    /// the error of the request, or say which versions of the protocol are spoken.
    async fn read_refusal(
        &self,
        answer: Response<Incoming>,
        sent: &ClientJsonRpcMessage,
        within: Within,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let status = answer.status();
        let trouble = Trouble::Status(status.as_u16());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.refuse(trouble));
        }
        let is_text = content_type(&answer).starts_with("text/plain");
        let body = self.words(answer.into_body()).await;
        let told = fault(&body);
        if within == Within::Session && forgets_session(status.as_u16(), told.as_ref()) {
            return Err(self.lost());
        }
        let words = String::from_utf8_lossy(&body);
        self.progress().refused(&words);
        let JsonRpcMessage::Request(request) = sent else {
            return Err(self.refuse(trouble));
        };
        let begins = matches!(
            request.request,
            ClientRequest::InitializeRequest(_) | ClientRequest::DiscoverRequest(_)
        );
        let error = match told {
            Some(told) => rpc_error(&told),
            None if begins && is_text => {
                // A refusal in words: people have to read them.
                let code = ErrorCode(i32::from(status.as_u16()));
                ErrorData::new(code, words.into_owned(), None)
            }
            None => return Err(self.refuse(trouble)),
        };
        let message = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
        Ok(StreamableHttpPostResponse::Json(message, None))
    }

    /// The session is gone; the list of the next one may be another.
    fn lost(&self) -> Failure {
        self.progress().changed();
        StreamableHttpError::SessionExpired
    }
}

fn fault_of(error: &ErrorData) -> Fault {
    Fault {
        code: i64::from(error.code.0),
        message: error.message.clone().into_owned(),
        data: None,
        has_id: true,
    }
}

fn rpc_error(told: &Fault) -> ErrorData {
    let code = i32::try_from(told.code).unwrap_or(ErrorCode::INTERNAL_ERROR.0);
    let data = told.data.as_deref();
    let data = data.and_then(|data| serde_json::from_str(data).ok());
    ErrorData::new(ErrorCode(code), told.message.clone(), data)
}

/// All that an error says, versions in its data included.
fn words_of(error: &ErrorData) -> String {
    let data = error.data.as_ref().map(ToString::to_string);
    format!("{} {}", error.message, data.unwrap_or_default())
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
        let within = if session.is_some() {
            Within::Session
        } else {
            Within::Nothing
        };
        self.read_answer(answer, &message, within).await
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
        if !self.may_listen().await {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        let answer = self
            .send(Method::GET, &self.target(), headers, Bytes::new())
            .await;
        let answer = answer.map_err(StreamableHttpError::Client)?;
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportSse),
            StatusCode::NOT_FOUND | StatusCode::GONE if session.is_some() => {
                Err(StreamableHttpError::SessionExpired)
            }
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
