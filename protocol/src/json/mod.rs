//! Reading requests: every value with its place, every problem collected.
//!
//! The text is looked over once for what no request may contain ([`scan`]), then read lazily, level
//! by level, as raw pieces: a tool's schema is never taken apart, and a problem in one member does
//! not hide those of the next.

pub(crate) mod member;
pub(crate) mod problems;
pub(crate) mod read;
pub(crate) mod scan;
pub(crate) mod surrogates;

pub(crate) use problems::{Place, Problems};
pub(crate) use read::{Fields, Kind, elements, kind};
