//! What two rooms that took the same step disagree on, in words an author can act on.
//!
//! The first disagreement wins, and what players can see comes first: frames, then calls, logs and
//! posts, then memory, globals, tables and counters.

use cabinet_host::{Frame, frame_bytes};
use cabinet_wire::{CELL_BYTES, COLS, FRAME_BYTES};

use crate::hash::hex;
use crate::lane::{Record, State};
use crate::tape::{Effects, Grid, Sent, To};
use crate::units::{count, one_line};

/// A disagreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// What differs: `frames`, `memory`, …
    pub what: &'static str,
    /// Where and how.
    pub detail: String,
}

/// How much two rooms must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agree {
    /// All there is.
    Everything,
    /// What players and embedders can see: outcome, frames, log, posts, result. A room restored
    /// from the reference's blob has other epochs, and its guest may remember them.
    Visible,
}

/// The first thing `other`, a room called `who`, did unlike the control.
pub(crate) fn difference(
    who: &str,
    control: &Record,
    other: &Record,
    agree: Agree,
) -> Option<Difference> {
    if agree == Agree::Visible {
        let (a, b) = (&control.effects, &other.effects);
        return outcome(who, control, other)
            .or_else(|| frames(who, &a.frames, &b.frames))
            .or_else(|| logs(who, a, b))
            .or_else(|| posts(who, a, b))
            .or_else(|| result(who, &control.state, &other.state));
    }
    outcome(who, control, other)
        .or_else(|| effects(who, &control.effects, &other.effects))
        .or_else(|| state(who, &control.state, &other.state))
        .or_else(|| fuel(who, control, other))
}

fn outcome(who: &str, control: &Record, other: &Record) -> Option<Difference> {
    let told = |record: &Record| match (&record.fault, record.skipped, &record.call) {
        (Some(fault), _, _) => format!("died: {}", one_line(&fault.to_string())),
        (None, Some(skip), _) => format!("was not called ({skip:?})"),
        (None, None, Some(call)) => format!("returned {} from {}", call.exit, call.export),
        (None, None, None) => "was not called".to_owned(),
    };
    let (ours, theirs) = (told(control), told(other));
    differs("outcome", ours == theirs, || {
        format!("the control {ours}, the {who} {theirs}")
    })
}

fn effects(who: &str, control: &Effects, other: &Effects) -> Option<Difference> {
    frames(who, &control.frames, &other.frames)
        .or_else(|| calls(who, control, other))
        .or_else(|| logs(who, control, other))
        .or_else(|| posts(who, control, other))
}

fn calls(who: &str, control: &Effects, other: &Effects) -> Option<Difference> {
    let same = control.calls_sha256 == other.calls_sha256 && control.host_calls == other.host_calls;
    differs("host calls", same, || {
        let total = |effects: &Effects| effects.host_calls.values().sum::<u64>();
        let (ours, theirs) = (total(control), total(other));
        format!("the control made {ours} host calls, the {who} {theirs}, not all of them alike")
    })
}

fn logs(who: &str, control: &Effects, other: &Effects) -> Option<Difference> {
    let first = control
        .logs
        .iter()
        .zip(&other.logs)
        .position(|(a, b)| a != b);
    let at = first.unwrap_or(control.logs.len().min(other.logs.len()));
    let line = |effects: &Effects| match effects.logs.get(at) {
        Some(logged) => format!("{:?}", one_line(&String::from_utf8_lossy(&logged.message))),
        None => "nothing".to_owned(),
    };
    differs("log", control.logs == other.logs, || {
        let (ours, theirs) = (line(control), line(other));
        format!(
            "log record {}: the control wrote {ours}, the {who} {theirs}",
            at + 1
        )
    })
}

fn posts(who: &str, control: &Effects, other: &Effects) -> Option<Difference> {
    let same = (control.posts, control.posts_sha256) == (other.posts, other.posts_sha256);
    differs("posts", same, || {
        let (ours, theirs) = (control.posts, other.posts);
        format!("leaderboard posts: the control made {ours}, the {who} {theirs}, not all alike")
    })
}

