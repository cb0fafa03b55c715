//! Bringing a game up on a fabric, and what a player holds of it.
//!
//! [`game_node`] is for a roster that is known: every voter passes the same one, and Raft elects.
//! Otherwise one peer calls [`game_host`], and the others [`game_join`], [`game_spectate`] or
//! [`game_witness`]. Where servers vote and players ride, servers call [`game_server`] and players
//! [`game_player`]. A process that comes back with its log calls [`game_resume`].
//!
//! Invariants
//! - what a bootstrap starts is stopped on every path out of it;
//! - nothing here needs wall time: the clock is passed in.

mod asking;
mod attend;
mod bootstrap;
mod channels;
mod core;
mod entering;
mod identity;
mod node_view;
mod presence;
#[cfg(test)]
mod strangers;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

pub use attend::Rival;
pub use bootstrap::{
    HostError, HostOptions, JoinError, JoinOptions, ResumeError, ReturnPolicy, game_host,
    game_join, game_resume, game_spectate, game_witness,
};
#[cfg(feature = "testkit")]
pub(crate) use bootstrap::{enter, host, resume};
pub use channels::{AppChannel, ChannelError, ChannelReader, ChannelSendError};
pub use core::{CoreOptions, PlacementError, ServerCore, game_player, game_server};
#[cfg(feature = "testkit")]
pub(crate) use core::{ride, serve};
pub use identity::LogOwner;
pub use node_view::{NodeState, NodeView, Waiting};
pub use presence::{Attendee, Presence, PresenceChange};

use crate::config::{self, Compaction, ConfigError, Limits, Timing};
use crate::events::{Feed, FeedLimits};
use crate::fabric::{Inbound, Links, Peers, Port, Receiver};
use crate::game::{Blueprint, Game};
use crate::ids::{Incarnation, NodeId, PeerId, SessionId};
use crate::lobby::claim::HostClaim;
use crate::log::{LogError, LogStore, MemoryLog};
use crate::node::{Node, NodeParts};
use crate::raft::rpc::Rpc;
use crate::raft::{Consensus, Engine, Nobody, ObserverRef, Parts, Role, StartError, lock};
use crate::state::command::{Body, Configure, Kind, Vacate};
use crate::state::seats::NoPlace;
use crate::state::{Planted, Replica, seats};
use crate::turns::TurnSequencer;
use crate::watch::{self, Watch};
use identity::LogIdentity;

pub use crate::lobby::AdmissionTiming;
pub use crate::node::{Clock, DroppedFrames, Identity, TokioClock};
pub use crate::raft::{TRACE_MAX, TraceEvent, Traced};

/// A session that did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The roster does not name this peer.
    #[error("{0} is not in the roster: pass the same roster on every peer, itself included")]
    NotInRoster(PeerId),
    /// The roster is empty or too long.
    #[error("a roster has 1 to {max} peers, this one has {len}")]
    Roster {
        /// Peers given.
        len: usize,
        /// Peers allowed.
        max: usize,
    },
    /// The gallery is too large.
    #[error("a gallery has at most {max} places, not {len}")]
    Gallery {
        /// Places asked for.
        len: u32,
        /// Places allowed.
        max: u32,
    },
    /// The votes cannot be placed like this.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The log is another node's, or of another game or session. Nothing was written to it.
    #[error("the log is {owner}'s: give this node its own")]
    OtherOwner {
        /// Whose it is.
        owner: LogOwner,
    },
    /// The log holds a part of a game that has begun. Nothing was written to it.
    #[error("the log holds a game, of {owner}: resume it, or use an empty log")]
    LogBegun {
        /// Whose it is.
        owner: LogOwner,
    },
    /// The log was written to and does not say by whom.
    #[error("the log does not say whose it is: take this node out and let it join anew")]
    OwnerUnknown,
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log's snapshot is of another game, or of another version of this one that this one does
    /// not read: open it with the game that wrote it, or take this node out and let it join anew.
    #[error("the log's snapshot cannot be read by this game: is it the game that wrote it?")]
    SnapshotUnreadable,
    /// Raft did not start.
    #[error("the node could not start: {0}")]
    Start(String),
}

