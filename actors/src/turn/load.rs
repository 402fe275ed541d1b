//! What a turn reads before it can call the model: from the store, and the prompt's length.

use std::collections::HashSet;
use std::sync::Arc;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, Recipient, WrapFuture as _};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::history::{self, CorruptHistory};
use vllm_responses_protocol::ids::{Owner, ResponseId, response_of};
use vllm_responses_protocol::record::Chain;
use vllm_responses_protocol::responses::item::Item;
use vllm_responses_protocol::turn::effect::{Claimed, Input};

use super::{Load, STORE_LIMIT, TurnActor, room};
use crate::ask::ask;
use crate::memory::Memory;
use crate::origin::Origin;
use crate::store::messages::{Claim, Extent, FindLinks, LoadChain, StoreError, Weigh, Weighed};
use crate::supervisor::messages::Peers;
use crate::trace::Side;
use crate::vllm::tokenize;

impl TurnActor {
    pub(super) fn load_history(&mut self, ctx: &mut Context<Self>) {
        let Some(previous) = self.previous.clone() else {
            return self.feed(Input::History(Vec::new()), ctx);
        };
        let mut span = self.span.scope().span(Side::Internal, "store load");
        let peers = Arc::clone(&self.permit.peers);
        let memory = self.permit.account.memory().clone();
        let message = LoadChain {
            owner: self.owner.clone(),
            id: previous,
            extent: if self.turn.inherits_tools() {
                Extent::WithSettings
            } else {
                Extent::Items
            },
        };
        let origin = self.origin.clone();
        let load = async move { history(&peers, &memory, message, &origin).await };
        ctx.spawn(load.into_actor(self).map(move |loaded, act, ctx| {
            if loaded.is_err() {
                span.fail("the history was not loaded");
            }
            drop(span);
            let input = loaded.and_then(|(history, settings, load)| {
                act.take_load(load);
                if let Some(settings) = settings {
                    act.turn.inherit(&settings)?;
                }
                Ok(Input::History(history))
            });
            let input = input.unwrap_or_else(Input::Refused);
            act.feed(input, ctx);
        }));
    }

    pub(super) fn count_tokens(&mut self, body: Vec<u8>, ctx: &mut Context<Self>) {
        let text = body.len();
        let body = self.whole(body);
        self.hold_at_least(self.load.kept + 2 * text + body.window());
        let client = self.client.clone();
        let upstream = self.permit.peers.upstream.clone();
        let mut span = self.span.scope().span(Side::Client, "tokenize");
        let count = async move {
            let count =
                tokenize::count(&client, &upstream, body.into(), span.scope().context()).await;
            if count.is_none() {
                span.fail("the model server did not count");
            }
            count
        };
        let counted = count.into_actor(self).map(|count, act, ctx| {
            act.calling = None;
            act.feed(Input::Counted(count), ctx);
        });
        self.calling = Some(ctx.spawn(counted));
    }

    /// Takes the approvals that the input gives.
    pub(super) fn claim(&mut self, requests: Vec<Box<str>>, ctx: &mut Context<Self>) {
        let mut span = self.span.scope().span(Side::Internal, "store claim");
        let claims = self.permit.peers.claims.clone();
        let claim = Claim {
            owner: self.owner.clone(),
            response: self.turn.identity().id.clone(),
            requests,
        };
        let origin = self.origin.clone();
        let claimed = async move { self::claim(&claims, claim, &origin).await };
        ctx.spawn(claimed.into_actor(self).map(move |claimed, act, ctx| {
            if claimed == Claimed::Unknown {
                span.fail("the approvals were not taken");
            }
            drop(span);
            act.feed(Input::Claimed(claimed), ctx);
        }));
    }

