//! Sessions with callers' servers: opened under the guard, shared by the requests of one owner with
//! the same URL and credentials, and closed when nobody uses them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use vllm_responses_protocol::ids::Owner;
use vllm_responses_protocol::mcp::catalogue::{Catalogue, ToolEntry};
use vllm_responses_protocol::mcp::file::{DefaultApproval, HttpKind};
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome, SERVER_ERROR};
use vllm_responses_protocol::mcp::pins::Pins;
use vllm_responses_protocol::tools::mcp::Listed;

use crate::mcp::guard::vet_headers;
use crate::mcp::messages::{CallTool, ListFailure, RemoteServer};
use crate::mcp::net::connect::Dialer;
use crate::mcp::session::{Deadlines, Endpoint, Failure, Session};
use crate::mcp::settings::{HostedSettings, RemoteSettings};
use crate::memory::Held;
use crate::origin::Origin;

/// A list is asked for again after this long; a server that says it has changed is asked at once.
const LIST_AGE: Duration = Duration::from_secs(300);
/// A list is not asked for more often, whatever its server says.
const LEAST_LIST_AGE: Duration = Duration::from_secs(10);
/// Most bytes of lists that are kept; beyond it those unused longest go.
const MAX_LISTS: usize = 64 * 1024 * 1024;
/// A session that nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(300);
/// Most sessions kept; beyond it the one unused longest goes.
const MAX_SESSIONS: usize = 256;

/// Hash of owner, URL and credentials: the secrets themselves are not kept as keys.
type Key = [u8; 32];

/// See the module.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) settings: RemoteSettings,
    pub(super) deadlines: HostedSettings,
    pub(super) dialer: Arc<Dialer>,
    pub(super) sessions: RefCell<HashMap<Key, Rc<Entry>>>,
    /// Definitions as each owner's servers first gave them, longer than a session lasts.
    pub(super) pins: RefCell<HashMap<Key, Pinned>>,
}

/// One session, or the place where it will be.
#[derive(Debug)]
pub(super) struct Entry {
    open: OnceCell<Open>,
    used: Cell<Instant>,
}

/// Definitions of one server's tools, and when they were last asked for.
#[derive(Debug)]
pub(super) struct Pinned {
    pins: Pins,
    used: Instant,
}

#[derive(Debug)]
struct Open {
    session: Arc<Session>,
    tools: Arc<Catalogue>,
    listed: Instant,
    /// How long the list is taken for good.
    holds: Duration,
    changes: watch::Receiver<u64>,
    /// What the list takes of the memory budget.
    held: Held,
}

impl Remote {
    /// The server's tools: from memory when they are known and fresh.
    pub(super) async fn tools(
        &self,
        owner: &Owner,
        server: &RemoteServer,
        origin: &Origin,
    ) -> Result<Listed, ListFailure> {
        let entry = self.entry(owner, server, origin).await?;
        let open = entry.open.get();
        let open = open.ok_or(ListFailure::RuntimeDown)?;
        Ok(Listed {
            tools: Arc::clone(&open.tools),
            always_approve: self.settings.default_approval == DefaultApproval::Always,
        })
    }

    pub(super) async fn call(
        &self,
        server: &RemoteServer,
        call: &CallTool,
        tool: &ToolEntry,
    ) -> Outcome {
        let mut tries = if tool.read_only { 2 } else { 1 };
        loop {
            tries -= 1;
            let failure = match self.call_once(server, call).await {
                Ok(outcome) => return outcome,
                Err(failure) => failure,
            };
            let lost = matches!(&failure, ListFailure::Failed(failure) if failure.lost_session());
            if lost && tries > 0 {
                continue;
            }
            let error = match &failure {
                ListFailure::Failed(failure) if failure.is_unreached() => {
                    let failure = unreached(failure, &call.origin);
                    CallError::protocol(SERVER_ERROR, failure.to_string())
                }
                ListFailure::Failed(failure) => failure.to_call_error(),
                ListFailure::Unreached(_)
                | ListFailure::Unknown(_)
                | ListFailure::Unavailable(_)
                | ListFailure::RuntimeDown
                | ListFailure::RemoteOff
                | ListFailure::Refused(_)
                | ListFailure::BadHeaders(_) => {
                    CallError::protocol(SERVER_ERROR, failure.to_string())
                }
            };
            return Outcome::Failed { error };
        }
    }

