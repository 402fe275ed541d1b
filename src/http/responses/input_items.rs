//! `GET /v1/responses/{id}/input_items`: the effective input of a response, history first, in pages.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::store::messages::{Extent, LoadChain};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::history;
use vllm_responses_protocol::ids::ResponseId;
use vllm_responses_protocol::responses::item::{CodeOutputs, Item};

use super::super::context::Caller;
use super::super::error;
use super::super::state::AppState;
use super::{STORE_LIMIT, code_outputs};

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// What the query asks for.
#[derive(Debug)]
struct Page {
    after: Option<String>,
    before: Option<String>,
    limit: usize,
    order: Order,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<&'a Item>,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
    has_more: bool,
}

/// See the module.
pub(in crate::http) async fn list(
    request: HttpRequest,
    id: web::Path<String>,
    caller: Caller,
    state: web::Data<AppState>,
) -> HttpResponse {
    let page = match Page::parse(request.query_string()) {
        Ok(page) => page,
        Err(fault) => return error::answer(&fault),
    };
    let origin = caller.origin(&id);
    let doors = match state.doors() {
        Ok(doors) => doors,
        Err(refused) => return error::refused(refused),
    };
    let load = LoadChain {
        owner: caller.owner,
        id: ResponseId::new(&id),
        extent: Extent::Items,
    };
    let chain = match ask(&doors.chains, load, STORE_LIMIT).await {
        Ok(Ok(Some(chain))) => chain,
        Ok(Ok(None)) => return error::unknown_response(),
        Ok(Err(fault)) => return error::store(&origin, &fault),
        Err(gone) => return error::no_answer(&origin, gone),
    };
    match history::effective_input(&chain) {
        Ok(mut items) => {
            if code_outputs(request.query_string()) == CodeOutputs::Hidden {
                items.iter_mut().for_each(Item::hide_code_outputs);
            }
            HttpResponse::Ok().json(page.of(&items))
        }
        Err(corrupt) => {
            log::error!(request_id = &*origin.request_id, response_id = &*origin.response_id;
                "a stored chain cannot be read: {corrupt}");
            error::store(
                &origin,
                &vllm_responses_actors::store::messages::StoreError::Corrupt,
            )
        }
    }
}

impl Page {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut page = Self {
            after: None,
            before: None,
            limit: DEFAULT_LIMIT,
            order: Order::Descending,
        };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "after" => page.after = Some(value.into_owned()),
                "before" => page.before = Some(value.into_owned()),
                "limit" => page.limit = limit(&value)?,
                "order" => page.order = order(&value)?,
                // Of `include` see `code_outputs`; anything else is left to later versions.
                _ => {}
            }
        }
        Ok(page)
    }

    /// The page's items of all items, which are in ascending order.
    fn of<'a>(&self, items: &'a [Item]) -> List<'a> {
        let mut data: Vec<&Item> = items.iter().collect();
        if self.order == Order::Descending {
            data.reverse();
        }
        let place = |data: &[&Item], id: &str| data.iter().position(|item| item.id() == id);
        if let Some(place) = self.after.as_deref().and_then(|id| place(&data, id)) {
            data.drain(..=place);
        }
        if let Some(place) = self.before.as_deref().and_then(|id| place(&data, id)) {
            data.truncate(place);
        }
        let has_more = data.len() > self.limit;
        data.truncate(self.limit);
        List {
            object: "list",
            first_id: data.first().map(|item| item.id()),
            last_id: data.last().map(|item| item.id()),
            data,
            has_more,
        }
    }
}

fn limit(value: &str) -> Result<usize, ApiError> {
    value
        .parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| {
            wrong(
                "limit",
                &format!("`limit` must be an integer between 1 and {MAX_LIMIT}"),
            )
        })
}

fn order(value: &str) -> Result<Order, ApiError> {
    match value {
        "asc" => Ok(Order::Ascending),
        "desc" => Ok(Order::Descending),
        _ => Err(wrong("order", "`order` must be `asc` or `desc`")),
    }
}

fn wrong(param: &str, message: &str) -> ApiError {
    let mut error = ApiError::new(ApiErrorCode::InvalidValue, message);
    error.param = Some(param.to_owned());
    error
}
