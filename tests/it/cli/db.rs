//! `db`: what operators do with the database, on both kinds.
//!
//! Mutations, not tried yet, that should fail this group: a copy without settings; a copy that skips its last page; a purge
//! without overwriting (`secure_delete`) or without emptying the log.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _};
use serde_json::{Value, json};

use super::{Place, text};
use crate::harness::postgres::{FreshDatabase, OwnServer, PASSWORD, Sql};
use crate::harness::{Fake, Script, TestGateway};

fn db(place: &Place, database: &str, arguments: &[&str]) -> Output {
    let arguments: Vec<_> = ["db"].iter().chain(arguments).copied().collect();
    place.run(&arguments, &[("VR_DB_PATH", database)])
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(words), "{told}");
    assert!(!told.contains("CANARY"), "{told}");
}

fn status(place: &Place, database: &str) -> Value {
    let told = done(&db(place, database, &["status", "--json"]));
    serde_json::from_str(&told).expect("JSON")
}

fn connect(path: &Path) -> SqliteConnection {
    SqliteConnection::establish(path.to_str().expect("path")).expect("database")
}

fn number(path: &Path, statement: &str) -> i64 {
    count(&mut connect(path), statement)
}

fn count(connection: &mut SqliteConnection, statement: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let row: Row = diesel::sql_query(statement)
        .get_result(connection)
        .expect("number");
    row.n
}

/// Fills a migrated SQLite file with this many responses of two owners, a tenth deleted, in chains.
fn fill(path: &Path, rows: usize) {
    let statement = format!(
        "INSERT INTO settings VALUES ('', 'h0', '{{\"n\":0}}'), ('', 'h1', '{{\"n\":1}}'), ('al', 'h1', '{{\"n\":2}}');
         WITH RECURSIVE i (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < {rows} - 1)
         INSERT INTO responses SELECT
           printf('resp_%08x', n * 40503 % 1000003), iif(n % 10 = 0, NULL, printf('resp_%08x', (n - 1) * 40503 % 1000003)),
           iif(n % 20 < 10, '', 'al'), 'm', 'completed', 1700000000000 + n, 1700000000500 + n,
           iif(n % 10 = 9, 1700000001000, NULL), iif(n % 10 = 9, 1700000001000, NULL),
           '[{{\"id\":\"m' || n || '\",\"text\":\"Größe 🦀 \\u0000\"}}]', '{{\"id\":\"' || n || '\",\"output\":[\"' || hex(randomblob(200)) || '\"]}}',
           iif(n % 20 < 10, 'h' || (n % 2), 'h1'), 1 FROM i;
         WITH RECURSIVE i (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < {rows} / 10)
         INSERT INTO approvals SELECT iif(n % 2, '', 'al'), printf('%064x', n), 'resp_' || n, 'resp_x', n FROM i;"
    );
    connect(path).batch_execute(&statement).expect("rows");
}

#[test]
fn status_counts_and_adopt_and_purge_change_it() {
    let place = Place::new();
    let file = place.0.path().join("a.db");
    refused(&db(&place, "a.db", &["status"]), 1, "there is no such file");
    assert!(!file.exists(), "looking makes nothing");
    done(&db(&place, "a.db", &["migrate"]));
    done(&db(&place, "a.db", &["migrate"]));
    fill(&file, 100);
    let told = status(&place, "a.db");
    let counts = ["responses", "live", "deleted", "expired"].map(|key| told[key].as_u64());
    assert_eq!(counts, [Some(100), Some(90), Some(10), Some(0)]);
    assert_eq!(told["oldest_unix_ms"], 1_700_000_000_000_u64);
    let lines = done(&db(&place, "a.db", &["status"]));
    assert!(lines.contains("oldest     2023-11-14 22:13 UTC"), "{lines}");
    assert!(lines.starts_with("database   SQLite, a.db\n"), "{lines}");

    refused(
        &db(&place, "a.db", &["adopt", "a b"]),
        2,
        "the name must be",
    );
    let told = done(&db(&place, "a.db", &["adopt", "al"]));
    assert_eq!(told, "al now owns 50 responses that nobody owned.\n");
    assert_eq!(
        number(
            &file,
            "SELECT count(*) AS n FROM responses WHERE owner = ''"
        ),
        0
    );
    assert_eq!(number(&file, "SELECT count(*) AS n FROM settings"), 2);

    refused(
        &db(&place, "a.db", &["purge", "--grace", "soon"]),
        2,
        "`--grace` must be a duration",
    );
    assert_eq!(
        done(&db(&place, "a.db", &["purge"])),
        "Removed 10 responses.\n"
    );
    assert_eq!(status(&place, "a.db")["responses"], 90);
}

