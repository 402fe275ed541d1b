//! The list of section 10, case by case, and a hundred thousand spellings of one.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::spellings::refused_url;
use super::*;

fn strict() -> Guard {
    Guard::Callers {
        allowed: Vec::new(),
        own_ports: vec![5969],
    }
}

fn allowing(entries: &[&str]) -> Guard {
    Guard::Callers {
        allowed: entries
            .iter()
            .map(|entry| AllowedHost::parse(entry).unwrap())
            .collect(),
        own_ports: Vec::new(),
    }
}

#[test]
fn ordinary_servers_are_let_through() {
    for (text, port) in [
        ("https://mcp.example.com/mcp", 443),
        ("https://mcp.example.com./mcp", 443),
        ("https://MCP.example.com:8443/a?b=c", 8443),
        ("https://b\u{fc}cher.example/mcp", 443),
        ("https://8.8.8.8/", 443),
        ("https://[2606:4700::1111]/", 443),
        ("https://127.0.0.1.example.com/", 443),
    ] {
        let destination = strict().vet(text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(destination.port, port);
        assert_eq!(destination.reach, Reach::Public);
    }
}

#[test]
fn scheme_and_shape() {
    for text in [
        "http://example.com/",
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "unix:/run/x",
        "ws://example.com/",
        "data:text/plain,x",
        "https://",
        "https:///x",
        "https:example.com",
        "//example.com/",
        "example.com",
        "",
        "https://exa mple.com/",
        "https://example.com\t/",
        "https://exam\nple.com/",
        "https://example.com\\@127.0.0.1/",
        "https://example%00.com/",
        "https://example%2ecom/",
        "https://127%2e0.0.1/",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:25/",
        "https://example.com:80/",
        "https://example.com:5432/",
        "https://example.com:6379/",
        "https://example.com:5969/",
        "https://example.com:65536/",
        "https://example.com:4x/",
        "https://./",
        "https://.example.com/",
        "https://a..example.com/",
        "https://com/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://*/",
    ] {
        assert_eq!(strict().vet(text), Err(Refused), "{text:?}");
    }
    let long = format!("https://example.com/{}", "a".repeat(2048));
    assert_eq!(strict().vet(&long), Err(Refused));
}

#[test]
fn userinfo_and_parser_confusion() {
    for text in [
        "https://good@127.0.0.1/",
        "https://good@example.com/",
        "https://good:pw@example.com/",
        "https://127.0.0.1#@good/",
        "https://good\\@127.0.0.1/",
        "https://a@b@127.0.0.1/",
        "https://good%40127.0.0.1/",
        "https://@example.com/",
        "https://127.0.0.1:443@example.com/",
        "https://127.0.0.1?@example.com/",
    ] {
        assert_eq!(strict().vet(text), Err(Refused), "{text:?}");
    }
}

#[test]
fn one_hundred_thousand_spellings_are_refused() {
    let mut runner = TestRunner::new(Config {
        cases: 100_000,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&refused_url(), |url| {
        prop_assert_eq!(strict().vet(&url), Err(Refused), "{}", url);
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[test]
fn resolved_addresses_are_all_judged() {
    let destination = strict().vet("https://mcp.example.com/").unwrap();
    let addresses = |list: &[&str]| {
        let list = list.iter().map(|text| text.parse().unwrap()).collect();
        destination.addresses(list)
    };
    assert!(addresses(&["93.184.216.34", "2606:4700::1111"]).is_ok());
    assert_eq!(addresses(&[]), Err(Refused));
    assert_eq!(addresses(&["93.184.216.34", "127.0.0.1"]), Err(Refused));
    assert_eq!(addresses(&["::ffff:10.0.0.1"]), Err(Refused));
}

#[test]
fn allowed_hosts_are_exact() {
    let guard = allowing(&["127.0.0.1:9000", "mcp.corp", "[::1]:7000"]);
    for text in [
        "http://127.0.0.1:9000/mcp",
        "https://127.0.0.1:9000/mcp",
        "http://mcp.corp/",
        "https://MCP.corp./",
        "http://[::1]:7000/",
        "http://2130706433:9000/",
    ] {
        let destination = guard.vet(text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(destination.reach, Reach::Any);
        assert!(
            destination
                .addresses(vec!["127.0.0.1".parse().unwrap()])
                .is_ok()
        );
    }
    for text in [
        "http://127.0.0.1:9001/",
        "http://127.0.0.1/",
        "http://127.0.0.2:9000/",
        "http://mcp.corp:8080/",
        "http://a.mcp.corp/",
        "http://[::1]:7001/",
        "http://u@127.0.0.1:9000/",
        "ftp://mcp.corp/",
    ] {
        assert_eq!(guard.vet(text), Err(Refused), "{text}");
    }
    for entry in [
        "", "a b", "a/b", "u@a", "a:0", "a:x", "a:1:2", "http://a", "a,b",
    ] {
        assert_eq!(AllowedHost::parse(entry), None, "{entry:?}");
    }
}

#[test]
fn redirects_are_judged_like_urls() {
    let guard = strict();
    let from = guard.vet("https://mcp.example.com/mcp").unwrap();
    let other = guard
        .vet_location(&from.url, "https://other.example.com/")
        .unwrap();
    assert!(!from.same_origin(&other));
    assert!(from.same_origin(&guard.vet_location(&from.url, "/v2?x#y").unwrap()));
    for location in [
        "http://mcp.example.com/mcp",
        "https://127.0.0.1/",
        "//127.0.0.1/",
        "//localhost",
        "file:///x",
        "https://u@mcp.example.com/",
        "https://2130706433/",
        "/a b",
        "https://[::1]/",
    ] {
        assert_eq!(
            guard.vet_location(&from.url, location),
            Err(Refused),
            "{location}"
        );
    }
    let open = Guard::Operator.vet("https://127.0.0.1/").unwrap();
    assert_eq!(
        Guard::Operator.vet_location(&open.url, "http://127.0.0.1/"),
        Err(Refused)
    );
}

#[test]
fn one_error_for_everything() {
    let text = Refused.to_string();
    assert!(text.contains("VR_MCP_REMOTE_ALLOWED_HOSTS"));
    assert!(!text.contains("example"));
}

/// The fault: clients were told that the log has the reason, and it had none.
#[test]
fn the_log_has_the_reason() {
    let guard = Guard::Callers {
        allowed: Vec::new(),
        own_ports: vec![5969],
    };
    for (url, reason) in [
        (
            "nonsense CANARY",
            "it is no URL that can be read, or has a user name in it",
        ),
        (
            "https://u:CANARY@h.example/",
            "it is no URL that can be read, or has a user name in it",
        ),
        ("http://h.example/CANARY", "it is not `https`"),
        ("https://h.example:5969/", "its port is the gateway's own"),
        (
            "https://h.example:444/",
            "its port is one of other services",
        ),
        ("https://10.0.0.1/CANARY", "its host is not public"),
        ("https://CANARY.internal/", "its host is not public"),
    ] {
        assert_eq!(guard.vet(url), Err(Refused), "{url}");
        assert_eq!(guard.reason(url), reason, "{url}");
    }
}
