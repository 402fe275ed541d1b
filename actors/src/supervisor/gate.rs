//! The gate: lets a request of an unlimited caller in on its own thread.
//!
//! What it looks at is what the supervisor looks at: the stop, what has been brought up, memory,
//! places. Asking by a message instead costs a short request two changes of threads, more than half of
//! what it takes otherwise (measured). Whoever has limits, and whoever cannot be let in, asks the
//! supervisor, which decides, and counts refusals.

use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::{Semaphore, watch};

use super::messages::{Peers, Permit, StopStage};
use crate::limits::{Asker, LimitSettings, OwnLimits, Quota};
use crate::memory::{Account, Enroll, Memory};

/// Where is the gate? Sender: start-up, once.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Gate")]
pub struct FindGate;

/// See the module; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    pub(super) peers: watch::Receiver<Option<Arc<Peers>>>,
    pub(super) stop: watch::Receiver<StopStage>,
    pub(super) places: Arc<Semaphore>,
    pub(super) limits: LimitSettings,
    pub(super) memory: Memory,
    /// The supervisor, for accounts that become large or slow.
    pub(super) enroll: Recipient<Enroll>,
}

impl Gate {
    /// Lets the caller in where there is nothing to decide; never waits. Otherwise the supervisor is to
    /// be asked.
    pub fn enter(&self, asker: &Asker) -> Option<Permit> {
        if self.limits.apply_to(asker.own) || self.memory.is_tight() {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        // After the place was taken: a drain that begins in between waits for it to be free again.
        if matches!(*self.stop.borrow(), StopStage::Draining | StopStage::Ending) {
            return None;
        }
        let peers = self.peers.borrow().clone()?;
        Some(Permit {
            peers,
            stop: self.stop.clone(),
            place,
            key_place: None,
            account: Account::unlisted(self.memory.clone(), self.enroll.clone()),
            quota: Quota::default(),
            meter: None,
        })
    }
}

impl Gate {
    /// Whether reads of stored responses have a rate for a caller that says this of itself; then the
    /// supervisor is to be asked.
    pub fn limits_reads(&self, own: OwnLimits) -> bool {
        self.limits.all.requests.is_some() || self.limits.of(own).rates.requests.is_some()
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor as _, Addr};

    use super::super::messages::Acquire;
    use super::super::{AdmissionSettings, SupervisorActor};
    use super::*;

    async fn gate(memory: Memory) -> (Addr<SupervisorActor>, Gate) {
        let settings = AdmissionSettings {
            memory,
            ..AdmissionSettings::places(1)
        };
        let supervisor = SupervisorActor::new(&settings).start();
        let gate = supervisor.send(FindGate).await.unwrap();
        (supervisor, gate)
    }

    fn asker(concurrent: Option<u64>) -> Asker {
        Asker {
            owner: vllm_responses_protocol::ids::Owner::default(),
            own: OwnLimits {
                concurrent,
                ..OwnLimits::default()
            },
        }
    }

    #[actix_rt::test]
    async fn who_is_not_let_in_takes_no_place_and_is_refused_by_the_supervisor() {
        let (supervisor, gate) = gate(Memory::new(usize::MAX)).await;
        assert!(gate.enter(&asker(None)).is_none(), "nothing is up yet");
        assert_eq!(gate.places.available_permits(), 1);
        let refused = supervisor.send(Acquire(asker(None))).await.unwrap();
        assert!(refused.is_err());
    }

    #[actix_rt::test]
    async fn limits_and_memory_are_the_supervisors() {
        let (_supervisor, gate) = gate(Memory::new(1000)).await;
        assert!(gate.limits.apply_to(asker(Some(1)).own));
        assert!(!gate.limits.apply_to(asker(Some(0)).own), "0 lifts a limit");
        let _held = gate.memory.hold(960);
        assert!(gate.memory.is_tight() && gate.enter(&asker(None)).is_none());
    }
}
