//! A network in virtual time that delays, loses, repeats and reorders frames, and whose links can
//! be cut in one direction.
//!
//! Who is connected follows from that, as with connections of a transport: see [`super::link`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::dice::Dice;
use super::ledger::Fate;
use super::link::{Link, Whole};
use super::world::World;
use crate::fabric::{
    Fabric, Inbound, Incoming, Lane, Peers, PortError, Principal, SendError, Switchboard,
};
use crate::ids::{GameId, PeerId};
use crate::watch::{self, Watch};

struct Flying {
    sent_by: usize,
    /// Which send this is a copy of.
    number: u64,
    to: usize,
    game: GameId,
    lane: Lane,
    inbound: Inbound,
}

struct State {
    dice: Dice,
    now_ms: u64,
    sent: u64,
    flying: BTreeMap<(u64, u64), Flying>,
    /// Who is at each place now.
    boards: Vec<Option<Plugged>>,
    /// The connection of every two places, the lower first.
    links: BTreeMap<(usize, usize), Link>,
    names: Vec<PeerId>,
    /// Who keeps the books of the app channels.
    world: Option<World>,
    cut: BTreeSet<(usize, usize)>,
    loss: u64,
    extra_ms: u64,
    calm: bool,
    /// Two places whose link is neither cut nor lossy, the lower first.
    spared: Option<(usize, usize)>,
    counts: NetCounts,
    /// The latest frame delivered, by sender and receiver.
    delivered: BTreeMap<(usize, usize), u64>,
}

/// A process at its place.
struct Plugged {
    board: Switchboard,
    peers: watch::Sender<Peers>,
    /// Who went while it watched.
    missed: BTreeSet<usize>,
}

/// What the network did to frames, and what was seen of peers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NetCounts {
    pub lost: u64,
    pub cut: u64,
    pub repeated: u64,
    /// Delivered after one that was sent later.
    pub overtaken: u64,
    /// Peers that a process saw go.
    pub gone: u64,
    /// Those it saw come back.
    pub back: u64,
}

/// A frame that arrives.
pub(super) struct Arrival<'a> {
    pub from: usize,
    pub to: usize,
    pub lane: Lane,
    pub frame: &'a Bytes,
    /// Whether there was anybody to take it.
    pub taken: bool,
}

/// The network; clones are the same one.
#[derive(Clone)]
pub(super) struct SimNet(Arc<Mutex<State>>);

impl SimNet {
    pub(super) fn new(dice: Dice, names: Vec<PeerId>, world: Option<World>) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            now_ms: 0,
            sent: 0,
            flying: BTreeMap::new(),
            boards: names.iter().map(|_| None).collect(),
            links: (0..names.len())
                .flat_map(|low| (0..low).map(move |lower| ((lower, low), Link::default())))
                .collect(),
            names,
            world,
            cut: BTreeSet::new(),
            loss: 0,
            extra_ms: 0,
            calm: false,
            spared: None,
            counts: NetCounts::default(),
            delivered: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process at place `at`; the one before it gets nothing any more.
    pub(super) fn plug(&self, at: usize) -> Arc<SimPeer> {
        let board = Switchboard::default();
        let mut state = self.lock();
        // It has spoken to nobody yet.
        let (sender, peers) = watch::channel::<Peers>(Arc::default());
        state.boards[at] = Some(Plugged {
            board: board.clone(),
            peers: sender.clone(),
            missed: BTreeSet::new(),
        });
        for (ends, link) in &mut state.links {
            if let Some(end) = end_of(*ends, at) {
                link.begins_anew(end);
            }
        }
        Arc::new(SimPeer {
            net: self.clone(),
            at,
            local: state.names[at].clone(),
            board,
            peers,
            _sender: sender,
            on: AtomicBool::new(true),
        })
    }

    pub(super) fn cut(&self, from: usize, to: usize, cut: bool) {
        let mut state = self.lock();
        if cut {
            state.cut.insert((from, to));
        } else {
            state.cut.remove(&(from, to));
        }
    }

    /// Whether any of a place's links is cut.
    pub(super) fn is_cut_off(&self, place: usize) -> bool {
        let cut = &self.lock().cut;
        cut.iter().any(|(from, to)| *from == place || *to == place)
    }

