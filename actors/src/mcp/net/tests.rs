//! Pinned connections, on a scripted network: what is judged is what is dialled.
//!
//! Mutation that makes the group fail: in `connect.rs`, dial a name without `to.addresses`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connect::{Connector, Dialer, Network, SystemNetwork};
use super::http::Http;
use super::sse::LegacySse;
use super::{Progress, Trouble};
use crate::mcp::guard::{AllowedHost, Guard, vet_headers};
use crate::secret::Secret;

/// Answers names by a script and notes every address that is dialled; all dials end at `real`.
#[derive(Debug)]
struct Scripted {
    script: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
    dialled: watch::Sender<Vec<SocketAddr>>,
    real: SocketAddr,
}

impl Scripted {
    fn new(script: &[&[&str]], real: SocketAddr) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self {
            script: script.iter().map(parse).collect(),
            asked: AtomicUsize::new(0),
            dialled: watch::Sender::new(Vec::new()),
            real,
        })
    }

    fn dialled(&self) -> Vec<String> {
        self.dialled
            .borrow()
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

impl Network for Scripted {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        // Public names are asked for with a dot, so that no search domain is tried.
        assert!(name.ends_with('.'), "{name}");
        let nth = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.script[nth.min(self.script.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        self.dialled.send_modify(|dialled| dialled.push(address));
        Box::pin(TcpStream::connect(self.real))
    }
}

fn client(guard: &Guard, network: Arc<dyn Network>, url: &str) -> Http {
    let connector = Connector {
        dialer: Arc::new(Dialer::new(network)),
        guard: Arc::new(guard.clone()),
        limit: Duration::from_secs(5),
        progress: Progress::default(),
    };
    let token = Secret::new("HUSH");
    let headers = vet_headers([], Some(&token)).unwrap();
    Http::new(connector, guard.vet(url).unwrap(), headers)
}

fn strict() -> Guard {
    Guard::Callers {
        allowed: Vec::new(),
        own_ports: Vec::new(),
    }
}

async fn get(http: &Http) -> Result<u16, Trouble> {
    let home = http.home().clone();
    let answer = http
        .send(Method::GET, &home, HeaderMap::new(), Bytes::new())
        .await;
    answer.map(|answer| answer.status().as_u16())
}

/// A listener that answers every connection with these bytes and notes what it was sent.
async fn serve(answer: String) -> (SocketAddr, watch::Receiver<String>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, heard) = watch::channel(String::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 65536];
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            seen.send_modify(|all| all.push_str(&String::from_utf8_lossy(&buffer[..count])));
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (address, heard, tasks)
}

#[tokio::test]
async fn names_are_judged_by_every_address_at_every_connection() {
    let (real, _heard, _tasks) = serve(String::new()).await;
    for answer in [
        &["127.0.0.1"][..],
        &["93.184.216.34", "127.0.0.1"],
        &["::ffff:10.0.0.1"],
        &["fd00::1"],
        &[],
        &["169.254.169.254"],
        &["64:ff9b::7f00:1"],
    ] {
        let network = Scripted::new(&[answer], real);
        let scripted: Arc<dyn Network> = Arc::<Scripted>::clone(&network);
        let http = client(&strict(), scripted, "https://mcp.example.com/mcp");
        let trouble = if answer.is_empty() {
            Trouble::NoName
        } else {
            Trouble::Refused
        };
        assert_eq!(get(&http).await, Err(trouble), "{answer:?}");
        assert!(network.dialled().is_empty(), "{answer:?}");
    }
    // Rebinding: public first, loopback second.
    let network = Scripted::new(&[&["93.184.216.34"], &["127.0.0.1"]], real);
    let scripted: Arc<dyn Network> = Arc::<Scripted>::clone(&network);
    let http = client(&strict(), scripted, "https://mcp.example.com/mcp");
    assert_eq!(get(&http).await, Err(Trouble::Tls));
    assert_eq!(get(&http).await, Err(Trouble::Refused));
    assert_eq!(
        network.dialled(),
        ["93.184.216.34:443"],
        "the judged address is the dialled one"
    );
}

/// A resolver that takes its time, or answers with more than anybody has.
#[derive(Debug)]
struct Excessive {
    wait: Duration,
    answer: Vec<IpAddr>,
    dialled: watch::Sender<Vec<SocketAddr>>,
}

impl Network for Excessive {
    fn resolve(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let (wait, answer) = (self.wait, self.answer.clone());
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            Ok(answer)
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        self.dialled.send_modify(|dialled| dialled.push(address));
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

#[tokio::test(start_paused = true)]
async fn slow_and_huge_answers_of_names_are_bounded() {
    let many: Vec<IpAddr> = (0..10_000_u32)
        .map(|at| IpAddr::V4((0x0808_0000 + at).into()))
        .collect();
    let mut one_private = many.clone();
    one_private.push("192.168.1.1".parse().unwrap());
    for (wait, answer, trouble, dialled) in [
        (60, many.clone(), Trouble::ConnectTimedOut, 0),
        (0, one_private, Trouble::Refused, 0),
        (
            0,
            many,
            Trouble::Unreachable(io::ErrorKind::ConnectionRefused),
            16,
        ),
    ] {
        let network = Arc::new(Excessive {
            wait: Duration::from_secs(wait),
            answer,
            dialled: watch::Sender::new(Vec::new()),
        });
        let shared: Arc<dyn Network> = Arc::<Excessive>::clone(&network);
        let http = client(&strict(), shared, "https://mcp.example.com/mcp");
        assert_eq!(get(&http).await, Err(trouble));
        assert_eq!(network.dialled.borrow().len(), dialled);
    }
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let (other, heard, _tasks) =
        serve("HTTP/1.1 200 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()).await;
    let redirect = format!(
        "HTTP/1.1 307 X\r\nlocation: http://{other}/next\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (first, first_heard, _more) = serve(redirect).await;
    let allowed = [first, other].map(|address| AllowedHost::parse(&address.to_string()).unwrap());
    let guard = Guard::Callers {
        allowed: allowed.to_vec(),
        own_ports: Vec::new(),
    };
    let http = client(
        &guard,
        Arc::new(SystemNetwork),
        &format!("http://{first}/mcp"),
    );
    let mut own = HeaderMap::new();
    own.insert("mcp-session-id", http::HeaderValue::from_static("SESSION"));
    let home = http.home().clone();
    let answer = http
        .send(Method::POST, &home, own, Bytes::from_static(b"{}"))
        .await;
    assert_eq!(answer.unwrap().status(), 200);
    assert!(first_heard.borrow().contains("HUSH") && first_heard.borrow().contains("SESSION"));
    let heard = heard.borrow().clone();
    assert!(
        heard.starts_with("POST /next") && heard.ends_with("{}"),
        "{heard}"
    );
    assert!(
        !heard.contains("HUSH") && !heard.contains("SESSION"),
        "{heard}"
    );
}

#[tokio::test]
async fn redirect_loops_and_chains_end() {
    for status in [301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} X\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let (address, _heard, _tasks) = serve(answer).await;
        let url = format!("http://{address}/");
        let http = client(&Guard::Operator, Arc::new(SystemNetwork), &url);
        let to = http.home().clone();
        let ended = http
            .send(Method::POST, &to, HeaderMap::new(), Bytes::new())
            .await;
        assert!(
            matches!(ended, Err(Trouble::Status(_))),
            "{status}: {ended:?}"
        );
    }
}

/// A server that redirects so many times and then answers.
async fn chain(status: u16, hops: usize) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut left = hops;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 65536];
            if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                continue;
            }
            let head = if left > 0 {
                format!("{status} X\r\nlocation: /{left}")
            } else {
                "200 X".to_owned()
            };
            left = left.saturating_sub(1);
            let answer =
                format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_fourth_is_not() {
    for status in [301, 302, 303, 307, 308] {
        for (hops, fits) in [(3, true), (4, false)] {
            let (address, _tasks) = chain(status, hops).await;
            let url = format!("http://{address}/");
            let http = client(&Guard::Operator, Arc::new(SystemNetwork), &url);
            let ended = get(&http).await;
            assert_eq!(ended.is_ok(), fits, "{status}, {hops}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn no_redirect_of_any_status_leads_to_a_private_address() {
    let allowed = |address: SocketAddr| Guard::Callers {
        allowed: vec![AllowedHost::parse(&address.to_string()).unwrap()],
        own_ports: Vec::new(),
    };
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = canary.local_addr().unwrap();
    for status in [301, 302, 303, 307, 308] {
        for target in [
            format!("http://{there}/"),
            format!("https://{there}/"),
            format!("//{there}/"),
            format!("https://localhost:{}/", there.port()),
        ] {
            let answer = format!(
                "HTTP/1.1 {status} X\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let (address, _heard, _tasks) = serve(answer).await;
            let url = format!("http://{address}/");
            let http = client(&allowed(address), Arc::new(SystemNetwork), &url);
            assert_eq!(get(&http).await, Err(Trouble::Refused), "{status} {target}");
        }
    }
    let touched = tokio::time::timeout(Duration::from_millis(100), canary.accept()).await;
    assert!(touched.is_err(), "the canary was touched");
}

#[tokio::test]
async fn a_legacy_endpoint_stays_on_its_origin() {
    for (endpoint, fits) in [
        ("/messages?id=1", true),
        ("http://127.0.0.1:1/messages", false),
        ("//127.0.0.2/messages", false),
        ("https://evil.example/messages", false),
    ] {
        let answer = format!(
            "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\nevent: endpoint\ndata: {endpoint}\n\n"
        );
        let (address, _heard, _tasks) = serve(answer).await;
        let url = format!("http://{address}/sse");
        let http = client(&Guard::Operator, Arc::new(SystemNetwork), &url);
        let opened = LegacySse::open(http).await;
        assert_eq!(opened.is_ok(), fits, "{endpoint}");
        if let Err(trouble) = opened {
            assert_eq!(trouble, Trouble::Refused);
        }
    }
}
