//! One run: starts the nodes, lets things go wrong as planned, heals, and sees that the game goes
//! on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::client::{Client, Life, Slot};
use super::dice::Dice;
use super::early::EarlyLog;
use super::game::Ledger;
use super::net::{SimNet, SimPeer};
use super::plan::{self, Fault, What};
use super::world::{Watcher, World};
use super::{Outcome, Plant, Scenario, Violation};
use crate::config::{Compaction, Limits, Timing};
use crate::events::FeedLimits;
use crate::fabric::Port;
use crate::game::Blueprint;
use crate::ids::{ClientId, GameId, PeerId};
use crate::log::durable::sim_disk::{Crash, SimDisk};
use crate::log::durable::{Driver, DurableOptions};
use crate::log::{DurableLog, LogStore};
use crate::raft::{Role, simulated};
use crate::session::{Clock, GameSession, Hooks, Identity, SessionConfig, game_node_with};
use crate::state::Planted;

const NAMES: [&str; 7] = ["ann", "bob", "cyd", "dee", "eve", "fay", "gus"];

/// A clock that runs a little fast or slow.
struct Skewed {
    begun: Instant,
    permille: u32,
}

impl Clock for Skewed {
    fn now(&self) -> Duration {
        self.begun.elapsed() * self.permille / 1000
    }
}

/// What a seed's run has of nodes, and what goes wrong in it.
fn nodes_of(seed: u64, scenario: &Scenario) -> usize {
    let wanted = scenario.nodes.unwrap_or(if seed % 8 == 7 { 5 } else { 3 });
    wanted.clamp(1, NAMES.len())
}