/// Everything a session may be told. [`SessionConfig::new`] is a game in memory at Raft's usual
/// times.
#[derive(Clone)]
pub struct SessionConfig {
    /// Raft's times.
    pub timing: Timing,
    /// How much of each thing there may be.
    pub limits: Limits,
    /// When the log is compacted; never when `None`.
    pub compaction: Option<Compaction>,
    /// How this node's client is known.
    pub identity: Identity,
    /// Where the log is kept. The default dies with the process.
    pub log: Arc<dyn LogStore>,
    /// How long a silent client is remembered, on the game's clock: ten upper election timeouts at
    /// least.
    pub client_ttl: Duration,
    /// A hash of the state is voted on every so many entries; 0 means never.
    pub hash_every: u64,
    /// Events kept for readers.
    pub events: FeedLimits,
    /// How patient admission is, where this node leads.
    pub admission: AdmissionTiming,
    /// A number this process drew, to tell it from its earlier selves under a durable identity.
    pub nonce: u64,
    /// The monotonic clock turn deadlines go by.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig")
            .field("timing", &self.timing)
            .field("limits", &self.limits)
            .field("compaction", &self.compaction)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl SessionConfig {
    /// A game in memory, at Raft's usual times, by the clock given. `nonce` must differ from run to
    /// run.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, nonce: u64) -> Self {
        Self {
            timing: Timing::default(),
            limits: Limits::default(),
            compaction: None,
            identity: Identity::default(),
            log: Arc::new(MemoryLog::new()),
            client_ttl: Duration::from_secs(3600),
            hash_every: 1000,
            events: FeedLimits::default(),
            admission: AdmissionTiming::default(),
            nonce,
            clock,
        }
    }

    /// What every game this peer starts has in common.
    fn settings(&self, session: SessionId) -> Configure {
        Configure {
            session: session.to_bytes(),
            session_ttl_ms: u64::try_from(self.client_ttl.as_millis()).unwrap_or(u64::MAX),
            hash_every: self.hash_every,
            outcome_bytes_max: self.limits.outcome_bytes_max as u64,
            ..Configure::default()
        }
    }

    fn validate<G: Game>(&self, blueprint: &Blueprint<G>) -> Result<(), OpenError> {
        self.timing.validate()?;
        self.limits.validate()?;
        let max = self.limits.snapshot_bytes_max;
        if let Some(log_max) = self.log.snapshot_bytes_max().filter(|log| *log < max) {
            return Err(ConfigError::LogTakesLess { log_max, max }.into());
        }
        if self.compaction.is_some() && !blueprint.can_snapshot() {
            return Err(ConfigError::CompactionNeedsSnapshots.into());
        }
        self.admission.validate(&self.timing)?;
        config::client_ttl_fits(self.client_ttl, &self.timing)?;
        if let Some(compaction) = &self.compaction {
            compaction.validate()?;
        }
        Ok(self.events.validate()?)
    }
}

/// Who looks on, and which bugs are planted: for the simulator.
pub(crate) struct Hooks {
    pub observer: ObserverRef,
    pub planted: Planted,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            observer: Arc::new(Nobody),
            planted: Planted::default(),
        }
    }
}

/// Opens a game whose players are all known: every one of them passes the same `roster`, and any
/// majority of it plays. Returns at once, before there is a leader.
///
/// A voter that lost its log must not come back this way: it would vote a second time in a term it
/// has voted in. Keep a durable log, or give the player another name.
///
/// # Errors
///
/// [`OpenError`]; nothing keeps running then.
pub async fn game_node<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    roster: BTreeSet<PeerId>,
    config: SessionConfig,
) -> Result<GameSession<G>, OpenError> {
    game_node_with(port, blueprint, roster, config, Hooks::default()).await
}

