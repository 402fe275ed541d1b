//! The one TLS implementation of the process, chosen before the first client is made, and what its
//! HTTP clients trust.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};

/// Chooses it. Calling it again does nothing.
pub fn install() {
    // Refused only when one is there, which is then used.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Trusts the system's authorities; made when it is first asked for, and shared. Reading them takes
/// some 80 million instructions, so who speaks plain HTTP does not ask. After [`install`].
pub fn trusting_system() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            log::warn!("some TLS roots of the system cannot be read: {error}");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }))
}
