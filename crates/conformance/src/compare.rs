//! What two rooms that took the same step disagree on, in words an author can act on.
//!
//! The first disagreement wins, and what players can see comes first: frames, then calls, stores,
//! and posts, then memory, globals, tables, counters and what the next frames build on.

use cabinet_host::{Frame, StateDigest};
use cabinet_wire::COLS;
use cabinet_wire::cell::Cell;

use crate::hash::hex;
use crate::lane::{Record, State};
use crate::shot::glyph;
use crate::tape::{Effects, Grid, Sent, To};
use crate::units::{count, cut};

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
    /// What players and embedders can see: outcome, frames, stores, log, posts, result. A room
    /// restored from the reference's blob has other epochs, and its guest may remember them.
    Visible,
}

/// What memory, globals and tables of two rooms come to beside each other. Digests are made only
/// where there is a difference to tell: most of the time there is none.
#[derive(Debug)]
pub(crate) enum Guests {
    /// They are the same.
    Alike,
    /// Not the same, or not to be looked into: the control's and the other's digests, `None` for a
    /// room without an instance, closed or never made, else why there are none.
    Apart(Box<[GuestDigest; 2]>),
}

pub(crate) type GuestDigest = Result<Option<StateDigest>, String>;

/// The first thing `other`, a room called `who`, did unlike the control.
pub(crate) fn difference(
    who: &str,
    control: &Record,
    other: &Record,
    guests: &Guests,
    agree: Agree,
) -> Option<Difference> {
    if agree == Agree::Visible {
        let (a, b) = (&control.effects, &other.effects);
        return outcome(who, control, other)
            .or_else(|| frames(who, &a.frames, &b.frames))
            .or_else(|| writes(who, a, b))
            .or_else(|| posts(who, a, b))
            .or_else(|| ending(who, &control.state, &other.state));
    }
    outcome(who, control, other)
        .or_else(|| effects(who, &control.effects, &other.effects))
        .or_else(|| state(who, &control.state, &other.state, guests))
        .or_else(|| fuel(who, control, other))
}

fn outcome(who: &str, control: &Record, other: &Record) -> Option<Difference> {
    // Faults by value: their words leave things out.
    let of = |record: &Record| {
        let call = record.call.as_ref().map(|call| (call.export, call.exit));
        (record.fault.clone(), record.skipped, call)
    };
    let told = |record: &Record| match (&record.fault, record.skipped, &record.call) {
        (Some(fault), _, _) => format!("died: {}", cut(&fault.to_string())),
        (None, Some(skip), _) => format!("was not called ({skip:?})"),
        (None, None, Some(call)) => format!("returned {} from {}", call.exit, call.export),
        (None, None, None) => "was not called".to_owned(),
    };
    differs("outcome", of(control) == of(other), || {
        let (ours, theirs) = (told(control), told(other));
        if ours == theirs {
            format!("the control {ours}, the {who} as well, but not just like it")
        } else {
            format!("the control {ours}, the {who} {theirs}")
        }
    })
}

