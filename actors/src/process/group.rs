//! A control group around one child and everything below it.
//!
//! Where the kernel lets us make one, it bounds what no resource limit can: the memory of all processes
//! together, shared memory and the page cache included, the number of processes and threads, and the
//! share of the processor. And it ends them together: `cgroup.kill` cannot be outrun by forking.
//!
//! The guardian makes it below its own group, the child enters it between fork and exec, and the guardian
//! removes it when nothing is left. Version 2 keeps processes out of a group that hands controllers on,
//! so there the limits need a group that nobody is in: the own group where the kernel lets it hand them
//! on, or the one around it where a service manager has put us into a subgroup called `gateway`
//! (systemd: `Delegate=` and `DelegateSubgroup=gateway`). Where nothing can be made, nothing is: the
//! child's resource limits hold all the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Begins the names of our groups; the guardian's process id follows.
const NAME: &str = "vllm-responses-";
/// The subgroup whose neighbours we may be.
const OWN: &str = "gateway";
/// How often a group is asked to go: the kernel lets go of ended processes a moment later.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(5);
/// Microseconds over which the kernel counts processor time.
const PERIOD: u64 = 100_000;

/// What a group may take; a part that is not given is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// Processes and threads.
    pub(super) tasks: Option<u64>,
    /// Hundredths of one processor.
    pub(super) cpu: Option<u64>,
}

/// A hierarchy of groups, and what of it concerns us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Version 2, which has all controllers in one.
    Unified,
    /// Version 1, one controller each.
    Memory,
    Tasks,
    Cpu,
}

/// Folders of one child's group, one a hierarchy.
#[derive(Debug, Default)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
    /// Ends everything in the group.
    killer: Option<PathBuf>,
    held: Held,
}

/// What a group really bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The memory of all its processes together.
    pub memory: bool,
    /// The number of its processes and threads.
    pub tasks: bool,
}

impl Group {
    /// A group below that of this process, as far as there can be one.
    pub(super) fn make(bounds: Bounds) -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::below(Path::new(ROOT), &groups, bounds)
    }

    fn below(root: &Path, groups: &str, bounds: Bounds) -> Self {
        let mut group = Self::default();
        for (kind, own) in hierarchies(root, groups) {
            group.add(kind, &own, bounds);
        }
        group
    }

    fn add(&mut self, kind: Kind, own: &Path, bounds: Bounds) {
        let wanted = match kind {
            Kind::Unified => true,
            Kind::Memory => bounds.memory.is_some(),
            Kind::Tasks => bounds.tasks.is_some(),
            Kind::Cpu => bounds.cpu.is_some(),
        };
        if !wanted {
            return;
        }
        let place = if kind == Kind::Unified && bounds != Bounds::default() {
            hand_on(own)
        } else {
            own.to_owned()
        };
        clear(&place);
        let folder = place.join(format!("{NAME}{}", std::process::id()));
        // A predecessor with the same number may have left it; numbers come again.
        remove(&folder);
        if fs::create_dir(&folder).is_err() {
            return;
        }
        let held = match kind {
            Kind::Unified => unified(&folder, bounds),
            Kind::Memory => Held {
                memory: bound_memory(&folder, bounds.memory),
                tasks: false,
            },
            Kind::Tasks => Held {
                memory: false,
                tasks: put(&folder, "pids.max", bounds.tasks),
            },
            Kind::Cpu => {
                put(&folder, "cpu.shares", Some(512));
                put(&folder, "cpu.cfs_period_us", Some(PERIOD));
                put(&folder, "cpu.cfs_quota_us", bounds.cpu.map(microseconds));
                Held::default()
            }
        };
        self.held.memory |= held.memory;
        self.held.tasks |= held.tasks;
        let killer = folder.join("cgroup.kill");
        if kind == Kind::Unified && killer.exists() {
            self.killer = Some(killer);
        }
        self.folders.push(folder);
    }

    /// Files into which a process writes `0` to become a member.
    pub(super) fn entrances(&self) -> Vec<File> {
        let files = self.folders.iter().map(|folder| {
            let path = folder.join("cgroup.procs");
            File::options().write(true).open(path)
        });
        files.filter_map(Result::ok).collect()
    }

    /// What it bounds.
    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Ends every member at once, where the kernel can do that.
    pub(super) fn kill(&self) {
        if let Some(killer) = &self.killer {
            // An older kernel has no such file; then each is ended by itself.
            fs::write(killer, "1").ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            for _ in 0..TRIES {
                if remove(folder) {
                    break;
                }
                sleep(PAUSE);
            }
        }
    }
}

