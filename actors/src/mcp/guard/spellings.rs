//! Every way we know to write an address that a guard must refuse, made at random.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

/// Addresses that are not public, from all ranges.
fn private_v4() -> impl Strategy<Value = Ipv4Addr> {
    let within = |first: [u8; 4], length: u32| {
        any::<u32>().prop_map(move |bits| {
            let mask = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from_bits(Ipv4Addr::from(first).to_bits() | (bits & mask))
        })
    };
    prop_oneof![
        Just(Ipv4Addr::LOCALHOST),
        Just(Ipv4Addr::UNSPECIFIED),
        Just(Ipv4Addr::new(169, 254, 169, 254)),
        Just(Ipv4Addr::new(100, 100, 100, 200)),
        within([127, 0, 0, 0], 8),
        within([10, 0, 0, 0], 8),
        within([172, 16, 0, 0], 12),
        within([192, 168, 0, 0], 16),
        within([100, 64, 0, 0], 10),
        within([169, 254, 0, 0], 16),
        within([198, 18, 0, 0], 15),
        within([224, 0, 0, 0], 3),
        within([0, 0, 0, 0], 8),
    ]
}

/// One number in one of the bases that address parsers take.
fn number(value: u32, style: u8) -> String {
    match style % 5 {
        0 => format!("{value}"),
        1 => format!("0x{value:x}"),
        2 => format!("0X{value:X}"),
        3 => format!("0{value:o}"),
        _ => format!("0x{value:08x}"),
    }
}

/// One to four parts, each in a base of its own.
fn parts(address: Ipv4Addr, count: u8, styles: [u8; 4]) -> String {
    let octets = address.octets().map(u32::from);
    let part = |at: usize| number(octets[at], styles[at]);
    // The last part takes all bytes that are left.
    let rest = |at: usize| number(address.to_bits() & (u32::MAX >> (8 * at)), styles[at]);
    match count % 4 {
        0 => rest(0),
        1 => format!("{}.{}", part(0), rest(1)),
        2 => format!("{}.{}.{}", part(0), part(1), rest(2)),
        _ => format!("{}.{}.{}.{}", part(0), part(1), part(2), rest(3)),
    }
}

/// The characters of an address as other ones that name preparation maps to them.
fn disguise(text: &str, style: u8) -> String {
    let map = |character: char| match (character, style % 6) {
        ('0'..='9', 1) => char::from_u32(u32::from(character) - 0x30 + 0xff10).unwrap_or('0'),
        ('.', 2) => '\u{3002}',
        ('.', 3) => '\u{ff0e}',
        ('0'..='9', 4) => char::from_u32(u32::from(character) - 0x30 + 0x1d7d8).unwrap_or('0'),
        _ => character,
    };
    if style % 6 == 5 {
        return text.bytes().fold(String::new(), |escaped, byte| {
            format!("{escaped}%{byte:02x}")
        });
    }
    text.chars().map(map).collect()
}

fn v4_host() -> impl Strategy<Value = String> {
    (
        private_v4(),
        any::<u8>(),
        any::<[u8; 4]>(),
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(|(address, count, styles, disguised, dotted)| {
            let dot = if dotted { "." } else { "" };
            disguise(
                &format!("{}{dot}", parts(address, count, styles)),
                disguised,
            )
        })
}

fn v6_host() -> impl Strategy<Value = String> {
    (private_v4(), any::<u128>(), 0u8..12, any::<bool>()).prop_map(|(v4, bits, kind, long)| {
        let low = u128::from(v4.to_bits());
        let address = Ipv6Addr::from_bits(match kind {
            0 => 1,
            1 => 0,
            2 => 0xffff << 32 | low,
            3 => low,
            4 => 0x0064_ff9b << 96 | low,
            5 => 0x2002 << 112 | low << 80 | bits & 0xffff_ffff,
            6 => 0x2001_0000 << 96 | bits >> 32,
            7 => 0xfe80 << 112 | bits >> 16,
            8 => 0xfc00 << 112 | bits >> 7,
            9 => 0xff00 << 112 | bits >> 8,
            10 => 0x2001_0db8 << 96 | bits >> 32,
            _ => 0x0064_ff9b_0001 << 80 | bits >> 48,
        });
        let text = if long {
            let groups = address.segments().map(|group| format!("{group:04X}"));
            groups.join(":")
        } else if kind == 2 {
            format!("::ffff:{v4}")
        } else {
            address.to_string()
        };
        format!("[{text}]")
    })
}

fn name_host() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "localhost",
        "LOCALHOST",
        "LocalHost.",
        "a.localhost",
        "ip6-localhost",
        "ip6-loopback",
        "printer.local",
        "db.internal",
        "metadata",
        "metadata.google.internal",
        "host.lan",
        "x.home.arpa",
        "\u{24db}ocalhost",
        "loc\u{ad}alhost",
        "localhost\u{3002}",
    ]);
    names.prop_map(ToOwned::to_owned)
}

/// A URL that must not be dialled.
pub(super) fn refused_url() -> impl Strategy<Value = String> {
    let host = prop_oneof![6 => v4_host(), 4 => v6_host(), 1 => name_host()];
    // Mostly none: with userinfo every host is refused, and the test would say little.
    let before = prop_oneof![
        20 => Just(""),
        1 => prop::sample::select(vec!["good@", "good:pw@", "example.com%40"]),
    ];
    let after = prop::sample::select(vec![
        "",
        ":443",
        ":8443",
        "/mcp",
        "/?q",
        "#@example.com/",
        "/@example.com",
    ]);
    let scheme = prop::sample::select(vec!["https", "HTTPS", "hTTps"]);
    (scheme, before, host, after)
        .prop_map(|(scheme, before, host, after)| format!("{scheme}://{before}{host}{after}"))
}
