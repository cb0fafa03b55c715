//! What an author is told about a fault.
//!
//! A [`FaultReport`] names the game, the callback and the place in the code, never a player: it
//! may be shown to the author and kept in logs. What a guest wrote itself (an error text, names
//! of functions) is quoted, escaped and bounded.

use std::fmt::{self, Write};
use std::time::Duration;

use cabinet_host::{CallReport, Fault, Trap, TrapKind};
use cabinet_wire::ArtifactDigest;

use crate::blame::{Blame, Evidence};
use crate::recorder::Export;
use crate::registry::GameSlug;
use cabinet_durability::RoomId;

/// Bytes of a rendered report at most.
pub const FAULT_REPORT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a guest's error text, or of an engine's message, in a rendered report.
const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of a function's name in a rendered report; 32 frames of them fit.
const NAME_BYTES_MAX: usize = 256;

/// One fault of one room. `Display` renders it in several lines, in at most
/// [`FAULT_REPORT_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq)]
pub struct FaultReport {
    /// The game.
    pub slug: GameSlug,
    /// Its artifact: tells versions apart.
    pub artifact: ArtifactDigest,
    /// The room.
    pub room: RoomId,
    /// The callback.
    pub export: Export,
    /// Which callback of the room it was, counted from 1 since it was opened or resumed.
    pub step: u64,
    /// The room's clock during the callback, Unix nanoseconds.
    pub room_clock: i64,
    /// What happened.
    pub fault: Fault,
    /// What the callback did and cost; `None` if the guest was not reached.
    pub call: Option<CallReport>,
    /// Linear memory afterwards, in bytes.
    pub memory_bytes: u64,
    /// What is known of the time the guest got.
    pub evidence: Evidence,
}

impl FaultReport {
    /// Who is to blame.
    #[must_use]
    pub fn blame(&self) -> Blame {
        Blame::of(&self.fault, &self.evidence)
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} in {} of {}",
            self.fault.class(),
            self.export.name(),
            self.slug
        )?;
        match &self.fault {
            Fault::Trap(trap) => trap_lines(f, trap)?,
            fault => writeln!(
                f,
                "  what      {}",
                Quoted(&fault.to_string(), TEXT_BYTES_MAX)
            )?,
        }
        writeln!(f, "  blame     {}", self.blame())?;
        writeln!(f, "  room      {}, callback {}", self.room, self.step)?;
        writeln!(f, "  clock     {} ns", self.room_clock)?;
        writeln!(f, "  artifact  {}", self.artifact)?;
        if let Some(call) = &self.call {
            writeln!(
                f,
                "  time      {:?}: guest {:?}, host {:?} of which stores {:?}",
                call.guest_time + call.host_time,
                call.guest_time,
                call.host_time,
                call.io_time
            )?;
            writeln!(
                f,
                "  work      {} fuel, {} host calls",
                call.fuel, call.host_calls
            )?;
        }
        let Evidence { cpu, stolen, cores } = self.evidence;
        if cpu.is_some() || stolen.is_some() {
            let (cpu, stolen) = (Known(cpu), Known(stolen));
            writeln!(f, "  CPU       {cpu}; {stolen} stolen from {cores} cores")?;
        }
        write!(f, "  memory    {} bytes", self.memory_bytes)
    }
}

fn trap_lines(f: &mut fmt::Formatter<'_>, trap: &Trap) -> fmt::Result {
    write!(f, "  what      {}", trap.kind)?;
    // The other kinds say it all.
    if matches!(trap.kind, TrapKind::Other | TrapKind::Kernel) {
        write!(f, " ({})", Quoted(&trap.message, TEXT_BYTES_MAX))?;
    }
    writeln!(f)?;
    for (depth, frame) in trap
        .backtrace
        .iter()
        .take(cabinet_host::TRAP_FRAMES_MAX)
        .enumerate()
    {
        write!(
            f,
            "  {:<9} function {}",
            if depth == 0 { "in" } else { "from" },
            frame.function
        )?;
        if let Some(name) = &frame.name {
            write!(f, " {}", Quoted(name, NAME_BYTES_MAX))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// Text of a guest on one line: what does not print is escaped, and it ends in `…` where it would
/// be longer than so many bytes.
struct Quoted<'a>(&'a str, usize);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.1;
        for c in self.0.chars() {
            // Quotes print as they are.
            let plain = matches!(c, '\'' | '"');
            let bytes = if plain {
                1
            } else {
                c.escape_debug().map(char::len_utf8).sum()
            };
            let Some(after) = left.checked_sub(bytes) else {
                return f.write_char('…');
            };
            left = after;
            if plain {
                f.write_char(c)?;
            } else {
                write!(f, "{}", c.escape_debug())?;
            }
        }
        Ok(())
    }
}

