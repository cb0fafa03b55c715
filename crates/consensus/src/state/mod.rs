//! The replicated state: what every node computes from the same log.
//!
//! Seats, client sessions, the turn clock, hash votes, and the game itself. `Replica::apply` is a
//! function of the state and the entry: no clock, no randomness, no I/O. What it decides goes to
//! whoever proposed as an [`Applied`] and to the feed of events as an event.
//!
//! Invariants
//! - two replicas that applied the same entries are equal, byte for byte, in
//!   `Replica::snapshot`;
//! - the game's clock never goes back: a stamp older than the state's is raised to it;
//! - one timeout per turn: the entry counts only if the turn it names is still on and its time is
//!   up by the entry's own stamp.

pub(crate) mod command;
pub mod seats;
pub mod sessions;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod votes;

pub(crate) use snapshot::KeptMsg;

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use crate::events::{Feed, RawEvent, RawTurn, Ruling};
use crate::game::{Malformed, Rules, RulesFactory, TurnInfo, Verdict};
use crate::ids::{ActionKey, ClientId, NodeId, PeerId, SessionId, sha256};
use crate::lobby::proof::Secret;
use crate::log::Position;

use command::plain::{self, PlainAct};
use command::{Body, Command, Configure, Hash, Kind};
use seats::{NoPlace, Place, Seat, SeatTable};
use sessions::{Admission, Kept, KeptResult, Opened, Rejection, SESSION_BYTES_MAX, Sessions};
use votes::{NoVote, Vote, Votes};

/// What an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Nothing that anybody waits for: a blank entry, a membership, a tick, a vote.
    Internal,
    /// An action was decided, now or earlier.
    Decided {
        /// What was decided, with the entry that did.
        kept: Kept,
        /// Whether an earlier entry decided it.
        duplicate: bool,
    },
    /// An action was not applied.
    Rejected(Rejection),
    /// A client's session is open.
    Opened(Opened),
    /// A peer has a place.
    Placed(Place),
    /// A peer got no place.
    NoPlace(NoPlace),
    /// A place was given up, or was not held.
    Vacated(bool),
    /// A timeout took place, or came too late.
    TimedOut(bool),
    /// A vote on a hash does not count.
    NoVote(NoVote),
}

/// A node whose state is not the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node's state after entry {index} is not the others': it must join anew")]
pub struct Desync {
    /// After which entry.
    pub index: u64,
    /// This node's hash.
    pub mine: [u8; 32],
    /// The hash most voters have.
    pub theirs: [u8; 32],
}

/// Settings every node takes from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub session: SessionId,
    pub session_ttl_ms: u64,
    pub hash_every: u64,
    pub outcome_bytes_max: u64,
    /// What only those know that were given the log.
    pub secret: Option<Secret>,
}

/// When the present turn must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Which turn.
    pub turn: u64,
    /// By when, on the game's clock.
    pub at_ms: u64,
}

/// The replicated state of one node.
pub(crate) struct Replica {
    pub(crate) settings: Option<Settings>,
    pub(crate) seats: SeatTable,
    pub(crate) sessions: Sessions,
    pub(crate) now_ms: u64,
    pub(crate) turn: u64,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) applied: Option<Position>,
    pub(crate) votes: Votes,
    pub(crate) game: Box<dyn Rules>,
    rules: RulesFactory,
    voters: BTreeSet<NodeId>,
    feed: Option<Feed>,
    /// Kept in step with [`crate::events::Feed`]; see [`Planted`].
    pub(crate) planted: Planted,
}

/// A state that was read and not taken over.
pub(crate) struct Restored {
    next: Replica,
    at: Position,
    game: Bytes,
}

