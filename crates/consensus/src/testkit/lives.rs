//! The lives of a machine's processes: each begins, comes into the game, and stops, leaves or loses
//! its disk.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Plant;
use super::client::Life;
use super::dice::Dice;
use super::duel;
use super::estranged;
use super::game::Ledger;
use super::handover::Hands;
use super::machine::{
    EVICT_AFTER_MS, Entry, Machine, Passing, Refused, Running, SEATS, Skewed, Wish,
};
use super::mirror::Mirror;
use super::player::Player;
use super::run::{EXCUSED_MS, NAMES, Run};
use super::talk::Talker;
use super::world::Watcher;
use crate::ids::{NodeId, PeerId};
use crate::log::durable::sim_disk::{Crash, SimDisk};
use crate::raft::simulated;
use crate::session::{AppChannel, GameSession, Hooks, Presence, ReturnPolicy};
use crate::state::Planted;
use crate::state::command::Kind;

impl Run {
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
            proof_while_led: plant == Plant::ProofBelievedWhileLed,
            no_proofs: plant == Plant::ProofNeverTaken,
            relays: plant == Plant::AppRelay,
            any_channel: plant == Plant::WrongChannel,
            forgets_nobody: plant == Plant::PresenceKept,
            hands_over_unseen: plant == Plant::HandOverUnseen,
            leads_alone: plant == Plant::LeaderAlone,
            idle_witness: plant == Plant::IdleWitness,
        }
    }

    /// Whether a process may begin: a late second host needs somebody to find.
    pub(super) fn may_begin(&self, node: usize, now: u64) -> bool {
        let answering = |machine: &Machine| machine.running.is_some();
        self.second_host != Some(node) || now <= 600 || self.machines.iter().any(answering)
    }

    /// Keeps the link of a second host to one that answers for the session, or claims it, whole: to
    /// one alone, and for as long as it is there. Who meets nobody that answers while it claims, and
    /// is met by nobody, founds a second session: that is promised to nobody. All its other links
    /// are as everybody's, and this one takes its time to connect.
    pub(super) fn meets(&mut self) {
        let second = self.second_host;
        let answers = |place: &usize| {
            let machine = &self.machines[*place];
            let claims = machine.entering.is_some() && machine.wish == Wish::Host;
            Some(*place) != second && (machine.running.is_some() || claims)
        };
        let other = || (0..self.machines.len()).find(answers);
        self.meets = second.and_then(|_| self.meets.filter(answers).or_else(other));
        self.net.spare(second.zip(self.meets));
    }

    /// A process begins on a machine.
    pub(super) fn begin(&mut self, node: usize) {
        let Some(id) = self.life(node) else { return };
        let nonce = self.dice.next();
        let sync_ms = self.dice.range(0, 4);
        let seed = self.dice.next();
        let planted = self.planted();
        let serves = |(name, machine): (&PeerId, &Machine)| {
            (machine.wish == Wish::Serve).then(|| name.clone())
        };
        let servers = self.names.iter().zip(&self.machines).filter_map(serves);
        let servers = servers.collect();
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
            game: self.game.clone(),
            name: NAMES[node],
            wish: machine.wish,
            incarnation: machine.incarnation,
            roster: self.names.iter().cloned().collect(),
            servers,
            clock: clock.clone(),
            nonce,
            automatic: machine.client.style.automatic,
            early_log: self.scenario.plant == Plant::ReplyBeforeFsync,
            seats: match self.script {
                Some(_) => estranged::SEATS,
                None if self.duel.is_some() => duel::SEATS,
                None => SEATS,
            },
            witness: self.duel.is_some(),
            // Whoever is cut off keeps its place, for the script's sake.
            evict_after: (self.script.is_none()).then_some(Duration::from_millis(EVICT_AFTER_MS)),
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
        facts.books.begins(node);
        facts.counters.restarts += u64::from(lives > 1);
        facts.note(node, 11, &[lives]);
    }

    /// A process is in the game, or knows that it is not.
    pub(super) async fn entered(&mut self, node: usize) {
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
        }
        let came = match task.await {
            Ok(came) => came,
            Err(error) => Err(Refused::Never(error.to_string())),
        };
        match came {
            Ok(session) => {
                watcher.open.store(true, Ordering::Relaxed);
                match self.takes_part(node, &session, &watcher, seed) {
                    Ok((talk, noise)) => {
                        self.machines[node].running = Some(Running {
                            session: Arc::new(session),
                            peer,
                            watcher,
                            clock,
                            talk,
                            noise,
                            since_ms: self.world.facts().at_ms(),
                            presence: Presence::default(),
                            missed: BTreeSet::new(),
                        });
                    }
                    Err(why) => {
                        let detail = format!("node {node} cannot take part: {why}");
                        self.world.facts().broken("NodeLives", detail);
                    }
                }
            }
            Err(why) => {
                watcher.on.store(false, Ordering::Relaxed);
                peer.unplug();
                self.stays_out(node, why);
                let mut facts = self.world.facts();
                let until_ms = facts.at_ms() + EXCUSED_MS;
                facts.lobby.excuse(&watcher.id, until_ms);
            }
        }
    }

    /// A process is not in the game: it tries again, if that is what it must.
    fn stays_out(&mut self, node: usize, why: Refused) {
        let now = self.now();
        let machine = &mut self.machines[node];
        let mut facts = self.world.facts();
        let again_ms = match why {
            Refused::Hosted => {
                machine.wish = Wish::Join(Kind::Player);
                facts.counters.duplicate_hosts += 1;
                20
            }
            Refused::Later => 300,
            Refused::Never(why) => {
                let detail = format!("node {node} did not start: {why}");
                return facts.broken("NodeLives", detail);
            }
        };
        machine.back_at = Some(now + again_ms);
    }

    /// Gives a process that is in the game its client and its talkers. Answers the channel that is
    /// read, and the one that is not.
    fn takes_part(
        &mut self,
        node: usize,
        session: &GameSession<Ledger>,
        watcher: &Arc<Watcher>,
        seed: u64,
    ) -> Result<(AppChannel, AppChannel), String> {
        let machine = &mut self.machines[node];
        let plays = machine.wish.kind() == Kind::Player;
        let style = machine.client.style;
        let by_value = self.scenario.plant == Plant::MatchByValue;
        let sequencer = session.sequencer();
        let mirrored = !style.automatic && !style.speculates;
        let mirror = mirrored.then(|| Mirror::new(sequencer.client().clone(), by_value));
        let mut player = None;
        if plays && style.speculates {
            let started = Player::start(sequencer.clone(), by_value);
            let (started, notices) = started.map_err(|why| why.to_string())?;
            let (world, on) = (self.world.clone(), watcher.clone());
            let watch = started.clone().watch(world.clone(), on.clone());
            machine.tasks.spawn(watch);
            if let Some(notices) = notices {
                let hear = started.clone().hear(notices, world, on);
                machine.tasks.spawn(hear);
            }
            player = Some(started);
        }
        let life = Life {
            sequencer,
            watcher: watcher.clone(),
            again: machine.lives > 1,
            mirror: mirror.map(|mirror| Arc::new(Mutex::new(mirror))),
            player,
        };
        if plays {
            machine.slot.set(Some(life.clone()));
        }
        let follow = machine.client.clone().follow(life, Dice::new(seed, 4));
        machine.tasks.spawn(follow);
        let hands = Hands {
            view: session.node(),
            watcher: watcher.clone(),
            names: self.names.clone().into(),
            until_ms: self.chaos_ms,
        };
        machine.tasks.spawn(hands.hand_over(Dice::new(seed, 12)));
        let talker = Talker {
            world: self.world.clone(),
            watcher: watcher.clone(),
            names: self.names.clone().into(),
        };
        let (talk, reader, noise) = Talker::open(session).map_err(|why| why.to_string())?;
        let listen = talker.clone().listen(reader, Dice::new(seed, 7));
        machine.tasks.spawn(listen);
        if let Some((_, from_ms)) = self.flood.filter(|(at, _)| *at == node) {
            let flood = talker.clone().flood(noise.clone(), from_ms);
            machine.tasks.spawn(flood);
        }
        machine
            .tasks
            .spawn(talker.speak(talk.clone(), Dice::new(seed, 8)));
        Ok((talk, noise))
    }

    /// Whether a peer may come back as another node: a server's vote is in the first entry, and a
    /// majority must stay.
    fn may_go(&self, node: usize, id: &NodeId) -> bool {
        let is_silent =
            |place: &usize| self.machines[*place].running.is_none() || self.net.is_cut_off(*place);
        let places = 0..self.machines.len();
        let silent = places.filter(|place| *place != node && is_silent(place));
        let silent = silent.filter_map(|place| self.life(place)).collect();
        self.hosted
            && self.machines[node].wish != Wish::Serve
            && self.may_stop(node)
            && self.world.facts().lobby.can_lose(id, &silent)
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
    pub(super) fn crash(&mut self, node: usize, seed: u64, back_at: u64) {
        if !self.may_stop(node) {
            return;
        }
        if let Some(running) = &self.machines[node].running {
            self.closes_books(node, running);
        }
        self.notes_leader(node);
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
    pub(super) fn lose_disk(&mut self, node: usize, back_at: u64) {
        let Some(id) = self.life(node) else { return };
        if !self.may_go(node, &id) {
            return;
        }
        self.crash(node, 0, back_at);
        let machine = &mut self.machines[node];
        if machine.back_at.is_none() {
            return;
        }
        machine.disk = SimDisk::new();
        machine.incarnation += 1;
        machine.wish = machine.wish.again();
        let mut facts = self.world.facts();
        facts.lobby.gone.insert(id);
        facts.counters.disks_lost += 1;
    }

    /// A peer leaves for good, and another life of it comes later.
    pub(super) fn leave(&mut self, node: usize, back_at: u64) {
        let Some(id) = self.life(node) else { return };
        if !self.may_go(node, &id) {
            return;
        }
        let seed = self.dice.next();
        if let Some(running) = &self.machines[node].running {
            self.closes_books(node, running);
        }
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

    pub(super) fn left(&mut self, node: usize) {
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
            machine.wish = machine.wish.again();
            machine.back_at = (!machine.for_good).then(|| back_at.max(now + 20));
        }
    }
}
