//! A cluster in miniature that does what admission says, under faults.
//!
//! Invariants
//! - checked at every step: who becomes a learner announced itself lately, who votes had caught up,
//!   no change takes the quorum from the voters that answer, a spectator stays;
//! - once faults stop, the membership becomes what the seats say.

use proptest::prelude::*;

use super::*;
use crate::ids::Incarnation;
use crate::raft::{Membership, Progress, ProgressMap};
use crate::state::command::Kind;
use crate::state::seats::Seat;

const TICK: Duration = Duration::from_millis(100);
const SETTLES_WITHIN: usize = 400;

#[derive(Debug, Clone)]
enum Fault {
    Crash(usize),
    Recover(usize),
    NewLife(usize),
    NewLeader(usize),
    Leave(usize),
    Mute(usize),
}

fn faults() -> impl Strategy<Value = Option<Fault>> {
    let of = |make: fn(usize) -> Fault| (0usize..8).prop_map(move |n| Some(make(n)));
    prop_oneof![
        12 => Just(None),
        2 => of(Fault::Crash),
        4 => of(Fault::Recover),
        1 => of(Fault::NewLife),
        1 => of(Fault::NewLeader),
        1 => of(Fault::Leave),
        1 => of(Fault::Mute),
    ]
}

#[derive(Debug)]
struct Proc {
    kind: Kind,
    up: bool,
    /// Connected, and never announces itself.
    mute: bool,
    left: bool,
    log: u64,
    seen: Duration,
    said: Option<Duration>,
    admission: Admission,
}

#[derive(Debug)]
struct World {
    now: Duration,
    seats: SeatTable,
    membership: Membership,
    committed: bool,
    index: u64,
    last_log: u64,
    leader: NodeId,
    elected: Duration,
    procs: BTreeMap<NodeId, Proc>,
    change: Option<Vec<Membership>>,
    proposal: Option<Step>,
    timing: AdmissionTiming,
    /// Spectators that got the log and did not crash since.
    steady: BTreeSet<NodeId>,
}

fn name(n: usize) -> PeerId {
    PeerId::new(format!("p{n}")).unwrap()
}

impl World {
    fn new() -> Self {
        let host = NodeId::new(name(0), Incarnation(1));
        let mut seats = SeatTable {
            seats: vec![Seat::default(); 4],
            spectators_max: 1,
            wants_witness: true,
            ..SeatTable::default()
        };
        seats.take(&host, Kind::Player).unwrap();
        let mut world = Self {
            now: Duration::ZERO,
            seats,
            membership: Membership {
                voters: [host.clone()].into(),
                ..Membership::default()
            },
            committed: true,
            index: 1,
            last_log: 2,
            leader: host,
            elected: Duration::ZERO,
            procs: BTreeMap::new(),
            change: None,
            proposal: None,
            timing: AdmissionTiming {
                alive_within: Duration::from_millis(400),
                evict_after: Some(Duration::from_secs(3)),
                admit_within: Duration::from_secs(2),
            },
            steady: BTreeSet::new(),
        };
        for n in 0..8 {
            let kind = match n {
                5 | 6 => Kind::Spectator,
                7 => Kind::Witness,
                _ => Kind::Player,
            };
            world.start(NodeId::new(name(n), Incarnation(1)), kind);
        }
        world
    }

    fn start(&mut self, node: NodeId, kind: Kind) {
        let proc = Proc {
            kind,
            up: true,
            mute: false,
            left: false,
            log: 0,
            seen: self.now,
            said: None,
            admission: Admission::new(SessionId(1)),
        };
        self.procs.insert(node, proc);
    }

    /// The last life of a peer.
    fn life(&self, n: usize) -> NodeId {
        let of_peer = |node: &&NodeId| node.peer == name(n);
        self.procs.keys().rfind(of_peer).unwrap().clone()
    }

    fn up(&self, node: &NodeId) -> bool {
        self.procs[node].up
    }

    fn quorum(&self) -> bool {
        self.membership.has_quorum(|node| self.up(node))
    }

    fn fault(&mut self, fault: &Fault) {
        match *fault {
            Fault::Crash(n) => {
                let node = self.life(n);
                self.procs.get_mut(&node).unwrap().up = false;
                self.steady.remove(&node);
            }
            Fault::Recover(n) => {
                let node = self.life(n);
                self.procs.get_mut(&node).unwrap().up = true;
            }
            Fault::NewLife(n) => {
                // A log that is lost for good must leave a quorum of those that may come back.
                let old = self.life(n);
                let lasts = |node: &NodeId| {
                    *node != old && self.procs.keys().all(|p| p.peer != node.peer || p <= node)
                };
                if self.membership.has_quorum(lasts) {
                    let life = Incarnation(old.incarnation.0 + 1);
                    let kind = self.procs[&old].kind;
                    self.fault(&Fault::Crash(n));
                    self.start(NodeId::new(name(n), life), kind);
                }
            }
            Fault::NewLeader(n) => self.elect(n),
            Fault::Leave(n) => {
                let node = self.life(n);
                if self.seats.vacate(&node, true) {
                    self.steady.remove(&node);
                    self.procs.get_mut(&node).unwrap().left = true;
                }
            }
            Fault::Mute(n) => {
                let node = self.life(n);
                let proc = self.procs.get_mut(&node).unwrap();
                proc.mute = !proc.mute;
            }
        }
    }

