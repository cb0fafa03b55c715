//! What a session may be told: times, sizes, when to compact. Checked once, when a session opens.

use std::time::Duration;

use crate::log::RECORD_BYTES_MAX;

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
        if self.election_min_ms >= self.election_max_ms {
            return Err(ConfigError::ElectionRange {
                min_ms: self.election_min_ms,
                max_ms: self.election_max_ms,
            });
        }
        if self.heartbeat_ms == 0 || self.heartbeat_ms * 2 > self.election_min_ms {
            return Err(ConfigError::Heartbeat {
                heartbeat_ms: self.heartbeat_ms,
                min_ms: self.election_min_ms,
            });
        }
        Ok(())
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
        let within = |what, value: usize, max: usize| {
            if value == 0 || value > max {
                return Err(ConfigError::Limit {
                    what,
                    value: value as u64,
                    max: max as u64,
                });
            }
            Ok(())
        };
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

/// When a node writes a snapshot and forgets the log before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// After so many entries.
    pub entries: u64,
    /// After so many bytes of entries.
    pub bytes: u64,
    /// When the last one is this old and there is something new.
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

#[cfg(test)]
mod tests {
    use super::*;

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
