//! What a turn asks the store before it can call the model.

use std::sync::Arc;

use actix::Recipient;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::history::{self, CorruptHistory};
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::Chain;
use vllm_responses_protocol::responses::item::Item;
use vllm_responses_protocol::turn::effect::Claimed;

use super::STORE_LIMIT;
use crate::ask::ask;
use crate::store::messages::{Claim, Extent, LoadChain};

/// The items of the chain and, if they were asked for, the settings of its last response, and how many
/// bytes the items have; or why the request cannot continue it.
pub(crate) async fn history(
    chains: Recipient<LoadChain>,
    asked: LoadChain,
) -> Result<(Vec<Item>, Option<Arc<str>>, usize), ApiError> {
    let about_previous =
        |code, message: String| ApiError::new(code, message).with_param("previous_response_id");
    let chain = chain(&chains, asked, "`previous_response_id`").await?;
    let Some(chain) = chain else {
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
    let items = history::from_chain(&chain).map_err(unreadable)?;
    let size = chain.size();
    Ok((items, chain.settings, size))
}

/// The items that these responses took in and made; unknown ones have none.
pub(super) async fn items(
    chains: Recipient<LoadChain>,
    owner: Owner,
    responses: Vec<ResponseId>,
) -> Result<Vec<Item>, ApiError> {
    let mut items = Vec::new();
    for response in responses {
        let what = "the items that `input` refers to";
        let asked = LoadChain {
            owner: owner.clone(),
            id: response,
            extent: Extent::Items,
        };
        if let Some(chain) = chain(&chains, asked, what).await? {
            items.extend(history::own_items(&chain).map_err(unreadable)?);
        }
    }
    Ok(items)
}

/// Whether these approvals are this response's.
pub(super) async fn claim(claims: &Recipient<Claim>, claim: Claim) -> Claimed {
    let unavailable = |error: &dyn std::error::Error| {
        log::warn!("approvals not taken: {error}");
        Claimed::Unknown
    };
    match ask(claims, claim, STORE_LIMIT).await {
        Ok(Ok(true)) => Claimed::Yes,
        Ok(Ok(false)) => Claimed::No,
        Ok(Err(error)) => unavailable(&error),
        Err(error) => unavailable(&error),
    }
}

/// A chain; an error when the store does not answer, which names `what` was to be read.
async fn chain(
    chains: &Recipient<LoadChain>,
    asked: LoadChain,
    what: &str,
) -> Result<Option<Chain>, ApiError> {
    let unavailable = |error: &dyn std::error::Error| {
        log::warn!("chain not loaded: {error}");
        ApiError::new(
            ApiErrorCode::ServerIsOverloaded,
            format!("the response store is unavailable, so {what} cannot be read; try again"),
        )
    };
    match ask(chains, asked, STORE_LIMIT).await {
        Ok(Ok(chain)) => Ok(chain),
        Ok(Err(error)) => Err(unavailable(&error)),
        Err(error) => Err(unavailable(&error)),
    }
}

fn unreadable(corrupt: CorruptHistory) -> ApiError {
    log::error!("a stored chain cannot be read: {corrupt}");
    ApiError::new(
        ApiErrorCode::ServerError,
        "the stored conversation cannot be read",
    )
}
