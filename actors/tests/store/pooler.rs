//! PgBouncer in transaction mode: each transaction meets another session of the server.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use url::Url;
use vllm_responses_actors::store::desk::{Desk, Opening};
use vllm_responses_actors::store::settings::StoreSettings;

use crate::fixture::{Place, child, open, record, settings};

/// A pooler before the database of a place, ended with it.
struct Pooler {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _gone: std::io::Result<()> = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// None, and a line that says so, where there is no PgBouncer.
fn pooler(place: &Place) -> Option<Pooler> {
    let server = Url::parse(&place.url()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let database = server.path().trim_start_matches('/');
    let ini = format!(
        "[databases]\n{database} = host={} port={} dbname={database} user={} password={}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
         unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200\n",
        server.host_str().unwrap(),
        server.port().unwrap_or(5432),
        server.username(),
        server.password().unwrap_or_default(),
    );
    let file = folder.path().join("pgbouncer.ini");
    std::fs::write(&file, ini).unwrap();
    let mut command = Command::new("pgbouncer");
    if nix::unistd::Uid::effective().is_root() {
        command.args(["-u", "nobody"]);
    }
    let started = command
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(process) = started else {
        eprintln!("SKIPPED: there is no pgbouncer");
        return None;
    };
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "no pooler");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(Pooler {
        process,
        url: format!("postgres://tests@127.0.0.1:{port}/{database}"),
        _folder: folder,
    })
}

#[actix_rt::test]
async fn gateways_behind_a_pooler_lose_nothing() {
    let Some(place) = Place::postgres() else {
        return;
    };
    let Some(pooler) = pooler(&place) else {
        return;
    };
    let sweeping = StoreSettings {
        purge_interval: Some(Duration::from_millis(50)),
        ..settings(&pooler.url)
    };
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(open(sweeping.clone()).await.unwrap());
    }
    let turns = (0..24).map(|client| {
        let store = stores[client % 3].clone();
        async move {
            let id = |turn: usize| format!("c{client}t{turn}");
            store.commit(record("alice", &id(0))).await.unwrap();
            for turn in 1..12 {
                let links = store.chain_ids("alice", &id(turn - 1)).await;
                assert_eq!(links.len(), turn);
                let next = child("alice", &id(turn), &id(turn - 1));
                store.commit(next).await.unwrap();
            }
            assert_eq!(store.remove("alice", &id(11)).await, Ok(true));
            assert_eq!(store.fetch("alice", &id(11)).await, Ok(None));
        }
    });
    join_all(turns).await;
    let mut desk = Desk::open(&settings(&pooler.url), Opening::AsItIs)
        .await
        .unwrap();
    assert_eq!(desk.census().await.unwrap().live, 24 * 11);
}
