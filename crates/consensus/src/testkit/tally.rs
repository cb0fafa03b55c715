//! What many runs saw, and what none of them did.

use super::{Counters, Outcome, Setting};

/// In so many mixed runs every situation must come up.
pub const RUNS_OF_EVERYTHING: u64 = 500;

type Named = [(&'static str, u64); Counters::LEN];

/// How often each situation came up in many runs.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    runs: u64,
    rows: Vec<TallyRow>,
}

/// One situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TallyRow {
    /// Its name.
    pub situation: &'static str,
    /// Runs that saw it.
    pub runs: u64,
    /// How often they saw it, all together.
    pub times: u64,
}

impl Tally {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.count(outcome.counters.named());
    }

    fn count(&mut self, named: Named) {
        self.runs += 1;
        if self.rows.is_empty() {
            let row = |(situation, _)| TallyRow {
                situation,
                runs: 0,
                times: 0,
            };
            self.rows = named.map(row).into();
        }
        for (row, (_, times)) in self.rows.iter_mut().zip(named) {
            row.runs += u64::from(times > 0);
            row.times += times;
        }
    }

    /// How many runs there were.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Every situation, in the order of [`Counters::named`]; none before the first run.
    #[must_use]
    pub fn rows(&self) -> &[TallyRow] {
        &self.rows
    }

    /// What makes a sweep fail although every invariant held: situations no run saw, about which it
    /// says nothing. Only a mixed sweep of [`RUNS_OF_EVERYTHING`] runs or more promises them all.
    #[must_use]
    pub fn missing(&self, setting: Setting) -> Vec<&'static str> {
        if setting != Setting::Mixed || self.runs < RUNS_OF_EVERYTHING {
            return Vec::new();
        }
        let unseen = self.rows.iter().filter(|row| row.runs == 0);
        unseen.map(|row| row.situation).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sweep that saw everything in its last run but one thing.
    fn sweep(runs: u64, unseen: Option<usize>) -> Tally {
        let mut tally = Tally::default();
        for run in 0..runs {
            let mut named = Counters::default().named();
            for (n, (_, times)) in named.iter_mut().enumerate() {
                *times = u64::from(run + 1 == runs && Some(n) != unseen) * 2;
            }
            tally.count(named);
        }
        tally
    }

    #[test]
    fn one_situation_that_no_run_saw_fails_the_sweep_by_its_name() {
        let names = Counters::default().named().map(|(name, _)| name);
        for (n, name) in names.into_iter().enumerate() {
            let tally = sweep(RUNS_OF_EVERYTHING, Some(n));
            assert_eq!(tally.missing(Setting::Mixed), [name]);
        }
        let all = sweep(RUNS_OF_EVERYTHING, None);
        assert_eq!(all.missing(Setting::Mixed), [""; 0]);
        assert_eq!(all.runs(), RUNS_OF_EVERYTHING);
        assert!(all.rows().iter().all(|row| (row.runs, row.times) == (1, 2)));
    }

    #[test]
    fn fewer_runs_and_runs_of_one_kind_promise_nothing() {
        let short = sweep(RUNS_OF_EVERYTHING - 1, Some(3));
        assert_eq!(short.missing(Setting::Mixed), [""; 0]);
        let long = sweep(RUNS_OF_EVERYTHING, Some(3));
        for setting in [Setting::Roster, Setting::Hosted, Setting::Estranged] {
            assert_eq!(long.missing(setting), [""; 0]);
        }
    }

    #[test]
    fn what_the_simulator_is_there_to_meet_is_counted() {
        let named = Counters::default().named().map(|(name, _)| name);
        for wanted in [
            "fail-over",
            "joint change",
            "snapshot install",
            "admission beside a spectator",
            "reset with pending turns",
            "lagged",
            "deadline across a fail-over",
            "automatic client again",
            "speculative turn",
            "reset under a speculation",
            "fenced turn accepted",
            "app frame heard",
            "flooded channel",
            "votes on servers",
            "back among strangers",
            "heard by its proof alone",
        ] {
            assert!(named.contains(&wanted), "{wanted}");
        }
    }
}
