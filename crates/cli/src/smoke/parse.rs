//! `smoke.yaml`: who plays, what they type, when the pictures are taken.
//!
//! The format and its error texts are the reference kit's; keys are judged in document order, steps
//! last. Limits, and refusals the reference does not have: aliases, nesting deeper than
//! [`MAX_DEPTH`](super::MAX_DEPTH), files over [`MAX_SCRIPT_BYTES`], more than [`MAX_STEPS`] steps,
//! [`MAX_SHOTS`] shots or [`MAX_CONFIG`] config keys, shot names over [`MAX_NAME_BYTES`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use cabinet_conformance::{ShotRun, ShotStep};
use cabinet_wire::Key;

use super::go::{duration, positive_duration, quote};
use super::yaml::{self, MAX_SCRIPT_BYTES, Node, Value};

/// Most steps, after a `text` has become its characters and an `advance` its heartbeats.
pub const MAX_STEPS: usize = 200_000;
/// Most shots; with more, names would need a third digit.
pub const MAX_SHOTS: usize = 99;
/// Longest shot name, bytes: with ordinal, seat and ending a file name still.
pub const MAX_NAME_BYTES: usize = 200;
/// Most keys under `config`.
pub const MAX_CONFIG: usize = 1_024;
/// Most seats.
pub const MAX_SEATS: i64 = 8;

const DEFAULT_HEARTBEAT: Duration = Duration::from_millis(50);
/// What a shot name matches, as the message names it.
const SHOT_NAME: &str = "^[a-zA-Z0-9][a-zA-Z0-9._-]*$";
/// 2000-01-01T00:00:00Z, unix seconds.
const EPOCH_UNIX_SECONDS: i64 = 946_684_800;
/// Seconds of a year of 365 days.
const YEAR_SECONDS: i64 = 31_536_000;

/// What is wrong with a script, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScriptProblem {
    /// The line, from 1; `None` when it is the whole file.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl ScriptProblem {
    pub(super) fn at(line: usize, what: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            what: what.into(),
        }
    }

    fn whole(what: impl Into<String>) -> Self {
        Self {
            line: None,
            what: what.into(),
        }
    }
}

impl fmt::Display for ScriptProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "smoke.yaml:{line}: {}", self.what),
            None => write!(f, "smoke.yaml: {}", self.what),
        }
    }
}

/// A script that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmokeScript {
    /// What is to be played and filmed. Names are file names, seats of a shot ascend.
    pub run: ShotRun,
    /// How often the room wakes while `advance` passes.
    pub heartbeat: Duration,
    /// The line each step of the run comes from.
    pub lines: Vec<usize>,
}

impl SmokeScript {
    /// Reads a script.
    ///
    /// # Errors
    /// [`ScriptProblem`], the first there is.
    pub fn parse(bytes: &[u8]) -> Result<Self, ScriptProblem> {
        if bytes.len() > MAX_SCRIPT_BYTES {
            let what = format!("larger than {MAX_SCRIPT_BYTES} bytes");
            return Err(ScriptProblem::whole(what));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            ScriptProblem::at(line, "not UTF-8")
        })?;
        if let Some((at, _)) = text.char_indices().find(|(_, c)| !is_yaml(*c)) {
            let line = 1 + text[..at].matches('\n').count();
            let what = "not YAML: control characters are not allowed";
            return Err(ScriptProblem::at(line, what));
        }
        // The YAML parser may mean what is behind the last line, and ends lines at more characters.
        let lines = 1 + text.matches('\n').count();
        Self::parse_text(text).map_err(|problem| ScriptProblem {
            line: problem.line.map(|line| line.clamp(1, lines)),
            ..problem
        })
    }

    fn parse_text(text: &str) -> Result<Self, ScriptProblem> {
        let root = yaml::document(text)?;
        let Some(Node {
            value: Value::Mapping(fields),
            ..
        }) = root
        else {
            return Err(ScriptProblem::whole("top level must be a mapping"));
        };
        let (mut reader, steps) = head(&fields)?;
        let Value::List(items) = &steps.value else {
            return Err(ScriptProblem::at(
                steps.line,
                "steps must be a non-empty list",
            ));
        };
        if items.is_empty() {
            return Err(ScriptProblem::at(
                steps.line,
                "steps must be a non-empty list",
            ));
        }
        for item in items {
            reader.step(item)?;
        }
        if reader.shots.is_empty() {
            let what = "script has no shot step — nothing would be captured";
            return Err(ScriptProblem::whole(what));
        }
        Ok(reader.script)
    }
}

