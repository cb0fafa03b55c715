//! Peers in one process: every frame arrives at once, in order. For tests, for several seats on
//! one machine, and for the benches that leave the network out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::{
    FRAME_BYTES_MAX, Fabric, Inbound, Incoming, Lane, PEERS_MAX, Peers, PortError, Principal,
    SendError, Switchboard, SwitchboardStats,
};
use crate::ids::{GameId, PeerId};
use crate::watch::{self, Watch};

/// A peer that cannot join a [`MemoryFabric`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Somebody of this name is here.
    #[error("{0} is on this fabric already")]
    Taken(PeerId),
    /// The fabric has [`PEERS_MAX`] peers.
    #[error("a fabric has at most {PEERS_MAX} peers")]
    Full,
}

struct Member {
    board: Switchboard,
    peers: watch::Sender<Peers>,
}

#[derive(Default)]
struct Network {
    members: BTreeMap<PeerId, Member>,
    /// Pairs that cannot reach each other, lower name first.
    cut: BTreeSet<(PeerId, PeerId)>,
}

impl Network {
    fn reach(&self, a: &PeerId, b: &PeerId) -> bool {
        self.cut.is_empty() || !self.cut.contains(&pair(a, b))
    }
}

fn pair(a: &PeerId, b: &PeerId) -> (PeerId, PeerId) {
    (a.min(b).clone(), a.max(b).clone())
}

/// Senders only read: those of one peer never wait for those of another.
type Members = Arc<RwLock<Network>>;

/// A network inside one process.
#[derive(Clone, Default)]
pub struct MemoryFabric {
    members: Members,
}

fn read(members: &Members) -> RwLockReadGuard<'_, Network> {
    members.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock(members: &Members) -> RwLockWriteGuard<'_, Network> {
    members.write().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryFabric {
    /// A network without peers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects a peer to every other. It leaves when the answer's last clone is dropped, or by
    /// [`MemoryPeer::leave`].
    ///
    /// # Errors
    ///
    /// `JoinError` when the name is taken or the network full.
    pub fn join(&self, peer: PeerId) -> Result<Arc<MemoryPeer>, JoinError> {
        let mut network = lock(&self.members);
        if network.members.contains_key(&peer) {
            return Err(JoinError::Taken(peer));
        }
        if network.members.len() >= PEERS_MAX {
            return Err(JoinError::Full);
        }
        let board = Switchboard::default();
        let (sender, watch) = watch::channel(Peers::default());
        network.members.insert(
            peer.clone(),
            Member {
                board: board.clone(),
                peers: sender,
            },
        );
        announce(&network);
        Ok(Arc::new(MemoryPeer {
            local: peer,
            left: AtomicBool::new(false),
            board,
            peers: watch,
            members: self.members.clone(),
        }))
    }
}

impl MemoryFabric {
    /// Cuts the link between two peers, both ways, until [`MemoryFabric::heal`].
    pub fn cut(&self, a: &PeerId, b: &PeerId) {
        let mut network = lock(&self.members);
        network.cut.insert(pair(a, b));
        announce(&network);
    }

    /// Mends every link that was cut.
    pub fn heal(&self) {
        let mut network = lock(&self.members);
        network.cut.clear();
        announce(&network);
    }
}

/// Tells every member whom it can reach.
fn announce(network: &Network) {
    for (me, member) in &network.members {
        let others = network
            .members
            .keys()
            .filter(|peer| *peer != me && network.reach(me, peer))
            .map(|peer| (peer.clone(), Principal::Asserted))
            .collect();
        member.peers.set_if_new(Arc::new(others));
    }
}

/// One peer of a [`MemoryFabric`].
pub struct MemoryPeer {
    local: PeerId,
    /// It is no member of the network any more, and its name may be another's. Set with the
    /// network's lock held.
    left: AtomicBool,
    board: Switchboard,
    peers: Watch<Peers>,
    members: Members,
}

impl MemoryPeer {
    /// Disconnects this peer: its games' incoming streams end.
    pub fn leave(&self) {
        let mut network = lock(&self.members);
        if !self.left.swap(true, Ordering::Relaxed) {
            network.members.remove(&self.local);
            announce(&network);
        }
        drop(network);
        self.board.close();
    }

    /// What happened to the frames that reached this peer.
    #[must_use]
    pub fn stats(&self) -> SwitchboardStats {
        self.board.stats()
    }
}

impl Drop for MemoryPeer {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Fabric for MemoryPeer {
    fn local(&self) -> &PeerId {
        &self.local
    }

    fn peers(&self) -> Watch<Peers> {
        self.peers.clone()
    }