/// Bugs that the simulator must be able to find. Always none outside its own tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Planted {
    /// Remember only the highest serial of each client.
    pub high_water_sessions: bool,
    /// A timeout counts whatever the turn and the stamp.
    pub unfenced_timeouts: bool,
    /// Every node times turns, not the leader alone.
    pub timer_per_node: bool,
    /// A follower answers a read from what it has applied, without asking the leader.
    pub local_reads: bool,
    /// A change of voters names all of them, and with them everybody who is to be a member.
    pub absolute_voters: bool,
    /// Of two hosts the lower node stays, whoever was there first.
    pub lowest_id_hosts: bool,
    /// A learner gets its vote whatever it has of the log.
    pub promote_at_once: bool,
    /// A proof counts also while a leader is heard.
    pub proof_while_led: bool,
    /// No proof counts.
    pub no_proofs: bool,
    /// What is heard on an app channel is passed on.
    pub relays: bool,
    /// An app frame goes to the first channel there is.
    pub any_channel: bool,
    /// Who was seen once is said to be here for ever.
    pub forgets_nobody: bool,
    /// A hand-over counts as done once the heir was asked.
    pub hands_over_unseen: bool,
    /// A leader that nobody answers goes on as one.
    pub leads_alone: bool,
    /// A witness gives nobody its vote.
    pub idle_witness: bool,
}

/// The index a game sees: entries count from 1.
fn shown(at: Position) -> u64 {
    at.index + 1
}

impl Replica {
    pub(crate) fn new(rules: RulesFactory, feed: Option<Feed>, planted: Planted) -> Self {
        Self {
            settings: None,
            seats: SeatTable::default(),
            sessions: Sessions::default(),
            now_ms: 0,
            turn: 0,
            deadline: None,
            applied: None,
            votes: Votes::default(),
            game: rules.make(),
            rules,
            voters: BTreeSet::new(),
            feed,
            planted,
        }
    }

    /// Applies a command.
    ///
    /// # Errors
    ///
    /// [`Desync`] when the entry proves this node's state wrong. It must not apply more.
    pub(crate) fn apply(&mut self, at: Position, command: &Bytes) -> Result<Applied, Desync> {
        let mut is_vote = false;
        let result = match plain::read(command) {
            Some((stamp_ms, act)) => {
                self.pass_time(stamp_ms);
                let action = command.slice_ref(act.action);
                Ok(self.act(at, act, action))
            }
            None => match Command::decode(command.clone()) {
                Ok(Command {
                    stamp_ms,
                    body: Some(body),
                }) => {
                    self.pass_time(stamp_ms);
                    is_vote = matches!(body, Body::Hash(_));
                    self.dispatch(at, body)
                }
                _ => Ok(Applied::Rejected(Rejection::Malformed)),
            },
        };
        if !is_vote {
            self.note_hash(at);
        }
        self.passed(at);
        result
    }

    /// Passes an entry that is not a command.
    pub(crate) fn pass_blank(&mut self, at: Position) {
        self.note_hash(at);
        self.passed(at);
    }

    /// Passes a membership entry: who votes on hashes.
    pub(crate) fn pass_membership(&mut self, at: Position, voters: BTreeSet<NodeId>) {
        self.voters = voters;
        self.note_hash(at);
        self.passed(at);
    }

    /// The game's clock, which never goes back, and whose sessions end by it.
    fn pass_time(&mut self, stamp_ms: u64) {
        self.now_ms = self.now_ms.max(stamp_ms);
        if let Some(settings) = &self.settings {
            self.sessions.expire(self.now_ms, settings.session_ttl_ms);
        }
    }

    fn passed(&mut self, at: Position) {
        self.applied = Some(at);
        if let Some(feed) = &self.feed {
            feed.advance(shown(at));
        }
    }

