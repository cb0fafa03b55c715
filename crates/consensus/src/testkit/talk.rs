//! What is said on app channels, and what must hold of what is heard.
//!
//! Invariants, each broken as `AppChannels`
//! - what is heard was said, on that channel, by who is named as its sender: nobody passes on what
//!   another said;
//! - what was said to one is heard by that one alone;
//! - who was never a member neither hears nor is heard;
//! - of a channel that nobody reads as much waits as may, and the rest is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::dice::Dice;
use super::game::Ledger;
use super::world::{Watcher, World};
use crate::fabric::Inbound;
use crate::ids::PeerId;
use crate::session::{AppChannel, ChannelError, ChannelReader, ChannelSendError, GameSession};

/// What everybody reads, and what nobody does.
pub(super) const TALK: &str = "talk";
pub(super) const NOISE: &str = "noise";
/// Frames of a channel that wait for a reader.
pub(super) const WAITING_MAX: usize = 64;
/// A frame on the network arrives twice at most.
const COPIES_MAX: u64 = 2;
/// Frames of noise a millisecond.
const FLOOD: usize = 6;

/// Who may hear a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    All,
    One(usize),
    /// It was not sent after all.
    Nobody,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    by: usize,
    to: To,
}

/// Everything that was said.
#[derive(Debug, Default)]
pub(super) struct Talk {
    said: Vec<Line>,
    heard: BTreeMap<(u64, usize), u64>,
    /// Frames of noise that arrived at each place in its present life.
    pub noise: BTreeMap<usize, u64>,
}

impl Talk {
    /// Somebody is about to say something; answers what to send.
    pub(super) fn says(&mut self, by: usize, to: To) -> u64 {
        self.said.push(Line { by, to });
        self.said.len() as u64 - 1
    }

    /// A line was not sent.
    pub(super) fn unsaid(&mut self, line: u64) {
        if let Some(line) = self.said.get_mut(line as usize) {
            line.to = To::Nobody;
        }
    }

    /// A line is heard. `was_member` says of a place whether its peer ever was a member.
    pub(super) fn hears(
        &mut self,
        at: usize,
        from: usize,
        line: u64,
        was_member: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("node {at} heard line {line} of node {from}: {why}"));
        let Some(Line { by, to }) = self.said.get(line as usize).copied() else {
            return wrong("nobody said it");
        };
        if by != from {
            return wrong(&format!("node {by} said it"));
        }
        if by == at || !(to == To::All || to == To::One(at)) {
            return wrong(&format!("it was said to {to:?}"));
        }
        if let Some(stranger) = [at, from].into_iter().find(|node| !was_member(*node)) {
            return wrong(&format!("node {stranger} never was a member"));
        }
        let times = self.heard.entry((line, at)).or_default();
        *times += 1;
        if *times > COPIES_MAX {
            return wrong("that often nothing arrives");
        }
        Ok(())
    }

    /// Of `arrived` frames that nobody read, `waiting` wait, `dropped` were dropped, and at most
    /// `elsewhere` went another way.
    pub(super) fn unread(
        arrived: u64,
        waiting: u64,
        dropped: u64,
        elsewhere: u64,
    ) -> Result<(), String> {
        let here = waiting + dropped;
        let full = dropped == 0 || waiting == WAITING_MAX as u64;
        if waiting <= WAITING_MAX as u64 && full && here <= arrived && arrived <= here + elsewhere {
            return Ok(());
        }
        Err(format!(
            "{arrived} frames arrived that nobody reads: {waiting} wait, {dropped} were dropped, \
             {elsewhere} others"
        ))
    }
}

/// A line as it travels, and back.
pub(super) fn payload(line: u64) -> [u8; 8] {
    line.to_le_bytes()
}

fn line_of(frame: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(frame.try_into().ok()?))
}

/// The channel of a frame as it travels.
pub(super) fn channel_of(frame: &[u8]) -> Option<&[u8]> {
    let (len, rest) = frame.split_first()?;
    rest.get(..usize::from(*len))
}

