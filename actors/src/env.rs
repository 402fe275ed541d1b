//! Time and randomness, the two things that tests must be able to script.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit};
use vllm_responses_protocol::ids::IdSource;

/// Where actors get the time.
pub trait Clock {
    /// Unix milliseconds.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that reads it"
        )]
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Ids from the operating system's random source, fetched a kilobyte at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

/// Random bytes not yet used, per thread.
struct Pool {
    bytes: [u8; POOL],
    used: usize,
}

const POOL: usize = 1024;
const ID: usize = size_of::<u128>();

thread_local! {
    static RANDOM: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL], used: POOL }) };
}

impl IdSource for SystemIds {
    fn next_bits(&mut self) -> u128 {
        RANDOM.with_borrow_mut(|pool| {
            if pool.used + ID > POOL {
                #[expect(
                    clippy::expect_used,
                    reason = "without randomness no id is safe to make"
                )]
                getrandom::fill(&mut pool.bytes).expect("the system has a random source");
                pool.used = 0;
            }
            let mut id = [0; ID];
            id.copy_from_slice(
                pool.bytes
                    .get(pool.used..pool.used + ID)
                    .unwrap_or(&[0; ID]),
            );
            pool.used += ID;
            u128::from_le_bytes(id)
        })
    }
}

/// How many responses this process can hold open: each costs two descriptors, one to the client and
/// one to the upstream, and 512 are kept for everything else (fault L3).
pub fn places_by_descriptors() -> usize {
    (open_files().saturating_sub(512) / 2).clamp(64, MAX_PLACES)
}

/// How many connections of clients may be open, beside the upstream connections of so many responses.
///
/// There are always descriptors left for what must not fail: the database, Redis, child processes.
/// Beyond it a connection waits to be accepted, which is short while those that are refused close.
pub fn connections_by_descriptors(places: usize) -> usize {
    open_files().saturating_sub(places + 256).max(64)
}

fn open_files() -> usize {
    usize::try_from(descriptor_limit()).unwrap_or(usize::MAX)
}

/// How many descriptors this process may have open.
pub fn descriptor_limit() -> u64 {
    let (soft, _hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    soft
}

/// Bytes of memory that this process may hope for: the machine's, or its control group's if less. 1 GiB
/// where neither says.
pub fn memory_bytes() -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let machine = total_memory(&read("/proc/meminfo"));
    let group = crate::cgroup::memory_limit();
    machine.into_iter().chain(group).min().unwrap_or(1 << 30)
}

/// `MemTotal:  16318412 kB` among the kernel's lines.
fn total_memory(lines: &str) -> Option<u64> {
    let line = lines
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Beyond this, more places only mean more memory at stake.
const MAX_PLACES: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        assert_eq!(
            total_memory("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(total_memory("MemTotal: many"), None);
        assert!(memory_bytes() > 1 << 20);
    }

    /// Mutation tried, and it failed: one bit that is always set.
    #[test]
    fn t1_a_million_ids_have_no_duplicate_no_bias_and_no_order() {
        const COUNT: u32 = 1_000_000;
        let ids: Vec<u128> = (0..COUNT).map(|_| SystemIds.next_bits()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        let mut ones = [0u32; 128];
        let mut rises = [0u32; 16];
        for (index, id) in ids.iter().enumerate() {
            let before = index.checked_sub(1).map_or(0, |before| ids[before]);
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += u32::from((id >> bit) & 1 == 1);
            }
            // A counter or a clock in any byte would rise more often than it falls.
            let (id, before) = (id.to_be_bytes(), before.to_be_bytes());
            for (rises, (id, before)) in rises.iter_mut().zip(id.iter().zip(before)) {
                *rises += u32::from(*id > before);
            }
        }
        // Five sigma for one bit of 128, six since all are judged.
        let within = |seen: u32, chance: f64| {
            let expected = f64::from(COUNT) * chance;
            let sigma = (f64::from(COUNT) * chance * (1.0 - chance)).sqrt();
            (f64::from(seen) - expected).abs() < 6.0 * sigma
        };
        for (bit, ones) in ones.into_iter().enumerate() {
            assert!(within(ones, 0.5), "bit {bit}: {ones}");
        }
        for (byte, rises) in rises.into_iter().enumerate() {
            assert!(within(rises, 255.0 / 512.0), "byte {byte}: {rises}");
        }
    }
}
