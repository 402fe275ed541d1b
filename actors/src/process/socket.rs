//! A listening socket for one child of ours: nobody but this process can call it, and nobody but the
//! process that it is handed to can answer.
//!
//! A TCP port is everybody's: whoever binds it first gets what was meant for the child. This one is
//! bound by us under a name that only we can reach, is handed over as the child's standard input, and
//! loses its name before anybody is told of it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use tokio::net::UnixStream;

/// The child's end: see [`super::Stdin::Listener`].
#[derive(Clone, Debug)]
pub struct Listener(Arc<OwnedFd>);

/// Where to call it: a descriptor of the socket's place in the file system, which has no name any more.
#[derive(Clone, Debug)]
pub struct Address(Arc<File>);

impl Listener {
    /// Another descriptor of the socket, for the child.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl Address {
    /// Calls it. Refused at once while no child listens.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.0.as_raw_fd())).await
    }
}

/// Makes a socket and the way to it.
///
/// # Errors
/// When no folder of this machine can be written for a moment.
pub fn private_socket() -> io::Result<(Listener, Address)> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for folder in folders() {
        match socket_in(&folder) {
            Ok(made) => return Ok(made),
            Err(error) => last = error,
        }
    }
    Err(io::Error::new(
        last.kind(),
        format!(
            "no folder can be written for a socket, neither that of `XDG_RUNTIME_DIR` or `TMPDIR` \
             nor `/dev/shm` ({last}): give one with `TMPDIR`"
        ),
    ))
}

fn folders() -> impl Iterator<Item = PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    own.into_iter()
        .chain([std::env::temp_dir(), "/dev/shm".into(), ".".into()])
}

fn socket_in(folder: &Path) -> io::Result<(Listener, Address)> {
    let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    let place = folder.join(format!("vr-{random:016x}"));
    DirBuilder::new().mode(0o700).create(&place)?;
    let name = place.join("s");
    let made = listen(&name);
    // Its name was for us alone.
    fs::remove_file(&name).ok();
    fs::remove_dir(&place).ok();
    made
}

fn listen(name: &Path) -> io::Result<(Listener, Address)> {
    let listener = UnixListener::bind(name)?;
    fs::set_permissions(name, Permissions::from_mode(0o600))?;
    let address = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(name)?;
    let listener = Listener(Arc::new(listener.into()));
    Ok((listener, Address(Arc::new(address))))
}

/// The socket that this process was handed as its standard input, if it was.
pub fn handed_over() -> Option<UnixListener> {
    use std::os::fd::AsFd as _;

    use nix::sys::socket::{getsockopt, sockopt};

    let stdin = io::stdin();
    let listens = getsockopt(&stdin.as_fd(), sockopt::AcceptConn).unwrap_or(false);
    let listener = UnixListener::from(stdin.as_fd().try_clone_to_owned().ok()?);
    // A socket of another family has no such address.
    (listens && listener.local_addr().is_ok()).then_some(listener)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn only_who_was_handed_it_can_answer() {
        let (listener, address) = private_socket().unwrap();
        let theirs = UnixListener::from(listener.duplicate().unwrap());
        drop(listener);
        let name = theirs.local_addr().unwrap();
        let path = name.as_pathname().unwrap();
        assert!(!path.exists() && !path.parent().unwrap().exists());
        let calling = address.connect().await.unwrap();
        let (mut answering, _) = theirs.accept().unwrap();
        answering.write_all(b"x").unwrap();
        calling.readable().await.unwrap();
        drop((theirs, answering));
        let refused = address.connect().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
