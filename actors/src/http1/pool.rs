//! Connections of one thread that wait for their next request.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, spawn_local};

use super::exchange::Connection;

/// Unused connections are dropped before uvicorn's own 5 s keep-alive would close them under us:
/// a request sent into a closing connection costs a second one.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Between two looks at those that wait: what the server has closed is closed here too, whether or
/// not this thread makes another call.
const LOOK: Duration = Duration::from_secs(1);

/// See the module. There are at most as many as there were calls at once.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The last one is used first, so that the others can grow old.
    idle: RefCell<Vec<Idle>>,
    /// Looks after them while there are any.
    keeper: RefCell<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_good(&mut self) -> bool {
        self.since.elapsed() < KEEP_ALIVE && self.connection.is_quiet()
    }
}

impl Pool {
    /// A connection on which nothing has come since its last answer.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut last = idle.pop()?;
            if last.is_good() {
                return Some(last.connection);
            }
        }
    }

    /// Takes a connection whose answer was read to its end, unless something followed it.
    pub(super) fn put(self: &Rc<Self>, mut connection: Connection) {
        if !connection.is_quiet() {
            return;
        }
        let since = Instant::now();
        self.idle.borrow_mut().push(Idle { connection, since });
        let mut keeper = self.keeper.borrow_mut();
        if keeper.as_ref().is_none_or(AbortHandle::is_finished) {
            *keeper = Some(spawn_local(keep(Rc::downgrade(self))).abort_handle());
        }
    }

    /// Drops those that are of no use. Says whether others are left.
    fn sweep(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(Idle::is_good);
        // What a burst has needed is given back.
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
        !idle.is_empty()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut() {
            keeper.abort();
        }
    }
}

async fn keep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}
