//! What each request may, by its names.

use super::*;

fn door(host: &str, cors: CorsOrigins) -> Door {
    Door::new(host, &["gateway.corp.example".to_owned()], cors)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let value = header::HeaderValue::from_str(value).unwrap();
        headers.append(header::HeaderName::from_static(name), value);
    }
    headers
}

fn opens(door: &Door, pairs: &[(&'static str, &str)]) -> bool {
    judged(door, &Uri::from_static("/v1/responses"), pairs, false)
}

#[expect(
    clippy::fn_params_excessive_bools,
    reason = "it is a member of what is judged"
)]
fn judged(door: &Door, uri: &Uri, pairs: &[(&'static str, &str)], from_here: bool) -> bool {
    let asked = Asked {
        method: &Method::POST,
        uri,
        headers: &headers(pairs),
        from_here,
    };
    door.judge(&asked).is_ok()
}

#[test]
fn a_loopback_gateway_is_called_by_its_own_names_only() {
    let door = door("127.0.0.1", CorsOrigins::None);
    for host in [
        "localhost",
        "LOCALHOST:5969",
        "127.0.0.1:5969",
        "127.8.8.8",
        "[::1]:5969",
        "app.localhost:1",
        "devbox",
        "10.0.0.7:80",
        "gateway.corp.example:5969",
        "Gateway.Corp.Example.",
    ] {
        assert!(opens(&door, &[("host", host)]), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:5969",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "corp.example",
        "",
        ".",
        "evil.example/.localhost",
        "evil.example@localhost",
    ] {
        assert!(!opens(&door, &[("host", host)]), "{host}");
    }
    assert!(!opens(&door, &[]));
    let absolute = Uri::from_static("http://evil.example/v1/models");
    assert!(!judged(&door, &absolute, &[("host", "localhost")], false));
}

#[test]
fn of_this_machine_itself_only_own_names_come_whatever_the_address() {
    let door = door("0.0.0.0", CorsOrigins::None);
    let uri = Uri::from_static("/v1/models");
    for host in [
        "localhost:5969",
        "10.0.0.7",
        "devbox",
        "gateway.corp.example",
    ] {
        assert!(judged(&door, &uri, &[("host", host)], true), "{host}");
    }
    let rebound = [("host", "evil.example:5969")];
    assert!(!judged(&door, &uri, &rebound, true));
    assert!(!judged(&door, &uri, &[], true));
    assert!(judged(&door, &uri, &rebound, false));
}

/// The fault: what a gateway on all addresses keeps could be read by a page in a browser of another
/// machine, under a name that its owner had pointed to the gateway.
#[test]
fn what_is_kept_is_read_under_own_names_only_from_other_machines_too() {
    let door = door("0.0.0.0", CorsOrigins::None);
    let reads = |path: &'static str, host: &str| {
        let headers = headers(&[("host", host)]);
        [Method::GET, Method::HEAD].map(|method| {
            let asked = Asked {
                method: &method,
                uri: &Uri::from_static(path),
                headers: &headers,
                from_here: false,
            };
            door.judge(&asked).is_ok()
        })
    };
    for path in [
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/input_items",
        "/v1/status",
        "/v1/mcp/servers",
        "/v1/containers/c/files",
        "/",
    ] {
        assert_eq!(reads(path, "evil.example:5969"), [false; 2], "{path}");
        for host in [
            "local.evil.example",
            "evillocal.example",
            "1.2.in-addr.arpa",
        ] {
            assert_eq!(reads(path, host), [false; 2], "{path} {host}");
        }
        for host in [
            "10.0.0.7:5969",
            "[fd00::1]:5969",
            "gpu1:5969",
            "gpu1.local",
            "vllm.prod.svc.cluster.local:5969",
            "vllm.prod.svc",
            "metadata.google.internal",
            "gateway.corp.example",
        ] {
            assert_eq!(reads(path, host), [true; 2], "{path} {host}");
        }
    }
    for path in ["/metrics", "/v1/models"] {
        assert_eq!(reads(path, "gpu1.example.com"), [true; 2], "{path}");
    }
}

#[test]
fn a_service_on_loopback_is_called_by_names_of_loopback_only() {
    let names = |host: &str| {
        let mut head = RequestHead::default();
        let value = header::HeaderValue::from_str(host).unwrap();
        head.headers.insert(header::HOST, value);
        names_loopback(&head)
    };
    for host in ["localhost:5970", "127.0.0.1", "[::1]:5970", "Localhost."] {
        assert!(names(host), "{host}");
    }
    for host in [
        "evil.example:5970",
        "10.0.0.7",
        "devbox",
        "127.0.0.1.evil.example",
        "",
    ] {
        assert!(!names(host), "{host}");
    }
    assert!(!names_loopback(&RequestHead::default()));
}

#[test]
fn elsewhere_the_host_is_free_and_the_origin_is_not() {
    let door = door("0.0.0.0", CorsOrigins::None);
    let host = ("host", "llm.example:5969");
    assert!(opens(&door, &[host]));
    for origin in [
        "http://evil.example",
        "null",
        "https://llm.example:5969",
        "http://llm.example:5969",
        "file://",
        "chrome-extension://abc",
        "http://localhost.evil.example",
        "",
    ] {
        assert!(!opens(&door, &[host, ("origin", origin)]), "{origin}");
    }
    for origin in [
        "http://localhost:3000",
        "http://127.0.0.1",
        "http://[::1]:1",
    ] {
        assert!(opens(&door, &[host, ("origin", origin)]), "{origin}");
    }
    let own = ("host", "gateway.corp.example");
    assert!(opens(
        &door,
        &[own, ("origin", "https://gateway.corp.example")]
    ));
    let by_address = ("host", "10.1.1.1:5969");
    assert!(opens(
        &door,
        &[by_address, ("origin", "http://10.1.1.1:5969")]
    ));
    assert!(!opens(
        &door,
        &[by_address, ("origin", "http://10.1.1.2:5969")]
    ));
    let twice = [
        host,
        ("origin", "http://localhost"),
        ("origin", "http://localhost"),
    ];
    assert!(!opens(&door, &twice));
    assert!(!opens(&door, &[host, ("sec-fetch-site", "cross-site")]));
    assert!(opens(&door, &[host, ("sec-fetch-site", "none")]));
}

#[test]
fn listed_pages_come_in_and_a_star_opens_the_door() {
    let page = "https://app.example.com";
    let listed = door("127.0.0.1", CorsOrigins::Listed(vec![page.to_owned()]));
    let local = ("host", "localhost");
    assert!(opens(&listed, &[local, ("origin", page)]));
    assert!(!opens(
        &listed,
        &[local, ("origin", "https://app.example.com.evil.example")]
    ));
    let any = door("127.0.0.1", CorsOrigins::Any);
    assert!(opens(
        &any,
        &[("host", "x.example"), ("origin", "https://y.example")]
    ));
}

#[test]
fn json_is_known_by_its_name() {
    for kind in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/vnd.api+json",
    ] {
        assert!(is_json(&headers(&[("content-type", kind)])), "{kind}");
    }
    assert!(is_json(&headers(&[])));
    for kind in [
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "application/jsonp",
        "text/plain; x=application/json",
    ] {
        assert!(!is_json(&headers(&[("content-type", kind)])), "{kind}");
    }
    let both = [
        ("content-type", "application/json"),
        ("content-type", "text/plain"),
    ];
    assert!(!is_json(&headers(&both)));
}
