//! What a session may be told: times, sizes, when to compact. Checked once, when a session opens.

use std::time::Duration;

use tokio::time::Instant;

pub use crate::events::FeedLimits;
use crate::lobby::AdmissionTiming;
use crate::log::RECORD_BYTES_MAX;

/// The longest upper election timeout, in milliseconds: an hour.
pub const ELECTION_MS_MAX: u64 = 3_600_000;

/// The longest any other time may be: a year. Longer ones mean never, which has settings of its own.
pub const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The upper election timeout is not above the lower one.
    #[error("the election timeout must have a range: {min_ms} ms is not below {max_ms} ms")]
    ElectionRange {
        /// Lower bound, in milliseconds.
        min_ms: u64,
        /// Upper bound, in milliseconds.
        max_ms: u64,
    },
    /// Followers would give up on a leader between two of its heartbeats.
    #[error(
        "a heartbeat every {heartbeat_ms} ms is too rare for an election after {min_ms} ms: use at \
         most half of it, and at least 1 ms"
    )]
    Heartbeat {
        /// Interval, in milliseconds.
        heartbeat_ms: u64,
        /// Lower election timeout, in milliseconds.
        min_ms: u64,
    },
    /// A member would count as dead between two of its answers.
    #[error(
        "a member that is alive within {alive_within:?} has too little time to answer: use at least \
         three heartbeats, {min:?}"
    )]
    AliveWithin {
        /// The time given.
        alive_within: Duration,
        /// The least there can be.
        min: Duration,
    },
    /// A member that counts as alive would lose its place.
    #[error(
        "evict_after of {evict_after:?} is not above alive_within of {alive_within:?}: who is alive \
         would be put out"
    )]
    EvictAfter {
        /// The time given.
        evict_after: Duration,
        /// Within which a member is alive.
        alive_within: Duration,
    },
    /// A node that is let in would lose its place before it is seen to be there.
    #[error(
        "admit_within of {admit_within:?} is below alive_within of {alive_within:?}: nobody would \
         come in"
    )]
    AdmitWithin {
        /// The time given.
        admit_within: Duration,
        /// Within which a member is alive.
        alive_within: Duration,
    },
    /// Clients would be forgotten while a leader is elected.
    #[error(
        "a client that is remembered for {client_ttl:?} is forgotten too soon: use at least ten \
         upper election timeouts, {min:?}"
    )]
    ClientTtl {
        /// The time given.
        client_ttl: Duration,
        /// The least there can be.
        min: Duration,
    },
    /// A time that must pass is none.
    #[error("{what} must be above zero")]
    NoTime {
        /// Which time.
        what: &'static str,
    },
    /// A time is longer than any may be.
    #[error("{what} must be at most {max:?}, not {value:?}")]
    TooLong {
        /// Which time.
        what: &'static str,
        /// The time given.
        value: Duration,
        /// The most there can be.
        max: Duration,
    },
    /// A limit is zero or above what the formats hold.
    #[error("{what} must be between 1 and {max}, not {value}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// The value given.
        value: u64,
        /// The most there can be.
        max: u64,
    },
    /// The node would take snapshots that its log cannot store, and stop at the first.
    #[error(
        "the log takes snapshots of {log_max} bytes and this node of {max}: raise \
         DurableOptions::snapshot_bytes_max, or lower Limits::snapshot_bytes_max"
    )]
    LogTakesLess {
        /// Most bytes the log takes.
        log_max: usize,
        /// Most bytes the node takes: its `Limits::snapshot_bytes_max`.
        max: usize,
    },
    /// Compaction needs a game that can be written down.
    #[error(
        "this game cannot read a snapshot, so its log cannot be compacted: implement Snapshots and \
         use Blueprint::with_snapshots, or turn compaction off"
    )]
    CompactionNeedsSnapshots,
}

/// Raft's times. Fail-over takes about the upper election timeout plus one election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A follower that heard nothing waits at least this long before it asks for votes.
    pub election_min_ms: u64,
    /// And at most this long.
    pub election_max_ms: u64,
    /// How often a leader that has nothing to say says so.
    pub heartbeat_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            election_min_ms: 150,
            election_max_ms: 300,
            heartbeat_ms: 50,
        }
    }
}

impl Timing {
    /// Short times, for one machine and for tests in virtual time.
    #[must_use]
    pub fn fast() -> Self {
        Self {
            election_min_ms: 30,
            election_max_ms: 60,
            heartbeat_ms: 10,
        }
    }

    /// The upper election timeout.
    #[must_use]
    pub fn election_max(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }

