//! The frames that wait to be written to one peer on one kind of connection.
//!
//! Invariants
//! - frames of the Raft lane leave before those of the lobby;
//! - a full lane drops what its protocol can do without: the newest of Raft, which is sent again,
//!   the oldest of the others;
//! - only the connection attached last takes frames, so one that was replaced writes none.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::frame::{PACKED_BYTES_MAX, PACKED_MAX};
use crate::fabric::{Lane, QueueLimits};
use crate::hidden::Hidden;
use crate::ids::GameId;

/// A frame on its way out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) game: GameId,
    pub(super) lane: Lane,
    pub(super) payload: Bytes,
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel")
            .field("game", &self.game)
            .field("lane", &self.lane)
            .field("payload", &Hidden(self.payload.len()))
            .finish()
    }
}

/// What became of a frame that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Whether it is in the queue.
    pub(super) taken: bool,
    /// How many frames were dropped, it or others.
    pub(super) dropped: u64,
}

#[derive(Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    bytes: usize,
}

struct State {
    /// By the lanes' numbers: what is first leaves first.
    lanes: [Waiting; 3],
    attached: u64,
    ready: Arc<Notify>,
}

/// What of `parcels` shares a frame, in order: neighbours of one game and lane, up to
/// [`PACKED_MAX`] and about [`PACKED_BYTES_MAX`].
pub(super) fn packs(parcels: &[Parcel]) -> impl Iterator<Item = &[Parcel]> {
    let mut rest = parcels;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut bytes = 0_usize;
        let mut fits = |parcel: &Parcel| {
            bytes += parcel.payload.len();
            bytes <= PACKED_BYTES_MAX && parcel.lane == first.lane && parcel.game == first.game
        };
        let many = rest
            .iter()
            .take(PACKED_MAX)
            .take_while(|parcel| fits(parcel))
            .count();
        let (pack, after) = rest.split_at(many.max(1));
        rest = after;
        Some(pack)
    })
}

/// The queue.
pub(super) struct Outbound {
    state: Mutex<State>,
    limits: QueueLimits,
}

impl Outbound {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self {
            state: Mutex::new(State {
                lanes: Default::default(),
                attached: 0,
                ready: Arc::new(Notify::new()),
            }),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on `connection` takes the frames; it waits for the answer to be told of some.
    pub(super) fn attach(&self, connection: u64) -> Arc<Notify> {
        let mut state = self.lock();
        state.attached = connection;
        state.ready = Arc::new(Notify::new());
        state.ready.clone()
    }

    /// Forgets every frame.
    pub(super) fn clear(&self) {
        self.lock().lanes = Default::default();
    }

    pub(super) fn push(&self, parcel: Parcel) -> Pushed {
        let QueueLimits {
            frames_max,
            bytes_max,
        } = self.limits;
        let mut state = self.lock();
        let waiting = &mut state.lanes[usize::from(parcel.lane.number() - 1)];
        let bytes = parcel.payload.len();
        let mut dropped = 0;
        while waiting.parcels.len() >= frames_max || waiting.bytes + bytes > bytes_max {
            dropped += 1;
            let oldest = match parcel.lane {
                Lane::Raft => None,
                Lane::Lobby | Lane::App => waiting.parcels.pop_front(),
            };
            let Some(oldest) = oldest else {
                let taken = false;
                return Pushed { taken, dropped };
            };
            waiting.bytes -= oldest.payload.len();
        }
        waiting.bytes += bytes;
        waiting.parcels.push_back(parcel);
        let ready = state.ready.clone();
        drop(state);
        ready.notify_one();
        let taken = true;
        Pushed { taken, dropped }
    }

