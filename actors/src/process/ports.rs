//! Who listens on a port of this machine, as `/proc` shows it.
//!
//! Whoever binds a port first gets what is sent to it. So before a child that listens on a port is sent
//! anything, its listening socket must be found among the descriptors of the child's own tree.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

/// The sockets that a connection to this address reaches; `None` where the kernel does not show them.
///
/// As the kernel chooses: a socket that is bound to the address itself, else one for all addresses.
/// Whoever listens on the same port of another address has nothing to do with it.
pub fn listening(to: SocketAddr) -> Option<Vec<Socket>> {
    let open = |path| File::open(path).ok().map(BufReader::new);
    let (v4, v6) = (open("/proc/net/tcp"), open("/proc/net/tcp6"));
    if v4.is_none() && v6.is_none() {
        return None;
    }
    let v4 = v4.map(|table| listeners(table, to.port()));
    let v6 = v6.map(|table| listeners(table, to.port()));
    let mut all = v4.unwrap_or_default();
    all.extend(v6.unwrap_or_default());
    let reached = spellings(to.ip()).into_iter().map(|wanted| {
        let of_it = all.iter().filter(|(address, _)| *address == wanted);
        of_it.map(|(_, socket)| *socket).collect::<Vec<_>>()
    });
    Some(
        reached
            .into_iter()
            .find(|found| !found.is_empty())
            .unwrap_or_default(),
    )
}

/// The addresses that a socket may be bound to which a connection to this one reaches, as the kernel's
/// tables write them, in the kernel's order of choice.
fn spellings(ip: IpAddr) -> Vec<String> {
    match ip {
        IpAddr::V4(ip) => vec![
            spell(&ip.octets()),
            spell(&ip.to_ipv6_mapped().octets()),
            spell(&Ipv4Addr::UNSPECIFIED.octets()),
            spell(&Ipv6Addr::UNSPECIFIED.octets()),
        ],
        IpAddr::V6(ip) => vec![spell(&ip.octets()), spell(&Ipv6Addr::UNSPECIFIED.octets())],
    }
}

/// Words of four bytes, each as a number of this machine.
fn spell(octets: &[u8]) -> String {
    let words = octets
        .chunks_exact(4)
        .filter_map(|word| word.try_into().ok());
    let words: Vec<String> = words
        .map(|word| format!("{:08X}", u32::from_ne_bytes(word)))
        .collect();
    words.concat()
}

/// Sockets that listen on this port, with their addresses. The kernel lists sockets that listen before
/// all others, which may be many: those are not read.
fn listeners(table: impl BufRead, port: u16) -> Vec<(String, Socket)> {
    let lines = table.lines().map_while(Result::ok).skip(1);
    let fields = lines.map(|line| {
        let fields: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        fields
    });
    let listening =
        fields.take_while(|fields| fields.get(3).is_some_and(|state| state == LISTENING));
    let wanted = format!("{port:04X}");
    listening
        .filter_map(|fields| {
            let (address, port) = fields.get(1)?.split_once(':')?;
            let socket = Socket {
                inode: fields.get(9)?.parse().ok()?,
                user: fields.get(7)?.parse().ok()?,
            };
            (port == wanted).then(|| (address.to_owned(), socket))
        })
        .collect()
}

/// A socket that is known to be open in some process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    inode: u64,
    /// Its entry among that process's descriptors.
    entry: PathBuf,
}

impl Open {
    /// Whether it still is. This is one look, where a table may have tens of thousands of lines, put there
    /// by anybody.
    pub fn is_still(&self) -> bool {
        let target = fs::read_link(&self.entry);
        target.is_ok_and(|target| socket_inode(&target) == Some(self.inode))
    }
}

/// Where each of these sockets is open in this process or below it; `None` unless all are.
pub fn held_by(sockets: &[Socket], root: u32) -> Option<Vec<Open>> {
    let root = i32::try_from(root).ok()?;
    let mut found = Vec::new();
    let mut missing: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let below = tree::descendants(root)
        .into_iter()
        .map(|process| process.pid);
    for pid in std::iter::once(root).chain(below) {
        if missing.is_empty() {
            break;
        }
        for entry in descriptors(pid) {
            let target = fs::read_link(&entry).ok();
            let inode = target.and_then(|target| socket_inode(&target));
            if let Some(inode) = inode.filter(|inode| missing.remove(inode)) {
                found.push(Open { inode, entry });
            }
        }
    }
    missing.is_empty().then_some(found)
}

fn descriptors(pid: i32) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn socket_inode(target: &std::path::Path) -> Option<u64> {
    let name = target.to_str()?.strip_prefix("socket:[")?;
    name.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_and_is_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = listening(address).unwrap();
        assert_eq!(sockets.len(), 1);
        let open = held_by(&sockets, std::process::id()).unwrap();
        assert!(open.len() == 1 && open[0].is_still());
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(held_by(&sockets, other.id()), None);
        other.kill().unwrap();
        other.wait().unwrap();
        drop(listener);
        assert!(!open[0].is_still());
        assert_eq!(listening(address), Some(Vec::new()));
    }

    /// The fault: every socket of the port counted, so that whoever listened on 127.0.0.2 stopped a
    /// vLLM on 127.0.0.1.
    #[test]
    fn who_listens_on_another_address_is_not_reached() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ours.local_addr().unwrap();
        let port = address.port();
        let near = listening(address).unwrap();
        let beside = TcpListener::bind(("127.0.0.2", port)).unwrap();
        assert_eq!(listening(address).unwrap(), near);
        let other = beside.local_addr().unwrap();
        let others = listening(other).unwrap();
        assert!(others.len() == 1 && others != near);
        assert_eq!(
            listening(SocketAddr::from(([127, 0, 0, 3], port))),
            Some(Vec::new())
        );
        if let Ok(six) = TcpListener::bind(("::1", port)) {
            assert_eq!(listening(address).unwrap(), near);
            assert_eq!(listening(six.local_addr().unwrap()).unwrap().len(), 1);
        }
        drop(ours);
        assert_eq!(listening(address), Some(Vec::new()));
    }

    #[test]
    fn a_socket_for_all_addresses_is_reached_where_none_has_the_address() {
        let all = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = all.local_addr().unwrap().port();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(listening(to).unwrap().len(), 1);
        if let Ok(six) = TcpListener::bind("[::]:0") {
            let to = SocketAddr::from(([127, 0, 0, 1], six.local_addr().unwrap().port()));
            assert_eq!(listening(to).unwrap().len(), 1);
        }
    }

    #[test]
    fn only_listeners_of_the_port_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:2109 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534 0 777 1\n\
                     1: 00000000:12109 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 778 1\n\
                     2: 0100007F:2109 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 779 1\n\
                     3: 0100007F:2109 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 780 1\n";
        let found = listeners(table.as_bytes(), 0x2109);
        let socket = Socket {
            inode: 777,
            user: 65534,
        };
        assert_eq!(found, [("0100007F".to_owned(), socket)]);
    }
}