/// Everything but the steps, and where the steps are.
fn head(fields: &[(Node, Node)]) -> Result<(Reader, &Node), ScriptProblem> {
    let (mut seed, mut seats, mut steps) = (None, None, None);
    let mut heartbeat = DEFAULT_HEARTBEAT;
    let mut config = BTreeMap::new();
    for (key, value) in fields {
        let wrong = |what: &str| ScriptProblem::at(value.line, what);
        match key.text() {
            "seed" => {
                seed = Some(
                    value
                        .integer()
                        .ok_or_else(|| wrong("seed must be an integer"))?,
                );
            }
            "seats" => {
                let fits = |seats: &i64| (1..=MAX_SEATS).contains(seats);
                let number = value.integer().filter(fits);
                let number = number.and_then(|seats| u16::try_from(seats).ok());
                let text = "seats must be an integer in 1..8";
                seats = Some(number.ok_or_else(|| wrong(text))?);
            }
            "heartbeat" => {
                let text = "heartbeat must be a positive duration (e.g. 50ms)";
                heartbeat = positive_duration(value.text()).ok_or_else(|| wrong(text))?;
            }
            "config" => config = config_of(value)?,
            "steps" => steps = Some(value),
            other => {
                let fields = "seed, seats, heartbeat, config, steps";
                let what = format!("unknown field {} (want {fields})", quote(other));
                return Err(ScriptProblem::at(key.line, what));
            }
        }
    }
    let missing = |field| ScriptProblem::whole(format!("missing required field {field}"));
    let seed = seed.ok_or_else(|| missing("seed"))?;
    let seats = seats.ok_or_else(|| missing("seats"))?;
    let steps = steps.ok_or_else(|| missing("steps"))?;
    let reader = Reader {
        script: SmokeScript {
            run: ShotRun {
                seed,
                seats,
                config,
                clock_unix_nanos: clock_unix_nanos(seed),
                steps: Vec::new(),
            },
            heartbeat,
            lines: Vec::new(),
        },
        seat: 0,
        shots: BTreeSet::new(),
    };
    Ok((reader, steps))
}

/// The clock a seed starts at: some second of the year 2000.
fn clock_unix_nanos(seed: i64) -> i64 {
    (EPOCH_UNIX_SECONDS + seed.rem_euclid(YEAR_SECONDS)) * 1_000_000_000
}

fn config_of(node: &Node) -> Result<BTreeMap<String, String>, ScriptProblem> {
    let Value::Mapping(pairs) = &node.value else {
        let what = "config must be a mapping of string keys to scalar values";
        return Err(ScriptProblem::at(node.line, what));
    };
    let mut config = BTreeMap::new();
    for (key, value) in pairs {
        let Value::Scalar(scalar) = &value.value else {
            let what = format!("config {}: value must be a scalar", quote(key.text()));
            return Err(ScriptProblem::at(value.line, what));
        };
        config.insert(key.text().to_owned(), scalar.text.clone());
        if config.len() > MAX_CONFIG {
            let what = format!("more than {MAX_CONFIG} config keys");
            return Err(ScriptProblem::at(key.line, what));
        }
    }
    Ok(config)
}

struct Reader {
    script: SmokeScript,
    /// Who types.
    seat: u16,
    /// Names taken.
    shots: BTreeSet<String>,
}

