//! Which browsers may come in, and which bodies are taken. Pure, but for the two middlewares.
//!
//! A web page that somebody has open is a program on the inside of every firewall: it can send
//! requests to a gateway on that machine or in that network, and with a name of its own that points
//! there (DNS rebinding) read the answers. A gateway with API keys is safe from that, since no browser
//! adds the key by itself. Without keys, `Host` and `Origin` are looked at:
//!
//! - `Origin`, which browsers send with every POST: one that `gateway.cors_origins` lists, one of this
//!   machine (`localhost`, 127.0.0.0/8, `::1`), or the gateway's own by a name that no stranger can own.
//! - `Host`, since a page's own name can be made to point here: the same names. Of every request where
//!   the gateway listens on loopback only, and of every connection from this machine itself; of others,
//!   of reads of what is kept here. Their writes have an `Origin`.
//!
//! Names that no stranger can own are addresses, names without a dot, names under domains that the public
//! does not have (`localhost`, `internal`, `local`, those of a cluster ...), the name that the gateway is
//! bound to, and those of `gateway.allowed_hosts`.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, Uri};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use url::Url;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

use super::connection::FromHere;
use super::cors::CorsOrigins;
use super::error;
use super::state::AppState;

const HOST: &str = "this gateway is not known under the name in `Host`: use `localhost` or its address, or list \
     the name in `VR_ALLOWED_HOSTS`; a gateway with API keys takes every name";
const ORIGIN: &str =
    "web pages of this origin may not use the gateway: list it in `VR_CORS_ORIGINS`";
/// Ends that no public name has: reserved, never to be given out, or of clusters and homes.
const PRIVATE: [&str; 12] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "lan",
    "home",
    "corp",
    "test",
    "svc",
    "home.arpa",
];
/// What may be read under any name: nothing that anybody said is in it, and collectors and balancers
/// call by names.
const FREE: [&str; 2] = ["/metrics", "/v1/models"];
/// To who calls a service on loopback by another name.
pub(crate) const LOOPBACK_ONLY: &str = "this service listens on loopback only: call it by a name of loopback in `Host`, such as \
     `localhost` or 127.0.0.1";

/// What a request says of itself, and whether a program of this machine sent it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    from_here: bool,
}

/// Who may come in with which names.
#[derive(Clone, Debug)]
pub struct Door {
    cors: CorsOrigins,
    /// Names of the gateway, in lower case.
    names: Vec<String>,
    loopback: bool,
}

impl Door {
    /// The door of a gateway that is bound to `host` and may be called by the `allowed` names.
    pub fn new(host: &str, allowed: &[String], cors: CorsOrigins) -> Self {
        let mut names = allowed.to_vec();
        names.push(host.to_ascii_lowercase());
        Self {
            cors,
            names,
            loopback: is_loopback(host),
        }
    }

    /// # Errors
    /// What to tell a request that may come from a stranger's web page.
    fn judge(&self, asked: &Asked<'_>) -> Result<(), &'static str> {
        let Asked {
            method,
            uri,
            headers,
            from_here,
        } = *asked;
        if self.cors == CorsOrigins::Any {
            return Ok(());
        }
        let authority = uri.authority().map(Authority::as_str);
        let host = authority.or_else(|| text(headers, header::HOST));
        let is_near = self.loopback || from_here;
        let judged = is_near || (is_read(method) && !FREE.contains(&uri.path()));
        if judged && !host.is_some_and(|host| self.is_ours(name_of(host))) {
            return Err(HOST);
        }
        let mut origins = headers.get_all(header::ORIGIN);
        match (origins.next(), origins.next()) {
            (None, _) if is_cross_site(method, headers) => Err(ORIGIN),
            (None, _) => Ok(()),
            (Some(origin), None)
                if origin
                    .to_str()
                    .is_ok_and(|origin| self.lets_in(origin, host)) =>
            {
                Ok(())
            }
            (Some(_), _) => Err(ORIGIN),
        }
    }

    fn lets_in(&self, origin: &str, host: Option<&str>) -> bool {
        if let CorsOrigins::Listed(listed) = &self.cors
            && listed.iter().any(|one| one == origin)
        {
            return true;
        }
        let Ok(url) = Url::parse(origin) else {
            return false;
        };
        let Some(name) = url
            .host_str()
            .filter(|_| matches!(url.scheme(), "http" | "https"))
        else {
            return false;
        };
        // As `Host` writes it: without the port that goes without saying.
        let authority = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        is_loopback(name)
            || (host.is_some_and(|host| host.eq_ignore_ascii_case(&authority))
                && self.is_ours(name))
    }

    /// Whether no stranger can own this name.
    fn is_ours(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return false;
        }
        let is_under = |end: &&str| {
            let rest = name.strip_suffix(end);
            rest.is_some_and(|rest| rest.ends_with('.'))
        };
        is_address(&name)
            || !name.contains('.')
            || PRIVATE.iter().any(is_under)
            || self.names.contains(&name)
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Browsers of today send this even where they leave the origin out.
fn is_cross_site(method: &Method, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    !is_read(method)
        && site.is_some_and(|site| matches!(site.as_bytes(), b"cross-site" | b"same-site"))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The name of an authority, without its port.
fn name_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

fn ip(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

fn is_address(name: &str) -> bool {
    ip(name).is_some()
}

fn is_loopback(name: &str) -> bool {
    let local =
        name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    local || ip(name).is_some_and(|ip| ip.is_loopback())
}

/// Whether a request to a service that listens on loopback only names it so. A page that has pointed its
/// own name here says that name.
pub(crate) fn names_loopback(head: &RequestHead) -> bool {
    let authority = head.uri.authority().map(Authority::as_str);
    let host = authority.or_else(|| text(&head.headers, header::HOST));
    host.is_some_and(|host| is_loopback(name_of(host).trim_end_matches('.')))
}

/// Middleware outside of all handlers: turns strangers' web pages away. Probes of health pass: they
/// tell nothing, and come with any name.
pub(crate) async fn keep<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let state = request.app_data::<web::Data<AppState>>();
    let open = state.filter(|state| state.keys.borrow().is_none());
    let judged = open.map(|state| {
        let head = request.head();
        let from_here = request.conn_data::<FromHere>();
        state.door.judge(&Asked {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            from_here: from_here.is_some_and(|here| here.0),
        })
    });
    match judged {
        Some(Err(rule)) if !request.path().starts_with("/health") => {
            let error = ApiError::new(ApiErrorCode::Forbidden, rule);
            Ok(request
                .into_response(error::answer(&error))
                .map_into_right_body())
        }
        Some(_) | None => Ok(next.call(request).await?.map_into_left_body()),
    }
}

/// Middleware: a body is JSON and says so. Without a content type it is taken as JSON; what a page can
/// send without asking (a form, plain text) is refused, as vLLM refuses it.
pub(super) async fn json_only<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if request.method() == Method::POST
        && has_body(request.headers())
        && !is_json(request.headers())
    {
        let error = ApiError::new(
            ApiErrorCode::UnsupportedMediaType,
            "the body must be JSON and say so: send the header `Content-Type: application/json` \
             (curl: `-H 'content-type: application/json'`)",
        );
        return Ok(request
            .into_response(error::answer(&error))
            .map_into_right_body());
    }
    Ok(next.call(request).await?.map_into_left_body())
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0")
        || headers.contains_key(header::TRANSFER_ENCODING)
}

/// `application/json` or a kin of it (`application/...+json`), parameters aside.
fn is_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_TYPE).all(|value| {
        let value = value.to_str().unwrap_or("?").to_ascii_lowercase();
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    })
}