/// The own group in each hierarchy that can be of use.
fn hierarchies(root: &Path, groups: &str) -> Vec<(Kind, PathBuf)> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let names: Vec<&str> = controllers.split(',').collect();
        let kind = match names.as_slice() {
            [""] => Kind::Unified,
            names if names.contains(&"memory") => Kind::Memory,
            names if names.contains(&"pids") => Kind::Tasks,
            names if names.contains(&"cpu") => Kind::Cpu,
            _ => continue,
        };
        let tops = match kind {
            Kind::Unified => vec![root.to_owned(), root.join("unified")],
            Kind::Memory => vec![root.join("memory"), root.join(controllers)],
            Kind::Tasks => vec![root.join("pids"), root.join(controllers)],
            Kind::Cpu => vec![root.join("cpu"), root.join(controllers)],
        };
        // Inside a container the path may be the host's; then the top is the own group.
        let own = group.trim_start_matches('/');
        let places = tops.iter().flat_map(|top| [top.join(own), top.clone()]);
        let mut places = places.filter(|place| place.join("cgroup.procs").exists());
        if !own.split('/').any(|part| part == "..")
            && let Some(place) = places.next()
        {
            found.push((kind, place));
        }
    }
    found
}

/// The group below which groups with limits can be made.
fn hand_on(own: &Path) -> PathBuf {
    let hands_on = |place: &Path| {
        let control = place.join("cgroup.subtree_control");
        let wanted = ["+memory", "+pids"].map(|word| fs::write(&control, word).is_ok());
        // Without it the share of the processor is not bounded, and nothing else.
        fs::write(&control, "+cpu").ok();
        wanted == [true; 2]
    };
    let around = own.parent().filter(|_| own.ends_with(OWN));
    let places = [Some(own), around];
    let place = places.into_iter().flatten().find(|place| hands_on(place));
    place.unwrap_or(own).to_owned()
}

fn unified(folder: &Path, bounds: Bounds) -> Held {
    let quota = bounds.cpu.map(microseconds);
    if let Some(quota) = quota {
        put_text(folder, "cpu.max", &format!("{quota} {PERIOD}"));
        put(folder, "cpu.weight", Some(50));
    }
    put(folder, "memory.oom.group", bounds.memory.map(|_| 1));
    put(folder, "memory.swap.max", bounds.memory.map(|_| 0));
    Held {
        memory: put(folder, "memory.max", bounds.memory),
        tasks: put(folder, "pids.max", bounds.tasks),
    }
}

fn bound_memory(folder: &Path, memory: Option<u64>) -> bool {
    let held = put(folder, "memory.limit_in_bytes", memory);
    // With swap, where it is counted.
    put(folder, "memory.memsw.limit_in_bytes", memory);
    held
}

/// Of hundredths of a processor.
fn microseconds(cpu: u64) -> u64 {
    cpu.saturating_mul(PERIOD) / 100
}

/// Whether this number now stands there.
fn put(folder: &Path, file: &str, number: Option<u64>) -> bool {
    number.is_some_and(|number| put_text(folder, file, &number.to_string()))
}

fn put_text(folder: &Path, file: &str, text: &str) -> bool {
    let path = folder.join(file);
    path.exists() && fs::write(path, text).is_ok()
}

/// Removes a group of ours with those below it, which guardians that were killed have left; whether it is
/// gone. The kernel refuses one that has members.
fn remove(folder: &Path) -> bool {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in below {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(NAME));
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(folder).is_ok() || !folder.exists()
}

