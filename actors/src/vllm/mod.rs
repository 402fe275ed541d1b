//! The upstream: whether it answers, and where it is.
//!
//! `VllmActor` polls `GET /v1/models`. Before start-up is done it polls until the list answers;
//! afterwards it looks every few seconds, or at once when a turn could not reach the upstream, and
//! tells the supervisor what it sees. It makes no model calls: clients belong to a thread, so
//! each turn calls from its own.

pub mod client;
pub mod command;
pub mod efforts;
pub mod messages;
pub mod settings;
pub mod spawn;
pub(crate) mod tokenize;
pub mod vouch;

use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseActFuture,
    SpawnHandle, WrapFuture,
};
use serde::Deserialize;
use tokio::sync::watch;

use crate::http1::{Client, Request};
use crate::origin::Hops;
use crate::supervisor::messages::{Component, Health, Report};
use client::after;
use messages::{AwaitReady, NotReady, Observe, Suspect, UpstreamObservation};
use settings::UpstreamSettings;

/// Between two polls while waiting for the first answer.
const POLL_PAUSE: Duration = Duration::from_millis(250);
/// Limit of one poll.
const POLL_LIMIT: Duration = Duration::from_secs(2);
/// Longest model list that is read, in bytes.
const LONGEST_LIST: usize = 1024 * 1024;
/// Between two looks at an upstream that works.
const WATCH_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at an upstream that does not.
const DOWN_PAUSE: Duration = Duration::from_millis(500);

/// See the module.
pub struct VllmActor {
    settings: UpstreamSettings,
    reports: Recipient<Report>,
    client: Option<Client>,
    /// The next look; `None` until start-up is done.
    watch: Option<SpawnHandle>,
    failed_looks: u32,
    /// The models of the list that made it ready.
    models: Vec<String>,
    /// Shared with the wait for readiness, which runs beside the actor.
    last_error: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for VllmActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VllmActor")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What one poll brought.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Poll {
    Ready,
    Unauthorized(u16),
    NotYet(String),
}

impl VllmActor {
    /// An actor that does nothing until [`AwaitReady`].
    pub fn new(settings: UpstreamSettings, reports: Recipient<Report>) -> Self {
        Self {
            settings,
            reports,
            client: None,
            watch: None,
            failed_looks: 0,
            models: Vec::new(),
            last_error: watch::Sender::new(None),
        }
    }

    fn report(&self, health: Health) {
        self.reports.do_send(Report {
            component: Component::Upstream,
            health,
        });
    }

    fn look_in(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        if let Some(handle) = self.watch.take() {
            ctx.cancel_future(handle);
        }
        self.watch = Some(ctx.run_later(pause, Self::look));
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let Some(client) = self.client.clone() else {
            return;
        };
        let settings = self.settings.clone();
        let poll = async move { poll(&client, &settings).await };
        let handle = ctx.spawn(
            poll.into_actor(self)
                .map(|seen, act, ctx| act.seen(&seen, ctx)),
        );
        self.watch = Some(handle);
    }

    /// One missed look may be a hiccup; two in a row are news.
    fn seen(&mut self, poll: &Poll, ctx: &mut Context<Self>) {
        let pause = match poll {
            Poll::Ready => {
                self.failed_looks = 0;
                self.report(Health::Ready);
                WATCH_PAUSE
            }
            Poll::NotYet(_) | Poll::Unauthorized(_) => {
                self.failed_looks += 1;
                self.last_error.send_replace(Some(poll.to_string()));
                if self.failed_looks >= 2 {
                    self.report(Health::Down {
                        reason: poll.to_string(),
                    });
                }
                DOWN_PAUSE
            }
        };
        self.look_in(pause, ctx);
    }
}

impl std::fmt::Display for Poll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => f.write_str("answers"),
            Self::Unauthorized(status) => write!(f, "refuses the gateway's key with {status}"),
            Self::NotYet(why) => f.write_str(why),
        }
    }
}

impl Actor for VllmActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.client = Some(self.settings.client_within(POLL_LIMIT));
    }
}

