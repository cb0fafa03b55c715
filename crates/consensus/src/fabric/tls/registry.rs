//! Which peers there are, where, and which connections to them are up.
//!
//! Invariants
//! - a peer has at most one connection of each [`Kind`]; a frame that arrived on any other is not
//!   delivered;
//! - an entry exists while the directory has the peer's address or a connection to it is up, and
//!   there are never more than `peers_max`;
//! - what [`Registry::peers`] shows is, at each change, the peers whose control connection is up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::arbiter::{Kind, Origin, Verdict, judge};
use super::config::DirectoryError;
use super::frame::Bye;
use super::outbound::Outbound;
use crate::fabric::{Peers, Principal, QueueLimits, SendError};
use crate::ids::PeerId;
use crate::watch::{self, Watch};

/// Lets one connection at a time deliver what it read, so that a lane stays in order when one
/// connection replaces another.
#[derive(Default)]
pub(super) struct Gate(Mutex<u64>);

impl Gate {
    fn open_for(&self, connection: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Runs `deliver` if `connection` is the present one; answers whether it is.
    pub(super) fn pass(&self, connection: u64, deliver: impl FnOnce()) -> bool {
        let present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = *present == connection;
        if passes {
            deliver();
        }
        passes
    }
}

struct Live {
    connection: u64,
    origin: Origin,
    principal: Principal,
    stop: watch::Sender<Option<Bye>>,
}

struct Slot {
    live: Option<Live>,
    up: watch::Sender<bool>,
    outbound: Arc<Outbound>,
    gate: Arc<Gate>,
}

impl Slot {
    fn new(limits: QueueLimits) -> Self {
        Self {
            live: None,
            up: watch::channel(false).0,
            outbound: Arc::new(Outbound::new(limits)),
            gate: Arc::default(),
        }
    }

    /// Closes the connection there may be, telling its other end why.
    fn hang_up(&mut self, why: Bye) {
        if let Some(live) = self.live.take() {
            live.stop.set(Some(why));
            self.gate.open_for(0);
            // What was taken for sending before a close still leaves: a leader's last word.
            if why != Bye::Closing {
                self.outbound.clear();
            }
        }
        self.up.set_if_new(false);
    }
}

struct Entry {
    address: Option<SocketAddr>,
    diallers: Vec<AbortHandle>,
    slots: [Slot; 2],
}

impl Entry {
    fn new(limits: QueueLimits) -> Self {
        Self {
            address: None,
            diallers: Vec::new(),
            slots: [Slot::new(limits), Slot::new(limits)],
        }
    }

    fn stop_dialling(&mut self) {
        for dialler in self.diallers.drain(..) {
            dialler.abort();
        }
    }

    fn is_needed(&self) -> bool {
        self.address.is_some() || self.slots.iter().any(|slot| slot.live.is_some())
    }
}

struct State {
    entries: BTreeMap<PeerId, Entry>,
    connections: u64,
    closed: bool,
}

/// The peers.
pub(super) struct Registry {
    state: Mutex<State>,
    peers: watch::Sender<Peers>,
    local: PeerId,
    peers_max: usize,
    outbound: QueueLimits,
}

/// A connection whose both ends have said Hello, or one of them has.
pub(super) struct Offer {
    pub(super) peer: PeerId,
    pub(super) kind: Kind,
    pub(super) origin: Origin,
    pub(super) principal: Principal,
    /// Where we dialled it, if we did.
    pub(super) dialled: Option<SocketAddr>,
}

/// What a connection that is the one of its kind needs.
pub(super) struct Ticket {
    pub(super) peer: PeerId,
    pub(super) kind: Kind,
    pub(super) connection: u64,
    pub(super) outbound: Arc<Outbound>,
    pub(super) ready: Arc<Notify>,
    pub(super) gate: Arc<Gate>,
    pub(super) stop: Watch<Option<Bye>>,
}

/// Whether a connection took another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Empty,
    Anothers,
}

/// What a dial task is told about its peer.
pub(super) struct Errand {
    pub(super) peer: PeerId,
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    pub(super) up: Watch<bool>,
}

impl Registry {
    pub(super) fn new(local: PeerId, peers_max: usize, outbound: QueueLimits) -> Self {
        Self {
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                connections: 0,
                closed: false,
            }),
            peers: watch::channel(Peers::default()).0,
            local,
            peers_max,
            outbound,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn peers(&self) -> Watch<Peers> {
        self.peers.subscribe()
    }

