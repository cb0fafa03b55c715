//! Processes on a cluster's machines: how they come into the game, and how they go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::{Cluster, ClusterError, quick_config, set_up};
use crate::config::TIME_MAX;
use crate::fabric::Port;
use crate::game::Game;
use crate::ids::{ClientId, GameId, Incarnation, NodeId};
use crate::log::durable::sim_disk::{Crash, SimDisk};
use crate::log::durable::{Driver, DurableOptions};
use crate::log::{DurableLog, LogStore};
use crate::raft::simulated;
use crate::session::{
    CoreOptions, GameSession, Hooks, HostOptions, Identity, JoinOptions, ServerCore, SessionConfig,
    enter, game_node_with, host, resume, ride, serve,
};
use crate::state::Planted;
use crate::state::command::Kind;
use crate::testkit::machine::Skewed;
use crate::testkit::net::SimPeer;
use crate::testkit::world::Watcher;

/// The longest [`Cluster::arrive`] lets pass.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// How a node comes into the game: each by the function of [`session`](crate::session) that it
/// names, with your options.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Entrance {
    /// [`game_node`](crate::session::game_node), with every node of the cluster in the roster.
    Roster,
    /// [`game_host`](crate::session::game_host).
    Host(HostOptions),
    /// [`game_join`](crate::session::game_join).
    Join(JoinOptions),
    /// [`game_spectate`](crate::session::game_spectate).
    Spectate(JoinOptions),
    /// [`game_witness`](crate::session::game_witness).
    Witness(JoinOptions),
    /// [`game_server`](crate::session::game_server).
    Serve(CoreOptions),
    /// [`game_player`](crate::session::game_player).
    Ride(ServerCore, JoinOptions),
}

impl Entrance {
    fn kind(&self) -> Kind {
        match self {
            Self::Roster | Self::Host(_) | Self::Join(_) | Self::Ride(..) => Kind::Player,
            Self::Spectate(_) => Kind::Spectator,
            Self::Witness(_) | Self::Serve(_) => Kind::Witness,
        }
    }

    fn life(&self) -> Incarnation {
        match self {
            Self::Roster | Self::Serve(_) => Incarnation(0),
            Self::Host(options) => options.incarnation,
            Self::Join(options)
            | Self::Spectate(options)
            | Self::Witness(options)
            | Self::Ride(_, options) => options.incarnation,
        }
    }

    /// Whether who comes in this way comes back the same way, and not by resuming.
    fn is_founding(&self) -> bool {
        matches!(self, Self::Roster | Self::Serve(_))
    }
}

/// What runs on a machine.
pub(super) enum Process<G: Game> {
    Off,
    Coming(Coming<G>),
    Up(Up<G>),
    /// It did not come in.
    Failed(ClusterError),
}

impl<G: Game> Process<G> {
    pub(super) fn session(&self) -> Option<&GameSession<G>> {
        match self {
            Self::Up(up) => Some(&up.session),
            _ => None,
        }
    }
}

/// A process's ends in the simulated world.
struct Wires {
    peer: Arc<SimPeer>,
    watcher: Arc<Watcher>,
    clock: Skewed,
}

impl Wires {
    /// Nothing of the process is heard or seen any more.
    fn pull(&self) {
        self.watcher.on.store(false, Ordering::Relaxed);
        self.peer.unplug();
    }
}

pub(super) struct Coming<G: Game> {
    task: JoinHandle<Result<GameSession<G>, ClusterError>>,
    wires: Wires,
}

pub(super) struct Up<G: Game> {
    pub(super) session: GameSession<G>,
    wires: Wires,
}

impl<G: Game> Cluster<G> {
    /// The incarnation for the next time that a node comes in with an empty disk: higher than any
    /// it had, from 1; there is none above the highest.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`].
    pub fn next_life(&self, node: usize) -> Result<Incarnation, ClusterError> {
        let life = self.place(node)?.life;
        Ok(Incarnation(life.map_or(1, |life| life.0.saturating_add(1))))
    }

    /// Starts a process on a node's machine, with an empty disk, that comes into the game as time
    /// passes: for whoever must wait for others, as a host does. No time passes here.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Up`], [`ClusterError::Coming`].
    pub fn set_off(&mut self, node: usize, entrance: Entrance) -> Result<(), ClusterError> {
        self.is_free(node)?;
        let place = self.place_mut(node)?;
        let sync = place.disk.sync_delay();
        place.disk = SimDisk::new();
        place.disk.set_sync_delay(sync);
        place.life = place.life.max(Some(entrance.life()));
        place.entrance = entrance;
        self.begin(node, false)
    }

