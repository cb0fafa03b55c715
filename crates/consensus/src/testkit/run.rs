//! One run: starts the nodes, lets things go wrong as planned, heals, and sees that the game goes
//! on.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::{Client, Slot, Style};
use super::dice::Dice;
use super::duel::{self, Duel};
use super::estranged::{self, Script};
use super::hosted::{self, Part};
use super::machine::{ADMIT_WITHIN_MS, EVICT_AFTER_MS, Machine, Wish};
use super::net::{Arrival, SimNet};
use super::plan::{self, Fault};
use super::strike::Undo;
use super::world::World;
use super::{Outcome, Scenario, Setting, Violation};
use crate::fabric::Lane;
use crate::ids::{GameId, PeerId};
use crate::log::durable::sim_disk::SimDisk;
use crate::raft::{Role, simulated};

pub(super) const NAMES: [&str; hosted::PEERS] = ["ann", "bob", "cyd", "dee", "eve", "fay", "gus"];
/// Who was troubled may lose its place for so long after.
pub(super) const EXCUSED_MS: u64 = EVICT_AFTER_MS + ADMIT_WITHIN_MS + 500;
/// A hosted game begins slowly, and recovers in the time evictions take.
const HOSTED_MORE_MS: u64 = 1500;

/// What a seed's run is of, when it is not mixed.
fn setting_of(seed: u64, scenario: &Scenario) -> Setting {
    match scenario.setting {
        Setting::Mixed => match seed % 16 {
            3 | 7 | 11 | 15 => Setting::Hosted,
            9 => Setting::Estranged,
            _ => Setting::Roster,
        },
        setting => setting,
    }
}

fn is_hosted(seed: u64, scenario: &Scenario) -> bool {
    setting_of(seed, scenario) != Setting::Roster
}

