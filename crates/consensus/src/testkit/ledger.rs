//! The books of the app channels: every frame that was sent, what the network did to it, and who
//! heard it.
//!
//! Invariants
//! - a frame leaves its sender as it was said, on its channel, and once for each it is for: nobody
//!   passes on what another said;
//! - it is heard as it was said, on its channel, by who it is for, and no more often than the network
//!   brought it there;
//! - who was never a member neither hears nor is heard;
//! - of a channel that nobody reads the latest frames wait, as many as may;
//! - the books close. Of what was sent, with the copies the network made, all was lost, or cut off,
//!   or brought, or is on its way. Of what was brought to a node, all was heard, or waits, or was
//!   dropped and counted, or turned away and counted.

use std::collections::{BTreeMap, BTreeSet};

/// Frames of a channel that wait for a reader.
pub(super) const WAITING_MAX: usize = 64;

/// The channels there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// What everybody reads.
    Talk,
    /// What nobody does.
    Noise,
}

impl Channel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Talk => "talk",
            Self::Noise => "noise",
        }
    }
}

/// Who a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    All,
    One(usize),
}

#[derive(Debug, Clone, Copy)]
struct Line {
    by: usize,
    channel: Channel,
    to: To,
    /// Frames of it that the network was given.
    sent: u64,
}

/// What the network does with a frame it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The link is cut.
    Cut,
    Lost,
    /// So many copies of it are on their way.
    Flies(u64),
}

/// What a node says of the frames that came to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Frames that wait in the channels.
    pub waiting: u64,
    /// Frames the channels dropped, for nobody read them in time.
    pub dropped: u64,
    /// Frames for channels that were not open.
    pub unclaimed: u64,
    /// Frames of peers the node did not know as members.
    pub turned_away: u64,
    /// Frames that were dropped before the session looked at them.
    pub overrun: u64,
}

/// What came to one life of a node.
#[derive(Debug, Default)]
struct Inbox {
    /// How often the network brought each line.
    brought: BTreeMap<u64, u64>,
    heard: BTreeMap<u64, u64>,
    /// The lines of noise, as they came.
    noise: Vec<u64>,
    brought_all: u64,
    heard_all: u64,
}

/// The books of a run.
#[derive(Debug, Default)]
pub(super) struct Books {
    lines: Vec<Line>,
    /// Which line went to whom.
    given: BTreeSet<(u64, usize)>,
    inboxes: BTreeMap<usize, Inbox>,
    sent: u64,
    copied: u64,
    lost: u64,
    arrived: u64,
}

type Wrong<T = ()> = Result<T, String>;

/// A frame of a line, as a session sends it.
pub(super) fn frame(channel: Channel, line: u64) -> Vec<u8> {
    let name = channel.name().as_bytes();
    [&[name.len() as u8][..], name, &payload(channel, line)].concat()
}

/// What is said in a line: its number, and as many other bytes as may be changed on the way.
pub(super) fn payload(channel: Channel, line: u64) -> Vec<u8> {
    let salt = channel.name().len() as u64;
    let more = (0..line % 24).map(|n| (line.wrapping_mul(31) ^ (n * 7 + salt)) as u8);
    line.to_le_bytes().into_iter().chain(more).collect()
}

/// The line of a frame that is one, to its last byte.
fn read(bytes: &[u8]) -> Option<(Channel, u64)> {
    let (len, rest) = bytes.split_first()?;
    let (name, said) = rest.split_at_checked(usize::from(*len))?;
    let channel = [Channel::Talk, Channel::Noise]
        .into_iter()
        .find(|channel| channel.name().as_bytes() == name)?;
    let line = Books::number(said)?;
    (payload(channel, line) == said).then_some((channel, line))
}

impl Books {
    /// Somebody is about to say something; answers the number of the line.
    pub(super) fn says(&mut self, by: usize, channel: Channel, to: To) -> u64 {
        self.lines.push(Line {
            by,
            channel,
            to,
            sent: 0,
        });
        self.lines.len() as u64 - 1
    }

