//! Every framing of an answer, cut everywhere, with anything before and behind it.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::exchange::{Connection, Exchange, Failure};
use super::frame::Framing;
use super::head::{HeadReader, Malformed};
use super::pool::Pool;
use super::{Payload, Request, SendError, Unread};

fn head(text: &str) -> Result<Option<(u16, Framing, bool)>, Malformed> {
    let mut bytes = BytesMut::from(text);
    let head = HeadReader::default().read(&mut bytes)?;
    Ok(head.map(|head| (head.status, head.framing, head.persistent)))
}

#[test]
fn what_a_head_says() {
    let all = Framing::UntilClose;
    let chunked = Framing::chunked();
    for (lines, expected) in [
        ("HTTP/1.1 200 OK\r\n", (200, all, false)),
        (
            "HTTP/1.1 200\r\ncontent-length: 5\r\n",
            (200, Framing::Length(5), true),
        ),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n",
            (200, Framing::Length(5), false),
        ),
        (
            "\r\n\r\nHTTP/1.1 204 x\r\ncontent-length: 5\r\n",
            (204, Framing::Length(0), true),
        ),
        ("HTTP/1.1 304 x\r\n", (304, Framing::Length(0), true)),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n",
            (200, Framing::Length(5), true),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n",
            (200, chunked, true),
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n",
            (200, chunked, false),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n",
            (200, chunked, false),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: x, Close\r\n",
            (200, Framing::Length(1), false),
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nlink: a\r\n\r\nHTTP/1.1 500 OK\r\n",
            (500, all, false),
        ),
        (
            "HTTP/1.1 200 OK\nx: y\ncontent-length: 1\n",
            (200, Framing::Length(1), true),
        ),
    ] {
        assert_eq!(head(&format!("{lines}\r\n")), Ok(Some(expected)), "{lines}");
    }
}

#[test]
fn heads_that_are_none() {
    for bad in [
        "SSH-2.0",
        "HTTP/2 200 OK\r\n\r\n",
        "<html>",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ] {
        assert_eq!(head(bad), Err(Malformed), "{bad}");
    }
    assert_eq!(
        head(&format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(70_000))),
        Err(Malformed)
    );
    assert_eq!(head("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 O"), Ok(None));
}

#[test]
fn a_request_is_written_once_and_never_split() {
    let request = Request::post("/v1/x?y=1", Bytes::from_static(b"body")).header("accept", "a");
    let head = |request: &Request, again: &str| {
        let head = request.head("host:1", again);
        head.map(|head| String::from_utf8_lossy(&head).into_owned())
    };
    let expected = |id: &str| {
        format!(
            "POST /v1/x?y=1 HTTP/1.1\r\nhost: host:1\r\nuser-agent: vllm-responses\r\n\
             accept: a\r\n{id}content-length: 4\r\n\r\n"
        )
    };
    assert_eq!(head(&request, "-again"), Ok(expected("")));
    let named = request.named("r-1");
    for (again, id) in [("", "r-1"), ("-again", "r-1-again")] {
        let id = format!("x-request-id: {id}\r\n");
        assert_eq!(head(&named, again), Ok(expected(&id)));
    }
    for bad in [
        Request::get("/a b"),
        Request::get("/\r\nx: y"),
        Request::get("x"),
        Request::get("/").header("x", "a\r\nb: c"),
        Request::get("/").named("a\r\nb: c"),
    ] {
        assert_eq!(bad.head("h", "").err(), Some(SendError::Unwritable));
    }
}

/// What a peer sends before, in and behind an answer.
#[derive(Clone, Debug)]
struct Told {
    bytes: Vec<u8>,
    body: Option<Vec<u8>>,
    reusable: bool,
}