    /// Lets time pass until a node that was set off is in the game: a minute at most.
    ///
    /// # Errors
    ///
    /// Why it is not: [`ClusterError::Host`], [`ClusterError::Join`], [`ClusterError::Open`], or
    /// [`ClusterError::Coming`] when it still waits.
    pub fn arrive(&mut self, node: usize) -> Result<(), ClusterError> {
        let is_over = |cluster: &Self| {
            let place = cluster.places.get(node);
            !place.is_some_and(|place| matches!(place.process, Process::Coming(_)))
        };
        self.run_until(ARRIVES_WITHIN, is_over);
        if let Process::Failed(why) = &self.place(node)?.process {
            return Err(why.clone());
        }
        self.session(node).map(drop)
    }

    /// [`Cluster::set_off`] and [`Cluster::arrive`].
    ///
    /// # Errors
    ///
    /// As both.
    pub fn enter(&mut self, node: usize, entrance: Entrance) -> Result<(), ClusterError> {
        self.set_off(node, entrance)?;
        self.arrive(node)
    }

    /// Sets a node off to host the game. It is in once its players are: let them join, and then it
    /// arrives.
    ///
    /// # Errors
    ///
    /// As [`Cluster::set_off`].
    pub fn host(&mut self, node: usize, options: HostOptions) -> Result<(), ClusterError> {
        self.set_off(node, Entrance::Host(options))
    }

    /// Lets a node join as a player, in the next life of its peer.
    ///
    /// # Errors
    ///
    /// As [`Cluster::enter`].
    pub fn join(&mut self, node: usize) -> Result<(), ClusterError> {
        let options = JoinOptions::new(self.next_life(node)?);
        self.enter(node, Entrance::Join(options))
    }

    /// Lets a node watch, in the next life of its peer.
    ///
    /// # Errors
    ///
    /// As [`Cluster::enter`].
    pub fn spectate(&mut self, node: usize) -> Result<(), ClusterError> {
        let options = JoinOptions::new(self.next_life(node)?);
        self.enter(node, Entrance::Spectate(options))
    }

    /// Lets a node join as the voter that does not play, in the next life of its peer.
    ///
    /// # Errors
    ///
    /// As [`Cluster::enter`].
    pub fn witness(&mut self, node: usize) -> Result<(), ClusterError> {
        let options = JoinOptions::new(self.next_life(node)?);
        self.enter(node, Entrance::Witness(options))
    }

    /// Lets a node leave for good, and time pass until it has: `within` and ten seconds at most.
    /// Answers whether the others know. Let it enter anew to bring it back; restarted, it goes on
    /// with its log and asks for a place.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Down`], [`ClusterError::Coming`].
    pub fn leave(&mut self, node: usize, within: Duration) -> Result<bool, ClusterError> {
        let up = self.take_up(node)?;
        let left = self.during(up.session.leave(within));
        up.wires.pull();
        Ok(left)
    }

    /// Closes a node's session, as a process does that is stopped in good order: it keeps its place.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Down`], [`ClusterError::Coming`].
    pub fn close(&mut self, node: usize) -> Result<(), ClusterError> {
        let up = self.take_up(node)?;
        self.during(up.session.close());
        up.wires.pull();
        Ok(())
    }

    fn take_up(&mut self, node: usize) -> Result<Up<G>, ClusterError> {
        self.session(node)?;
        match std::mem::replace(&mut self.place_mut(node)?.process, Process::Off) {
            Process::Up(up) => Ok(up),
            _ => Err(ClusterError::Down(node)),
        }
    }

    /// Stops a node's machine: of what its disk had not synced, the seed decides what is lost.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Down`].
    pub fn crash(&mut self, node: usize) -> Result<(), ClusterError> {
        let seed = self.dice.next();
        let place = self.place_mut(node)?;
        let process = std::mem::replace(&mut place.process, Process::Off);
        let (wires, session) = match process {
            Process::Up(Up { session, wires }) => (wires, Some(session)),
            Process::Coming(Coming { task, wires }) => {
                task.abort();
                (wires, None)
            }
            Process::Off | Process::Failed(_) => return Err(ClusterError::Down(node)),
        };
        wires.pull();
        place.disk.crash(Crash::Seeded(seed));
        // It is cut off from everything: its end is only tidying up.
        self.runtime.spawn(async move {
            if let Some(session) = session {
                session.close().await;
            }
        });
        Ok(())
    }

    /// Starts a node's machine again, on what its disk holds, and lets time pass until it has opened
    /// that: it goes on as the node that it was.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Up`], [`ClusterError::Coming`], or why it did not
    /// open: [`ClusterError::Resume`] where it had not come in, and must enter again.
    pub fn restart(&mut self, node: usize) -> Result<(), ClusterError> {
        self.is_free(node)?;
        self.begin(node, true)?;
        self.arrive(node)
    }