struct Known(Option<Duration>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => write!(f, "{time:?}"),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cabinet_durability::RoomIds;
    use cabinet_host::{TRAP_FRAMES_MAX, TrapFrame};
    use proptest::prelude::*;

    fn report(fault: Fault) -> FaultReport {
        FaultReport {
            slug: "ada/chess".parse().unwrap(),
            artifact: ArtifactDigest([0xAB; 32]),
            room: RoomIds::default().next(1_700_000_000_000, [7; 8]),
            export: Export::Wake,
            step: 812,
            room_clock: 1_700_000_000_050_000_000,
            fault,
            call: Some(CallReport {
                export: "wake",
                exit: 1,
                guest_time: Duration::from_micros(1_250),
                host_time: Duration::from_micros(750),
                io_time: Duration::from_micros(500),
                fuel: 48_213,
                host_calls: 3,
                ..CallReport::default()
            }),
            memory_bytes: 1_179_648,
            evidence: Evidence {
                cpu: Some(Duration::from_micros(1_900)),
                stolen: None,
                cores: 2,
            },
        }
    }

    fn trap(names: &[Option<&str>]) -> Fault {
        let frame = |(at, name): (usize, &Option<&str>)| TrapFrame {
            function: 40 + at as u32,
            name: name.map(str::to_owned),
        };
        Fault::Trap(Trap {
            kind: TrapKind::Unreachable,
            message: "unreachable".into(),
            backtrace: names.iter().enumerate().map(frame).collect(),
        })
    }

    #[test]
    fn a_trap_reads_so() {
        let names = [Some("chess::Board::castle"), None, Some("wake")];
        assert_eq!(
            report(trap(&names)).to_string(),
            "\
trap in wake of ada/chess
  what      unreachable code reached
  in        function 40 chess::Board::castle
  from      function 41
  from      function 42 wake
  blame     guest
  room      018bcfe5-6800-7000-8707-070707070707, callback 812
  clock     1700000000050000000 ns
  artifact  abababababababababababababababababababababababababababababababab
  time      2ms: guest 1.25ms, host 750µs of which stores 500µs
  work      48213 fuel, 3 host calls
  CPU       1.9ms; unknown stolen from 2 cores
  memory    1179648 bytes"
        );
    }

    #[test]
    fn a_guest_that_was_not_reached_has_no_times() {
        let report = FaultReport {
            call: None,
            evidence: Evidence::default(),
            ..report(Fault::Instantiation {
                message: "no memory".into(),
            })
        };
        assert_eq!(
            report.to_string(),
            "\
instantiation in wake of ada/chess
  what      cannot instantiate the guest: no memory
  blame     host
  room      018bcfe5-6800-7000-8707-070707070707, callback 812
  clock     1700000000050000000 ns
  artifact  abababababababababababababababababababababababababababababababab
  memory    1179648 bytes"
        );
    }

    #[test]
    fn text_of_a_guest_stays_on_its_line_and_moves_no_cursor() {
        let text = "it's \"bad\"\n  blame     host\r\u{1b}[2J\u{202e}\\ é".to_owned();
        let rendered = report(Fault::ErrorText { text }).to_string();
        assert!(
            rendered.contains(r#"it's "bad"\n  blame     host\r\u{1b}[2J\u{202e}\\ é"#),
            "{rendered}"
        );
        assert_eq!(rendered.matches("\n  blame ").count(), 1);
    }

    #[test]
    fn a_text_is_cut_one_byte_past_its_limit() {
        let of = |bytes: usize| Quoted(&"x".repeat(bytes), 8).to_string();
        assert_eq!(of(8), "xxxxxxxx");
        assert_eq!(of(9), "xxxxxxxx…");
        // An escape is whole or not there.
        assert_eq!(Quoted("xxxxxxx\n", 8).to_string(), "xxxxxxx…");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_guest_makes_a_report_long_or_unprintable(
            name in "\\PC{0,40}|.{0,400}|\u{10ffff}{0,400}", text in ".{0,4000}", frames in 0..60_usize,
            kernel in any::<bool>(),
        ) {
            let mut fault = trap(&vec![Some(name.as_str()); frames]);
            if let Fault::Trap(trap) = &mut fault && kernel {
                trap.kind = TrapKind::Kernel;
                trap.message.clone_from(&text);
            }
            for fault in [fault, Fault::ErrorText { text }] {
                let rendered = report(fault).to_string();
                prop_assert!(rendered.len() <= FAULT_REPORT_BYTES_MAX);
                prop_assert!(rendered.lines().count() <= 10 + TRAP_FRAMES_MAX);
                prop_assert!(rendered.lines().all(|line| !line.contains(char::is_control)));
            }
        }
    }
}