    /// Reads the items that the input refers to.
    pub(super) fn find_items(&mut self, wanted: Vec<Box<str>>, ctx: &mut Context<Self>) {
        let mut span = self.span.scope().span(Side::Internal, "store load");
        let sources = Shelf {
            peers: Arc::clone(&self.permit.peers),
            memory: self.permit.account.memory().clone(),
            copies: self.turn.copies(),
        };
        let (owner, origin) = (self.owner.clone(), self.origin.clone());
        let find = async move { items(&sources, &owner, &wanted, &origin).await };
        ctx.spawn(find.into_actor(self).map(move |found, act, ctx| {
            if found.is_err() {
                span.fail("the items were not loaded");
            }
            drop(span);
            let input = match found {
                Ok((items, load)) => {
                    act.take_load(load);
                    Input::Found(items)
                }
                Err(error) => Input::Refused(error),
            };
            act.feed(input, ctx);
        }));
    }
}

/// The items of the chain and, if they were asked for, the settings of its last response, and what they
/// take in memory; or why the request cannot continue it.
async fn history(
    peers: &Peers,
    memory: &Memory,
    asked: LoadChain,
    origin: &Origin,
) -> Result<(Vec<Item>, Option<Arc<str>>, Load), ApiError> {
    let about_previous =
        |code, message: String| ApiError::new(code, message).with_param("previous_response_id");
    let weigh = Weigh {
        owner: asked.owner.clone(),
        what: Weighed::Chain(asked.id.clone()),
    };
    let held = room::reserve(memory, &peers.weights, weigh, 1).await?;
    let chain = chain(&peers.chains, asked, origin).await?;
    let Some(mut chain) = chain else {
        return Err(about_previous(
            ApiErrorCode::PreviousResponseNotFound,
            "no response with the id in `previous_response_id` was found".to_owned(),
        ));
    };
    if let Some(last) = chain.links.last().filter(|last| !last.status.is_anchor()) {
        return Err(about_previous(
            ApiErrorCode::InvalidValue,
            format!(
                "the response in `previous_response_id` ended `{}`; only a `completed` or \
                 `incomplete` response can be continued",
                last.status.as_str()
            ),
        ));
    }
    let settings = chain.settings.take();
    let marks = peers.blobs.marks;
    let (items, load) = room::items(chain, held, 1, move |chain| {
        history::from_chain(chain, marks)
    })
    .await?;
    let items = items.map_err(|corrupt| unreadable(corrupt, origin))?;
    Ok((items, settings, load))
}

/// Those of the wanted items that there are, and what they take in memory.
///
/// A response has in its own input what earlier ones made, where it referred to that, so the last one
/// is read first: of a conversation it is mostly all that is needed.
async fn items(
    shelf: &Shelf,
    owner: &Owner,
    wanted: &[Box<str>],
    origin: &Origin,
) -> Result<(Vec<Item>, Load), ApiError> {
    let missing: HashSet<Box<str>> = wanted.iter().cloned().collect();
    let last = wanted.last().and_then(|id| response_of(id));
    let last = last.into_iter().collect();
    let (mut items, missing, mut load) = shelf.take(owner, last, missing, origin).await?;
    let mut seen = HashSet::new();
    let rest = wanted.iter().filter(|id| missing.contains(*id));
    let rest = rest.filter_map(|id| response_of(id));
    let rest: Vec<ResponseId> = rest.filter(|id| seen.insert(id.clone())).collect();
    if !rest.is_empty() {
        let (more, _, other) = shelf.take(owner, rest, missing, origin).await?;
        items.extend(more);
        load.kept += other.kept;
        load.held.absorb(other.held);
    }
    Ok((items, load))
}

/// Where items are that requests refer to.
struct Shelf {
    peers: Arc<Peers>,
    memory: Memory,
    /// Of one item; the request may refer to it more than once.
    copies: usize,
}

