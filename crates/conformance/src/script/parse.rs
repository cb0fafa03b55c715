//! Reads the text form of a script. Every error names its line.

use std::time::Duration;

use cabinet_wire::{Key, Kind, Mode};

use super::lex::{Word, words};
use super::{
    MAX_CONFIG, MAX_FIELD_BYTES, MAX_SCRIPT_BYTES, MAX_SEATS, MAX_SHOTS, MAX_STEPS, Script, Seat,
    Setup, Step,
};

/// Why a script was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The file is larger than [`MAX_SCRIPT_BYTES`].
    #[error("script has {bytes} bytes, more than {MAX_SCRIPT_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The file is not UTF-8.
    #[error("script is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// No line of the file is a step.
    #[error("script has no steps")]
    NoSteps,
    /// A line makes no sense.
    #[error("line {line}: {problem}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

/// What is wrong with a line of a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// A quote is not closed on its line.
    #[error("quote is not closed")]
    OpenQuote,
    /// A backslash is followed by nothing known.
    #[error("unknown escape; known are \\\\ \\' \\\" \\n \\r \\t \\0 \\u{{HEX}}")]
    BadEscape,
    /// The line's first word is neither setup nor a step.
    #[error("unknown word {0:?}")]
    Unknown(String),
    /// The line has too few or too many words.
    #[error("expected `{0}`")]
    Shape(&'static str),
    /// A word is not what its place asks for.
    #[error("{word:?} is not {wanted}")]
    NotA {
        /// The word.
        word: String,
        /// What was wanted.
        wanted: &'static str,
    },
    /// A setup line came after a step.
    #[error("`{0}` belongs before the first step")]
    LateSetup(String),
    /// A step came after `close`.
    #[error("`{0}` comes after `close`, which ends the room")]
    AfterClose(String),
    /// A setup line, config key, seat, field or shot name was given twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A count or length is over its limit.
    #[error("{what} is over its limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// Its limit.
        limit: usize,
    },
}

impl Script {
    /// Reads a script from the bytes of a file.
    ///
    /// # Errors
    /// [`ScriptError`], which names the line.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ScriptError> {
        if bytes.len() > MAX_SCRIPT_BYTES {
            return Err(ScriptError::TooLarge { bytes: bytes.len() });
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(error) => Err(ScriptError::NotUtf8 {
                at: error.valid_up_to(),
            }),
        }
    }

    /// Reads a script from its text.
    ///
    /// # Errors
    /// [`ScriptError`], which names the line.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        if text.len() > MAX_SCRIPT_BYTES {
            return Err(ScriptError::TooLarge { bytes: text.len() });
        }
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            reader.line(line).map_err(|problem| ScriptError::Line {
                line: index + 1,
                problem,
            })?;
        }
        if reader.script.steps.is_empty() {
            return Err(ScriptError::NoSteps);
        }
        Ok(reader.script)
    }
}

impl Setup {
    /// Takes one setup line, such as `deadline 5s` or `seat 1 guest handle=zoë`, over whatever was
    /// set before.
    ///
    /// # Errors
    /// [`LineProblem`]; the setup then stays as it was.
    pub fn set(&mut self, line: &str) -> Result<(), LineProblem> {
        let script = Script {
            setup: self.clone(),
            steps: Vec::new(),
        };
        let mut reader = Reader {
            script,
            overrides: true,
            ..Reader::default()
        };
        let words = words(line)?;
        let Some((first, rest)) = words.split_first() else {
            return Ok(());
        };
        if !reader.setup(&first.text, rest)? {
            return Err(LineProblem::Unknown(first.text.clone()));
        }
        *self = reader.script.setup;
        Ok(())
    }
}

