//! The one TLS implementation of the process, chosen before the first client is made, and what its
//! HTTP clients trust.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::plain_file;

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
        if let Some(why) = unreadable() {
            log::error!("`SSL_CERT_FILE` cannot be read ({why}): no TLS certificate is trusted");
            return Arc::new(trusting(Vec::new()));
        }
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            log::warn!("some TLS roots of the system cannot be read: {error}");
        }
        Arc::new(trusting(found.certs))
    }))
}

fn trusting(certificates: Vec<CertificateDer<'static>>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Why the file of roots that the environment names cannot be read; a pipe would be read for ever.
fn unreadable() -> Option<String> {
    let file = std::env::var_os("SSL_CERT_FILE")?;
    let read = plain_file::read(Path::new(&file));
    read.err().map(|error| error.to_string())
}
