//! One run: starts the nodes, lets things go wrong as planned, heals, and sees that the game goes
//! on.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::{Client, Life, Slot};
use super::dice::Dice;
use super::hosted::{self, Part};
use super::machine::{
    ADMIT_WITHIN_MS, EVICT_AFTER_MS, Entry, Machine, Passing, Refused, Running, Skewed, Wish,
};
use super::mirror::Mirror;
use super::net::SimNet;
use super::plan::{self, Fault, What};
use super::world::{Watcher, World};
use super::{Outcome, Plant, Scenario, Setting, Violation};
use crate::ids::PeerId;
use crate::log::durable::sim_disk::{Crash, SimDisk};
use crate::raft::{Role, simulated};
use crate::session::{Hooks, ReturnPolicy};
use crate::state::Planted;

const NAMES: [&str; hosted::PEERS] = ["ann", "bob", "cyd", "dee", "eve", "fay", "gus"];
/// Who was troubled may lose its place for so long after.
pub(super) const EXCUSED_MS: u64 = EVICT_AFTER_MS + ADMIT_WITHIN_MS + 500;
/// A hosted game begins slowly, and recovers in the time evictions take.
const HOSTED_MORE_MS: u64 = 1500;

/// What a seed's run is of.
fn is_hosted(seed: u64, scenario: &Scenario) -> bool {
    match scenario.setting {
        Setting::Mixed => seed % 4 == 3,
        Setting::Roster => false,
        Setting::Hosted => true,
    }
}

fn nodes_of(seed: u64, scenario: &Scenario) -> usize {
    if is_hosted(seed, scenario) {
        return hosted::PEERS;
    }
    let wanted = scenario.nodes.unwrap_or(if seed % 8 == 7 { 5 } else { 3 });
    wanted.clamp(1, NAMES.len())
}

fn chaos_ms(seed: u64, scenario: &Scenario) -> u64 {
    let more = if is_hosted(seed, scenario) {
        HOSTED_MORE_MS
    } else {
        0
    };
    scenario.chaos_ms + more
}

pub(super) fn faults_of(seed: u64, scenario: &Scenario) -> Vec<Fault> {
    let nodes = nodes_of(seed, scenario);
    let chaos_ms = chaos_ms(seed, scenario);
    if is_hosted(seed, scenario) {
        plan::hosted(seed, nodes, chaos_ms)
    } else {
        plan::roster(seed, nodes, chaos_ms)
    }
}

/// Runs a seed with the faults it plans.
#[must_use]
pub fn run_seed(seed: u64, scenario: &Scenario) -> Outcome {
    run_faults(seed, scenario, &faults_of(seed, scenario))
}

/// Runs a seed with just these faults.
#[must_use]
pub fn run_faults(seed: u64, scenario: &Scenario, faults: &[Fault]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return Outcome {
                seed,
                trace_hash: 0,
                counters: super::Counters::default(),
                violation: Some(Violation {
                    invariant: "Runtime",
                    detail: error.to_string(),
                    at_ms: 0,
                }),
            };
        }
    };
    runtime.block_on(simulated(seed, async {
        let run = Run::new(seed, scenario);
        match run {
            Some(run) => run.play(faults).await,
            None => unreachable!("the simulator's names are names"),
        }
    }))
}

enum Undo {
    Heal(usize, usize),
    Disk(usize),
    Loss,
    Slow,
}

pub(super) struct Run {
    seed: u64,
    scenario: Scenario,
    hosted: bool,
    chaos_ms: u64,
    world: World,
    net: SimNet,
    pub(super) machines: Vec<Machine>,
    pub(super) names: Vec<PeerId>,
    undo: Vec<(u64, Undo)>,
    /// The peer that is about to find out that it is not the only host.
    second_host: Option<usize>,
    dice: Dice,
}