    /// Whether two processes there hear each other.
    pub(super) fn joins(&self, one: usize, other: usize) -> bool {
        let state = self.lock();
        let whole = state.is_whole(one.min(other), one.max(other));
        one == other || !matches!(whole, Whole::No(_))
    }

    /// Keeps the link of two places whole from now on, whatever is cut or lost, and no other. They
    /// connect like everybody, in a time of their own.
    pub(super) fn spare(&self, places: Option<(usize, usize)>) {
        self.lock().spared = places.map(|(one, other)| (one.min(other), one.max(other)));
    }

    pub(super) fn counts(&self) -> NetCounts {
        self.lock().counts
    }

    pub(super) fn set_loss(&self, permille: u64) {
        self.lock().loss = permille;
    }

    pub(super) fn set_extra(&self, ms: u64) {
        // Further than any run goes.
        self.lock().extra_ms = ms.min(u64::from(u32::MAX));
    }

    /// No faults from now on.
    pub(super) fn heal(&self) {
        let mut state = self.lock();
        state.cut.clear();
        (state.loss, state.extra_ms, state.calm) = (0, 0, true);
    }

    /// Repeats and delays some frames from now on.
    pub(super) fn disturb(&self) {
        self.lock().calm = false;
    }

    /// Frames of a lane that are on their way.
    pub(super) fn flying(&self, lane: Lane) -> u64 {
        let state = self.lock();
        let flying = state.flying.values().filter(|frame| frame.lane == lane);
        flying.count() as u64
    }

    /// Delivers a frame at once, past everything the network does to others.
    pub(super) fn slip(&self, to: usize, game: &GameId, lane: Lane, inbound: Inbound) {
        if let Some(at) = &self.lock().boards[to] {
            at.board.deliver(game, lane, inbound);
        }
    }

    /// Delivers what has arrived by `now_ms`, and tells `seen` of each frame.
    pub(super) fn pump(&self, now_ms: u64, mut seen: impl FnMut(&Arrival<'_>)) {
        let mut state = self.lock();
        state.now_ms = now_ms;
        state.connects();
        while let Some(next) = state.flying.first_entry() {
            if next.key().0 > now_ms {
                break;
            }
            let flying = next.remove();
            let last = state
                .delivered
                .entry((flying.sent_by, flying.to))
                .or_default();
            let overtaken = *last > flying.number;
            *last = flying.number.max(*last);
            state.counts.overtaken += u64::from(overtaken);
            let (lane, frame) = (flying.lane, flying.inbound.frame.clone());
            // What was sent on a connection goes with it.
            let taken = state.sees(flying.to, flying.sent_by)
                && state.boards[flying.to]
                    .as_ref()
                    .is_some_and(|at| at.board.deliver(&flying.game, lane, flying.inbound));
            seen(&Arrival {
                from: flying.sent_by,
                to: flying.to,
                lane,
                frame: &frame,
                taken,
            });
        }
    }
}

/// Which end of a link a place is, if it is one.
fn end_of((low, high): (usize, usize), place: usize) -> Option<usize> {
    [low, high].into_iter().position(|end| end == place)
}

impl State {
    /// Whether a process sees another place's as connected.
    fn sees(&self, at: usize, other: usize) -> bool {
        let ends = (at.min(other), at.max(other));
        let end = usize::from(at > other);
        self.links.get(&ends).is_some_and(|link| link.sees(end))
    }

    fn is_spared(&self, one: usize, other: usize) -> bool {
        self.spared == Some((one.min(other), one.max(other)))
    }

    fn is_whole(&self, low: usize, high: usize) -> Whole {
        let cut = self.cut.contains(&(low, high)) || self.cut.contains(&(high, low));
        let cut = cut && !self.is_spared(low, high);
        match (&self.boards[low], &self.boards[high]) {
            (Some(_), Some(_)) if !cut => Whole::Yes,
            (at_low, at_high) => Whole::No([at_low.is_some(), at_high.is_some()]),
        }
    }

