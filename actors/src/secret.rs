//! Text that must never be printed; the type itself is in `protocol`, whose requests have some too.

pub use vllm_responses_protocol::secret::Secret;