impl Run {
    fn new(seed: u64, scenario: &Scenario) -> Option<Self> {
        let nodes = nodes_of(seed, scenario);
        let hosted = is_hosted(seed, scenario);
        let names: Vec<PeerId> = NAMES[..nodes]
            .iter()
            .map(|name| PeerId::new(name).ok())
            .collect::<Option<_>>()?;
        let parts = if hosted {
            hosted::cast(seed)
        } else {
            let part = |_| Part {
                wish: Wish::Roster,
                begins_ms: 0,
                is_second_host: false,
            };
            (0..nodes).map(part).collect()
        };
        let second_host = parts.iter().position(|part| part.is_second_host);
        let mut dice = Dice::new(seed, 2);
        let world = World::new(nodes);
        let net = SimNet::new(Dice::new(seed, 3), names.clone());
        if let Some(place) = second_host {
            net.spare(place, true);
        }
        let machines = parts
            .iter()
            .enumerate()
            .map(|(node, part)| {
                let slot = Slot::default();
                Machine {
                    disk: SimDisk::new(),
                    lives: 0,
                    incarnation: u64::from(hosted),
                    wish: part.wish,
                    client: Client::new(world.clone(), slot.clone(), node),
                    slot,
                    running: None,
                    entering: None,
                    leaving: None,
                    back_at: Some(part.begins_ms),
                    permille: u32::try_from(dice.range(900, 1101)).unwrap_or(1000),
                    tasks: JoinSet::new(),
                }
            })
            .collect();
        Some(Self {
            seed,
            scenario: *scenario,
            hosted,
            chaos_ms: chaos_ms(seed, scenario),
            world,
            net,
            machines,
            names,
            undo: Vec::new(),
            second_host,
            dice,
        })
    }

    fn now(&self) -> u64 {
        self.world.facts().at_ms()
    }

    fn is_broken(&self) -> bool {
        self.world.facts().violation.is_some()
    }

    fn planted(&self) -> Planted {
        let plant = self.scenario.plant;
        Planted {
            high_water_sessions: plant == Plant::HighWaterSessions,
            unfenced_timeouts: plant == Plant::TimerPerNode,
            timer_per_node: plant == Plant::TimerPerNode,
            local_reads: plant == Plant::LocalReads,
            absolute_voters: plant == Plant::AbsoluteVoterSets,
            lowest_id_hosts: plant == Plant::LowestIdHost,
            promote_at_once: plant == Plant::PromotionWithoutCatchUp,
        }
    }

    /// A process begins on a machine.
    fn begin(&mut self, node: usize) {
        let Some(id) = self.life(node) else { return };
        let nonce = self.dice.next();
        let sync_ms = self.dice.range(0, 4);
        let seed = self.dice.next();
        let planted = self.planted();
        let machine = &mut self.machines[node];
        machine.back_at = None;
        machine.lives += 1;
        machine.disk.set_sync_delay(Duration::from_millis(sync_ms));
        let clock = Skewed::new(machine.permille);
        let watcher = Watcher::new(self.world.clone(), node, id.clone());
        let peer = self.net.plug(node);
        let entry = Entry {
            disk: machine.disk.attach(),
            peer: peer.clone(),
            name: NAMES[node],
            wish: machine.wish,
            incarnation: machine.incarnation,
            roster: self.names.iter().cloned().collect(),
            clock: clock.clone(),
            nonce,
            early_log: self.scenario.plant == Plant::ReplyBeforeFsync,
            return_at: match self.seed % 8 {
                7 => ReturnPolicy::FullMembership,
                _ => ReturnPolicy::Quorum,
            },
            hooks: Hooks {
                observer: watcher.clone(),
                planted,
            },
        };
        let (lives, kind) = (machine.lives, machine.wish.kind());
        machine.entering = Some(Passing {
            task: tokio::spawn(simulated(seed, entry.come())),
            peer,
            watcher,
            clock,
        });
        let mut facts = self.world.facts();
        facts.lobby.begins(&id, kind);
        facts.counters.restarts += u64::from(lives > 1);
        facts.note(node, 11, &[lives]);
    }

    /// A process is in the game, or knows that it is not.
    async fn entered(&mut self, node: usize) {
        let now = self.now();
        let seed = self.dice.next();
        let machine = &mut self.machines[node];
        let done = machine
            .entering
            .take_if(|entering| entering.task.is_finished());
        let Some(Passing {
            task,
            peer,
            watcher,
            clock,
        }) = done
        else {
            return;
        };
        if self.second_host == Some(node) {
            self.second_host = None;
            self.net.spare(node, false);
        }
        let came = match task.await {
            Ok(came) => came,
            Err(error) => Err(Refused::Never(error.to_string())),
        };
        match came {
            Ok(session) => {
                watcher.open.store(true, Ordering::Relaxed);
                let sequencer = session.sequencer();
                let by_value = self.scenario.plant == Plant::MatchByValue;
                let mirror = Mirror::new(sequencer.client().clone(), by_value);
                let life = Life {
                    sequencer,
                    watcher: watcher.clone(),
                    mirror: Arc::new(Mutex::new(mirror)),
                };
                if machine.wish.kind() == crate::state::command::Kind::Player {
                    machine.slot.set(Some(life.clone()));
                }
                let follow = machine.client.clone().follow(life, Dice::new(seed, 4));
                machine.tasks.spawn(follow);
                machine.running = Some(Running {
                    session: Arc::new(session),
                    peer,
                    watcher,
                    clock,
                });
            }
            Err(why) => {
                watcher.on.store(false, Ordering::Relaxed);
                peer.unplug();
                let again_ms = match why {
                    Refused::Hosted => {
                        machine.wish = Wish::Join(crate::state::command::Kind::Player);
                        self.world.facts().counters.duplicate_hosts += 1;
                        20
                    }
                    Refused::Later => 300,
                    Refused::Never(why) => {
                        let detail = format!("node {node} did not start: {why}");
                        self.world.facts().broken("NodeLives", detail);
                        return;
                    }
                };
                machine.back_at = Some(now + again_ms);
                let id = watcher.id.clone();
                self.world.facts().lobby.excuse(&id, now + EXCUSED_MS);
            }
        }
    }