    /// Moves frames of about `bytes_max` bytes to `batch`, at least one if there is any.
    pub(super) fn take(&self, connection: u64, bytes_max: usize, batch: &mut Vec<Parcel>) {
        let mut state = self.lock();
        if state.attached != connection {
            return;
        }
        let mut bytes = 0;
        for waiting in &mut state.lanes {
            while bytes < bytes_max
                && let Some(parcel) = waiting.parcels.pop_front()
            {
                waiting.bytes -= parcel.payload.len();
                // A frame without payload is some bytes too.
                bytes += parcel.payload.len() + 16;
                batch.push(parcel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::tests::{SECRET, hides_it};

    fn parcel(lane: Lane, n: u8, len: usize) -> Parcel {
        Parcel {
            game: GameId::new("chess").unwrap(),
            lane,
            payload: vec![n; len].into(),
        }
    }

    #[test]
    fn a_parcel_is_shown_by_its_length() {
        let parcel = Parcel {
            payload: Bytes::from_static(SECRET),
            ..parcel(Lane::Raft, 1, 1)
        };
        hides_it(&parcel);
        let shown = format!("{parcel:?}");
        assert!(shown.contains("32 bytes"), "{shown}");
    }

    fn limits(frames_max: usize, bytes_max: usize) -> QueueLimits {
        QueueLimits {
            frames_max,
            bytes_max,
        }
    }

    #[test]
    fn neighbours_of_one_game_and_lane_share_a_frame_up_to_its_limits() {
        let of = |name: &str, lane, len| Parcel {
            game: GameId::new(name).unwrap(),
            ..parcel(lane, 1, len)
        };
        let sizes = |parcels: &[Parcel]| packs(parcels).map(<[_]>::len).collect::<Vec<_>>();
        assert!(sizes(&[]).is_empty());
        let small = |n| vec![parcel(Lane::App, 1, 1); n];
        assert_eq!(sizes(&small(PACKED_MAX)), [PACKED_MAX]);
        assert_eq!(sizes(&small(PACKED_MAX + 1)), [PACKED_MAX, 1]);
        let (half, more) = (PACKED_BYTES_MAX / 2, PACKED_BYTES_MAX / 2 + 1);
        let pair = |len| [parcel(Lane::App, 1, half), parcel(Lane::App, 2, len)];
        assert_eq!(sizes(&pair(half)), [2]);
        assert_eq!(sizes(&pair(more)), [1, 1]);
        let long = [parcel(Lane::Raft, 1, 4 << 20), parcel(Lane::Raft, 2, 1)];
        assert_eq!(sizes(&long), [1, 1]);
        let mixed = [
            of("chess", Lane::Raft, 1),
            of("chess", Lane::Lobby, 1),
            of("go", Lane::Lobby, 1),
            of("go", Lane::Lobby, 0),
            of("chess", Lane::Lobby, 1),
        ];
        assert_eq!(sizes(&mixed), [1, 1, 2, 1]);
        assert_eq!(packs(&mixed).collect::<Vec<_>>().concat(), mixed);
    }

    fn drain(outbound: &Outbound, connection: u64) -> Vec<(Lane, u8)> {
        let mut batch = Vec::new();
        outbound.take(connection, usize::MAX, &mut batch);
        batch.iter().map(|p| (p.lane, p.payload[0])).collect()
    }

    #[test]
    fn raft_leaves_before_the_lobby_and_each_in_order() {
        let outbound = Outbound::new(limits(10, 1000));
        outbound.attach(1);
        for (lane, n) in [
            (Lane::Lobby, 1),
            (Lane::Raft, 2),
            (Lane::Lobby, 3),
            (Lane::Raft, 4),
        ] {
            outbound.push(parcel(lane, n, 1));
        }
        assert_eq!(
            drain(&outbound, 1),
            [
                (Lane::Raft, 2),
                (Lane::Raft, 4),
                (Lane::Lobby, 1),
                (Lane::Lobby, 3)
            ]
        );
    }

    #[test]
    fn a_full_lane_drops_the_newest_of_raft_and_the_oldest_of_the_others() {
        let full = |taken, dropped| Pushed { taken, dropped };
        for (lane, expected, left) in [
            (Lane::Raft, full(false, 1), [1, 2]),
            (Lane::Lobby, full(true, 1), [2, 3]),
            (Lane::App, full(true, 1), [2, 3]),
        ] {
            for outbound in [Outbound::new(limits(2, 1000)), Outbound::new(limits(9, 2))] {
                outbound.attach(1);
                assert_eq!(outbound.push(parcel(lane, 1, 1)), full(true, 0));
                assert_eq!(outbound.push(parcel(lane, 2, 1)), full(true, 0));
                assert_eq!(outbound.push(parcel(lane, 3, 1)), expected);
                assert_eq!(drain(&outbound, 1), left.map(|n| (lane, n)));
            }
        }
    }

    #[test]
    fn a_connection_that_was_replaced_takes_nothing() {
        let outbound = Outbound::new(limits(2, 1000));
        outbound.attach(1);
        outbound.push(parcel(Lane::App, 1, 1));
        outbound.attach(2);
        assert_eq!(drain(&outbound, 1), []);
        assert_eq!(drain(&outbound, 2), [(Lane::App, 1)]);
        outbound.push(parcel(Lane::App, 2, 1));
        outbound.clear();
        assert_eq!(drain(&outbound, 2), []);
    }

    #[test]
    fn a_batch_ends_once_it_is_large_enough() {
        let outbound = Outbound::new(limits(9, 1000));
        outbound.attach(1);
        for n in 0..3 {
            outbound.push(parcel(Lane::App, n, 100));
        }
        let mut batch = Vec::new();
        outbound.take(1, 150, &mut batch);
        assert_eq!(batch.len(), 2);
    }
}
