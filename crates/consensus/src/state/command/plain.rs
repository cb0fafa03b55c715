//! An action's command read and written without a copy of anything in it. Every node reads every
//! action; of what prost would do for that, most was done for the general case.
//!
//! Invariants
//! - what is written is what [`Command`](super::Command) writes, byte for byte;
//! - what is read is what `Command` reads. Anything that is not laid out as it writes it is left to
//!   `Command`: [`read`] answers `None`.

use std::fmt;

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{Act, Body, Command};
use crate::hidden::Hidden;

/// An action where it lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlainAct<'a> {
    pub client: &'a str,
    pub session: u64,
    pub serial: u64,
    pub expected_turn: Option<u64>,
    pub action: &'a [u8],
    pub owner: &'a str,
}

impl fmt::Debug for PlainAct<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Act")
            .field("client", &self.client)
            .field("session", &self.session)
            .field("serial", &self.serial)
            .field("expected_turn", &self.expected_turn)
            .field("action", &Hidden(self.action.len()))
            .field("owner", &self.owner)
            .finish()
    }
}

/// A command that gets its stamp when it is written down, each time another one.
pub(crate) enum Draft<'a> {
    Act(PlainAct<'a>),
    Other(Body),
}

impl Draft<'_> {
    /// The entry.
    pub(crate) fn stamped(&self, stamp_ms: u64) -> Bytes {
        match self {
            Self::Act(act) => act.entry(stamp_ms),
            Self::Other(Body::Act(act)) => PlainAct::from(act).entry(stamp_ms),
            Self::Other(body) => Command::new(stamp_ms, body.clone()).to_bytes(),
        }
    }
}

impl<'a> From<&'a Act> for PlainAct<'a> {
    fn from(act: &'a Act) -> Self {
        Self {
            client: &act.client,
            session: act.session,
            serial: act.serial,
            expected_turn: act.expected_turn,
            action: &act.action,
            owner: &act.owner,
        }
    }
}

/// A field's number and wire type: 0 a number, 2 bytes.
const STAMP: u8 = 1 << 3;
const ACT: u8 = 2 << 3 | 2;
const CLIENT: u8 = 1 << 3 | 2;
const SESSION: u8 = 2 << 3;
const SERIAL: u8 = 3 << 3;
const EXPECTED_TURN: u8 = 4 << 3;
const ACTION: u8 = 5 << 3 | 2;
const OWNER: u8 = 6 << 3 | 2;

fn number_len(number: u64) -> usize {
    1 + encoded_len_varint(number)
}

/// What is empty or zero is not written.
fn bytes_len(bytes: &[u8]) -> usize {
    match bytes.len() {
        0 => 0,
        len => number_len(len as u64) + len,
    }
}