/// Runs beside the mailbox; asked once.
impl Handler<AwaitReady> for VllmActor {
    type Result = ResponseActFuture<Self, Result<(), NotReady>>;

    fn handle(&mut self, _: AwaitReady, _: &mut Self::Context) -> Self::Result {
        let settings = self.settings.clone();
        let client = self.client.clone();
        let trouble = self.last_error.clone();
        let ready = async move {
            let client = client.unwrap_or_else(|| Client::new(&settings.base_url, POLL_LIMIT));
            await_ready(&client, &settings, &trouble).await?;
            Ok(models(&client, &settings).await.unwrap_or_default())
        };
        Box::pin(ready.into_actor(self).map(|outcome, act, ctx| {
            act.models = outcome?;
            act.report(Health::Ready);
            act.look_in(WATCH_PAUSE, ctx);
            Ok(())
        }))
    }
}

/// Synchronous; moves the next look to now.
impl Handler<Suspect> for VllmActor {
    type Result = ();

    fn handle(&mut self, _: Suspect, ctx: &mut Self::Context) {
        if self.watch.is_some() && self.failed_looks == 0 {
            self.failed_looks = 1;
            self.look_in(Duration::ZERO, ctx);
        }
    }
}

/// Synchronous.
impl Handler<Observe> for VllmActor {
    type Result = UpstreamObservation;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> UpstreamObservation {
        UpstreamObservation {
            url: self.settings.base_url.to_string(),
            models: self.models.clone(),
            last_error: self.last_error.borrow().clone(),
        }
    }
}

/// A list of models, as far as it is read here.
#[derive(Deserialize)]
struct ModelList {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// The models of the list; `None` when the list is no such list, since the gateway works without
/// knowing it.
async fn models(client: &Client, settings: &UpstreamSettings) -> Option<Vec<String>> {
    let body = async {
        let answer = client.send(list_request(settings)).await.ok()?;
        answer.body.whole(LONGEST_LIST).await.ok()
    };
    let body = tokio::time::timeout(POLL_LIMIT, body).await.ok()??;
    let list: ModelList = serde_json::from_slice(&body).ok()?;
    Some(list.data.into_iter().map(|model| model.id).collect())
}

async fn await_ready(
    client: &Client,
    settings: &UpstreamSettings,
    trouble: &watch::Sender<Option<String>>,
) -> Result<(), NotReady> {
    let url = settings.base_url.to_string();
    let start = Instant::now();
    let mut noticed = start;
    loop {
        let last = match poll(client, settings).await {
            Poll::Ready => return Ok(()),
            Poll::Unauthorized(status) => return Err(NotReady::Unauthorized { url, status }),
            Poll::NotYet(last) => last,
        };
        trouble.send_replace(Some(last.clone()));
        if start.elapsed() >= settings.ready_timeout {
            let seconds = settings.ready_timeout.as_secs();
            return Err(NotReady::TimedOut { url, seconds, last });
        }
        if noticed.elapsed() >= settings.ready_interval {
            noticed = Instant::now();
            log::info!(elapsed_s = start.elapsed().as_secs(); "waiting for the upstream at {url} ({last})");
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

/// From this gateway itself.
fn list_request(settings: &UpstreamSettings) -> Request {
    after(settings.get("/models"), Hops::default())
}

async fn poll(client: &Client, settings: &UpstreamSettings) -> Poll {
    let sent = client.send(list_request(settings));
    match tokio::time::timeout(POLL_LIMIT, sent).await {
        Err(_elapsed) => Poll::NotYet(format!("no answer within {POLL_LIMIT:?}")),
        Ok(Err(error)) => Poll::NotYet(error.to_string()),
        Ok(Ok(answer)) => match answer.status {
            200 => Poll::Ready,
            status @ (401 | 403) => Poll::Unauthorized(status),
            404 => Poll::NotYet(
                "answers with status 404: is an OpenAI-compatible server at this address?".into(),
            ),
            508 => Poll::NotYet(
                "it is a gateway like this one, and what it is sent comes back to it: the upstreams of \
                 these gateways lead in a circle"
                    .into(),
            ),
            status => Poll::NotYet(format!("answers with status {status}")),
        },
    }
}
