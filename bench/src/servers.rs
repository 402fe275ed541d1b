//! The servers under measurement: what they are called, and how each is started.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;

use crate::check::Api;
use crate::process::{self, Served, Tree};
use crate::report;
use crate::scenario::Keep;
use crate::services::Services;

/// Starts of the gateway of which the median counts.
const STARTS: usize = 5;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The stub, asked without anything between.
    Direct,
    /// The gateway's HTTP stack without the gateway.
    Relay,
    /// `store: false`.
    Gateway,
    /// The same process, responses kept in SQLite.
    Stored,
    /// Kept in PostgreSQL.
    Postgres,
    /// Kept in PostgreSQL, Redis in front of it.
    Redis,
    /// `store: false`, two worker threads.
    TwoWorkers,
    /// `store: false`, with the no-op MCP server; measured by the tool loop only.
    Tools,
}

impl Kind {
    /// Its row in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Gateway => "gateway",
            Self::Stored => "gateway+sqlite",
            Self::Postgres => "gateway+postgres",
            Self::Redis => "gateway+pg+redis",
            Self::TwoWorkers => "gateway, 2 workers",
            Self::Tools => "gateway+mcp",
        }
    }
}

/// A server that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its row in the table.
    pub(crate) name: String,
    /// `host:port`.
    pub(crate) address: String,
    /// Of the process that counts, with its descendants; unknown for servers that we did not start.
    pub(crate) pid: Option<u32>,
    pub(crate) api: Api,
    pub(crate) keep: Keep,
}

/// The gateway as a process.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// From start to the first 200 of `/health/ready`; median of the starts.
    pub(crate) ready_ms: f64,
    /// Resident after the start.
    pub(crate) idle_mib: f64,
    pub(crate) binary_mb: f64,
}

/// A temporary folder that goes when this does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let name = format!("vllm-responses-bench-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|error| format!("no temporary folder: {error}"))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the temporary folder of the machine.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Starts servers when they are first asked for; all end with this.
pub(crate) struct Fleet {
    ours: PathBuf,
    program: PathBuf,
    stub: Served,
    started: Vec<(Kind, Served)>,
    services: Services,
    folder: Folder,
}

impl Fleet {
    /// A fleet of the stub alone.
    pub(crate) async fn new(
        stub_port: Option<u16>,
        gateway: Option<&Path>,
    ) -> Result<Self, String> {
        let ours = std::env::current_exe()
            .map_err(|error| format!("cannot find this program: {error}"))?;
        let beside = ours.with_file_name("vllm-responses");
        let program = gateway.unwrap_or(&beside);
        // The gateway is started in another folder.
        let program = fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
        let port = stub_port.map_or_else(process::free_port, Ok)?;
        let mut stub = Command::new(&ours);
        stub.args(["stub", "--port", &port.to_string()]);
        let (stub, _) = process::start(stub, port, "/v1/models").await?;
        let folder = Folder::new()?;
        Ok(Self {
            services: Services::new(folder.0.join("services")),
            ours,
            program,
            stub,
            started: Vec::new(),
            folder,
        })
    }

    /// A server of this kind; `None`, and a word of why, where the machine has not what it needs.
    pub(crate) async fn target(&mut self, kind: Kind) -> Result<Option<Target>, String> {
        let served = match kind {
            Kind::Direct => &self.stub,
            // One process is measured twice.
            Kind::Stored => return self.of(Kind::Gateway, Kind::Stored).await.map(Some),
            Kind::Postgres | Kind::Redis if self.services.urls().await.is_none() => {
                return Ok(None);
            }
            Kind::Relay
            | Kind::Gateway
            | Kind::Postgres
            | Kind::Redis
            | Kind::TwoWorkers
            | Kind::Tools => return self.of(kind, kind).await.map(Some),
        };
        Ok(Some(target(kind, served)))
    }

    async fn of(&mut self, process: Kind, kind: Kind) -> Result<Target, String> {
        if let Some((_, served)) = self.started.iter().find(|(started, _)| *started == process) {
            return Ok(target(kind, served));
        }
        let served = if process == Kind::Relay {
            self.start_relay().await?
        } else {
            self.start_gateway(process).await?.0
        };
        let target = target(kind, &served);
        self.started.push((process, served));
        Ok(target)
    }

    /// Ends a server that is not asked any more.
    pub(crate) fn stop(&mut self, kind: Kind) {
        self.started.retain(|(started, _)| *started != kind);
    }