#[test]
fn a_database_that_cannot_be_used_is_told_without_its_password() {
    let place = Place::new();
    // Nobody listens on port 9.
    let nowhere = format!("postgresql://u:{PASSWORD}@127.0.0.1:9/d");
    for command in ["status", "migrate", "purge"] {
        refused(&db(&place, &nowhere, &[command]), 1, "onnection refused");
    }
    let serve = [
        "serve",
        "--upstream",
        "http://127.0.0.1:9",
        "--gateway-port",
        "0",
    ];
    refused(
        &place.run(&serve, &[("VR_DB_PATH", &nowhere)]),
        1,
        "onnection refused",
    );
    place.file("old.db", "");
    refused(
        &db(&place, "old.db", &["status"]),
        1,
        "run `vllm-responses db migrate`",
    );
    refused(
        &db(&place, "a.db", &["copy", "--from", "a.db"]),
        2,
        "are the same database",
    );
    let wrong = ["copy", "--to", "mysql://u:CANARY@h/d"];
    refused(
        &db(&place, "a.db", &wrong),
        2,
        "`--to`: must be a file path",
    );
    if let Some(server) = OwnServer::start() {
        let wrong = server.url().replace(PASSWORD, "CANARY-wrong");
        refused(
            &db(&place, &wrong, &["status"]),
            1,
            "password authentication failed",
        );
    }
}

/// SQLite to PostgreSQL and back to another file: the two files have the same rows.
#[test]
fn copy_there_and_back_is_byte_equal() {
    const ROWS: usize = 10_000;
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let place = Place::new();
    let [first, second] = ["a.db", "b.db"].map(|name| place.0.path().join(name));
    done(&db(&place, "a.db", &["migrate"]));
    fill(&first, ROWS);

    let there = ["copy", "--to", &database.url()];
    let told = done(&db(&place, "a.db", &there));
    assert_eq!(
        told,
        format!("{ROWS} written, 0 there before, {ROWS} compared and equal.\n")
    );
    done(&db(
        &place,
        "a.db",
        &["copy", "--from", &database.url(), "--to", "b.db"],
    ));
    for table in ["responses", "settings", "approvals"] {
        let differing = format!(
            "ATTACH '{}' AS other; CREATE TEMP TABLE d AS \
             SELECT * FROM (SELECT * FROM main.{table} EXCEPT SELECT * FROM other.{table}) \
             UNION ALL SELECT * FROM (SELECT * FROM other.{table} EXCEPT SELECT * FROM main.{table});",
            second.display()
        );
        let mut one = connect(&first);
        one.batch_execute(&differing).expect("compare");
        assert_eq!(
            count(&mut one, "SELECT count(*) AS n FROM temp.d"),
            0,
            "{table}"
        );
    }
}

