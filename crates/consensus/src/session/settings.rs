//! What a session may be told, and whether it can be.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{AdmissionTiming, Clock, Identity, OpenError};
use crate::config::{self, Compaction, ConfigError, Limits, Timing};
use crate::events::FeedLimits;
use crate::game::{Blueprint, Game};
use crate::ids::{GameId, SessionId};
use crate::lobby::proof::Secret;
use crate::log::{LogStore, MemoryLog};
use crate::state::command::Configure;

/// Everything a session may be told. [`SessionConfig::new`] is a game in memory at Raft's usual
/// times.
#[derive(Clone)]
pub struct SessionConfig {
    /// Raft's times.
    pub timing: Timing,
    /// How much of each thing there may be.
    pub limits: Limits,
    /// When the log is compacted; never when `None`.
    pub compaction: Option<Compaction>,
    /// How this node's client is known.
    pub identity: Identity,
    /// Where the log is kept. The default dies with the process.
    ///
    /// The session owns it, and closes it when it ends: when it is closed or dropped, and when an
    /// entry point failed that had opened it, as a join does that was let in and did not catch up.
    /// The next session on the same log, of this very configuration too, needs it opened anew:
    /// [`DurableLog::open`](crate::log::DurableLog::open) on the same directory,
    /// [`MemoryLog::reopen`]. Otherwise it is [`LogError::Closed`](crate::log::LogError::Closed).
    pub log: Arc<dyn LogStore>,
    /// How long a silent client is remembered, on the game's clock: ten upper election timeouts at
    /// least.
    pub client_ttl: Duration,
    /// A hash of the state is voted on every so many entries; 0 means never.
    pub hash_every: u64,
    /// Events kept for readers.
    pub events: FeedLimits,
    /// How patient admission is, where this node leads.
    pub admission: AdmissionTiming,
    /// A number this process drew from the system's entropy: it tells the process from its earlier
    /// selves. Without a [`secret`](Self::secret) it guards more than that: where this node founds
    /// the game, what only members know is made of it, and who guesses it passes for a member that
    /// came while a node was cut off. Numbers made of it are seen by others, so it can be found by
    /// trying all 64 bits; one that was counted, or made of a clock, by trying a few.
    pub nonce: u64,
    /// What members know each other by that never met, where this node founds the game: 32 bytes from
    /// the system's entropy, of which a secret for each session is made. `None` makes it of
    /// [`nonce`](Self::nonce). Others need not be given the same: the log brings it.
    pub secret: Option<[u8; 32]>,
    /// The monotonic clock turn deadlines go by.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig")
            .field("timing", &self.timing)
            .field("limits", &self.limits)
            .field("compaction", &self.compaction)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl SessionConfig {
    /// A game in memory, at Raft's usual times, by the clock given. `nonce` must be drawn from the
    /// system's entropy: it must differ from run to run, and nobody may guess it, see
    /// [`Self::nonce`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, nonce: u64) -> Self {
        Self {
            timing: Timing::default(),
            limits: Limits::default(),
            compaction: None,
            identity: Identity::default(),
            log: Arc::new(MemoryLog::new()),
            client_ttl: Duration::from_secs(3600),
            hash_every: 1000,
            events: FeedLimits::default(),
            admission: AdmissionTiming::default(),
            nonce,
            secret: None,
            clock,
        }
    }

    /// What every game this peer starts has in common.
    pub(super) fn settings(&self, game: &GameId, session: SessionId) -> Configure {
        let nonce = self.nonce.to_be_bytes();
        let entropy = self.secret.as_ref().map_or(&nonce[..], |secret| secret);
        Configure {
            session: session.to_bytes(),
            session_ttl_ms: u64::try_from(self.client_ttl.as_millis()).unwrap_or(u64::MAX),
            hash_every: self.hash_every,
            outcome_bytes_max: self.limits.outcome_bytes_max as u64,
            secret: Secret::drawn(entropy, game.as_str(), session).to_bytes(),
            ..Configure::default()
        }
    }

    pub(super) fn validate<G: Game>(&self, blueprint: &Blueprint<G>) -> Result<(), OpenError> {
        self.timing.validate()?;
        self.limits.validate()?;
        let max = self.limits.snapshot_bytes_max;
        if let Some(log_max) = self.log.snapshot_bytes_max().filter(|log| *log < max) {
            return Err(ConfigError::LogTakesLess { log_max, max }.into());
        }
        if self.compaction.is_some() && !blueprint.can_snapshot() {
            return Err(ConfigError::CompactionNeedsSnapshots.into());
        }
        self.admission.validate(&self.timing)?;
        config::client_ttl_fits(self.client_ttl, &self.timing)?;
        if let Some(compaction) = &self.compaction {
            compaction.validate()?;
        }
        Ok(self.events.validate()?)
    }
}