fn told() -> impl Strategy<Value = Told> {
    let interim = proptest::collection::vec(
        prop_oneof![
            Just("HTTP/1.1 100 Continue\r\n\r\n"),
            Just("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\ncontent-length: 7\r\n\r\n"),
        ],
        0..4,
    );
    let body = proptest::collection::vec(any::<u8>(), 0..300);
    let behind = prop_oneof![
        3 => Just(""),
        1 => Just("x"),
        1 => Just("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
    ];
    (
        interim,
        body,
        0..6_usize,
        1..40_usize,
        behind,
        any::<bool>(),
    )
        .prop_map(|(interim, body, framing, piece, behind, cut)| {
            let mut bytes = interim.concat().into_bytes();
            let (head, framed, named) = framed(&body, framing, piece);
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(&framed);
            let cut = cut && !framed.is_empty() && named;
            if cut {
                bytes.pop();
            } else {
                bytes.extend_from_slice(behind.as_bytes());
            }
            let mut whole = body;
            if !named {
                whole.extend_from_slice(behind.as_bytes());
            }
            Told {
                bytes,
                body: (!cut).then_some(whole),
                reusable: matches!(framing, 0 | 1) && !cut && behind.is_empty(),
            }
        })
}

/// Head and framed body; and whether the end of the body is told.
fn framed(body: &[u8], framing: usize, piece: usize) -> (String, Vec<u8>, bool) {
    let length = format!("content-length: {}\r\n", body.len());
    let head = |version: &str, lines: &str| format!("HTTP/1.{version} 200 OK\r\n{lines}\r\n");
    match framing {
        0 => (head("1", &length), body.to_vec(), true),
        1 => {
            let mut out = Vec::new();
            for part in body.chunks(piece) {
                out.extend_from_slice(format!("{:x} ;a=b\r\n", part.len()).as_bytes());
                out.extend_from_slice(part);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\nx: y\r\n\r\n");
            (head("1", "transfer-encoding: chunked\r\n"), out, true)
        }
        2 => (
            head("1", &format!("{length}connection: close\r\n")),
            body.to_vec(),
            true,
        ),
        3 => (head("0", &length), body.to_vec(), true),
        4 => (head("1", ""), body.to_vec(), false),
        _ => (head("0", "content-type: x\r\n"), body.to_vec(), false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However it is cut: the right body or a fault, and the connection only after a clean end.
    #[test]
    fn any_answer_in_any_pieces(told in told(), cuts in proptest::collection::vec(1..50_usize, 1..20)) {
        let outcome = actix_rt::System::new().block_on(exchanged(&told.bytes, &cuts));
        prop_assert_eq!(outcome, (told.body, told.reusable));
    }
}

/// The body that arrives, and whether the connection is used again.
async fn exchanged(bytes: &[u8], cuts: &[usize]) -> (Option<Vec<u8>>, bool) {
    let (ours, mut theirs) = duplex(100);
    let pool = Rc::new(Pool::default());
    let request = Bytes::from_static(b"request");
    let mut exchange = Exchange::begin(
        Connection::new(ours),
        request.clone(),
        Payload::from(request).begin(),
    );
    let peer = async {
        let mut asked = [0; 14];
        drop(theirs.read_exact(&mut asked).await);
        let mut rest = bytes;
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            if now.is_empty() || theirs.write_all(now).await.is_err() {
                break;
            }
            rest = later;
            tokio::task::yield_now().await;
        }
        // An answer whose end is told needs no end of the connection.
        let told = bytes
            .windows(9)
            .any(|found| found == b"content-l" || found == b"transfer-");
        let whole = rest.is_empty() && told;
        (theirs, whole)
    };
    let reader = async {
        let answer = exchange.answer(&pool).await.ok()?;
        let mut body = answer.body;
        let mut out = Vec::new();
        while let Some(part) = body.next().await {
            out.extend_from_slice(&part.ok()?);
        }
        Some(out)
    };
    let closing = async {
        let (theirs, _) = peer.await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        // Seen by a body that goes on until here; one that is over is in the pool by now.
        let kept = pool.take().is_some();
        drop(theirs);
        kept
    };
    futures_util::join!(reader, closing)
}

#[actix::test]
async fn an_end_without_an_answer_is_told_from_a_broken_one() {
    for (bytes, expected) in [
        ("", Failure::Unanswered),
        ("HTTP/1.1 103 x\r\n\r\n", Failure::BrokenOff),
        ("HTTP", Failure::BrokenOff),
        ("http", Failure::Malformed),
    ] {
        let (ours, mut theirs) = duplex(1000);
        theirs.write_all(bytes.as_bytes()).await.unwrap();
        drop(theirs);
        let mut exchange = Exchange::begin(
            Connection::new(ours),
            Bytes::new(),
            Payload::default().begin(),
        );
        let outcome = exchange.answer(&Rc::default()).await.map(|_| ());
        assert_eq!(outcome, Err(expected), "{bytes}");
    }
}

#[test]
fn chunks_that_are_none() {
    for bad in [
        "x\r\n",
        "\r\n",
        "1\n",
        "1\r\nab",
        "-1\r\n",
        "10000000000000000\r\n",
        "1 x\r\n",
        "1\rx\r\n",
    ] {
        let mut framing = Framing::chunked();
        let mut bytes = BytesMut::from(bad);
        let outcome = loop {
            match framing.next(&mut bytes) {
                Ok(super::frame::Next::Data(_)) => {}
                other => break other,
            }
        };
        assert_eq!(outcome, Err(Malformed), "{bad}");
    }
    let mut long = BytesMut::from("1;".repeat(5000).as_str());
    assert_eq!(Framing::chunked().next(&mut long), Err(Malformed));
}

/// A body of these pieces, that says it is so long.
fn in_pieces(length: usize, pieces: &'static [Result<&'static [u8], Unread>]) -> Payload {
    let read = move || {
        let pieces = pieces.iter().map(|piece| piece.map(Bytes::from_static));
        futures_util::stream::iter(pieces).boxed_local()
    };
    Payload::Pieces {
        length,
        read: Rc::new(read),
    }
}

/// What a server gets of a body, and what its client makes of that.
async fn sent(body: Payload, answer: &'static [u8]) -> (Vec<u8>, Result<u16, Failure>) {
    let (ours, mut theirs) = duplex(1 << 16);
    let server = async move {
        theirs.write_all(answer).await.unwrap();
        let mut got = Vec::new();
        // The client closes when it has its outcome.
        drop(theirs.read_to_end(&mut got).await);
        got
    };
    let client = async move {
        let head = Bytes::from_static(b"head ");
        let mut exchange = Exchange::begin(Connection::new(ours), head, body.begin());
        exchange
            .answer(&Rc::default())
            .await
            .map(|answer| answer.status)
    };
    let (got, outcome) = futures_util::future::join(server, client).await;
    (got, outcome)
}

#[actix_rt::test]
async fn a_body_in_pieces_is_sent_whole_or_the_request_is_broken_off() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let whole = in_pieces(5, &[Ok(b"ab"), Ok(b""), Ok(b"cde")]);
    assert_eq!(whole.length(), 5);
    assert_eq!(sent(whole, OK).await, (b"head abcde".to_vec(), Ok(200)));
    for (broken, got) in [
        (in_pieces(5, &[Ok(b"ab"), Err(Unread::Gone)]), "head ab"),
        (in_pieces(5, &[Ok(b"ab")]), "head ab"),
        (in_pieces(5, &[Ok(b"ab"), Ok(b"cdef")]), "head ab"),
    ] {
        let outcome = (got.as_bytes().to_vec(), Err(Failure::Unread(Unread::Gone)));
        assert_eq!(sent(broken, b"").await, outcome);
    }
}

#[actix_rt::test]
async fn a_server_that_answers_before_it_has_the_pieces_is_heard() {
    let endless = || futures_util::stream::pending().boxed_local();
    let body = Payload::Pieces {
        length: 5,
        read: Rc::new(endless),
    };
    let early = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(sent(body, early).await, (b"head ".to_vec(), Ok(413)));
}
