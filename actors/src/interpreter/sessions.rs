//! Which containers there are, whose they are, and how long they are kept. Pure: time comes in.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use vllm_responses_protocol::ids::Owner;

use super::pool::WorkerId;

/// How containers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Containers kept after their response; 0 keeps none.
    pub keep: usize,
    /// A container not used for this long is gone.
    pub idle: Duration,
}

/// A held container without a call for this long counts as given back: by default no response with tools
/// lives longer.
const FORGOTTEN: Duration = Duration::from_secs(600);

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            keep: 4,
            idle: Duration::from_secs(20 * 60),
        }
    }
}

#[derive(Clone, Debug)]
struct Session {
    owner: Owner,
    worker: WorkerId,
    used: Duration,
    /// A call runs.
    is_busy: bool,
    /// A running response uses it; what it gives back is kept.
    is_held: bool,
}

/// What a call that names a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It may run, there.
    Run(WorkerId),
    /// Another call runs there.
    Wait,
    /// There is no such container for this owner.
    Unknown,
}

/// All containers.
#[derive(Clone, Debug)]
pub struct Sessions {
    settings: SessionSettings,
    known: HashMap<String, Session>,
}

impl Sessions {
    /// No containers.
    pub fn new(settings: SessionSettings) -> Self {
        Self {
            settings,
            known: HashMap::new(),
        }
    }

    /// A fresh container, held by the response that asked and busy with its first call.
    pub fn open(&mut self, id: String, owner: Owner, worker: WorkerId, now: Duration) {
        let session = Session {
            owner,
            worker,
            used: now,
            is_busy: true,
            is_held: true,
        };
        self.known.insert(id, session);
    }

    /// A call in a container that exists. With [`Begin::Run`] it is busy from now on and held.
    pub fn begin(&mut self, id: &str, owner: &Owner, now: Duration) -> Begin {
        match self.of(id, owner) {
            None => Begin::Unknown,
            Some(session) if session.is_busy => Begin::Wait,
            Some(session) => {
                session.is_busy = true;
                session.used = now;
                session.is_held = true;
                Begin::Run(session.worker)
            }
        }
    }

    /// Its call has ended and the interpreter is well.
    pub fn finish(&mut self, id: &str, now: Duration) {
        if let Some(session) = self.known.get_mut(id) {
            session.is_busy = false;
            session.used = now;
        }
    }

    /// Whether there is such a container, whoever owns it.
    pub fn has(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// The response that held it has ended. Returns the interpreters to be ended for it.
    pub fn release(&mut self, id: &str, owner: &Owner, now: Duration) -> Vec<WorkerId> {
        if let Some(session) = self.of(id, owner) {
            session.is_held = false;
            session.used = now;
        }
        let mut over = Vec::new();
        while self.kept() > self.settings.keep {
            match self.evict(Some(owner), now) {
                Some(worker) => over.push(worker),
                None => break,
            }
        }
        over
    }

    /// Gives up a container to make room for `asker`: one of its own if it has any, else one of the
    /// owner that has most, and of these the one that was not used for longest. Held ones are spared,
    /// but for those that were forgotten: a gateway that was killed gives nothing back.
    pub fn evict(&mut self, asker: Option<&Owner>, now: Duration) -> Option<WorkerId> {
        let may_go = |session: &Session| {
            let is_forgotten = now.saturating_sub(session.used) >= FORGOTTEN;
            session.is_kept() || (!session.is_busy && is_forgotten)
        };
        let mut counts: HashMap<&Owner, usize> = HashMap::new();
        for session in self.known.values().filter(|session| may_go(session)) {
            *counts.entry(&session.owner).or_default() += 1;
        }
        let rank = |session: &Session| {
            let is_own = Some(&session.owner) == asker;
            (is_own, counts.get(&session.owner).copied().unwrap_or(0))
        };
        let going = self.known.iter().filter(|(_, session)| may_go(session));
        let (id, _) = going
            .min_by_key(|(id, session)| (Reverse(rank(session)), session.used, (*id).clone()))?;
        let id = id.clone();
        self.known.remove(&id).map(|session| session.worker)
    }

    /// Containers that this owner has in use: those that running responses hold.
    pub fn held_by(&self, owner: &Owner) -> usize {
        let held = self.known.values().filter(|session| !session.is_kept());
        held.filter(|session| session.owner == *owner).count()
    }

    /// Forgets what was not used for too long, held or not: a response that holds a container for so
    /// long has lost it.
    pub fn expire(&mut self, now: Duration) -> Vec<WorkerId> {
        let limit = self.settings.idle;
        self.known
            .extract_if(|_, session| !session.is_busy && now.saturating_sub(session.used) >= limit)
            .map(|(_, session)| session.worker)
            .collect()
    }

    /// Its interpreter is gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.known.retain(|_, session| session.worker != worker);
    }

    /// Containers kept after their response.
    pub fn kept(&self) -> usize {
        self.known.values().filter(|s| s.is_kept()).count()
    }

    /// Containers that running responses hold.
    pub fn held(&self) -> usize {
        self.known.len() - self.kept()
    }

    fn of(&mut self, id: &str, owner: &Owner) -> Option<&mut Session> {
        self.known
            .get_mut(id)
            .filter(|session| session.owner == *owner)
    }
}

