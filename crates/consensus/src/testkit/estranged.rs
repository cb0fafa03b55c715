//! A member is cut off while everybody it knows goes and others come. When its links are whole again
//! it can follow by their proofs alone, for nobody is left to vouch for them.
//!
//! And one who went shows its own proof, which is good, to members that hear a leader: they must
//! take nothing from it.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message;

use super::dice::Dice;
use super::hosted::Part;
use super::machine::{Passing, Wish};
use super::run::Run;
use crate::fabric::{Inbound, Lane};
use crate::ids::NodeId;
use crate::lobby::wire::{self, Claim, LobbyMsg};
use crate::node::Node;
use crate::raft::wire::{Append, At, Body, EntryMsg, Frame, VoteMsg};
use crate::raft::{lock, simulated};
use crate::state::command::Kind;

/// Peers of such a run: three begin, two come, and one watches.
pub(super) const PEERS: usize = 6;
/// Its seats: who comes needs one before who goes has left.
pub(super) const SEATS: u32 = 5;

/// Whoever begins then comes in when it is let.
const LATE: u64 = u64::MAX;
/// Leaving may take so long.
const LEAVES_WITHIN: Duration = Duration::from_millis(2000);
/// A proof is shown so often.
const SHOWS_EVERY_MS: u64 = 16;
/// Who heard a leader so lately hears one, whatever its clock does meanwhile.
const HEARS_WITHIN: Duration = Duration::from_millis(20);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The three play.
    Gathers,
    /// Two more do.
    Admits,
    /// The first of those who go is out.
    FirstLeaves,
    SecondLeaves,
    /// The links are whole again, then.
    CutOff {
        until_ms: u64,
    },
    Follows,
    Over,
}

/// The script of a run.
pub(super) struct Script {
    step: Step,
    dice: Dice,
    late: Vec<usize>,
    /// Who is cut off, and who goes.
    alone: usize,
    going: Vec<usize>,
    /// The lives that went.
    pub gone: Vec<NodeId>,
    /// Who was shown a proof, and hears next who shows it.
    shown: BTreeSet<usize>,
}

/// The parts of a seed.
pub(super) fn cast(seed: u64) -> Vec<Part> {
    let mut dice = Dice::new(seed, 5);
    let part = |wish, begins_ms| Part {
        wish,
        begins_ms,
        is_second_host: false,
    };
    let mut parts = vec![
        part(Wish::Host, dice.range(0, 100)),
        part(Wish::Join(Kind::Player), dice.range(0, 500)),
        part(Wish::Join(Kind::Player), dice.range(0, 500)),
        part(Wish::Join(Kind::Player), LATE),
        part(Wish::Join(Kind::Player), LATE),
        part(Wish::Join(Kind::Spectator), dice.range(0, 1500)),
    ];
    super::hosted::shuffle(&mut parts, &mut dice);
    parts
}

impl Script {
    pub(super) fn new(seed: u64, parts: &[Part]) -> Self {
        let is_late = |place: &usize| parts[*place].begins_ms == LATE;
        Self {
            step: Step::Gathers,
            dice: Dice::new(seed, 11),
            late: (0..parts.len()).filter(is_late).collect(),
            alone: 0,
            going: Vec::new(),
            gone: Vec::new(),
            shown: BTreeSet::new(),
        }
    }
}

impl Run {
    /// A millisecond of the script, if there is one.
    pub(super) fn estrange(&mut self, now: u64) {
        let Some(mut script) = self.script.take() else {
            return;
        };
        let before = script.step;
        script.step = self.next_step(&mut script, now);
        if script.step != before {
            let facts = &mut self.world.facts();
            facts.note(script.alone, 17, &[script.gone.len() as u64]);
        }
        self.shows_proof(&mut script, now);
        self.script = Some(script);
    }

    fn next_step(&mut self, script: &mut Script, now: u64) -> Step {
        match script.step {
            // Nobody may lead meanwhile.
            Step::CutOff { until_ms } if until_ms <= now => {
                self.cut_off(script.alone, false);
                Step::Follows
            }
            Step::Follows if self.follows(script.alone, &script.late) => {
                self.world.facts().counters.estranged += 1;
                Step::Over
            }
            step => match self.settled_voters() {
                Some(voters) => self.step_of_members(script, &voters, now),
                None => step,
            },
        }
    }

    fn step_of_members(&mut self, script: &mut Script, voters: &BTreeSet<usize>, now: u64) -> Step {
        match script.step {
            Step::Gathers if voters.len() == 3 && now < self.chaos_ms => {
                let mut three: Vec<usize> = voters.iter().copied().collect();
                script.alone = three.remove(script.dice.range(0, 3) as usize);
                script.going = three;
                self.cut_off(script.alone, true);
                for place in &script.late {
                    self.machines[*place].back_at = Some(now + script.dice.range(0, 100));
                }
                self.world.facts().counters.partitions += 1;
                Step::Admits
            }
            Step::Admits if voters.len() == 5 => {
                self.goes_for_good(script.going[0], script);
                Step::FirstLeaves
            }
            Step::FirstLeaves if self.is_out(script.going[0], voters) => {
                self.goes_for_good(script.going[1], script);
                Step::SecondLeaves
            }
            Step::SecondLeaves if self.is_out(script.going[1], voters) => {
                let until_ms = now + script.dice.range(200, 600);
                match script.dice.range(0, 3) {
                    // It is another process that comes back.
                    0 => {
                        let seed = script.dice.next();
                        self.crash(script.alone, seed, now + script.dice.range(50, 150));
                    }
                    // It is needed: without it there is no majority.
                    1 => {
                        let newcomer = script.late[script.dice.range(0, 2) as usize];
                        let seed = script.dice.next();
                        self.crash(newcomer, seed, until_ms + script.dice.range(300, 700));
                    }
                    _ => {}
                }
                Step::CutOff { until_ms }
            }
            step => step,
        }
    }