    /// Whether the one that is about to find another host still can.
    fn may_stop(&self, node: usize) -> bool {
        let Some(second) = self.second_host else {
            return true;
        };
        let others = (0..self.machines.len()).filter(|n| *n != node);
        let answering = others
            .filter(|n| self.machines[*n].running.is_some())
            .count();
        node != second && answering > 0
    }

    /// A machine stops, and is back at `back_at`.
    fn crash(&mut self, node: usize, seed: u64, back_at: u64) {
        if !self.may_stop(node) {
            return;
        }
        let machine = &mut self.machines[node];
        let stopped = match (machine.running.take(), machine.entering.take()) {
            (Some(running), _) => {
                // The process is cut off from everything: its end is only tidying up.
                let session = running.session;
                machine.tasks.spawn(async move { session.close().await });
                Some((running.peer, running.watcher))
            }
            (None, Some(entering)) => {
                entering.task.abort();
                Some((entering.peer, entering.watcher))
            }
            (None, None) => None,
        };
        let Some((peer, watcher)) = stopped else {
            return;
        };
        watcher.on.store(false, Ordering::Relaxed);
        machine.slot.set(None);
        peer.unplug();
        machine.disk.crash(Crash::Seeded(seed));
        machine.back_at = Some(back_at);
        let mut facts = self.world.facts();
        facts.lobby.excuse(&watcher.id, back_at + EXCUSED_MS);
        facts.counters.crashes += 1;
        facts.note(node, 12, &[seed]);
    }

    /// A machine stops and its disk is lost: the peer will be another node.
    fn lose_disk(&mut self, node: usize, back_at: u64) {
        let Some(id) = self.life(node) else { return };
        if !self.hosted || !self.may_stop(node) || !self.world.facts().lobby.can_lose(&id) {
            return;
        }
        self.crash(node, 0, back_at);
        let machine = &mut self.machines[node];
        if machine.back_at.is_none() {
            return;
        }
        machine.disk = SimDisk::new();
        machine.incarnation += 1;
        if machine.wish == Wish::Host {
            machine.wish = Wish::Join(crate::state::command::Kind::Player);
        }
        let mut facts = self.world.facts();
        facts.lobby.gone.insert(id);
        facts.counters.disks_lost += 1;
    }

    /// A peer leaves for good, and another life of it comes later.
    fn leave(&mut self, node: usize, back_at: u64) {
        let Some(id) = self.life(node) else { return };
        if !self.hosted || !self.may_stop(node) || !self.world.facts().lobby.can_lose(&id) {
            return;
        }
        let seed = self.dice.next();
        let machine = &mut self.machines[node];
        let Some(running) = machine.running.take() else {
            return;
        };
        machine.slot.set(None);
        let session = running.session;
        let leaving = async move { session.leave(Duration::from_millis(400)).await };
        let passing = Passing {
            task: tokio::spawn(simulated(seed, leaving)),
            peer: running.peer,
            watcher: running.watcher,
            clock: running.clock,
        };
        machine.leaving = Some((passing, back_at));
        let mut facts = self.world.facts();
        facts.lobby.gone.insert(id);
        facts.counters.leaves += 1;
        facts.note(node, 13, &[]);
    }

    fn left(&mut self, node: usize) {
        let now = self.now();
        let machine = &mut self.machines[node];
        let done = machine
            .leaving
            .take_if(|(leaving, _)| leaving.task.is_finished());
        if let Some((leaving, back_at)) = done {
            leaving.watcher.on.store(false, Ordering::Relaxed);
            leaving.peer.unplug();
            machine.disk = SimDisk::new();
            machine.incarnation += 1;
            machine.wish = Wish::Join(machine.wish.kind());
            machine.back_at = Some(back_at.max(now + 20));
        }
    }

