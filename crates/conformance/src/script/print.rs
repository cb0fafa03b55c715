//! The text form of a script, as [`Script::parse`](super::Script::parse) reads it back.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::lex::{Quoted, Rune};
use super::{Script, Seat, Setup, Step};

/// Writes the setup, in full, and then the steps.
pub(super) fn script(script: &Script, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    setup(&script.setup, f)?;
    script
        .steps
        .iter()
        .try_for_each(|step| writeln!(f, "{step}"))
}

fn setup(setup: &Setup, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "seed {}", setup.seed)?;
    writeln!(f, "mode {}", setup.mode)?;
    if let Some(capacity) = setup.capacity {
        writeln!(f, "capacity {capacity}")?;
    }
    if let Some(players) = setup.min_players {
        writeln!(f, "min-players {players}")?;
    }
    let sign = if setup.clock_unix_nanos < 0 { "-" } else { "" };
    let clock = Duration::from_nanos(setup.clock_unix_nanos.unsigned_abs());
    writeln!(f, "clock {sign}{}", Exact(clock))?;
    if let Some(deadline) = setup.deadline {
        writeln!(f, "deadline {}", Exact(deadline))?;
    }
    if let Some(pages) = setup.memory_pages_max {
        writeln!(f, "memory-pages {pages}")?;
    }
    if let Some(resident) = setup.resident {
        writeln!(f, "resident {}", if resident { "yes" } else { "no" })?;
    }
    for (key, value) in &setup.config {
        writeln!(f, "config {}={}", Quoted(key), Quoted(value))?;
    }
    for (number, declared) in &setup.seats {
        seat(*number, declared, f)?;
    }
    Ok(())
}

fn seat(number: u16, seat: &Seat, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = seat.kind;
    let (account, handle, conn) = (
        Quoted(&seat.account),
        Quoted(&seat.handle),
        Quoted(&seat.conn),
    );
    write!(
        f,
        "seat {number} {kind} account={account} handle={handle} conn={conn}"
    )?;
    if !seat.glyph.is_empty() {
        write!(f, " glyph={}", Quoted(&seat.glyph))?;
    }
    for (name, [r, g, b]) in [("ink", seat.ink), ("bg", seat.bg)] {
        if [r, g, b] != [0; 3] {
            write!(f, " {name}={r:02x}{g:02x}{b:02x}")?;
        }
    }
    if seat.fallback != 0 {
        write!(
            f,
            " fallback={}",
            Quoted(&char::from(seat.fallback).to_string())
        )?;
    }
    f.write_char('\n')
}

/// Writes one step, without a line end.
pub(super) fn step(step: &Step, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match step {
        Step::Join { seat } => write!(f, "join {seat}"),
        Step::Leave { seat } => write!(f, "leave {seat}"),
        Step::Input { seat, rune } => write!(f, "input {seat} {}", Rune(*rune)),
        Step::Key { seat, key } => write!(f, "key {seat} {}", key),
        Step::Wake { after } if after.is_zero() => f.write_str("wake"),
        Step::Wake { after } => write!(f, "wake +{}", Exact(*after)),
        Step::Advance { by } => write!(f, "advance {}", Exact(*by)),
        Step::Snapshot => f.write_str("snapshot"),
        Step::Shot { name } => write!(f, "shot {name}"),
        Step::Close => f.write_str("close"),
    }
}

/// A duration as a whole number of the largest unit that holds it exactly.
struct Exact(Duration);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        for (unit, size) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
            if nanos.is_multiple_of(size) {
                return write!(f, "{}{unit}", nanos / size);
            }
        }
        write!(f, "{nanos}ns")
    }
}
