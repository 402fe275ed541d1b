//! How much memory the control group of this process may take.
//!
//! Both versions of control groups; the group's own limit and those of the groups around it, of which
//! the tightest holds. Inside a container the paths of the host may not exist: what exists is asked.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Bytes; `None` without a limit.
pub(crate) fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_below(Path::new(ROOT), &groups)
}

fn limit_below(root: &Path, groups: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (top, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        limits.extend(chain(&top, group).filter_map(|folder| {
            // `max` is no number: no limit. Version 1 writes a number beyond all memory.
            let text = std::fs::read_to_string(folder.join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        }));
    }
    limits.into_iter().min()
}

/// The group and all groups around it, up to the top.
fn chain(top: &Path, group: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let own = top.join(group.trim_start_matches('/'));
    let top = top.to_owned();
    let folders: Vec<PathBuf> = own.ancestors().map(Path::to_owned).collect();
    folders
        .into_iter()
        .take_while(move |folder| folder.starts_with(&top))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with(files: &[(&str, &str)], groups: &str) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_below(root.path(), groups)
    }

    /// The fault: only the top was asked, so `MemoryMax=` of a unit was not seen.
    #[test]
    fn the_tightest_limit_around_the_own_group_holds() {
        let unit = "system.slice/gateway.service/memory.max";
        let own = "0::/system.slice/gateway.service\n";
        assert_eq!(with(&[(unit, "6442450944\n")], own), Some(6 << 30));
        let slice = ("system.slice/memory.max", "1073741824\n");
        assert_eq!(with(&[(unit, "max\n"), slice], own), Some(1 << 30));
        assert_eq!(with(&[(unit, "max\n")], own), None);
        // In a container without a namespace of its own the path is the host's.
        assert_eq!(with(&[("memory.max", "5\n")], "0::/docker/abc\n"), Some(5));
    }

    #[test]
    fn version_1_is_read_too() {
        let groups = "12:cpu,cpuacct:/a\n4:memory:/a/b\n1:name=systemd:/\n0::/\n";
        let file = ("memory/a/memory.limit_in_bytes", "3221225472\n");
        assert_eq!(with(&[file], groups), Some(3 << 30));
    }

    #[test]
    fn nonsense_is_no_limit() {
        for groups in ["", "0", "0:", "0::/../../etc\n", ":::\n"] {
            assert_eq!(with(&[("x", "1")], groups), None, "{groups}");
        }
    }
}
