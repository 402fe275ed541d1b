//! The token of a service of ours that was given none: made at its start, and kept in a file that only
//! its user can read, where a gateway of the same user finds it.
//!
//! A port of this machine is open to every user of it, and to every page in a browser on it. So such a
//! service never answers without a token.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use url::{Host, Url};
use vllm_responses_protocol::ids::IdSource as _;

use crate::env::SystemIds;
use crate::plain_file;
use crate::secret::Secret;

/// Longest token file that is read.
const LONGEST: usize = 1024;

/// Makes a token for the service that listens on this port, and leaves it where [`find`] looks.
///
/// # Errors
/// When there is no folder of this user that can be written.
pub fn leave(service: &str, port: u16) -> io::Result<Secret> {
    let file = place(service, port).ok_or(io::ErrorKind::NotFound)?;
    let folder = file.parent().ok_or(io::ErrorKind::NotFound)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let token = format!("{:032x}", SystemIds.next_bits());
    // Whole or not at all: a gateway may be reading.
    let (fresh, mut written) = plain_file::draft(&file)?;
    written.write_all(token.as_bytes())?;
    fs::rename(&fresh, &file)?;
    Ok(Secret::new(&token))
}

/// The token of the service of this user at this URL, which is on this machine; a restarted service has
/// another.
pub fn find(service: &str, url: &Url) -> Option<Secret> {
    let is_here = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let file = place(service, url.port_or_known_default().filter(|_| is_here)?)?;
    let text = String::from_utf8(plain_file::read_own(&file).ok()?).ok()?;
    (text.len() <= LONGEST).then(|| Secret::new(text.trim()))
}

fn place(service: &str, port: u16) -> Option<PathBuf> {
    let folder = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let home = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(
        home.join("vllm-responses/tokens")
            .join(format!("{service}-{port}")),
    )
}
