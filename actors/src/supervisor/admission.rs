//! Who may run: places, limits and memory. The half of the supervisor that every request meets.
//!
//! The order is: is the gateway open, is there memory, a place for the key, a place at all, and last
//! the rates, since only they are spent by asking. A request that is refused has spent nothing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    ActorFutureExt as _, ActorResponse, AsyncContext as _, Context, Handler, MessageResult,
    WrapFuture as _,
};
use tokio::sync::OwnedSemaphorePermit;

use super::SupervisorActor;
use super::gate::{FindGate, Gate};
use super::messages::{
    Acquire, Charge, LimitFacts, MayRead, Meter, Peers, Permit, ReadLimitFacts, Refused, StopStage,
};
use crate::cache::settings::CacheSettings;
use crate::limits::{Asker, LimitSettings, Limited, Limiter, Quota, Shared, What};
use crate::memory::{Accounts, Enroll, Memory};

/// How often the budget for buffered bytes is looked at. A client that reads frees its bytes sooner.
pub(super) const LOOK_AT_MEMORY: Duration = Duration::from_millis(250);

/// What decides who may run.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    /// Responses that may run at once.
    pub places: usize,
    /// Rates and places of keys.
    pub limits: LimitSettings,
    /// Redis that several gateways share, where there is one.
    pub redis: Option<CacheSettings>,
    /// The budget for buffered bytes.
    pub memory: Memory,
}

impl AdmissionSettings {
    /// So many responses at once, and no other limit.
    pub fn places(places: usize) -> Self {
        Self {
            places,
            limits: LimitSettings::default(),
            redis: None,
            memory: Memory::new(usize::MAX),
        }
    }
}

/// See the module.
pub(super) struct Admission {
    limiter: Limiter,
    /// Of reads.
    readers: Limiter,
    redis: Option<CacheSettings>,
    /// Opened for the first caller who has rates.
    shared: Option<Rc<Shared>>,
    accounts: Accounts,
    facts: LimitFacts,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    pub(super) fn new(settings: &AdmissionSettings) -> Self {
        Self {
            limiter: Limiter::new(settings.limits),
            readers: Limiter::new(settings.limits.of_reads()),
            redis: settings.redis.clone(),
            shared: None,
            accounts: Accounts::new(settings.memory.clone()),
            facts: LimitFacts::default(),
        }
    }
}

/// What a request has before its rates are judged.
struct Seat {
    peers: Arc<Peers>,
    place: OwnedSemaphorePermit,
    key_place: Option<OwnedSemaphorePermit>,
}

impl SupervisorActor {
    /// Everything but the rates.
    fn seat(&mut self, asker: &Asker) -> Result<Seat, Refused> {
        if matches!(*self.stop.borrow(), StopStage::Draining | StopStage::Ending) {
            return Err(Refused::Draining);
        }
        let peers = self.peers.borrow().clone().ok_or(Refused::Starting)?;
        if self.admission.accounts.memory().is_tight() {
            return Err(Refused::Memory);
        }
        let key_place = self
            .admission
            .limiter
            .place(asker)
            .map_err(Refused::Limited)?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_full| Refused::Full)?;
        Ok(Seat {
            peers,
            place,
            key_place,
        })
    }

    fn permit(
        &mut self,
        seat: Seat,
        asker: Asker,
        judged: Result<Quota, Limited>,
        ctx: &Context<Self>,
    ) -> Result<Permit, Refused> {
        let quota = judged.map_err(|limited| self.refuse(Refused::Limited(limited)))?;
        let counts = self.admission.limiter.counts_tokens(asker.own);
        Ok(Permit {
            peers: seat.peers,
            stop: self.stop.subscribe(),
            place: seat.place,
            key_place: seat.key_place,
            account: self.admission.accounts.open(),
            quota,
            meter: counts.then(|| Meter {
                to: ctx.address().recipient(),
                asker,
            }),
        })
    }

    /// Counts a refusal.
    fn refuse(&mut self, refused: Refused) -> Refused {
        let facts = &mut self.admission.facts;
        match refused {
            Refused::Starting | Refused::Draining => {}
            Refused::Full => facts.refused_full += 1,
            Refused::Memory => facts.refused_memory += 1,
            Refused::Limited(limited) => match limited.what {
                What::Concurrent => facts.refused_concurrent += 1,
                What::Requests => facts.refused_requests += 1,
                What::Tokens => facts.refused_tokens += 1,
            },
        }
        refused
    }

    /// Redis, where it is to be asked about this caller.
    fn shared(&mut self, asker: &Asker) -> Option<Rc<Shared>> {
        let Admission {
            limiter,
            redis,
            shared,
            ..
        } = &mut self.admission;
        let redis = redis.as_ref().filter(|_| limiter.has_rates(asker.own))?;
        if shared.is_none() {
            // A URL that the client does not take stops the cache from starting, and with it the
            // gateway.
            *shared = Shared::new(redis).ok().map(Rc::new);
        }
        shared.clone()
    }

    /// Ends the slowest responses where memory is short.
    pub(super) fn look_at_memory(&mut self) {
        let shed = self.admission.accounts.shed();
        if shed > 0 {
            let memory = self.admission.accounts.memory();
            log::warn!(
                responses = shed, buffered_bytes = memory.used(), limit_bytes = memory.limit();
                "memory is short: the responses with the slowest clients are ended (`limits.memory`)"
            );
            self.admission.facts.shed += u64::try_from(shed).unwrap_or(u64::MAX);
        }
    }
}

