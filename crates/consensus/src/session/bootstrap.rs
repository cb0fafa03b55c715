//! Appointing a host: one peer hosts, the others join or watch.
//!
//! Invariants
//! - a host claims before it starts anything: of two, the one that is established stays;
//! - a joiner starts Raft only when the node that leads welcomed it, by the word of those who may
//!   know (`lobby::knock`), and takes frames from nobody but the members it was told of;
//! - who hosts or joins begins with an empty log, who resumes with its own;
//! - what an entry point started is stopped when it fails or is dropped. What the others gave a
//!   joiner is given back first, and a host hands its game to those who came in (`entering`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::asking::{Asked, Asking};
use super::claiming::{Claimed, claim, hosted_session};
use super::entering::Entering;
use super::identity::{self, LogIdentity, LogOwner};
use super::opening::{Hooks, Member, open, places_fit};
use super::{GameSession, OpenError, SessionConfig};
use crate::config::{self, time_fits};
use crate::fabric::Port;
use crate::game::{Blueprint, Game};
use crate::ids::{Incarnation, NodeId, PeerId, SessionId};
use crate::lobby::wire::Answer;
use crate::raft::{Consensus, RaftStatus, Role, SnapshotTooLarge, lock};
use crate::state::command::{Configure, Kind};

/// When [`game_host`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReturnPolicy {
    /// Once every seat is taken.
    #[default]
    FullMembership,
    /// Once a majority of the seats is taken; the others may come however late.
    Quorum,
}

/// What a host decides for the whole game.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Players, the host among them.
    pub seats: u32,
    /// When to return.
    pub return_at: ReturnPolicy,
    /// How many may watch.
    pub spectators_max: u32,
    /// Whether a voter that does not play may join: what keeps a game of two alive when one of
    /// them goes.
    pub witness: bool,
    /// How long to look for another host before starting: all of it passes, whoever answers, and a
    /// peer that connects meanwhile has as long again to answer, so that twice this time is the most.
    /// Two hosts that do not hear of each other within it both found a session, which cannot be merged
    /// ([`GameSession::rivals`]): give it the time that machines take to connect.
    pub claim_wait: Duration,
    /// How long to wait for the players; for ever when `None`. A host that gives up, or whose call is
    /// dropped, leaves its game to those who came in, which takes ten upper election timeouts at
    /// most. Until then the game's name on the fabric is taken, and its log in use.
    pub within: Option<Duration>,
    /// This life of the peer: higher than any before it.
    pub incarnation: Incarnation,
}

impl HostOptions {
    /// A game of `seats` players that nobody watches.
    #[must_use]
    pub fn new(seats: u32, incarnation: Incarnation) -> Self {
        Self {
            seats,
            return_at: ReturnPolicy::default(),
            spectators_max: 0,
            witness: false,
            claim_wait: Duration::from_secs(2),
            within: None,
            incarnation,
        }
    }
}

impl HostOptions {
    fn validate(&self) -> Result<(), OpenError> {
        time_fits("claim_wait", self.claim_wait)?;
        time_fits("HostOptions::within", self.within.unwrap_or_default())?;
        Ok(())
    }
}

/// A game that was not hosted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Somebody hosts this game already: join it.
    #[error("{incumbent} hosts this game already: join it instead")]
    DuplicateHost {
        /// Who.
        incumbent: NodeId,
        /// Its session.
        session: SessionId,
    },
    /// The players did not come in time.
    #[error("{present} of {wanted} players came in time")]
    Timeout {
        /// Seats taken.
        present: usize,
        /// Seats that were waited for.
        wanted: usize,
    },
    /// The session did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// How to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOptions {
    /// This life of the peer: higher than any before it.
    pub incarnation: Incarnation,
    /// The session to join; any when `None`.
    pub session: Option<SessionId>,
    /// How long to try. Who was told welcome and did not come in in time, or whose call is dropped
    /// then, first gives back what it was given, which takes ten upper election timeouts at most.
    /// Until then the game's name on the fabric is taken, and its log in use.
    pub within: Duration,
    /// Peers that are known to be in the game, the host for one: who leads is asked of these alone.
    /// With none, who leads is what more than half of the peers say that are in any session of the
    /// game: name a host wherever peers may lie.
    pub hosts: BTreeSet<PeerId>,
}

