//! Who talks on app channels, and who listens. What must hold of it is in [`Books`], and what does
//! not is broken as `AppChannels`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::dice::Dice;
use super::game::Ledger;
use super::ledger::{Account, Books, Channel, To, frame, payload};
use super::machine::Running;
use super::run::Run;
use super::world::{Facts, Watcher, World};
use crate::fabric::{Fabric, Inbound, Lane};
use crate::ids::PeerId;
use crate::session::{AppChannel, ChannelError, ChannelReader, ChannelSendError, GameSession};

/// Frames of noise a millisecond.
const FLOOD: usize = 6;
/// A session looks at what came before it was open as soon as it is.
const OPENS_WITHIN_MS: u64 = 2;

/// One life of a node on the channels.
#[derive(Clone)]
pub(super) struct Talker {
    pub world: World,
    pub watcher: Arc<Watcher>,
    pub names: Arc<[PeerId]>,
}

impl Talker {
    /// Opens both channels. The first is read; the second never.
    ///
    /// # Errors
    ///
    /// As [`GameSession::app_channel`].
    pub(super) fn open(
        session: &GameSession<Ledger>,
    ) -> Result<(AppChannel, ChannelReader, AppChannel), ChannelError> {
        let talk = session.app_channel(Channel::Talk.name())?;
        let reader = talk.incoming()?;
        Ok((talk, reader, session.app_channel(Channel::Noise.name())?))
    }

    /// Says a line, to one or to all, and looks whether it left as often as the session says. `None`
    /// once the session is closed.
    fn says(&self, channel: &AppChannel, on: Channel, to: To) -> Option<()> {
        let line = self.world.facts().books.says(self.watcher.node, on, to);
        let said = payload(on, line);
        let sent = match to {
            To::One(one) => channel.send_to(&self.names[one], &said).map(|()| 1),
            To::All => channel.broadcast(&said),
        };
        let mut facts = self.world.facts();
        let told = facts.books.told(line, *sent.as_ref().unwrap_or(&0) as u64);
        facts.holds("AppChannels", told);
        if on == Channel::Talk {
            facts.note(self.watcher.node, 15, &[line, u64::from(sent.is_ok())]);
        }
        let no_member = matches!(sent, Err(ChannelSendError::NotMember(_)));
        facts.counters.no_member_to_tell += u64::from(no_member);
        (sent != Err(ChannelSendError::Closed)).then_some(())
    }

    /// Says something now and then, to one or to all.
    pub(super) async fn speak(self, channel: AppChannel, mut dice: Dice) {
        let (node, all) = (self.watcher.node, self.names.len());
        loop {
            sleep(Duration::from_millis(dice.range(20, 160))).await;
            if !self.watcher.is_on() {
                return;
            }
            let one = dice.range(0, all as u64) as usize;
            let to = if dice.permille(500) || one == node {
                To::All
            } else {
                To::One(one)
            };
            if self.says(&channel, Channel::Talk, to).is_none() {
                return;
            }
        }
    }

    /// Hears everything that is said, at times late.
    pub(super) async fn listen(self, mut reader: ChannelReader, mut dice: Dice) {
        while let Some(inbound) = reader.recv().await {
            if !self.watcher.is_on() {
                return;
            }
            self.hears(&inbound);
            if dice.permille(20) {
                sleep(Duration::from_millis(dice.range(20, 200))).await;
            }
        }
    }

    fn hears(&self, inbound: &Inbound) {
        let node = self.watcher.node;
        let mut facts = self.world.facts();
        facts.hears(node, &self.names, Channel::Talk, inbound);
        facts.counters.app_heard += 1;
        facts.note(node, 16, &[inbound.frame.len() as u64]);
        let to_one = facts.books.was_to_one(&inbound.frame);
        facts.counters.app_to_one += u64::from(to_one);
    }

    /// Makes noise for as long as the life lasts.
    pub(super) async fn flood(self, channel: AppChannel, from_ms: u64) {
        loop {
            sleep(Duration::from_millis(1)).await;
            if !self.watcher.is_on() {
                return;
            }
            if self.world.facts().at_ms() < from_ms {
                continue;
            }
            for _ in 0..FLOOD {
                // Best effort: who is not connected gets none of it.
                if self.says(&channel, Channel::Noise, To::All).is_none() {
                    return;
                }
            }
        }
    }
}