    /// Starts the plain gateway several times, each with a new database; the last one stays.
    pub(crate) async fn facts(&mut self) -> Result<Facts, String> {
        let mut times = Vec::new();
        for start in 1..=STARTS {
            let (served, ready) = self.start_gateway(Kind::Gateway).await?;
            times.push(ready.as_secs_f64() * 1000.0);
            if start == STARTS {
                self.started.push((Kind::Gateway, served));
            }
        }
        let gateway = self.of(Kind::Gateway, Kind::Gateway).await?;
        let idle = gateway
            .pid
            .and_then(|pid| Tree::of(pid).memory_mib("VmRSS:"));
        let size = fs::metadata(&self.program).map_err(|error| format!("no program: {error}"))?;
        Ok(Facts {
            ready_ms: report::median(times),
            idle_mib: idle.ok_or("the gateway is gone")?,
            binary_mb: size.len() as f64 / 1e6,
        })
    }

    async fn start_relay(&self) -> Result<Served, String> {
        let port = process::free_port()?;
        let mut relay = Command::new(&self.ours);
        relay.args(["relay", "--port", &port.to_string()]);
        relay.args(["--upstream", &self.upstream()]);
        let (relay, _) = process::start(relay, port, "/v1/models").await?;
        Ok(relay)
    }

    async fn start_gateway(&mut self, kind: Kind) -> Result<(Served, Duration), String> {
        let port = process::free_port()?;
        let folder = &self.folder.0;
        let name = format!("gateway-{port}");
        let log = File::create(folder.join(format!("{name}.log")));
        let mut gateway = Command::new(&self.program);
        gateway
            .args(["serve", "--upstream", &self.upstream()])
            .args(["--gateway-host", "127.0.0.1"])
            .args(["--gateway-port", &port.to_string()])
            // Neither `.env` nor a variable of this shell may change what is measured.
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("VR_CODE_INTERPRETER_MODE", "disabled")
            .env("VR_DB_PATH", folder.join(format!("{name}.db")))
            .stderr(log.map_err(|error| format!("cannot write a log: {error}"))?);
        if kind == Kind::TwoWorkers {
            gateway.args(["--gateway-workers", "2"]);
        }
        if kind == Kind::Tools {
            let file = folder.join("mcp.json");
            fs::write(&file, mcp_file(&self.ours)?)
                .map_err(|error| format!("cannot write mcp.json: {error}"))?;
            gateway.arg("--mcp-config").arg(file);
            let runtime = format!("http://127.0.0.1:{}", process::free_port()?);
            gateway.env("VR_MCP_BUILTIN_RUNTIME_URL", runtime);
        }
        if matches!(kind, Kind::Postgres | Kind::Redis) {
            let urls = self.services.urls().await.ok_or("no database server")?;
            gateway.env("VR_DB_PATH", &urls.database);
            if kind == Kind::Redis {
                gateway.env("VR_RESPONSE_STORE_CACHE", "true");
                gateway.env("VR_REDIS_URL", &urls.redis);
            }
        }
        process::start(gateway, port, "/health/ready").await
    }

    fn upstream(&self) -> String {
        format!("http://{}", self.stub.address)
    }
}

fn target(kind: Kind, served: &Served) -> Target {
    let direct = matches!(kind, Kind::Direct | Kind::Relay);
    let stored = matches!(kind, Kind::Stored | Kind::Postgres | Kind::Redis);
    Target {
        name: kind.name().to_owned(),
        address: served.address.clone(),
        pid: Some(served.pid),
        api: if direct { Api::Chat } else { Api::Responses },
        keep: if stored { Keep::Yes } else { Keep::No },
    }
}

/// Servers of `--against`, as NAME=URL.
pub(crate) fn others(against: &[String]) -> Result<Vec<Target>, String> {
    let other = |text: &String| {
        let (name, url) = text
            .split_once('=')
            .ok_or("`--against` wants NAME=URL, such as other=http://127.0.0.1:9000")?;
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        Ok(Target {
            name: name.to_owned(),
            address: address.trim_end_matches("/v1").to_owned(),
            pid: None,
            api: Api::Responses,
            keep: Keep::Yes,
        })
    };
    against.iter().map(other).collect()
}

/// The operator's file with the no-op server: this program.
fn mcp_file(ours: &Path) -> Result<String, String> {
    let command = serde_json::to_string(ours)
        .map_err(|error| format!("this program's path is no text: {error}"))?;
    Ok(format!(
        r#"{{"mcpServers":{{"noop":{{"command":{command},"args":["noop"]}}}}}}"#
    ))
}
