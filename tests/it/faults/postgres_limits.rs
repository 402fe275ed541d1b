//! D7: a PostgreSQL that takes no more sessions, takes no writes, or lets a statement run for ever.
//!
//! Mutations tried, and each failed: a session that was told "read-only" goes back to the pool (the gateway never stores
//! again); no statement time-out in a session's set-up (its sessions stay busy).

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::postgres::{OwnServer, PASSWORD, Sql};
use crate::harness::{Client, Fake, Script, TestGateway, check_resource};

/// A gateway whose role may have so many sessions on a server of the case's own.
struct Limited {
    server: OwnServer,
    gateway: TestGateway,
    _fake: Fake,
}

impl Limited {
    fn start(sessions: u32) -> Option<Self> {
        let server = OwnServer::start()?;
        let mut owner = Sql::connect(&server.url());
        owner.run(&format!(
            "CREATE ROLE gateway LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT {sessions}"
        ));
        owner.run("CREATE DATABASE kept OWNER gateway");
        let fake = Fake::start();
        fake.on("m", [Script::completion("yes")]);
        let url = Self::url(&server, "gateway");
        let gateway = TestGateway::on(&fake.url()).db(Path::new(&url)).start();
        Some(Self {
            server,
            gateway,
            _fake: fake,
        })
    }

    /// The URL of the gateway's database for this role.
    fn url(server: &OwnServer, role: &str) -> String {
        let url = server.url().replace("//tests:", &format!("//{role}:"));
        let (server, _database) = url.rsplit_once('/').expect("a database in the URL");
        format!("{server}/kept")
    }

    /// A session of the server's owner, which no limit meets.
    fn owner(&self) -> Sql {
        Sql::connect(&Self::url(&self.server, "tests"))
    }

    /// Every session of the gateway ends; what it opens next is new.
    fn end_sessions(&self) {
        self.owner().run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE usename = 'gateway' AND application_name = 'vllm-responses'",
        );
    }

    fn client(&self) -> Client {
        self.gateway.client()
    }
}

fn create(client: Client) -> Value {
    let reply = client.create(&json!({"model": "m", "input": "a"}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.json();
    check_resource(&told);
    assert_eq!(told["status"], "completed");
    told
}

/// The answer comes, says that it is not kept, and comes in time.
fn assert_unstored(client: Client) {
    let began = Instant::now();
    assert_eq!(create(client)["store"], false);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(12), "answered after {took:?}");
}

fn assert_readable(client: Client, told: &Value) {
    let path = format!("/v1/responses/{}", told["id"].as_str().expect("id"));
    assert_eq!(client.get(&path).json(), *told);
}

fn assert_heals(client: Client) {
    let until = Instant::now() + Duration::from_secs(20);
    while create(client)["store"] != true {
        assert!(Instant::now() < until, "not stored again");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn d7_no_session_left_is_answered_unstored_and_heals() {
    let Some(limited) = Limited::start(6) else {
        return;
    };
    let client = limited.client();
    let first = create(client);
    assert_eq!(first["store"], true);
    // Others of the same role take every place that the gateway gives up.
    let url = Limited::url(&limited.server, "gateway");
    limited.owner().run("ALTER ROLE gateway CONNECTION LIMIT 0");
    limited.end_sessions();
    assert_unstored(client);
    let path = format!("/v1/responses/{}", first["id"].as_str().expect("id"));
    client.get(&path).error(503);
    limited.owner().run("ALTER ROLE gateway CONNECTION LIMIT 2");
    assert_heals(client);
    assert_readable(client, &first);
    let busy = Sql::connect(&Limited::url(&limited.server, "tests"))
        .numbers("SELECT count(*) AS n FROM pg_stat_activity WHERE usename = 'gateway'");
    assert!(busy[0] <= 2, "{busy:?}");
    assert!(!limited.gateway.log().contains(PASSWORD), "{url}");
}

#[test]
fn d7_a_read_only_server_is_answered_unstored_and_heals() {
    let Some(limited) = Limited::start(20) else {
        return;
    };
    let client = limited.client();
    let first = create(client);
    limited
        .owner()
        .run("ALTER ROLE gateway SET default_transaction_read_only = on");
    limited.end_sessions();
    assert_unstored(client);
    assert_readable(client, &first);
    let body = json!({"model": "m", "input": "b", "store": false});
    assert_eq!(client.create(&body).json()["status"], "completed");
    // The sessions of now are read-only as long as they live.
    limited
        .owner()
        .run("ALTER ROLE gateway RESET default_transaction_read_only");
    assert_heals(client);
}

#[test]
fn d7_a_statement_without_end_is_ended() {
    let Some(limited) = Limited::start(20) else {
        return;
    };
    let client = limited.client();
    let first = create(client);
    let mut owner = limited.owner();
    owner.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$; \
         CREATE TRIGGER slow BEFORE INSERT ON responses FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    assert_unstored(client);
    assert_readable(client, &first);
    // The server does not go on with what nobody waits for.
    let running = "SELECT count(*) AS n FROM pg_stat_activity \
                   WHERE usename = 'gateway' AND state <> 'idle'";
    let until = Instant::now() + Duration::from_secs(15);
    while owner.numbers(running) != [0] {
        assert!(Instant::now() < until, "a statement runs on");
        thread::sleep(Duration::from_millis(200));
    }
    owner.run("DROP TRIGGER slow ON responses");
    assert_heals(client);
}
