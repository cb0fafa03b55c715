//! Starting a node, whichever way it came to its part in a game.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::identity::{self, LogIdentity, LogOwner};
use super::{GameSession, OpenError, Presence, SessionConfig, attend, channels};
use crate::config::Limits;
use crate::events::Feed;
use crate::fabric::Port;
use crate::game::{Blueprint, Game};
use crate::ids::{Incarnation, NodeId, SessionId};
use crate::lobby::claim::HostClaim;
use crate::lobby::proof::{Shown, shown};
use crate::node::{Node, NodeParts};
use crate::raft::rpc::Rpc;
use crate::raft::{Consensus, Engine, Nobody, ObserverRef, Parts, StartError};
use crate::state::command::{Configure, Kind};
use crate::state::{Planted, Replica, seats};
use crate::watch;

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

/// Whether a game may have so many seats and places to watch from.
pub(super) fn places_fit(seats: u32, spectators: u32) -> Result<(), OpenError> {
    let (len, max) = (seats, seats::SEATS_MAX);
    if len == 0 || len > max {
        return Err(OpenError::Seats { len, max });
    }
    if spectators > seats::SPECTATORS_MAX {
        let (len, max) = (spectators, seats::SPECTATORS_MAX);
        return Err(OpenError::Gallery { len, max });
    }
    Ok(())
}

/// A session that begins with the voters it always has.
pub(super) struct Founding {
    pub kind: Kind,
    pub session: SessionId,
    pub configure: Configure,
    pub voters: BTreeSet<NodeId>,
}

/// Opens a session that each of its first nodes founds alike, in its first life.
pub(super) async fn found<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    founding: Founding,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, OpenError> {
    let owner = LogOwner {
        node: NodeId::new(port.links.local().clone(), Incarnation(0)),
        game: port.links.game().clone(),
        session: founding.session,
    };
    identity::is_own_or_new(&*config.log, &owner)?;
    let identity = LogIdentity {
        owner,
        kind: founding.kind,
        configure: founding.configure,
        trusted: BTreeSet::new(),
    };
    let member = Member { identity, hooks };
    let opened = open(port, blueprint, member, config).await?;
    if let Err(why) = opened.node.engine.initialize(founding.voters).await {
        opened.close().await;
        return Err(OpenError::Start(why.to_string()));
    }
    Ok(opened)
}

/// What a node is to be in a session.
pub(super) struct Member {
    pub identity: LogIdentity,
    pub hooks: Hooks,
}

/// Starts a node and everything around it, which the answer holds.
pub(super) async fn open<G: Game>(
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
    let first = shown(config.nonce, Shown::Calls);
    let rpc = Rpc::new(links.clone(), me.clone(), first);
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
    let (refused, told) = watch::channel(None);
    let (put_out, known) = watch::channel(None);
    let node = Node::start(NodeParts {
        rules,
        session,
        identity: config.identity,
        timing: config.timing,
        limits: config.limits,
        compaction: config.compaction,
        configure,
        clock: config.clock.clone(),
        nonce: shown(config.nonce, Shown::Open),
        trusted,
        refused: told,
        put_out: known,
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
    tasks.spawn(channels.clone().carry(incoming.app));
    let (rivals, _) = watch::channel(BTreeSet::new());
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
        put_out,
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
        presence,
        leaving,
        grace: config.timing.election_max(),
    })
}
