//! F10: whatever the guard of MCP URLs lets through, the connector's address is public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};
use vllm_responses_actors::mcp::guard::{Destination, Guard, Reach};

use crate::halves;

/// Written anew, from the registries, so that it does not err where the guard errs.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            let [head @ .., high, low] = address.segments();
            let inside = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
            match head {
                [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => is_public_v4(inside),
                _ => is_public_v6(address),
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let unicast = a & 0xe000 == 0x2000;
    let special = a == 0x2002 || (a == 0x2001 && b < 0x200) || (a == 0x2001 && b == 0xdb8);
    unicast && !special && !(a == 0x3fff && b < 0x1000)
}

fn caller() -> Guard {
    Guard::Callers {
        allowed: Vec::new(),
        own_ports: vec![5969],
    }
}

/// The first part is a URL; the second is where it redirects to, and what its name resolves to.
pub fn check(bytes: &[u8]) {
    let (text, rest) = halves(bytes);
    let guard = caller();
    if let Ok(text) = std::str::from_utf8(text)
        && let Ok(destination) = guard.vet(text)
    {
        assert_safe(&destination, rest);
        let again = guard.vet(destination.url.as_str());
        assert_eq!(Ok(destination), again, "judged twice alike");
    }
    let from = Url::parse("https://mcp.example.com/a/b").expect("a URL");
    if let Ok(location) = std::str::from_utf8(rest)
        && let Ok(destination) = guard.vet_location(&from, location)
    {
        assert_safe(&destination, text);
    }
}

fn assert_safe(destination: &Destination, answers: &[u8]) {
    assert_eq!(destination.reach, Reach::Public);
    let url = &destination.url;
    assert_eq!(url.scheme(), "https");
    assert!(url.username().is_empty() && url.password().is_none());
    assert!(destination.port == 443 || destination.port >= 1024);
    assert_ne!(destination.port, 5969, "the gateway's own");
    assert_host(&destination.host);
    assert_judges_answers(destination, answers);
}

fn assert_host(host: &Host<String>) {
    match host {
        Host::Ipv4(address) => assert!(is_public((*address).into()), "{address}"),
        Host::Ipv6(address) => assert!(is_public((*address).into()), "{address}"),
        Host::Domain(name) => {
            assert!(name.parse::<IpAddr>().is_err(), "{name} is an address");
            let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or("");
            assert!(!last.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
            assert_ne!(last, "localhost", "{name}");
        }
    }
}

/// A resolver may say anything.
fn assert_judges_answers(destination: &Destination, answers: &[u8]) {
    let mut found: Vec<IpAddr> = Vec::new();
    for answer in answers.chunks(17) {
        if let Some(octets) = answer.first_chunk::<16>() {
            found.push(Ipv6Addr::from(*octets).into());
        } else if let Some(octets) = answer.first_chunk::<4>() {
            found.push(Ipv4Addr::from(*octets).into());
        }
    }
    let all_public = found.iter().all(|address| is_public(*address));
    if let Ok(dialled) = destination.addresses(found.clone()) {
        assert!(all_public, "{dialled:?}");
        assert_eq!(dialled, found, "exactly what was judged");
    }
}
