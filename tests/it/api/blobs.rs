//! Pictures in stored conversations: kept once, and nobody can tell: model servers and clients get the
//! same bytes as if they stood in the rows.
//!
//! Mutations to try: a mark that is not replaced in one of the bodies; data that is taken for whole when a
//! chunk of it is missing; an input with a picture that is not known again from the history.

use std::path::PathBuf;
use std::process::Command;

use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::postgres::{FreshDatabase, Sql};
use crate::harness::upstream::script::{finish, tool_call};
use crate::harness::{Client, Fake, Script, TestGateway, check_resource};

/// More than one chunk, and not a round number.
const LARGE: usize = (1 << 20) + 12_345;

/// A picture that no other test has; another for each letter.
fn picture(letter: char, bytes: usize) -> String {
    format!("data:image/png;base64,{}", letter.to_string().repeat(bytes))
}

fn shows(url: &str, text: &str) -> Value {
    json!({"role": "user", "content": [
        {"type": "input_text", "text": text},
        {"type": "input_image", "image_url": url, "detail": "high"}]})
}

/// A database, of either kind.
enum Database {
    Sqlite(TempDir),
    Postgres(FreshDatabase),
}

impl Database {
    /// Of both kinds, where there is a server.
    fn all() -> impl Iterator<Item = Self> {
        let file = Self::Sqlite(TempDir::new().unwrap());
        let server = FreshDatabase::make().map(Self::Postgres);
        [file].into_iter().chain(server)
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Sqlite(folder) => folder.path().join("it.db"),
            Self::Postgres(database) => database.url().into(),
        }
    }

    fn number(&self, statement: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            n: i64,
        }
        match self {
            Self::Sqlite(_) => {
                let path = self.path();
                let connection = SqliteConnection::establish(path.to_str().unwrap());
                let query = diesel::sql_query(statement);
                query.get_result::<Row>(&mut connection.unwrap()).unwrap().n
            }
            Self::Postgres(database) => Sql::connect(&database.url()).numbers(statement)[0],
        }
    }

    fn run(&self, statement: &str) {
        match self {
            Self::Sqlite(_) => {
                let path = self.path();
                let connection = SqliteConnection::establish(path.to_str().unwrap());
                diesel::sql_query(statement)
                    .execute(&mut connection.unwrap())
                    .unwrap();
            }
            Self::Postgres(database) => Sql::connect(&database.url()).run(statement),
        }
    }

    /// What the texts of the rows have.
    fn bytes_in_rows(&self) -> i64 {
        self.number(
            "SELECT CAST(sum(octet_length(input_items) + octet_length(response)) AS BIGINT) AS n \
             FROM responses",
        )
    }

    fn gateway(&self, fake: &Fake) -> TestGateway {
        TestGateway::on(&fake.url())
            .db(&self.path())
            .env("VR_LOG_MODEL_MESSAGES", "1")
            .env("VR_LOG_LEVEL", "debug")
            .start()
    }

    fn db(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
            .arg("db")
            .args(arguments)
            .env("VR_DB_PATH", self.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn ask(client: &Client, previous: Option<&Value>, input: impl Into<Value>) -> Value {
    let input: Value = input.into();
    let mut body = json!({"model": "m", "input": input});
    if let Some(previous) = previous {
        body["previous_response_id"] = previous["id"].clone();
    }
    let told = client.create(&body).json();
    assert_eq!(
        (&told["status"], &told["store"]),
        (&json!("completed"), &json!(true)),
        "{told}"
    );
    told
}

/// The last body that the model server was sent.
fn last_sent(fake: &Fake) -> String {
    String::from_utf8(fake.seen("m").pop().unwrap().raw).unwrap()
}

/// Fails when a mark left the process.
#[track_caller]
fn no_marks(fake: &Fake, gateway: &TestGateway) {
    let sent: Vec<u8> = fake
        .all_seen()
        .into_iter()
        .flat_map(|seen| seen.raw)
        .collect();
    for bytes in [sent, gateway.log().into_bytes()] {
        let found = bytes.windows(7).any(|seven| seven == b"vrblob-");
        assert!(!found, "a mark left the gateway");
    }
}

#[test]
fn a_conversation_with_a_picture_stores_it_once_and_sends_it_each_time() {
    for database in Database::all() {
        let fake = Fake::start();
        fake.on("m", [Script::completion("seen")]);
        let gateway = database.gateway(&fake);
        let client = gateway.client();
        let url = picture('K', LARGE);
        let mut told = ask(&client, None, json!([shows(&url, "first")]));
        let mut items = vec![shows(&url, "first"), told["output"][0].clone()];
        for turn in 0..8 {
            let next = json!({"role": "user", "content": format!("turn {turn}")});
            told = ask(&client, Some(&told), json!([next]));
            items.push(next);
            let by_id = last_sent(&fake);
            assert!(by_id.contains(&url));
            // The same conversation with everything in it: the same bytes.
            let whole = json!({"model": "m", "input": items, "store": false});
            check_resource(&client.create(&whole).json());
            assert!(by_id == last_sent(&fake), "turn {turn}");
            items.push(told["output"][0].clone());
        }
        // Another response with the same picture, and one of its own.
        ask(&client, None, json!([shows(&url, "again")]));
        ask(
            &client,
            None,
            json!([shows(&picture('L', 70_000), "another")]),
        );
        assert_eq!(database.number("SELECT count(*) AS n FROM blobs"), 2);
        assert_eq!(
            database.number("SELECT CAST(sum(bytes) AS BIGINT) AS n FROM blobs"),
            i64::try_from(LARGE + 70_000).unwrap()
        );
        assert!(database.bytes_in_rows() < 40_000);
        let path = format!("/v1/responses/{}", told["id"].as_str().unwrap());
        for query in ["?limit=100", "?limit=100&order=asc", "?limit=1&order=asc"] {
            let list = client.get(&format!("{path}/input_items{query}"));
            let length: usize = list.header("content-length").unwrap().parse().unwrap();
            assert_eq!((list.status, length), (200, list.body.len()));
            assert_eq!(list.text().matches(&url).count(), 1, "{query}");
            assert!(!list.text().contains("vrblob"));
            list.json();
        }
        assert_eq!(client.get(&path).json(), told);
        no_marks(&fake, &gateway);
    }
}

#[test]
fn pictures_that_are_referred_to_counted_or_compacted_are_whole() {
    for database in Database::all() {
        let fake = Fake::start();
        fake.on("m", [Script::completion("seen")]);
        let count = json!({"count": 9, "max_model_len": 100, "tokens": []});
        fake.on("tokenize m", [Script::json(200, &count)]);
        let gateway = database.gateway(&fake);
        let client = gateway.client();
        let url = picture('R', LARGE);
        let told = ask(&client, None, json!([shows(&url, "first")]));
        let path = format!("/v1/responses/{}/input_items", told["id"].as_str().unwrap());
        let item = client.get(&path).json()["data"][0].clone();
        // A reference: stored again as one.
        let reference = json!({"type": "item_reference", "id": item["id"]});
        let referring = ask(
            &client,
            None,
            json!([reference, {"role": "user", "content": "b"}]),
        );
        assert_eq!(last_sent(&fake).matches(&url).count(), 1);
        ask(&client, Some(&referring), json!("c"));
        assert_eq!(last_sent(&fake).matches(&url).count(), 1);
        assert_eq!(database.number("SELECT count(*) AS n FROM blobs"), 1);
        assert_eq!(database.number("SELECT count(*) AS n FROM blob_uses"), 2);
        assert!(database.bytes_in_rows() < 10_000);
        let body = json!({"model": "m", "input": "d", "previous_response_id": told["id"]});
        let counted = client.post("/v1/responses/input_tokens", &body).json();
        assert_eq!(counted["input_tokens"], 9);
        let sent = fake.all_seen().pop().unwrap();
        assert!(sent.path == "/tokenize" && String::from_utf8(sent.raw).unwrap().contains(&url));
        let compacted = client.post("/v1/responses/compact", &body);
        assert_eq!(compacted.text().matches(&url).count(), 1);
        let length = compacted.header("content-length").unwrap();
        assert_eq!(length, compacted.body.len().to_string());
        assert_eq!(compacted.json()["object"], "response.compaction");
        no_marks(&fake, &gateway);
    }
}

#[test]
fn a_picture_that_a_tool_gave_is_known_again_when_it_is_sent_again() {
    let fake = Fake::start();
    let script = Script::stream()
        .all(&tool_call(0, "call_1", "shot", &["{}"]))
        .data(&finish("tool_calls"))
        .done();
    fake.on("m", [script, Script::completion("seen")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let tools = json!([{"type": "function", "name": "shot", "parameters": {"type": "object"}}]);
    let body = json!({"model": "m", "input": "a", "tools": tools, "stream": true});
    let stream = client.create(&body).text();
    let asked = crate::harness::check_stream(&stream).pop().unwrap()["response"].clone();
    let output = json!({"type": "function_call_output", "call_id": "call_1",
        "output": [{"type": "input_image", "image_url": picture('T', 80_000)}]});
    let told = ask(&client, Some(&asked), json!([output]));
    // The output is the history's: it is not said twice.
    ask(
        &client,
        Some(&told),
        json!([output, {"role": "user", "content": "b"}]),
    );
    let messages = &fake.seen("m").pop().unwrap().body["messages"];
    let pictures = messages.to_string().matches("data:image/png").count();
    assert_eq!(pictures, 1, "{}", messages.as_array().unwrap().len());
}

#[test]
fn data_that_is_missing_is_an_error_and_no_empty_picture() {
    for database in Database::all() {
        let fake = Fake::start();
        fake.on("m", [Script::completion("seen")]);
        let gateway = database.gateway(&fake);
        let client = gateway.client();
        let told = ask(&client, None, json!([shows(&picture('M', LARGE), "a")]));
        database.run("DELETE FROM blob_chunks WHERE position = 1");
        for stream in [false, true] {
            let body = json!({"model": "m", "input": "b", "stream": stream,
                "previous_response_id": told["id"]});
            let reply = client.create(&body);
            assert!(
                reply.text().contains("is not stored any more"),
                "{}",
                reply.text()
            );
            if !stream {
                reply.error(500);
            }
        }
        assert_eq!(fake.seen("m").len(), 1, "no part of a prompt is a prompt");
        let path = format!("/v1/responses/{}/input_items", told["id"].as_str().unwrap());
        // The status is sent: the connection is cut off before the end.
        assert!(client.try_send("GET", &path, &[], &[]).is_err());
    }
}

#[test]
fn a_model_server_that_refuses_a_large_prompt_early_is_heard() {
    let fake = Fake::start();
    fake.on(
        "m",
        [Script::completion("seen"), Script::error(413, "too much")],
    );
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let told = ask(&client, None, json!([shows(&picture('E', 4 * LARGE), "a")]));
    let body = json!({"model": "m", "input": "b", "previous_response_id": told["id"]});
    let reply = client.create(&body);
    assert!(
        reply.status >= 400 && reply.text().contains("too much"),
        "{}",
        reply.text()
    );
}

#[test]
fn pictures_go_with_their_conversation_and_move_with_it() {
    for database in Database::all() {
        let fake = Fake::start();
        fake.on("m", [Script::completion("seen")]);
        let mut gateway = database.gateway(&fake);
        let client = gateway.client();
        let (gone, kept) = (picture('G', LARGE), picture('H', LARGE));
        let told = ask(&client, None, json!([shows(&gone, "a"), shows(&kept, "b")]));
        ask(&client, None, json!([shows(&kept, "c")]));
        let status: Value = serde_json::from_str(&database.db(&["status", "--json"])).unwrap();
        let bytes = kept.len() - "data:image/png;base64,".len();
        assert_eq!(
            (&status["blobs"], &status["blob_bytes"]),
            (&json!(2), &json!(2 * bytes))
        );
        database.db(&["adopt", "al"]);
        assert_eq!(
            database.number("SELECT count(*) AS n FROM blobs WHERE owner = 'al'"),
            2
        );
        assert_eq!(
            database.number("SELECT count(*) AS n FROM blob_chunks WHERE owner = 'al'"),
            4
        );
        // A copy to a file and back has the same bytes.
        let folder = TempDir::new().unwrap();
        let copy = folder.path().join("copy.db");
        let copy = copy.to_str().unwrap();
        let told_copy = database.db(&["copy", "--to", copy]);
        assert!(told_copy.starts_with("2 written"), "{told_copy}");
        assert!(
            database
                .db(&["copy", "--to", copy])
                .starts_with("0 written, 2 there before, 2")
        );
        // Who has no key sees nothing of it any more, so the row is marked from outside.
        database.run(&format!(
            "UPDATE responses SET deleted_at = 1, expires_at = 1 WHERE id = '{}'",
            told["id"].as_str().unwrap()
        ));
        assert_eq!(
            database.db(&["purge", "--grace", "0s"]),
            "Removed 1 responses.\n"
        );
        assert_eq!(database.number("SELECT count(*) AS n FROM blobs"), 1);
        assert_eq!(database.number("SELECT count(*) AS n FROM blob_chunks"), 2);
        gateway.kill();
        if let Database::Sqlite(_) = database {
            let file = std::fs::read(database.path()).unwrap();
            let holds = |letter: u8| file.windows(64).any(|part| part == [letter; 64]);
            assert!(holds(b'H') && !holds(b'G'), "what went is overwritten");
        }
    }
}

/// Rows of the version before have their pictures in them.
#[test]
fn rows_with_pictures_in_them_go_on_to_be_read() {
    let database = Database::Sqlite(TempDir::new().unwrap());
    let fake = Fake::start();
    fake.on("m", [Script::completion("seen")]);
    let gateway = database.gateway(&fake);
    let client = gateway.client();
    let url = picture('O', 200_000);
    let told = ask(
        &client,
        None,
        json!([shows("data:image/png;base64,AAAA", "a")]),
    );
    database.run(&format!(
        "UPDATE responses SET input_items = replace(input_items, 'data:image/png;base64,AAAA', '{url}')"
    ));
    let told = ask(&client, Some(&told), json!("b"));
    assert_eq!(last_sent(&fake).matches(&url).count(), 1);
    let path = format!("/v1/responses/{}/input_items", told["id"].as_str().unwrap());
    assert_eq!(client.get(&path).text().matches(&url).count(), 1);
    assert_eq!(database.number("SELECT count(*) AS n FROM blobs"), 0);
}