impl JoinOptions {
    /// Joins whichever session of the game there is, trying for ten seconds.
    #[must_use]
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            session: None,
            within: Duration::from_secs(10),
            hosts: BTreeSet::new(),
        }
    }
}

impl JoinOptions {
    pub(super) fn validate(&self) -> Result<(), OpenError> {
        Ok(time_fits("JoinOptions::within", self.within)?)
    }
}

/// A game that was not joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Every seat is taken.
    #[error("every seat is taken")]
    RosterFull,
    /// Nobody may watch, or the gallery is full.
    #[error("no more spectators are let in")]
    SpectatorsClosed,
    /// The game wants no witness, or has one.
    #[error("the game takes no witness")]
    NoWitness,
    /// A later life of this peer is in the game.
    #[error("a later life of this peer is in the game: give this one a higher incarnation")]
    Superseded,
    /// This very life of the peer is in the game, and was given the log: the one it has now has not
    /// begun. It may have voted, and must not vote again: resume with the log it had, or, if that is
    /// gone, as the default log in memory is with its process, join in a new life, which gets the seat.
    ///
    /// A life that was put out meanwhile is let in, with its log or without: nothing it promised
    /// counts any more.
    #[error(
        "this life of the peer is in the game and had a log: resume with it, or give a higher incarnation"
    )]
    LogLost,
    /// Somebody answered in time, and nobody who may: name the hosts, or fewer liars.
    #[error(
        "nobody who leads answered within {within:?}, and {answers} others did: name the hosts"
    )]
    NotVouchedFor {
        /// How long it was tried.
        within: Duration,
        /// Answers that were not believed.
        answers: u64,
    },
    /// The game's votes are on servers: whoever leads says so at once, and no seat is taken.
    #[error("this game's votes are on servers: join it with game_player")]
    CoreVotes,
    /// The game and core given have another session than the one asked for.
    #[error("this game's session on this core is {session}: ask for that or for none")]
    WrongSession {
        /// Its id.
        session: SessionId,
    },
    /// Nobody let this peer in in time. Its log is as it was: try again with it.
    #[error("nobody let this peer in within {0:?}: is the host connected and its door open?")]
    Timeout(Duration),
    /// Who leads let this peer in, and it did not have its place in time. What it was given is given
    /// back, as far as anybody hears that.
    ///
    /// The session closed its log, which may have begun. To try again, open the log anew
    /// ([`DurableLog::open`](crate::log::DurableLog::open),
    /// [`MemoryLog::reopen`](crate::log::MemoryLog::reopen)) and call [`game_resume`] with it, which
    /// asks for a place by itself; joining with a log that has begun is [`OpenError::LogBegun`]. With
    /// an empty log it takes a higher incarnation.
    #[error(
        "this peer was let in and did not have its place within {0:?}: give it longer; to try again, \
         open its log anew and resume"
    )]
    NotCaughtUp(Duration),
    /// The game's state is larger than this node takes: raise `Limits::snapshot_bytes_max`.
    #[error("the game's state has {bytes} bytes, and this node takes {max}: raise its limit")]
    SnapshotTooLarge {
        /// Bytes of the state.
        bytes: u64,
        /// Bytes taken here.
        max: u64,
    },
    /// The session did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A game that was not resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// Nothing was written to the log: host or join with it.
    #[error("the log holds nothing to resume: host or join with it")]
    NothingHeld,
    /// The session did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Goes on with a game after a restart, as the node whose log it is: host, player, spectator or
/// witness. Returns at once, before there is a leader, and needs none: when every process died,
/// each of them resumes, and a majority of them elects.
///
/// What the log says is used: life, session, place and members. A node that was put out meanwhile
/// asks for its place again by itself.
///
/// # Errors
///
/// [`ResumeError`]; nothing keeps running then, and nothing was written.
///
/// # Panics
///
/// When it is polled outside a tokio runtime that has its timer on.
pub async fn game_resume<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    config: SessionConfig,
) -> Result<GameSession<G>, ResumeError> {
    resume(port, blueprint, config, Hooks::default()).await
}

