//! Requests to the service, each with a deadline, and what their failures mean.

use std::fmt;
use std::time::Duration;

use awc::error::{ConnectError, PayloadError, SendRequestError};
use awc::{Client, ClientRequest, ClientResponse};
use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::interpreter::limits::CallLimits;
use crate::interpreter::messages::{CallError, Execute, ExecuteError, Executed};
use crate::interpreter::settings::Service;
use crate::interpreter::wire::{
    self, Answer, EXECUTE_PATH, GivenBack, Order, PROTOCOL, RELEASE_PATH, REPORT_BYTES, Report,
    SERVICE, STATUS_PATH, WireLimits,
};
use crate::own_client::client;
use crate::token;

const CONNECT: Duration = Duration::from_secs(2);
/// Of everything but calls: the service answers from memory.
const QUICK: Duration = Duration::from_secs(3);
/// What a call may take beyond its own limit: the wait in the service's queue (60 s), the start of an
/// interpreter, the way of large pictures.
const BEYOND_CALL: Duration = Duration::from_secs(150);

/// Why the service gave no answer that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// Nothing was sent.
    #[error("the code interpreter service does not answer")]
    Unreachable,
    /// The connection ended, or the deadline passed, with the request sent.
    #[error("the code interpreter service broke off")]
    BrokenOff,
    /// 401.
    #[error(
        "the code interpreter service refuses the token of `VR_CODE_INTERPRETER_TOKEN`; give both \
         sides the same"
    )]
    Token,
    /// 503.
    #[error("the code interpreter service is stopping")]
    Stopping,
    /// Anything that is not our protocol.
    #[error("what answers at the code interpreter's URL is no service of this version")]
    Foreign,
}

/// The service, and the thread's way to it. Redirects are not followed, proxies not asked.
pub(super) struct Link {
    service: Service,
    http: Client,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(service: Service) -> Self {
        Self {
            http: client(service.url.as_str(), CONNECT),
            service,
        }
    }

    /// How the service is.
    pub(super) async fn report(&self) -> Result<Report, LinkError> {
        let request = self.http.get(self.endpoint(STATUS_PATH));
        let answered = async {
            let sent = self.authorize(request).send().await;
            read::<Report, _>(sent, REPORT_BYTES).await
        };
        let report = timeout(QUICK, answered)
            .await
            .map_err(|_elapsed| LinkError::Unreachable)??;
        if report.protocol == PROTOCOL {
            Ok(report)
        } else {
            Err(LinkError::Foreign)
        }
    }

    /// Runs code there. Dropping this closes the connection, which ends the call. The second value says
    /// what is wrong with the service, if something is.
    pub(super) async fn execute(
        &self,
        execute: &Execute,
    ) -> (Result<Executed, ExecuteError>, Option<LinkError>) {
        let order = Order {
            owner: execute.owner.clone(),
            container: execute.container.clone(),
            code: execute.code.clone(),
            limits: WireLimits::from(execute.limits),
        };
        let limit = execute.limits.wall.saturating_add(BEYOND_CALL);
        let answer = timeout(limit, self.ordered(&order, &execute.limits))
            .await
            .unwrap_or(Err(LinkError::BrokenOff));
        let id = execute.container.id();
        let vetted = answer
            .and_then(|answer| wire::vet(answer, id, &execute.limits).ok_or(LinkError::Foreign));
        match vetted {
            Ok(answer) => (answer, None),
            // It may have run: the model is told that its state is gone, not that it may try again.
            Err(LinkError::BrokenOff) => (Ok(died(id)), Some(LinkError::BrokenOff)),
            Err(error) => (
                Err(ExecuteError::Unavailable(error.to_string())),
                Some(error),
            ),
        }
    }

    async fn ordered(&self, order: &Order, limits: &CallLimits) -> Result<Answer, LinkError> {
        let sent = self.post(EXECUTE_PATH).send_json(order).await;
        read(sent, wire::most_answer_bytes(limits)).await
    }

    /// Gives a container back; what is not heard expires there.
    pub(super) async fn release(&self, given: &GivenBack) {
        drop(timeout(QUICK, self.posted(RELEASE_PATH, given)).await);
    }

    async fn posted(&self, path: &str, body: &impl Serialize) {
        drop(self.post(path).send_json(body).await);
    }

    fn post(&self, path: &str) -> ClientRequest {
        self.authorize(self.http.post(self.endpoint(path)))
    }

    fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.service.url.as_str().trim_end_matches('/'))
    }

    fn authorize(&self, request: ClientRequest) -> ClientRequest {
        let left = || token::find(SERVICE, &self.service.url);
        match self.service.token.clone().or_else(left) {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }
}

fn died(container: &str) -> Executed {
    Executed {
        container_id: container.to_owned(),
        logs: String::new(),
        images: Vec::new(),
        error: Some(CallError::Died),
        truncated: false,
    }
}

/// Reads the body of an answer, bounded.
async fn read<T: DeserializeOwned, S>(
    sent: Result<ClientResponse<S>, SendRequestError>,
    most: usize,
) -> Result<T, LinkError>
where
    S: Stream<Item = Result<Bytes, PayloadError>>,
{
    let mut answer = sent.map_err(|error| {
        // `Disconnected` is what awc says when the peer leaves before it has answered.
        let never_sent = matches!(error, SendRequestError::Url(_))
            || matches!(&error, SendRequestError::Connect(error)
                if !matches!(error, ConnectError::Disconnected));
        if never_sent {
            LinkError::Unreachable
        } else {
            LinkError::BrokenOff
        }
    })?;
    match answer.status().as_u16() {
        200 => {}
        401 => return Err(LinkError::Token),
        503 => return Err(LinkError::Stopping),
        _ => return Err(LinkError::Foreign),
    }
    let body = answer.body().limit(most).await.map_err(|error| {
        if matches!(error, PayloadError::Overflow) {
            LinkError::Foreign
        } else {
            LinkError::BrokenOff
        }
    })?;
    serde_json::from_slice(&body).map_err(|_malformed| LinkError::Foreign)
}
