//! Pure: the keys of limits, judged.

use vllm_responses_actors::limits::{KeyLimits, LimitSettings, Rates};
use vllm_responses_actors::memory::Memory;

use super::Limits;
use super::validate::Reader;
use crate::keys::MOST;

/// Less could not hold one request of the default size.
const LEAST_MEMORY: usize = 1 << 20;

impl Reader<'_> {
    pub(super) fn limits(&mut self) -> Option<Limits> {
        let rule = "must be a size of at least one byte, in `KiB`, `MiB` or `GiB`; write for example `32MiB`";
        let body = self.size("limits.body", rule, 1);
        let depth = self.number("limits.json_depth", 1..=127);
        let flight = self.number("limits.max_in_flight", 0..=1_000_000);
        let rule = "must be a size of at least `1MiB`, in `KiB`, `MiB` or `GiB`; write for example `512MiB`";
        let memory = self.size("limits.memory", rule, LEAST_MEMORY);
        let rates = self.rates();
        Some(Limits {
            body_bytes: body?,
            json_depth: depth?,
            max_in_flight: flight?,
            memory: Memory::new(memory?),
            rates: rates?,
        })
    }

    fn rates(&mut self) -> Option<LimitSettings> {
        let requests = self.limit("limits.requests_per_minute");
        let tokens = self.limit("limits.tokens_per_minute");
        let concurrent = self.limit("limits.key_concurrent");
        let key_requests = self.limit("limits.key_requests_per_minute");
        let key_tokens = self.limit("limits.key_tokens_per_minute");
        let window = self.positive("limits.window");
        let some = |number: u64| Some(number).filter(|number| *number > 0);
        Some(LimitSettings {
            window: window?,
            all: Rates {
                requests: some(requests?),
                tokens: some(tokens?),
            },
            key: KeyLimits {
                concurrent: some(concurrent?),
                rates: Rates {
                    requests: some(key_requests?),
                    tokens: some(key_tokens?),
                },
            },
        })
    }

    /// A limit, where 0 is none.
    fn limit(&mut self, key: &str) -> Option<u64> {
        let rule = format!("must be a whole number; write one from 0 to {MOST}, 0 for no limit");
        self.read(key, &rule, |text| {
            text.parse().ok().filter(|number| *number <= MOST)
        })
    }
}