    fn send(&self, to: &PeerId, game: &GameId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        if *to == self.local {
            return Err(SendError::ToSelf(to.clone()));
        }
        if frame.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { len: frame.len() });
        }
        let board = {
            let network = read(&self.members);
            if self.left.load(Ordering::Relaxed) {
                return Err(SendError::Closed);
            }
            match network.members.get(to) {
                Some(member) if network.reach(&self.local, to) => member.board.clone(),
                _ => return Err(SendError::NotConnected(to.clone())),
            }
        };
        let from = self.local.clone();
        board.deliver(game, lane, Inbound { from, frame });
        Ok(())
    }

    fn open(&self, game: &GameId) -> Result<Incoming, PortError> {
        self.board.open(game)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Port;
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    #[test]
    fn who_left_sends_nothing_and_takes_nobody_of_its_name_along() {
        let net = MemoryFabric::new();
        let ann = net.join(peer("ann")).unwrap();
        let before = net.join(peer("bob")).unwrap();
        before.leave();
        let after = net.join(peer("bob")).unwrap();
        let game = GameId::new("chess").unwrap();
        let sent = before.send(&peer("ann"), &game, Lane::App, Bytes::new());
        assert_eq!(sent, Err(SendError::Closed));
        drop(before);
        assert!(ann.peers().borrow().contains_key(&peer("bob")));
        assert!(
            after
                .send(&peer("ann"), &game, Lane::App, Bytes::new())
                .is_ok()
        );
    }

    #[tokio::test]
    async fn frames_go_to_one_peer_or_to_all_in_order_and_to_their_game_only() {
        let net = MemoryFabric::new();
        let (ann, bob, cyd) = (
            net.join(peer("ann")).unwrap(),
            net.join(peer("bob")).unwrap(),
            net.join(peer("cyd")).unwrap(),
        );
        let chess = GameId::new("chess").unwrap();
        let a = Port::open(ann, chess.clone()).unwrap();
        let mut b = Port::open(bob.clone(), chess.clone()).unwrap();
        let mut other = Port::open(bob, GameId::new("go").unwrap()).unwrap();
        let mut c = Port::open(cyd, chess).unwrap();
        a.links
            .send(&peer("bob"), Lane::Lobby, Bytes::from_static(b"1"))
            .unwrap();
        assert_eq!(a.links.broadcast(Lane::Lobby, &Bytes::from_static(b"2")), 2);
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(b.incoming.lobby.recv().await.unwrap().frame);
        }
        assert_eq!(seen, ["1", "2"]);
        let got = c.incoming.lobby.recv().await.unwrap();
        assert_eq!((got.from, &got.frame[..]), (peer("ann"), &b"2"[..]));
        assert!(other.incoming.lobby.try_recv().is_none());
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_seen_to_leave_and_its_name_is_free() {
        let net = MemoryFabric::new();
        let ann = net.join(peer("ann")).unwrap();
        let bob = net.join(peer("bob")).unwrap();
        assert_eq!(
            net.join(peer("bob")).err(),
            Some(JoinError::Taken(peer("bob")))
        );
        let mut peers = ann.peers();
        assert!(peers.get().contains_key(&peer("bob")));
        bob.leave();
        peers.changed().await.unwrap();
        assert!(peers.get().is_empty());
        let game = GameId::new("chess").unwrap();
        let sent = ann.send(&peer("bob"), &game, Lane::Raft, Bytes::new());
        assert_eq!(sent, Err(SendError::NotConnected(peer("bob"))));
        let sent = bob.send(&peer("ann"), &game, Lane::Raft, Bytes::new());
        assert_eq!(sent, Err(SendError::Closed));
        assert!(net.join(peer("bob")).is_ok());
    }

    #[test]
    fn a_frame_of_the_most_bytes_goes_and_one_more_byte_does_not() {
        let net = MemoryFabric::new();
        let ann = net.join(peer("ann")).unwrap();
        let _bob = net.join(peer("bob")).unwrap();
        let game = GameId::new("chess").unwrap();
        let send = |len: usize| ann.send(&peer("bob"), &game, Lane::Raft, vec![0; len].into());
        assert_eq!(send(FRAME_BYTES_MAX), Ok(()));
        let len = FRAME_BYTES_MAX + 1;
        assert_eq!(send(len), Err(SendError::TooLarge { len }));
        assert_eq!(
            ann.send(&peer("ann"), &game, Lane::Raft, Bytes::new()),
            Err(SendError::ToSelf(peer("ann")))
        );
    }

    #[test]
    fn the_most_peers_fit_and_one_more_does_not() {
        let net = MemoryFabric::new();
        let held: Vec<_> = (0..PEERS_MAX)
            .map(|n| net.join(peer(&format!("p{n}"))).unwrap())
            .collect();
        assert_eq!(net.join(peer("more")).err(), Some(JoinError::Full));
        drop(held);
    }
}