impl Shelf {
    /// Those of the missing items that these responses took in or made, which of them are still missing
    /// then, and what was found takes in memory; unknown responses have none.
    async fn take(
        &self,
        owner: &Owner,
        ids: Vec<ResponseId>,
        mut missing: HashSet<Box<str>>,
        origin: &Origin,
    ) -> Result<(Vec<Item>, HashSet<Box<str>>, Load), ApiError> {
        let what = "the items that `input` refers to";
        let weigh = Weigh {
            owner: owner.clone(),
            what: Weighed::Links(ids.clone()),
        };
        let weights = &self.peers.weights;
        let held = room::reserve(&self.memory, weights, weigh, self.copies).await?;
        let asked = FindLinks {
            owner: owner.clone(),
            ids,
        };
        let links = match ask(&self.peers.links, asked, STORE_LIMIT).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(not_loaded(&error, what, origin)),
            Err(error) => return Err(not_loaded(&error, what, origin)),
        };
        let read = Chain {
            links,
            ..Chain::default()
        };
        let marks = self.peers.blobs.marks;
        let take = move |read: &Chain| {
            let mut found = Vec::new();
            history::take_items((read, marks), &mut missing, &mut found)?;
            Ok((found, missing))
        };
        let (taken, load) = room::items(read, held, self.copies, take).await?;
        let (found, missing) = taken.map_err(|corrupt| unreadable(corrupt, origin))?;
        Ok((found, missing, load))
    }
}

/// Whether these approvals are this response's.
async fn claim(claims: &Recipient<Claim>, claim: Claim, origin: &Origin) -> Claimed {
    let unavailable = |error: &dyn std::error::Error| {
        log::warn!(request_id = &*origin.request_id, response_id = &*origin.response_id;
            "approvals not taken: {error}");
        Claimed::Unknown
    };
    match ask(claims, claim, STORE_LIMIT).await {
        Ok(Ok(true)) => Claimed::Yes,
        Ok(Ok(false)) => Claimed::No,
        Ok(Err(error)) => unavailable(&error),
        Err(error) => unavailable(&error),
    }
}

/// A chain; an error when the store does not answer.
async fn chain(
    chains: &Recipient<LoadChain>,
    asked: LoadChain,
    origin: &Origin,
) -> Result<Option<Chain>, ApiError> {
    const WHAT: &str = "`previous_response_id`";
    match ask(chains, asked, STORE_LIMIT).await {
        Ok(Ok(chain)) => Ok(chain),
        Ok(Err(error)) => {
            Err(about_chain(&error).unwrap_or_else(|| not_loaded(&error, WHAT, origin)))
        }
        Err(error) => Err(not_loaded(&error, WHAT, origin)),
    }
}

/// What is wrong with the conversation itself: trying again does not help.
fn about_chain(error: &StoreError) -> Option<ApiError> {
    let message = match error {
        StoreError::Incomplete => {
            "an earlier response of the conversation in `previous_response_id` is not stored any \
             more, so it cannot be continued: send the conversation in `input`"
        }
        StoreError::TooLong => {
            "the conversation in `previous_response_id` has too many responses to be continued: \
             send what is still needed of it in `input`"
        }
        StoreError::Unavailable(_) | StoreError::Busy | StoreError::Corrupt => return None,
    };
    let error = ApiError::new(ApiErrorCode::PreviousResponseNotFound, message);
    Some(error.with_param("previous_response_id"))
}

/// The store gave no answer, so `what` was not read.
fn not_loaded(error: &dyn std::error::Error, what: &str, origin: &Origin) -> ApiError {
    log::warn!(request_id = &*origin.request_id, response_id = &*origin.response_id;
        "stored responses not loaded: {error}");
    ApiError::new(
        ApiErrorCode::ServerIsOverloaded,
        format!("the response store is unavailable, so {what} cannot be read; try again"),
    )
}

fn unreadable(corrupt: CorruptHistory, origin: &Origin) -> ApiError {
    log::error!(request_id = &*origin.request_id, response_id = &*origin.response_id;
        "a stored chain cannot be read: {corrupt}");
    ApiError::new(
        ApiErrorCode::ServerError,
        "the stored conversation cannot be read",
    )
}