fn effects(who: &str, control: &Effects, other: &Effects) -> Option<Difference> {
    frames(who, &control.frames, &other.frames)
        .or_else(|| calls(who, control, other))
        .or_else(|| writes(who, control, other))
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

fn writes(who: &str, control: &Effects, other: &Effects) -> Option<Difference> {
    let same = (control.writes, control.writes_sha256) == (other.writes, other.writes_sha256);
    differs("stores", same, || {
        let (ours, theirs) = (control.writes, other.writes);
        format!("writes to the stores: the control made {ours}, the {who} {theirs}, not all alike")
    })
}

fn posts(who: &str, control: &Effects, other: &Effects) -> Option<Difference> {
    let same = (control.posts, control.posts_sha256) == (other.posts, other.posts_sha256);
    differs("posts", same, || {
        let (ours, theirs) = (control.posts, other.posts);
        format!("leaderboard posts: the control made {ours}, the {who} {theirs}, not all alike")
    })
}

fn ending(who: &str, control: &State, other: &State) -> Option<Difference> {
    let flags = [
        ("dead", control.dead, other.dead),
        ("ended", control.ended, other.ended),
        ("settled", control.settled, other.settled),
    ];
    let flag = flags.into_iter().find(|(_, ours, theirs)| ours != theirs);
    flag.map(|(name, ours, _)| {
        let (is, is_not) = if ours {
            ("the control".to_owned(), who)
        } else {
            (format!("the {who}"), "control")
        };
        Difference {
            what: "result",
            detail: format!("{is} is {name}, the {is_not} is not"),
        }
    })
    .or_else(|| {
        differs("result", control.result == other.result, || {
            format!("the result the control ended with is not the {who}'s")
        })
    })
}

fn state(who: &str, control: &State, other: &State, guests: &Guests) -> Option<Difference> {
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
    .or_else(|| {
        let Guests::Apart(both) = guests else {
            return None;
        };
        match &**both {
            // A room without an instance has nothing to look at.
            [Ok(None), Ok(None)] => None,
            [Ok(Some(a)), Ok(Some(b))] => [
                ("memory", "guest memory", &a.memory, &b.memory),
                ("globals", "the globals", &a.globals, &b.globals),
                ("tables", "the tables", &a.tables, &b.tables),
            ]
            .into_iter()
            .find_map(|(what, name, a, b)| differs(what, a == b, || digest(name, a, b))),
            // Two rooms nobody can look into have not been seen to agree.
            both => {
                let why = both.iter().find_map(|digest| digest.as_ref().err());
                let why = why.map_or("one of them has no instance", String::as_str);
                differs("state", false, || {
                    format!("the state of the control and of the {who} cannot be compared: {why}")
                })
            }
        }
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
        ];
        let (name, ours, theirs) = counters.into_iter().find(|(_, a, b)| a != b)?;
        differs("counters", false, || {
            number(name, ours.into(), theirs.into())
        })
    })
    .or_else(|| {
        differs("clock", a.now == b.now, || {
            format!(
                "the room clock of the control is at {}, of the {who} at {}",
                a.now, b.now
            )
        })
    })
    .or_else(|| {
        let same = a.members == b.members && a.last_roster == b.last_roster;
        differs("members", same, || {
            let (ours, theirs) = (
                count(a.members.len(), "member"),
                count(b.members.len(), "member"),
            );
            format!("the control has {ours}, the {who} {theirs}, not all alike or in one order")
        })
    })
    .or_else(|| baselines(who, &a.frames, &b.frames))
    .or_else(|| ending(who, a, b))
}

/// Compares what everyone and what each member was last sent, as the host keeps it.
fn baselines(who: &str, control: &[Option<Frame>], other: &[Option<Frame>]) -> Option<Difference> {
    let at = (0..control.len().max(other.len())).find(|at| control.get(*at) != other.get(*at))?;
    let frame = |frames: &[Option<Frame>]| frames.get(at).cloned().flatten();
    let place = match (frame(control), frame(other)) {
        (Some(a), Some(b)) => first_cell(who, &a, &b).unwrap_or_default(),
        (Some(_), None) => format!("is lost: only the control has one, the {who} has none"),
        _ => format!("is new: the control has none, the {who} has one"),
    };
    let slot = match at {
        0 => "everyone was".to_owned(),
        _ => format!("the member at roster index {} was", at - 1),
    };
    Some(Difference {
        what: "baselines",
        detail: format!("the frame {slot} last sent {place}"),
    })
}

fn fuel(who: &str, control: &Record, other: &Record) -> Option<Difference> {
    let (ours, theirs) = (control.call.as_ref()?.fuel, other.call.as_ref()?.fuel);
    differs("fuel", ours == theirs, || {
        format!("fuel burned: the control used {ours}, the {who} {theirs}")
    })
}

