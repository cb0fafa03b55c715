//! Takes games out of the registry that keep killing their rooms.
//!
//! Invariants
//! - only faults that the guest is to blame for count, and only those of rooms that run under the
//!   listing now on offer: a restored game starts with a clean count, whatever the rooms do that
//!   were running when it was pulled;
//! - running rooms are left alone;
//! - everything kept is bounded, and nothing of the caller's runs under a lock.
//!
//! There is no clock here: times are given, and are those of one monotonic clock.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::NonZeroU8;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_wire::ArtifactDigest;

use crate::blame::Blame;
use crate::registry::{GameSlug, Generation, Listed, Registry, RegistryError};

/// Games in quarantine at most; the one that has been there longest makes room.
pub const QUARANTINED_MAX: usize = 1_024;
/// Games whose faults are counted at once; the one that has been quiet longest makes room.
pub const COUNTED_MAX: usize = 1_024;
/// Entries of the audit log at most; the oldest makes room.
pub const AUDIT_MAX: usize = 256;

/// When a game is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// Faults within the window that do it. Default 3.
    pub threshold: NonZeroU8,
    /// How long a fault counts: while it is younger than this. Default 10 minutes. Without a
    /// window no fault lives to see the next.
    pub window: Duration,
}

impl Default for QuarantinePolicy {
    fn default() -> Self {
        const THRESHOLD: NonZeroU8 = NonZeroU8::new(3).unwrap();
        Self {
            threshold: THRESHOLD,
            window: Duration::from_secs(600),
        }
    }
}

/// What a fault led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultVerdict {
    /// It is not the guest's.
    Excused,
    /// The listing is exempt.
    Exempt,
    /// The room's listing is not on offer any more: pulled, removed or replaced.
    Superseded,
    /// It counts, and is not enough.
    Counted {
        /// Faults in the window, this one included.
        faults: u8,
    },
    /// It was enough: the game is out of the registry. Only one fault of a listing is told so.
    Quarantined,
}

/// A game was not restored or discarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuarantineError {
    /// It is not in quarantine.
    #[error("{slug} is not in quarantine")]
    NotQuarantined {
        /// The slug asked for.
        slug: String,
    },
    /// The registry does not take it back: its slug went to another listing. It stays in
    /// quarantine.
    #[error("the registry does not take the game back")]
    Registry(#[source] RegistryError),
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// When, on the clock that faults are told by.
    pub at: Duration,
    /// The game.
    pub slug: GameSlug,
    /// Which of its listings was in quarantine.
    pub generation: Generation,
    /// Its artifact.
    pub artifact: ArtifactDigest,
    /// What became of it.
    pub action: AuditAction,
}

impl AuditRecord {
    /// Tells the process's log, which is kept when this one is not. Never under a lock: a
    /// subscriber is the caller's code.
    fn announce(&self) {
        let (event, counted) = match self.action {
            AuditAction::Quarantined { faults, window } => {
                ("game.quarantine", Some((faults, window.as_secs_f64())))
            }
            AuditAction::Restored => ("game.quarantine.restore", None),
            AuditAction::Discarded => ("game.quarantine.discard", None),
            AuditAction::Displaced => ("game.quarantine.displace", None),
        };
        tracing::warn!(
            event,
            slug = self.slug.as_str(),
            generation = %self.generation,
            artifact = %self.artifact,
            faults = counted.map(|(faults, _)| faults),
            window_secs = counted.map(|(_, window)| window),
            "audit: the quarantine of games changed"
        );
    }
}

/// What became of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditAction {
    /// It was pulled after so many faults within the window.
    Quarantined {
        /// The faults.
        faults: u8,
        /// The window.
        window: Duration,
    },
    /// It is on offer again, as another generation.
    Restored,
    /// The operator gave it up.
    Discarded,
    /// It left quarantine for a later listing of its slug, or because there are
    /// [`QUARANTINED_MAX`] others.
    Displaced,
}

/// The games in quarantine, and the faults of those that are not.
pub struct Quarantine {
    registry: Arc<Registry>,
    policy: QuarantinePolicy,
    on_quarantine: Option<Hook>,
    // Taken before the registry's lock, never the other way round.
    state: Mutex<State>,
}

type Hook = Box<dyn Fn(&Listed) + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    held: BTreeMap<GameSlug, Held>,
    audit: VecDeque<AuditRecord>,
}

#[derive(Debug)]
struct Held {
    listed: Arc<Listed>,
    since: Duration,
}

impl Quarantine {
    /// Watches over a registry.
    #[must_use]
    pub fn new(registry: Arc<Registry>, policy: QuarantinePolicy) -> Self {
        Self {
            registry,
            policy,
            on_quarantine: None,
            state: Mutex::default(),
        }
    }

    /// Calls `hook` for every game pulled, once, on the thread that told the fault. No lock is
    /// held: it may ask and change the quarantine.
    #[must_use]
    pub fn on_quarantine(self, hook: impl Fn(&Listed) + Send + Sync + 'static) -> Self {
        Self {
            on_quarantine: Some(Box::new(hook)),
            ..self
        }
    }