    /// Who leads now, of those who say so the one of the highest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let status = |machine: &Machine| {
            let running = machine.running.as_ref()?;
            let status = running.session.node().status().get();
            (status.role == Role::Leader).then_some(status.term)
        };
        let leaders = self.machines.iter().enumerate();
        leaders
            .filter_map(|(n, machine)| Some((status(machine)?, n)))
            .max()
            .map(|(_, n)| n)
    }

    fn excuse(&self, node: usize, until: u64) {
        if let Some(id) = self.life(node) {
            self.world.facts().lobby.excuse(&id, until + EXCUSED_MS);
        }
    }

    fn excuse_all(&self, until: u64) {
        let mut facts = self.world.facts();
        let all = &mut facts.lobby.excused_all;
        *all = (*all).max(until + EXCUSED_MS);
    }

    fn isolate(&mut self, node: usize, until: u64) {
        for other in 0..self.machines.len() {
            if other != node {
                for (from, to) in [(node, other), (other, node)] {
                    self.net.cut(from, to, true);
                    self.undo.push((until, Undo::Heal(from, to)));
                }
            }
        }
        // Its last words may have been of others' silence.
        self.excuse_all(until);
        self.world.facts().counters.partitions += 1;
    }

    fn strike(&mut self, fault: &Fault) {
        let until = self.now() + fault.for_ms;
        match fault.what {
            What::Crash(node, seed) => self.crash(node, seed, until),
            What::CrashLeader(seed) => {
                if let Some(node) = self.leader() {
                    self.crash(node, seed, until);
                }
            }
            What::PowerCut(seed) => {
                for node in 0..self.machines.len() {
                    self.crash(node, seed.wrapping_add(node as u64), until);
                }
            }
            What::OneWay(from, to) => {
                self.net.cut(from, to, true);
                self.undo.push((until, Undo::Heal(from, to)));
                self.excuse(from, until);
                self.excuse(to, until);
                self.world.facts().counters.one_way += 1;
            }
            What::Isolate(node) => self.isolate(node, until),
            What::IsolateLeader => {
                if let Some(node) = self.leader() {
                    self.isolate(node, until);
                }
            }
            What::SlowDisk(node, ms) => {
                let disk = &self.machines[node].disk;
                disk.set_sync_delay(Duration::from_millis(ms));
                self.undo.push((until, Undo::Disk(node)));
                self.excuse_all(until);
                self.world.facts().counters.slow_disks += 1;
            }
            What::Loss(permille) => {
                self.net.set_loss(permille);
                self.undo.push((until, Undo::Loss));
                self.excuse_all(until);
            }
            What::SlowNet(ms) => {
                self.net.set_extra(ms);
                self.undo.push((until, Undo::Slow));
                self.excuse_all(until);
            }
            What::ClockAhead(node, ms) => {
                if let Some(running) = &self.machines[node].running {
                    running.clock.set_ahead(ms);
                    self.excuse_all(until + ms);
                    self.world.facts().counters.clocks_ahead += 1;
                }
            }
            What::LoseDisk(node) => self.lose_disk(node, until),
            What::Leave(node) => self.leave(node, until),
        }
    }

    fn undo_due(&mut self, now: u64) {
        let (due, later) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(u64, Undo)> = due;
        for (_, undo) in due {
            match undo {
                Undo::Heal(from, to) => self.net.cut(from, to, false),
                Undo::Disk(node) => {
                    let disk = &self.machines[node].disk;
                    disk.set_sync_delay(Duration::from_millis(1));
                }
                Undo::Loss => self.net.set_loss(0),
                Undo::Slow => self.net.set_extra(0),
            }
        }
    }

    /// Whether a process may begin: a late second host needs somebody to find.
    fn may_begin(&self, node: usize, now: u64) -> bool {
        let answering = |machine: &Machine| machine.running.is_some();
        self.second_host != Some(node) || now <= 600 || self.machines.iter().any(answering)
    }

    /// A virtual millisecond.
    async fn tick(&mut self) {
        sleep(Duration::from_millis(1)).await;
        let now = self.now();
        let world = self.world.clone();
        self.net.pump(now, |to, frame| world.frame(to, frame));
        self.undo_due(now);
        for node in 0..self.machines.len() {
            self.left(node);
            self.entered(node).await;
            if self.machines[node].back_at.is_some_and(|at| at <= now) && self.may_begin(node, now)
            {
                self.begin(node);
            }
            if let Some(running) = &self.machines[node].running {
                let status = running.session.node().status();
                let status = status.borrow();
                let mut facts = self.world.facts();
                if let Some(why) = &status.stopped {
                    facts.broken("NodeLives", format!("node {node} stopped: {why}"));
                } else if status.role == Role::Leader {
                    facts.leads(node, status.term);
                }
            }
        }
    }

    async fn play(mut self, faults: &[Fault]) -> Outcome {
        let chaos_ms = self.chaos_ms;
        let mut clients = JoinSet::new();
        for (node, machine) in self.machines.iter().enumerate() {
            let dice = |stream| Dice::new(self.seed, 16 + node as u64 * 2 + stream);
            // After the chaos every client still proposes for a while.
            let stop_ms = chaos_ms + 300;
            clients.spawn(machine.client.clone().play(dice(0), stop_ms));
            clients.spawn(machine.client.clone().read(dice(1)));
        }
        let mut faults = faults.iter().peekable();
        while !self.is_broken() && self.now() < chaos_ms {
            let now = self.now();
            while let Some(fault) = faults.next_if(|fault| fault.at_ms <= now) {
                self.strike(fault);
            }
            self.tick().await;
        }
        self.heal();
        let until = chaos_ms + self.scenario.heal_ms + if self.hosted { HOSTED_MORE_MS } else { 0 };
        while !self.is_broken() && !self.is_well() {
            if self.now() >= until {
                let why = self.unwell();
                self.world.facts().broken("Progress", why);
            }
            self.tick().await;
        }
        self.sum_up()
    }

    fn sum_up(&self) -> Outcome {
        let mut facts = self.world.facts();
        let net = self.net.counts();
        let counters = &mut facts.counters;
        counters.lost_frames = net.lost;
        counters.cut_frames = net.cut;
        counters.repeated_frames = net.repeated;
        counters.overtaken_frames = net.overtaken;
        let skewed = |machine: &&Machine| machine.permille.abs_diff(1000) > 10;
        counters.skewed_clocks = self.machines.iter().filter(skewed).count() as u64;
        let lobby = &facts.lobby;
        let (joint, beside) = (lobby.joint_changes, lobby.beside_spectator);
        let (evictions, takeovers) = (lobby.evictions, lobby.takeovers);
        let counters = &mut facts.counters;
        (counters.joint_changes, counters.beside_spectator) = (joint, beside);
        (counters.evictions, counters.takeovers) = (evictions, takeovers);
        Outcome {
            seed: self.seed,
            trace_hash: facts.trace,
            counters: facts.counters,
            violation: facts.violation.clone(),
        }
    }

    fn heal(&mut self) {
        self.net.heal();
        self.undo.clear();
        let now = self.now();
        for machine in &mut self.machines {
            machine.disk.set_sync_delay(Duration::from_millis(1));
            if machine.back_at.is_some() {
                machine.back_at = Some(now);
            }
            if let Some((_, back_at)) = &mut machine.leaving {
                *back_at = now;
            }
        }
    }

    fn applied(&self, node: usize) -> u64 {
        let running = self.machines[node].running.as_ref();
        running.map_or(0, |running| running.session.node().applied())
    }

    /// The nodes whose proposals must be decided, and those that must catch up.
    fn concerned(&self) -> (BTreeSet<usize>, BTreeSet<usize>) {
        if self.hosted {
            return (self.players(), self.listeners());
        }
        let all: BTreeSet<usize> = (0..self.machines.len()).collect();
        (all.clone(), all)
    }

    /// Whether the clients have had their time, everything is decided and every node has it.
    fn is_well(&self) -> bool {
        let facts = self.world.facts();
        let early = facts.at_ms() < self.chaos_ms + 400;
        drop(facts);
        if early || (self.hosted && self.lobby_unwell().is_some()) {
            return false;
        }
        let (players, listeners) = self.concerned();
        let facts = self.world.facts();
        let (target, pending) = (facts.acknowledged, &facts.pending);
        players.iter().all(|node| pending[*node] == 0)
            && listeners.iter().all(|node| self.applied(*node) >= target)
    }

    fn unwell(&self) -> String {
        let applied: Vec<u64> = (0..self.machines.len()).map(|n| self.applied(n)).collect();
        let lobby = self.lobby_unwell().filter(|_| self.hosted);
        let facts = self.world.facts();
        format!(
            "{} ms after the last fault: proposals under way {:?}, applied {applied:?}, \
             acknowledged {}; lobby: {}",
            self.scenario.heal_ms,
            facts.pending,
            facts.acknowledged,
            lobby.unwrap_or("well".to_owned())
        )
    }
}