    /// The heartbeat interval.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let max = Duration::from_millis(ELECTION_MS_MAX);
        no_longer("election_max_ms", self.election_max(), max)?;
        if self.election_min_ms >= self.election_max_ms {
            return Err(ConfigError::ElectionRange {
                min_ms: self.election_min_ms,
                max_ms: self.election_max_ms,
            });
        }
        if self.heartbeat_ms == 0 || self.heartbeat_ms > self.election_min_ms / 2 {
            return Err(ConfigError::Heartbeat {
                heartbeat_ms: self.heartbeat_ms,
                min_ms: self.election_min_ms,
            });
        }
        Ok(())
    }
}

fn no_longer(what: &'static str, value: Duration, max: Duration) -> Result<(), ConfigError> {
    if value > max {
        return Err(ConfigError::TooLong { what, value, max });
    }
    Ok(())
}

/// Whether a time is no longer than any may be.
pub(crate) fn time_fits(what: &'static str, value: Duration) -> Result<(), ConfigError> {
    no_longer(what, value, TIME_MAX)
}

/// When what may take `within` is over; [`TIME_MAX`] from now at the latest, since no clock need
/// reach further.
pub(crate) fn deadline(within: Duration) -> Instant {
    Instant::now() + within.min(TIME_MAX)
}

fn number_fits(what: &'static str, value: u64, max: u64) -> Result<(), ConfigError> {
    if value == 0 || value > max {
        return Err(ConfigError::Limit { what, value, max });
    }
    Ok(())
}

impl AdmissionTiming {
    pub(crate) fn validate(&self, timing: &Timing) -> Result<(), ConfigError> {
        let Self {
            alive_within,
            evict_after,
            admit_within,
        } = *self;
        time_fits("alive_within", alive_within)?;
        time_fits("evict_after", evict_after.unwrap_or_default())?;
        time_fits("admit_within", admit_within)?;
        let min = timing.heartbeat() * 3;
        if alive_within < min {
            return Err(ConfigError::AliveWithin { alive_within, min });
        }
        if let Some(evict_after) = evict_after.filter(|after| *after <= alive_within) {
            return Err(ConfigError::EvictAfter {
                evict_after,
                alive_within,
            });
        }
        if admit_within < alive_within {
            return Err(ConfigError::AdmitWithin {
                admit_within,
                alive_within,
            });
        }
        Ok(())
    }
}

/// Whether a client is remembered for long enough, and no longer than may be.
pub(crate) fn client_ttl_fits(client_ttl: Duration, timing: &Timing) -> Result<(), ConfigError> {
    time_fits("client_ttl", client_ttl)?;
    let min = timing.election_max() * 10;
    if client_ttl < min {
        return Err(ConfigError::ClientTtl { client_ttl, min });
    }
    Ok(())
}

impl FeedLimits {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        number_fits("events_max", self.events_max as u64, 1 << 20)?;
        number_fits("events.bytes_max", self.bytes_max as u64, 1 << 30)
    }
}

/// How much of each thing there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one action.
    pub action_bytes_max: usize,
    /// Bytes of what the game answers to one action. A larger answer is withheld from everybody;
    /// what the action did stands. The same on every node: the first leader of a game writes its
    /// own into the log.
    pub outcome_bytes_max: usize,
    /// Proposals of this node under way, and, when it leads, of any other node here. More than the
    /// session window would be forgotten.
    pub pending_max: usize,
    /// Proposals of all nodes that this node, when it leads, has under way.
    pub pending_total_max: usize,
    /// App channels open at a time.
    pub channels_max: usize,
    /// Frames one app channel keeps for its reader.
    pub channel_frames_max: usize,
    /// Bytes of a snapshot, as it is stored and sent. A larger one that arrives is refused; a
    /// larger one of this node's own is not written, and the log is kept instead
    /// ([`RaftNumbers::snapshot_too_large`](crate::raft::RaftNumbers::snapshot_too_large)).
    pub snapshot_bytes_max: usize,
    /// Bytes of one piece of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// Entries kept in the log after a snapshot contains them, for followers that are only a
    /// little behind.
    pub log_kept_after_snapshot: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            action_bytes_max: 256 << 10,
            outcome_bytes_max: 64 << 10,
            pending_max: 1024,
            pending_total_max: 16_384,
            channels_max: 256,
            channel_frames_max: 1024,
            snapshot_bytes_max: 64 << 20,
            snapshot_chunk_bytes: 256 << 10,
            log_kept_after_snapshot: 1000,
        }
    }
}