fn frames(who: &str, control: &[Sent], other: &[Sent]) -> Option<Difference> {
    let mut pairs = control.iter().zip(other).enumerate();
    let first = pairs.find_map(|(index, (a, b))| frame(who, index + 1, a, b));
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

fn frame(who: &str, number: usize, control: &Sent, other: &Sent) -> Option<String> {
    let (ours, theirs) = (to(control.to), to(other.to));
    if control.to != other.to {
        return Some(format!(
            "frame {number} of the step: the control sent it to {ours}, the {who} to {theirs}"
        ));
    }
    let place = match (&control.grid, &other.grid) {
        (Grid::Kept(a), Grid::Kept(b)) => first_cell(who, a, b)?,
        _ if control.sha256() == other.sha256() => return None,
        _ => "differs somewhere".to_owned(),
    };
    Some(format!("frame {number} of the step, to {ours}, {place}"))
}

/// Names the first cell whose text differs, or else the first that differs in style.
fn first_cell(who: &str, control: &Frame, other: &Frame) -> Option<String> {
    let changed: Vec<usize> = control.changed_rows(other).collect();
    let cells = || {
        let places = changed
            .iter()
            .flat_map(|row| (0..COLS).map(|col| (*row, col)));
        places.map(|(row, col)| (row, col, control.cell(row, col), other.cell(row, col)))
    };
    for (row, col, a, b) in cells() {
        let (a, b) = (Cell::read(a), Cell::read(b));
        if a.cp == b.cp {
            continue;
        }
        let (ours, theirs) = (text(&a), text(&b));
        let place = format!("differs at row {row}, column {col}");
        return Some(if ours == theirs {
            format!("{place}: both show {ours}, by other code points")
        } else {
            format!("{place}: the control shows {ours}, the {who} {theirs}")
        });
    }
    let (row, col, ..) = cells().find(|(_, _, a, b)| a != b)?;
    Some(format!(
        "differs at row {row}, column {col} in colour or attributes only; the text is the same"
    ))
}

fn text(cell: &Cell) -> String {
    match glyph(cell).as_str() {
        " " => "a blank".to_owned(),
        drawn => format!("{drawn:?}"),
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
    use cabinet_host::{Fault, Player, Trap, TrapFrame, TrapKind};
    use cabinet_wire::{CELL_BYTES, FRAME_BYTES, ROWS};

    use super::*;

    /// A frame with some bytes of an undrawn one changed.
    fn drawn_frame(changes: &[(usize, u8)]) -> Frame {
        let mut grid = [0; FRAME_BYTES];
        for (at, byte) in changes {
            grid[*at] = *byte;
        }
        Frame::from_bytes(&grid)
    }

    fn hashed(to: To, hash: u8) -> Sent {
        Sent {
            to,
            grid: Grid::Hashed([hash; 32]),
        }
    }

    #[test]
    fn a_differing_cell_is_named_by_row_column_and_both_texts() {
        let blank = drawn_frame(&[]);
        let at = CELL_BYTES * (3 * COLS + 14);
        assert_eq!(
            first_cell("replay", &blank, &drawn_frame(&[(at, b'x')])).unwrap(),
            "differs at row 3, column 14: the control shows a blank, the replay \"x\""
        );
        assert_eq!(
            first_cell("replay", &blank, &drawn_frame(&[(at, b' ')])).unwrap(),
            "differs at row 3, column 14: both show a blank, by other code points"
        );
        assert_eq!(first_cell("replay", &blank, &drawn_frame(&[])), None);
    }

    #[test]
    fn text_is_named_before_style_wherever_they_stand() {
        let blank = drawn_frame(&[]);
        let style = (20, 1);
        assert_eq!(
            first_cell("replay", &blank, &drawn_frame(&[style])).unwrap(),
            "differs at row 0, column 0 in colour or attributes only; the text is the same"
        );
        let last = (CELL_BYTES * (ROWS * COLS - 1), 0x42);
        assert_eq!(
            first_cell("replay", &blank, &drawn_frame(&[style, last])).unwrap(),
            "differs at row 23, column 79: the control shows a blank, the replay \"B\""
        );
    }

    fn digest() -> StateDigest {
        StateDigest {
            memory: [1; 32],
            globals: [2; 32],
            tables: [3; 32],
        }
    }

    fn state() -> State {
        State {
            memory_bytes: 65_536,
            entropy_consumed: 0,
            epoch_seq: 1,
            roster_epoch: 1,
            input_context: 0,
            post_seq: 0,
            now: 5,
            dead: false,
            ended: false,
            settled: false,
            result: None,
            members: vec![Player::guest("zoe", "c9")],
            last_roster: vec![Player::guest("zoe", "c9")],
            frames: vec![None, Some(drawn_frame(&[]))],
        }
    }

    #[test]
    fn a_state_that_differs_in_any_part_is_told_by_that_part() {
        type Change = fn(&mut State);
        let parts: [(&str, Change); 13] = [
            ("memory", |state| state.memory_bytes += 65_536),
            ("entropy", |state| state.entropy_consumed = 8),
            ("counters", |state| state.epoch_seq = 2),
            ("counters", |state| state.roster_epoch = 2),
            ("counters", |state| state.post_seq = 1),
            ("counters", |state| state.input_context = 1),
            ("clock", |state| state.now += 1),
            ("members", |state| state.members[0].handle.push('!')),
            ("members", |state| {
                state.last_roster.push(Player::guest("bob", "c2"));
            }),
            ("baselines", |state| state.frames[1] = None),
            ("baselines", |state| {
                state.frames[0] = state.frames[1].clone()
            }),
            ("result", |state| state.settled = true),
            ("result", |state| state.ended = true),
        ];
        assert_eq!(
            super::state("replay", &state(), &state(), &Guests::Alike),
            None
        );
        for (what, change) in parts {
            let mut other = state();
            change(&mut other);
            for (a, b) in [(state(), other.clone()), (other, state())] {
                let found = super::state("replay", &a, &b, &Guests::Alike).unwrap();
                assert_eq!(found.what, what, "{}", found.detail);
            }
        }
        let mut drawn = state();
        drawn.frames[1] = Some(drawn_frame(&[(0, b'x')]));
        assert_eq!(
            super::state("replay", &state(), &drawn, &Guests::Alike)
                .unwrap()
                .detail,
            "the frame the member at roster index 0 was last sent differs at row 0, column 0: the \
             control shows a blank, the replay \"x\""
        );
    }

    #[test]
    fn guests_that_are_apart_are_told_by_what_differs_in_them() {
        let found = |a: GuestDigest, b: GuestDigest| {
            super::state(
                "replay",
                &state(),
                &state(),
                &Guests::Apart(Box::new([a, b])),
            )
        };
        let tables = StateDigest {
            tables: [4; 32],
            ..digest()
        };
        let memory = StateDigest {
            memory: [4; 32],
            ..tables
        };
        for (other, what) in [(tables, "tables"), (memory, "memory")] {
            for (a, b) in [(digest(), other), (other, digest())] {
                assert_eq!(found(Ok(Some(a)), Ok(Some(b))).unwrap().what, what);
            }
        }
        assert_eq!(found(Ok(Some(digest())), Ok(None)).unwrap().what, "state");
    }

    #[test]
    fn two_rooms_nobody_can_look_into_have_not_agreed() {
        let blind = || Err("a function reference is not the guest's own".to_owned());
        let found = |a, b| {
            super::state(
                "replay",
                &state(),
                &state(),
                &Guests::Apart(Box::new([a, b])),
            )
        };
        let told = found(blind(), blind()).unwrap();
        assert_eq!(told.what, "state");
        assert!(told.detail.contains("not the guest's own"));
        // Closed rooms have nothing left to look at.
        assert_eq!(found(Ok(None), Ok(None)), None);
    }

    #[test]
    fn faults_are_compared_by_value_and_not_by_their_words() {
        let died = |function| {
            let backtrace = (0..4).map(|_| TrapFrame {
                function,
                name: Some("f".to_owned()),
            });
            Record {
                call: None,
                skipped: None,
                fault: Some(Fault::Trap(Trap {
                    kind: TrapKind::Unreachable,
                    message: String::new(),
                    backtrace: backtrace.collect(),
                })),
                effects: Effects::default(),
                state: state(),
            }
        };
        assert_eq!(outcome("replay", &died(1), &died(1)), None);
        let found = outcome("replay", &died(1), &died(2)).unwrap();
        assert!(
            found
                .detail
                .ends_with("the replay as well, but not just like it"),
            "{}",
            found.detail
        );
    }

    #[test]
    fn the_references_restore_is_held_to_what_is_stored() {
        let record = |writes| Record {
            call: None,
            skipped: None,
            fault: None,
            effects: Effects {
                writes: 1,
                writes_sha256: [writes; 32],
                ..Effects::default()
            },
            state: state(),
        };
        let found = |other| {
            difference(
                "replay",
                &record(1),
                &record(other),
                &Guests::Alike,
                Agree::Visible,
            )
        };
        assert_eq!(found(1), None);
        assert_eq!(found(2).unwrap().what, "stores");
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