    /// The places of those who vote, while no change of them is under way.
    fn settled_voters(&self) -> Option<BTreeSet<usize>> {
        let leader = self.machines[self.leader()?].running.as_ref()?;
        let status = leader.session.node().status().get();
        let settled = status.membership_committed && !status.membership.is_joint();
        let place = |node: &NodeId| self.names.iter().position(|name| *name == node.peer);
        settled.then(|| status.membership.voters.iter().filter_map(place).collect())
    }

    fn is_out(&self, place: usize, voters: &BTreeSet<usize>) -> bool {
        !voters.contains(&place) && self.machines[place].leaving.is_none()
    }

    fn follows(&self, place: usize, whom: &[usize]) -> bool {
        let Some(running) = &self.machines[place].running else {
            return false;
        };
        let membership = running.session.node().membership();
        let voters = &membership.voters;
        let knows = |place: &usize| voters.iter().any(|node| node.peer == self.names[*place]);
        whom.iter().all(knows)
    }

    fn cut_off(&self, place: usize, cut: bool) {
        for other in (0..self.machines.len()).filter(|other| *other != place) {
            self.net.cut(place, other, cut);
            self.net.cut(other, place, cut);
        }
    }

    /// A peer leaves, and no later life of it comes. Whoever is cut off cannot be asked whether the
    /// game bears it: the script sees to that.
    fn goes_for_good(&mut self, place: usize, script: &mut Script) {
        let Some(id) = self.life(place) else { return };
        let seed = script.dice.next();
        if let Some(running) = &self.machines[place].running {
            self.closes_books(place, running);
        }
        let machine = &mut self.machines[place];
        let Some(running) = machine.running.take() else {
            return;
        };
        machine.slot.set(None);
        let session = running.session;
        let leaving = async move { session.leave(LEAVES_WITHIN).await };
        let passing = Passing {
            task: tokio::spawn(simulated(seed, leaving)),
            peer: running.peer,
            watcher: running.watcher,
            clock: running.clock,
        };
        machine.leaving = Some((passing, LATE));
        machine.for_good = true;
        script.gone.push(id.clone());
        let mut facts = self.world.facts();
        facts.lobby.gone.insert(id);
        facts.counters.leaves += 1;
    }

    /// Who went shows those that hear a leader that it was let in once, and then that it leads.
    fn shows_proof(&self, script: &mut Script, now: u64) {
        let Some(gone) = script.gone.first() else {
            return;
        };
        let Some(from) = self.names.iter().position(|name| *name == gone.peer) else {
            return;
        };
        if self.machines[from].leaving.is_some() {
            return;
        }
        let shown = std::mem::take(&mut script.shown);
        for (place, machine) in self.machines.iter().enumerate() {
            let Some(running) = &machine.running else {
                continue;
            };
            let node = running.session.sequencer().node().clone();
            let status = node.status().get();
            // Whoever has it in a list still may hear it.
            if node.knows(&gone.peer)
                || !status.membership_committed
                || node.leader_silent_for() > HEARS_WITHIN
            {
                continue;
            }
            let sends = |lane, frame: Vec<u8>| {
                let inbound = Inbound {
                    from: gone.peer.clone(),
                    frame: frame.into(),
                };
                self.net.slip(place, &self.game, lane, inbound);
            };
            if shown.contains(&place) {
                if let Some(frame) = leads(gone, &node) {
                    sends(Lane::Raft, frame);
                }
            } else if now.is_multiple_of(SHOWS_EVERY_MS)
                && let Some(frame) = proves(gone, &node)
            {
                sends(Lane::Lobby, frame);
                script.shown.insert(place);
                self.world.facts().counters.shown_while_led += 1;
            }
        }
    }
}

/// The claim of a node that went, which knows the secret, for one that has it too.
fn proves(gone: &NodeId, to: &Node) -> Option<Vec<u8>> {
    let settings = lock(&to.replica).settings.clone()?;
    let session = settings.session;
    let proof = settings.secret?.prove(session, &gone.peer, &to.me().peer);
    let claim = LobbyMsg::Claim(Claim {
        session,
        holder: gone.clone(),
        nonce: 0,
        established: true,
        term: to.status().borrow().term,
        leader: Some(gone.clone()),
        proof: Some(proof),
    });
    Some(wire::encode(&claim).ok()?.to_vec())
}

/// What a leader of the next term would have a node write, and apply at once.
fn leads(gone: &NodeId, to: &Node) -> Option<Vec<u8>> {
    let session = to.rpc.session()?;
    let term = to.status().borrow().term;
    let last = to.numbers().last?;
    let next = At {
        index: last + 1,
        term: term + 1,
    };
    let append = Append {
        vote: Some(VoteMsg {
            term: term + 1,
            node: Some(gone.into()),
            committed: true,
        }),
        previous: Some(At { index: last, term }),
        entries: vec![EntryMsg {
            at: Some(next),
            ..EntryMsg::default()
        }],
        commit: Some(next),
    };
    let frame = Frame::new(session.to_bytes(), gone, to.me(), 1, Body::Append(append));
    Some(frame.encode_to_vec())
}