/// [`game_resume`], watched.
pub(crate) async fn resume<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, ResumeError> {
    config.validate(&blueprint)?;
    let found = identity::look(&*config.log)?;
    let Some(mut identity) = found.identity else {
        return Err(ResumeError::NothingHeld);
    };
    let owner = &identity.owner;
    if owner.node.peer != *port.links.local() || owner.game != *port.links.game() {
        let owner = identity.owner;
        return Err(OpenError::OtherOwner { owner }.into());
    }
    if !found.begun {
        return Err(ResumeError::NothingHeld);
    }
    if found.has_entries {
        // The log knows the members better than who welcomed this node.
        identity.trusted.clear();
    }
    Ok(open(port, blueprint, Member { identity, hooks }, config).await?)
}

/// Hosts a game: claims it, starts it alone, and lets players in until the return policy is met;
/// the rest may come later, and whoever leads then lets them in.
///
/// # Errors
///
/// [`HostError`]; nothing keeps running then, and the game's name on the fabric is free again.
///
/// # Panics
///
/// When it is polled outside a tokio runtime that has its timer on.
pub async fn game_host<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    options: HostOptions,
    config: SessionConfig,
) -> Result<GameSession<G>, HostError> {
    host(port, blueprint, options, config, Hooks::default()).await
}

/// [`game_host`], watched.
pub(crate) async fn host<G: Game>(
    mut port: Port,
    blueprint: Blueprint<G>,
    options: HostOptions,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, HostError> {
    config.validate(&blueprint)?;
    options.validate()?;
    places_fit(options.seats, options.spectators_max)?;
    let me = NodeId::new(port.links.local().clone(), options.incarnation);
    identity::is_new(&*config.log, &me, port.links.game())?;
    let session = hosted_session(port.links.game().as_str(), &me, config.nonce);
    let lowest = hooks.planted.lowest_id_hosts;
    let mut claimed = Claimed::new(port.links.clone());
    let malformed = claim(&mut port, &me, session, &options, &config, lowest).await?;
    hooks.observer.founded(session);
    let configure = Configure {
        seats: options.seats,
        spectators_max: options.spectators_max,
        seated: vec![(&me).into()],
        witness: options.witness,
        ..config.settings(port.links.game(), session)
    };
    let identity = LogIdentity {
        owner: LogOwner {
            node: me.clone(),
            game: port.links.game().clone(),
            session,
        },
        kind: Kind::Player,
        configure,
        trusted: BTreeSet::new(),
    };
    let observer = hooks.observer.clone();
    let member = Member { identity, hooks };
    let entering = Entering::new(open(port, blueprint, member, config).await?, observer);
    // The session answers for itself from here on.
    claimed.founded();
    let game = entering.game();
    game.node.count_malformed(malformed);
    if let Err(why) = game.node.engine.initialize([me].into()).await {
        entering.give_back().await;
        return Err(OpenError::Start(why.to_string()).into());
    }
    let wanted = match options.return_at {
        ReturnPolicy::FullMembership => options.seats as usize,
        ReturnPolicy::Quorum => options.seats as usize / 2 + 1,
    };
    let seated = gather(game, wanted);
    let gathered = match options.within {
        Some(within) => tokio::time::timeout(within, seated).await.unwrap_or(false),
        None => seated.await,
    };
    if !gathered {
        let present = seated_now(game, &game.node.status().get());
        // Those who came in may go on without it.
        entering.give_back().await;
        return Err(HostError::Timeout { present, wanted });
    }
    Ok(entering.came_in())
}

/// Waits until so many seats are taken by members, and the membership is settled. `false` when the
/// node stops before.
async fn gather<G: Game>(game: &GameSession<G>, wanted: usize) -> bool {
    let mut watch = game.node.status();
    let mut progress = game.node.feed.progress();
    loop {
        let status = watch.borrow_and_update().clone();
        // Seen before the seats are looked at: who sits down after that is waited for.
        drop(progress.borrow_and_update());
        if status.stopped.is_some() {
            return false;
        }
        let settled = status.membership_committed && !status.membership.is_joint();
        if settled && seated_now(game, &status) >= wanted {
            return true;
        }
        tokio::select! {
            biased;
            changed = watch.changed() => if changed.is_err() { return false },
            changed = progress.changed() => if changed.is_err() { return false },
        }
    }
}

/// Seats whose holder takes part: votes, or, where servers vote, has the log. A witness or a server
/// has no seat.
fn seated_now<G: Game>(game: &GameSession<G>, status: &RaftStatus) -> usize {
    let replica = lock(&game.node.replica);
    let servers_vote = !replica.seats.core.is_empty();
    let takes_part = |node: &&NodeId| {
        let voters = &status.membership.voters;
        voters.contains(*node) || (servers_vote && status.membership.contains(node))
    };
    replica.seats.players().filter(takes_part).count()
}

/// Joins a game as a player, in the seat it had if it had one.
///
/// # Errors
///
/// [`JoinError`]; nothing keeps running then, and the game's name on the fabric is free again.
///
/// # Panics
///
/// When it is polled outside a tokio runtime that has its timer on.
pub async fn game_join<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    options: JoinOptions,
    config: SessionConfig,
) -> Result<GameSession<G>, JoinError> {
    enter(
        port,
        blueprint,
        Kind::Player,
        options,
        config,
        Hooks::default(),
    )
    .await
}

