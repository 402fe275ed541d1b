//! Who listens on a port of this machine, as `/proc` shows it.
//!
//! Whoever binds a port first gets what is sent to it. So before a child that listens on a port is sent
//! anything, its listening socket must be found among the descriptors of the child's own tree.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use super::tree;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    /// The kernel's number of it, which no later socket gets while it is open.
    pub inode: u64,
    /// The user that owns it.
    pub user: u32,
}

/// The state of a socket that listens.
const LISTENING: &str = "0A";

/// The sockets that listen on this TCP port; `None` where the kernel does not show them.
pub fn listening(port: u16) -> Option<Vec<Socket>> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let opened: Vec<File> = tables
        .into_iter()
        .filter_map(|path| File::open(path).ok())
        .collect();
    if opened.is_empty() {
        return None;
    }
    let of_table = |table| listeners(BufReader::new(table), port);
    Some(opened.into_iter().flat_map(of_table).collect())
}

/// The kernel lists sockets that listen before all others, which may be many: those are not read.
fn listeners(table: impl BufRead, port: u16) -> Vec<Socket> {
    let lines = table.lines().map_while(Result::ok).skip(1);
    let fields = lines.map(|line| {
        let fields: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        fields
    });
    let listening =
        fields.take_while(|fields| fields.get(3).is_some_and(|state| state == LISTENING));
    let wanted = format!(":{port:04X}");
    listening
        .filter(|fields| {
            fields
                .get(1)
                .is_some_and(|address| address.ends_with(&wanted))
        })
        .filter_map(|fields| {
            Some(Socket {
                inode: fields.get(9)?.parse().ok()?,
                user: fields.get(7)?.parse().ok()?,
            })
        })
        .collect()
}

/// Whether each of these sockets is open in this process or below it.
pub fn are_of(sockets: &[Socket], root: u32) -> bool {
    let Ok(root) = i32::try_from(root) else {
        return false;
    };
    let mut missing: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let below = tree::descendants(root)
        .into_iter()
        .map(|process| process.pid);
    for pid in std::iter::once(root).chain(below) {
        if missing.is_empty() {
            break;
        }
        for target in descriptors(pid) {
            if let Some(inode) = socket_inode(&target) {
                missing.remove(&inode);
            }
        }
    }
    missing.is_empty()
}

fn descriptors(pid: i32) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
}

fn socket_inode(target: &std::path::Path) -> Option<u64> {
    let name = target.to_str()?.strip_prefix("socket:[")?;
    name.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_and_is_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = listening(port).unwrap();
        assert_eq!(sockets.len(), 1);
        assert!(are_of(&sockets, std::process::id()));
        assert!(!are_of(&sockets, 1), "of process 1, or of none");
        drop(listener);
        assert_eq!(listening(port), Some(Vec::new()));
    }

    #[test]
    fn only_listeners_of_the_port_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:2109 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534 0 777 1\n\
                     1: 00000000:12109 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 778 1\n\
                     2: 0100007F:2109 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 779 1\n\
                     3: 0100007F:2109 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 780 1\n";
        let found = listeners(table.as_bytes(), 0x2109);
        assert_eq!(
            found,
            [Socket {
                inode: 777,
                user: 65534
            }]
        );
    }
}
