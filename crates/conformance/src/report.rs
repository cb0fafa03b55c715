//! What a check found, as data, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::units::{Size, Time, count, escaped, nanos, one_line, percent};
use crate::verdict::{Judgement, Verdict};

/// Version of the JSON form; goes up when a field changes its meaning or goes away.
pub const REPORT_FORMAT: u32 = 1;

/// What a check found. `Display` is the text form. Serialised it is the JSON form, whose field names
/// are the ones below; times are whole nanoseconds and sizes whole bytes.
///
/// Text that a guest chose is cut, and otherwise as it was: the text form escapes what draws on a
/// terminal, JSON has escapes of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// [`REPORT_FORMAT`].
    pub format: u32,
    /// The game that was checked.
    pub game: GameFacts,
    /// Whether no verdict failed; some may not have been checked.
    pub ok: bool,
    /// How many verdicts came out how.
    pub tally: Tally,
    /// What was judged.
    pub verdicts: Vec<Verdict>,
    /// How far from its limits the game stayed.
    pub headroom: Headroom,
    /// Steps in the script, `start` not counted.
    pub steps_in_script: usize,
    /// One row per step taken; the first is `start`.
    pub steps: Vec<StepRow>,
    /// What the `shot` steps saw.
    pub shots: Vec<Shot>,
}

/// Facts about the game, from its artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GameFacts {
    /// SHA-256 of the artifact, hex.
    pub artifact_sha256: String,
    /// The game's slug.
    pub slug: String,
    /// The game's name.
    pub name: String,
    /// Smallest party.
    pub min_players: u16,
    /// Largest party.
    pub max_players: u16,
    /// ABI major the guest speaks.
    pub abi_major: u32,
    /// Wire revision the guest was built for, 0 when it does not say.
    pub wire_revision: u16,
    /// The compiler tier the control ran on.
    pub tier: &'static str,
    /// What the host found odd about the artifact, for people.
    pub warnings: Vec<String>,
}

/// How many verdicts came out how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Within their limits.
    pub passed: usize,
    /// Not within.
    pub failed: usize,
    /// There was nothing to judge these by.
    pub not_checked: usize,
}

impl Tally {
    /// Counts.
    pub(crate) fn of(verdicts: &[Verdict]) -> Self {
        let count = |wanted| {
            let verdicts = verdicts.iter();
            verdicts.filter(|found| found.judgement == wanted).count()
        };
        Self {
            passed: count(Judgement::Pass),
            failed: count(Judgement::Fail),
            not_checked: count(Judgement::NotChecked),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within limits", count(self.passed, "verdict"))?;
        if self.failed > 0 {
            write!(f, ", {} outside", self.failed)?;
        }
        if self.not_checked > 0 {
            write!(f, ", {} not checked", self.not_checked)?;
        }
        Ok(())
    }
}

/// How far from its limits the game stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Headroom {
    /// Wall time one callback may take.
    pub deadline_ns: u64,
    /// The callback latency 99 in 100 stayed within (nearest rank).
    pub latency_p99_ns: u64,
    /// The slowest callback.
    pub latency_max_ns: u64,
    /// Cap on guest memory.
    pub memory_cap_bytes: u64,
    /// Largest guest memory seen.
    pub memory_peak_bytes: u64,
    /// Fuel burned by all callbacks.
    pub fuel_total: u64,
}

/// What one step did in the control run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StepRow {
    /// 0 is `start`, n the script's n-th step.
    pub step: usize,
    /// The step, as a script writes it, cut.
    pub what: String,
    /// The export called.
    pub callback: Option<&'static str>,
    /// Why the guest was not called although the step would.
    pub skipped: Option<String>,
    /// Wall time of the callback, guest and host.
    pub latency_ns: u64,
    /// Part of it in guest code.
    pub guest_ns: u64,
    /// Part of it in host functions.
    pub host_ns: u64,
    /// The guest's return code.
    pub exit: Option<u32>,
    /// Why the room died here.
    pub fault: Option<String>,
    /// Of a step at which it died: the last log records, at most eight.
    pub last_words: Vec<String>,
    /// Frames accepted; a broadcast counts once.
    pub frames: u32,
    /// Container bytes of those frames.
    pub bytes_out: u64,
    /// Guest memory afterwards.
    pub memory_bytes: u64,
    /// Fuel burned.
    pub fuel: u64,
    /// Calls of each game function.
    pub host_calls: BTreeMap<String, u64>,
    /// Wall time of each of those calls, nanoseconds, the first 65,536 of them. Not in the JSON
    /// form; [`Profile`](crate::Profile) sums them up.
    #[serde(skip)]
    pub host_call_times: Vec<(&'static str, u64)>,
    /// For `snapshot`: size of the encoded snapshot.
    pub snapshot_bytes: Option<u64>,
}