    /// Lets connections come and go, and tells whoever sees it.
    fn connects(&mut self) {
        let mut changed = BTreeSet::new();
        let all: Vec<(usize, usize)> = self.links.keys().copied().collect();
        for (low, high) in all {
            let whole = self.is_whole(low, high);
            let Some(link) = self.links.get_mut(&(low, high)) else {
                continue;
            };
            let seen = link.pass(whole, self.now_ms, &mut self.dice);
            for (end, (at, other)) in [(low, high), (high, low)].into_iter().enumerate() {
                let Some(plugged) = &mut self.boards[at] else {
                    continue;
                };
                if !seen[end] {
                    continue;
                }
                changed.insert(at);
                if !link.sees(end) {
                    plugged.missed.insert(other);
                    self.counts.gone += 1;
                } else if plugged.missed.remove(&other) {
                    self.counts.back += 1;
                }
            }
        }
        for at in changed {
            let connected = (0..self.names.len()).filter(|other| self.sees(at, *other));
            let peers: Peers = Arc::new(
                connected
                    .map(|other| (self.names[other].clone(), Principal::Asserted))
                    .collect(),
            );
            if let Some(plugged) = &self.boards[at] {
                plugged.peers.set(peers);
            }
        }
    }
}

/// One process on the network.
pub(super) struct SimPeer {
    net: SimNet,
    at: usize,
    local: PeerId,
    board: Switchboard,
    peers: Watch<Peers>,
    _sender: watch::Sender<Peers>,
    on: AtomicBool,
}

impl SimPeer {
    /// Frames of a lane that were dropped before their game looked at them.
    pub(super) fn overrun(&self, lane: Lane) -> u64 {
        let stats = self.board.stats();
        match lane {
            Lane::Raft => stats.raft.dropped,
            Lane::Lobby => stats.lobby.dropped,
            Lane::App => stats.app.dropped,
        }
    }

    /// Who is connected.
    pub(super) fn connected(&self) -> BTreeSet<PeerId> {
        self.peers.borrow().keys().cloned().collect()
    }

    /// The process is gone: nothing it sends leaves, nothing arrives.
    pub(super) fn unplug(&self) {
        self.on.store(false, Ordering::Relaxed);
        self.net.lock().boards[self.at] = None;
        self.board.close();
    }
}

impl Fabric for SimPeer {
    fn local(&self) -> &PeerId {
        &self.local
    }

    fn peers(&self) -> Watch<Peers> {
        self.peers.clone()
    }

    fn send(&self, to: &PeerId, game: &GameId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        if !self.on.load(Ordering::Relaxed) {
            return Err(SendError::Closed);
        }
        let mut guard = self.net.lock();
        let state = &mut *guard;
        let Some(place) = state.names.iter().position(|name| name == to) else {
            return Err(SendError::NotConnected(to.clone()));
        };
        if place == self.at {
            return Err(SendError::ToSelf(to.clone()));
        }
        if !state.sees(self.at, place) {
            return Err(SendError::NotConnected(to.clone()));
        }
        let loss = state.loss;
        let spared = state.is_spared(self.at, place);
        let fate = if state.cut.contains(&(self.at, place)) && !spared {
            Fate::Cut
        } else if state.dice.permille(loss) && !spared {
            Fate::Lost
        } else if !state.calm && state.dice.permille(15) {
            Fate::Flies(2)
        } else {
            Fate::Flies(1)
        };
        if lane == Lane::App
            && let Some(world) = &state.world
        {
            let mut facts = world.facts();
            let sends = facts.books.sends(self.at, place, &frame, fate);
            facts.holds("AppChannels", sends);
        }
        let copies = match fate {
            Fate::Cut => {
                state.counts.cut += 1;
                return Ok(());
            }
            Fate::Lost => {
                state.counts.lost += 1;
                return Ok(());
            }
            Fate::Flies(copies) => copies,
        };
        state.counts.repeated += copies - 1;
        let number = state.sent + 1;
        for _ in 0..copies {
            let mut delay = state.dice.range(1, 4) + state.dice.range(0, state.extra_ms + 1);
            if !state.calm && state.dice.permille(20) {
                delay += state.dice.range(5, 60);
            }
            state.sent += 1;
            let key = (state.now_ms + delay, state.sent);
            state.flying.insert(
                key,
                Flying {
                    sent_by: self.at,
                    number,
                    to: place,
                    game: game.clone(),
                    lane,
                    inbound: Inbound {
                        from: self.local.clone(),
                        frame: frame.clone(),
                    },
                },
            );
        }
        Ok(())
    }

    fn open(&self, game: &GameId) -> Result<Incoming, PortError> {
        self.board.open(game)
    }
}
