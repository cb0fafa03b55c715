//! `cabinet lint FILE|DIR`: what a check does not judge and a player or an operator would.
//!
//! The game is taken through a script, and every frame in force after a step is looked at: a glyph
//! that terminals draw two columns wide must have the cell to its right, and only such a glyph. A
//! game that breaks this shifts everything right of it on some terminals. What is only advice
//! (meta, size, memory) does not change the exit code.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cabinet_conformance::{Script, error_line, every_screen, files};
use cabinet_host::{Frame, GameOptions, Host, HostOptions};
use cabinet_wire::cell::Cell;
use cabinet_wire::meta::MetaOwned;
use cabinet_wire::{COLS, ROWS};
use serde_json::json;
use unicode_width::UnicodeWidthChar as _;

use crate::artifact::Artifact;
use crate::outcome::{self, Outcome, Problem, say};

/// Violations told at most.
const TOLD_MAX: usize = 50;
/// A module larger than this is worth a word, bytes: real games have a tenth.
const LARGE_BYTES: usize = 1 << 20;

/// Arguments of `cabinet lint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  cabinet lint game.wasm --script all-screens.script

Exit codes: 0 nothing but advice, 1 the width contract is broken, 2 it could not be looked at.")]
pub struct Args {
    /// A game's module, or its directory, which is built first.
    #[arg(value_name = "FILE|DIR")]
    game: PathBuf,
    /// The script that shows the screens; one that fits the game's party when there is none.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when the game cannot be run.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    let script = args.script.as_deref().map(files::read_script).transpose();
    let script = script.map_err(|error| Problem::new(error_line(&error)))?;
    let artifact = Artifact::resolve(&args.game)?;
    let host = Host::new(HostOptions::default()).map_err(|error| Problem::about("host", &error))?;
    let game = host
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| Problem::about(artifact.path.display(), &error))?;
    let script = script.unwrap_or_else(|| Script::for_party(game.meta().max_players));
    let mut violations = BTreeSet::new();
    let looked = every_screen(&game, &script, &mut |frame| widths(frame, &mut violations));
    if let Some((step, fault)) = looked.died {
        return Err(Problem::new(format!(
            "{}: the game died at step {step} of the script, so not all of it was looked at: {fault}",
            artifact.path.display()
        )));
    }
    let peak_bytes = looked.peak_bytes;
    let mut advice = about_meta(game.meta());
    if artifact.wasm.len() > LARGE_BYTES {
        advice.push(format!(
            "the module has {} KiB; build for release with lto, panic = \"abort\" and strip",
            artifact.wasm.len() >> 10
        ));
    }
    if peak_bytes.saturating_mul(2) > game.memory_cap_bytes() {
        advice.push(format!(
            "memory peaked at {} KiB, more than half of the {} KiB a room may have",
            peak_bytes >> 10,
            game.memory_cap_bytes() >> 10
        ));
    }
    tell(args.json, &violations, &advice)?;
    Ok(match violations.is_empty() {
        true => Outcome::Good,
        false => Outcome::Bad,
    })
}

fn tell(as_json: bool, violations: &BTreeSet<String>, advice: &[String]) -> Result<(), Problem> {
    if as_json {
        let object = json!({ "violations": violations, "advice": advice });
        return say(format_args!("{}\n", outcome::json(&object)));
    }
    for violation in violations.iter().take(TOLD_MAX) {
        say(format_args!("width: {violation}\n"))?;
    }
    for line in advice {
        say(format_args!("advice: {}\n", Problem::new(line)))?;
    }
    match violations.len() {
        0 => say("lint: OK, no width-contract violation was drawn\n"),
        number => say(format_args!(
            "lint: {number} width-contract violation(s) drawn\n"
        )),
    }
}

fn widths(frame: &Frame, found: &mut BTreeSet<String>) {
    for row in 0..ROWS {
        let cells: Vec<Cell> = (0..COLS)
            .map(|col| Cell::read(frame.cell(row, col)))
            .collect();
        for (col, why) in broken(&cells) {
            // A row and a column each, so there is an end to them.
            found.insert(format!("row {row}, col {col}: {why}"));
        }
    }
}

/// Where a row breaks the width contract, and how.
fn broken(cells: &[Cell]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (col, cell) in cells.iter().enumerate() {
        let covers = cells.get(col + 1).is_some_and(|next| next.cont);
        let base = char::from_u32(cell.cp[0]).unwrap_or(char::REPLACEMENT_CHARACTER);
        let named = || format!("U+{:04X} {:?}", u32::from(base), base);
        if cell.cont {
            if col == 0 || cells.get(col - 1).is_some_and(|before| before.cont) {
                found.push((col, "a right half without a glyph to its left".to_owned()));
            }
            continue;
        }
        match (base.width() == Some(2), covers) {
            (true, false) => found.push((
                col,
                format!("{} is two columns wide and has one cell", named()),
            )),
            (false, true) => found.push((
                col,
                format!(
                    "{} is not Wide or Fullwidth and has two cells: every column to its right \
                     shifts on some terminals",
                    named()
                ),
            )),
            _ => {}
        }
    }
    found
}

fn about_meta(meta: &MetaOwned) -> Vec<String> {
    let rules = [
        (
            meta.short_description.is_empty(),
            "meta has no description: players choose by it",
        ),
        (
            meta.controls.is_empty(),
            "meta declares no controls: players without a keyboard get none",
        ),
        (
            meta.leaderboard.is_none(),
            "meta declares no leaderboard: results are ranked nowhere",
        ),
        (
            meta.tags.is_empty(),
            "meta has no tags: players search by them",
        ),
        (
            meta.wire_revision == 0,
            "meta does not say its wire revision: a newer SDK does",
        ),
        (
            (1..30).contains(&meta.heartbeat_ms),
            "the heartbeat is shorter than 30 ms: few terminals show more than 30 frames a second",
        ),
    ];
    let broken = rules.into_iter().filter(|(broken, _)| *broken);
    broken.map(|(_, advice)| advice.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(glyphs: &[Option<char>]) -> Vec<(usize, String)> {
        let cell = |glyph: &Option<char>| match glyph {
            Some(glyph) => Cell::of(*glyph),
            None => Cell {
                cont: true,
                ..Cell::default()
            },
        };
        broken(&glyphs.iter().map(cell).collect::<Vec<_>>())
    }

    #[test]
    fn wide_glyphs_have_two_cells_and_others_one() {
        assert_eq!(
            row(&[Some('a'), Some('中'), None, Some('Ａ'), None, Some('é')]),
            []
        );
        let narrow = row(&[Some('x'), Some('♥'), None]);
        assert_eq!(narrow.len(), 1);
        assert!(narrow[0].1.contains("U+2665"), "{narrow:?}");
        assert_eq!(narrow[0].0, 1);
        assert_eq!(row(&[Some('中'), Some('a')])[0].0, 0);
        assert_eq!(row(&[Some('a'), Some('中')])[0].0, 1);
        assert_eq!(row(&[None, Some('a')])[0].0, 0);
        assert_eq!(row(&[Some('中'), None, None])[0].0, 2);
    }

    #[test]
    fn a_meta_that_says_nothing_is_advised_and_a_full_one_is_not() {
        assert_eq!(about_meta(&MetaOwned::default()).len(), 5);
        let brisk = MetaOwned {
            heartbeat_ms: 20,
            ..MetaOwned::default()
        };
        assert_eq!(about_meta(&brisk).len(), 6);
    }
}
