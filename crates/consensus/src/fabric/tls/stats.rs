//! What happened on a TLS fabric, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fabric::Lane;

/// The frames of one lane, all peers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsLaneStats {
    /// Frames handed to a connection.
    pub sent: u64,
    /// Frames that arrived.
    pub received: u64,
    /// Frames dropped because the queue towards their peer was full.
    pub dropped: u64,
}

/// What happened on a fabric since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStats {
    /// Connections made, either kind, whoever dialled.
    pub connected: u64,
    /// Of those, the ones a dialler made that had made one before.
    pub reconnected: u64,
    /// Connections closed because another of the pair stays.
    pub duplicates: u64,
    /// Connections turned away: too many peers or handshakes, or another version.
    pub refused: u64,
    /// Connections whose certificate was not that of the peer dialled, of the peer its Hello
    /// named, or of any peer.
    pub mismatched: u64,
    /// Connections that ended before both had said Hello: no TLS, a certificate that does not
    /// verify, or too slow.
    pub handshakes_failed: u64,
    /// Attempts to dial that nobody answered.
    pub unreachable: u64,
    /// Connections closed because a frame announced more bytes than one may have.
    pub oversize: u64,
    /// Connections closed because of bytes that are no frame, or a frame out of place.
    pub malformed: u64,
    /// Connections given up because nothing arrived for too long.
    pub silent: u64,
    /// The lane of Raft.
    pub raft: TlsLaneStats,
    /// The lane of the lobby.
    pub lobby: TlsLaneStats,
    /// The lane of the app channels.
    pub app: TlsLaneStats,
}

#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(super) struct LaneCounts {
    pub(super) sent: Count,
    pub(super) received: Count,
    pub(super) dropped: Count,
}

/// What [`TlsStats`] is read from.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) connected: Count,
    pub(super) reconnected: Count,
    pub(super) duplicates: Count,
    pub(super) refused: Count,
    pub(super) mismatched: Count,
    pub(super) handshakes_failed: Count,
    pub(super) unreachable: Count,
    pub(super) oversize: Count,
    pub(super) malformed: Count,
    pub(super) silent: Count,
    lanes: [LaneCounts; 3],
}

impl Counts {
    pub(super) fn lane(&self, lane: Lane) -> &LaneCounts {
        match lane {
            Lane::Raft => &self.lanes[0],
            Lane::Lobby => &self.lanes[1],
            Lane::App => &self.lanes[2],
        }
    }

    pub(super) fn read(&self) -> TlsStats {
        let lane = |lane| {
            let counts = self.lane(lane);
            TlsLaneStats {
                sent: counts.sent.read(),
                received: counts.received.read(),
                dropped: counts.dropped.read(),
            }
        };
        TlsStats {
            connected: self.connected.read(),
            reconnected: self.reconnected.read(),
            duplicates: self.duplicates.read(),
            refused: self.refused.read(),
            mismatched: self.mismatched.read(),
            handshakes_failed: self.handshakes_failed.read(),
            unreachable: self.unreachable.read(),
            oversize: self.oversize.read(),
            malformed: self.malformed.read(),
            silent: self.silent.read(),
            raft: lane(Lane::Raft),
            lobby: lane(Lane::Lobby),
            app: lane(Lane::App),
        }
    }
}
