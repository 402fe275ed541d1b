//! `/v1/responses`.

pub(super) mod create;
pub(super) mod delete;
pub(super) mod get;
pub(super) mod input_items;

use std::time::Duration;

/// The store answers within 5 s or says that it cannot; this is for one that died.
const STORE_LIMIT: Duration = Duration::from_secs(8);
