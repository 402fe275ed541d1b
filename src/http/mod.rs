//! HTTP: routes, and nothing else. Handlers know actor *messages*, never actor structs' insides.

mod access;
mod chat;
pub(crate) mod connection;
mod context;
pub mod cors;
pub(crate) mod door;
mod encoding;
mod error;
mod extract;
mod health;
mod limits;
mod mcp;
pub(crate) mod metrics;
mod models;
mod passing;
mod paths;
mod responses;
pub mod state;
mod status;
mod stream;
mod whole;

pub(crate) use context::trace_context;

use actix_web::middleware::from_fn;
use actix_web::web;
use vllm_responses_protocol::turn::Purpose;

use paths::{reads, wrong_method};

/// Adds all routes. Called once per worker, since the upstream client belongs to a thread.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::scope("/v1")
                .wrap(from_fn(door::json_only))
                .wrap(from_fn(context::identify))
                .service(
                    web::resource("/responses")
                        .route(web::post().to(responses::create::handler(Purpose::Answer)))
                        .default_service(wrong_method()),
                )
                .service(
                    web::resource("/responses/compact")
                        .route(web::post().to(responses::create::handler(Purpose::Compact)))
                        .default_service(wrong_method()),
                )
                .service(
                    web::resource("/responses/input_tokens")
                        .route(web::post().to(responses::create::handler(Purpose::Count)))
                        .default_service(wrong_method()),
                )
                .configure(stored_routes)
                .service(
                    web::resource("/models")
                        .route(reads().to(models::list))
                        .default_service(wrong_method()),
                )
                .service(
                    web::resource("/models/{id:.+}")
                        .route(reads().to(models::one))
                        .default_service(wrong_method()),
                )
                .configure(mcp_routes)
                .service(
                    web::resource("/chat/completions")
                        .route(web::post().to(chat::passthrough))
                        .default_service(wrong_method()),
                )
                .service(
                    web::resource("/status")
                        .route(reads().to(status::status))
                        .default_service(wrong_method()),
                )
                .default_service(web::route().to(paths::unknown)),
        )
        .service(
            web::resource("/health")
                .route(reads().to(health::alive))
                .default_service(wrong_method()),
        )
        .service(
            web::resource("/health/ready")
                .route(reads().to(health::ready))
                .default_service(wrong_method()),
        )
        .default_service(web::route().to(paths::unknown));
}

fn stored_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/responses/{id}")
                .route(reads().to(responses::get::get))
                .route(web::delete().to(responses::delete::delete))
                .default_service(wrong_method()),
        )
        .service(
            web::resource("/responses/{id}/cancel")
                .route(web::post().to(responses::get::cancel))
                .default_service(wrong_method()),
        )
        .service(
            web::resource("/responses/{id}/input_items")
                .route(reads().to(responses::input_items::list))
                .default_service(wrong_method()),
        );
}

fn mcp_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/mcp/servers")
                .route(reads().to(mcp::servers))
                .default_service(wrong_method()),
        )
        .service(
            web::resource("/mcp/servers/{server_label}/tools")
                .route(reads().to(mcp::tools))
                .default_service(wrong_method()),
        );
}