/// What everybody saw at a `shot` step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shot {
    /// The shot's name.
    pub name: String,
    /// The step it was taken at.
    pub step: usize,
    /// One entry per seat that has been sent a frame.
    pub seats: Vec<SeatShot>,
}

/// What one seat saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SeatShot {
    /// The seat.
    pub seat: u16,
    /// SHA-256 of the 46,080-byte grid, hex.
    pub grid_sha256: String,
    /// The 24 rows as text, trailing blanks cut.
    pub rows: Vec<String>,
}

impl Report {
    /// The verdict of this name, when it was given.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.name == name)
    }
}

impl Headroom {
    /// Sums up a run.
    pub(crate) fn of(rows: &[StepRow], deadline: Duration, memory_cap_bytes: u64) -> Self {
        let calls = rows.iter().filter(|row| row.callback.is_some());
        let mut latencies: Vec<u64> = calls.map(|row| row.latency_ns).collect();
        latencies.sort_unstable();
        Self {
            deadline_ns: nanos(deadline),
            latency_p99_ns: percentile(&latencies, 99),
            latency_max_ns: latencies.last().copied().unwrap_or(0),
            memory_cap_bytes,
            memory_peak_bytes: rows.iter().map(|row| row.memory_bytes).max().unwrap_or(0),
            fuel_total: rows
                .iter()
                .fold(0, |sum: u64, row| sum.saturating_add(row.fuel)),
        }
    }
}

/// The nearest-rank percentile of sorted values; 0 of none.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let game = &self.game;
        let revision = game.wire_revision;
        writeln!(
            f,
            "{}  {}-{} players, abi {} revision {revision}, compiled for {}, sha256 {}",
            game.slug,
            game.min_players,
            game.max_players,
            game.abi_major,
            game.tier,
            game.artifact_sha256.get(..12).unwrap_or_default(),
        )?;
        for warning in &game.warnings {
            writeln!(f, "warning: {}", escaped(warning))?;
        }
        writeln!(f)?;
        verdicts(&self.verdicts, f)?;
        writeln!(f)?;
        headroom(&self.headroom, f)?;
        writeln!(f)?;
        steps(&self.steps, f)?;
        for row in &self.steps {
            for words in &row.last_words {
                writeln!(f, "logged at step {}: {}", row.step, escaped(words))?;
            }
        }
        let taken = self.steps.len().saturating_sub(1);
        if taken < self.steps_in_script {
            let left = count(self.steps_in_script - taken, "step");
            writeln!(f, "the room died: {left} of the script not taken")?;
        }
        for shot in &self.shots {
            write!(f, "shot {} at step {}:", one_line(&shot.name), shot.step)?;
            for seat in &shot.seats {
                let hash = seat.grid_sha256.get(..12).unwrap_or_default();
                write!(f, " seat {} {hash}", seat.seat)?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        writeln!(f, "{}: {}", game.slug, self.tally)
    }
}

fn verdicts(verdicts: &[Verdict], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let width = |text: fn(&Verdict) -> &str, least: usize| {
        verdicts
            .iter()
            .map(|verdict| text(verdict).chars().count())
            .max()
            .unwrap_or(0)
            .max(least)
    };
    let names = width(|verdict| verdict.name, 7);
    let limits = width(|verdict| &verdict.limit, 5);
    writeln!(
        f,
        "      {:names$}  {:limits$}  measured",
        "verdict", "limit"
    )?;
    for verdict in verdicts {
        let word = match verdict.judgement {
            Judgement::Pass => "pass",
            Judgement::Fail => "FAIL",
            Judgement::NotChecked => "-",
        };
        write!(
            f,
            "{word:4}  {:names$}  {:limits$}  {}",
            verdict.name, verdict.limit, verdict.measured
        )?;
        match verdict.step {
            Some(step) => writeln!(f, " at step {step}")?,
            None => writeln!(f)?,
        }
        if !verdict.detail.is_empty() {
            writeln!(f, "      {}", escaped(&verdict.detail))?;
        }
    }
    Ok(())
}

