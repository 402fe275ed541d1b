//! `sslmode`, tried on a server that has TLS with a certificate of its own.
//!
//! Mutation that fails this group: `verify-full` treated as `require`.

use std::time::{Duration, Instant};

use vllm_responses_actors::store::StoreStartError;

use crate::fixture::{Place, open, record, settings};

/// 1 where all sessions of ours are encrypted, 11 where none is.
const SESSIONS: &str = "SELECT count(DISTINCT ssl) + min(CASE WHEN ssl THEN 0 ELSE 1 END) * 10 AS n \
     FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
     WHERE application_name = 'vllm-responses' AND datname = current_database()";

/// The server's certificate in a file, or nothing where the server has no TLS.
fn certificate(place: &Place, folder: &tempfile::TempDir) -> Option<String> {
    if place.number("SELECT count(*) AS n FROM pg_settings WHERE name = 'ssl' AND setting = 'on'")
        == 0
    {
        eprintln!("SKIPPED: the PostgreSQL server of TEST_DATABASE_URL has no TLS");
        return None;
    }
    let pem = place.text("SELECT pg_read_file(current_setting('ssl_cert_file')) AS t");
    let path = folder.path().join("server.crt");
    std::fs::write(&path, pem).unwrap();
    Some(path.to_str().unwrap().to_owned())
}

#[actix_rt::test]
async fn sslmode_means_what_it_means_to_libpq() {
    let Some(place) = Place::postgres() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let Some(certificate) = certificate(&place, &folder) else {
        return;
    };
    let with = |query: String| settings(&format!("{}?{query}", place.url()));
    let root = format!("&sslrootcert={certificate}");
    for (mode, root, encrypted) in [
        ("disable", "", 0),
        ("prefer", "", 1),
        ("require", "", 1),
        ("require", root.as_str(), 1),
        ("verify-ca", root.as_str(), 1),
        ("verify-full", root.as_str(), 1),
    ] {
        let store = open(with(format!("sslmode={mode}{root}"))).await;
        let store = store.unwrap_or_else(|error| panic!("{mode}: {error}"));
        store.commit(record("alice", mode)).await.unwrap();
        // A session that begins just now is not encrypted yet.
        let wanted = if encrypted == 1 { 1 } else { 11 };
        let until = Instant::now() + Duration::from_secs(10);
        while place.number(SESSIONS) != wanted && Instant::now() < until {
            actix_rt::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(place.number(SESSIONS), wanted, "{mode}");
        drop(store);
        place.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'vllm-responses' AND datname = current_database()",
        );
    }
    // A self-signed certificate that nobody vouches for.
    for mode in ["verify-ca", "verify-full"] {
        let refused = open(with(format!("sslmode={mode}"))).await.map(drop);
        assert!(
            matches!(refused, Err(StoreStartError::Server(_))),
            "{mode}: {refused:?}"
        );
    }
    // It is the one that was given, but for another name.
    let elsewhere = place.url().replace("@127.0.0.1:", "@other.example:");
    let named = |mode| {
        settings(&format!(
            "{elsewhere}?hostaddr=127.0.0.1&sslmode={mode}{root}"
        ))
    };
    open(named("verify-ca")).await.map(drop).unwrap();
    let refused = open(named("verify-full")).await.map(drop);
    assert!(
        matches!(refused, Err(StoreStartError::Server(_))),
        "{refused:?}"
    );
}