impl Run {
    /// Peers that ask for a place, and never had one, speak on a channel all the same.
    pub(super) fn strangers_speak(&self) {
        for (node, machine) in self.machines.iter().enumerate() {
            let Some(entering) = &machine.entering else {
                continue;
            };
            let mut facts = self.world.facts();
            if facts.lobby.was_member(&self.names[node]) {
                continue;
            }
            let members = self
                .names
                .iter()
                .filter(|name| facts.lobby.was_member(name));
            let members: Vec<_> = members.cloned().collect();
            let line = facts.books.says(node, Channel::Talk, To::All);
            drop(facts);
            let said = frame(Channel::Talk, line);
            let send = |to: &&PeerId| {
                let sent = entering
                    .peer
                    .send(to, &self.game, Lane::App, said.clone().into());
                sent.is_ok()
            };
            let sent = members.iter().filter(send).count();
            let mut facts = self.world.facts();
            facts.counters.strangers += sent as u64;
            let told = facts.books.told(line, sent as u64);
            facts.holds("AppChannels", told);
        }
    }

    /// A life ends, or the run does: whether the node accounts for every app frame that came to it.
    ///
    /// Not seen: lives that never came into the game or had only just, which looked at nothing yet,
    /// and what comes to a node while it leaves.
    pub(super) fn closes_books(&self, node: usize, running: &Running) {
        if self.now() < running.since_ms + OPENS_WITHIN_MS {
            return;
        }
        let Running {
            session,
            talk,
            noise,
            ..
        } = running;
        let account = Account {
            waiting: (talk.waiting() + noise.waiting()) as u64,
            dropped: talk.dropped() + noise.dropped(),
            unclaimed: session.unclaimed_app_frames(),
            turned_away: session.turned_away_app_frames(),
            overrun: running.peer.overrun(Lane::App),
        };
        let mut facts = self.world.facts();
        let closes = facts.books.closes(node, account);
        facts.holds("AppChannels", closes);
        facts.counters.app_dropped += account.dropped;
        facts.counters.app_turned_away += account.turned_away;
        facts.counters.app_books += 1;
        facts.counters.heard_by_proof += session.sequencer().node().heard_by_proof();
    }

    /// Reads what nobody has read: whether it is the latest of what came, as it was sent.
    ///
    /// Which of the frames that came were turned away is not known here, only how many: where any
    /// was, what waits need not be the last of what came, but must be in its order.
    pub(super) fn reads_noise(&self, node: usize, running: &Running) {
        let Running { session, noise, .. } = running;
        let dropped = noise.dropped();
        let mut facts = self.world.facts();
        let Ok(mut reader) = noise.incoming() else {
            // It is opened, and has no reader, while nothing is wrong.
            let detail = format!("node {node} reads what nobody reads");
            return facts.broken("AppChannels", detail);
        };
        let mut waiting = Vec::new();
        while let Some(inbound) = reader.try_recv() {
            facts.hears(node, &self.names, Channel::Noise, &inbound);
            waiting.extend(Books::number(&inbound.frame));
        }
        let all_in = session.turned_away_app_frames() + session.unclaimed_app_frames() == 0;
        let waits = facts.books.waits(node, &waiting, dropped, all_in);
        facts.holds("AppChannels", waits);
    }
}

impl Facts {
    /// Notes what does not hold.
    pub(super) fn holds(&mut self, invariant: &'static str, holds: Result<(), String>) {
        if let Err(detail) = holds {
            self.broken(invariant, detail);
        }
    }

    fn hears(&mut self, at: usize, names: &[PeerId], on: Channel, inbound: &Inbound) {
        let from = names.iter().position(|name| *name == inbound.from);
        let lobby = &self.lobby;
        let was_member = |node: usize| lobby.was_member(&names[node]);
        let heard = match from {
            Some(from) => (self.books).hears(at, from, on, &inbound.frame, was_member),
            None => Err(format!("node {at} hears {inbound:?}, of nobody there is")),
        };
        self.holds("AppChannels", heard);
    }
}