fn headroom(headroom: &Headroom, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let time = |nanos| Time(Duration::from_nanos(nanos));
    writeln!(
        f,
        "callback p99 {} of {} ({} %), slowest {}",
        time(headroom.latency_p99_ns),
        time(headroom.deadline_ns),
        percent(headroom.latency_p99_ns.into(), headroom.deadline_ns.into()),
        time(headroom.latency_max_ns),
    )?;
    writeln!(
        f,
        "memory peak {} of {} ({} %), fuel {}",
        Size(headroom.memory_peak_bytes),
        Size(headroom.memory_cap_bytes),
        percent(
            headroom.memory_peak_bytes.into(),
            headroom.memory_cap_bytes.into()
        ),
        headroom.fuel_total,
    )
}

fn steps(rows: &[StepRow], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const WHAT: usize = 24;
    writeln!(
        f,
        "{:>5}  {:WHAT$}  {:>10}  {:>10}  {:>6}  {:>9}  {:>9}  {:>10}  {:>5}",
        "step", "what", "latency", "exit", "frames", "bytes out", "memory", "fuel", "calls"
    )?;
    for row in rows {
        let whole = escaped(&row.what);
        let mut what: String = whole.chars().take(WHAT).collect();
        if whole.chars().count() > WHAT {
            what.pop();
            what.push('…');
        }
        write!(f, "{:>5}  {what}", row.step)?;
        let pad = WHAT - what.chars().count();
        match row.callback {
            Some(_) => write!(
                f,
                "{:pad$}  {:>10}  {:>10}  {:>6}  {:>9}  {:>9}  {:>10}  {:>5}",
                "",
                Time(Duration::from_nanos(row.latency_ns)),
                row.exit
                    .map_or_else(|| "-".to_owned(), |exit| exit.to_string()),
                row.frames,
                row.bytes_out,
                Size(row.memory_bytes),
                row.fuel,
                row.host_calls.values().sum::<u64>(),
            )?,
            None => {
                if let Some(why) = &row.skipped {
                    write!(f, "{:pad$}  not called: {why}", "")?;
                }
                if let Some(bytes) = row.snapshot_bytes {
                    write!(f, "{:pad$}  {} encoded", "", Size(bytes))?;
                }
            }
        }
        if let Some(fault) = &row.fault {
            write!(f, "  <- {}", escaped(fault))?;
        }
        f.write_char('\n')?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict;

    fn row(step: usize, latency_ns: u64) -> StepRow {
        StepRow {
            step,
            what: "wake +50ms".to_owned(),
            callback: Some("wake"),
            skipped: None,
            latency_ns,
            guest_ns: latency_ns,
            host_ns: 0,
            exit: Some(0),
            fault: None,
            last_words: Vec::new(),
            frames: 1,
            bytes_out: 46_093,
            memory_bytes: 65_536,
            fuel: 10,
            host_calls: BTreeMap::from([("send".to_owned(), 1)]),
            host_call_times: Vec::new(),
            snapshot_bytes: None,
        }
    }

    fn report(verdicts: Vec<Verdict>) -> Report {
        let steps: Vec<StepRow> = (0..3).map(|step| row(step, 1_000)).collect();
        Report {
            format: REPORT_FORMAT,
            game: GameFacts {
                artifact_sha256: "ab".repeat(32),
                slug: "tour".to_owned(),
                name: "FAIL\u{1b}[31m".to_owned(),
                min_players: 1,
                max_players: 2,
                abi_major: 2,
                wire_revision: 6,
                tier: "speed",
                warnings: vec!["the game declares 2 to 1 players".to_owned()],
            },
            ok: verdicts.iter().all(Verdict::ok),
            tally: Tally::of(&verdicts),
            verdicts,
            headroom: Headroom::of(&steps, Duration::from_millis(100), 1 << 25),
            steps_in_script: 2,
            steps,
            shots: Vec::new(),
        }
    }

    #[test]
    fn the_word_fail_stands_in_the_text_only_for_a_failed_verdict() {
        let deadline = Duration::from_millis(100);
        let passed = report(vec![verdict::latency((1, Duration::ZERO), deadline)]).to_string();
        assert!(!passed.contains("FAIL"), "{passed}");
        assert!(passed.contains("\nwarning: the game declares 2 to 1 players\n"));
        assert!(passed.ends_with("\ntour: 1 verdict within limits\n"));
        let failed = report(vec![verdict::latency((1, deadline), deadline)]).to_string();
        assert_eq!(failed.matches("FAIL").count(), 1, "{failed}");
        assert!(
            failed.contains("FAIL  callback latency  under 100ms  100ms at step 1"),
            "{failed}"
        );
    }

    #[test]
    fn guest_text_is_escaped_in_the_text_and_as_it_was_in_the_json() {
        let said = "FAIL\u{1b}[31m\nnext";
        let mut told = report(vec![verdict::leaderboard(true)]);
        told.game.warnings = vec![said.to_owned()];
        told.steps[1].last_words = vec![said.to_owned()];
        told.steps[1].fault = Some(said.to_owned());
        told.verdicts[0].detail = said.to_owned();
        let text = told.to_string();
        assert_eq!(
            text.matches("fail\\u{1b}[31m\\nnext\n").count(),
            4,
            "{text}"
        );
        assert!(!text.contains("FAIL") && !text.contains('\u{1b}'), "{text}");
        let json = serde_json::to_value(&told).unwrap();
        for kept in [
            &json["game"]["warnings"][0],
            &json["steps"][1]["last_words"][0],
            &json["steps"][1]["fault"],
            &json["verdicts"][0]["detail"],
        ] {
            assert_eq!(kept, said);
        }
    }

    #[test]
    fn what_was_not_checked_is_counted_in_the_last_line_and_in_the_json() {
        let skipped = || {
            let why = "the script has no snapshot step".to_owned();
            let repeat = verdict::Repeat::NotChecked { why };
            verdict::repeat("hibernation determinism", "same as unsaved", repeat)
        };
        let told = report(vec![verdict::leaderboard(true), skipped()]);
        assert!(told.ok);
        let text = told.to_string();
        assert!(
            text.ends_with("\ntour: 1 verdict within limits, 1 not checked\n"),
            "{text}"
        );
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(
            json["tally"],
            serde_json::json!({ "passed": 1, "failed": 0, "not_checked": 1 })
        );
        assert_eq!(json["verdicts"][1]["judgement"], "not-checked");

        let failed = report(vec![verdict::leaderboard(false), skipped()]);
        assert!(!failed.ok);
        let text = failed.to_string();
        assert!(
            text.ends_with("\ntour: 0 verdicts within limits, 1 outside, 1 not checked\n"),
            "{text}"
        );
    }

    #[test]
    fn the_json_names_its_units() {
        let memory = verdict::memory((1, 65_536), 1 << 25);
        let report = report(vec![verdict::leaderboard(false), memory]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["format"], REPORT_FORMAT);
        assert_eq!(json["ok"], false);
        assert_eq!(json["verdicts"][0]["judgement"], "fail");
        assert_eq!(json["verdicts"][0]["quantity"], serde_json::Value::Null);
        assert_eq!(
            json["verdicts"][1]["quantity"],
            serde_json::json!({ "unit": "bytes", "limit": 1 << 25, "measured": 65_536 })
        );
        assert_eq!(
            json["game"]["warnings"][0],
            "the game declares 2 to 1 players"
        );
        assert_eq!(json["headroom"]["deadline_ns"], 100_000_000);
        assert_eq!(json["headroom"]["memory_peak_bytes"], 65_536);
        assert_eq!(json["steps"][2]["latency_ns"], 1_000);
        assert_eq!(json["steps"][2]["host_calls"]["send"], 1);
    }

    #[test]
    fn the_99th_percentile_is_the_nearest_rank() {
        assert_eq!(percentile(&[], 99), 0);
        assert_eq!(percentile(&[7], 99), 7);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 99), 99);
        let two_hundred: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&two_hundred, 99), 198);
    }
}
