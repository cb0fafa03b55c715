//! `cabinet rooms reseal`: everything under the first key of the key file.

use std::io::{IsTerminal as _, Write as _};

use cabinet_conformance::error_line;
use cabinet_durability::{Resealed, Standing, Vault, VaultError};
use serde_json::{Value, json};

use super::store::DryRun;
use super::{about_store, now_ms, shown};
use crate::outcome::{Outcome, Problem};

/// What all rooms came to.
#[derive(Default)]
struct Totals {
    rooms: usize,
    resealed: usize,
    records: u64,
    /// Live rooms that still have records under older keys.
    live: Vec<String>,
    waiting: u64,
    problems: Vec<(String, String)>,
}

impl Totals {
    fn add(&mut self, room: Option<&str>, done: Resealed) {
        self.resealed += usize::from(done.records > 0);
        self.records += done.records;
        self.waiting += done.waiting;
        if let (Some(room), Some(Standing::Live), 1..) = (room, done.standing, done.waiting) {
            self.live.push(room.to_owned());
        }
        for problem in done.problems {
            let what = error_line(&problem.error);
            self.problems.push((problem.key, what));
        }
    }
}

/// Seals every room nobody has, and says what is left to the owners of the others.
pub(super) async fn reseal(
    vault: &Vault,
    key: u32,
    dry: &DryRun,
    write: bool,
    json: bool,
) -> Result<Outcome, Problem> {
    let rooms = vault.all_rooms().await.map_err(about_store)?;
    let mut totals = Totals {
        rooms: rooms.len(),
        ..Totals::default()
    };
    let progress = Progress::new(rooms.len());
    for (done, (room, head)) in rooms.into_iter().enumerate() {
        progress.show(done, totals.records);
        let name = room.to_string();
        let resealed = match head {
            Err(error) => Err(error),
            Ok(_) => vault.reseal(room, now_ms()).await,
        };
        match resealed {
            Ok(done) => totals.add(Some(&name), done),
            // It ended since it was listed.
            Err(VaultError::NoCheckpoint) => {}
            Err(error @ (VaultError::Unavailable(_) | VaultError::Floors(_))) => {
                return Err(stopped(&progress, &error));
            }
            Err(error) => totals.problems.push((name, error_line(&error))),
        }
    }
    match vault.reseal_residents().await {
        Ok(done) => totals.add(None, done),
        Err(error) => return Err(stopped(&progress, &error)),
    }
    progress.clear();
    tell(&totals, key, &dry.notes(), write, json);
    Ok(if totals.problems.is_empty() {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}

/// What is done stays done.
fn stopped(progress: &Progress, error: &VaultError) -> Problem {
    progress.clear();
    let what = error_line(error);
    Problem::new(format!(
        "the store: {what}; run it again, what is done is done"
    ))
}

fn tell(totals: &Totals, key: u32, would: &[String], write: bool, json: bool) {
    if json {
        let problems = totals.problems.iter();
        let problems: Vec<Value> = problems
            .map(|(key, problem)| json!({ "key": key, "problem": problem }))
            .collect();
        let told = json!({
            "written": write,
            "key": key,
            "rooms": totals.rooms,
            "resealed": totals.resealed,
            "records": totals.records,
            "live": totals.live,
            "waiting": totals.waiting,
            "problems": problems,
            "would": would,
        });
        outln!("{}", crate::outcome::json(&told));
        return;
    }
    for note in would {
        outln!("would {note}");
    }
    for (key, problem) in &totals.problems {
        outln!("{}: {}", shown(key), shown(problem));
    }
    for room in &totals.live {
        outln!("{room}: live; its next checkpoints seal it, run this again then");
    }
    outln!(
        "{}{} records sealed under key {key}, of {} rooms looked at; {} records left under older keys, {} not sealed",
        if write { "" } else { "with --write: " },
        totals.records,
        totals.rooms,
        totals.waiting,
        totals.problems.len()
    );
}

/// A line on stderr that says how far it is, where somebody sees it.
struct Progress {
    rooms: usize,
    is_seen: bool,
}

impl Progress {
    fn new(rooms: usize) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        Self { rooms, is_seen }
    }

    fn show(&self, done: usize, records: u64) {
        if self.is_seen {
            let mut stderr = std::io::stderr().lock();
            // Nobody is left to tell when the terminal is gone.
            let _ = write!(
                stderr,
                "\r{done} of {} rooms, {records} records\u{1b}[K",
                self.rooms
            );
            let _ = stderr.flush();
        }
    }

    fn clear(&self) {
        if self.is_seen {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
        }
    }
}