fn nodes_of(seed: u64, scenario: &Scenario) -> usize {
    match setting_of(seed, scenario) {
        Setting::Hosted if duel::is_one(seed) => return duel::PEERS,
        Setting::Hosted => return hosted::PEERS,
        Setting::Estranged => return estranged::PEERS,
        Setting::Mixed | Setting::Roster => {}
    }
    let wanted = scenario.nodes.unwrap_or(if seed % 8 == 5 { 5 } else { 3 });
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

/// Who floods a channel in this run, and from when on until it is over.
fn flood_of(seed: u64, nodes: usize, chaos_ms: u64) -> Option<(usize, u64)> {
    let mut dice = Dice::new(seed, 6);
    let floods = dice.range(0, 6) == 0;
    let node = dice.range(0, nodes as u64) as usize;
    floods.then(|| (node, chaos_ms.saturating_sub(dice.range(0, 400))))
}

pub(super) fn faults_of(seed: u64, scenario: &Scenario) -> Vec<Fault> {
    let nodes = nodes_of(seed, scenario);
    let chaos_ms = chaos_ms(seed, scenario);
    match setting_of(seed, scenario) {
        Setting::Hosted => plan::hosted(seed, nodes, chaos_ms),
        Setting::Estranged => plan::estranged(seed, nodes, chaos_ms),
        Setting::Mixed | Setting::Roster => plan::roster(seed, nodes, chaos_ms),
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
    super::panics::caught(seed, || play(seed, scenario, faults))
}

fn play(seed: u64, scenario: &Scenario, faults: &[Fault]) -> Outcome {
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

pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) scenario: Scenario,
    pub(super) hosted: bool,
    pub(super) chaos_ms: u64,
    pub(super) world: World,
    pub(super) net: SimNet,
    pub(super) machines: Vec<Machine>,
    pub(super) names: Vec<PeerId>,
    pub(super) undo: Vec<(u64, Undo)>,
    /// The peer that is about to find out that it is not the only host.
    pub(super) second_host: Option<usize>,
    /// Whom it meets, at the least.
    pub(super) meets: Option<usize>,
    pub(super) dice: Dice,
    pub(super) game: GameId,
    /// Who makes noise on a channel nobody reads, and from when on.
    pub(super) flood: Option<(usize, u64)>,
    /// What is done to a member that is cut off from all it knows, if that is what the run is of.
    pub(super) script: Option<Script>,
    /// Whether it is a game of two, and what is known of that.
    pub(super) duel: Option<Duel>,
    /// Since when each leader hears no majority.
    pub(super) unheard_since: Vec<Option<u64>>,
}

impl Run {
    fn new(seed: u64, scenario: &Scenario) -> Option<Self> {
        let nodes = nodes_of(seed, scenario);
        let hosted = is_hosted(seed, scenario);
        let names: Vec<PeerId> = NAMES[..nodes]
            .iter()
            .map(|name| PeerId::new(name).ok())
            .collect::<Option<_>>()?;
        let setting = setting_of(seed, scenario);
        let parts = match setting {
            Setting::Hosted => hosted::cast(seed),
            Setting::Estranged => estranged::cast(seed),
            Setting::Mixed | Setting::Roster => {
                let part = |_| Part {
                    wish: Wish::Roster,
                    begins_ms: 0,
                    is_second_host: false,
                };
                (0..nodes).map(part).collect()
            }
        };
        let script = (setting == Setting::Estranged).then(|| Script::new(seed, &parts));
        let second_host = parts.iter().position(|part| part.is_second_host);
        let mut dice = Dice::new(seed, 2);
        let world = World::new(nodes);
        let net = SimNet::new(Dice::new(seed, 3), names.clone(), Some(world.clone()));
        let machines = parts
            .iter()
            .enumerate()
            .map(|(node, part)| {
                let slot = Slot::default();
                Machine {
                    disk: SimDisk::new(),
                    lives: 0,
                    incarnation: u64::from(hosted && part.wish != Wish::Serve),
                    wish: part.wish,
                    client: Client::new(world.clone(), slot.clone(), node, Style::of(seed, node)),
                    slot,
                    running: None,
                    entering: None,
                    leaving: None,
                    back_at: Some(part.begins_ms),
                    for_good: false,
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
            meets: None,
            dice,
            game: GameId::new("sim").ok()?,
            flood: flood_of(seed, nodes, chaos_ms(seed, scenario)),
            script,
            duel: (setting == Setting::Hosted && duel::is_one(seed)).then(Duel::default),
            unheard_since: vec![None; nodes],
        })
    }

    pub(super) fn now(&self) -> u64 {
        self.world.facts().at_ms()
    }

    fn is_broken(&self) -> bool {
        self.world.facts().violation.is_some()
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

    /// Frames arrive.
    fn pump(&mut self, now: u64) {
        let Self {
            world, net, names, ..
        } = self;
        net.pump(now, |arrival| {
            let Arrival {
                from, to, frame, ..
            } = *arrival;
            world.frame(to, frame);
            if arrival.lane == Lane::App {
                let mut facts = world.facts();
                let brings = facts.books.brings(from, to, frame, arrival.taken);
                facts.holds("AppChannels", brings);
                if !facts.lobby.was_member(&names[to]) {
                    let detail = format!("node {to} never was a member and is sent app frames");
                    facts.broken("AppChannels", detail);
                }
            }
        });
    }

    /// A virtual millisecond.
    async fn tick(&mut self) {
        sleep(Duration::from_millis(1)).await;
        let now = self.now();
        for node in 0..self.machines.len() {
            self.looks_around(node);
        }
        self.pump(now);
        self.undo_due(now);
        if self.hosted && now.is_multiple_of(64) {
            self.strangers_speak();
        }
        self.estrange(now);
        self.duels();
        self.meets();
        self.counts_votes();
        for node in 0..self.machines.len() {
            self.left(node);
            self.entered(node).await;
            if self.machines[node].back_at.is_some_and(|at| at <= now) && self.may_begin(node, now)
            {
                self.begin(node);
            }
            self.notes_leader(node);
        }
    }

    /// Whether a node leads, or has stopped.
    pub(super) fn notes_leader(&self, node: usize) {
        let Some(running) = &self.machines[node].running else {
            return;
        };
        let status = running.session.node().status();
        let status = status.borrow();
        let mut facts = self.world.facts();
        if let Some(why) = &status.stopped {
            facts.broken("NodeLives", format!("node {node} stopped: {why}"));
        } else if status.role == Role::Leader {
            facts.leads(node, status.term);
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
        if !self.is_broken() {
            // What has arrived gets where it belongs.
            sleep(Duration::from_millis(1)).await;
            self.last_words();
        }
        self.sum_up()
    }

    /// What players were told, put together, and what nobody read.
    fn last_words(&self) {
        for node in self.concerned().0 {
            if let Some(player) = self.machines[node].slot.get().and_then(|life| life.player) {
                player.ends(&mut self.world.facts());
            }
        }
        for (node, machine) in self.machines.iter().enumerate() {
            if let Some(running) = &machine.running {
                self.closes_books(node, running);
                self.reads_noise(node, running);
            }
        }
        let flying = self.net.flying(Lane::App);
        let mut facts = self.world.facts();
        let all_sent = facts.books.all_sent(flying);
        facts.holds("AppChannels", all_sent);
        let servers = self.machines.iter().filter(|m| m.wish == Wish::Serve);
        facts.counters.served += u64::from(servers.count() > 0);
        facts.counters.floods += u64::from(self.flood.is_some());
    }

    fn sum_up(&self) -> Outcome {
        let mut facts = self.world.facts();
        let net = self.net.counts();
        let counters = &mut facts.counters;
        counters.lost_frames = net.lost;
        counters.cut_frames = net.cut;
        counters.repeated_frames = net.repeated;
        counters.overtaken_frames = net.overtaken;
        (counters.peers_gone, counters.peers_back) = (net.gone, net.back);
        counters.duels = u64::from(self.duel.is_some());
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
        if self.out_of_sight(&listeners).is_some() {
            return false;
        }
        let facts = self.world.facts();
        let (target, pending) = (facts.acknowledged, &facts.pending);
        players.iter().all(|node| pending[*node] == 0)
            && players.iter().all(|node| self.is_settled(*node, target))
            && listeners.iter().all(|node| self.applied(*node) >= target)
    }

    /// Whether whoever plays there is shown what is agreed, and nothing else.
    fn is_settled(&self, node: usize, target: u64) -> bool {
        let player = self.machines[node].slot.get().and_then(|life| life.player);
        player.is_none_or(|player| player.is_settled(target))
    }

    fn unwell(&self) -> String {
        let applied: Vec<u64> = (0..self.machines.len()).map(|n| self.applied(n)).collect();
        let lobby = self.lobby_unwell().filter(|_| self.hosted);
        let sight = self.out_of_sight(&self.concerned().1);
        let facts = self.world.facts();
        format!(
            "{} ms after the last fault: proposals under way {:?}, applied {applied:?}, \
             acknowledged {}; lobby: {}; presence: {}",
            self.scenario.heal_ms,
            facts.pending,
            facts.acknowledged,
            lobby.unwrap_or("well".to_owned()),
            sight.unwrap_or("well".to_owned())
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_mixed_sweep_plays_rosters_of_three_and_of_five_and_hosted_games_of_each_kind() {
        let scenario = Scenario::default();
        let kind = |seed| (is_hosted(seed, &scenario), nodes_of(seed, &scenario));
        let kinds: BTreeSet<_> = (0..64).map(kind).collect();
        assert_eq!(
            kinds,
            [
                (false, 3),
                (false, 5),
                (true, duel::PEERS),
                (true, hosted::PEERS),
                (true, estranged::PEERS)
            ]
            .into()
        );
    }
}
