//! A client's connection, bounded: clients that do not read, and heads that do not end.
//!
//! The HTTP layer does not poll a body while its own buffer is full, so nothing above the socket
//! can tell a client that reads slowly from one that has stopped: the kernel must. And that layer
//! times the head of a connection's first request only: [`Connection`] times the later ones.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Send buffer of one client, in bytes; the kernel doubles it for its own bookkeeping. Left alone,
/// the kernel would take megabytes for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// Asks a silent client whether it is there, from when on and how often: one that lost its line says
/// nothing, and what runs for it would run on. With these the kernel finds out within 30 s, or within
/// `write_stall` where that is less.
const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// What a connection and the request on it tell each other: where the connection is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Rc<Cell<Phase>>);

/// Whether a connection comes from this machine: from loopback, or from the very address it goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FromHere(pub(crate) bool);

/// HTTP/1 answers one request after another, so a connection is at one of these.
#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    /// Its first request has no whole head yet, which the framework times.
    #[default]
    First,
    /// From the end of a request's head to the end of its answer. Bytes that come belong to the
    /// body, or to a request that was sent ahead: the 75 seconds after the answer bound that one.
    Busy,
    /// Nothing of the next head is there.
    Silent,
    /// Its first byte came then.
    Heard(Instant),
}

/// One request whose head is complete, until its answer is whole or given up.
#[derive(Debug)]
pub(crate) struct Exchange(Line);

impl Line {
    /// A request's head is complete.
    pub(crate) fn begin(&self) -> Exchange {
        self.0.set(Phase::Busy);
        Exchange(self.clone())
    }

    /// Bytes came.
    fn hear(&self) {
        if let Phase::Silent = self.0.get() {
            self.0.set(Phase::Heard(Instant::now()));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.0.set(Phase::Silent);
    }
}

/// A client's socket. Reading fails with `TimedOut` once a later request's head is overdue, which
/// closes the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    line: Line,
    head_timeout: Duration,
    /// Made for the second request, then moved on only when it has run out: most heads come in one
    /// piece, and arming a timer for each would cost more than reading it.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Bounds what a client can hold up: bytes by the send buffer, an answer by `write_stall`, a
    /// head by `head_timeout`. After `write_stall` without a byte taken the kernel ends the
    /// connection, and the turn sees its client leave.
    pub(crate) fn new(socket: TcpStream, head_timeout: Duration, write_stall: Duration) -> Self {
        let kernel = SockRef::from(&socket);
        let set = kernel
            .set_send_buffer_size(SEND_BUFFER)
            .and_then(|()| kernel.set_tcp_user_timeout(Some(write_stall)))
            .and_then(|()| kernel.set_tcp_keepalive(&KEEP_ALIVE))
            // Events are small: with Nagle's algorithm each would wait for the last one's
            // acknowledgement.
            .and_then(|()| socket.set_nodelay(true));
        if let Err(error) = set {
            // The client may be gone already; one that is not keeps the kernel's own bounds.
            log::debug!("a client's connection was not bounded: {error}");
        }
        Self {
            socket,
            line: Line::default(),
            head_timeout,
            alarm: None,
        }
    }

    /// Where its requests find it.
    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }

    /// Where it comes from.
    pub(crate) fn origin(&self) -> FromHere {
        let peer = self.socket.peer_addr().map(|peer| peer.ip().to_canonical());
        let own = self.socket.local_addr().map(|own| own.ip().to_canonical());
        // One that has gone is nobody's.
        FromHere(peer.is_ok_and(|peer| peer.is_loopback() || own.is_ok_and(|own| own == peer)))
    }

    /// Ready once the head that has begun is overdue.
    fn poll_overdue(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let Phase::Heard(heard) = self.line.0.get() else {
            return Poll::Pending;
        };
        let due = heard + self.head_timeout;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while alarm.as_mut().poll(task).is_ready() {
            if alarm.deadline() >= due {
                return Poll::Ready(());
            }
            // It was an earlier head's.
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let had = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(task, into);
        if read.is_pending() {
            let overdue = self.poll_overdue(task);
            return overdue.map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        if into.filled().len() > had {
            self.line.hear();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const HEAD: Duration = Duration::from_millis(100);
    const STALL: Duration = Duration::from_secs(7);

    async fn pair() -> (TcpStream, Connection) {
        let listener = actix_rt::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address);
        let (client, accepted) = futures_util::future::join(client, listener.accept()).await;
        let socket = accepted.unwrap().0;
        (client.unwrap(), Connection::new(socket, HEAD, STALL))
    }

    async fn read(connection: &mut Connection) -> io::Result<usize> {
        connection.read(&mut [0; 64]).await
    }

    /// Whether nothing comes, and nothing is overdue, in three times the limit.
    async fn is_patient(connection: &mut Connection) -> bool {
        tokio::time::timeout(3 * HEAD, read(connection))
            .await
            .is_err()
    }

    #[actix_rt::test]
    async fn an_accepted_socket_is_bounded() {
        let (_client, connection) = pair().await;
        let socket = SockRef::from(&connection.socket);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(STALL));
        assert!(socket.send_buffer_size().unwrap() <= 2 * SEND_BUFFER);
        assert!(connection.socket.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(15)
        );
    }

    #[actix_rt::test]
    async fn only_a_later_head_that_has_begun_is_overdue() {
        let (mut client, mut connection) = pair().await;
        client.write_all(b"first head").await.unwrap();
        assert_eq!(read(&mut connection).await.unwrap(), 10);
        assert!(
            is_patient(&mut connection).await,
            "the first is not timed here"
        );

        let exchange = connection.line().begin();
        client.write_all(b"body").await.unwrap();
        assert_eq!(read(&mut connection).await.unwrap(), 4);
        assert!(is_patient(&mut connection).await, "an answer runs");

        drop(exchange);
        assert!(is_patient(&mut connection).await, "no byte of a next head");

        client.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut connection).await.unwrap(), 1);
        let late = read(&mut connection).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[actix_rt::test]
    async fn each_head_has_the_whole_time_and_more_bytes_do_not_extend_it() {
        let (mut client, mut connection) = pair().await;
        for _ in 0..3 {
            client.write_all(b"head").await.unwrap();
            assert_eq!(read(&mut connection).await.unwrap(), 4);
            // Polled once, as the framework does before it looks at what it has.
            assert!(read(&mut connection).now_or_never().is_none());
            tokio::time::sleep(HEAD * 3 / 4).await;
            assert!(read(&mut connection).now_or_never().is_none());
            drop(connection.line().begin());
        }
        let begun = Instant::now();
        let dripping = async {
            loop {
                client.write_all(b"x").await.unwrap();
                tokio::time::sleep(HEAD / 5).await;
            }
        };
        let reading = async { while read(&mut connection).await.is_ok() {} };
        tokio::select! {
            () = dripping => unreachable!(),
            () = reading => {}
        }
        assert!(begun.elapsed() >= HEAD);
    }
}
