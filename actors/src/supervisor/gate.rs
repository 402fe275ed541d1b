//! The gate: whether a response may run, decided on the asker's own thread.
//!
//! The supervisor says what holds (a stop, what has been brought up) by channels that everybody may
//! look at, and counts running responses by a semaphore. Asking by a message instead would cost every
//! request two changes of threads, more than half of what a short one takes otherwise (measured).

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::messages::{Peers, Permit, Refused, StopStage};

/// Where permits are had; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    pub(super) peers: watch::Receiver<Option<Arc<Peers>>>,
    pub(super) stop: watch::Receiver<StopStage>,
    pub(super) places: Arc<Semaphore>,
}

impl Gate {
    /// May this response run? Asked once per request; never waits.
    ///
    /// # Errors
    /// Why not.
    pub fn enter(&self) -> Result<Permit, Refused> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        // After the place was taken: a drain that begins in between waits for it to be free again.
        if matches!(*self.stop.borrow(), StopStage::Draining | StopStage::Ending) {
            return Err(Refused::Draining);
        }
        let peers = self.peers.borrow().clone().ok_or(Refused::Starting)?;
        Ok(Permit {
            peers,
            stop: self.stop.clone(),
            place: place.map_err(|_full| Refused::Full)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_enter_takes_no_place() {
        let (_peers, peers) = watch::channel(None);
        let (stopping, stop) = watch::channel(StopStage::Running);
        let places = Arc::new(Semaphore::new(1));
        let gate = Gate {
            peers,
            stop,
            places: Arc::clone(&places),
        };
        assert_eq!(gate.enter().err(), Some(Refused::Starting));
        stopping.send_replace(StopStage::Leaving);
        assert_eq!(gate.enter().err(), Some(Refused::Starting));
        stopping.send_replace(StopStage::Draining);
        assert_eq!(gate.enter().err(), Some(Refused::Draining));
        assert_eq!(places.available_permits(), 1);
    }
}