#[derive(Default)]
struct Reader {
    script: Script,
    /// Whether a line may set what was set before.
    overrides: bool,
    /// Setup words already seen that may come once.
    seen: Vec<&'static str>,
    shots: std::collections::BTreeSet<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), LineProblem> {
        let words = words(line)?;
        let Some((first, rest)) = words.split_first() else {
            return Ok(());
        };
        if self.setup(&first.text, rest)? {
            if !self.script.steps.is_empty() {
                return Err(LineProblem::LateSetup(first.text.clone()));
            }
            return Ok(());
        }
        let step = self.step(&first.text, rest)?;
        if let Some(Step::Close) = self.script.steps.last() {
            return Err(LineProblem::AfterClose(first.text.clone()));
        }
        if self.script.steps.len() == MAX_STEPS {
            return Err(LineProblem::Limit {
                what: "the number of steps",
                limit: MAX_STEPS,
            });
        }
        self.script.steps.push(step);
        Ok(())
    }

    /// Takes a setup line; false when the word is not a setup word.
    fn setup(&mut self, word: &str, rest: &[Word]) -> Result<bool, LineProblem> {
        match word {
            "seed" => {
                self.once("seed")?;
                let [seed] = args(rest, "seed NUMBER")?;
                self.setup_mut().seed = number(&seed.text, "a signed 64-bit number")?;
            }
            "mode" => {
                self.once("mode")?;
                let [mode] = args(rest, "mode quick|private|solo")?;
                self.setup_mut().mode =
                    known(Mode::from_name, &mode.text, "quick, private or solo")?;
            }
            "capacity" => {
                self.once("capacity")?;
                let [capacity] = args(rest, "capacity NUMBER")?;
                self.setup_mut().capacity = Some(number(&capacity.text, "a number of seats")?);
            }
            "min-players" => {
                self.once("min-players")?;
                let [players] = args(rest, "min-players NUMBER")?;
                self.setup_mut().min_players = Some(number(&players.text, "a number of players")?);
            }
            "clock" => {
                self.once("clock")?;
                let [clock] = args(rest, "clock DURATION")?;
                self.setup_mut().clock_unix_nanos = clock_of(&clock.text)?;
            }
            "deadline" => {
                self.once("deadline")?;
                let [deadline] = args(rest, "deadline DURATION")?;
                self.setup_mut().deadline = Some(duration(&deadline.text)?);
            }
            "memory-pages" => {
                self.once("memory-pages")?;
                let [pages] = args(rest, "memory-pages NUMBER")?;
                let pages: u32 = number(&pages.text, "a number of pages, 1 to 65536")?;
                if !(1..=65_536).contains(&pages) {
                    return Err(LineProblem::NotA {
                        wanted: "a number of pages, 1 to 65536",
                        word: pages.to_string(),
                    });
                }
                self.setup_mut().memory_pages_max = Some(pages);
            }
            "resident" => {
                self.once("resident")?;
                let [resident] = args(rest, "resident yes|no")?;
                let yes_or_no = |word: &str| match word {
                    "yes" => Some(true),
                    "no" => Some(false),
                    _ => None,
                };
                let resident = known(yes_or_no, &resident.text, "yes or no")?;
                self.setup_mut().resident = Some(resident);
            }
            "config" => self.config(rest)?,
            "seat" => self.seat(rest)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn config(&mut self, rest: &[Word]) -> Result<(), LineProblem> {
        const SHAPE: &str = "config KEY=VALUE";
        let [pair] = args(rest, SHAPE)?;
        let (key, value) = pair.pair().ok_or(LineProblem::Shape(SHAPE))?;
        if key.is_empty() {
            return Err(LineProblem::Shape(SHAPE));
        }
        let config = &mut self.script.setup.config;
        if !self.overrides && config.contains_key(key) {
            return Err(LineProblem::Twice(format!("config {key:?}")));
        }
        if config.len() == MAX_CONFIG && !config.contains_key(key) {
            return Err(LineProblem::Limit {
                what: "the number of config keys",
                limit: MAX_CONFIG,
            });
        }
        config.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn seat(&mut self, rest: &[Word]) -> Result<(), LineProblem> {
        let [number, kind, fields @ ..] = rest else {
            return Err(LineProblem::Shape(
                "seat NUMBER guest|member FIELD=VALUE ...",
            ));
        };
        let number = seat_number(&number.text)?;
        if !self.overrides && self.script.setup.seats.contains_key(&number) {
            return Err(LineProblem::Twice(format!("seat {number}")));
        }
        let kind = known(Kind::from_name, &kind.text, "guest or member")?;
        let mut seat = Seat {
            kind,
            ..Seat::numbered(number)
        };
        let mut given: Vec<&str> = Vec::new();
        for field in fields {
            let (name, value) = field.pair().ok_or(LineProblem::Shape("FIELD=VALUE"))?;
            if given.contains(&name) {
                return Err(LineProblem::Twice(name.to_owned()));
            }
            given.push(name);
            set_field(&mut seat, name, value)?;
        }
        self.script.setup.seats.insert(number, seat);
        Ok(())
    }

    fn step(&mut self, word: &str, rest: &[Word]) -> Result<Step, LineProblem> {
        Ok(match word {
            "join" => {
                let [seat] = args(rest, "join SEAT")?;
                Step::Join {
                    seat: seat_number(&seat.text)?,
                }
            }
            "leave" => {
                let [seat] = args(rest, "leave SEAT")?;
                Step::Leave {
                    seat: seat_number(&seat.text)?,
                }
            }
            "input" => {
                let [seat, rune] = args(rest, "input SEAT 'CHARACTER'")?;
                Step::Input {
                    seat: seat_number(&seat.text)?,
                    rune: single_char(&rune.text)?,
                }
            }
            "key" => {
                let [seat, key] = args(rest, "key SEAT NAME")?;
                let names = "enter, backspace, esc, tab, up, down, left, right or ctrl-c";
                Step::Key {
                    seat: seat_number(&seat.text)?,
                    key: known(Key::from_name, &key.text, names)?,
                }
            }
            "wake" => match rest {
                [] => Step::Wake {
                    after: Duration::ZERO,
                },
                [after] => {
                    let after = after.text.strip_prefix('+');
                    Step::Wake {
                        after: duration(after.ok_or(LineProblem::Shape("wake +DURATION"))?)?,
                    }
                }
                _ => return Err(LineProblem::Shape("wake +DURATION")),
            },
            "advance" => {
                let [by] = args(rest, "advance DURATION")?;
                Step::Advance {
                    by: duration(&by.text)?,
                }
            }
            "snapshot" => {
                let [] = args(rest, "snapshot")?;
                Step::Snapshot
            }
            "shot" => {
                let [name] = args(rest, "shot NAME")?;
                Step::Shot {
                    name: self.shot(&name.text)?,
                }
            }
            "close" => {
                let [] = args(rest, "close")?;
                Step::Close
            }
            other => return Err(LineProblem::Unknown(other.to_owned())),
        })
    }

    fn shot(&mut self, name: &str) -> Result<String, LineProblem> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let rest = |byte: u8| plain(byte) || matches!(byte, b'.' | b'_' | b'-');
        let named = name.bytes().next().is_some_and(plain) && name.bytes().all(rest);
        if !named {
            let wanted = "a shot name: letters, digits, `.`, `_`, `-`, a letter or digit first";
            return Err(LineProblem::NotA {
                word: name.to_owned(),
                wanted,
            });
        }
        limit(name, "the length of a shot name")?;
        if self.shots.contains(name) {
            return Err(LineProblem::Twice(format!("shot {name:?}")));
        }
        if self.shots.len() == MAX_SHOTS {
            return Err(LineProblem::Limit {
                what: "the number of shots",
                limit: MAX_SHOTS,
            });
        }
        self.shots.insert(name.to_owned());
        Ok(name.to_owned())
    }

    fn once(&mut self, word: &'static str) -> Result<(), LineProblem> {
        if !self.overrides && self.seen.contains(&word) {
            return Err(LineProblem::Twice(format!("`{word}`")));
        }
        self.seen.push(word);
        Ok(())
    }

    fn setup_mut(&mut self) -> &mut Setup {
        &mut self.script.setup
    }
}

fn set_field(seat: &mut Seat, name: &str, value: &str) -> Result<(), LineProblem> {
    limit(value, "the length of a seat's field")?;
    match name {
        "account" => value.clone_into(&mut seat.account),
        "handle" => value.clone_into(&mut seat.handle),
        "conn" => value.clone_into(&mut seat.conn),
        "glyph" => value.clone_into(&mut seat.glyph),
        "ink" => seat.ink = colour(value)?,
        "bg" => seat.bg = colour(value)?,
        "fallback" => {
            let wanted = "one ASCII character";
            let not = || LineProblem::NotA {
                word: value.to_owned(),
                wanted,
            };
            let [byte] = value.as_bytes() else {
                return Err(not());
            };
            seat.fallback = *byte;
        }
        other => return Err(LineProblem::Unknown(other.to_owned())),
    }
    Ok(())
}

fn colour(value: &str) -> Result<[u8; 3], LineProblem> {
    let not = || LineProblem::NotA {
        word: value.to_owned(),
        wanted: "a colour of six hex digits",
    };
    if value.len() != 6 || !value.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(not());
    }
    let packed = u32::from_str_radix(value, 16).map_err(|_| not())?;
    let [_, r, g, b] = packed.to_be_bytes();
    Ok([r, g, b])
}

