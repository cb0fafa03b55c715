//! Which game gets a frame that arrived: the part every fabric shares.
//!
//! Invariants
//! - a game has at most one [`Incoming`];
//! - a frame of a game nobody opened, or on a lane whose queue is full, is dropped and counted;
//! - the lane of the lobby, on which anybody may speak, is shared evenly by those who do: what one
//!   peer sends there takes no other's place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::queue::{self, Overflow, Pushed, Pusher, Receiver};
use super::{FRAME_BYTES_MAX, Inbound, Lane, PortError};
use crate::ids::GameId;

/// Most games open on one fabric.
const GAMES_MAX: usize = 1024;

/// How much of each lane may wait for its reader. A [`Switchboard`] takes less than one frame of the
/// largest size for just that: a lane that holds nothing would carry nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Frames per lane.
    pub frames_max: usize,
    /// Bytes per lane.
    pub bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            frames_max: 16_384,
            bytes_max: 64 << 20,
        }
    }
}

/// What happened to the frames of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Frames put into a queue.
    pub delivered: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Frames dropped because the reader was slow.
    pub dropped: u64,
}

/// What happened to the frames of a fabric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwitchboardStats {
    /// The lane of Raft.
    pub raft: LaneStats,
    /// The lane of the lobby.
    pub lobby: LaneStats,
    /// The lane of the app channels.
    pub app: LaneStats,
    /// Frames of games nobody has opened.
    pub unknown_game: u64,
}

#[derive(Default)]
struct Counters {
    delivered: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    fn add(&self, more: LaneStats) {
        for (counter, more) in [
            (&self.delivered, more.delivered),
            (&self.bytes, more.bytes),
            (&self.dropped, more.dropped),
        ] {
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> LaneStats {
        LaneStats {
            delivered: self.delivered.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

struct Game {
    number: u64,
    lanes: [Pusher<Inbound>; 3],
}

struct State {
    games: BTreeMap<GameId, Game>,
    opened: u64,
    closed: bool,
}

struct Shared {
    /// Frames that arrive only read it: those of one lane never wait for those of another.
    state: RwLock<State>,
    counters: [Counters; 3],
    unknown_game: AtomicU64,
    limits: QueueLimits,
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands arriving frames to the games that are open.
#[derive(Clone)]
pub struct Switchboard(Arc<Shared>);

impl Default for Switchboard {
    fn default() -> Self {
        Self::new(QueueLimits::default())
    }
}

impl Switchboard {
    /// A switchboard without games, whose lanes hold `limits`.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self(Arc::new(Shared {
            state: RwLock::new(State {
                games: BTreeMap::new(),
                opened: 0,
                closed: false,
            }),
            counters: Default::default(),
            unknown_game: AtomicU64::new(0),
            limits: QueueLimits {
                frames_max: limits.frames_max.max(1),
                bytes_max: limits.bytes_max.max(FRAME_BYTES_MAX),
            },
        }))
    }

    /// Opens a game: its frames go to the answer until that is dropped.
    ///
    /// # Errors
    ///
    /// [`PortError`] when the game is open already, or no more can be.
    pub fn open(&self, game: &GameId) -> Result<Incoming, PortError> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(PortError::Closed);
        }
        if state.games.contains_key(game) {
            return Err(PortError::Taken(game.clone()));
        }
        if state.games.len() >= GAMES_MAX {
            return Err(PortError::TooMany { max: GAMES_MAX });
        }
        let QueueLimits {
            frames_max,
            bytes_max,
        } = self.0.limits;
        let (raft_in, raft) = queue::queue(frames_max, bytes_max, Overflow::DropNewest);
        let (lobby_in, lobby) =
            queue::shared_queue(frames_max, bytes_max, |inbound: &Inbound| &inbound.from);
        let (app_in, app) = queue::queue(frames_max, bytes_max, Overflow::DropOldest);
        state.opened += 1;
        let number = state.opened;
        state.games.insert(
            game.clone(),
            Game {
                number,
                lanes: [raft_in, lobby_in, app_in],
            },
        );
        Ok(Incoming {
            raft,
            lobby,
            app,
            guard: OpenGame {
                board: self.clone(),
                game: game.clone(),
                number,
            },
        })
    }

    /// Puts a frame that arrived where it belongs. Answers whether anybody got it.
    pub fn deliver(&self, game: &GameId, lane: Lane, inbound: Inbound) -> bool {
        self.deliver_all(game, lane, [inbound]) == 1
    }

    /// Puts frames that arrived together where they belong, in their order. Answers how many of
    /// them somebody got.
    pub fn deliver_all(
        &self,
        game: &GameId,
        lane: Lane,
        frames: impl IntoIterator<Item = Inbound>,
    ) -> u64 {
        let at = usize::from(lane.number() - 1);
        let lane = {
            let state = self.0.read();
            state.games.get(game).map(|open| open.lanes[at].clone())
        };
        let frames = frames.into_iter();
        let Some(lane) = lane else {
            let unknown = frames.count() as u64;
            self.0.unknown_game.fetch_add(unknown, Ordering::Relaxed);
            return 0;
        };
        let mut of_all = LaneStats::default();
        for inbound in frames {
            let bytes = inbound.frame.len();
            let Pushed { taken, dropped } = lane.push(inbound, bytes);
            of_all.dropped += dropped;
            if taken {
                of_all.delivered += 1;
                of_all.bytes += bytes as u64;
            }
        }
        self.0.counters[at].add(of_all);
        of_all.delivered
    }

