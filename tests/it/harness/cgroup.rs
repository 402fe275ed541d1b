//! A memory cgroup of a case's own, of version 1 or 2, whichever this machine has and lets us make.

use std::fs;
use std::path::{Path, PathBuf};

/// Removed when it is dropped; whoever is in it has to be gone by then.
pub(crate) struct MemoryGroup {
    folder: PathBuf,
    /// The file that counts those whom the kernel killed for want of memory.
    events: &'static str,
}

impl MemoryGroup {
    /// A group that may have so many bytes. `None`, and a line that says so, where none can be made.
    pub(crate) fn make(bytes: usize) -> Option<Self> {
        let made = Self::first(bytes).or_else(|| Self::second(bytes));
        if made.is_none() {
            eprintln!("SKIPPED: this machine lets nobody make a memory cgroup");
        }
        made
    }

    fn first(bytes: usize) -> Option<Self> {
        let folder = new_folder(Path::new("/sys/fs/cgroup/memory"))?;
        let group = Self {
            folder,
            events: "memory.oom_control",
        };
        let limit = fs::write(
            group.folder.join("memory.limit_in_bytes"),
            bytes.to_string(),
        );
        limit.is_ok().then_some(group)
    }

    fn second(bytes: usize) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let above = Path::new("/sys/fs/cgroup").join(own);
        let folder = new_folder(above.parent().unwrap_or(&above))?;
        let group = Self {
            folder,
            events: "memory.events",
        };
        let limit = fs::write(group.folder.join("memory.max"), bytes.to_string());
        limit.is_ok().then_some(group)
    }

    /// Puts a process in, with all its threads.
    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).expect("a process of ours");
    }

    /// How many were killed for want of memory.
    pub(crate) fn killed(&self) -> u32 {
        let events = fs::read_to_string(self.folder.join(self.events)).expect("events");
        let line = (events.lines()).find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }
}

fn new_folder(above: &Path) -> Option<PathBuf> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).expect("random bits");
    let name = format!("vllm-responses-test-{:016x}", u64::from_le_bytes(bits));
    let folder = above.join(name);
    fs::create_dir(&folder).ok()?;
    Some(folder)
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Files of the kernel go with the folder.
        let _ = fs::remove_dir(&self.folder);
    }
}