pub(super) fn faults_of(seed: u64, scenario: &Scenario) -> Vec<Fault> {
    plan::plan(seed, nodes_of(seed, scenario), scenario.chaos_ms)
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

struct Machine {
    disk: SimDisk,
    lives: u64,
    slot: Slot,
    client: Client,
    running: Option<(GameSession<Ledger>, Arc<SimPeer>, Arc<Watcher>)>,
    back_at: Option<u64>,
    permille: u32,
    tasks: JoinSet<()>,
}

enum Undo {
    Heal(usize, usize),
    Disk(usize),
    Loss,
    Slow,
}

struct Run {
    seed: u64,
    scenario: Scenario,
    world: World,
    net: SimNet,
    machines: Vec<Machine>,
    roster: BTreeSet<PeerId>,
    undo: Vec<(u64, Undo)>,
    dice: Dice,
}

impl Run {
    fn new(seed: u64, scenario: &Scenario) -> Option<Self> {
        let nodes = nodes_of(seed, scenario);
        let names: Vec<PeerId> = NAMES[..nodes]
            .iter()
            .filter_map(|name| PeerId::new(name).ok())
            .collect();
        let mut dice = Dice::new(seed, 2);
        let world = World::new(nodes);
        let net = SimNet::new(Dice::new(seed, 3), names.clone());
        let machines = (0..nodes)
            .map(|node| {
                let slot = Slot::default();
                Machine {
                    disk: SimDisk::new(),
                    lives: 0,
                    client: Client::new(world.clone(), slot.clone(), node),
                    slot,
                    running: None,
                    back_at: Some(0),
                    permille: u32::try_from(dice.range(900, 1101)).unwrap_or(1000),
                    tasks: JoinSet::new(),
                }
            })
            .collect();
        Some(Self {
            seed,
            scenario: *scenario,
            world,
            net,
            machines,
            roster: names.into_iter().collect(),
            undo: Vec::new(),
            dice,
        })
    }

    fn now(&self) -> u64 {
        self.world.facts().at_ms()
    }

    fn is_broken(&self) -> bool {
        self.world.facts().violation.is_some()
    }

    async fn start(&mut self, node: usize) -> Result<(), String> {
        let machine = &mut self.machines[node];
        machine.back_at = None;
        machine.lives += 1;
        let sync_ms = self.dice.range(0, 4);
        machine.disk.set_sync_delay(Duration::from_millis(sync_ms));
        let options = DurableOptions {
            segment_bytes: 4096,
            ..DurableOptions::default()
        };
        let log = DurableLog::open(machine.disk.attach(), options, Driver::Task)
            .await
            .map_err(|error| error.to_string())?;
        let log: Arc<dyn LogStore> = match self.scenario.plant {
            Plant::ReplyBeforeFsync => Arc::new(EarlyLog(log)),
            _ => Arc::new(log),
        };
        let clock = Arc::new(Skewed {
            begun: Instant::now(),
            permille: machine.permille,
        });
        let client = ClientId::new(NAMES[node]).map_err(|error| error.to_string())?;
        let nonce = machine.lives;
        let config = SessionConfig {
            timing: Timing::fast(),
            limits: Limits {
                log_kept_after_snapshot: 8,
                snapshot_chunk_bytes: 512,
                ..Limits::default()
            },
            compaction: Some(Compaction {
                entries: 40,
                bytes: 1 << 20,
                age: Duration::from_secs(60),
            }),
            identity: Identity::Durable(client),
            log,
            hash_every: 16,
            events: FeedLimits {
                events_max: 24,
                bytes_max: 1 << 20,
            },
            ..SessionConfig::new(clock, nonce)
        };
        let peer = self.net.plug(node);
        let game = GameId::new("sim").map_err(|error| error.to_string())?;
        let port = Port::open(peer.clone(), game).map_err(|error| error.to_string())?;
        let watcher = Watcher::new(self.world.clone(), node);
        let plant = self.scenario.plant;
        let hooks = Hooks {
            observer: watcher.clone(),
            planted: Planted {
                high_water_sessions: plant == Plant::HighWaterSessions,
                unfenced_timeouts: plant == Plant::TimerPerNode,
                timer_per_node: plant == Plant::TimerPerNode,
                local_reads: plant == Plant::LocalReads,
            },
        };
        let blueprint = Blueprint::with_snapshots(Ledger::default);
        let opening = game_node_with(port, blueprint, self.roster.clone(), config, hooks);
        let session = opening.await.map_err(|error| error.to_string())?;
        watcher.open.store(true, Ordering::Relaxed);
        let life = Life {
            sequencer: session.sequencer(),
            watcher: watcher.clone(),
        };
        machine.slot.set(Some(life.clone()));
        let dice = Dice::new(self.dice.next(), 4);
        machine
            .tasks
            .spawn(machine.client.clone().follow(life, dice));
        machine.running = Some((session, peer, watcher));
        let mut facts = self.world.facts();
        facts.counters.restarts += u64::from(nonce > 1);
        facts.note(node, 11, &[nonce]);
        Ok(())
    }

    fn crash(&mut self, node: usize, seed: u64, back_at: u64) {
        let machine = &mut self.machines[node];
        let Some((session, peer, watcher)) = machine.running.take() else {
            return;
        };
        watcher.on.store(false, Ordering::Relaxed);
        machine.slot.set(None);
        peer.unplug();
        machine.disk.crash(Crash::Seeded(seed));
        machine.back_at = Some(back_at);
        // The process is cut off from everything: its end is only tidying up.
        machine.tasks.spawn(async move { session.close().await });
        let mut facts = self.world.facts();
        facts.counters.crashes += 1;
        facts.note(node, 12, &[seed]);
    }

    /// Who leads now, of those who say so the one of the highest term.
    fn leader(&self) -> Option<usize> {
        let status = |machine: &Machine| {
            let (session, ..) = machine.running.as_ref()?;
            let status = session.node().status().get();
            (status.role == Role::Leader).then_some(status.term)
        };
        let leaders = self.machines.iter().enumerate();
        leaders
            .filter_map(|(n, machine)| Some((status(machine)?, n)))
            .max()
            .map(|(_, n)| n)
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
                self.world.facts().counters.partitions += 1;
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
            }
            What::Loss(permille) => {
                self.net.set_loss(permille);
                self.undo.push((until, Undo::Loss));
            }
            What::SlowNet(ms) => {
                self.net.set_extra(ms);
                self.undo.push((until, Undo::Slow));
            }
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

    /// A virtual millisecond.
    async fn tick(&mut self) {
        sleep(Duration::from_millis(1)).await;
        let now = self.now();
        let world = self.world.clone();
        self.net.pump(now, |to, frame| world.frame(to, frame));
        self.undo_due(now);
        for node in 0..self.machines.len() {
            if self.machines[node].back_at.is_some_and(|at| at <= now)
                && let Err(why) = self.start(node).await
            {
                let detail = format!("node {node} did not start: {why}");
                self.world.facts().broken("NodeLives", detail);
            }
            if let Some((session, ..)) = &self.machines[node].running {
                let status = session.node().status().get();
                let mut facts = self.world.facts();
                if let Some(why) = status.stopped {
                    facts.broken("NodeLives", format!("node {node} stopped: {why}"));
                } else if status.role == Role::Leader {
                    facts.leads(node, status.term);
                }
            }
        }
    }

    async fn play(mut self, faults: &[Fault]) -> Outcome {
        let chaos_ms = self.scenario.chaos_ms;
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
        let until = chaos_ms + self.scenario.heal_ms;
        while !self.is_broken() && !self.is_well() {
            if self.now() >= until {
                let why = self.unwell();
                self.world.facts().broken("Progress", why);
            }
            self.tick().await;
        }
        let facts = self.world.facts();
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
        }
    }

    fn applied(&self, node: usize) -> u64 {
        let running = self.machines[node].running.as_ref();
        running.map_or(0, |(session, ..)| session.node().applied())
    }

    /// Whether the clients have had their time, everything is decided and every node has it.
    fn is_well(&self) -> bool {
        let facts = self.world.facts();
        let (target, pending) = (facts.acknowledged, facts.pending.iter().sum::<usize>());
        let early = facts.at_ms() < self.scenario.chaos_ms + 400;
        drop(facts);
        !early && pending == 0 && (0..self.machines.len()).all(|n| self.applied(n) >= target)
    }

    fn unwell(&self) -> String {
        let applied: Vec<u64> = (0..self.machines.len()).map(|n| self.applied(n)).collect();
        let facts = self.world.facts();
        format!(
            "{} ms after the last fault: proposals under way {:?}, applied {applied:?}, \
             acknowledged {}",
            self.scenario.heal_ms, facts.pending, facts.acknowledged
        )
    }
}