    fn dispatch(&mut self, at: Position, body: Body) -> Result<Applied, Desync> {
        Ok(match body {
            Body::Act(act) => self.act(at, (&act).into(), act.action.clone()),
            Body::Open(open) => {
                let (Ok(client), Ok(owner)) =
                    (ClientId::new(&open.client), PeerId::new(&open.owner))
                else {
                    return Ok(Applied::Rejected(Rejection::Malformed));
                };
                let opened =
                    self.sessions
                        .open(&client, &owner, open.nonce, shown(at), self.now_ms);
                opened.map_or_else(Applied::Rejected, Applied::Opened)
            }
            Body::Configure(configure) => {
                self.configure(configure);
                Applied::Internal
            }
            Body::Seat(request) => {
                let (Some(node), Ok(kind)) = (
                    request.node.as_ref().and_then(command::NodeMsg::node),
                    Kind::try_from(request.kind),
                ) else {
                    return Ok(Applied::Rejected(Rejection::Malformed));
                };
                if self.settings.is_none() {
                    return Ok(Applied::NoPlace(NoPlace::NotOpen));
                }
                let taken = self.seats.take(&node, kind);
                taken.map_or_else(Applied::NoPlace, Applied::Placed)
            }
            Body::Vacate(vacate) => match vacate.node.as_ref().and_then(command::NodeMsg::node) {
                Some(node) => Applied::Vacated(self.seats.vacate(&node, vacate.left)),
                None => Applied::Rejected(Rejection::Malformed),
            },
            Body::Timeout(timeout) => Applied::TimedOut(self.time_out(at, timeout.turn)),
            Body::Hash(hash) => return self.vote(at, &hash),
            Body::Tick(_) => Applied::Internal,
        })
    }

    fn act(&mut self, at: Position, act: PlainAct<'_>, action: Bytes) -> Applied {
        let Some((client, owner)) = self.sessions.names(act.client, act.owner) else {
            return Applied::Rejected(Rejection::Malformed);
        };
        if self.planted.high_water_sessions
            && let Some(session) = self.sessions.clients.get(&client)
            && act.serial <= session.highest
            && session.results.get(act.serial).is_none()
        {
            let kept = Kept {
                index: shown(at),
                term: at.term,
                turn: self.turn,
                result: KeptResult::Accepted(Bytes::new()),
            };
            return Applied::Decided {
                kept,
                duplicate: true,
            };
        }
        match self
            .sessions
            .admit(&client, &owner, act.session, act.serial, self.now_ms)
        {
            Admission::Rejected(why) => return Applied::Rejected(why),
            Admission::Duplicate(kept) => {
                return Applied::Decided {
                    kept,
                    duplicate: true,
                };
            }
            Admission::Apply => {}
        }
        let key = ActionKey {
            client,
            serial: act.serial,
        };
        let info = TurnInfo {
            index: shown(at),
            term: at.term,
            turn: self.turn,
            now_ms: self.now_ms,
            place: self.place(&owner),
            player: Some(owner),
            key: Some(key),
        };
        let ruling = if act.expected_turn.is_some_and(|turn| turn != self.turn) {
            Ruling::Fenced
        } else {
            let verdict = self.game.apply(&info, &action);
            self.within_limit(verdict)
        };
        if ruling.is_accepted() {
            self.turn += 1;
            self.start_turn();
        }
        let result = match &ruling {
            Ruling::Fenced => KeptResult::Fenced,
            Ruling::Game(Verdict::Accepted(outcome)) => KeptResult::Accepted(outcome.clone()),
            Ruling::Game(Verdict::Refused(refusal)) => KeptResult::Refused(refusal.clone()),
            Ruling::Game(Verdict::Malformed) => KeptResult::Malformed,
            Ruling::Withheld { accepted, bytes } => KeptResult::Withheld {
                accepted: *accepted,
                bytes: *bytes,
            },
        };
        let kept = Kept {
            index: shown(at),
            term: at.term,
            turn: self.turn,
            result,
        };
        // The event takes over what the game was told.
        let TurnInfo {
            key: Some(key),
            player,
            place,
            ..
        } = info
        else {
            unreachable!("an action has a key")
        };
        self.sessions.keep(&key.client, key.serial, kept.clone());
        self.emit(|this| {
            RawEvent::Turn(RawTurn {
                index: shown(at),
                term: at.term,
                turn: this.turn,
                now_ms: this.now_ms,
                key,
                player,
                place,
                action,
                ruling,
            })
        });
        Applied::Decided {
            kept,
            duplicate: false,
        }
    }