    /// Tells that a room running under `listed` was killed at `now`, and who is to blame.
    pub fn record_fault(&self, listed: &Listed, blame: Blame, now: Duration) -> FaultVerdict {
        if !blame.counts() {
            return FaultVerdict::Excused;
        }
        if listed.listing().is_exempt() {
            return FaultVerdict::Exempt;
        }
        let (pulled, records) = {
            let mut state = self.lock();
            if !self.registry.is_current(listed) {
                return FaultVerdict::Superseded;
            }
            let faults = state.counts.add(listed, now, self.policy.window);
            if faults < self.policy.threshold.get() {
                return FaultVerdict::Counted { faults };
            }
            state.counts.forget(listed.slug());
            let Some(pulled) = self.registry.remove_exactly(listed) else {
                return FaultVerdict::Superseded;
            };
            let records = state.hold(Arc::clone(&pulled), faults, self.policy.window, now);
            (pulled, records)
        };
        records.iter().for_each(AuditRecord::announce);
        if let Some(hook) = &self.on_quarantine
            && catch_unwind(AssertUnwindSafe(|| hook(&pulled))).is_err()
        {
            // The game is pulled all the same.
            tracing::error!(slug = %pulled.slug(), "the quarantine hook panicked");
        }
        FaultVerdict::Quarantined
    }

    /// Offers a game in quarantine again, with a clean count.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::NotQuarantined`]; [`QuarantineError::Registry`] if another listing has
    /// its slug by now, which leaves it in quarantine.
    pub fn restore(&self, slug: &str, now: Duration) -> Result<Arc<Listed>, QuarantineError> {
        let (restored, record) = {
            let mut state = self.lock();
            let listing = state.held(slug)?.listing().clone();
            let restored = self
                .registry
                .add(listing)
                .map_err(QuarantineError::Registry)?;
            (restored, state.release(slug, AuditAction::Restored, now))
        };
        record.iter().for_each(AuditRecord::announce);
        Ok(restored)
    }

    /// Gives a game in quarantine up: it cannot be restored, and its code can go.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::NotQuarantined`].
    pub fn discard(&self, slug: &str, now: Duration) -> Result<Arc<Listed>, QuarantineError> {
        let (discarded, record) = {
            let mut state = self.lock();
            let discarded = Arc::clone(state.held(slug)?);
            (discarded, state.release(slug, AuditAction::Discarded, now))
        };
        record.iter().for_each(AuditRecord::announce);
        Ok(discarded)
    }

    /// The games in quarantine, by slug.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Arc<Listed>> {
        let state = self.lock();
        let held = state.held.values();
        held.map(|held| Arc::clone(&held.listed)).collect()
    }

    /// What happened, oldest first: the last [`AUDIT_MAX`] entries. Each is also a `tracing`
    /// warning when it happens, for a log that is kept.
    #[must_use]
    pub fn audit(&self) -> Vec<AuditRecord> {
        self.lock().audit.iter().cloned().collect()
    }

    // No caller's code runs under the lock, so what it guards is whole even if it is poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine")
            .field("policy", &self.policy)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl State {
    fn held(&self, slug: &str) -> Result<&Arc<Listed>, QuarantineError> {
        match self.held.get(slug) {
            Some(held) => Ok(&held.listed),
            None => Err(QuarantineError::NotQuarantined { slug: slug.into() }),
        }
    }

    /// Puts a game in quarantine, in place of another where it must be.
    fn hold(
        &mut self,
        listed: Arc<Listed>,
        faults: u8,
        window: Duration,
        now: Duration,
    ) -> Vec<AuditRecord> {
        let slug = listed.slug().clone();
        let mut records = Vec::new();
        records.extend(self.release(slug.as_str(), AuditAction::Displaced, now));
        if self.held.len() == QUARANTINED_MAX {
            let longest = self.held.iter().min_by_key(|(_, held)| held.since);
            if let Some(longest) = longest.map(|(slug, _)| slug.clone()) {
                records.extend(self.release(longest.as_str(), AuditAction::Displaced, now));
            }
        }
        records.push(self.note(&listed, AuditAction::Quarantined { faults, window }, now));
        self.held.insert(slug, Held { listed, since: now });
        records
    }

    fn release(&mut self, slug: &str, action: AuditAction, now: Duration) -> Option<AuditRecord> {
        let held = self.held.remove(slug)?;
        Some(self.note(&held.listed, action, now))
    }

    fn note(&mut self, listed: &Listed, action: AuditAction, at: Duration) -> AuditRecord {
        let record = AuditRecord {
            at,
            slug: listed.slug().clone(),
            generation: listed.generation(),
            artifact: listed.game().digest(),
            action,
        };
        if self.audit.len() == AUDIT_MAX {
            self.audit.pop_front();
        }
        self.audit.push_back(record.clone());
        record
    }
}

/// The faults of the games on offer.
#[derive(Debug, Default)]
struct Counts(BTreeMap<GameSlug, Faults>);

#[derive(Debug)]
struct Faults {
    /// Of which listing.
    generation: Generation,
    /// Fewer than the threshold, which fits a byte. Room threads read their clocks apart, so
    /// these are almost in order.
    at: Vec<Duration>,
}

impl Faults {
    fn last(&self) -> Duration {
        self.at.iter().max().copied().unwrap_or_default()
    }
}

impl Counts {
    /// Adds a fault and says how many of its listing are within the window.
    fn add(&mut self, listed: &Listed, now: Duration, window: Duration) -> u8 {
        let (slug, generation) = (listed.slug(), listed.generation());
        if self.0.len() == COUNTED_MAX && !self.0.contains_key(slug.as_str()) {
            let quietest = self.0.iter().min_by_key(|(_, faults)| faults.last());
            if let Some(quietest) = quietest.map(|(slug, _)| slug.clone()) {
                self.forget(&quietest);
            }
        }
        let faults = self.0.entry(slug.clone()).or_insert(Faults {
            generation,
            at: Vec::new(),
        });
        if faults.generation != generation {
            faults.generation = generation;
            faults.at.clear();
        }
        faults.at.retain(|at| now.saturating_sub(*at) < window);
        faults.at.push(now);
        u8::try_from(faults.at.len()).unwrap_or(u8::MAX)
    }

    fn forget(&mut self, slug: &GameSlug) {
        self.0.remove(slug.as_str());
    }
}