/// [`game_node`], watched.
pub(crate) async fn game_node_with<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    roster: BTreeSet<PeerId>,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, OpenError> {
    config.validate(&blueprint)?;
    places_fit(roster.len(), 0)?;
    let local = port.links.local().clone();
    if !roster.contains(&local) {
        return Err(OpenError::NotInRoster(local));
    }
    let voters: BTreeSet<NodeId> = roster
        .into_iter()
        .map(|peer| NodeId::new(peer, Incarnation(0)))
        .collect();
    let session = roster_session(port.links.game().as_str(), &voters);
    let configure = Configure {
        seats: u32::try_from(voters.len()).unwrap_or(seats::SEATS_MAX),
        seated: voters.iter().map(Into::into).collect(),
        ..config.settings(session)
    };
    let owner = LogOwner {
        node: NodeId::new(local, Incarnation(0)),
        game: port.links.game().clone(),
        session,
    };
    identity::is_own_or_new(&*config.log, &owner)?;
    let identity = LogIdentity {
        owner,
        kind: Kind::Player,
        configure,
        trusted: BTreeSet::new(),
    };
    let member = Member { identity, hooks };
    let opened = open(port, blueprint, member, config).await?;
    let begun = opened.node.engine.initialize(voters).await;
    if let Err(why) = begun {
        opened.close().await;
        return Err(OpenError::Start(why.to_string()));
    }
    Ok(opened)
}

/// The session every peer with the same game and roster is in.
fn roster_session(game: &str, voters: &BTreeSet<NodeId>) -> SessionId {
    let mut text = format!("cabinet roster\n{}:{game}\n", game.len());
    for voter in voters {
        let peer = voter.peer.as_str();
        text.push_str(&format!("{}:{peer}\n", peer.len()));
    }
    SessionId::named(&text)
}

/// Whether a game may have so many seats and places to watch from.
fn places_fit(seats: usize, spectators: u32) -> Result<(), OpenError> {
    let max = seats::SEATS_MAX as usize;
    if seats == 0 || seats > max {
        return Err(OpenError::Roster { len: seats, max });
    }
    if spectators > seats::SPECTATORS_MAX {
        let (len, max) = (spectators, seats::SPECTATORS_MAX);
        return Err(OpenError::Gallery { len, max });
    }
    Ok(())
}

/// What a node is to be in a session.
struct Member {
    identity: LogIdentity,
    hooks: Hooks,
}

