//! HTTP with SSE, the transport of 2024-11-05: a stream for what the server says, and an endpoint on
//! the same origin for what we say. The SDK no longer has it.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use rmcp::RoleClient;
use rmcp::model::ServerJsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use vllm_responses_protocol::sse::Decoder;

use super::Trouble;
use super::events::Answering;
use super::http::{Http, lift_trace};
use crate::mcp::guard::Destination;

/// Events that may come before the one that names the endpoint.
const MAX_BEFORE_ENDPOINT: usize = 16;

/// An open stream with its endpoint.
pub(in crate::mcp) struct LegacySse {
    http: Http,
    endpoint: Destination,
    bytes: BoxStream<'static, Result<Bytes, Trouble>>,
    decoder: Decoder,
    /// A message that is being read.
    reading: Option<Vec<u8>>,
}

impl LegacySse {
    /// Opens the stream and waits for the server to name its endpoint.
    ///
    /// # Errors
    /// [`Trouble::Refused`] for an endpoint of another origin: it would get the caller's keys.
    pub(in crate::mcp) async fn open(http: Http) -> Result<Self, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let home = http.home().clone();
        let answer = http.send(Method::GET, &home, headers, Bytes::new()).await?;
        if !answer.status().is_success() {
            let status = Trouble::Status(answer.status().as_u16());
            return Err(http.progress().trouble(status));
        }
        let mut this = Self {
            bytes: http
                .events(answer.into_body(), Answering::Everything)
                .boxed(),
            endpoint: home,
            decoder: Decoder::default(),
            reading: None,
            http,
        };
        for _ in 0..MAX_BEFORE_ENDPOINT {
            let Some((event, data)) = this.next_event().await else {
                return Err(this.http.progress().trouble(Trouble::NotMcp));
            };
            if event == "endpoint" {
                let endpoint = this.http.vet_location(data.trim())?;
                if !endpoint.same_origin(this.http.home()) {
                    return Err(this.http.progress().trouble(Trouble::Refused));
                }
                this.endpoint = endpoint;
                return Ok(this);
            }
        }
        Err(this.http.progress().trouble(Trouble::NotMcp))
    }

    /// The next event's name and data. Dropping the future loses nothing.
    async fn next_event(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(frame) = self.decoder.next_frame() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Some((text(frame.event), text(frame.data)));
            }
            let bytes = self.bytes.next().await?.ok()?;
            if self.decoder.push(&bytes).is_err() {
                self.http.progress().trouble(Trouble::TooLarge);
                return None;
            }
        }
    }
}

impl Transport<RoleClient> for LegacySse {
    type Error = Trouble;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Trouble>> + Send + 'static {
        let (http, endpoint) = (self.http.clone(), self.endpoint.clone());
        async move {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            lift_trace(&message, &mut headers);
            let body = serde_json::to_vec(&message).map_err(|_never| Trouble::NotMcp)?;
            let answer = http
                .send(Method::POST, &endpoint, headers, body.into())
                .await?;
            if answer.status().is_success() {
                return Ok(());
            }
            let status = Trouble::Status(answer.status().as_u16());
            Err(http.progress().trouble(status))
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let data = match self.reading.take() {
                Some(data) => data,
                None => self.next_event().await?.1.into_bytes(),
            };
            // Dropping the future must not lose the message: it is read again then.
            self.reading = Some(data.clone());
            let data = self.http.intake().tame(data, None).await;
            self.reading = None;
            // What is no message is passed over, as on the other transports.
            let Some(data) = data else { continue };
            if let Ok(message) = serde_json::from_str::<ServerJsonRpcMessage>(&data) {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> Result<(), Trouble> {
        self.bytes = futures_util::stream::empty().boxed();
        Ok(())
    }
}
