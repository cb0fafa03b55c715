//! A game of your own on several nodes in virtual time: the public part of the test kit.

mod coming;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::Instant;

pub use self::coming::Entrance;
use self::coming::Process;
use super::Violation;
use super::dice::Dice;
use super::net::SimNet;
use super::world::World;
use crate::config::{Compaction, Limits, Timing};
use crate::game::{Blueprint, Game};
use crate::ids::{Incarnation, NameError, PeerId};
use crate::log::durable::sim_disk::SimDisk;
use crate::raft::{RaftStatus, Role, simulated};
use crate::session::{
    Clock, GameSession, HostError, JoinError, OpenError, ResumeError, SessionConfig, TransferError,
};
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
    /// The node is down: restart it, or let it enter.
    #[error("node {0} is down")]
    Down(usize),
    /// The node is on its way into the game: let time pass, or see what it waits for.
    #[error("node {0} is on its way into the game")]
    Coming(usize),
    /// The node runs: crash or close it first.
    #[error("node {0} is up")]
    Up(usize),
    /// The node did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node does not host the game.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The node did not get into the game.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The node could not go on with what its disk holds.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// Leadership was not handed over.
    #[error(transparent)]
    Transfer(#[from] TransferError),
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

type Configure = Box<dyn Fn(usize, SessionConfig) -> SessionConfig + Send>;

/// A machine, and the process on it.
struct Place<G: Game> {
    name: PeerId,
    disk: SimDisk,
    /// The latest life of its peer; none has been before the first.
    life: Option<Incarnation>,
    /// How it came in.
    entrance: Entrance,
    process: Process<G>,
}

/// Your game on N real nodes, in one thread and in virtual time, over a network, disks and clocks
/// that you break.
///
/// Nothing happens between two calls. The same seed and the same calls give the same run. A cluster
/// is one run of one game: for another one make another cluster.
///
/// With [`Cluster::new`] everybody knows everybody and plays from the start.
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
///
/// With [`Cluster::machines`] nobody is in the game until you say so: one hosts, others join or
/// watch, leave and come back.
///
/// ```
/// # use std::time::Duration;
/// # use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
/// use cabinet_consensus::session::HostOptions;
/// # use cabinet_consensus::testkit::Cluster;
/// # #[derive(Clone, Default)]
/// # struct Sum(u64);
/// # impl Game for Sum {
/// #     type Action = u64;
/// #     type Outcome = u64;
/// #     type Refusal = ();
/// #     fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<u64, ()> {
/// #         self.0 += add;
/// #         Ok(self.0)
/// #     }
/// # }
///
/// let mut cluster = Cluster::machines(Blueprint::new(Sum::default), 3, 7)?;
/// let table = HostOptions {
///     spectators_max: 1,
///     ..HostOptions::new(2, cluster.next_life(0)?)
/// };
/// cluster.host(0, table)?;
/// cluster.join(1)?;
/// cluster.arrive(0)?; // Every seat is taken.
/// cluster.spectate(2)?;
///
/// // Leadership goes where it is wanted, and on when its holder leaves.
/// cluster.transfer(1, Duration::from_secs(1))?;
/// assert!(cluster.leave(1, Duration::from_secs(2))?);
/// assert!(cluster.propose(0, &5)?.is_accepted());
/// cluster.join(1)?;
///
/// // Channels are the session's own.
/// let say = cluster.session(0)?.app_channel("chat")?;
/// let hear = cluster.session(1)?.app_channel("chat")?;
/// let mut hear = hear.incoming()?;
/// say.broadcast(b"hello")?;
/// let said = cluster.during(hear.recv()).expect("it is open");
/// assert_eq!(&said.frame[..], b"hello");
/// assert_eq!(cluster.violation(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// It has a runtime of its own: whatever lets time pass, and dropping it, panics inside another. Use it in a
/// plain `#[test]`.
pub struct Cluster<G: Game> {
    places: Vec<Place<G>>,
    configure: Option<Configure>,
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
        let mut cluster = Self::machines(blueprint, nodes, seed)?;
        for node in 0..nodes {
            cluster.enter(node, Entrance::Roster)?;
        }
        Ok(cluster)
    }

    /// `nodes` machines without a process on any of them: see [`Cluster::enter`]. They are connected
    /// to each other, as `node-0`, `node-1` and so on. `seed` decides delays and elections.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Nodes`], [`ClusterError::SetUp`].
    pub fn machines(
        blueprint: Blueprint<G>,
        nodes: usize,
        seed: u64,
    ) -> Result<Self, ClusterError> {
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
            life: None,
            entrance: Entrance::Roster,
            process: Process::Off,
        };
        // What becomes of places is the game's own affair: silence is made here as it likes.
        world.facts().lobby.excused_all = u64::MAX;
        Ok(Self {
            places: names.into_iter().map(place).collect(),
            configure: None,
            blueprint,
            world,
            net,
            dice: Dice::new(seed, 2),
            now_ms: Arc::default(),
            begun,
            runtime,
        })
    }

    /// Changes the configuration of every process that begins from now on, given the node's number
    /// and what it would have: [`quick_config`], and the peer's name for a durable client. The log
    /// stays the one on the node's disk.
    pub fn configure(
        &mut self,
        change: impl Fn(usize, SessionConfig) -> SessionConfig + Send + 'static,
    ) {
        self.configure = Some(Box::new(change));
    }

    /// A node's name, which is what the rules see of its player.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`].
    pub fn peer(&self, node: usize) -> Result<&PeerId, ClusterError> {
        Ok(&self.place(node)?.name)
    }

    fn place(&self, node: usize) -> Result<&Place<G>, ClusterError> {
        self.places.get(node).ok_or(ClusterError::NoNode(node))
    }

    fn place_mut(&mut self, node: usize) -> Result<&mut Place<G>, ClusterError> {
        self.places.get_mut(node).ok_or(ClusterError::NoNode(node))
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
        let done = self.runtime.block_on(simulated(seed, both));
        self.note_arrivals();
        done
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, time: Duration) {
        // Made inside the runtime, which is what gives it its clock.
        self.during(async move { tokio::time::sleep(time).await });
    }

    /// Lets time pass, a millisecond at a time, until `wanted` holds; answers whether it did within
    /// `within`.
    pub fn run_until(&mut self, within: Duration, mut wanted: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now().saturating_add(within);
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

    /// Who leads of those that are in the game: a host that still waits for others is not. Of several that
    /// think so, the one of the latest term.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let term = |place: &Place<G>| {
            let status = place.process.session()?.node().status().get();
            (status.role == Role::Leader).then_some(status.term)
        };
        let places = self.places.iter().enumerate();
        places
            .filter_map(|(n, place)| Some((term(place)?, n)))
            .max()
            .map(|(_, n)| n)
    }

    /// Lets time pass until somebody that is in the game leads.
    pub fn await_leader(&mut self, within: Duration) -> Option<usize> {
        self.run_until(within, |cluster| cluster.leader().is_some());
        self.leader()
    }

    /// Lets time pass until no change of the members is under way, by every node that is in the game;
    /// answers whether none is. Who came in votes a moment later, and until then the game may not bear the
    /// loss of another: call this before a [`Cluster::crash`] that it should bear.
    pub fn settle(&mut self, within: Duration) -> bool {
        self.run_until(within, |cluster| {
            let sessions = cluster
                .places
                .iter()
                .filter_map(|place| place.process.session());
            let mut views = sessions.map(|session| session.node().status().get());
            let Some(first) = views.next() else {
                return true;
            };
            let steady =
                |status: &RaftStatus| status.membership_committed && !status.membership.is_joint();
            steady(&first)
                && views.all(|status| steady(&status) && status.membership == first.membership)
        })
    }

    /// A node's session, while the node is in the game: for channels, events, speculation, presence
    /// and everything else that a session has. What it returns is used with [`Cluster::during`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Down`], [`ClusterError::Coming`].
    pub fn session(&self, node: usize) -> Result<&GameSession<G>, ClusterError> {
        match &self.place(node)?.process {
            Process::Up(up) => Ok(&up.session),
            Process::Coming(_) => Err(ClusterError::Coming(node)),
            Process::Off | Process::Failed(_) => Err(ClusterError::Down(node)),
        }
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

    /// Hands leadership to a node, which must vote, and lets time pass until it leads: `within` at
    /// most. Nothing happens when it leads.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Transfer`] when it was not handed over, also for want of a leader.
    pub fn transfer(&mut self, to: usize, within: Duration) -> Result<(), ClusterError> {
        let heir = self.session(to)?.node().id().clone();
        let leader = self.leader();
        let leader = leader.ok_or(TransferError::NotLeader { leader: None })?;
        if leader == to {
            return Ok(());
        }
        let view = self.session(leader)?.node();
        Ok(self.during(async move { view.transfer(&heir, within).await })?)
    }

    /// The game's state on a node, as far as the node has applied; `None` while it is not in the
    /// game.
    #[must_use]
    pub fn state(&self, node: usize) -> Option<G> {
        let sequencer = self.session(node).ok()?.sequencer();
        Some(sequencer.read_local(|seen| seen.game.clone()))
    }

    /// Loses every frame from `from` to `to` until [`Cluster::mend`] or [`Cluster::heal`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`].
    pub fn cut(&mut self, from: usize, to: usize) -> Result<(), ClusterError> {
        self.set_cut(from, to, true)
    }

    /// Brings every frame from `from` to `to` again.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`].
    pub fn mend(&mut self, from: usize, to: usize) -> Result<(), ClusterError> {
        self.set_cut(from, to, false)
    }

    fn set_cut(&mut self, from: usize, to: usize, cut: bool) -> Result<(), ClusterError> {
        self.place(from)?;
        self.place(to)?;
        self.net.cut(from, to, cut);
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
        let extra_ms = u64::try_from(extra.as_millis()).unwrap_or(u64::MAX);
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
        self.place(node)?.disk.set_sync_delay(sync);
        Ok(())
    }

    /// The first invariant that did not hold: the nodes' logs or states differ where they must not, a
    /// place moved, who watches votes, or two hosts founded the game.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.world.facts().violation.clone()
    }
}

/// A future that never ends, as a type that says so.
async fn never(endless: impl Future<Output = Infallible>) -> Infallible {
    endless.await
}
