//! Middleware, the outermost: tells the connection when a request begins and ends, makes its line of
//! the log, and counts every one but those for metrics and health.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use bytes::Bytes;
use vllm_responses_actors::metrics::{OTHER, StreamGuard};

use super::super::access::{UNKNOWN, Visit};
use super::super::connection::{Exchange, Line};
use super::super::state::AppState;

/// A body that occupies its connection, and counts as an open stream, until it is dropped.
pub(crate) struct Counted<B> {
    body: B,
    _exchange: Option<Exchange>,
    _open: Option<StreamGuard>,
    visit: Option<Visit>,
}

/// The status, route and time of each request; streams until they end.
pub(crate) async fn count<B: MessageBody + Unpin>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Counted<B>>, Error> {
    let exchange = request.conn_data::<Line>().map(Line::begin);
    let state = request.app_data::<web::Data<AppState>>().cloned();
    let state = state.filter(|state| is_counted(state, request.path()));
    let waiting = state.as_ref().map(|state| state.metrics.http().asked());
    let method = word(request.method());
    let began = Instant::now();
    let pattern = request.match_pattern();
    let route = pattern.as_deref().unwrap_or(UNKNOWN);
    let mut visit = Visit::begin((method, route), began);
    let answer = next.call(request).await;
    drop(waiting);
    let response = match answer {
        Ok(response) => response,
        Err(error) => {
            if let Some(visit) = &mut visit {
                visit.failed(error.as_response_error().status_code().as_u16());
            }
            return Err(error);
        }
    };
    if let Some(visit) = &mut visit {
        visit.answered(&response);
        visit.is_whole = !is_stream(&response);
    }
    let open = state.and_then(|state| {
        let http = state.metrics.http();
        http.answered(method, route, response.status().as_u16(), began.elapsed());
        is_stream(&response).then(|| http.stream(route))
    });
    Ok(response.map_body(|_, body| Counted {
        body,
        _exchange: exchange,
        _open: open,
        visit,
    }))
}

fn is_counted(state: &AppState, path: &str) -> bool {
    state
        .metrics_door
        .as_ref()
        .is_some_and(|door| path != door.path && !path.starts_with("/health"))
}

fn is_stream<B>(response: &ServiceResponse<B>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The label of a method: clients may invent some.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => OTHER,
    }
}

impl<B: MessageBody + Unpin> MessageBody for Counted<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let piece = Pin::new(&mut self.body).poll_next(task);
        if let (Poll::Ready(None), Some(visit)) = (&piece, &mut self.visit) {
            visit.is_whole = true;
        }
        piece
    }
}
