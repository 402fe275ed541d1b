//! The history checker: clients of two keys create, continue, fork, read, leave and delete on two
//! gateways over one database while both are killed, stopped and cut off from it. Everything that was
//! told is compared with everything that is read, while it goes on and afterwards.
//!
//! What happens when is drawn from a seed, which is printed; `SOAK_SEED` plays a plan again, and
//! `SOAK_SECONDS` sets its length. Mutation tried, and it failed: a query without its owner.
//! Not tried yet: a DELETE answered before its commit.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::ledger::{Ledger, Life};
use crate::api::keys::new_key;
use crate::harness::client::{Open, request};
use crate::harness::history::user_texts;
use crate::harness::postgres::{FreshDatabase, Sql};
use crate::harness::upstream::script::text;
use crate::harness::{Client, Fake, Reply, Script, TestGateway, check_resource, check_stream};

/// Numbers that look random and follow from a seed (splitmix).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut out = self.0;
        out = (out ^ (out >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        out = (out ^ (out >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (out ^ (out >> 31)) % sides
    }
}

/// Where both gateways are now; it changes with every restart.
type Doors = Mutex<[SocketAddr; 2]>;

/// One client.
struct Talker<'a> {
    dice: Dice,
    doors: &'a Doors,
    keys: &'a [String; 2],
    ledger: &'a Ledger,
    key: usize,
    operations: usize,
}

impl Talker<'_> {
    fn door(&mut self) -> Client {
        let which = usize::from(self.dice.roll(2) == 1);
        Client {
            address: self.doors.lock().unwrap()[which],
        }
    }

    /// None when nobody answered, or the gateway said that it cannot now.
    fn send(&mut self, key: usize, (method, path): (&str, &str), body: &[u8]) -> Option<Reply> {
        self.operations += 1;
        let bearer = format!("Bearer {}", self.keys[key]);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let reply = self.door().try_send(method, path, &headers, body).ok()?;
        (!matches!(reply.status, 502..=504)).then_some(reply)
    }

    fn create(&mut self) {
        let model = ["m", "s", "s", "breaks"][usize::try_from(self.dice.roll(4)).unwrap()];
        let parent = match self.dice.roll(4) {
            0 => None,
            _ => self.ledger.anchor(self.key, self.dice.roll(u64::MAX)),
        };
        let input = format!("{} of {}", self.dice.roll(u64::MAX), self.key);
        let body = json!({"model": model, "input": input, "stream": model != "m",
            "previous_response_id": parent});
        let sent = self.send(
            self.key,
            ("POST", "/v1/responses"),
            body.to_string().as_bytes(),
        );
        let Some(reply) = sent else { return };
        if reply.status == 400 {
            let parent = parent.expect("only a parent can be wrong");
            let life = self.ledger.life(&parent);
            assert_ne!(life, Life::Kept, "{parent} was refused: {}", reply.text());
            return;
        }
        assert_eq!(reply.status, 200, "{}", reply.text());
        let told = if model == "m" {
            check_resource(&reply.json());
            reply.json()
        } else if reply.text().ends_with("data: [DONE]\n\n") {
            check_stream(&reply.text()).pop().expect("events")["response"].take()
        } else {
            return; // Its gateway was killed.
        };
        self.ledger.told(&told, self.key, &input);
    }

    fn read(&mut self) {
        let Some(id) = self.ledger.any(self.key, self.dice.roll(u64::MAX)) else {
            return;
        };
        let before = self.ledger.life(&id);
        let path = format!("/v1/responses/{id}");
        let Some(reply) = self.send(self.key, ("GET", &path), b"") else {
            return;
        };
        self.ledger.read(&id, before, &reply);
        let items = format!("{path}/input_items?order=asc&limit=100");
        let Some(reply) = self.send(self.key, ("GET", &items), b"") else {
            return;
        };
        if reply.status == 200 {
            let page = reply.json();
            if page["has_more"] == false {
                self.ledger.chain(&id, &user_texts(&page));
            }
        }
        let foreign = self.send(1 - self.key, ("GET", &path), b"");
        if let Some(reply) = foreign {
            assert_eq!(reply.status, 404, "{id} was shown to another key");
        }
    }

    fn delete(&mut self) {
        let Some(id) = self.ledger.any(self.key, self.dice.roll(u64::MAX)) else {
            return;
        };
        self.ledger.ends(&id, Life::Unknown);
        let path = format!("/v1/responses/{id}");
        let Some(reply) = self.send(self.key, ("DELETE", &path), b"") else {
            return;
        };
        assert!(matches!(reply.status, 200 | 404), "{}", reply.text());
        self.ledger.ends(&id, Life::Gone);
    }

    /// A client that leaves in the middle.
    fn leave(&mut self) {
        let body = json!({"model": "slow", "input": "x", "stream": true}).to_string();
        let bearer = format!("Bearer {}", self.keys[self.key]);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let Ok(mut open) = Open::connect(self.door().address) else {
            return;
        };
        self.operations += 1;
        open.set_timeout(Duration::from_millis(20 + self.dice.roll(100)));
        if open
            .write(&request("POST", "/v1/responses", &headers, body.as_bytes()))
            .is_ok()
        {
            let _ = open.read_some(64);
        }
        if self.dice.roll(2) == 0 {
            open.leave_fin();
        } else {
            open.leave_reset();
        }
    }

    fn run(mut self, stop: &AtomicBool) -> usize {
        while !stop.load(Ordering::SeqCst) {
            match self.dice.roll(16) {
                0..=7 => self.create(),
                8..=12 => self.read(),
                13 => self.leave(),
                _ => self.delete(),
            }
        }
        self.operations
    }
}