async fn open<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    member: Member,
    config: SessionConfig,
) -> Result<GameSession<G>, OpenError> {
    let Member { identity, hooks } = member;
    // Before Raft writes anything, so that what it wrote is never nobody's.
    config.log.save_identity(identity.encode()).await?;
    let LogIdentity {
        owner: LogOwner {
            node: me, session, ..
        },
        kind,
        configure,
        trusted,
    } = identity;
    let (links, incoming) = port.split();
    let feed = Feed::new(config.events, 0);
    let rpc = Rpc::new(links.clone(), me.clone(), config.nonce);
    let rules = blueprint.rules();
    let parts = Parts {
        me,
        replica: Replica::new(rules.clone(), Some(feed.clone()), hooks.planted),
        feed: feed.clone(),
        log: config.log.clone(),
        caller: Arc::new(rpc.clone()),
        timing: config.timing,
        limits: config.limits,
        observer: hooks.observer,
    };
    let engine = Engine::start(parts).await.map_err(|why| match why {
        StartError::Unreadable => OpenError::SnapshotUnreadable,
        StartError::Other(why) => OpenError::Start(why),
    })?;
    let node = Node::start(NodeParts {
        rules,
        session,
        identity: config.identity,
        timing: config.timing,
        limits: config.limits,
        compaction: config.compaction,
        configure,
        clock: config.clock.clone(),
        nonce: config.nonce,
        trusted,
        log: config.log,
        engine,
        feed,
        rpc,
        incoming: incoming.raft,
    });
    let Limits {
        channels_max,
        channel_frames_max,
        ..
    } = config.limits;
    let channels = channels::Channels::new(
        node.clone(),
        links.clone(),
        channels_max,
        channel_frames_max,
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(carry(channels.clone(), node.clone(), incoming.app));
    let (rivals, _) = watch::channel(BTreeSet::new());
    let (refused, place) = watch::channel(None);
    let (attendance, presence) = watch::channel(Presence::default());
    let leaving = Arc::new(AtomicBool::new(false));
    let wait = config.timing.election_max() * 4;
    let (claim, actions) = HostClaim::incumbent(
        node.me().clone(),
        session,
        node.status().borrow().term,
        &attend::connected(&links),
        wait,
        config.clock.now(),
    );
    let attendant = attend::Attendant {
        node: node.clone(),
        links: links.clone(),
        claim,
        session,
        kind,
        timing: config.admission,
        tick: config.timing.heartbeat(),
        silence: config.timing.election_max() * 3,
        clock: config.clock,
        rivals: rivals.clone(),
        refused,
        presence: attendance,
        attended: None,
        leaving: leaving.clone(),
        vouched: None,
        settled: false,
    };
    tasks.spawn(attend::attend(attendant, actions, incoming.lobby));
    Ok(GameSession {
        node,
        blueprint,
        session,
        links,
        channels,
        // Held so that the game's name stays taken on the fabric until the session is closed.
        held: Mutex::new(Some((tasks, incoming.guard))),
        rivals,
        place,
        presence,
        leaving,
        grace: config.timing.election_max(),
    })
}

/// Hands the app frames of members to their channels for as long as they come.
async fn carry(channels: channels::Channels, node: Arc<Node>, mut app: Receiver<Inbound>) {
    while let Some(inbound) = app.recv().await {
        if node.knows(&inbound.from) {
            channels.deliver(inbound);
        } else {
            node.count_not_member(1);
        }
    }
    channels.close();
}

type Held = (JoinSet<()>, crate::fabric::OpenGame);

/// A game this peer is in.
pub struct GameSession<G: Game> {
    node: Arc<Node>,
    blueprint: Blueprint<G>,
    session: SessionId,
    links: Links,
    channels: channels::Channels,
    held: Mutex<Option<Held>>,
    rivals: watch::Sender<BTreeSet<Rival>>,
    /// Why it has no place, if it was told so.
    place: Watch<Option<NoPlace>>,
    presence: Watch<Presence>,
    leaving: Arc<AtomicBool>,
    /// How long a message to another member may take.
    grace: Duration,
}

impl<G: Game> fmt::Debug for GameSession<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} on {}", self.session, self.node.me())
    }
}

