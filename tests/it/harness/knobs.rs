//! Names of the settings that tests shorten. One place, so that a renamed setting is one edit.

/// Idle deadline between two reads of an upstream stream.
pub(crate) const IDLE_TIMEOUT: &str = "VR_UPSTREAM_IDLE_TIMEOUT";
/// Deadline for the upstream's status line.
pub(crate) const HEAD_TIMEOUT: &str = "VR_UPSTREAM_HEAD_TIMEOUT";
/// Deadline for a whole call that is not streamed.
pub(crate) const WHOLE_TIMEOUT: &str = "VR_UPSTREAM_WHOLE_TIMEOUT";
/// How long a stream's own status waits for the upstream's.
pub(crate) const HOLD_STATUS: &str = "VR_HOLD_STATUS";
/// Silence after which a comment is sent.
pub(crate) const KEEP_ALIVE: &str = "VR_KEEP_ALIVE";
/// Grace for running requests at a stop.
pub(crate) const SHUTDOWN_GRACE: &str = "VR_SHUTDOWN_GRACE";
/// Where the data is.
pub(crate) const DB_PATH: &str = "VR_DB_PATH";
/// Time without a byte taken after which a client is cut off.
pub(crate) const WRITE_STALL: &str = "VR_WRITE_STALL";

/// Multiplies rounds of the long cases when `VR_LONG=1`.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    if std::env::var("VR_LONG").is_ok_and(|v| v == "1") {
        long
    } else {
        short
    }
}
