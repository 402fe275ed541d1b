//! Encryption of PostgreSQL connections: what of the server's certificate is verified.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::plain_file;

use super::postgres_url::{PostgresUrl, SslMode};

/// What connects to the server of `url`. A problem is one sentence, without anything of the URL.
pub(super) fn connector(url: &PostgresUrl) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous();
    let verify = match url.ssl {
        SslMode::Disable | SslMode::Prefer | SslMode::Require => Verify::Nothing(provider),
        SslMode::VerifyCa => Verify::Authority(authorities(url, provider)?),
        SslMode::VerifyFull => Verify::AuthorityAndHost(authorities(url, provider)?),
    };
    let config = builder
        .with_custom_certificate_verifier(Arc::new(verify))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Whom a certificate may come from.
#[derive(Debug)]
struct Authorities {
    verifier: Arc<WebPkiServerVerifier>,
    /// The certificates of `sslrootcert`: a server that shows one of them itself is trusted too, as
    /// small installations sign their own.
    given: Vec<CertificateDer<'static>>,
}

/// Trusts the authorities of `sslrootcert`, or the system's.
fn authorities(url: &PostgresUrl, provider: Arc<CryptoProvider>) -> Result<Authorities, String> {
    let certificates = match &url.root {
        Some(path) => {
            let unread = |why: String| format!("the file of `sslrootcert` cannot be read: {why}");
            let text =
                plain_file::read(Path::new(path)).map_err(|error| unread(error.to_string()))?;
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            read.map_err(|error| unread(error.to_string()))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut given = certificates.clone();
    if url.root.is_none() {
        given.clear();
    }
    let mut roots = RootCertStore::empty();
    let (known, _unusable) = roots.add_parsable_certificates(certificates);
    if known == 0 {
        return Err("no certificate authority is known: give a PEM file as `sslrootcert`".into());
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Authorities { verifier, given })
}

/// libpq's levels. Also where nothing is verified, the handshake itself must be sound.
#[derive(Debug)]
enum Verify {
    Nothing(Arc<CryptoProvider>),
    Authority(Authorities),
    AuthorityAndHost(Authorities),
}

impl ServerCertVerifier for Verify {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authorities = match self {
            Self::Nothing(_) => return Ok(ServerCertVerified::assertion()),
            Self::Authority(authorities) | Self::AuthorityAndHost(authorities) => authorities,
        };
        let outcome = if authorities.given.contains(end_entity) {
            ParsedCertificate::try_from(end_entity)
                .and_then(|parsed| verify_server_name(&parsed, server_name))
                .map(|()| ServerCertVerified::assertion())
        } else {
            authorities.verifier.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )
        };
        // The name is looked at last: whoever fails there has passed everything else.
        match (self, outcome) {
            (
                Self::Authority(_),
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )),
            ) => Ok(ServerCertVerified::assertion()),
            (_, outcome) => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Nothing(provider) => rustls::crypto::verify_tls12_signature(
                message,
                cert,
                dss,
                &provider.signature_verification_algorithms,
            ),
            Self::Authority(trusted) | Self::AuthorityAndHost(trusted) => {
                trusted.verifier.verify_tls12_signature(message, cert, dss)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Nothing(provider) => rustls::crypto::verify_tls13_signature(
                message,
                cert,
                dss,
                &provider.signature_verification_algorithms,
            ),
            Self::Authority(trusted) | Self::AuthorityAndHost(trusted) => {
                trusted.verifier.verify_tls13_signature(message, cert, dss)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Self::Nothing(provider) => provider
                .signature_verification_algorithms
                .supported_schemes(),
            Self::Authority(trusted) | Self::AuthorityAndHost(trusted) => {
                trusted.verifier.supported_verify_schemes()
            }
        }
    }
}
