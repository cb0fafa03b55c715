//! A game of your own on several nodes in virtual time: the public part of the test kit.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::Violation;
use super::dice::Dice;
use super::machine::Skewed;
use super::net::{SimNet, SimPeer};
use super::world::{Watcher, World};
use crate::config::{Compaction, Limits, Timing};
use crate::fabric::Port;
use crate::game::{Blueprint, Game};
use crate::ids::{ClientId, GameId, Incarnation, NameError, NodeId, PeerId};
use crate::log::DurableLog;
use crate::log::durable::sim_disk::{Crash, SimDisk};
use crate::log::durable::{Driver, DurableOptions};
use crate::raft::{Role, lock, simulated};
use crate::session::{
    Clock, GameSession, Hooks, Identity, OpenError, SessionConfig, game_node_with,
};
use crate::state::Planted;
use crate::turns::{Decision, ReadError, TurnError};

/// Most nodes a [`Cluster`] has.
pub const NODES_MAX: usize = 16;

/// A cluster that does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No nodes, or too many.
    #[error("a cluster has 1 to {NODES_MAX} nodes, not {0}")]
    Nodes(usize),
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(usize),
    /// The node is down: restart it first.
    #[error("node {0} is down")]
    Down(usize),
    /// The node runs: crash it first.
    #[error("node {0} is up")]
    Up(usize),
    /// The node did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The runtime, the log, or a name could not be had.
    #[error("the cluster could not be set up: {0}")]
    SetUp(String),
    /// The turn was not decided.
    #[error(transparent)]
    Turn(#[from] TurnError),
    /// The read was not answered.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn set_up(error: impl std::fmt::Display) -> ClusterError {
    ClusterError::SetUp(error.to_string())
}

/// A configuration for tests: short times, a log that is compacted soon when the game can be written
/// down, and state hashes that are compared often.
#[must_use]
pub fn quick_config<G: Game>(
    clock: Arc<dyn Clock>,
    nonce: u64,
    blueprint: &Blueprint<G>,
) -> SessionConfig {
    SessionConfig {
        timing: Timing::fast(),
        limits: Limits {
            log_kept_after_snapshot: 8,
            ..Limits::default()
        },
        compaction: blueprint.can_snapshot().then_some(Compaction {
            entries: 64,
            bytes: 1 << 20,
            age: Duration::from_secs(60),
        }),
        hash_every: 16,
        ..SessionConfig::new(clock, nonce)
    }
}

struct Life<G: Game> {
    session: GameSession<G>,
    peer: Arc<SimPeer>,
    watcher: Arc<Watcher>,
}

struct Place<G: Game> {
    name: PeerId,
    disk: SimDisk,
    lives: u64,
    life: Option<Life<G>>,
}

/// Your game on N real nodes, in one thread and in virtual time, over a network, disks and clocks
/// that you break.
///
/// Nothing happens between two calls. The same seed and the same calls give the same run.
///
/// ```
/// use std::time::Duration;
///
/// use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
/// use cabinet_consensus::testkit::Cluster;
///
/// #[derive(Clone, Default)]
/// struct Climb(u64);
///
/// impl Game for Climb {
///     type Action = u64;
///     type Outcome = ();
///     type Refusal = ();
///
///     fn apply(&mut self, _: &TurnInfo, said: &u64) -> Result<(), ()> {
///         if *said <= self.0 {
///             return Err(());
///         }
///         self.0 = *said;
///         Ok(())
///     }
/// }
///
/// let mut cluster = Cluster::new(Blueprint::new(Climb::default), 3, 7)?;
/// let leader = cluster.await_leader(Duration::from_secs(5)).expect("one is elected");
/// assert!(cluster.propose(0, &5)?.is_accepted());
/// cluster.crash(leader)?;
/// let other = (leader + 1) % 3;
/// // The others elect, and remember.
/// assert!(!cluster.propose(other, &4)?.is_accepted());
/// cluster.restart(leader)?;
/// cluster.read(leader)?;
/// assert_eq!(cluster.violation(), None);
/// # Ok::<(), cabinet_consensus::testkit::ClusterError>(())
/// ```
pub struct Cluster<G: Game> {
    places: Vec<Place<G>>,
    blueprint: Blueprint<G>,
    world: World,
    net: SimNet,
    dice: Dice,
    now_ms: Arc<AtomicU64>,
    begun: Instant,
    // Last: what runs on it ends before it.
    runtime: tokio::runtime::Runtime,
}