fn args<'a, const N: usize>(
    rest: &'a [Word],
    shape: &'static str,
) -> Result<&'a [Word; N], LineProblem> {
    rest.try_into().map_err(|_| LineProblem::Shape(shape))
}

fn number<T: std::str::FromStr>(word: &str, wanted: &'static str) -> Result<T, LineProblem> {
    word.parse().map_err(|_| LineProblem::NotA {
        word: word.to_owned(),
        wanted,
    })
}

fn known<T>(
    from_name: impl FnOnce(&str) -> Option<T>,
    word: &str,
    wanted: &'static str,
) -> Result<T, LineProblem> {
    from_name(word).ok_or_else(|| LineProblem::NotA {
        word: word.to_owned(),
        wanted,
    })
}

fn seat_number(word: &str) -> Result<u16, LineProblem> {
    let seat: u16 = number(word, "a seat number")?;
    if seat >= MAX_SEATS {
        return Err(LineProblem::Limit {
            what: "the seat number",
            limit: usize::from(MAX_SEATS) - 1,
        });
    }
    Ok(seat)
}

fn single_char(word: &str) -> Result<char, LineProblem> {
    let mut chars = word.chars();
    match (chars.next(), chars.next()) {
        (Some(rune), None) => Ok(rune),
        _ => Err(LineProblem::NotA {
            word: word.to_owned(),
            wanted: "one character",
        }),
    }
}