/// Watches a game: gets every event, and never votes.
///
/// # Errors
///
/// As [`game_join`].
///
/// # Panics
///
/// When it is polled outside a tokio runtime that has its timer on.
pub async fn game_spectate<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    options: JoinOptions,
    config: SessionConfig,
) -> Result<GameSession<G>, JoinError> {
    enter(
        port,
        blueprint,
        Kind::Spectator,
        options,
        config,
        Hooks::default(),
    )
    .await
}

/// Joins a game as the voter that does not play.
///
/// # Errors
///
/// As [`game_join`].
///
/// # Panics
///
/// When it is polled outside a tokio runtime that has its timer on.
pub async fn game_witness<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    options: JoinOptions,
    config: SessionConfig,
) -> Result<GameSession<G>, JoinError> {
    enter(
        port,
        blueprint,
        Kind::Witness,
        options,
        config,
        Hooks::default(),
    )
    .await
}

pub(crate) async fn enter<G: Game>(
    mut port: Port,
    blueprint: Blueprint<G>,
    kind: Kind,
    options: JoinOptions,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, JoinError> {
    config.validate(&blueprint)?;
    options.validate()?;
    let deadline = config::deadline(options.within);
    let me = NodeId::new(port.links.local().clone(), options.incarnation);
    identity::is_new(&*config.log, &me, port.links.game())?;
    let JoinOptions {
        session,
        hosts,
        within,
        ..
    } = options;
    let asking = Asking {
        me: &me,
        kind,
        needs_vote: kind != Kind::Spectator,
        begins: true,
        session,
        hosts,
        within,
    };
    let Asked {
        answer,
        dropped,
        mut wanted,
    } = asking.of(&mut port, &config).await?;
    let Answer {
        session, members, ..
    } = answer;
    let timeout = || JoinError::NotCaughtUp(within);
    let identity = LogIdentity {
        owner: LogOwner {
            node: me,
            game: port.links.game().clone(),
            session,
        },
        kind,
        configure: Configure::default(),
        trusted: members.into_iter().collect(),
    };
    let observer = hooks.observer.clone();
    let member = Member { identity, hooks };
    let entering = Entering::new(open(port, blueprint, member, config).await?, observer);
    let game = entering.game();
    dropped.count_at(&game.node);
    // A seat is taken once the vote is; a place to watch from once the log arrives.
    let mut status = game.node.status();
    let me = game.node.me().clone();
    let seated = status.wait_for(|status| {
        let member = match kind {
            Kind::Spectator => status.membership.learners.contains(&me),
            _ => status.membership.voters.contains(&me) && status.role != Role::Learner,
        };
        (member && status.membership_committed)
            || status.stopped.is_some()
            || !status.snapshots_refused.is_empty()
    });
    let seated = tokio::time::timeout_at(deadline, seated).await;
    let failed = match seated {
        Ok(Ok(status)) => match status.snapshots_refused.values().next() {
            Some(SnapshotTooLarge { bytes, max }) => JoinError::SnapshotTooLarge {
                bytes: *bytes,
                max: *max,
            },
            None if status.stopped.is_none() => {
                wanted.had();
                return Ok(entering.came_in());
            }
            None => timeout(),
        },
        _ => timeout(),
    };
    entering.give_back().await;
    Err(failed)
}