    /// Ends every game's incoming stream; no game can be opened any more.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        for game in std::mem::take(&mut state.games).into_values() {
            for lane in game.lanes {
                lane.close();
            }
        }
    }

    /// What happened to the frames so far.
    #[must_use]
    pub fn stats(&self) -> SwitchboardStats {
        let [raft, lobby, app] = &self.0.counters;
        SwitchboardStats {
            raft: raft.read(),
            lobby: lobby.read(),
            app: app.read(),
            unknown_game: self.0.unknown_game.load(Ordering::Relaxed),
        }
    }
}

/// Frees the game's name when its incoming stream is dropped.
pub(crate) struct OpenGame {
    board: Switchboard,
    game: GameId,
    number: u64,
}

impl Drop for OpenGame {
    fn drop(&mut self) {
        let mut state = self.board.0.lock();
        // The same name may have been opened anew after a close: only our own entry goes.
        if state.games.get(&self.game).map(|game| game.number) == Some(self.number) {
            state.games.remove(&self.game);
        }
    }
}

/// The frames of one game, lane by lane. It is not `Clone`, and a fabric gives one at a time.
pub struct Incoming {
    /// Frames of the Raft lane.
    pub raft: Receiver<Inbound>,
    /// Frames of the lobby.
    pub lobby: Receiver<Inbound>,
    /// Frames of the app channels.
    pub app: Receiver<Inbound>,
    pub(crate) guard: OpenGame,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::PeerId;

    fn frame(n: u8) -> Inbound {
        Inbound {
            from: PeerId::new("ann").unwrap(),
            frame: Bytes::from(vec![n; 10]),
        }
    }

    #[tokio::test]
    async fn a_flooded_app_lane_leaves_the_raft_lane_alone() {
        let board = Switchboard::new(QueueLimits {
            frames_max: 4,
            bytes_max: 1000,
        });
        let game = GameId::new("chess").unwrap();
        let mut incoming = board.open(&game).unwrap();
        for n in 0..100 {
            board.deliver(&game, Lane::App, frame(n));
        }
        assert!(board.deliver(&game, Lane::Raft, frame(7)));
        assert_eq!(incoming.raft.recv().await, Some(frame(7)));
        assert_eq!(incoming.app.recv().await, Some(frame(96)));
        let stats = board.stats();
        assert_eq!((stats.app.delivered, stats.app.dropped), (100, 96));
        assert_eq!((stats.raft.delivered, stats.raft.dropped), (1, 0));
    }

    #[test]
    fn a_peer_that_floods_the_lobby_takes_no_other_peers_place_and_is_counted() {
        let board = Switchboard::new(QueueLimits {
            frames_max: 4,
            bytes_max: 1000,
        });
        let game = GameId::new("chess").unwrap();
        let mut incoming = board.open(&game).unwrap();
        let of = |name: &str, n| Inbound {
            from: PeerId::new(name).unwrap(),
            ..frame(n)
        };
        let flood = |from: u8| {
            for n in from..from + 100 {
                assert!(board.deliver(&game, Lane::Lobby, of("eve", n)));
            }
        };
        flood(0);
        // Half of the lane is bob's, and one more takes the place of his own.
        for n in [1, 2, 3] {
            assert!(board.deliver(&game, Lane::Lobby, of("bob", n)));
        }
        flood(100);
        let got: Vec<Inbound> = std::iter::from_fn(|| incoming.lobby.try_recv()).collect();
        let wanted = [("eve", 198), ("bob", 2), ("eve", 199), ("bob", 3)];
        assert_eq!(got, wanted.map(|(name, n)| of(name, n)));
        let stats = board.stats();
        assert_eq!((stats.lobby.delivered, stats.lobby.dropped), (203, 199));
    }

    #[test]
    fn a_lane_holds_one_frame_of_the_largest_size_whatever_it_is_told_and_not_one_more() {
        let largest = || Inbound {
            frame: Bytes::from(vec![0; FRAME_BYTES_MAX]),
            ..frame(0)
        };
        for frames_max in [0, 1] {
            let board = Switchboard::new(QueueLimits {
                frames_max,
                bytes_max: 0,
            });
            let game = GameId::new("chess").unwrap();
            let mut incoming = board.open(&game).unwrap();
            assert!(board.deliver(&game, Lane::Raft, largest()));
            assert!(!board.deliver(&game, Lane::Raft, frame(1)));
            assert_eq!(incoming.raft.try_recv(), Some(largest()));
            assert_eq!(incoming.raft.try_recv(), None);
        }
    }

    #[tokio::test]
    async fn a_game_can_be_opened_again_once_it_was_dropped_and_never_twice() {
        let board = Switchboard::default();
        let game = GameId::new("chess").unwrap();
        assert!(!board.deliver(&game, Lane::Raft, frame(1)));
        let first = board.open(&game).unwrap();
        assert_eq!(
            board.open(&game).err(),
            Some(PortError::Taken(game.clone()))
        );
        drop(first);
        let mut second = board.open(&game).unwrap();
        board.close();
        assert_eq!(second.raft.recv().await, None);
        assert_eq!(board.open(&game).err(), Some(PortError::Closed));
        assert_eq!(board.stats().unknown_game, 1);
    }

    #[test]
    fn the_most_games_fit_and_one_more_does_not() {
        let board = Switchboard::default();
        let held: Vec<_> = (0..GAMES_MAX)
            .map(|n| board.open(&GameId::new(format!("g{n}")).unwrap()).unwrap())
            .collect();
        let one_more = board.open(&GameId::new("more").unwrap());
        assert_eq!(one_more.err(), Some(PortError::TooMany { max: GAMES_MAX }));
        drop(held);
    }
}