impl<G: Game> Cluster<G> {
    /// Starts a game on `nodes` nodes, all of which vote. `seed` decides delays and elections.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] when there cannot be so many nodes, or one does not open.
    pub fn new(blueprint: Blueprint<G>, nodes: usize, seed: u64) -> Result<Self, ClusterError> {
        if nodes == 0 || nodes > NODES_MAX {
            return Err(ClusterError::Nodes(nodes));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(set_up)?;
        let names: Vec<PeerId> = (0..nodes)
            .map(|n| PeerId::new(format!("node-{n}")))
            .collect::<Result<_, NameError>>()
            .map_err(set_up)?;
        let (world, begun) = runtime.block_on(async { (World::new(nodes), Instant::now()) });
        let net = SimNet::new(Dice::new(seed, 3), names.clone(), None);
        net.heal();
        let place = |name| Place {
            name,
            disk: SimDisk::new(),
            lives: 0,
            life: None,
        };
        let mut cluster = Self {
            places: names.into_iter().map(place).collect(),
            blueprint,
            world,
            net,
            dice: Dice::new(seed, 2),
            now_ms: Arc::default(),
            begun,
            runtime,
        };
        for node in 0..nodes {
            cluster.restart(node)?;
        }
        Ok(cluster)
    }

    /// How many nodes there are, up or down. They are numbered from 0.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.places.len()
    }