/// Removes empty groups of guardians that were killed.
fn clear(place: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(NAME));
        let is_lost = pid.is_some_and(|pid| {
            pid.bytes().all(|byte| byte.is_ascii_digit()) && !Path::new("/proc").join(pid).exists()
        });
        if is_lost {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        memory: Some(1 << 30),
        tasks: Some(64),
        cpu: Some(200),
    };

    /// A hierarchy of plain files in the kernel's place: files of a group are there when it is made only
    /// in the real one, so each test makes them.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn found(root: &Path, groups: &str) -> Vec<(Kind, String)> {
        let found = hierarchies(root, groups).into_iter();
        let name = |path: PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        found.map(|(kind, path)| (kind, name(path))).collect()
    }

    #[test]
    fn the_own_group_is_found_in_both_versions() {
        let pure = tree(&["a/gw.service/cgroup.procs", "cgroup.procs"]);
        let expected = [(Kind::Unified, "a/gw.service".to_owned())];
        assert_eq!(found(pure.path(), "0::/a/gw.service\n"), expected);
        // The host's path inside a container.
        let expected = [(Kind::Unified, String::new())];
        assert_eq!(found(pure.path(), "0::/docker/abc\n"), expected);
        let mixed = tree(&[
            "unified/x/cgroup.procs",
            "memory/m/cgroup.procs",
            "pids/cgroup.procs",
            "cpu,cpuacct/c/cgroup.procs",
        ]);
        let groups =
            "9:name=systemd:/\n8:pids:/\n4:memory:/m\n3:cpu,cpuacct:/c\n2:cpuset:/\n0::/x\n";
        let expected = [
            (Kind::Tasks, "pids"),
            (Kind::Memory, "memory/m"),
            (Kind::Cpu, "cpu,cpuacct/c"),
            (Kind::Unified, "unified/x"),
        ];
        let expected = expected.map(|(kind, name)| (kind, name.to_owned()));
        assert_eq!(found(mixed.path(), groups), expected);
        for groups in ["", "0", "0::/../../etc\n", ":::\n", "5:memory:/../x\n"] {
            assert_eq!(found(mixed.path(), groups), [], "{groups}");
        }
    }

    /// What a kernel refuses (processes in the group) is a folder here, which cannot be written.
    #[test]
    fn limits_of_version_2_go_to_the_group_around_only_where_it_was_handed_over() {
        let root = tree(&[
            "unit/gateway/cgroup.procs",
            "unit/gateway/cgroup.subtree_control/x",
            "unit/cgroup.subtree_control",
            "plain/cgroup.procs",
            "plain/cgroup.subtree_control/x",
            "cgroup.subtree_control",
        ]);
        let at = |name: &str| root.path().join(name);
        assert_eq!(hand_on(&at("unit/gateway")), at("unit"));
        assert_eq!(hand_on(&at("plain")), at("plain"));
        assert_eq!(
            fs::read_to_string(at("cgroup.subtree_control")).unwrap(),
            ""
        );
    }

    #[test]
    fn where_nothing_can_be_made_nothing_is() {
        let root = tree(&[]);
        let group = Group::below(root.path(), "0::/\n4:memory:/\n", BOUNDS);
        assert_eq!(group.held(), Held::default());
        assert!(group.entrances().is_empty());
        group.kill();
    }

    #[test]
    fn numbers_are_written_as_the_kernel_reads_them() {
        let root = tree(&[
            "g/memory.max",
            "g/pids.max",
            "g/cpu.max",
            "g/memory.oom.group",
        ]);
        let folder = root.path().join("g");
        let held = unified(&folder, BOUNDS);
        assert!(held.memory && held.tasks);
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!(read("pids.max"), "64");
        assert_eq!(read("cpu.max"), "200000 100000");
        assert_eq!(read("memory.oom.group"), "1");
    }

    #[test]
    fn groups_of_guardians_that_are_gone_are_removed() {
        let root = tree(&[]);
        let own = format!("{NAME}{}", std::process::id());
        for name in [
            own.as_str(),
            "vllm-responses-4194999",
            "vllm-responses-x",
            "other",
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        // A guardian below one that was killed with it.
        let outer = root.path().join("vllm-responses-4194999");
        fs::create_dir(outer.join("vllm-responses-4194998")).unwrap();
        clear(root.path());
        let left = |name: &str| root.path().join(name).exists();
        assert!(left(&own) && left("vllm-responses-x") && left("other"));
        assert!(!left("vllm-responses-4194999"));
    }
}