/// A frame of the talk, as it travels, made without a session.
pub(super) fn raw(line: u64) -> Vec<u8> {
    let name = [TALK.len() as u8];
    [&name[..], TALK.as_bytes(), &payload(line)].concat()
}

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
        let talk = session.app_channel(TALK)?;
        let reader = talk.incoming()?;
        Ok((talk, reader, session.app_channel(NOISE)?))
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
            let line = self.world.facts().talk.says(node, to);
            let sent = match to {
                To::One(one) => channel.send_to(&self.names[one], &payload(line)),
                _ => channel.broadcast(&payload(line)).map(|_| ()),
            };
            let mut facts = self.world.facts();
            facts.note(node, 15, &[line, u64::from(sent.is_ok())]);
            match sent {
                Ok(()) => {}
                Err(ChannelSendError::Closed) => return,
                Err(why) => {
                    let no_member = matches!(why, ChannelSendError::NotMember(_));
                    facts.counters.no_member_to_tell += u64::from(no_member);
                    facts.talk.unsaid(line);
                }
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
        let from = self.names.iter().position(|name| *name == inbound.from);
        let mut guard = self.world.facts();
        let facts = &mut *guard;
        let heard = match (from, line_of(&inbound.frame)) {
            (Some(from), Some(line)) => {
                let lobby = &facts.lobby;
                let was_member = |node: usize| lobby.was_member(&self.names[node]);
                facts.talk.hears(node, from, line, was_member)
            }
            _ => Err(format!("node {node} heard {inbound:?}, which nobody says")),
        };
        facts.counters.app_heard += 1;
        let line = line_of(&inbound.frame).unwrap_or(u64::MAX);
        facts.note(node, 16, &[line]);
        let to_one = facts.talk.said.get(line as usize);
        let to_one = to_one.is_some_and(|line| matches!(line.to, To::One(_)));
        facts.counters.app_to_one += u64::from(to_one);
        if let Err(detail) = heard {
            facts.broken("AppChannels", detail);
        }
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
                if channel.broadcast(&[0; 32]) == Err(ChannelSendError::Closed) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(to: To) -> (Talk, u64) {
        let mut talk = Talk::default();
        let line = talk.says(0, to);
        (talk, line)
    }

    #[test]
    fn a_line_is_heard_by_whom_it_was_said_to_and_a_repeated_frame_is_not_wrong() {
        let (mut all, line) = talk(To::All);
        for at in [1, 1, 2] {
            assert_eq!(all.hears(at, 0, line, |_| true), Ok(()));
        }
        let (mut one, line) = talk(To::One(2));
        assert_eq!(one.hears(2, 0, line, |_| true), Ok(()));
    }

    #[test]
    fn a_line_that_was_passed_on_or_overheard_or_never_said_is_found() {
        let (mut all, line) = talk(To::All);
        assert!(all.hears(2, 1, line, |_| true).is_err(), "passed on");
        assert!(all.hears(0, 0, line, |_| true).is_err(), "by itself");
        assert!(all.hears(1, 0, line + 1, |_| true).is_err(), "never said");
        for _ in 0..COPIES_MAX {
            assert_eq!(all.hears(1, 0, line, |_| true), Ok(()));
        }
        assert!(all.hears(1, 0, line, |_| true).is_err(), "once too often");
        let (mut one, line) = talk(To::One(2));
        assert!(one.hears(1, 0, line, |_| true).is_err(), "overheard");
        one.unsaid(line);
        assert!(one.hears(2, 0, line, |_| true).is_err(), "not sent");
    }

    #[test]
    fn who_was_never_a_member_is_found_on_either_side() {
        for stranger in [0, 1] {
            let (mut all, line) = talk(To::All);
            assert!(all.hears(1, 0, line, |node| node != stranger).is_err());
        }
    }

    #[test]
    fn frames_that_are_neither_kept_nor_counted_are_found() {
        let max = WAITING_MAX as u64;
        assert_eq!(Talk::unread(max + 5, max, 5, 0), Ok(()));
        assert_eq!(Talk::unread(max, max, 0, 0), Ok(()));
        assert!(Talk::unread(max + 5, max, 4, 0).is_err(), "not counted");
        assert_eq!(Talk::unread(max + 5, max, 4, 1), Ok(()));
        assert!(Talk::unread(max + 1, max + 1, 0, 0).is_err(), "not bounded");
        assert!(
            Talk::unread(9, 4, 5, 0).is_err(),
            "dropped before it was full"
        );
        assert!(Talk::unread(3, 4, 0, 0).is_err(), "made up");
    }

    #[test]
    fn a_raw_frame_is_what_a_channel_sends() {
        let frame = raw(7);
        assert_eq!(channel_of(&frame), Some(TALK.as_bytes()));
        assert_eq!(line_of(&frame[1 + TALK.len()..]), Some(7));
        assert_eq!(channel_of(&[9, 1]), None);
    }
}