fn result(who: &str, control: &State, other: &State) -> Option<Difference> {
    differs("result", control.result == other.result, || {
        format!("the result the control ended with is not the {who}'s")
    })
}

fn state(who: &str, control: &State, other: &State) -> Option<Difference> {
    let digest = |name: &str, ours: &[u8; 32], theirs: &[u8; 32]| {
        let (ours, theirs) = (hex(&ours[..6]), hex(&theirs[..6]));
        format!("SHA-256 of {name}: the control's begins {ours}, the {who}'s {theirs}")
    };
    let number = |name: &str, ours: u64, theirs: u64| {
        format!("{name}: the control has {ours}, the {who} {theirs}")
    };
    let (a, b) = (control, other);
    differs("memory", a.memory_bytes == b.memory_bytes, || {
        number("bytes of guest memory", a.memory_bytes, b.memory_bytes)
    })
    .or_else(|| match (&a.digest, &b.digest) {
        (Ok(a), Ok(b)) => [
            ("memory", "guest memory", &a.memory, &b.memory),
            ("globals", "the globals", &a.globals, &b.globals),
            ("tables", "the tables", &a.tables, &b.tables),
        ]
        .into_iter()
        .find_map(|(what, name, a, b)| differs(what, a == b, || digest(name, a, b))),
        (a, b) => differs("state", a.as_ref().err() == b.as_ref().err(), || {
            format!("the state of the control or of the {who} cannot be looked at")
        }),
    })
    .or_else(|| {
        differs("entropy", a.entropy_consumed == b.entropy_consumed, || {
            number(
                "bytes of entropy drawn",
                a.entropy_consumed,
                b.entropy_consumed,
            )
        })
    })
    .or_else(|| {
        let counters = [
            ("epoch counter", a.epoch_seq, b.epoch_seq),
            ("roster epoch", a.roster_epoch, b.roster_epoch),
            ("post counter", a.post_seq, b.post_seq),
            (
                "input context",
                u32::from(a.input_context),
                u32::from(b.input_context),
            ),
            ("ended", u32::from(a.ended), u32::from(b.ended)),
        ];
        let (name, ours, theirs) = counters.into_iter().find(|(_, a, b)| a != b)?;
        differs("counters", false, || {
            number(name, ours.into(), theirs.into())
        })
    })
    .or_else(|| result(who, a, b))
}

fn fuel(who: &str, control: &Record, other: &Record) -> Option<Difference> {
    let (ours, theirs) = (control.call.as_ref()?.fuel, other.call.as_ref()?.fuel);
    differs("fuel", ours == theirs, || {
        format!("fuel burned: the control used {ours}, the {who} {theirs}")
    })
}

fn frames(who: &str, control: &[Sent], other: &[Sent]) -> Option<Difference> {
    let pairs = control.iter().zip(other).enumerate();
    let first = pairs.map(|(index, (a, b))| (index + 1, a, b)).find_map(|(number, a, b)| {
        if a.to != b.to {
            let (ours, theirs) = (to(a.to), to(b.to));
            return Some(format!(
                "frame {number} of the step: the control sent it to {ours}, the {who} to {theirs}"
            ));
        }
        if a.sha256() == b.sha256() {
            return None;
        }
        let place = match (&a.grid, &b.grid) {
            (Grid::Kept(a), Grid::Kept(b)) => first_cell(who, a, b),
            _ => None,
        };
        let place = place.unwrap_or_else(|| "somewhere".to_owned());
        Some(format!("frame {number} of the step, to {}, differs {place}", to(a.to)))
    });
    let (ours, theirs) = (control.len(), other.len());
    first
        .or_else(|| {
            let sent = count(ours, "frame");
            (ours != theirs)
                .then(|| format!("the control delivered {sent} in this step, the {who} {theirs}"))
        })
        .map(|detail| Difference {
            what: "frames",
            detail,
        })
}

/// Names the first cell whose text differs, or else the first whose style does.
fn first_cell(who: &str, control: &Frame, other: &Frame) -> Option<String> {
    first_cell_of(who, &frame_bytes(control), &frame_bytes(other))
}

