//! What is set on a client's socket when it is accepted: bounds for clients that do not read.
//!
//! The HTTP layer does not poll a body while its own buffer is full, so nothing above the socket
//! can tell a client that reads slowly from one that has stopped: the kernel must.

use std::any::Any;
use std::time::Duration;

use actix_rt::net::TcpStream;
use socket2::SockRef;

/// Send buffer of one client, in bytes; the kernel doubles it for its own bookkeeping. Left alone,
/// the kernel would take megabytes for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// Bounds what a client can hold up: bytes by the send buffer, time by `write_stall`. After that
/// long without a byte taken the kernel ends the connection, and the turn sees its client leave.
pub(crate) fn bound(connection: &dyn Any, write_stall: Duration) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else {
        return;
    };
    let socket = SockRef::from(stream);
    let set = socket
        .set_send_buffer_size(SEND_BUFFER)
        .and_then(|()| socket.set_tcp_user_timeout(Some(write_stall)));
    if let Err(error) = set {
        // The client may be gone already; one that is not keeps the kernel's own bounds.
        log::debug!("a client's connection was not bounded: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn an_accepted_socket_is_bounded() {
        let listener = actix_rt::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address);
        let (client, accepted) = futures_util::future::join(client, listener.accept()).await;
        let (_client, stream) = (client.unwrap(), accepted.unwrap().0);
        bound(&stream, Duration::from_secs(7));
        let socket = SockRef::from(&stream);
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(7))
        );
        assert!(socket.send_buffer_size().unwrap() <= 2 * SEND_BUFFER);
    }
}
