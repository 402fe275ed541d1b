//! HTTP: routes, and nothing else. Handlers know actor *messages*, never actor structs' insides.

mod chat;
pub(crate) mod connection;
mod context;
pub mod cors;
mod encoding;
mod error;
mod extract;
mod health;
mod limits;
mod mcp;
pub(crate) mod metrics;
mod models;
mod responses;
pub mod state;
mod status;
mod stream;

pub(crate) use context::trace_context;

use actix_web::http::{Method, header};
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, Route, web};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::turn::Purpose;

/// Adds all routes. Called once per worker, since the upstream client belongs to a thread.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::scope("/v1")
                .wrap(from_fn(context::identify))
                .service(
                    web::resource("/responses")
                        .route(web::post().to(responses::create::handler(Purpose::Answer)))
                        .default_service(wrong_method("POST")),
                )
                .service(
                    web::resource("/responses/compact")
                        .route(web::post().to(responses::create::handler(Purpose::Compact)))
                        .default_service(wrong_method("POST")),
                )
                .service(
                    web::resource("/responses/input_tokens")
                        .route(web::post().to(responses::create::handler(Purpose::Count)))
                        .default_service(wrong_method("POST")),
                )
                .configure(stored_routes)
                .service(
                    web::resource("/models")
                        .route(web::get().to(models::list))
                        .default_service(wrong_method("GET")),
                )
                .service(
                    web::resource("/models/{id:.+}")
                        .route(web::get().to(models::one))
                        .default_service(wrong_method("GET")),
                )
                .configure(mcp_routes)
                .service(
                    web::resource("/chat/completions")
                        .route(web::post().to(chat::passthrough))
                        .default_service(wrong_method("POST")),
                )
                .service(
                    web::resource("/status")
                        .route(web::get().to(status::status))
                        .default_service(wrong_method("GET")),
                )
                .default_service(web::route().to(unknown_path)),
        )
        .route("/health", web::get().to(health::alive))
        .route("/health/ready", web::get().to(health::ready))
        .default_service(web::route().to(unknown_path));
}

fn stored_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/responses/{id}")
                .route(web::get().to(responses::get::get))
                .route(web::delete().to(responses::delete::delete))
                .default_service(wrong_method("GET, DELETE")),
        )
        .service(
            web::resource("/responses/{id}/cancel")
                .route(web::post().to(responses::get::cancel))
                .default_service(wrong_method("POST")),
        )
        .service(
            web::resource("/responses/{id}/input_items")
                .route(web::get().to(responses::input_items::list))
                .default_service(wrong_method("GET")),
        );
}

fn mcp_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/mcp/servers")
                .route(web::get().to(mcp::servers))
                .default_service(wrong_method("GET")),
        )
        .service(
            web::resource("/mcp/servers/{server_label}/tools")
                .route(web::get().to(mcp::tools))
                .default_service(wrong_method("GET")),
        );
}

async fn unknown_path(request: HttpRequest) -> HttpResponse {
    // Every SDK has these calls, so a client deserves to be told what to do instead.
    let message = if request.path().starts_with("/v1/conversations") {
        "conversations are not served: continue a response by `previous_response_id`"
    } else {
        "no such path"
    };
    error::answer(&ApiError::new(ApiErrorCode::NotFound, message))
}

/// For the other methods of a path that takes these.
fn wrong_method(taken: &'static str) -> Route {
    web::route().to(move |request, method| refuse_method(request, method, taken))
}

async fn refuse_method(request: HttpRequest, method: Method, taken: &'static str) -> HttpResponse {
    let message = if request.headers().contains_key(header::UPGRADE) {
        "WebSockets are not served: send `POST` with `stream`".to_owned()
    } else {
        format!("this path does not take `{method}`; it takes {taken}")
    };
    let mut refused = error::answer(&ApiError::new(ApiErrorCode::MethodNotAllowed, message));
    let taken = header::HeaderValue::from_static(taken);
    refused.headers_mut().insert(header::ALLOW, taken);
    refused
}