    /// Whatever the old leader had under way is left behind.
    fn elect(&mut self, n: usize) {
        if !self.quorum() {
            return;
        }
        let voters: Vec<_> = self.membership.voters.iter().cloned().collect();
        let up: Vec<_> = voters.into_iter().filter(|node| self.up(node)).collect();
        let best = up.iter().map(|node| self.procs[node].log).max().unwrap();
        let able: Vec<_> = up
            .iter()
            .filter(|node| self.procs[node].log == best)
            .collect();
        let leader = able[n % able.len()].clone();
        let old = self.leader.clone();
        self.procs.get_mut(&old).unwrap().admission.reset();
        self.procs
            .get_mut(&leader)
            .unwrap()
            .admission
            .member_since
            .clear();
        self.leader = leader;
        self.elected = self.now;
        self.change = None;
        self.proposal = None;
    }

    fn tick(&mut self) {
        self.now += TICK;
        let stuck = !self.up(&self.leader) || !self.membership.voters.contains(&self.leader);
        if stuck {
            self.elect((self.now.as_millis() / 100) as usize);
        }
        if !self.up(&self.leader) {
            return;
        }
        if self.quorum() {
            self.commit();
        }
        self.replicate();
        self.announce();
        self.lead();
        for node in &self.steady {
            assert!(
                self.membership.learners.contains(node) || !self.seats.learners().contains(node),
                "{node} watched and lost the log"
            );
        }
    }

    fn commit(&mut self) {
        self.last_log += 1;
        self.committed = true;
        if let Some(mut rest) = self.change.take()
            && !rest.is_empty()
        {
            self.append(rest.remove(0));
            self.change = Some(rest);
        }
        match self.proposal.take() {
            Some(Step::Seat { node, kind }) => drop(self.seats.take(&node, kind)),
            Some(Step::Vacate { node, left }) => drop(self.seats.vacate(&node, left)),
            _ => {}
        }
    }

    fn append(&mut self, membership: Membership) {
        self.last_log += 1;
        self.index = self.last_log;
        self.committed = false;
        self.membership = membership;
    }

    fn replicate(&mut self) {
        for (node, proc) in &mut self.procs {
            if proc.up && self.membership.contains(node) {
                proc.seen = self.now;
                proc.log = (proc.log + 3).min(self.last_log);
            }
        }
        let leader = self.procs.get_mut(&self.leader).unwrap();
        leader.log = self.last_log;
    }

    fn announce(&mut self) {
        let mut said = Vec::new();
        for (node, proc) in &mut self.procs {
            let due = proc.said.is_none_or(|at| self.now >= at + REANNOUNCE_EVERY);
            let out = !self.membership.contains(node);
            if proc.up && !proc.mute && !proc.left && due && out {
                proc.said = Some(self.now);
                said.push(Announce {
                    node: node.clone(),
                    kind: proc.kind,
                    session: None,
                    member: false,
                    needs_vote: false,
                    begins: false,
                });
            }
        }
        for announce in said {
            for proc in self.procs.values_mut().filter(|proc| proc.up) {
                let from = announce.node.peer.clone();
                let heard = proc
                    .admission
                    .heard_announce(&from, announce.clone(), self.now);
                assert_eq!(heard, Ok(()));
            }
        }
    }

    fn lead(&mut self) {
        let progress: ProgressMap = self
            .procs
            .iter()
            .filter(|(node, _)| self.membership.contains(node))
            .map(|(node, proc)| {
                let heard = proc.seen >= self.elected;
                let known = Progress {
                    matched: heard.then_some(proc.log),
                    acked: heard.then(|| self.now - proc.seen),
                };
                (node.clone(), known)
            })
            .collect();
        let connected = self
            .procs
            .iter()
            .filter(|(_, proc)| proc.up)
            .map(|(node, _)| node.peer.clone())
            .collect();
        let me = self.leader.clone();
        let view = View {
            now: self.now,
            me: &me,
            seats: &self.seats,
            open: true,
            membership: &self.membership,
            membership_committed: self.committed,
            membership_index: self.index,
            last_log: self.last_log,
            progress: &progress,
            connected: &connected,
            change_in_flight: self.change.is_some(),
            proposal_in_flight: self.proposal.is_some(),
            timing: &self.timing,
        };
        let mut admission = std::mem::replace(
            &mut self.procs.get_mut(&me).unwrap().admission,
            Admission::new(SessionId(1)),
        );
        let steps = admission.step(&view);
        self.procs.get_mut(&me).unwrap().admission = admission;
        for step in steps {
            self.perform(step, &progress);
        }
    }

