//! Writing JSON into buffers.

use serde::Serialize;

/// Appends `value` as JSON.
///
/// Our wire types have string keys and no fallible `Serialize`, and a `Vec` takes every write, so
/// this cannot fail; were it ever to, the buffer is left as it was.
pub(crate) fn append<T: Serialize>(buffer: &mut Vec<u8>, value: &T) {
    let before = buffer.len();
    if serde_json::to_writer(&mut *buffer, value).is_err() {
        buffer.truncate(before);
    }
}