    async fn call_once(
        &self,
        server: &RemoteServer,
        call: &CallTool,
    ) -> Result<Outcome, ListFailure> {
        let entry = self.entry(&call.owner, server, &call.origin).await?;
        let open = entry.open.get();
        let session = Arc::clone(&open.ok_or(ListFailure::RuntimeDown)?.session);
        let called = session
            .call(&call.tool, &call.arguments, call.origin.scope.context())
            .await;
        if let Err(failure) = &called {
            // Whether it still answers is not waited for: the next request opens another session.
            if failure.may_end_session() {
                self.forget(&key(&call.owner, server), &entry);
            }
        }
        Ok(called?)
    }

    /// A session whose list is fresh.
    async fn entry(
        &self,
        owner: &Owner,
        server: &RemoteServer,
        origin: &Origin,
    ) -> Result<Rc<Entry>, ListFailure> {
        if !self.settings.enabled {
            return Err(ListFailure::RemoteOff);
        }
        let key = key(owner, server);
        let mut entry = self.place(key);
        if entry.open.get().is_some_and(Open::is_stale) {
            self.forget(&key, &entry);
            entry = self.place(key);
        }
        entry.used.set(Instant::now());
        let opened = entry
            .open
            .get_or_try_init(|| self.open(owner, server, origin))
            .await;
        if let Err(failure) = opened {
            self.forget(&key, &entry);
            return Err(failure);
        }
        Ok(entry)
    }

    async fn open(
        &self,
        owner: &Owner,
        server: &RemoteServer,
        origin: &Origin,
    ) -> Result<Open, ListFailure> {
        let guard = self.settings.guard();
        let to = guard.vet(&server.access.url).inspect_err(|_refused| {
            let why = guard.reason(&server.access.url);
            log::info!(request_id = &*origin.request_id, response_id = &*origin.response_id;
                "the address of a remote MCP server is not allowed: {why} \
                 (`VR_MCP_REMOTE_ALLOWED_HOSTS` lists exceptions)");
        })?;
        let headers = server
            .access
            .headers
            .iter()
            .map(|(name, value)| (&**name, value));
        let headers = vet_headers(headers, server.access.authorization.as_ref())
            .map_err(ListFailure::BadHeaders)?;
        let endpoint = Endpoint::Http {
            to: Box::new(to),
            guard: Arc::new(guard),
            headers,
            kind: HttpKind::Auto,
            filled: Vec::new(),
            dialer: Arc::clone(&self.dialer),
        };
        let startup = self.deadlines.startup;
        let deadlines = Deadlines {
            connect: startup,
            initialize: startup,
            list: startup,
            call: self.deadlines.call,
        };
        let session = Session::open(&server.label, &endpoint, deadlines).await;
        let session = session.map_err(|failure| uniform(failure, origin))?;
        let changes = session.changes();
        let listed = session
            .list()
            .await
            .map_err(|failure| uniform(failure, origin))?;
        let holds = listed.holds.unwrap_or(LIST_AGE);
        let tools = self.pinned(owner, server, listed.tools);
        let held = self.dialer.intake().keep(2 * tools.size());
        self.make_room(held.bytes());
        for notice in &tools.notices {
            log::warn!(request_id = &*origin.request_id, response_id = &*origin.response_id;
                "{notice}");
        }
        Ok(Open {
            session: Arc::new(session),
            tools: Arc::new(tools),
            listed: Instant::now(),
            holds: holds.clamp(LEAST_LIST_AGE, LIST_AGE),
            changes,
            held,
        })
    }

