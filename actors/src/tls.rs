//! The one TLS implementation of the process, chosen before the first client is made.

/// Chooses it. Calling it again does nothing.
pub fn install() {
    // Refused only when one is there, which is then used.
    drop(rustls::crypto::ring::default_provider().install_default());
}