impl Session {
    fn is_kept(&self) -> bool {
        !self.is_busy && !self.is_held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpreter::pool::{Pool, PoolSettings, Step};

    const SECOND: Duration = Duration::from_secs(1);

    fn owner(name: &str) -> Owner {
        Owner::new(name)
    }

    fn workers(count: usize) -> Vec<WorkerId> {
        let mut pool = Pool::new(PoolSettings {
            idle: count,
            most_live: count,
            ..PoolSettings::default()
        });
        let mut ids = Vec::new();
        while let Some(Step::Start(id)) = pool.plan(SECOND, 0) {
            pool.started(id);
            ids.push(id);
        }
        ids
    }

    /// Containers `0`, `1` ... each used a second after the one before, and given back.
    fn kept(sessions: &mut Sessions, count: usize) -> (Vec<WorkerId>, Vec<WorkerId>) {
        let ids = workers(count);
        let mut over = Vec::new();
        for (number, worker) in (0_u32..).zip(&ids) {
            let name = number.to_string();
            sessions.open(name.clone(), owner("a"), *worker, SECOND * number);
            sessions.finish(&name, SECOND * number);
            over.extend(sessions.release(&name, &owner("a"), SECOND * number));
        }
        (ids, over)
    }

    #[test]
    fn a_container_is_known_to_its_owner_only() {
        let mut sessions = Sessions::new(SessionSettings::default());
        let (ids, _) = kept(&mut sessions, 1);
        assert_eq!(sessions.begin("0", &owner("b"), SECOND), Begin::Unknown);
        assert_eq!(sessions.begin("0", &owner(""), SECOND), Begin::Unknown);
        assert_eq!(sessions.begin("x", &owner("a"), SECOND), Begin::Unknown);
        assert_eq!(sessions.release("0", &owner("b"), SECOND), []);
        assert_eq!(sessions.begin("0", &owner("a"), SECOND), Begin::Run(ids[0]));
    }

    #[test]
    fn calls_in_one_container_wait_for_each_other() {
        let mut sessions = Sessions::new(SessionSettings::default());
        let (ids, _) = kept(&mut sessions, 1);
        assert_eq!(sessions.begin("0", &owner("a"), SECOND), Begin::Run(ids[0]));
        assert_eq!(sessions.begin("0", &owner("a"), SECOND), Begin::Wait);
        assert_eq!((sessions.held(), sessions.kept()), (1, 0));
        sessions.finish("0", SECOND);
        assert_eq!(sessions.begin("0", &owner("a"), SECOND), Begin::Run(ids[0]));
    }

    #[test]
    fn the_ones_used_last_are_kept() {
        let mut sessions = Sessions::new(SessionSettings {
            keep: 2,
            ..SessionSettings::default()
        });
        let (ids, over) = kept(&mut sessions, 4);
        assert_eq!(over, ids[..2]);
        assert_eq!(sessions.evict(None, SECOND * 4), Some(ids[2]));
        assert_eq!(sessions.kept(), 1);
    }

    /// The fault: one key's containers pushed out everybody's.
    #[test]
    fn who_has_most_gives_up_first() {
        let mut sessions = Sessions::new(SessionSettings {
            keep: 3,
            ..SessionSettings::default()
        });
        let ids = workers(5);
        let mut over = Vec::new();
        for (number, (name, whose)) in
            (0_u32..).zip([("x", "b"), ("1", "a"), ("2", "a"), ("3", "a")])
        {
            let now = SECOND * number;
            sessions.open(
                name.into(),
                owner(whose),
                ids[usize::try_from(number).unwrap()],
                now,
            );
            sessions.finish(name, now);
            over.extend(sessions.release(name, &owner(whose), now));
        }
        assert_eq!(
            over,
            [ids[1]],
            "the oldest of `a`, though that of `b` is older"
        );
        let mut own = sessions.clone();
        assert_eq!(own.evict(Some(&owner("b")), SECOND * 4), Some(ids[0]));
        assert_eq!(sessions.evict(Some(&owner("c")), SECOND * 4), Some(ids[2]));
    }

    #[test]
    fn keeping_none_ends_them_with_their_response() {
        let mut sessions = Sessions::new(SessionSettings {
            keep: 0,
            ..SessionSettings::default()
        });
        let (ids, over) = kept(&mut sessions, 2);
        assert_eq!(over, ids);
    }

    #[test]
    fn what_is_held_is_not_evicted() {
        let mut sessions = Sessions::new(SessionSettings::default());
        let ids = workers(1);
        sessions.open("0".into(), owner("a"), ids[0], SECOND);
        assert_eq!(sessions.evict(None, SECOND), None);
        assert_eq!(sessions.evict(None, SECOND * 9999), None, "its call runs");
        sessions.finish("0", SECOND);
        assert_eq!(
            sessions.evict(None, SECOND * 600),
            None,
            "its response may call again"
        );
        assert_eq!(
            sessions.evict(None, SECOND * 601),
            Some(ids[0]),
            "it was forgotten"
        );
    }

    #[test]
    fn idle_ones_expire_and_busy_ones_do_not() {
        let mut sessions = Sessions::new(SessionSettings::default());
        let (ids, _) = kept(&mut sessions, 2);
        let end = SECOND * 1200;
        assert_eq!(sessions.expire(SECOND * 1199), []);
        assert_eq!(sessions.expire(end), [ids[0]]);
        assert_eq!(sessions.begin("1", &owner("a"), end), Begin::Run(ids[1]));
        assert_eq!(sessions.expire(end * 9), []);
    }

    #[test]
    fn a_dead_interpreter_takes_its_container_along() {
        let mut sessions = Sessions::new(SessionSettings::default());
        let (ids, _) = kept(&mut sessions, 2);
        sessions.forget(ids[0]);
        assert_eq!(sessions.begin("0", &owner("a"), SECOND), Begin::Unknown);
        assert_eq!(sessions.kept(), 1);
    }
}