    /// The place of a peer in the game as it stands.
    pub(crate) fn place(&self, peer: &PeerId) -> Option<Place> {
        self.seats.place_of(peer).map(|(place, _)| place)
    }

    /// The game's answer, if it is no larger than every node may keep. What the action did stands
    /// either way: the game has done it.
    fn within_limit(&self, verdict: Verdict) -> Ruling {
        let max = self
            .settings
            .as_ref()
            .map_or(SESSION_BYTES_MAX as u64, |s| s.outcome_bytes_max);
        let (accepted, bytes) = match &verdict {
            Verdict::Accepted(bytes) => (true, bytes.len() as u64),
            Verdict::Refused(bytes) => (false, bytes.len() as u64),
            Verdict::Malformed => return Ruling::Game(verdict),
        };
        if bytes > max {
            return Ruling::Withheld { accepted, bytes };
        }
        Ruling::Game(verdict)
    }

    /// The clock of a new turn starts.
    fn start_turn(&mut self) {
        self.deadline = self.game.time_limit().map(|limit| Deadline {
            turn: self.turn,
            at_ms: self
                .now_ms
                .saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        });
    }

    fn time_out(&mut self, at: Position, turn: u64) -> bool {
        let due = self
            .deadline
            .is_some_and(|deadline| deadline.turn == turn && deadline.at_ms <= self.now_ms);
        if !(due || self.planted.unfenced_timeouts) {
            return false;
        }
        let info = TurnInfo {
            index: shown(at),
            term: at.term,
            turn: self.turn,
            now_ms: self.now_ms,
            key: None,
            player: None,
            place: None,
        };
        self.game.time_out(&info);
        let timed_out = self.turn;
        self.turn += 1;
        self.start_turn();
        self.emit(|this| RawEvent::TimedOut {
            index: shown(at),
            term: at.term,
            turn: timed_out,
            now_ms: this.now_ms,
        });
        true
    }

    fn configure(&mut self, configure: Configure) {
        if self.settings.is_some() {
            return;
        }
        let Some(session) = SessionId::from_bytes(&configure.session) else {
            return;
        };
        self.settings = Some(Settings {
            session,
            session_ttl_ms: configure.session_ttl_ms,
            hash_every: configure.hash_every,
            outcome_bytes_max: match configure.outcome_bytes_max {
                0 => SESSION_BYTES_MAX as u64,
                max => max.min(SESSION_BYTES_MAX as u64),
            },
            secret: Secret::from_bytes(&configure.secret),
        });
        let nodes = |list: &[command::NodeMsg]| -> Vec<NodeId> {
            list.iter().filter_map(command::NodeMsg::node).collect()
        };
        self.seats = SeatTable {
            seats: vec![Seat::default(); configure.seats.min(seats::SEATS_MAX) as usize],
            spectators_max: configure.spectators_max.min(seats::SPECTATORS_MAX),
            wants_witness: configure.witness,
            core: nodes(&configure.core)
                .into_iter()
                .take(seats::CORE_MAX as usize)
                .collect(),
            ..SeatTable::default()
        };
        for node in nodes(&configure.seated) {
            // A seat that does not exist for somebody in the list is a short list of seats.
            let _ = self.seats.take(&node, Kind::Player);
        }
        self.start_turn();
    }

    fn hash_every(&self) -> u64 {
        self.settings.as_ref().map_or(0, |s| s.hash_every)
    }

    /// Notes this node's hash after an entry at which all nodes do.
    fn note_hash(&mut self, at: Position) {
        if votes::is_point(shown(at), self.hash_every()) {
            let hash = self.hash();
            self.votes.note(shown(at), hash);
        }
    }