/// At once, or after one operation of Redis where limits are shared; many may wait for it, each with
/// a place, which bounds them.
impl Handler<Acquire> for SupervisorActor {
    type Result = ActorResponse<Self, Result<Permit, Refused>>;

    fn handle(&mut self, Acquire(asker): Acquire, ctx: &mut Self::Context) -> Self::Result {
        let seat = match self.seat(&asker) {
            Ok(seat) => seat,
            Err(refused) => return ActorResponse::reply(Err(self.refuse(refused))),
        };
        let Some(shared) = self.shared(&asker) else {
            let judged = self.admission.limiter.begin(&asker);
            return ActorResponse::reply(self.permit(seat, asker, judged, ctx));
        };
        let order = self.admission.limiter.order_begin(&asker);
        let answer = async move { shared.begin(order).await };
        ActorResponse::r#async(answer.into_actor(self).map(move |answer, act, ctx| {
            let here = &mut act.admission.limiter;
            let judged = match answer {
                Some(Ok(quota)) => {
                    here.note_begun(&asker);
                    Ok(quota)
                }
                Some(Err(limited)) => Err(limited),
                None => {
                    act.admission.facts.judged_alone += 1;
                    here.begin(&asker)
                }
            };
            act.permit(seat, asker, judged, ctx)
        }))
    }
}

/// Synchronous; each gateway by what it has read itself.
impl Handler<MayRead> for SupervisorActor {
    type Result = Result<(), Refused>;

    fn handle(&mut self, MayRead(mut asker): MayRead, _: &mut Self::Context) -> Self::Result {
        asker.own = asker.own.of_reads();
        let judged = self.admission.readers.begin(&asker);
        judged
            .map(|_quota| ())
            .map_err(|limited| self.refuse(Refused::Limited(limited)))
    }
}

/// Synchronous.
impl Handler<FindGate> for SupervisorActor {
    type Result = MessageResult<FindGate>;

    fn handle(&mut self, _: FindGate, ctx: &mut Self::Context) -> Self::Result {
        MessageResult(Gate {
            peers: self.peers.subscribe(),
            stop: self.stop.subscribe(),
            places: Arc::clone(&self.places),
            limits: self.admission.limiter.settings(),
            memory: self.admission.accounts.memory().clone(),
            enroll: ctx.address().recipient(),
        })
    }
}

/// Synchronous.
impl Handler<Enroll> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Enroll(account): Enroll, _: &mut Self::Context) {
        self.admission.accounts.enroll(account);
    }
}

/// Here at once; Redis is told beside the mailbox.
impl Handler<Charge> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Charge { asker, tokens }: Charge, ctx: &mut Self::Context) {
        self.admission.limiter.charge(&asker, tokens);
        if let Some(shared) = self.shared(&asker) {
            let order = self.admission.limiter.order_charge(&asker, tokens);
            ctx.spawn(async move { shared.charge(order).await }.into_actor(self));
        }
    }
}

/// Synchronous.
impl Handler<ReadLimitFacts> for SupervisorActor {
    type Result = MessageResult<ReadLimitFacts>;

    fn handle(&mut self, ReadLimitFacts: ReadLimitFacts, _: &mut Self::Context) -> Self::Result {
        let memory = self.admission.accounts.memory();
        MessageResult::<ReadLimitFacts>(LimitFacts {
            memory_used: memory.used(),
            memory_limit: memory.limit(),
            // Bodies and reads are refused where they are.
            refused_memory: self.admission.facts.refused_memory + memory.refused(),
            ..self.admission.facts
        })
    }
}
