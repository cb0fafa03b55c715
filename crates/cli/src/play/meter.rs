//! What the status line tells of a room: how long its callbacks take, its memory, its frames.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_host::CallReport;
use cabinet_rooms::{Export, GameLabel, Recorder};

/// Callbacks, the last ones, that the figures are of.
const WINDOW: usize = 1_024;

/// Hears what a room does. For one room.
#[derive(Debug, Default)]
pub struct Meter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    took: VecDeque<Duration>,
    /// Of callbacks that drew: frames and their bytes.
    drawn: VecDeque<(u32, u64)>,
    memory: i64,
}

/// The figures as they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// The time that 99 of 100 callbacks did not exceed.
    pub p99: Duration,
    /// Bytes of the guest's linear memory.
    pub memory_bytes: u64,
    /// Container bytes of a frame, on average.
    pub frame_bytes: u64,
}

impl Meter {
    /// The figures as they are now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let state = self.lock();
        let mut took: Vec<_> = state.took.iter().copied().collect();
        took.sort_unstable();
        let (frames, bytes) = state.drawn.iter().fold((0, 0), |(frames, bytes), drawn| {
            (frames + u64::from(drawn.0), bytes + drawn.1)
        });
        Figures {
            // The last of so many but one in a hundred.
            p99: took
                .get((took.len() * 99).div_ceil(100).saturating_sub(1))
                .copied()
                .unwrap_or_default(),
            memory_bytes: u64::try_from(state.memory).unwrap_or(0),
            frame_bytes: bytes.checked_div(frames).unwrap_or(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(window: &mut VecDeque<T>, value: T) {
    if window.len() == WINDOW {
        window.pop_front();
    }
    window.push_back(value);
}

impl Recorder for Meter {
    fn callback(&self, _: &GameLabel, _: Export, took: Duration) {
        push(&mut self.lock().took, took);
    }

    fn work(&self, _: &GameLabel, _: Export, report: &CallReport) {
        if report.frames > 0 {
            push(&mut self.lock().drawn, (report.frames, report.bytes_out));
        }
    }

    fn linear_memory(&self, _: &GameLabel, delta: i64) {
        self.lock().memory += delta;
    }
}

/// Whether what happens is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Nobody asked.
    Not,
    /// It is.
    Going,
    /// It was, until the file could take no more.
    Stopped,
}

/// The status line.
#[must_use]
pub fn status_line(
    figures: Figures,
    seat: usize,
    seats: usize,
    over: bool,
    recording: Recorded,
) -> String {
    let mut line = format!(" seat {}/{seats}", seat + 1);
    // Writing to a string does not fail.
    let _ = write!(
        line,
        "  p99 {}  mem {}  {} B/frame",
        short_time(figures.p99),
        short_bytes(figures.memory_bytes),
        figures.frame_bytes
    );
    line.push_str(match recording {
        Recorded::Not => "",
        Recorded::Going => "  REC",
        Recorded::Stopped => "  REC STOPPED",
    });
    line.push_str(if over {
        "  OVER: any key leaves"
    } else {
        "  Ctrl-C leave"
    });
    if seats > 1 {
        line.push_str("  Ctrl-T seat");
    }
    line
}

fn short_time(time: Duration) -> String {
    let micros = time.as_micros();
    if micros < 1_000 {
        format!("{micros} us")
    } else {
        format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
    }
}

fn short_bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xF_FFFF) * 10) >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cabinet_rooms::Registry;

    #[test]
    fn the_figures_are_of_the_last_callbacks() {
        let meter = Meter::default();
        let label = Registry::new().label("tour");
        assert_eq!(meter.figures(), Figures::default());
        for micros in 0..2_000 {
            meter.callback(&label, Export::Wake, Duration::from_micros(micros));
        }
        // Of 976 to 1,999, the one that ten exceed.
        assert_eq!(meter.figures().p99, Duration::from_micros(1_989));
        meter.linear_memory(&label, 3 << 19);
        meter.linear_memory(&label, -(1 << 19));
        assert_eq!(meter.figures().memory_bytes, 1 << 20);
        for (frames, bytes_out) in [(0, 0), (2, 100), (1, 20)] {
            let report = CallReport {
                frames,
                bytes_out,
                ..CallReport::default()
            };
            meter.work(&label, Export::Wake, &report);
        }
        assert_eq!(meter.figures().frame_bytes, 40);
    }

    #[test]
    fn one_slow_callback_in_a_hundred_is_left_out_and_two_are_not() {
        let meter = Meter::default();
        let label = Registry::new().label("tour");
        let take = |millis| meter.callback(&label, Export::Wake, Duration::from_millis(millis));
        (0..99).for_each(|_| take(1));
        take(50);
        assert_eq!(meter.figures().p99, Duration::from_millis(1));
        take(50);
        take(50);
        assert_eq!(meter.figures().p99, Duration::from_millis(50));
    }

    #[test]
    fn the_status_line_is_short_and_plain() {
        let figures = Figures {
            p99: Duration::from_micros(1_260),
            memory_bytes: 1_179_648,
            frame_bytes: 512,
        };
        assert_eq!(
            status_line(figures, 0, 2, false, Recorded::Going),
            " seat 1/2  p99 1.2 ms  mem 1.1 MiB  512 B/frame  REC  Ctrl-C leave  Ctrl-T seat"
        );
        let line = status_line(figures, 0, 2, false, Recorded::Stopped);
        assert!(line.contains("B/frame  REC STOPPED  Ctrl-C"), "{line}");
        let line = status_line(Figures::default(), 0, 1, true, Recorded::Not);
        assert_eq!(
            line,
            " seat 1/1  p99 0 us  mem 0 B  0 B/frame  OVER: any key leaves"
        );
        assert_eq!(short_bytes(65_536), "64 KiB");
    }
}