fn put_number(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(field);
    encode_varint(number, out);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_number(out, field, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

impl PlainAct<'_> {
    fn entry(&self, stamp_ms: u64) -> Bytes {
        let some = |number: u64| Some(number).filter(|number| *number != 0);
        let numbers = [
            (SESSION, some(self.session)),
            (SERIAL, some(self.serial)),
            (EXPECTED_TURN, self.expected_turn),
        ];
        let len = bytes_len(self.client.as_bytes())
            + numbers
                .iter()
                .filter_map(|(_, n)| *n)
                .map(number_len)
                .sum::<usize>()
            + bytes_len(self.action)
            + bytes_len(self.owner.as_bytes());
        let whole = some(stamp_ms).map_or(0, number_len) + number_len(len as u64) + len;
        let mut out = Vec::with_capacity(whole);
        if let Some(stamp_ms) = some(stamp_ms) {
            put_number(&mut out, STAMP, stamp_ms);
        }
        put_number(&mut out, ACT, len as u64);
        put_bytes(&mut out, CLIENT, self.client.as_bytes());
        for (field, number) in numbers {
            if let Some(number) = number {
                put_number(&mut out, field, number);
            }
        }
        put_bytes(&mut out, ACTION, self.action);
        put_bytes(&mut out, OWNER, self.owner.as_bytes());
        out.into()
    }
}

/// The rest of what is read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn varint(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        if *first < 0x80 {
            self.0 = rest;
            return Some(u64::from(*first));
        }
        let mut number = u64::from(first & 0x7f);
        // Nine bytes hold 63 bits; `Command` judges longer ones.
        for at in 1..9 {
            let byte = *self.0.get(at)?;
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Some(number);
            }
        }
        None
    }

    /// Whether this field comes next.
    fn comes(&mut self, field: u8) -> bool {
        match self.0.split_first() {
            Some((next, rest)) if *next == field => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// The number in this field, 0 without it.
    fn number(&mut self, field: u8) -> Option<u64> {
        if self.comes(field) {
            self.varint()
        } else {
            Some(0)
        }
    }

    /// The bytes in this field, none without it.
    fn bytes(&mut self, field: u8) -> Option<&'a [u8]> {
        if !self.comes(field) {
            return Some(&[]);
        }
        let len = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// The stamp and the action in an entry, if it is an action's and plainly laid out.
pub(crate) fn read(entry: &[u8]) -> Option<(u64, PlainAct<'_>)> {
    let mut rest = Rest(entry);
    let stamp_ms = rest.number(STAMP)?;
    // An entry without this field is no action's, and the loop of fields below would read nothing.
    if rest.0.first() != Some(&ACT) {
        return None;
    }
    let act = rest.bytes(ACT)?;
    if !rest.0.is_empty() {
        return None;
    }
    let mut rest = Rest(act);
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let client = text(rest.bytes(CLIENT)?)?;
    let session = rest.number(SESSION)?;
    let serial = rest.number(SERIAL)?;
    let expected_turn = if rest.comes(EXPECTED_TURN) {
        Some(rest.varint()?)
    } else {
        None
    };
    let action = rest.bytes(ACTION)?;
    let owner = text(rest.bytes(OWNER)?)?;
    rest.0.is_empty().then_some((
        stamp_ms,
        PlainAct {
            client,
            session,
            serial,
            expected_turn,
            action,
            owner,
        },
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), 1u64..300, any::<u64>()]
    }

    fn act() -> impl Strategy<Value = Act> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..200);
        let names = (".{0,40}", ".{0,20}");
        let numbers = (number(), number(), proptest::option::of(number()));
        (names, numbers, bytes).prop_map(|((client, owner), numbers, action)| Act {
            client,
            session: numbers.0,
            serial: numbers.1,
            expected_turn: numbers.2,
            action: action.into(),
            owner,
        })
    }

    /// What `Command` reads of an entry, if that is an action.
    fn by_command(entry: &[u8]) -> Option<(u64, Act)> {
        match Command::decode(entry) {
            Ok(Command {
                stamp_ms,
                body: Some(Body::Act(act)),
            }) => Some((stamp_ms, act)),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_a_command_writes(stamp_ms in number(), act in act()) {
            let entry = Draft::Act((&act).into()).stamped(stamp_ms);
            let usual = Command::new(stamp_ms, Body::Act(act.clone())).to_bytes();
            prop_assert_eq!(&entry, &usual);
            // Numbers of ten bytes are left to the command.
            if let Some((stamp, read)) = read(&entry) {
                prop_assert_eq!((stamp, read), (stamp_ms, (&act).into()));
            } else {
                let numbers = [stamp_ms, act.session, act.serial, act.expected_turn.unwrap_or(0)];
                prop_assert!(numbers.iter().any(|number| number >> 63 == 1));
            }
        }

        #[test]
        fn what_is_read_is_what_a_command_reads(
            stamp_ms in number(),
            act in act(),
            changes in proptest::collection::vec((any::<usize>(), any::<u8>(), 0u8..3), 0..4),
        ) {
            let mut entry = Draft::Act((&act).into()).stamped(stamp_ms).to_vec();
            for (at, byte, what) in changes {
                let at = at % (entry.len() + 1);
                match what {
                    0 => entry.insert(at, byte),
                    1 if at < entry.len() => entry[at] = byte,
                    _ => entry.truncate(at.max(1)),
                }
            }
            if let Some((stamp, read)) = read(&entry) {
                let Some((usual_stamp, usual)) = by_command(&entry) else {
                    return Err(TestCaseError::fail("the command reads nothing"));
                };
                prop_assert_eq!((stamp, read), (usual_stamp, (&usual).into()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some((stamp, read)) = read(&bytes) {
                let usual = by_command(&bytes);
                prop_assert_eq!(usual.map(|(stamp, act)| (stamp, act.serial)), Some((stamp, read.serial)));
            }
        }
    }
}
