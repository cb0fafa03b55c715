//! What must hold of who hosts, who sits and who votes, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use crate::ids::{NodeId, PeerId, SessionId};
use crate::log::{Record, RecordKind};
use crate::raft::wire::MembershipMsg;
use crate::state::command::{Kind, NodeMsg};
use crate::state::seats::{Place, SeatTable};

/// A seat that was given so lately may not be known yet to a leader that takes a member out.
const SETTLED_MS: u64 = 100;

/// A member list, as it stands in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub halves: Vec<BTreeSet<NodeId>>,
    pub nodes: BTreeSet<NodeId>,
}

impl Members {
    fn read(record: &Record) -> Option<Self> {
        let msg = MembershipMsg::decode(record.body.clone()).ok()?;
        let set = |nodes: &[NodeMsg]| nodes.iter().filter_map(NodeMsg::node).collect();
        Some(Self {
            halves: msg.halves.iter().map(|half| set(&half.nodes)).collect(),
            nodes: set(&msg.nodes),
        })
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        self.halves.iter().flatten().cloned().collect()
    }

    /// Who votes once the change is over.
    fn goal(&self) -> BTreeSet<NodeId> {
        self.halves.last().cloned().unwrap_or_default()
    }

    /// Whether those of whom `stays` holds are a majority of every half.
    pub(super) fn survive(&self, stays: impl Fn(&NodeId) -> bool) -> bool {
        self.halves
            .iter()
            .all(|half| half.iter().filter(|node| stays(node)).count() > half.len() / 2)
    }
}

/// A node's log, as far as members go.
#[derive(Default)]
struct Held {
    /// The highest entry it ever had.
    last: u64,
    /// The lists in it, by entry.
    lists: BTreeMap<u64, Members>,
}