/// The database that both gateways share.
enum Shared {
    Sqlite(TempDir),
    Postgres(FreshDatabase),
}

impl Shared {
    fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => folder.path().join("it.db").to_str().unwrap().to_owned(),
            Self::Postgres(database) => database.url(),
        }
    }

    /// Somebody else gets in the way of every write, or ends every session.
    fn disturb(&self, time: Duration) {
        match self {
            Self::Sqlite(_) => {
                let mut other = SqliteConnection::establish(&self.url()).unwrap();
                if other.batch_execute("BEGIN IMMEDIATE").is_ok() {
                    thread::sleep(time);
                    other.batch_execute("ROLLBACK").unwrap();
                }
            }
            Self::Postgres(_) => Sql::connect(&self.url()).run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'vllm-responses'",
            ),
        }
    }
}

fn upstream() -> Fake {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    fake.on("s", [Script::says("yes")]);
    fake.on("breaks", [Script::stream().data(&text("par")).close_body()]);
    fake.on("slow", [Script::stream().data(&text("a")).hold()]);
    fake
}

/// Faults by the seed until it is time; gives their number.
fn faults(
    gateways: &mut [TestGateway; 2],
    dice: &mut Dice,
    (doors, shared): (&Doors, &Shared),
    until: Instant,
) -> usize {
    let mut count = 0;
    while Instant::now() < until {
        thread::sleep(Duration::from_millis(200 + dice.roll(600)));
        let which = usize::from(dice.roll(2) == 1);
        let gateway = &mut gateways[which];
        match dice.roll(5) {
            0 | 1 => {
                gateway.restart();
                doors.lock().unwrap()[which] = gateway.client().address;
            }
            2 => {
                gateway.signal(Signal::SIGTERM);
                assert_eq!(gateway.wait_exit(Duration::from_secs(60)).code(), Some(0));
                gateway.restart();
                doors.lock().unwrap()[which] = gateway.client().address;
            }
            3 => {
                gateway.signal(Signal::SIGSTOP);
                thread::sleep(Duration::from_millis(100 + dice.roll(400)));
                gateway.signal(Signal::SIGCONT);
            }
            _ => shared.disturb(Duration::from_millis(100 + dice.roll(900))),
        }
        count += 1;
    }
    count
}

/// Plays the plan of this seed for so long.
fn play(shared: &Shared, seed: u64, length: Duration) {
    eprintln!("seed {seed}, {length:?}");
    let (fake, folder) = (upstream(), TempDir::new().unwrap());
    let file = folder.path().join("keys");
    let [(one, first), (two, second)] = ["ann", "bob"].map(new_key);
    fs::write(&file, format!("{first}\n{second}\n")).unwrap();
    let start = || {
        TestGateway::on(&fake.url())
            .db(Path::new(&shared.url()))
            .env("VR_API_KEYS_FILE", file.to_str().unwrap())
            .env("VR_SHUTDOWN_GRACE", "1s")
            .start()
    };
    let mut gateways = [start(), start()];
    let doors: Doors = Mutex::new([gateways[0].client().address, gateways[1].client().address]);
    let (keys, ledger, stop) = ([one, two], Ledger::default(), AtomicBool::new(false));
    let mut dice = Dice(seed);
    let (operations, faults) = thread::scope(|scope| {
        let talkers: Vec<_> = (0..8)
            .map(|n| {
                let talker = Talker {
                    dice: Dice(seed ^ (n + 1) << 40),
                    doors: &doors,
                    keys: &keys,
                    ledger: &ledger,
                    key: usize::try_from(n % 2).unwrap(),
                    operations: 0,
                };
                let stop = &stop;
                scope.spawn(move || talker.run(stop))
            })
            .collect();
        let count = faults(
            &mut gateways,
            &mut dice,
            (&doors, shared),
            Instant::now() + length,
        );
        stop.store(true, Ordering::SeqCst);
        let operations = talkers
            .into_iter()
            .map(|talker| talker.join().expect("talker"));
        (operations.sum::<usize>(), count)
    });
    eprintln!(
        "{operations} operations, {faults} faults, {} kept",
        ledger.len()
    );
    assert!(ledger.len() > 20, "hardly anything was kept");
    let clients = [gateways[0].client(), gateways[1].client()];
    assert_eq!(ledger.violations(clients, &keys), Vec::<String>::new());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect(name))
}

fn long(shared: &Shared) {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).expect("random bits");
    let seed = number("SOAK_SEED").unwrap_or_else(|| u64::from_le_bytes(bits));
    let seconds = number("SOAK_SECONDS").unwrap_or(3600);
    play(shared, seed, Duration::from_secs(seconds));
}

#[test]
fn history_holds_under_faults_on_sqlite() {
    play(
        &Shared::Sqlite(TempDir::new().unwrap()),
        7,
        Duration::from_secs(8),
    );
}

#[test]
fn history_holds_under_faults_on_postgres() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    play(&Shared::Postgres(database), 11, Duration::from_secs(8));
}

#[test]
#[ignore = "an hour"]
fn soak_history_on_sqlite() {
    long(&Shared::Sqlite(TempDir::new().unwrap()));
}

#[test]
#[ignore = "an hour"]
fn soak_history_on_postgres() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    long(&Shared::Postgres(database));
}
