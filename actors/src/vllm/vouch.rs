//! Whether what listens on the port of a vLLM of our own is that vLLM.
//!
//! It needs seconds to minutes until it binds its port, and longer to end. Any user of the machine can
//! bind the port in that time, and would get the key and the prompts. So nothing is sent unless the
//! listening socket belongs to our child's own tree of processes; every connection is checked.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::lookup_host;
use tokio::sync::watch;

use crate::process::ports::{self, Open};

/// What is known of the present child's sockets. Clones know the same.
#[derive(Clone, Debug)]
pub struct Vouch {
    host: Arc<str>,
    port: u16,
    known: Arc<watch::Sender<Known>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// No socket of our child has been seen.
    Nothing,
    /// At these addresses our child listens, with these sockets.
    Ours(Vec<(SocketAddr, Vec<Open>)>),
    /// Somebody else's.
    Others,
    /// This kernel does not show who listens.
    Hidden,
}

impl Vouch {
    /// Of a vLLM that will listen on this port of this name or address.
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            known: Arc::new(watch::Sender::new(Known::Nothing)),
        }
    }

    /// The child has ended, or another is started.
    pub(super) fn forget(&self) {
        self.known.send_replace(Known::Nothing);
    }

    /// Looks for the sockets of this child.
    ///
    /// # Errors
    /// One clause that says why nothing may be sent yet.
    pub(super) async fn look(&self, child: u32) -> Result<(), String> {
        let addresses = lookup_host((&*self.host, self.port)).await;
        let addresses =
            addresses.map_err(|_error| "the name of its `--host` is not known".to_owned())?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        let seen = |address: &SocketAddr| Some((*address, ports::listening(*address)?));
        let Some(found) = addresses.iter().map(seen).collect::<Option<Vec<_>>>() else {
            let before = self.known.send_replace(Known::Hidden);
            if before != Known::Hidden {
                log::warn!(
                    "`/proc/net/tcp` cannot be read: whether port {} is vLLM's or somebody else's is \
                     not checked",
                    self.port
                );
            }
            return Ok(());
        };
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for (address, sockets) in found.into_iter().filter(|(_, sockets)| !sockets.is_empty()) {
            match ports::held_by(&sockets, child) {
                Some(open) => ours.push((address, open)),
                None => others.push(sockets),
            }
        }
        // A name may have several addresses, of which vLLM has one.
        if !ours.is_empty() {
            self.known.send_replace(Known::Ours(ours));
            return Ok(());
        }
        if others.is_empty() {
            return Err(format!("nothing listens on port {} yet", self.port));
        }
        let users: Vec<_> = others
            .iter()
            .flatten()
            .map(|socket| socket.user.to_string())
            .collect();
        let reason = format!(
            "port {} is held by another process than this vLLM, of the user with the number {}: end \
             that, or give another port with `--port` after `--`",
            self.port,
            users.join(", ")
        );
        if self.known.send_replace(Known::Others) != Known::Others {
            log::warn!("{reason}");
        }
        Err(reason)
    }

    /// Whether a connection that has just been made to this address went to our child. Its socket was seen
    /// before and is still open, so it listened in between: nobody else could bind the address.
    pub(super) fn confirms(&self, address: SocketAddr) -> bool {
        match &*self.known.borrow() {
            Known::Nothing | Known::Others => false,
            Known::Hidden => true,
            Known::Ours(known) => known.iter().any(|(known, open)| {
                *known == address && !open.is_empty() && open.iter().all(Open::is_still)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn only_a_socket_of_the_child_is_vouched_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let vouch = Vouch::new("127.0.0.1", address.port());
        assert!(!vouch.confirms(address), "nothing is known");
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let foreign = vouch.look(other.id()).await.unwrap_err();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(foreign.contains("held by another process"), "{foreign}");
        assert!(!vouch.confirms(address));
        vouch.look(std::process::id()).await.unwrap();
        assert!(vouch.confirms(address));
        drop(listener);
        assert!(!vouch.confirms(address), "it listens no more");
        let _other = TcpListener::bind(address).unwrap();
        assert!(!vouch.confirms(address), "another socket has the port");
        vouch.forget();
        assert!(!vouch.confirms(address));
    }

    /// A name with two addresses, one of them somebody else's: the child's is used.
    #[tokio::test]
    async fn an_address_beside_the_childs_neither_stops_it_nor_gets_anything() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let vouch = Vouch::new("localhost", address.port());
        vouch.look(std::process::id()).await.unwrap();
        let beside = SocketAddr::from(([127, 0, 0, 2], address.port()));
        let _beside = TcpListener::bind(beside).unwrap();
        vouch.look(std::process::id()).await.unwrap();
        assert!(vouch.confirms(address) && !vouch.confirms(beside));
    }
}
