//! Where somebody is in a recording, and where a key or passing time takes them. No terminal, no
//! room, no clock.

use std::time::Duration;

use crate::term::keys::Press;

/// Callbacks of a large step.
const LARGE_STEP: usize = 100;
/// Fastest and slowest: so many doublings of the recorded speed.
const SPEEDS: (i32, i32) = (-4, 6);
/// Digits of a step to jump to.
const DIGITS_MAX: usize = 9;

/// When each step of a recording was reached; never goes back.
#[derive(Debug, Clone)]
pub struct Timeline(Vec<Duration>);

impl Timeline {
    /// Of the times of steps 0, 1, …; a time before the one before it is the one before it.
    #[must_use]
    pub fn new(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut latest = Duration::ZERO;
        let mut steps: Vec<_> = times
            .into_iter()
            .map(|time| {
                latest = latest.max(time);
                latest
            })
            .collect();
        if steps.is_empty() {
            steps.push(Duration::ZERO);
        }
        Self(steps)
    }

    /// The last step.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.0.len() - 1
    }

    fn time_of(&self, step: usize) -> Duration {
        self.0[step.min(self.steps())]
    }

    /// The last step reached by then.
    fn step_at(&self, time: Duration) -> usize {
        self.0
            .partition_point(|reached| *reached <= time)
            .saturating_sub(1)
    }
}

/// Somebody who looks at a recording.
#[derive(Debug)]
pub struct View {
    timeline: Timeline,
    seats: u16,
    seat: u16,
    step: usize,
    /// Where between two steps, in recorded time.
    time: Duration,
    playing: bool,
    /// Doublings of the recorded speed.
    speed: i32,
    typed: String,
    leaving: bool,
}

impl View {
    /// At the beginning, playing, as seat 1.
    #[must_use]
    pub fn new(timeline: Timeline, seats: u16) -> Self {
        Self {
            timeline,
            seats: seats.max(1),
            seat: 1,
            step: 0,
            time: Duration::ZERO,
            playing: true,
            speed: 0,
            typed: String::new(),
            leaving: false,
        }
    }

    /// The step to show.
    #[must_use]
    pub fn step(&self) -> usize {
        self.step
    }

    /// The seat to show, from 1.
    #[must_use]
    pub fn seat(&self) -> u16 {
        self.seat
    }

