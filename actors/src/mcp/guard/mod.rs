//! Which addresses a caller may make the gateway connect to (faults.md section 10). Pure.
//!
//! A URL is parsed once, by the parser whose result is dialled, so no spelling means one thing here
//! and another there. [`Guard::vet`] judges the URL, [`Destination::addresses`] every address its name
//! resolves to, and the dialer connects to exactly those. All refusals are one and the same error: a
//! caller learns nothing of the networks behind the gateway.

mod address;
mod headers;
#[cfg(test)]
mod spellings;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use url::{Host, Url};

pub use address::is_public;
pub use headers::{CallerHeaders, vet_headers};

/// The one refusal: nothing in it says which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the MCP server's address is not allowed, or its host name cannot be found: it must be an `https` URL of a public host (check its spelling; the gateway's log has the reason); operators can allow others with `VR_MCP_REMOTE_ALLOWED_HOSTS`"
)]
pub struct Refused;

/// Ports below 1024 other than these have other services behind them.
const LOW_PORTS: [u16; 1] = [443];
/// Well-known ports of services that are not HTTP, or that act on requests without a login.
const OTHER_SERVICES: [u16; 24] = [
    1433, 1521, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5672, 5984, 6000, 6379,
    6667, 7001, 9042, 9092, 9200, 10250, 11211, 27017,
];
/// Longer URLs are refused unread.
const MAX_URL: usize = 2048;
/// Names that mean this machine or its neighbourhood whatever a resolver says.
const LOCAL_SUFFIXES: [&str; 9] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "home.arpa",
];

/// Exactly this host and port may be private and plain `http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    host: Host<String>,
    /// `None` is the default port of the scheme.
    port: Option<u16>,
}

impl AllowedHost {
    /// Reads `host` or `host:port`; IPv6 addresses in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let clean = text.bytes().all(|byte| byte.is_ascii_graphic())
            && !text.contains(['/', '\\', '@', '?', '#', '%', ',', '*']);
        if !clean {
            return None;
        }
        let url = Url::parse(&format!("https://{text}/")).ok()?;
        let written = text.rsplit_once(']').map_or(text, |(_, rest)| rest);
        let port = match written.rsplit_once(':') {
            Some((_, port)) => Some(port.parse().ok().filter(|port| *port > 0)?),
            None => None,
        };
        Some(Self {
            host: host_of(&url)?,
            port,
        })
    }

    fn is(&self, host: &Host<String>, url: &Url) -> bool {
        let default = if url.scheme() == "https" { 443 } else { 80 };
        self.host == *host && url.port_or_known_default() == Some(self.port.unwrap_or(default))
    }
}

/// What a guard lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// URLs of callers: public `https`, and what the operator has allowed.
    Callers {
        /// Exceptions.
        allowed: Vec<AllowedHost>,
        /// Ports of this gateway, never dialled.
        own_ports: Vec<u16>,
    },
    /// URLs of the operator, or of callers with the checks off: any `http` or `https` URL.
    Operator,
}

/// Which addresses a host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public ones.
    Public,
    /// Any.
    Any,
}

/// A URL that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The URL, without userinfo and fragment.
    pub url: Url,
    /// Its host.
    pub host: Host<String>,
    /// Its port.
    pub port: u16,
    /// Which addresses the host may have.
    pub reach: Reach,
}

impl Guard {
    /// Judges a URL as it was written.
    ///
    /// # Errors
    /// [`Refused`], for whatever reason.
    pub fn vet(&self, text: &str) -> Result<Destination, Refused> {
        if !is_plain(text) {
            return Err(Refused);
        }
        let mut url = Url::parse(text).map_err(|_malformed| Refused)?;
        url.set_fragment(None);
        self.vet_url(url)
    }