impl Reader {
    fn step(&mut self, node: &Node) -> Result<(), ScriptProblem> {
        let Value::Mapping(fields) = &node.value else {
            return Err(not_a_step(node));
        };
        let [(key, value), extra @ ..] = &fields[..] else {
            return Err(not_a_step(node));
        };
        let wrong = |what: String| Err(ScriptProblem::at(value.line, what));
        if key.text() != "shot"
            && let [(field, _), ..] = extra
        {
            let (field_text, step) = (quote(field.text()), key.text());
            let what = format!("unexpected extra field {field_text} in {step} step");
            return Err(ScriptProblem::at(field.line, what));
        }
        let (seat, text) = (self.seat, value.text());
        match key.text() {
            "rune" => {
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(rune), None) if rune != char::REPLACEMENT_CHARACTER => {
                        self.push(key.line, ShotStep::Input { seat, rune })
                    }
                    _ => wrong(format!(
                        "rune must be exactly one printable character, got {}",
                        quote(text)
                    )),
                }
            }
            "key" => match step_of_key(seat, text) {
                Some(step) => self.push(key.line, step),
                None => wrong(format!(
                    "unknown key {} (want enter, backspace, esc, tab, up, down, left, right, space)",
                    quote(text)
                )),
            },
            "text" if text.is_empty() => wrong("text must be a non-empty string".to_owned()),
            "text" => text
                .chars()
                .try_for_each(|rune| self.push(key.line, ShotStep::Input { seat, rune })),
            "seat" => match self.seat_number(value) {
                Some(seat) => {
                    self.seat = seat;
                    Ok(())
                }
                None => wrong(format!(
                    "seat must be an integer in 0..{}",
                    self.last_seat()
                )),
            },
            "advance" => self.advance(key.line, value),
            "wake" if !value.is_nothing() => wrong("wake takes no value".to_owned()),
            "wake" => {
                let by = Duration::ZERO;
                self.push(key.line, ShotStep::Wake { by })
            }
            "shot" => self.shot(key.line, value, extra),
            other => {
                let steps = "rune, key, text, seat, advance, wake, shot";
                let what = format!("unknown step {} (want {steps})", quote(other));
                Err(ScriptProblem::at(key.line, what))
            }
        }
    }

    fn advance(&mut self, line: usize, value: &Node) -> Result<(), ScriptProblem> {
        let Some(time) = positive_duration(value.text()) else {
            let what = "advance must be a positive duration (e.g. 1.5s)";
            return Err(ScriptProblem::at(value.line, what));
        };
        let by = self.script.heartbeat;
        if !time.as_nanos().is_multiple_of(by.as_nanos()) {
            let (time, by) = (duration(time), duration(by));
            let what = format!(
                "advance {time} is not a multiple of the {by} heartbeat — pick an exact tick"
            );
            return Err(ScriptProblem::at(value.line, what));
        }
        // Stops at the limit, however many there are.
        (0..time.as_nanos() / by.as_nanos())
            .try_for_each(|_| self.push(line, ShotStep::Wake { by }))
    }

    fn shot(
        &mut self,
        line: usize,
        value: &Node,
        extra: &[(Node, Node)],
    ) -> Result<(), ScriptProblem> {
        let name = value.text();
        let wrong = |what: String| Err(ScriptProblem::at(value.line, what));
        if !is_shot_name(name) {
            let name = quote(name);
            return wrong(format!(
                "shot name {name} must match {SHOT_NAME} (it becomes a filename)"
            ));
        }
        if name.len() > MAX_NAME_BYTES {
            return wrong(format!("shot name longer than {MAX_NAME_BYTES} bytes"));
        }
        if !self.shots.insert(name.to_owned()) {
            return wrong(format!("duplicate shot name {}", quote(name)));
        }
        if self.shots.len() > MAX_SHOTS {
            return wrong(format!("more than {MAX_SHOTS} shots"));
        }
        let seats = match extra {
            [] => None,
            [(field, list)] if field.text() == "seats" => Some(self.filter(list)?),
            [(field, _), ..] => {
                let what = "shot allows only a `seats:` filter alongside the name";
                return Err(ScriptProblem::at(field.line, what));
            }
        };
        let name = name.to_owned();
        self.push(line, ShotStep::Shot { name, seats })
    }

    /// The seats of a shot, ascending.
    fn filter(&self, node: &Node) -> Result<Vec<u16>, ScriptProblem> {
        let empty = || {
            let what = "shot seats must be a non-empty list of seat indices";
            Err(ScriptProblem::at(node.line, what))
        };
        let Value::List(items) = &node.value else {
            return empty();
        };
        if items.is_empty() {
            return empty();
        }
        let mut seats = BTreeSet::new();
        for item in items {
            let Some(seat) = self.seat_number(item) else {
                let what = format!("shot seat must be an integer in 0..{}", self.last_seat());
                return Err(ScriptProblem::at(item.line, what));
            };
            if !seats.insert(seat) {
                let what = format!("duplicate seat {seat} in shot filter");
                return Err(ScriptProblem::at(item.line, what));
            }
        }
        Ok(seats.into_iter().collect())
    }

    fn seat_number(&self, node: &Node) -> Option<u16> {
        let seat = node.integer().and_then(|seat| u16::try_from(seat).ok());
        seat.filter(|seat| *seat < self.script.run.seats)
    }

    fn last_seat(&self) -> u16 {
        self.script.run.seats.saturating_sub(1)
    }

    fn push(&mut self, line: usize, step: ShotStep) -> Result<(), ScriptProblem> {
        if self.script.lines.len() == MAX_STEPS {
            let what = format!("more than {MAX_STEPS} characters, heartbeats and other steps");
            return Err(ScriptProblem::at(line, what));
        }
        self.script.run.steps.push(step);
        self.script.lines.push(line);
        Ok(())
    }
}

/// Whether YAML has a place for a character: all that can be printed, tabs, line ends.
fn is_yaml(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' | '\u{85}' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    }
}

fn not_a_step(node: &Node) -> ScriptProblem {
    ScriptProblem::at(node.line, "each step must be a mapping like `- key: enter`")
}

fn step_of_key(seat: u16, name: &str) -> Option<ShotStep> {
    let key = match name {
        "space" => return Some(ShotStep::Input { seat, rune: ' ' }),
        "enter" => Key::Enter,
        "backspace" => Key::Backspace,
        "esc" | "escape" => Key::Esc,
        "tab" => Key::Tab,
        "up" => Key::Up,
        "down" => Key::Down,
        "left" => Key::Left,
        "right" => Key::Right,
        _ => return None,
    };
    Some(ShotStep::Key { seat, key })
}

fn is_shot_name(name: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphanumeric();
    let rest = |byte: u8| first(byte) || matches!(byte, b'.' | b'_' | b'-');
    name.bytes().next().is_some_and(first) && name.bytes().all(rest)
}

#[cfg(test)]
mod tests;