fn clock_of(word: &str) -> Result<i64, LineProblem> {
    let not = || LineProblem::NotA {
        word: word.to_owned(),
        wanted: "a time since 1970",
    };
    let magnitude = duration(word.strip_prefix('-').unwrap_or(word))?;
    let nanos = i64::try_from(magnitude.as_nanos()).map_err(|_| not())?;
    Ok(if word.starts_with('-') { -nanos } else { nanos })
}

/// Reads a whole number with a unit. At most `i64::MAX` nanoseconds, so that a clock holds it.
///
/// # Errors
/// [`LineProblem::NotA`].
fn duration(word: &str) -> Result<Duration, LineProblem> {
    let not = || LineProblem::NotA {
        word: word.to_owned(),
        wanted: "a duration: a whole number and one of ns us ms s m h",
    };
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = word.split_at(digits);
    let count: u64 = count.parse().map_err(|_| not())?;
    let size: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(not()),
    };
    let nanos = count
        .checked_mul(size)
        .filter(|nanos| i64::try_from(*nanos).is_ok());
    nanos.map(Duration::from_nanos).ok_or_else(not)
}

fn limit(text: &str, what: &'static str) -> Result<(), LineProblem> {
    if text.len() > MAX_FIELD_BYTES {
        return Err(LineProblem::Limit {
            what,
            limit: MAX_FIELD_BYTES,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