#[test]
fn an_interrupted_copy_is_taken_up_and_a_clash_is_named() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let place = Place::new();
    let file = place.0.path().join("a.db");
    done(&db(&place, "a.db", &["migrate"]));
    fill(&file, 1_000);
    let mut copy = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args(["db", "copy", "--from", "a.db", "--to", &database.url()])
        .current_dir(place.0.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("copy");
    let mut told = BufReader::new(copy.stderr.take().expect("stderr")).lines();
    let first = told.next().expect("progress").expect("progress");
    assert!(first.starts_with("copying "), "{first}");
    copy.kill().expect("kill");
    copy.wait().expect("wait");

    let there = ["copy", "--to", &database.url()];
    let told = done(&db(&place, "a.db", &there));
    assert!(told.ends_with("1000 compared and equal.\n"), "{told}");
    assert!(!told.starts_with("1000 written"), "it had begun: {told}");
    let told = done(&db(&place, "a.db", &there));
    assert_eq!(
        told,
        "0 written, 1000 there before, 1000 compared and equal.\n"
    );
    // What changes in a row's life follows.
    let change = "UPDATE responses SET deleted_at = 5, expires_at = 5 WHERE id = 'resp_00000000'";
    connect(&file).batch_execute(change).expect("update");
    let told = done(&db(&place, "a.db", &there));
    assert!(told.starts_with("1 written"), "{told}");

    let mut sql = Sql::connect(&database.url());
    sql.run("UPDATE responses SET response = '{}' WHERE id = 'resp_00000000'");
    refused(&db(&place, "a.db", &there), 1, "such as resp_00000000");
    sql.run("DELETE FROM responses; UPDATE settings SET json = '{}'");
    refused(&db(&place, "a.db", &there), 1, "1000 changed or came");
}

/// A copy takes what one step has, not what the database has. Before, 24 rows of 4 MiB took 446 MB, and
/// 48 of 24 MB were more than PostgreSQL takes in one message.
#[test]
fn a_copy_of_large_responses_takes_the_memory_of_one_step() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let place = Place::new();
    let file = place.0.path().join("a.db");
    done(&db(&place, "a.db", &["migrate"]));
    fill(&file, 24);
    let large = "UPDATE responses SET input_items = '[\"' || hex(randomblob(2097152)) || '\"]'";
    connect(&file).batch_execute(large).expect("large rows");
    let mut copy = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args(["db", "copy", "--from", "a.db", "--to", &database.url()])
        .current_dir(place.0.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("copy");
    let mut peak = 0;
    let code = loop {
        peak = highest(copy.id()).unwrap_or(peak);
        match copy.try_wait().expect("wait") {
            Some(status) => break status.code(),
            None => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    };
    assert_eq!(code, Some(0));
    assert!((1..120).contains(&peak), "{peak} MiB");
}

/// The most memory that a process had, in MiB.
fn highest(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

/// D13: deleted, purged, and found in no file.
#[test]
fn d13_what_is_purged_is_nowhere() {
    const CANARY: &str = "CANARY-4d1f";
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let place = Place::new();
    let file = place.0.path().join("a.db");
    let mut gateway = TestGateway::on(&fake.url()).db(&file).start();
    let body = json!({"model": "m", "input": CANARY.repeat(2000), "instructions": CANARY});
    let told = gateway.client().create(&body).json();
    let found = || {
        let files = std::fs::read_dir(place.0.path()).expect("folder").flatten();
        let holds = |path: &Path| {
            let bytes = std::fs::read(path).expect("file");
            bytes
                .windows(CANARY.len())
                .any(|some| some == CANARY.as_bytes())
        };
        files.filter(|file| holds(&file.path())).count()
    };
    assert!(found() > 0, "the canary was stored");
    let path = format!("/v1/responses/{}", told["id"].as_str().expect("id"));
    assert_eq!(gateway.client().delete(&path).status, 200);
    // Beside the running gateway, and again when it is gone.
    let purge = ["purge", "--grace", "0s"];
    assert_eq!(done(&db(&place, "a.db", &purge)), "Removed 1 responses.\n");
    gateway.kill();
    assert_eq!(done(&db(&place, "a.db", &purge)), "Removed 0 responses.\n");
    assert_eq!(found(), 0, "still in a file");
}