    /// Virtual time since the cluster began.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed))
    }

    /// Lets time pass until `work` is done: for whatever this type has no method for. What the work
    /// spawns with tokio goes on in later calls.
    pub fn during<F: Future>(&mut self, work: F) -> F::Output {
        let (net, begun, now_ms) = (self.net.clone(), self.begun, self.now_ms.clone());
        let arrive = move || {
            let now = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            now_ms.store(now, Ordering::Relaxed);
            net.pump(now, |_| ());
        };
        let last = arrive.clone();
        let pump = async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                arrive();
            }
        };
        let both = async move {
            let work = std::pin::pin!(work);
            let pump = std::pin::pin!(never(pump));
            match select(work, pump).await {
                Either::Left((done, _)) => {
                    // The work may end in the very millisecond that is due.
                    last();
                    done
                }
                Either::Right((never, _)) => match never {},
            }
        };
        let seed = self.dice.next();
        self.runtime.block_on(simulated(seed, both))
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, time: Duration) {
        // Made inside the runtime, which is what gives it its clock.
        self.during(async move { tokio::time::sleep(time).await });
    }

    /// Lets time pass, a millisecond at a time, until `wanted` holds; answers whether it did within
    /// `within`.
    pub fn run_until(&mut self, within: Duration, mut wanted: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now() + within;
        loop {
            if wanted(self) {
                return true;
            }
            if self.now() >= until {
                return false;
            }
            self.run_for(Duration::from_millis(1));
        }
    }

    /// Who leads; of several that think so, the one of the latest term.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let term = |place: &Place<G>| {
            let status = place.life.as_ref()?.session.node().status().get();
            (status.role == Role::Leader).then_some(status.term)
        };
        let places = self.places.iter().enumerate();
        places
            .filter_map(|(n, place)| Some((term(place)?, n)))
            .max()
            .map(|(_, n)| n)
    }

    /// Lets time pass until somebody leads.
    pub fn await_leader(&mut self, within: Duration) -> Option<usize> {
        self.run_until(within, |cluster| cluster.leader().is_some());
        self.leader()
    }

    /// A node's session, while the node is up.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Down`].
    pub fn session(&self, node: usize) -> Result<&GameSession<G>, ClusterError> {
        let place = self.places.get(node).ok_or(ClusterError::NoNode(node))?;
        let life = place.life.as_ref().ok_or(ClusterError::Down(node))?;
        Ok(&life.session)
    }

    /// Proposes an action from a node, and lets time pass until it is decided: ten seconds at most.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Turn`] when it was not decided.
    pub fn propose(
        &mut self,
        node: usize,
        action: &G::Action,
    ) -> Result<Decision<G>, ClusterError> {
        let sequencer = self.session(node)?.sequencer();
        Ok(self.during(sequencer.propose(action))?)
    }

    /// Lets time pass until a node has applied every turn that was decided before; answers an entry
    /// it has applied. Ten seconds at most.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Read`] when no majority answered.
    pub fn read(&mut self, node: usize) -> Result<u64, ClusterError> {
        let sequencer = self.session(node)?.sequencer();
        Ok(self.during(sequencer.read_barrier(Duration::from_secs(10)))?)
    }

    /// The game's state on a node, as far as the node has applied; `None` for a game that cannot be
    /// written down, and while the node is down or has applied nothing.
    #[must_use]
    pub fn state(&self, node: usize) -> Option<G> {
        let life = self.places.get(node)?.life.as_ref()?;
        let state = lock(life.watcher.replica.get()?).game.snapshot()?;
        self.blueprint.restore(&state).ok()
    }

    /// Loses every frame from `from` to `to` until [`Cluster::heal`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`].
    pub fn cut(&mut self, from: usize, to: usize) -> Result<(), ClusterError> {
        for node in [from, to] {
            self.places.get(node).ok_or(ClusterError::NoNode(node))?;
        }
        self.net.cut(from, to, true);
        Ok(())
    }

    /// Cuts a node off from every other, both ways.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`].
    pub fn isolate(&mut self, node: usize) -> Result<(), ClusterError> {
        for other in (0..self.nodes()).filter(|other| *other != node) {
            self.cut(node, other)?;
            self.cut(other, node)?;
        }
        Ok(())
    }

    /// Makes the network unreliable until [`Cluster::heal`]: so many frames in a thousand are lost,
    /// each takes up to `extra` more, and some come twice or after later ones.
    pub fn disturb(&mut self, lost_permille: u64, extra: Duration) {
        self.net.disturb();
        self.net.set_loss(lost_permille);
        let extra_ms = u64::try_from(extra.as_millis()).unwrap_or(u64::MAX / 4);
        self.net.set_extra(extra_ms);
    }

    /// Makes the network whole.
    pub fn heal(&mut self) {
        self.net.heal();
    }

    /// From now on each sync of a node's disk takes so long.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`].
    pub fn slow_disk(&mut self, node: usize, sync: Duration) -> Result<(), ClusterError> {
        let place = self.places.get(node).ok_or(ClusterError::NoNode(node))?;
        place.disk.set_sync_delay(sync);
        Ok(())
    }

    /// Stops a node's machine: of what its disk had not synced, the seed decides what is lost.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Down`].
    pub fn crash(&mut self, node: usize) -> Result<(), ClusterError> {
        let seed = self.dice.next();
        let place = self
            .places
            .get_mut(node)
            .ok_or(ClusterError::NoNode(node))?;
        let life = place.life.take().ok_or(ClusterError::Down(node))?;
        life.watcher.on.store(false, Ordering::Relaxed);
        life.peer.unplug();
        place.disk.crash(Crash::Seeded(seed));
        let session = life.session;
        self.runtime.spawn(async move { session.close().await });
        Ok(())
    }

    /// Starts a node's machine again, on what its disk holds.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Up`], or why it did not open.
    pub fn restart(&mut self, node: usize) -> Result<(), ClusterError> {
        let nonce = self.dice.next();
        let roster = self.places.iter().map(|place| place.name.clone()).collect();
        let place = self
            .places
            .get_mut(node)
            .ok_or(ClusterError::NoNode(node))?;
        if place.life.is_some() {
            return Err(ClusterError::Up(node));
        }
        place.lives += 1;
        let id = NodeId::new(place.name.clone(), Incarnation(0));
        let watcher = Watcher::of_any_game(self.world.clone(), node, id);
        let hooks = Hooks {
            observer: watcher.clone(),
            planted: Planted::default(),
        };
        let client = ClientId::new(place.name.as_str()).map_err(set_up)?;
        let game = GameId::new("test").map_err(set_up)?;
        let disk = place.disk.attach();
        let peer = self.net.plug(node);
        let blueprint = self.blueprint.clone();
        let plugged = peer.clone();
        let opening = async move {
            let log = DurableLog::open(disk, DurableOptions::default(), Driver::Task)
                .await
                .map_err(set_up)?;
            let config = SessionConfig {
                identity: Identity::Durable(client),
                log: Arc::new(log),
                ..quick_config(Arc::new(Skewed::new(1000)), nonce, &blueprint)
            };
            let port = Port::open(plugged, game).map_err(set_up)?;
            let opened = game_node_with(port, blueprint, roster, config, hooks).await;
            opened.map_err(ClusterError::from)
        };
        let session = self.during(opening)?;
        watcher.open.store(true, Ordering::Relaxed);
        self.places[node].life = Some(Life {
            session,
            peer,
            watcher,
        });
        Ok(())
    }

    /// The first invariant that did not hold: the nodes' logs or states differ where they must not.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.world.facts().violation.clone()
    }
}

/// A future that never ends, as a type that says so.
async fn never(endless: impl Future<Output = Infallible>) -> Infallible {
    endless.await
}