    /// The number of the line whose payload this is.
    pub(super) fn number(payload: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(payload.get(..8)?.try_into().ok()?))
    }

    /// Whether a line was for one alone.
    pub(super) fn was_to_one(&self, payload: &[u8]) -> bool {
        let line = Self::number(payload).and_then(|line| self.lines.get(line as usize));
        line.is_some_and(|line| matches!(line.to, To::One(_)))
    }

    /// The network is given a frame.
    pub(super) fn sends(&mut self, by: usize, to: usize, bytes: &[u8], fate: Fate) -> Wrong {
        self.sent += 1;
        match fate {
            Fate::Cut | Fate::Lost => self.lost += 1,
            Fate::Flies(copies) => self.copied += copies.saturating_sub(1),
        }
        let wrong = |why: &str| Err(format!("node {by} sends node {to} {bytes:?}: {why}"));
        let Some((channel, number)) = read(bytes) else {
            return wrong("nobody said it");
        };
        let Some(line) = self.lines.get_mut(number as usize) else {
            return wrong("nobody has said it yet");
        };
        if line.by != by {
            return wrong(&format!("node {} said it", line.by));
        }
        if line.channel != channel {
            return wrong(&format!("it was said on {:?}", line.channel));
        }
        if to == by || !(line.to == To::All || line.to == To::One(to)) {
            return wrong(&format!("it was said to {:?}", line.to));
        }
        line.sent += 1;
        if !self.given.insert((number, to)) {
            return wrong("it was sent there before");
        }
        Ok(())
    }

    /// Who said a line is told to how many it was sent.
    pub(super) fn told(&self, line: u64, sent: u64) -> Wrong {
        match self.lines.get(line as usize) {
            Some(line) if line.sent == sent => Ok(()),
            known => Err(format!(
                "line {line} was sent to {sent}, says its sender: {known:?}"
            )),
        }
    }

    /// A life begins there, to which nothing has come.
    pub(super) fn begins(&mut self, at: usize) {
        self.inboxes.insert(at, Inbox::default());
    }

    /// The network brings a frame. Whether anybody takes it is not its affair.
    pub(super) fn brings(&mut self, from: usize, to: usize, bytes: &[u8], taken: bool) -> Wrong {
        self.arrived += 1;
        let line = read(bytes).filter(|(_, line)| self.given.contains(&(*line, to)));
        let Some((channel, line)) = line else {
            return Err(format!("node {to} gets {bytes:?} of node {from}, unsent"));
        };
        if taken {
            let inbox = self.inboxes.entry(to).or_default();
            *inbox.brought.entry(line).or_default() += 1;
            inbox.brought_all += 1;
            if channel == Channel::Noise {
                inbox.noise.push(line);
            }
        }
        Ok(())
    }

    /// Something is heard on a channel. `was_member` says of a place whether its peer ever was a
    /// member.
    pub(super) fn hears(
        &mut self,
        at: usize,
        from: usize,
        channel: Channel,
        said: &[u8],
        was_member: impl Fn(usize) -> bool,
    ) -> Wrong {
        let inbox = self.inboxes.entry(at).or_default();
        inbox.heard_all += 1;
        let wrong = |why: &str| {
            Err(format!(
                "node {at} hears {said:?} of node {from} on {channel:?}: {why}"
            ))
        };
        let Some(number) = Self::number(said) else {
            return wrong("nobody said it");
        };
        let Some(line) = self.lines.get(number as usize).copied() else {
            return wrong("nobody has said it yet");
        };
        if line.by != from {
            return wrong(&format!("node {} said it", line.by));
        }
        if line.channel != channel {
            return wrong(&format!("it was said on {:?}", line.channel));
        }
        if payload(channel, number) != said {
            return wrong("it was said otherwise");
        }
        if from == at || !(line.to == To::All || line.to == To::One(at)) {
            return wrong(&format!("it was said to {:?}", line.to));
        }
        if let Some(stranger) = [at, from].into_iter().find(|node| !was_member(*node)) {
            return wrong(&format!("node {stranger} never was a member"));
        }
        let times = inbox.heard.entry(number).or_default();
        *times += 1;
        let brought = inbox.brought.get(&number).copied().unwrap_or(0);
        if *times > brought {
            return wrong(&format!("it came {brought} times"));
        }
        Ok(())
    }

    /// These lines of noise wait at a node, where frames may have been turned away or not. Nobody
    /// has read any.
    pub(super) fn waits(&self, at: usize, waiting: &[u64], dropped: u64, all_in: bool) -> Wrong {
        let came = self.inboxes.get(&at).map_or(&[][..], |inbox| &inbox.noise);
        let wrong = |why: &str| {
            Err(format!(
                "{why}: at node {at} wait {waiting:?}, {dropped} were dropped, {} came",
                came.len()
            ))
        };
        if waiting.len() > WAITING_MAX {
            return wrong("more waits than may");
        }
        if dropped > 0 && waiting.len() < WAITING_MAX {
            return wrong("frames were dropped while there was room");
        }
        if all_in && !came.ends_with(waiting) {
            return wrong("other frames wait than the latest");
        }
        let mut came = came.iter();
        if !waiting.iter().all(|line| came.any(|other| other == line)) {
            return wrong("frames wait in another order than they came");
        }
        Ok(())
    }

    /// Whether all that came to a node's present life is accounted for.
    pub(super) fn closes(&self, at: usize, account: Account) -> Wrong {
        let Account {
            waiting,
            dropped,
            unclaimed,
            turned_away,
            overrun,
        } = account;
        let inbox = self.inboxes.get(&at);
        let (brought, heard) = inbox.map_or((0, 0), |inbox| (inbox.brought_all, inbox.heard_all));
        if brought == heard + waiting + dropped + unclaimed + turned_away + overrun {
            return Ok(());
        }
        Err(format!(
            "{brought} frames came to node {at}, {heard} were heard: {account:?}"
        ))
    }

    /// Whether all that was sent is accounted for, with so many copies on their way.
    pub(super) fn all_sent(&self, flying: u64) -> Wrong {
        if self.sent + self.copied == self.lost + self.arrived + flying {
            return Ok(());
        }
        Err(format!(
            "{} frames were sent and {} copied; {} were lost, {} arrived, {flying} are on their way",
            self.sent, self.copied, self.lost, self.arrived
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: Channel = Channel::Talk;

    /// A line of node 0's that the network was given for node 1 and brought there so often.
    fn brought(to: To, times: u64) -> (Books, u64) {
        let mut books = Books::default();
        // Not the first: its payload has more than its number.
        books.says(2, Channel::Noise, To::All);
        let line = books.says(0, TALK, to);
        let bytes = frame(TALK, line);
        books.begins(1);
        books.sends(0, 1, &bytes, Fate::Flies(times)).unwrap();
        for _ in 0..times {
            books.brings(0, 1, &bytes, true).unwrap();
        }
        (books, line)
    }

    fn hears(books: &mut Books, at: usize, from: usize, line: u64) -> Wrong {
        books.hears(at, from, TALK, &payload(TALK, line), |_| true)
    }

    #[test]
    fn what_was_said_is_heard_as_often_as_it_came_and_the_books_close() {
        for to in [To::All, To::One(1)] {
            let (mut books, line) = brought(to, 2);
            assert_eq!(books.told(line, 1), Ok(()));
            assert_eq!(hears(&mut books, 1, 0, line), Ok(()));
            let waits = Account {
                waiting: 1,
                ..Account::default()
            };
            assert_eq!(books.closes(1, waits), Ok(()));
            assert_eq!(hears(&mut books, 1, 0, line), Ok(()));
            assert_eq!(books.closes(1, Account::default()), Ok(()));
            assert_eq!(books.all_sent(0), Ok(()));
            let to_one = to == To::One(1);
            assert_eq!(books.was_to_one(&payload(TALK, line)), to_one);
        }
    }

    #[test]
    fn what_is_heard_more_often_than_it_came_is_found() {
        let (mut books, line) = brought(To::All, 1);
        assert_eq!(hears(&mut books, 1, 0, line), Ok(()));
        assert!(hears(&mut books, 1, 0, line).is_err());
        // What came to the life before came to nobody that is there now.
        let (mut books, line) = brought(To::All, 1);
        books.begins(1);
        assert!(hears(&mut books, 1, 0, line).is_err());
    }

    #[test]
    fn what_was_passed_on_is_found_where_it_leaves_and_where_it_is_heard() {
        let (mut books, line) = brought(To::All, 1);
        let bytes = frame(TALK, line);
        assert!(books.sends(1, 2, &bytes, Fate::Flies(1)).is_err());
        assert!(hears(&mut books, 1, 2, line).is_err());
    }

    #[test]
    fn what_is_heard_by_who_it_was_not_for_is_found() {
        let (mut books, line) = brought(To::One(1), 1);
        let bytes = frame(TALK, line);
        assert!(hears(&mut books, 2, 0, line).is_err(), "overheard");
        let sends = books.sends(0, 2, &bytes, Fate::Flies(1));
        assert!(sends.is_err(), "sent to another");
        let (mut books, line) = brought(To::All, 1);
        assert!(hears(&mut books, 0, 0, line).is_err(), "by itself");
        let sends = books.sends(0, 0, &frame(TALK, line), Fate::Flies(1));
        assert!(sends.is_err(), "sent to itself");
        assert!(
            books.brings(0, 2, &bytes, true).is_err(),
            "never sent there"
        );
    }

    #[test]
    fn what_comes_on_another_channel_is_found() {
        let (mut books, line) = brought(To::All, 1);
        let said = payload(TALK, line);
        assert!(books.hears(1, 0, Channel::Noise, &said, |_| true).is_err());
        let bytes = frame(Channel::Noise, line);
        assert!(books.sends(0, 2, &bytes, Fate::Lost).is_err());
    }

    #[test]
    fn one_changed_byte_is_found_wherever_it_is() {
        let (books, line) = brought(To::All, 1);
        let (said, bytes) = (payload(TALK, line), frame(TALK, line));
        assert!(said.len() > 8);
        for n in 0..said.len() {
            let (mut books, line) = brought(To::All, 1);
            let mut said = payload(TALK, line);
            said[n] ^= 1;
            assert!(books.hears(1, 0, TALK, &said, |_| true).is_err(), "{n}");
        }
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            assert_eq!(read(&changed).filter(|read| *read == (TALK, line)), None);
        }
        assert_eq!(read(&bytes), Some((TALK, line)));
        assert_eq!(read(&bytes[..bytes.len() - 1]), None);
        assert_eq!(read(&[bytes, vec![0]].concat()), None);
        assert_eq!(books.all_sent(0), Ok(()));
    }

    #[test]
    fn what_nobody_said_is_found() {
        let (mut books, line) = brought(To::All, 1);
        assert!(hears(&mut books, 1, 0, line + 1).is_err());
        assert!(books.hears(1, 0, TALK, b"psst", |_| true).is_err());
        let ahead = frame(TALK, line + 1);
        assert!(books.sends(0, 1, &ahead, Fate::Flies(1)).is_err());
        assert!(books.sends(0, 1, b"psst", Fate::Flies(1)).is_err());
    }

    #[test]
    fn a_frame_sent_twice_and_one_its_sender_does_not_know_of_are_found() {
        let (mut books, line) = brought(To::All, 1);
        assert!(books.told(line, 0).is_err() && books.told(line, 2).is_err());
        let again = books.sends(0, 1, &frame(TALK, line), Fate::Flies(1));
        assert!(again.is_err());
    }

    #[test]
    fn who_was_never_a_member_is_found_on_either_side() {
        for stranger in [0, 1] {
            let (mut books, line) = brought(To::All, 1);
            let said = payload(TALK, line);
            let heard = books.hears(1, 0, TALK, &said, |node| node != stranger);
            assert!(heard.is_err(), "{stranger}");
        }
    }

    #[test]
    fn a_frame_that_is_neither_heard_nor_counted_is_found() {
        let (books, _) = brought(To::All, 1);
        assert!(books.closes(1, Account::default()).is_err(), "gone");
        let counts: [fn(&mut Account); 5] = [
            |account| account.waiting += 1,
            |account| account.dropped += 1,
            |account| account.unclaimed += 1,
            |account| account.turned_away += 1,
            |account| account.overrun += 1,
        ];
        for (n, count) in counts.into_iter().enumerate() {
            let mut account = Account::default();
            count(&mut account);
            assert_eq!(books.closes(1, account), Ok(()), "{n}");
            count(&mut account);
            assert!(books.closes(1, account).is_err(), "{n}: counted twice");
        }
    }

    #[test]
    fn a_frame_that_the_network_forgets_or_makes_up_is_found() {
        for (fate, flying) in [(Fate::Cut, 0), (Fate::Lost, 0), (Fate::Flies(2), 2)] {
            let mut books = Books::default();
            let line = books.says(0, TALK, To::All);
            books.sends(0, 1, &frame(TALK, line), fate).unwrap();
            assert_eq!(books.all_sent(flying), Ok(()), "{fate:?}");
            assert!(books.all_sent(flying + 1).is_err(), "{fate:?}");
        }
        let (books, _) = brought(To::All, 2);
        assert!(books.all_sent(1).is_err());
    }

    #[test]
    fn of_what_nobody_reads_the_latest_wait_in_their_order() {
        let mut books = Books::default();
        let max = WAITING_MAX as u64;
        let lines: Vec<u64> = (0..max + 5)
            .map(|_| {
                let line = books.says(0, Channel::Noise, To::All);
                let bytes = frame(Channel::Noise, line);
                books.sends(0, 1, &bytes, Fate::Flies(1)).unwrap();
                books.brings(0, 1, &bytes, true).unwrap();
                line
            })
            .collect();
        let waits = |waiting: &[u64], dropped, all_in| books.waits(1, waiting, dropped, all_in);
        assert_eq!(waits(&lines[5..], 5, true), Ok(()));
        assert!(waits(&lines[4..], 4, true).is_err(), "more than may");
        assert!(waits(&lines[6..], 6, true).is_err(), "not as many as may");
        assert!(waits(&lines[4..68], 5, true).is_err(), "not the latest");
        // The last was of a peer the node did not know.
        assert_eq!(waits(&lines[4..68], 4, false), Ok(()));
        assert_eq!(waits(&lines[9..12], 0, false), Ok(()));
        let turned: Vec<u64> = lines[5..].iter().rev().copied().collect();
        assert!(waits(&turned, 5, false).is_err(), "turned round");
        assert!(waits(&[max + 9], 0, false).is_err(), "made up");
    }
}