impl Limits {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let within = |what, value: usize, max: usize| number_fits(what, value as u64, max as u64);
        within(
            "action_bytes_max",
            self.action_bytes_max,
            RECORD_BYTES_MAX / 2,
        )?;
        within(
            "outcome_bytes_max",
            self.outcome_bytes_max,
            crate::state::sessions::SESSION_BYTES_MAX,
        )?;
        within(
            "pending_max",
            self.pending_max,
            crate::state::sessions::WINDOW as usize,
        )?;
        within("pending_total_max", self.pending_total_max, 1 << 20)?;
        within("channels_max", self.channels_max, 65_536)?;
        within("channel_frames_max", self.channel_frames_max, 1 << 20)?;
        within("snapshot_bytes_max", self.snapshot_bytes_max, 1 << 30)?;
        within("snapshot_chunk_bytes", self.snapshot_chunk_bytes, 1 << 20)
    }
}

/// When a node writes a snapshot and forgets the log before it: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// After so many entries.
    pub entries: u64,
    /// After so many bytes of entries, those that earlier processes left after the last snapshot among
    /// them.
    pub bytes: u64,
    /// When the last one is this old and there is something new. What an earlier process wrote counts
    /// from when this one opened the session. A state that was too large for a snapshot is tried again
    /// after so many entries or bytes more, or this, a minute at most.
    pub age: Duration,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 16 << 20,
            age: Duration::from_secs(600),
        }
    }
}

