//! Whether what listens on the port of a vLLM of our own is that vLLM.
//!
//! It needs seconds to minutes until it binds its port, and longer to end. Any user of the machine can
//! bind the port in that time, and would get the key and the prompts. So nothing is sent unless the
//! listening socket belongs to our child's own tree of processes; every connection is checked.

use std::sync::Arc;

use tokio::sync::watch;

use crate::process::ports::{self, Socket};

/// What is known of the present child's sockets. Clones know the same.
#[derive(Clone, Debug)]
pub struct Vouch {
    port: u16,
    known: Arc<watch::Sender<Known>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// No socket of our child has been seen.
    Nothing,
    /// These are our child's.
    Ours(Vec<Socket>),
    /// Somebody else's.
    Others,
    /// This kernel does not show who listens.
    Hidden,
}

impl Vouch {
    /// Of a vLLM that will listen on this port.
    pub(super) fn new(port: u16) -> Self {
        Self {
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
    pub(super) fn look(&self, child: u32) -> Result<(), String> {
        let Some(sockets) = ports::listening(self.port) else {
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
        if sockets.is_empty() {
            return Err(format!("nothing listens on port {} yet", self.port));
        }
        let is_known = matches!(&*self.known.borrow(), Known::Ours(known) if *known == sockets);
        if is_known || ports::are_of(&sockets, child) {
            self.known.send_replace(Known::Ours(sockets));
            return Ok(());
        }
        let users: Vec<_> = sockets
            .iter()
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

    /// Whether a connection that has just been made went to our child. Its socket was seen before and
    /// still listens, so it listened in between.
    pub(super) fn confirms(&self) -> bool {
        match &*self.known.borrow() {
            Known::Nothing | Known::Others => false,
            Known::Hidden => true,
            Known::Ours(known) => ports::listening(self.port)
                .is_some_and(|now| !now.is_empty() && now.iter().all(|one| known.contains(one))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_socket_of_the_child_is_vouched_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let vouch = Vouch::new(listener.local_addr().unwrap().port());
        assert!(!vouch.confirms(), "nothing is known");
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let foreign = vouch.look(other.id()).unwrap_err();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(foreign.contains("held by another process"), "{foreign}");
        assert!(!vouch.confirms());
        vouch.look(std::process::id()).unwrap();
        assert!(vouch.confirms());
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(!vouch.confirms(), "it listens no more");
        let _other = TcpListener::bind(address).unwrap();
        assert!(!vouch.confirms(), "another socket has the port");
        vouch.forget();
        assert!(!vouch.confirms());
    }
}
