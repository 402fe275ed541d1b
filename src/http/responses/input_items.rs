//! `GET /v1/responses/{id}/input_items`: the effective input of a response, history first, in pages.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::memory::{LARGE, weight};
use vllm_responses_actors::store::messages::{Extent, LoadChain, LoadPart, StoreError, Weighed};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::history::{self, Backwards, CorruptHistory};
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::responses::item::{CodeOutputs, Item};

use super::super::context::Caller;
use super::super::error;
use super::super::state::AppState;
use super::reading::Reading;
use super::{STORE_LIMIT, code_outputs};

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
/// Most turns that are read at once.
const MOST_LINKS: usize = 64;

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
    code_outputs: CodeOutputs,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: &'a [Item],
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
    let read = async {
        let (origin, id) = (caller.origin(&id), ResponseId::new(&id));
        let what = Weighed::Chain(id.clone());
        let reading = Reading::begin(&state, &caller, origin, what).await?;
        // Almost every conversation is small: then one query is less than several.
        if reading.weight.bytes < LARGE || !page.is_from_the_end() {
            whole(reading, caller.owner, id, page).await
        } else {
            from_the_end(reading, caller.owner, id, page).await
        }
    };
    read.await.unwrap_or_else(|refused| refused)
}

/// Reads the whole conversation.
async fn whole(
    mut reading: Reading,
    owner: Owner,
    id: ResponseId,
    page: Page,
) -> Result<HttpResponse, HttpResponse> {
    let bytes = reading.weight.bytes;
    reading.reserve(weight::rows(bytes)).await?;
    let load = LoadChain {
        owner,
        id,
        extent: Extent::Items,
    };
    let chain = match ask(&reading.doors.chains, load, STORE_LIMIT).await {
        Ok(Ok(Some(chain))) => chain,
        Ok(Ok(None)) => return Err(error::unknown_response()),
        Ok(Err(fault)) => return Err(reading.fault(&fault)),
        Err(gone) => return Err(error::no_answer(&reading.origin, gone)),
    };
    let marks = reading.doors.blobs.marks;
    let write = move || {
        let mut items = history::effective_input(&chain, marks)?;
        drop(chain);
        if page.order == Order::Descending {
            items.reverse();
        }
        let mut taken = Taken::new(page);
        for item in items {
            taken.take(item);
        }
        Ok(taken.list())
    };
    let (reading, list) = reading.work(bytes, write).await?;
    answer(reading, list).await
}

/// Reads turn by turn from the last one, as far as the page goes: a conversation of many pictures is
/// shown without reading all of them.
async fn from_the_end(
    mut reading: Reading,
    owner: Owner,
    id: ResponseId,
    page: Page,
) -> Result<HttpResponse, HttpResponse> {
    let average = reading.weight.bytes / reading.weight.links.max(1);
    let most = (LARGE / average.max(1)).clamp(1, MOST_LINKS);
    let (mut skip, mut bytes) = (0, 0);
    let mut backwards = Backwards::new(reading.doors.blobs.marks);
    let mut taken = Taken::new(page);
    loop {
        reading.reserve(weight::rows(average * most)).await?;
        let part = LoadPart {
            owner: owner.clone(),
            id: id.clone(),
            skip,
            most,
        };
        let part = match ask(&reading.doors.parts, part, STORE_LIMIT).await {
            Ok(Ok(Some(part))) => part,
            Ok(Ok(None)) => return Err(error::unknown_response()),
            Ok(Err(fault)) => return Err(reading.fault(&fault)),
            Err(gone) => return Err(error::no_answer(&reading.origin, gone)),
        };
        let is_over = part.is_beginning || part.links.is_empty();
        let links = part.links.iter();
        let read: usize = links
            .map(|link| link.input_items.len() + link.response.len())
            .sum();
        let more = read.saturating_sub(average * most);
        reading.reserve(weight::rows(more)).await?;
        (skip, bytes) = (skip + most, bytes + read);
        let parse = move || {
            for link in &part.links {
                let items = backwards.turn(link)?;
                items.into_iter().rev().for_each(|item| taken.take(item));
            }
            Ok((backwards, taken))
        };
        let (still, parsed) = reading.work(read, parse).await?;
        reading = still;
        (backwards, taken) = parsed.map_err(|corrupt| unreadable(&reading, corrupt))?;
        if is_over || taken.has_more {
            break;
        }
    }
    let (reading, list) = reading.work(bytes, move || Ok(taken.list())).await?;
    answer(reading, list).await
}

async fn answer(
    reading: Reading,
    list: Result<Result<String, ApiError>, CorruptHistory>,
) -> Result<HttpResponse, HttpResponse> {
    match list {
        Ok(Ok(body)) => reading.answer(body).await,
        Ok(Err(fault)) => Err(error::answer(&fault)),
        Err(corrupt) => Err(unreadable(&reading, corrupt)),
    }
}

fn unreadable(reading: &Reading, corrupt: CorruptHistory) -> HttpResponse {
    let origin = &reading.origin;
    log::error!(request_id = &*origin.request_id, response_id = &*origin.response_id;
        "a stored chain cannot be read: {corrupt}");
    reading.fault(&StoreError::Corrupt)
}

impl Page {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut page = Self {
            after: None,
            before: None,
            limit: DEFAULT_LIMIT,
            order: Order::Descending,
            code_outputs: code_outputs(query),
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

    /// Whether it can be filled from the end of the conversation on.
    fn is_from_the_end(&self) -> bool {
        self.order == Order::Descending
    }
}

/// A page while items come in its order.
struct Taken {
    page: Page,
    items: Vec<Item>,
    at: At,
    has_more: bool,
}

/// Where the coming item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// `after` has not come yet.
    Before,
    /// Within the page, or behind a full one.
    Within,
    /// `before` has come.
    Behind,
}

impl Taken {
    fn new(page: Page) -> Self {
        Self {
            at: match page.after {
                Some(_) => At::Before,
                None => At::Within,
            },
            has_more: false,
            items: Vec::new(),
            page,
        }
    }

    fn take(&mut self, mut item: Item) {
        if self.at == At::Before {
            if self.page.after.as_deref() == Some(item.id()) {
                self.at = At::Within;
            }
            return;
        }
        if self.at == At::Behind || self.page.before.as_deref() == Some(item.id()) {
            self.at = At::Behind;
        } else if self.items.len() < self.page.limit {
            if self.page.code_outputs == CodeOutputs::Hidden {
                item.hide_code_outputs();
            }
            self.items.push(item);
        } else {
            self.has_more = true;
        }
    }

    /// The page as JSON.
    fn list(self) -> Result<String, ApiError> {
        // The first page again would send a pager round in circles.
        if self.at == At::Before {
            return Err(unknown("after"));
        }
        // Behind a full page it may still come.
        if self.page.before.is_some() && self.at != At::Behind && !self.has_more {
            return Err(unknown("before"));
        }
        let list = List {
            object: "list",
            first_id: self.items.first().map(Item::id),
            last_id: self.items.last().map(Item::id),
            data: &self.items,
            has_more: self.has_more,
        };
        // Items are strings, words and raw values: nothing here can fail to be written.
        Ok(serde_json::to_string(&list).unwrap_or_default())
    }
}

fn unknown(param: &'static str) -> ApiError {
    wrong(
        param,
        &format!("`{param}` must be the id of an item of this list"),
    )
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