    /// The list without tools that have changed, where those are left out.
    fn pinned(&self, owner: &Owner, server: &RemoteServer, mut list: Catalogue) -> Catalogue {
        let mut all = self.pins.borrow_mut();
        let key = server_key(owner, server);
        if all.len() >= MAX_SESSIONS && !all.contains_key(&key) {
            let oldest = all.iter().min_by_key(|(_, pinned)| pinned.used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                all.remove(&oldest);
            }
        }
        let used = Instant::now();
        let pinned = all.entry(key).or_insert_with(|| Pinned {
            pins: Pins::default(),
            used,
        });
        pinned.used = used;
        let on_change = self.deadlines.on_change();
        let (tools, changes) = pinned.pins.keep(&server.label, list.tools, on_change);
        list.tools = tools;
        list.notices.extend(changes);
        list
    }

    fn place(&self, key: Key) -> Rc<Entry> {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() >= MAX_SESSIONS && !sessions.contains_key(&key) {
            let oldest = sessions.iter().min_by_key(|(_, entry)| entry.used.get());
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                sessions.remove(&oldest);
            }
        }
        let fresh = || {
            Rc::new(Entry {
                open: OnceCell::new(),
                used: Cell::new(Instant::now()),
            })
        };
        Rc::clone(sessions.entry(key).or_insert_with(fresh))
    }

    /// Lets the lists go that were unused longest, until there is room for another.
    fn make_room(&self, bytes: usize) {
        let mut sessions = self.sessions.borrow_mut();
        loop {
            let kept = |entry: &Rc<Entry>| entry.open.get().map_or(0, |open| open.held.bytes());
            let all: usize = sessions.values().map(kept).sum();
            let listed = sessions.iter().filter(|(_, entry)| kept(entry) > 0);
            let oldest = listed.min_by_key(|(_, entry)| entry.used.get());
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                return;
            };
            if all + bytes <= MAX_LISTS {
                return;
            }
            sessions.remove(&oldest);
        }
    }

    /// Takes this very entry out; one that has replaced it stays.
    fn forget(&self, key: &Key, entry: &Rc<Entry>) {
        let mut sessions = self.sessions.borrow_mut();
        if sessions
            .get(key)
            .is_some_and(|known| Rc::ptr_eq(known, entry))
        {
            sessions.remove(key);
        }
    }

    /// Closes what nobody has used for a while. A session ends with its last user.
    pub(super) fn sweep(&self) {
        self.sessions
            .borrow_mut()
            .retain(|_, entry| entry.used.get().elapsed() < IDLE);
    }
}

impl Open {
    fn is_stale(&self) -> bool {
        self.session.is_closed()
            || self.listed.elapsed() >= self.holds
            || self.changes.has_changed().unwrap_or(true)
    }
}

/// What the guard refused while connecting is told like what it refused before, and no connection is
/// told in one way: callers learn nothing of ports and networks. The log has the reason.
fn uniform(failure: Failure, origin: &Origin) -> ListFailure {
    if failure.is_refusal() {
        note(&failure, origin);
        return ListFailure::Refused(crate::mcp::guard::Refused);
    }
    if failure.is_unreached() {
        return unreached(&failure, origin);
    }
    ListFailure::Failed(failure)
}

fn unreached(failure: &Failure, origin: &Origin) -> ListFailure {
    note(failure, origin);
    ListFailure::Unreached((*failure.label).into())
}

fn note(failure: &Failure, origin: &Origin) {
    log::warn!(request_id = &*origin.request_id, response_id = &*origin.response_id; "{failure}");
}

/// The server whoever it thinks the caller is: its definitions may not depend on that.
fn server_key(owner: &Owner, server: &RemoteServer) -> Key {
    let mut hash = Sha256::new();
    for text in [owner.as_str(), &server.access.url] {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

fn key(owner: &Owner, server: &RemoteServer) -> Key {
    let mut hash = Sha256::new();
    let mut put = |text: &str| {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    };
    put(owner.as_str());
    put(&server.access.url);
    put(server
        .access
        .authorization
        .as_ref()
        .map_or("", |token| token.expose()));
    for (name, value) in &server.access.headers {
        put(name);
        put(value.expose());
    }
    hash.finalize().into()
}
