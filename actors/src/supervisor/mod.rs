//! Who starts, watches and restarts the components of the gateway.

pub mod restart;