impl Compaction {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        number_fits("compaction.entries", self.entries, u64::MAX)?;
        number_fits("compaction.bytes", self.bytes, u64::MAX)?;
        if self.age.is_zero() {
            return Err(ConfigError::NoTime {
                what: "compaction.age",
            });
        }
        time_fits("compaction.age", self.age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_nanos(1);

    #[test]
    fn times_are_taken_at_their_limit_and_refused_one_past_it() {
        let timing = |election_min_ms, election_max_ms, heartbeat_ms| Timing {
            election_min_ms,
            election_max_ms,
            heartbeat_ms,
        };
        assert_eq!(timing(100, 101, 50).validate(), Ok(()));
        assert!(matches!(
            timing(100, 100, 50).validate(),
            Err(ConfigError::ElectionRange { .. })
        ));
        assert!(matches!(
            timing(100, 101, 51).validate(),
            Err(ConfigError::Heartbeat { .. })
        ));
        assert!(matches!(
            timing(100, 101, 0).validate(),
            Err(ConfigError::Heartbeat { .. })
        ));
        assert_eq!(
            Timing::default().validate().and(Timing::fast().validate()),
            Ok(())
        );
        assert_eq!(timing(100, ELECTION_MS_MAX, 50).validate(), Ok(()));
        for past in [ELECTION_MS_MAX + 1, u64::MAX] {
            assert_eq!(
                timing(100, past, 50).validate(),
                Err(ConfigError::TooLong {
                    what: "election_max_ms",
                    value: Duration::from_millis(past),
                    max: Duration::from_millis(ELECTION_MS_MAX),
                })
            );
        }
        assert!(matches!(
            timing(100, 101, u64::MAX / 2 + 2).validate(),
            Err(ConfigError::Heartbeat { .. })
        ));
    }

    #[test]
    fn admissions_times_are_taken_at_their_limit_and_refused_one_past_it() {
        let timing = Timing::default();
        let ready = AdmissionTiming::default();
        for timing in [timing, Timing::fast()] {
            assert_eq!(ready.validate(&timing), Ok(()));
        }
        let with = |alive_within, evict_after, admit_within| {
            let times = AdmissionTiming {
                alive_within,
                evict_after,
                admit_within,
            };
            times.validate(&timing)
        };
        let alive = timing.heartbeat() * 3;
        assert_eq!(with(alive, Some(alive + TICK), alive), Ok(()));
        assert_eq!(with(alive, None, TIME_MAX), Ok(()));
        assert_eq!(with(TIME_MAX, None, TIME_MAX), Ok(()));
        assert_eq!(with(alive, Some(TIME_MAX), alive), Ok(()));
        assert_eq!(
            with(alive - TICK, None, alive),
            Err(ConfigError::AliveWithin {
                alive_within: alive - TICK,
                min: alive,
            })
        );
        assert_eq!(
            with(alive, Some(alive), alive),
            Err(ConfigError::EvictAfter {
                evict_after: alive,
                alive_within: alive,
            })
        );
        assert_eq!(
            with(alive, None, alive - TICK),
            Err(ConfigError::AdmitWithin {
                admit_within: alive - TICK,
                alive_within: alive,
            })
        );
        let value = TIME_MAX + TICK;
        for (what, given) in [
            ("alive_within", with(value, None, alive)),
            ("evict_after", with(alive, Some(value), alive)),
            ("admit_within", with(alive, None, value)),
        ] {
            let max = TIME_MAX;
            assert_eq!(given, Err(ConfigError::TooLong { what, value, max }));
        }
    }

    #[test]
    fn a_client_is_remembered_for_at_least_ten_elections_and_at_most_a_year() {
        let timing = Timing::default();
        let min = timing.election_max() * 10;
        for fits in [min, TIME_MAX] {
            assert_eq!(client_ttl_fits(fits, &timing), Ok(()));
        }
        for client_ttl in [min - TICK, Duration::ZERO] {
            let refused = ConfigError::ClientTtl { client_ttl, min };
            assert_eq!(client_ttl_fits(client_ttl, &timing), Err(refused));
        }
        let past = client_ttl_fits(TIME_MAX + TICK, &timing);
        assert!(matches!(past, Err(ConfigError::TooLong { .. })));
    }

    #[test]
    fn compaction_and_the_events_kept_are_taken_at_their_limit_and_refused_one_past_it() {
        let ready = Compaction::default();
        let least = Compaction {
            entries: 1,
            bytes: 1,
            age: TICK,
        };
        let most = Compaction {
            entries: u64::MAX,
            bytes: u64::MAX,
            age: TIME_MAX,
        };
        for fits in [ready, least, most] {
            assert_eq!(fits.validate(), Ok(()));
        }
        let never = Duration::ZERO;
        let past = TIME_MAX + TICK;
        let refused = [
            (
                Compaction {
                    entries: 0,
                    ..least
                },
                "entries",
            ),
            (Compaction { bytes: 0, ..least }, "bytes"),
            (
                Compaction {
                    age: never,
                    ..least
                },
                "age",
            ),
            (Compaction { age: past, ..least }, "age"),
        ];
        for (compaction, which) in refused {
            match compaction.validate() {
                Err(
                    ConfigError::Limit { what, .. }
                    | ConfigError::NoTime { what }
                    | ConfigError::TooLong { what, .. },
                ) => assert_eq!(what, format!("compaction.{which}")),
                other => panic!("unexpected {other:?}"),
            }
        }

        let events = |events_max, bytes_max| {
            let limits = FeedLimits {
                events_max,
                bytes_max,
            };
            limits.validate().is_ok()
        };
        assert_eq!(FeedLimits::default().validate(), Ok(()));
        assert!(events(1, 1) && events(1 << 20, 1 << 30));
        assert!(!events(0, 1) && !events(1, 0));
        assert!(!events((1 << 20) + 1, 1) && !events(1, (1 << 30) + 1));
    }

    #[test]
    fn limits_are_taken_at_their_limit_and_refused_one_past_it() {
        use crate::state::sessions::{SESSION_BYTES_MAX, WINDOW};

        assert_eq!(Limits::default().validate(), Ok(()));
        type Set = fn(&mut Limits, usize);
        let limits: [(&str, Set, usize); 8] = [
            (
                "action_bytes_max",
                |l, n| l.action_bytes_max = n,
                RECORD_BYTES_MAX / 2,
            ),
            (
                "outcome_bytes_max",
                |l, n| l.outcome_bytes_max = n,
                SESSION_BYTES_MAX,
            ),
            ("pending_max", |l, n| l.pending_max = n, WINDOW as usize),
            ("pending_total_max", |l, n| l.pending_total_max = n, 1 << 20),
            ("channels_max", |l, n| l.channels_max = n, 65_536),
            (
                "channel_frames_max",
                |l, n| l.channel_frames_max = n,
                1 << 20,
            ),
            (
                "snapshot_bytes_max",
                |l, n| l.snapshot_bytes_max = n,
                1 << 30,
            ),
            (
                "snapshot_chunk_bytes",
                |l, n| l.snapshot_chunk_bytes = n,
                1 << 20,
            ),
        ];
        for (name, set, most) in limits {
            let with = |value| {
                let mut limits = Limits::default();
                set(&mut limits, value);
                limits.validate()
            };
            assert_eq!(with(most), Ok(()), "{name}");
            assert_eq!(with(1), Ok(()), "{name}");
            for bad in [0, most + 1] {
                assert_eq!(
                    with(bad),
                    Err(ConfigError::Limit {
                        what: name,
                        value: bad as u64,
                        max: most as u64
                    })
                );
            }
        }
    }
}