    /// This node's last hash, while its vote has not been seen.
    pub(crate) fn hash_to_vote(&self, me: &NodeId) -> Option<(u64, [u8; 32])> {
        let applied = self.applied.map_or(0, shown);
        self.votes.to_cast(me, applied, self.hash_every())
    }

    /// Whether a vote would count if it were the next entry.
    pub(crate) fn would_count(&self, vote: &Hash) -> Result<(), NoVote> {
        let next = self.applied.map_or(0, shown) + 1;
        self.read_vote(vote, next).map(|_| ())
    }

    fn read_vote(&self, vote: &Hash, index: u64) -> Result<Vote, NoVote> {
        let node = vote.node.as_ref().and_then(command::NodeMsg::node);
        let vote = Vote {
            at: vote.at,
            node: node.ok_or(NoVote::Malformed)?,
            hash: vote.hash[..].try_into().map_err(|_| NoVote::Malformed)?,
        };
        let every = self.hash_every();
        self.votes.check(&vote, index, every, &self.voters)?;
        Ok(vote)
    }

    fn vote(&mut self, at: Position, vote: &Hash) -> Result<Applied, Desync> {
        let index = shown(at);
        let vote = match self.read_vote(vote, index) {
            Ok(vote) => vote,
            Err(why) => {
                self.votes.refused += 1;
                return Ok(Applied::NoVote(why));
            }
        };
        let (of, theirs, every) = (vote.at, vote.hash, self.hash_every());
        let Some(mine) = self.votes.count(vote, index, every, &self.voters) else {
            return Ok(Applied::Internal);
        };
        // In the order of the log: the entry that proves it, not the one after which the states
        // differ.
        self.emit(|_| RawEvent::Desync {
            index,
            mine,
            theirs,
        });
        Err(Desync {
            index: of,
            mine,
            theirs,
        })
    }

    fn emit(&self, event: impl FnOnce(&Self) -> RawEvent) {
        if let Some(feed) = &self.feed {
            feed.push(event(self));
        }
    }

    /// SHA-256 of the whole state. A game that cannot write its state down is judged by its
    /// turn, its sessions' results and its seats.
    pub(crate) fn hash(&self) -> [u8; 32] {
        sha256(&self.encode_for_hash())
    }

    /// The whole state, if the game can write its own down.
    pub(crate) fn snapshot(&self) -> Option<Bytes> {
        self.rules.can_snapshot.then(|| self.encode())
    }

    /// Reads a state that stands for every entry through `at`, without taking it over.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the bytes are no state of this game.
    pub(crate) fn restored(
        &self,
        at: Position,
        voters: BTreeSet<NodeId>,
        state: &[u8],
    ) -> Result<Restored, Malformed> {
        let mut next = Self::new(self.rules.clone(), None, self.planted);
        let game = next.decode(state)?;
        next.game.restore(&game)?;
        next.voters = voters;
        next.applied = Some(at);
        Ok(Restored { next, at, game })
    }

    /// Replaces the state by one that was read.
    pub(crate) fn take_over(&mut self, restored: Restored) {
        let Restored { mut next, at, game } = restored;
        next.feed = self.feed.take();
        *self = next;
        let turn = self.turn;
        self.emit(|_| RawEvent::Reset {
            index: shown(at),
            term: at.term,
            turn,
            state: game,
        });
        self.passed(at);
    }

    /// [`Replica::restored`], and taken over at once.
    ///
    /// # Errors
    ///
    /// As [`Replica::restored`]; nothing changed then.
    pub(crate) fn install(
        &mut self,
        at: Position,
        voters: BTreeSet<NodeId>,
        state: &[u8],
    ) -> Result<(), Malformed> {
        let restored = self.restored(at, voters, state)?;
        self.take_over(restored);
        Ok(())
    }
}
