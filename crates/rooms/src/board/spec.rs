//! What a game's board shows, and since when.

use cabinet_wire::meta::LeaderboardOwned;
use cabinet_wire::{Aggregation, Direction, MetricFormat};

/// A game's board, every default resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardSpec {
    /// What the metric is called.
    pub label: String,
    /// Which metric wins.
    pub direction: Direction,
    /// How one player's metrics combine.
    pub aggregation: Aggregation,
    /// How the metric is shown.
    pub format: MetricFormat,
}

/// What a metric is called whose game does not say.
const LABEL: &str = "Score";

impl Default for BoardSpec {
    /// "Score", the higher the better, the best result, an integer.
    fn default() -> Self {
        Self {
            label: LABEL.into(),
            direction: Direction::HigherBetter,
            aggregation: Aggregation::Best,
            format: MetricFormat::Integer,
        }
    }
}

impl BoardSpec {
    /// The board a game declares in its meta; what it leaves out, or says in a code this revision
    /// does not know, is as in [`BoardSpec::default`].
    #[must_use]
    pub fn resolve(declared: Option<&LeaderboardOwned>) -> Self {
        let default = Self::default();
        let Some(declared) = declared else {
            return default;
        };
        Self {
            label: match declared.metric_label.as_str() {
                "" => default.label,
                label => label.into(),
            },
            direction: declared.direction().unwrap_or(default.direction),
            aggregation: declared.aggregation().unwrap_or(default.aggregation),
            format: declared.format().unwrap_or(default.format),
        }
    }
}

/// Since when results count. All in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// Since midnight.
    Daily,
    /// Since Monday, 00:00.
    Weekly,
    /// All of them.
    AllTime,
}

const DAY_NS: i64 = 86_400 * 1_000_000_000;

impl Window {
    /// When the window that contains `now` began; both Unix nanoseconds. `None`: it has no start.
    #[must_use]
    pub fn start(self, now: i64) -> Option<i64> {
        let day = now.div_euclid(DAY_NS);
        let first = match self {
            Self::Daily => day,
            // Day 0 was a Thursday.
            Self::Weekly => day - (day + 3).rem_euclid(7),
            Self::AllTime => return None,
        };
        Some(first.saturating_mul(DAY_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_board_nobody_described_is_a_score_of_which_the_highest_counts() {
        let spec = BoardSpec::resolve(None);
        assert_eq!(spec.label, "Score");
        assert_eq!(spec.direction, Direction::HigherBetter);
        assert_eq!(spec.aggregation, Aggregation::Best);
        assert_eq!(spec.format, MetricFormat::Integer);
    }

    #[test]
    fn a_declared_board_is_taken_as_it_is_but_for_an_empty_label_and_unknown_codes() {
        let declared = LeaderboardOwned {
            metric_label: "Laps".into(),
            direction: 1,
            aggregation: 1,
            format: 2,
        };
        let spec = BoardSpec::resolve(Some(&declared));
        assert_eq!(spec.label, "Laps");
        assert_eq!(spec.direction, Direction::LowerBetter);
        assert_eq!(spec.aggregation, Aggregation::Sum);
        assert_eq!(spec.format, MetricFormat::Duration);

        let odd = LeaderboardOwned {
            metric_label: String::new(),
            direction: 2,
            aggregation: 99,
            format: 255,
        };
        assert_eq!(BoardSpec::resolve(Some(&odd)), BoardSpec::default());
    }

    #[test]
    fn windows_begin_at_midnight_and_on_monday_in_utc() {
        // 2026-11-18 is a Wednesday; 13:37:00.5.
        let midnight = 20_775 * DAY_NS;
        let now = midnight + (13 * 3_600 + 37 * 60) * 1_000_000_000 + 500_000_000;
        assert_eq!(Window::Daily.start(now), Some(midnight));
        assert_eq!(Window::Weekly.start(now), Some(midnight - 2 * DAY_NS));
        assert_eq!(Window::AllTime.start(now), None);

        let monday = midnight - 2 * DAY_NS;
        assert_eq!(Window::Weekly.start(monday), Some(monday));
        assert_eq!(Window::Weekly.start(monday - 1), Some(monday - 7 * DAY_NS));
        assert_eq!(Window::Weekly.start(0), Some(-3 * DAY_NS));
    }

    proptest! {
        #[test]
        fn every_moment_is_in_its_own_windows(now in any::<i64>()) {
            for (window, days) in [(Window::Daily, 1), (Window::Weekly, 7)] {
                let start = window.start(now).unwrap();
                prop_assert!(start <= now);
                prop_assert!(now - start < days * DAY_NS);
            }
        }
    }
}