    /// Whether time passes.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        self.playing
    }

    /// Whether somebody has seen enough.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Goes to a step and stays there.
    pub fn go(&mut self, step: usize) {
        self.step = step.min(self.timeline.steps());
        self.time = self.timeline.time_of(self.step);
        self.playing = false;
    }

    /// A key was pressed.
    pub fn press(&mut self, press: &Press) {
        let typed = std::mem::take(&mut self.typed);
        match press {
            Press::Ctrl('c') | Press::Esc | Press::Char('q') => self.leaving = true,
            Press::Char(' ') => self.pause_or_play(),
            Press::Right | Press::Char('.' | 'l') => self.go(self.step.saturating_add(1)),
            Press::Left | Press::Char(',' | 'h') => self.go(self.step.saturating_sub(1)),
            Press::PageDown => self.go(self.step.saturating_add(LARGE_STEP)),
            Press::PageUp => self.go(self.step.saturating_sub(LARGE_STEP)),
            Press::Home => self.go(0),
            Press::End | Press::Char('G') => self.go(usize::MAX),
            Press::Char(digit @ '0'..='9') => {
                self.typed = typed;
                if self.typed.len() < DIGITS_MAX {
                    self.typed.push(*digit);
                }
            }
            Press::Backspace => {
                self.typed = typed;
                self.typed.pop();
            }
            // Nine digits fit. Without any, `g` is the beginning.
            Press::Char('g') => self.go(typed.parse().unwrap_or(0)),
            Press::Enter => {
                if let Ok(step) = typed.parse() {
                    self.go(step);
                }
            }
            Press::Char('+' | '=') | Press::Up => self.speed = (self.speed + 1).min(SPEEDS.1),
            Press::Char('-') | Press::Down => self.speed = (self.speed - 1).max(SPEEDS.0),
            Press::Tab | Press::Ctrl('t') => self.seat = self.seat % self.seats + 1,
            Press::BackTab => self.seat = (self.seat + self.seats - 2) % self.seats + 1,
            Press::Char(_) | Press::Ctrl(_) | Press::Paste(_) => {}
        }
    }

    /// At the end, playing begins anew.
    fn pause_or_play(&mut self) {
        if !self.playing && self.step == self.timeline.steps() {
            self.go(0);
        }
        self.playing = !self.playing;
    }

    /// So much time passed before the screen.
    pub fn pass(&mut self, time: Duration) {
        if !self.playing {
            return;
        }
        self.time = self.time.saturating_add(self.scaled(time));
        self.step = self.timeline.step_at(self.time).max(self.step);
        if self.step == self.timeline.steps() {
            self.go(self.step);
        }
    }

    /// How long until the next step is reached, by the clock before the screen.
    #[must_use]
    pub fn until_next(&self) -> Option<Duration> {
        let left = self
            .timeline
            .time_of(self.step + 1)
            .saturating_sub(self.time);
        let left = if self.speed >= 0 {
            left / (1 << self.speed)
        } else {
            left.saturating_mul(1 << -self.speed)
        };
        self.playing.then_some(left)
    }

    fn scaled(&self, time: Duration) -> Duration {
        if self.speed >= 0 {
            time.saturating_mul(1 << self.speed)
        } else {
            time / (1 << -self.speed)
        }
    }

    /// The status line; `what` is the callback that led here.
    #[must_use]
    pub fn status(&self, what: &str) -> String {
        let time = self.timeline.time_of(self.step);
        let (seconds, millis) = (time.as_secs(), time.subsec_millis());
        let speed = if self.speed >= 0 {
            format!("x{}", 1 << self.speed)
        } else {
            format!("x1/{}", 1 << -self.speed)
        };
        let state = if self.playing { "PLAY" } else { "PAUSE" };
        let mut line = format!(
            " {state} {speed}  step {}/{}  {}:{:02}.{millis:03}  {what}  seat {}/{}",
            self.step,
            self.timeline.steps(),
            seconds / 60,
            seconds % 60,
            self.seat,
            self.seats,
        );
        if !self.typed.is_empty() {
            line.push_str("  go to ");
            line.push_str(&self.typed);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Ten steps, 50 ms apart.
    fn view() -> View {
        View::new(Timeline::new((0..=10).map(|step| ms(step * 50))), 3)
    }

    fn press_all(view: &mut View, keys: &str) {
        keys.chars().for_each(|key| view.press(&Press::Char(key)));
    }

    #[test]
    fn time_passes_at_the_speed_that_is_asked_for_and_stops_at_the_end() {
        let mut view = view();
        assert_eq!(view.until_next(), Some(ms(50)));
        view.pass(ms(49));
        assert_eq!((view.step(), view.until_next()), (0, Some(ms(1))));
        view.pass(ms(1));
        assert_eq!(view.step(), 1);
        press_all(&mut view, "+");
        view.pass(ms(50));
        assert_eq!((view.step(), view.until_next()), (3, Some(ms(25))));
        press_all(&mut view, "--");
        view.pass(ms(100));
        assert_eq!((view.step(), view.until_next()), (4, Some(ms(100))));
        view.pass(ms(100_000));
        assert_eq!(
            (view.step(), view.is_playing(), view.until_next()),
            (10, false, None)
        );
        press_all(&mut view, " ");
        assert_eq!((view.step(), view.is_playing()), (0, true));
    }

    #[test]
    fn steps_go_both_ways_and_stay() {
        let mut view = view();
        view.press(&Press::Right);
        view.press(&Press::Right);
        assert_eq!((view.step(), view.is_playing()), (2, false));
        view.pass(ms(1_000));
        assert_eq!(view.step(), 2);
        view.press(&Press::Left);
        assert_eq!(view.step(), 1);
        view.press(&Press::PageDown);
        assert_eq!(view.step(), 10);
        view.press(&Press::Right);
        assert_eq!(view.step(), 10);
        view.press(&Press::PageUp);
        view.press(&Press::Left);
        assert_eq!(view.step(), 0);
    }

    #[test]
    fn a_number_is_where_to_jump() {
        let mut view = view();
        press_all(&mut view, "7g");
        assert_eq!(view.step(), 7);
        press_all(&mut view, "13");
        view.press(&Press::Backspace);
        assert!(view.status("wake").ends_with("go to 1"));
        view.press(&Press::Enter);
        assert_eq!(view.step(), 1);
        press_all(&mut view, "G");
        assert_eq!(view.step(), 10);
        press_all(&mut view, "5.g");
        assert_eq!(view.step(), 0);
        press_all(&mut view, &"9".repeat(40));
        view.press(&Press::Enter);
        assert_eq!(view.step(), 10);
    }

    #[test]
    fn every_seat_is_looked_at_in_turn() {
        let mut view = view();
        let mut seats = Vec::new();
        for press in [
            Press::Tab,
            Press::Tab,
            Press::Tab,
            Press::BackTab,
            Press::BackTab,
        ] {
            view.press(&press);
            seats.push(view.seat());
        }
        assert_eq!(seats, [2, 3, 1, 3, 2]);
    }

    #[test]
    fn the_status_line_says_where_one_is() {
        let mut view = view();
        view.press(&Press::Right);
        assert_eq!(
            view.status("input 'x'"),
            " PAUSE x1  step 1/10  0:00.050  input 'x'  seat 1/3"
        );
        for (key, speeds) in [("+", "x64"), ("-", "x1/16")] {
            press_all(&mut view, &key.repeat(20));
            assert!(view.status("").contains(speeds));
        }
    }

    proptest! {
        #[test]
        fn any_keys_and_times_lead_to_a_step_that_exists(
            times in prop::collection::vec(any::<u32>(), 0..20),
            seats in 0u16..5,
            events in prop::collection::vec((0usize..14, any::<u32>()), 0..60),
        ) {
            let timeline = Timeline::new(times.iter().map(|time| ms(u64::from(*time))));
            let steps = timeline.steps();
            let mut view = View::new(timeline, seats);
            for (key, time) in events {
                let presses = [
                    Press::Right, Press::Left, Press::PageUp, Press::PageDown, Press::Home, Press::End,
                    Press::Tab, Press::BackTab, Press::Enter, Press::Char('9'), Press::Char('g'),
                    Press::Char(' '), Press::Char('+'), Press::Char('-'),
                ];
                view.press(&presses[key]);
                let _ = view.until_next();
                view.pass(ms(u64::from(time)));
                prop_assert!(view.step() <= steps);
                prop_assert!((1..=seats.max(1)).contains(&view.seat()));
            }
        }
    }
}