    /// Sets a node's clock ahead, by a year at most, which its turns' deadlines go by while it leads.
    /// It is set right when its process begins again.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoNode`], [`ClusterError::Down`], [`ClusterError::Coming`].
    pub fn set_clock_ahead(&mut self, node: usize, by: Duration) -> Result<(), ClusterError> {
        self.session(node)?;
        if let Process::Up(up) = &self.place(node)?.process {
            let ms = by.min(TIME_MAX).as_millis();
            up.wires.clock.set_ahead(ms as u64);
        }
        Ok(())
    }

    fn is_free(&self, node: usize) -> Result<(), ClusterError> {
        match self.place(node)?.process {
            Process::Off | Process::Failed(_) => Ok(()),
            Process::Coming(_) => Err(ClusterError::Coming(node)),
            Process::Up(_) => Err(ClusterError::Up(node)),
        }
    }

    /// A process begins, on what the node's disk holds.
    fn begin(&mut self, node: usize, again: bool) -> Result<(), ClusterError> {
        let (nonce, seed) = (self.dice.next(), self.dice.next());
        let place = self.place(node)?;
        let roster = self.places.iter().map(|place| place.name.clone()).collect();
        let entrance = place.entrance.clone();
        let client = ClientId::new(place.name.as_str()).map_err(set_up)?;
        let game = GameId::new("test").map_err(set_up)?;
        let id = NodeId::new(place.name.clone(), entrance.life());
        self.world.facts().lobby.begins(&id, entrance.kind());
        let watcher = Watcher::of_any_game(self.world.clone(), node, id);
        let hooks = Hooks {
            observer: watcher.clone(),
            planted: Planted::default(),
        };
        let disk = place.disk.attach();
        let peer = self.net.plug(node);
        let plugged = peer.clone();
        let blueprint = self.blueprint.clone();
        let clock = {
            let _inside = self.runtime.enter();
            Skewed::new(1000)
        };
        let config = SessionConfig {
            identity: Identity::Durable(client),
            ..quick_config(Arc::new(clock.clone()), nonce, &blueprint)
        };
        let config = match &self.configure {
            Some(change) => change(node, config),
            None => config,
        };
        let kind = entrance.kind();
        let coming = async move {
            let log = DurableLog::open(disk, DurableOptions::default(), Driver::Task);
            let log: Arc<dyn LogStore> = Arc::new(log.await.map_err(set_up)?);
            let config = SessionConfig {
                log: log.clone(),
                ..config
            };
            let port = Port::open(plugged, game).map_err(set_up)?;
            let opening = async {
                Ok::<_, ClusterError>(match entrance {
                    entrance if again && !entrance.is_founding() => {
                        resume(port, blueprint, config, hooks).await?
                    }
                    Entrance::Roster => {
                        game_node_with(port, blueprint, roster, config, hooks).await?
                    }
                    Entrance::Host(options) => {
                        host(port, blueprint, options, config, hooks).await?
                    }
                    Entrance::Join(options)
                    | Entrance::Spectate(options)
                    | Entrance::Witness(options) => {
                        enter(port, blueprint, kind, options, config, hooks).await?
                    }
                    Entrance::Serve(options) => {
                        serve(port, blueprint, options, config, hooks).await?
                    }
                    Entrance::Ride(core, options) => {
                        ride(port, blueprint, core, options, config, hooks).await?
                    }
                })
            };
            let came = opening.await;
            if came.is_err() {
                // What failed has closed it, or never began to use it.
                let _ = log.close().await;
            }
            came
        };
        let coming = Coming {
            task: self.runtime.spawn(simulated(seed, coming)),
            wires: Wires {
                peer,
                watcher,
                clock,
            },
        };
        self.place_mut(node)?.process = Process::Coming(coming);
        Ok(())
    }

    /// Whoever has come in meanwhile is in, and who failed is down.
    pub(super) fn note_arrivals(&mut self) {
        for place in &mut self.places {
            let is_over =
                matches!(&place.process, Process::Coming(coming) if coming.task.is_finished());
            if !is_over {
                continue;
            }
            let process = std::mem::replace(&mut place.process, Process::Off);
            let Process::Coming(Coming { task, wires }) = process else {
                continue;
            };
            let came = match task.now_or_never() {
                Some(Ok(came)) => came,
                Some(Err(ended)) => Err(set_up(ended)),
                None => Err(set_up("it ended without a word")),
            };
            place.process = match came {
                Ok(session) => {
                    wires.watcher.open.store(true, Ordering::Relaxed);
                    Process::Up(Up { session, wires })
                }
                Err(why) => {
                    wires.pull();
                    Process::Failed(why)
                }
            };
        }
    }
}
