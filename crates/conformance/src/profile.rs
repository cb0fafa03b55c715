//! Where the time of a run went, by export and by game function.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::report::{Report, percentile};
use crate::units::Time;

/// Where the time of one or more runs went. `Display` is two tables. Times are wall time, whole
/// nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Profile {
    /// What the guest was called for, game functions included; most time first.
    pub exports: Vec<Share>,
    /// What the guest called; most time first. Calls past 65,536 of one callback are not timed.
    pub host_calls: Vec<Share>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Share {
    /// The export or game function.
    pub name: String,
    /// Calls timed.
    pub calls: u64,
    /// All of them together.
    pub total_ns: u64,
    /// Their mean.
    pub mean_ns: u64,
    /// What 99 in 100 stayed within (nearest rank).
    pub p99_ns: u64,
    /// Thousandths of the time of all callbacks.
    pub share_permille: u64,
}

impl Profile {
    /// Sums up reports.
    #[must_use]
    pub fn of(reports: &[Report]) -> Self {
        let mut exports: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        let mut host_calls: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for row in reports.iter().flat_map(|report| &report.steps) {
            if let Some(export) = row.callback {
                exports.entry(export).or_default().push(row.latency_ns);
            }
            for (name, took) in &row.host_call_times {
                host_calls.entry(name).or_default().push(*took);
            }
        }
        let all: u64 = exports.values().flatten().sum();
        Self {
            exports: shares(exports, all),
            host_calls: shares(host_calls, all),
        }
    }
}

fn shares(times: BTreeMap<&str, Vec<u64>>, all: u64) -> Vec<Share> {
    let mut shares: Vec<Share> = times
        .into_iter()
        .map(|(name, mut times)| {
            times.sort_unstable();
            let calls = times.len() as u64;
            let total: u64 = times.iter().sum();
            Share {
                name: name.to_owned(),
                calls,
                total_ns: total,
                mean_ns: total.checked_div(calls).unwrap_or(0),
                p99_ns: percentile(&times, 99),
                share_permille: total.saturating_mul(1_000).checked_div(all).unwrap_or(0),
            }
        })
        .collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.total_ns));
    shares
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table("callback", &self.exports, f)?;
        if !self.host_calls.is_empty() {
            writeln!(f)?;
            table("host call", &self.host_calls, f)?;
        }
        Ok(())
    }
}

fn table(what: &str, rows: &[Share], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let time = |nanos| Time(Duration::from_nanos(nanos));
    writeln!(
        f,
        "{what:14}  {:>7}  {:>10}  {:>10}  {:>10}  {:>7}",
        "calls", "total", "mean", "p99", "share"
    )?;
    for row in rows {
        let share = format!("{}.{} %", row.share_permille / 10, row.share_permille % 10);
        writeln!(
            f,
            "{:14}  {:>7}  {:>10}  {:>10}  {:>10}  {share:>7}",
            row.name,
            row.calls,
            time(row.total_ns),
            time(row.mean_ns),
            time(row.p99_ns),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_calls_total_mean_p99_and_share_and_most_time_comes_first() {
        let times = BTreeMap::from([("wake", vec![30, 10]), ("join", vec![60])]);
        let shares = shares(times, 100);
        let told: Vec<_> = shares
            .iter()
            .map(|row| {
                (
                    row.name.as_str(),
                    row.calls,
                    row.total_ns,
                    row.mean_ns,
                    row.p99_ns,
                )
            })
            .collect();
        assert_eq!(told, [("join", 1, 60, 60, 60), ("wake", 2, 40, 20, 30)]);
        assert_eq!(shares[1].share_permille, 400);
    }

    #[test]
    fn nothing_called_is_an_empty_table_and_no_division_by_nothing() {
        let none = Profile::of(&[]);
        assert!(none.exports.is_empty() && none.host_calls.is_empty());
        assert_eq!(
            shares(BTreeMap::from([("wake", vec![0])]), 0)[0].share_permille,
            0
        );
    }
}
