//! What the tests of sessions share: a game that adds numbers, quick settings, and waiting.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer, Port};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::ids::{GameId, PeerId};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    AdmissionTiming, GameSession, SessionConfig, TokioClock, game_node,
};

/// Players add numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum(pub u64);

impl Game for Sum {
    type Action = u64;
    type Outcome = u64;
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<u64, ()> {
        self.0 += add;
        Ok(self.0)
    }
}

impl Snapshots for Sum {
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = bytes.try_into().map_err(|_| Malformed)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

pub fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

/// Fast elections, and all else as it comes.
pub fn fast(nonce: u64) -> SessionConfig {
    SessionConfig {
        timing: Timing::fast(),
        ..SessionConfig::new(Arc::new(TokioClock::default()), nonce)
    }
}

/// Fast elections, and a silence of 0.8 s costs a seat.
pub fn config(nonce: u64) -> SessionConfig {
    SessionConfig {
        admission: AdmissionTiming {
            alive_within: Duration::from_millis(200),
            evict_after: Some(Duration::from_millis(800)),
            admit_within: Duration::from_secs(5),
        },
        ..fast(nonce)
    }
}

pub fn port_of(at: &Arc<MemoryPeer>, game: &str) -> Port {
    Port::open(at.clone(), GameId::new(game).unwrap()).unwrap()
}

pub fn port(at: &Arc<MemoryPeer>) -> Port {
    port_of(at, "sum")
}

/// A roster that is known from the start.
pub const NAMES: [&str; 3] = ["ann", "bob", "cyd"];

pub fn roster() -> BTreeSet<PeerId> {
    NAMES.map(peer).into()
}

pub type Node<G> = (Arc<MemoryPeer>, GameSession<G>);

/// A game that all three play.
pub async fn three<G: Game>(
    net: &MemoryFabric,
    game: &str,
    blueprint: Blueprint<G>,
    config: impl Fn(u64) -> SessionConfig,
) -> Vec<Node<G>> {
    let mut nodes = Vec::new();
    for (nonce, name) in (0..).zip(NAMES) {
        let at = net.join(peer(name)).unwrap();
        let port = port_of(&at, game);
        let opening = game_node(port, blueprint.clone(), roster(), config(nonce));
        nodes.push((at, opening.await.unwrap()));
    }
    nodes
}

/// Which of them leads, in its own eyes.
pub async fn leader<G: Game>(nodes: &[Node<G>]) -> usize {
    let mut found = None;
    until("somebody leads", || {
        found = nodes.iter().position(|(_, session)| {
            let status = session.node().status().get();
            status.role == Role::Leader && status.stopped.is_none()
        });
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// The game without its snapshots.
pub fn sum() -> Blueprint<Sum> {
    Blueprint::new(Sum::default)
}

pub async fn until(what: &str, mut met: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if met() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}: not in twenty seconds");
}