fn first_cell_of(
    who: &str,
    control: &[u8; FRAME_BYTES],
    other: &[u8; FRAME_BYTES],
) -> Option<String> {
    // A cell's text is its first three code points, 12 bytes.
    let cells = || {
        control
            .chunks_exact(CELL_BYTES)
            .zip(other.chunks_exact(CELL_BYTES))
    };
    let place = |cell: usize| format!("at row {}, column {}", cell / COLS, cell % COLS);
    if let Some(cell) = cells().position(|(a, b)| a[..12] != b[..12]) {
        let (ours, theirs) = cells().nth(cell).map(|(a, b)| (text(a), text(b)))?;
        return Some(format!(
            "{}: the control shows {ours}, the {who} {theirs}",
            place(cell)
        ));
    }
    let cell = cells().position(|(a, b)| a != b)?;
    Some(format!(
        "{} in colour or attributes only; the text is the same",
        place(cell)
    ))
}

fn text(cell: &[u8]) -> String {
    let points = cell[..12]
        .chunks_exact(4)
        .filter_map(|point| point.try_into().ok());
    let drawn: String = points
        .map(u32::from_le_bytes)
        .filter(|point| *point != 0)
        .map(|point| char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    if drawn.is_empty() || drawn == " " {
        "a blank".to_owned()
    } else {
        format!("{drawn:?}")
    }
}

/// A recipient in words.
pub(crate) fn to(to: To) -> String {
    match to {
        To::Everyone => "everyone".to_owned(),
        To::Seat(seat) => format!("seat {seat}"),
        To::Index(index) => format!("roster index {index}"),
    }
}

fn differs(what: &'static str, same: bool, detail: impl FnOnce() -> String) -> Option<Difference> {
    (!same).then(|| Difference {
        what,
        detail: detail(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Box<[u8; FRAME_BYTES]> {
        Box::new([0; FRAME_BYTES])
    }

    fn hashed(to: To, hash: u8) -> Sent {
        Sent {
            to,
            grid: Grid::Hashed([hash; 32]),
        }
    }

    #[test]
    fn a_differing_cell_is_named_by_row_column_and_both_texts() {
        let (a, mut b) = (grid(), grid());
        b[CELL_BYTES * (3 * COLS + 14)] = b'x';
        assert_eq!(
            first_cell_of("replay", &a, &b).unwrap(),
            "at row 3, column 14: the control shows a blank, the replay \"x\""
        );
        assert_eq!(first_cell_of("replay", &a, &a), None);
    }

    #[test]
    fn text_is_named_before_style_wherever_they_stand() {
        let (a, mut b) = (grid(), grid());
        b[20] = 1;
        assert_eq!(
            first_cell_of("replay", &a, &b).unwrap(),
            "at row 0, column 0 in colour or attributes only; the text is the same"
        );
        b[CELL_BYTES * 1919 + 4] = 0x42;
        assert_eq!(
            first_cell_of("replay", &a, &b).unwrap(),
            "at row 23, column 79: the control shows a blank, the replay \"B\""
        );
    }

    #[test]
    fn frames_differ_by_recipient_by_content_and_by_number() {
        let control = [hashed(To::Seat(1), 1), hashed(To::Everyone, 2)];
        let detail = |other: &[Sent]| frames("replay", &control, other).map(|found| found.detail);
        assert_eq!(
            detail(&[hashed(To::Seat(1), 1), hashed(To::Everyone, 2)]),
            None
        );
        assert_eq!(
            detail(&[hashed(To::Seat(0), 1)]).unwrap(),
            "frame 1 of the step: the control sent it to seat 1, the replay to seat 0"
        );
        assert_eq!(
            detail(&[hashed(To::Seat(1), 1), hashed(To::Everyone, 3)]).unwrap(),
            "frame 2 of the step, to everyone, differs somewhere"
        );
        assert_eq!(
            detail(&[hashed(To::Seat(1), 1)]).unwrap(),
            "the control delivered 2 frames in this step, the replay 1"
        );
    }
}