impl<G: Game> GameSession<G> {
    /// Which run of the game this is.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.session
    }

    /// Proposes this peer's actions and follows everybody's.
    #[must_use]
    pub fn sequencer(&self) -> TurnSequencer<G> {
        TurnSequencer::new(self.node.clone(), self.blueprint.clone())
    }

    /// What this peer is in the cluster.
    #[must_use]
    pub fn node(&self) -> NodeView {
        NodeView::new(self.node.clone(), self.place.clone())
    }

    /// A named channel for the application's own traffic between members: best effort, bounded,
    /// never relayed. It is open until its last handle and its reader are dropped.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] when the name is none, too many are open, or the session is closed.
    pub fn app_channel(&self, name: &str) -> Result<AppChannel, ChannelError> {
        self.channels.open(name)
    }

    /// App frames that arrived for channels nobody had open here.
    #[must_use]
    pub fn unclaimed_app_frames(&self) -> u64 {
        self.channels.unknown()
    }

    /// Connected peers, and how the fabric verified each.
    #[must_use]
    pub fn principals(&self) -> Watch<Peers> {
        self.links.peers()
    }

    /// Other sessions of the same game that were seen on this fabric: a split, which nothing can
    /// merge. Empty when all is well.
    #[must_use]
    pub fn rivals(&self) -> Watch<BTreeSet<Rival>> {
        self.rivals.subscribe()
    }

    /// Why this node is out of the game, once who leads said so: it was put out while it was silent
    /// or its process away, and its place is another's by now. `None` while all is well. The node
    /// goes on asking, and comes in again when a place is free; close it if that is not wanted.
    #[must_use]
    pub fn refused(&self) -> Watch<Option<NoPlace>> {
        self.place.clone()
    }

    /// Who has a place in the game, and who of them is there, as this node sees it. Empty until the
    /// first entry of the log is applied here.
    #[must_use]
    pub fn presence(&self) -> Watch<Presence> {
        self.presence.clone()
    }

    /// Who sits where, who watches, and who is the witness.
    #[must_use]
    pub fn seats(&self) -> seats::SeatTable {
        lock(&self.node.replica).seats.clone()
    }

    /// Leaves for good: hands leadership to the voter that is furthest of those that answer, if this
    /// node leads, gives its seat up, and closes. Takes `within` at most, and then what [`Self::close`] takes; answers
    /// whether the others know.
    pub async fn leave(&self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within.min(config::TIME_MAX);
        let left = tokio::time::timeout_at(deadline, self.say_goodbye(deadline)).await;
        self.close().await;
        left.unwrap_or(false)
    }

    async fn say_goodbye(&self, deadline: tokio::time::Instant) -> bool {
        self.leaving.store(true, Ordering::Relaxed);
        let status = self.node.status().get();
        let me = self.node.me().clone();
        let leads = status.role.leads();
        if status.membership.voters.iter().all(|voter| *voter == me) {
            return !leads;
        }
        if leads {
            self.hand_over(deadline).await;
        }
        // Also where nobody was seen to take over: whoever leads next is asked.
        let vacate = Body::Vacate(Vacate {
            node: Some((&me).into()),
            left: true,
        });
        if self
            .node
            .submit_idempotent(vacate, deadline)
            .await
            .is_none()
        {
            return false;
        }
        // Until the others have taken it out of the vote, a game of two needs it to agree to that.
        if status.role != Role::Learner {
            let mut status = self.node.status();
            let out = status.wait_for(|status| {
                let members = &status.membership;
                let staying = members.joint.last().unwrap_or(&members.voters);
                !staying.contains(&me)
            });
            if tokio::time::timeout_at(deadline, out).await.is_err() {
                return false;
            }
            // It sees the joint configuration it votes for, not the one without it: its answer
            // must leave before it does.
            let grace = tokio::time::Instant::now() + self.grace;
            tokio::time::sleep_until(grace.min(deadline)).await;
        }
        true
    }

    /// Asks the voter that is furthest of those that answer to lead, and waits until anybody but
    /// this node does: who was asked may die, and then the others elect.
    async fn hand_over(&self, deadline: tokio::time::Instant) {
        let me = self.node.me();
        let mut status = self.node.status();
        let progress = self.node.numbers().progress;
        let members = status.borrow().membership.clone();
        let heir = members
            .voters
            .iter()
            .filter(|voter| *voter != me)
            .filter_map(|voter| {
                let known = progress.get(voter)?;
                let answers = known.acked? <= self.grace;
                answers.then_some((known.matched?, voter))
            })
            .max();
        let Some((_, heir)) = heir else { return };
        if self.node.engine.transfer(heir).await.is_err() {
            return;
        }
        let led = status.wait_for(|status| {
            let leader = status.leader.as_ref();
            !status.role.leads() && leader.is_some_and(|leader| leader != me)
        });
        let enough = tokio::time::Instant::now() + self.grace * 8;
        // What comes next finds out who leads by itself.
        let _ = tokio::time::timeout_at(enough.min(deadline), led).await;
    }

    /// Stops everything this session started and frees the game's name on the fabric. Idempotent.
    ///
    /// Takes ten seconds at most. A disk that does not answer for so long is left behind: its log
    /// stays in use until it does.
    pub async fn close(&self) {
        self.node.close().await;
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((mut tasks, guard)) = held {
            tasks.shutdown().await;
            attend::say_closed(&self.links);
            drop(guard);
        }
        self.channels.close();
    }
}

impl<G: Game> Drop for GameSession<G> {
    fn drop(&mut self) {
        let held = self.held.get_mut();
        if held.unwrap_or_else(PoisonError::into_inner).is_some() {
            attend::say_closed(&self.links);
        }
        self.node.abandon();
        self.channels.close();
    }
}