    fn perform(&mut self, step: Step, progress: &ProgressMap) {
        let mut next = self.membership.clone();
        match &step {
            Step::Answer { .. } => return,
            Step::Seat { .. } | Step::Vacate { .. } => {
                assert!(self.proposal.is_none());
                if let Step::Vacate { node, .. } = &step {
                    assert!(!self.steady.contains(node), "{node} watches and is put out");
                }
                self.proposal = Some(step);
                return;
            }
            Step::AddLearner(node) => {
                let said = self.procs[node].said.expect("announced");
                assert!(self.now < said + ANNOUNCEMENT_LASTS, "{node} not lately");
                assert!(self.procs[node].up, "{node} is not connected");
                next.learners.insert(node.clone());
            }
            Step::Promote(node) => {
                assert!(next.learners.remove(node), "{node} is no learner");
                assert!(self.procs[node].log >= self.index, "{node} lacks entries");
                next.voters.insert(node.clone());
            }
            Step::Remove(node) => {
                assert!(next.learners.remove(node) | next.voters.remove(node));
            }
            Step::FinishJoint => {
                assert!(next.is_joint());
                next.voters = next.joint.pop().unwrap();
                next.joint.clear();
            }
            Step::HandOver(to) => {
                assert!(self.seats.voters().contains(to) && next.voters.contains(to));
                assert!(
                    !self.seats.voters().contains(&self.leader),
                    "it has a place"
                );
                // Who asks it may be lost, and another elected.
                self.elect((self.now.as_millis() / 100) as usize);
                return;
            }
        }
        assert!(self.change.is_none() && self.committed, "one at a time");
        let answers = |node: &NodeId| {
            let acked = progress.get(node).and_then(|p| p.acked);
            *node == self.leader || acked.is_some_and(|ago| ago <= self.timing.alive_within)
        };
        if next.voters != self.membership.voters && step != Step::FinishJoint {
            assert!(
                self.membership.has_quorum(answers),
                "no quorum before {step:?}"
            );
            assert!(next.has_quorum(answers), "no quorum after {step:?}");
            let mut joint = next.clone();
            joint.joint = vec![self.membership.voters.clone(), next.voters.clone()];
            joint.voters = &self.membership.voters | &next.voters;
            self.append(joint);
            self.change = Some(vec![next]);
        } else {
            self.append(next);
            self.change = Some(Vec::new());
        }
    }

    fn settled(&self) -> bool {
        !self.membership.is_joint()
            && self.membership.voters == self.seats.voters()
            && self.membership.learners == self.seats.learners()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_membership_becomes_what_the_seats_say_whatever_happened(
        plan in proptest::collection::vec(faults(), 0..200),
    ) {
        let mut world = World::new();
        for fault in plan {
            if let Some(fault) = fault {
                world.fault(&fault);
            }
            world.tick();
            if world.change.is_some() || world.proposal.is_some() {
                // What was begun while it was away may still put it out.
                continue;
            }
            let watching = world.membership.learners.iter().filter(|node| {
                let proc = &world.procs[*node];
                proc.up && proc.kind == Kind::Spectator && world.seats.learners().contains(node)
            });
            let watching: Vec<_> = watching.cloned().collect();
            world.steady.extend(watching);
        }
        for n in 0..8 {
            world.fault(&Fault::Recover(n));
            let node = world.life(n);
            let proc = world.procs.get_mut(&node).unwrap();
            (proc.mute, proc.left) = (false, false);
        }
        let mut calm = 0;
        for _ in 0..SETTLES_WITHIN {
            world.tick();
            calm = if world.settled() { calm + 1 } else { 0 };
        }
        prop_assert!(calm > SETTLES_WITHIN / 4, "{:?} {:?}", world.membership, world.seats);
        let lives: BTreeSet<_> = world.membership.voters.iter().map(|node| &node.peer).collect();
        prop_assert_eq!(lives.len(), world.membership.voters.len(), "two lives of a peer vote");
        prop_assert_eq!(world.seats.free_seats(), 0, "five players want four seats");
        prop_assert!(world.seats.witness.is_some());
        prop_assert_eq!(world.seats.gallery.len(), 1);
    }
}
