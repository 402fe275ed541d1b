//! What must hold for any bytes at all: one function per fuzz target, which panics when it does not.
//!
//! `fuzz/fuzz_targets` calls them under a coverage-guided fuzzer; `tests/` here calls them on stable, on
//! the kept corpus and on mutations of it. Not part of the product.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "an oracle speaks by panicking"
)]

pub mod chunks;
#[cfg(feature = "gateway")]
pub mod configuration;
#[cfg(feature = "gateway")]
pub mod guard;
pub mod mcp_file;
pub mod mcp_messages;
pub mod requests;
pub mod rows;
pub mod sealed;
pub mod sse;

/// A target: its name, which is that of its corpus, and its oracle.
pub type Target = (&'static str, fn(&[u8]));

/// All targets that are built.
pub const TARGETS: &[Target] = &[
    ("f1_sse", sse::check),
    ("f2_chunks", chunks::check),
    ("f3_requests", requests::check),
    ("f4_mcp_file", mcp_file::check),
    #[cfg(feature = "gateway")]
    ("f5_configuration", configuration::check),
    ("f6_mcp_messages", mcp_messages::check),
    ("f7_rows", rows::check),
    ("f8_sealed", sealed::check),
    #[cfg(feature = "gateway")]
    ("f10_guard", guard::check),
];

/// The bytes in two parts, cut at the first zero.
fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0);
    at.map_or((bytes, &[]), |at| (&bytes[..at], &bytes[at + 1..]))
}
