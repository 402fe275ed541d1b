//! Which web pages may use the gateway from a browser (CORS). Off, no header is added at all.

use actix_cors::Cors;
use actix_web::http::Method;
use actix_web::middleware::Condition;

/// How long a browser may remember what it was allowed, in seconds.
const MAX_AGE: usize = 3600;

/// The pages that browsers let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// None but those of the gateway's own origin.
    None,
    /// Every one.
    Any,
    /// These, each spelled as browsers send it.
    Listed(Vec<String>),
}

/// The middleware outside of all handlers: it answers preflights before a key is asked for, and
/// errors carry its headers too. Credentials are never allowed: the gateway knows no cookies, a key is a header that
/// the page sets itself.
pub(crate) fn middleware(origins: &CorsOrigins) -> Condition<Cors> {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_any_header()
        .expose_any_header()
        .max_age(MAX_AGE);
    match origins {
        CorsOrigins::None => Condition::new(false, cors),
        CorsOrigins::Any => Condition::new(true, cors.allow_any_origin().send_wildcard()),
        CorsOrigins::Listed(origins) => {
            let cors = origins
                .iter()
                .fold(cors, |cors, origin| cors.allowed_origin(origin));
            Condition::new(true, cors)
        }
    }
}