    /// Why [`Guard::vet`] refuses this URL, for the operator's log; nothing of the URL is in it.
    pub fn reason(&self, text: &str) -> &'static str {
        let Some(url) = Url::parse(text).ok().filter(|_| is_plain(text)) else {
            return "it is no URL that can be read, or has a user name in it";
        };
        let port = url.port_or_known_default().unwrap_or(0);
        let Self::Callers { own_ports, .. } = self else {
            return "it is no `http` or `https` URL without a user name";
        };
        if url.scheme() != "https" {
            "it is not `https`"
        } else if own_ports.contains(&port) {
            "its port is the gateway's own"
        } else if !port_is_open(port) {
            "its port is one of other services"
        } else if host_of(&url).is_some_and(|host| !host_is_public(&host)) {
            "its host is not public"
        } else {
            "it has no host, or is too long"
        }
    }

    /// Judges where a redirect or an `endpoint` event of `from` leads.
    ///
    /// # Errors
    /// [`Refused`]; also when `https` would become `http`.
    pub fn vet_location(&self, from: &Url, location: &str) -> Result<Destination, Refused> {
        if location.len() > MAX_URL || !location.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refused);
        }
        let mut url = from.join(location).map_err(|_malformed| Refused)?;
        url.set_fragment(None);
        if from.scheme() == "https" && url.scheme() != "https" {
            return Err(Refused);
        }
        self.vet_url(url)
    }

    fn vet_url(&self, url: Url) -> Result<Destination, Refused> {
        let bare = url.username().is_empty() && url.password().is_none();
        let host = host_of(&url).ok_or(Refused)?;
        let port = url
            .port_or_known_default()
            .filter(|port| *port > 0)
            .ok_or(Refused)?;
        let http = matches!(url.scheme(), "http" | "https");
        if !bare || !http || url.as_str().len() > MAX_URL {
            return Err(Refused);
        }
        let reach = match self {
            Self::Operator => Reach::Any,
            Self::Callers { allowed, .. } if allowed.iter().any(|entry| entry.is(&host, &url)) => {
                Reach::Any
            }
            Self::Callers { own_ports, .. } => {
                let fits = url.scheme() == "https"
                    && port_is_open(port)
                    && !own_ports.contains(&port)
                    && host_is_public(&host);
                if !fits {
                    return Err(Refused);
                }
                Reach::Public
            }
        };
        Ok(Destination {
            url,
            host,
            port,
            reach,
        })
    }
}

impl Destination {
    /// Judges what the host resolves to: with [`Reach::Public`] every address must be public.
    ///
    /// # Errors
    /// [`Refused`]; also when there is none, so that unknown names and private ones look the same.
    pub fn addresses(&self, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Refused> {
        let fits = match self.reach {
            Reach::Public => found.iter().all(|address| is_public(*address)),
            Reach::Any => true,
        };
        if found.is_empty() || !fits {
            return Err(Refused);
        }
        Ok(found)
    }

    /// Whether credentials meant for `self` may go to `other`: same scheme, host and port.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.url.scheme() == other.url.scheme()
            && self.host == other.host
            && self.port == other.port
    }
}

/// Text without anything that parsers read differently: only visible ASCII, or letters of names that
/// IDNA will judge; no backslash, no userinfo, no escapes in the authority.
fn is_plain(text: &str) -> bool {
    let visible = |character: char| {
        !character.is_control() && !character.is_whitespace() && character != '\\'
    };
    if text.len() > MAX_URL || !text.chars().all(visible) {
        return false;
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !authority.is_empty()
        && !authority.contains(['@', '%'])
}

/// The host, domains without a trailing dot; `None` for none or an empty one.
fn host_of(url: &Url) -> Option<Host<String>> {
    match url.host()? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            let whole = !name.is_empty() && name.split('.').all(|label| !label.is_empty());
            whole.then(|| Host::Domain(name.to_owned()))
        }
        Host::Ipv4(address) => Some(Host::Ipv4(address)),
        Host::Ipv6(address) => Some(Host::Ipv6(address)),
    }
}

fn port_is_open(port: u16) -> bool {
    (port >= 1024 || LOW_PORTS.contains(&port)) && !OTHER_SERVICES.contains(&port)
}

/// Names must have a dot, so that no search domain is tried, and must not be local ones.
fn host_is_public(host: &Host<String>) -> bool {
    match host {
        Host::Domain(name) => {
            let local = |suffix: &&str| {
                name == *suffix
                    || name
                        .strip_suffix(*suffix)
                        .is_some_and(|rest| rest.ends_with('.'))
            };
            name.contains('.') && !LOCAL_SUFFIXES.iter().any(local)
        }
        Host::Ipv4(address) => is_public(IpAddr::V4(*address)),
        Host::Ipv6(address) => is_public(IpAddr::V6(*address)),
    }
}