    /// Connections that are up.
    pub(super) fn connections(&self) -> usize {
        let state = self.lock();
        let slots = state.entries.values().flat_map(|entry| &entry.slots);
        slots.filter(|slot| slot.live.is_some()).count()
    }

    /// Puts a peer into the directory, or moves it, and has `dial` start a task per errand.
    pub(super) fn add(
        &self,
        peer: &PeerId,
        address: SocketAddr,
        dial: impl Fn(Errand) -> Option<AbortHandle>,
    ) -> Result<(), DirectoryError> {
        if *peer == self.local {
            return Err(DirectoryError::Local(peer.clone()));
        }
        let mut state = self.lock();
        if state.closed {
            return Err(DirectoryError::Closed);
        }
        let entry = self.entry(&mut state, peer).ok_or(DirectoryError::Full {
            max: self.peers_max,
        })?;
        if entry.address == Some(address) {
            return Ok(());
        }
        entry.stop_dialling();
        entry.address = Some(address);
        for kind in Kind::ALL {
            let errand = Errand {
                peer: peer.clone(),
                kind,
                address,
                up: entry.slots[kind.at()].up.subscribe(),
            };
            entry.diallers.extend(dial(errand));
        }
        Ok(())
    }

    /// Takes a peer out of the directory and closes its connections; answers whether there was
    /// anything to do.
    pub(super) fn remove(&self, peer: &PeerId) -> bool {
        let mut state = self.lock();
        let Some(mut entry) = state.entries.remove(peer) else {
            return false;
        };
        entry.stop_dialling();
        for slot in &mut entry.slots {
            slot.hang_up(Bye::Removed);
        }
        self.publish(&state);
        true
    }