/// An invariant that does not hold, and why.
pub(super) type Broken = (&'static str, String);

/// What is known of the lobby.
#[derive(Default)]
pub(super) struct Lobby {
    pub session: Option<SessionId>,
    /// What each node asked to be.
    kinds: BTreeMap<NodeId, Kind>,
    held: BTreeMap<NodeId, Held>,
    /// Where a list was written, in which term, by whoever led then.
    decided: BTreeSet<(u64, u64)>,
    /// Peers that stood in a list, whatever became of it.
    members: BTreeSet<PeerId>,
    /// The lists that were applied.
    committed: BTreeMap<u64, Members>,
    seats: Option<(u64, SeatTable)>,
    /// When each place was given.
    given: BTreeMap<NodeId, u64>,
    /// Lives whose log is gone: they left, or their disk was lost.
    pub gone: BTreeSet<NodeId>,
    /// Until when a node may lose its place without having left.
    excused: BTreeMap<NodeId, u64>,
    pub excused_all: u64,
    pub joint_changes: u64,
    pub beside_spectator: u64,
    pub evictions: u64,
    pub takeovers: u64,
}

impl Lobby {
    /// A node begins, to be `kind`.
    pub(super) fn begins(&mut self, node: &NodeId, kind: Kind) {
        self.kinds.insert(node.clone(), kind);
    }

    /// Whether a peer ever was a member, as far as anybody's log went.
    pub(super) fn was_member(&self, peer: &PeerId) -> bool {
        self.members.contains(peer)
    }

    /// A session was founded.
    pub(super) fn founded(&mut self, by: usize, session: SessionId) -> Option<Broken> {
        let known = *self.session.get_or_insert(session);
        (known != session).then(|| {
            let detail = format!("node {by} founded {session} beside {known}");
            ("OneHost", detail)
        })
    }

    pub(super) fn excuse(&mut self, node: &NodeId, until_ms: u64) {
        let until = self.excused.entry(node.clone()).or_default();
        *until = until_ms.max(*until);
    }

    /// Whether the game can bear that `more` loses its log.
    ///
    /// No list of members anywhere may lose its majority: not the last one of any log, nor one that
    /// counts again when those after it are cut off. Nor one that whoever leads may be writing now:
    /// that `more` is gone it learns later, and a list it began to write needs its majority for ever.
    /// Nor one without somebody who is `silent` now: it may be put out before it is back, and `more`
    /// is needed until it is gone (hosted seed 1082).
    pub(super) fn can_lose(&self, more: &NodeId, silent: &BTreeSet<NodeId>) -> bool {
        let stays = |node: &NodeId| node != more && !self.gone.contains(node);
        let decided = self.committed.last_key_value().map_or(0, |(at, _)| *at);
        self.held
            .iter()
            .filter(|(node, _)| stays(node))
            .flat_map(|(_, held)| {
                let last = held.lists.last_key_value().map(|(_, list)| list);
                held.lists
                    .range(decided..)
                    .map(|(_, list)| list)
                    .chain(last)
            })
            .all(|members| {
                let next = self.next_lists(members, more, silent);
                members.survive(stays) && next.iter().all(|next| next.survive(stays))
            })
    }

    /// What may follow on a list by what the seats say: a voter without a seat, or who is silent,
    /// goes, and `more`, who learns and has one, votes.
    fn next_lists(
        &self,
        members: &Members,
        more: &NodeId,
        silent: &BTreeSet<NodeId>,
    ) -> Vec<Members> {
        let ([voters], Some((_, seats))) = (&members.halves[..], &self.seats) else {
            // A change that was begun ends with its own second half.
            return Vec::new();
        };
        let seated = seats.voters();
        let with = |voters: BTreeSet<NodeId>| Members {
            halves: vec![voters],
            nodes: members.nodes.clone(),
        };
        let may_go = |node: &&NodeId| !seated.contains(*node) || silent.contains(*node);
        let less = voters.iter().filter(may_go).map(|goes| {
            let mut voters = voters.clone();
            voters.remove(goes);
            voters
        });
        let learns = members.nodes.contains(more) && !voters.contains(more);
        let more = (learns && seated.contains(more)).then(|| {
            let mut voters = voters.clone();
            voters.insert(more.clone());
            voters
        });
        let next = less.chain(more).filter(|voters| !voters.is_empty());
        next.map(with).collect()
    }

    /// A node took a snapshot that stands for the entries through `index`.
    pub(super) fn installed(&mut self, node: &NodeId, index: u64) {
        let held = self.held.entry(node.clone()).or_default();
        held.last = held.last.max(index);
        // What led to the list in the snapshot is not in this log any more.
        held.lists.retain(|at, _| *at > index);
        if let Some((at, list)) = self.committed.range(..=index).next_back() {
            held.lists.insert(*at, list.clone());
        }
    }

    pub(super) fn wrote(&mut self, at_ms: u64, node: &NodeId, record: &Record) -> Option<Broken> {
        let index = record.at.index;
        let held = self.held.entry(node.clone()).or_default();
        held.last = held.last.max(index);
        held.lists.retain(|at, _| *at < index);
        if record.kind != RecordKind::Membership {
            return None;
        }
        let next = Members::read(record)?;
        let peers = next.nodes.iter().map(|node| &node.peer);
        let new: Vec<_> = peers
            .filter(|peer| !self.members.contains(*peer))
            .cloned()
            .collect();
        self.members.extend(new);
        let before = held.lists.last_key_value().map(|(_, list)| list.clone());
        held.lists.insert(index, next.clone());
        // Who takes a list over from another decides nothing, and may do so long after: the seats
        // are other ones by then (hosted seed 183).
        let decides = self.decided.insert((index, record.at.term));
        let before = before.filter(|_| decides)?;
        self.additive(index, &before, &next)
            .or_else(|| self.watchers(at_ms, index, &before, &next))
            .or_else(|| self.caught_up(node, index, &before, &next))
    }

    fn additive(&self, index: u64, before: &Members, next: &Members) -> Option<Broken> {
        let members = before.nodes.symmetric_difference(&next.nodes).count();
        let (old, new) = (before.goal(), next.goal());
        let voters = old.symmetric_difference(&new).count();
        (members > 1 || voters > 1).then(|| {
            let detail = format!(
                "entry {} changes more than one: {before:?}, {next:?}",
                index + 1
            );
            ("AdditiveMembership", detail)
        })
    }

    fn watchers(&self, at_ms: u64, index: u64, before: &Members, next: &Members) -> Option<Broken> {
        let watches = |node: &&NodeId| self.kinds.get(*node) == Some(&Kind::Spectator);
        if let Some(node) = next.voters().iter().find(watches) {
            let detail = format!("{node} watches, and votes by entry {}", index + 1);
            return Some(("SpectatorsOnlyWatch", detail));
        }
        let (_, seats) = self.seats.as_ref()?;
        let settled = |node: &&NodeId| {
            let given = self.given.get(*node).copied().unwrap_or(0);
            given + SETTLED_MS < at_ms
        };
        let lost = before
            .nodes
            .difference(&next.nodes)
            .filter(watches)
            .find(|node| seats.learners().contains(*node) && settled(node))?;
        let detail = format!("{lost} watches, and entry {} forgets it", index + 1);
        Some(("SpectatorsSurvive", detail))
    }

    /// Who gets a vote has what there was when it became a learner.
    fn caught_up(
        &self,
        writer: &NodeId,
        index: u64,
        before: &Members,
        next: &Members,
    ) -> Option<Broken> {
        let lists = &self.held.get(writer)?.lists;
        for node in next.voters().difference(&before.voters()) {
            let learns = lists
                .range(..index)
                .rev()
                .take_while(|(_, list)| list.nodes.contains(node))
                .last();
            // A writer that began from a snapshot does not know since when.
            let Some((since, _)) = learns else { continue };
            let has = self.held.get(node).map_or(0, |held| held.last);
            if has < *since {
                let detail = format!(
                    "{node} learns since entry {}, has {} entries and gets its vote in entry {}",
                    since + 1,
                    if has == 0 { 0 } else { has + 1 },
                    index + 1
                );
                return Some(("CaughtUp", detail));
            }
        }
        None
    }

    /// Somebody applied a member list for the first time.
    pub(super) fn committed(&mut self, by: &NodeId, index: u64) {
        let Some(lists) = self.held.get(by).map(|held| &held.lists) else {
            return;
        };
        let Some(now) = lists.get(&index) else {
            return;
        };
        let before = self
            .committed
            .last_key_value()
            .map(|(_, list)| list.clone());
        self.committed.insert(index, now.clone());
        let Some(before) = before else { return };
        self.joint_changes += u64::from(now.halves.len() > 1);
        let admitted = !now.voters().is_subset(&before.voters());
        let watched = now
            .nodes
            .iter()
            .any(|node| self.kinds.get(node) == Some(&Kind::Spectator));
        self.beside_spectator += u64::from(admitted && watched);
    }

    /// The seats after entry `index`, which nobody had applied before.
    pub(super) fn sits(&mut self, at_ms: u64, index: u64, seats: &SeatTable) -> Option<Broken> {
        let before = match &self.seats {
            Some((known, _)) if *known >= index => return None,
            Some((_, before)) if before == seats => {
                self.seats = self.seats.take().map(|(_, seats)| (index, seats));
                return None;
            }
            Some((_, before)) => before.clone(),
            None => SeatTable::default(),
        };
        self.seats = Some((index, seats.clone()));
        let broken = self.places(at_ms, index, &before, seats);
        for node in holders(seats) {
            if before.place_of(&node.peer) != seats.place_of(&node.peer) {
                self.given.insert(node, at_ms);
            }
        }
        broken
    }

    fn places(
        &mut self,
        at_ms: u64,
        index: u64,
        before: &SeatTable,
        after: &SeatTable,
    ) -> Option<Broken> {
        for node in holders(before) {
            let (place, _) = before.place_of(&node.peer)?;
            match after.place_of(&node.peer) {
                Some((now, life)) if now == place => {
                    self.takeovers += u64::from(life != node.incarnation);
                }
                Some((now, _)) => {
                    let detail =
                        format!("entry {} moves {node} from {place:?} to {now:?}", index + 1);
                    return Some(("NoLostSeat", detail));
                }
                None => {
                    self.evictions += 1;
                    let excused = self.excused.get(&node).copied().unwrap_or(0);
                    if excused.max(self.excused_all) < at_ms && !self.gone.contains(&node) {
                        let detail = format!(
                            "{node} was there all the time, and entry {} takes {place:?} from it",
                            index + 1
                        );
                        return Some(("NoLostSeat", detail));
                    }
                }
            }
        }
        for node in holders(after) {
            let kept = |seat: &crate::state::seats::Seat| {
                seat.holder.is_none() && seat.kept_for.as_ref() == Some(&node.peer)
            };
            let (place, _) = after.place_of(&node.peer)?;
            if before.place_of(&node.peer).is_some() {
                continue;
            }
            if let (Some(n), Place::Seat(now)) = (before.seats.iter().position(kept), place)
                && now as usize != n
            {
                let detail = format!("{node} comes back to seat {n} and gets {now}");
                return Some(("NoLostSeat", detail));
            }
        }
        None
    }
}

/// Everybody with a place.
fn holders(seats: &SeatTable) -> Vec<NodeId> {
    let watching = seats
        .gallery
        .iter()
        .map(|(peer, life)| NodeId::new(peer.clone(), *life));
    seats
        .players()
        .cloned()
        .chain(watching)
        .chain(seats.witness.clone())
        .collect()
}