    fn entry<'a>(&self, state: &'a mut State, peer: &PeerId) -> Option<&'a mut Entry> {
        if !state.entries.contains_key(peer) && state.entries.len() >= self.peers_max {
            return None;
        }
        let entry = state.entries.entry(peer.clone());
        Some(entry.or_insert_with(|| Entry::new(self.outbound)))
    }

    /// Makes a connection the one of its kind, or says why it is not to be.
    pub(super) fn offer(&self, offer: Offer) -> Result<(Ticket, Place), Bye> {
        let Offer {
            peer,
            kind,
            origin,
            principal,
            dialled,
        } = offer;
        let mut state = self.lock();
        if state.closed {
            return Err(Bye::Closing);
        }
        if let Some(address) = dialled
            && state.entries.get(&peer).and_then(|entry| entry.address) != Some(address)
        {
            return Err(Bye::Removed);
        }
        let connection = state.connections + 1;
        let entry = self.entry(&mut state, &peer).ok_or(Bye::Full)?;
        let slot = &mut entry.slots[kind.at()];
        let present = slot.live.as_ref().map(|live| &live.origin);
        if judge(present, &origin) == Verdict::Refuse {
            return Err(Bye::Duplicate);
        }
        let place = match slot.live.take() {
            Some(live) => {
                live.stop.set(Some(Bye::Duplicate));
                Place::Anothers
            }
            None => Place::Empty,
        };
        let (stop, stopped) = watch::channel(None);
        slot.live = Some(Live {
            connection,
            origin,
            principal,
            stop,
        });
        slot.gate.open_for(connection);
        let ticket = Ticket {
            peer,
            kind,
            connection,
            ready: slot.outbound.attach(connection),
            outbound: slot.outbound.clone(),
            gate: slot.gate.clone(),
            stop: stopped,
        };
        slot.up.set_if_new(true);
        state.connections = connection;
        self.publish(&state);
        Ok((ticket, place))
    }

    /// A connection ended.
    pub(super) fn release(&self, ticket: &Ticket) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&ticket.peer) else {
            return;
        };
        let slot = &mut entry.slots[ticket.kind.at()];
        let present = slot.live.as_ref().map(|live| live.connection);
        if present != Some(ticket.connection) {
            return;
        }
        slot.live = None;
        slot.up.set_if_new(false);
        // What waits for the app connection still goes if only that one was lost.
        let control_is_up = entry.slots[Kind::Control.at()].live.is_some();
        if !control_is_up {
            for slot in &entry.slots {
                slot.outbound.clear();
            }
        }
        if !entry.is_needed() {
            state.entries.remove(&ticket.peer);
        }
        self.publish(&state);
    }

    /// Where frames to `peer` wait.
    pub(super) fn route(&self, peer: &PeerId, kind: Kind) -> Result<Arc<Outbound>, SendError> {
        let state = self.lock();
        if state.closed {
            return Err(SendError::Closed);
        }
        match state.entries.get(peer) {
            Some(entry) if entry.slots[Kind::Control.at()].live.is_some() => {
                Ok(entry.slots[kind.at()].outbound.clone())
            }
            _ => Err(SendError::NotConnected(peer.clone())),
        }
    }

    /// Stops dialling and closes every connection, for good.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (_, mut entry) in std::mem::take(&mut state.entries) {
            entry.stop_dialling();
            for slot in &mut entry.slots {
                slot.hang_up(Bye::Closing);
            }
        }
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        let up = state.entries.iter().filter_map(|(peer, entry)| {
            let live = entry.slots[Kind::Control.at()].live.as_ref()?;
            Some((peer.clone(), live.principal.clone()))
        });
        self.peers.set_if_new(Arc::new(up.collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn registry(peers_max: usize) -> Registry {
        let outbound = QueueLimits {
            frames_max: 4,
            bytes_max: 100,
        };
        Registry::new(peer("ann"), peers_max, outbound)
    }

    fn offer(from: &str, kind: Kind, dialler: &str, run: u64) -> Offer {
        Offer {
            peer: peer(from),
            kind,
            origin: Origin {
                dialler: peer(dialler),
                run,
            },
            principal: Principal::Asserted,
            dialled: None,
        }
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_peer_is_there_while_its_control_connection_is() {
        let registry = registry(4);
        let (app, _) = registry.offer(offer("bob", Kind::App, "bob", 1)).unwrap();
        assert!(registry.peers().get().is_empty());
        assert!(registry.route(&peer("bob"), Kind::App).is_err());
        let (control, _) = registry
            .offer(offer("bob", Kind::Control, "bob", 1))
            .unwrap();
        assert!(registry.peers().get().contains_key(&peer("bob")));
        assert!(registry.route(&peer("bob"), Kind::App).is_ok());
        registry.release(&control);
        assert!(registry.peers().get().is_empty());
        registry.release(&app);
        assert_eq!(registry.connections(), 0);
    }

    #[test]
    fn a_connection_that_was_replaced_delivers_nothing_and_releases_nothing() {
        let registry = registry(4);
        let (old, _) = registry
            .offer(offer("bob", Kind::Control, "bob", 1))
            .unwrap();
        let (new, place) = registry
            .offer(offer("bob", Kind::Control, "ann", 1))
            .unwrap();
        assert_eq!(place, Place::Anothers);
        assert_eq!(*old.stop.borrow(), Some(Bye::Duplicate));
        assert!(!old.gate.pass(old.connection, || panic!("delivered")));
        assert!(new.gate.pass(new.connection, || ()));
        registry.release(&old);
        assert_eq!(registry.connections(), 1);
        let late = registry.offer(offer("bob", Kind::Control, "bob", 1));
        assert_eq!(late.err(), Some(Bye::Duplicate));
    }

    #[test]
    fn the_most_peers_fit_dialled_or_not_and_one_more_does_not() {
        let registry = registry(2);
        registry.add(&peer("bob"), address(1), |_| None).unwrap();
        let (cyd, _) = registry
            .offer(offer("cyd", Kind::Control, "cyd", 1))
            .unwrap();
        let more = registry.offer(offer("dan", Kind::Control, "dan", 1));
        assert_eq!(more.err(), Some(Bye::Full));
        let full = DirectoryError::Full { max: 2 };
        assert_eq!(registry.add(&peer("dan"), address(2), |_| None), Err(full));
        registry.release(&cyd);
        assert_eq!(registry.add(&peer("dan"), address(2), |_| None), Ok(()));
        assert!(registry.remove(&peer("bob")));
        assert!(!registry.remove(&peer("bob")));
    }

    #[test]
    fn what_was_dialled_for_a_peer_that_was_removed_or_moved_is_refused() {
        let registry = registry(2);
        let dialled = |port| Offer {
            dialled: Some(address(port)),
            ..offer("bob", Kind::Control, "ann", 1)
        };
        registry.add(&peer("bob"), address(1), |_| None).unwrap();
        registry.add(&peer("bob"), address(2), |_| None).unwrap();
        assert_eq!(registry.offer(dialled(1)).err(), Some(Bye::Removed));
        assert!(registry.offer(dialled(2)).is_ok());
        registry.remove(&peer("bob"));
        assert_eq!(registry.offer(dialled(2)).err(), Some(Bye::Removed));
        let local = DirectoryError::Local(peer("ann"));
        assert_eq!(registry.add(&peer("ann"), address(1), |_| None), Err(local));
    }
}
