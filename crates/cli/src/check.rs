//! `cabinet check FILE|DIR`: conformance with the real host, what an author's CI runs.
//!
//! One script, the game's own or one that fits its party; or, with `--random`, many that a printed
//! seed makes. Reports go to stdout, progress to stderr.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cabinet_conformance::script::Setup;
use cabinet_conformance::shrink::{Shrunk, shrink};
use cabinet_conformance::{
    CheckOptions, Checker, Judgement, Profile, Report, Script, error_line, files, random,
};
use cabinet_wire::meta::ControlInput;
use serde_json::{Value, json};

use crate::artifact::Artifact;
use crate::host_cache::CacheArgs;
use crate::outcome::{self, Outcome, Problem, remark, say};

mod watch;

/// Steps of a random script.
const RANDOM_STEPS: usize = 96;
/// Scripts tried at most while one is reduced.
const SHRINK_TRIES_MAX: usize = 2_000;
/// Reports kept for a profile of random scripts; later ones are left out of it.
const PROFILED_MAX: usize = 1_000;

/// Arguments of `cabinet check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cabinet check .                            build the game here and check it
  cabinet check game.wasm --profile          and tell where the time goes
  cabinet check game.wasm --random 50 --seed 7 --shrink
                                             try 50 random scripts; reduce the first that fails
  cabinet check . --watch                    again whenever a file is saved

Exit codes: 0 every verdict is within its limit, 1 some are not, 2 there is no report.")]
pub struct Args {
    /// A game's module, or its directory, which is built first.
    #[arg(value_name = "FILE|DIR")]
    game: PathBuf,
    /// The script to check with; one that fits the game's party when there is none.
    #[arg(long, value_name = "FILE", conflicts_with = "random")]
    script: Option<PathBuf>,
    /// Wall time one callback may take, such as `100ms`; a script's own wins.
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    deadline: Option<Duration>,
    /// Also ask that the game declares a leaderboard.
    #[arg(long)]
    require_leaderboard: bool,
    /// Tell where the time goes, by callback and by host call.
    #[arg(long)]
    profile: bool,
    /// Check with random scripts instead, until one fails.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    random: Option<u32>,
    /// What random scripts are made from; printed when it is not given.
    #[arg(long, value_name = "S", requires = "random")]
    seed: Option<u64>,
    /// Reduce a failing script to the shortest that fails like it, and print it.
    #[arg(long)]
    shrink: bool,
    /// Check again whenever a file of the game is saved. Ctrl-C ends it, with the exit code of the
    /// last check.
    #[arg(long)]
    watch: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

fn deadline(text: &str) -> Result<Duration, String> {
    let mut setup = Setup::default();
    let set = setup.set(&format!("deadline {text}"));
    set.map_err(|problem| problem.to_string())?;
    setup.deadline.ok_or_else(|| "no duration".to_owned())
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when there is no report.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    if args.watch {
        return watch::run(&args.game, args.script.as_deref(), &mut || once(args));
    }
    once(args)
}

fn once(args: &Args) -> Result<Outcome, Problem> {
    let script = args.script.as_deref().map(files::read_script).transpose();
    let script = script.map_err(|error| Problem::new(error_line(&error)))?;
    let artifact = Artifact::resolve(&args.game)?;
    let host = args.cache.host()?;
    let mut options = CheckOptions {
        require_leaderboard: args.require_leaderboard,
        ..CheckOptions::default()
    };
    options.game.deadline = args.deadline.unwrap_or(options.game.deadline);
    let checker = Checker::load(&host, &artifact.wasm, &options, script.as_ref())
        .map_err(|error| Problem::about(artifact.path.display(), &error))?;
    let found = match args.random {
        Some(scripts) => at_random(&checker, scripts, args)?,
        None => {
            let meta = checker.game().meta();
            let script = script.unwrap_or_else(|| Script::for_party(meta.max_players));
            let report = checker.check(&script);
            Found {
                profiled: vec![report.clone()],
                seed: None,
                script,
                report,
            }
        }
    };
    let shrunk = match failure(&found.report) {
        Some(verdict) if args.shrink => {
            Some(reduced(&checker, &found.script, verdict, args.deadline))
        }
        _ => None,
    };
    tell(args, &artifact, &found, shrunk.as_ref())?;
    Ok(if found.report.ok {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}

/// The report that counts: the only one, the last of random ones or the first that failed.
struct Found {
    report: Report,
    script: Script,
    /// The seed `script` was made from.
    seed: Option<u64>,
    profiled: Vec<Report>,
}

fn at_random(checker: &Checker, scripts: u32, args: &Args) -> Result<Found, Problem> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let first = args
        .seed
        .unwrap_or_else(|| now.unwrap_or_default().as_secs());
    remark(format_args!(
        "{scripts} random scripts, `--seed {first}` makes the same again"
    ));
    let meta = checker.game().meta();
    let runes: Vec<char> = meta
        .controls
        .iter()
        .filter_map(|control| match control.input {
            ControlInput::Rune(rune) => char::from_u32(rune),
            ControlInput::Key(_) => None,
        })
        .collect();
    let mut profiled = Vec::new();
    let mut last = None;
    for nth in 0..scripts {
        let seed = first.wrapping_add(nth.into());
        let script = random::script(seed, meta.max_players, &runes, RANDOM_STEPS);
        let report = checker.check(&script);
        if args.profile && profiled.len() < PROFILED_MAX {
            profiled.push(report.clone());
        }
        let failed = !report.ok;
        if failed {
            remark(format_args!(
                "script {} of {scripts} fails; `--random 1 --seed {seed}` makes it",
                nth + 1
            ));
        }
        last = Some((report, script, seed));
        if failed {
            break;
        }
    }
    // The count is 1 at least.
    let (report, script, seed) = last.ok_or_else(|| Problem::new("no script was made"))?;
    Ok(Found {
        report,
        script,
        seed: Some(seed),
        profiled,
    })
}

/// The first verdict that failed.
fn failure(report: &Report) -> Option<&'static str> {
    let verdicts = report.verdicts.iter();
    let mut failed = verdicts.filter(|verdict| verdict.judgement == Judgement::Fail);
    failed.next().map(|verdict| verdict.name)
}

/// The shortest script that fails the verdict that `script` fails.
///
/// It says the deadline it failed with, so that it fails wherever it is run.
fn reduced(
    checker: &Checker,
    script: &Script,
    verdict: &str,
    deadline: Option<Duration>,
) -> Shrunk {
    remark(format_args!(
        "reducing {} steps that fail: {verdict}",
        script.steps.len()
    ));
    let mut script = script.clone();
    script.setup.deadline = script.setup.deadline.or(deadline);
    shrink(&script, SHRINK_TRIES_MAX, &mut |candidate| {
        failure(&checker.check(candidate)) == Some(verdict)
    })
}

fn tell(
    args: &Args,
    artifact: &Artifact,
    found: &Found,
    shrunk: Option<&Shrunk>,
) -> Result<(), Problem> {
    let profile = args.profile.then(|| Profile::of(&found.profiled));
    if args.json {
        // A path need not be UTF-8, JSON must.
        let mut object = json!({
            "artifact": artifact.path.display().to_string(),
            "report": found.report,
        });
        let mut add = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                object[key] = value;
            }
        };
        add("profile", profile.map(|profile| json!(profile)));
        add("seed", found.seed.map(|seed| json!(seed)));
        let script = |shrunk: &Shrunk| {
            json!({ "script": shrunk.script.to_string(), "tries": shrunk.tries,
                "shortest": shrunk.complete })
        };
        add("shrunk", shrunk.map(script));
        return say(format_args!("{}\n", outcome::json(&object)));
    }
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    say(format_args!(
        "{}\n",
        painted(&found.report.to_string(), colour)
    ))?;
    if let Some(profile) = profile {
        say(format_args!("{profile}\n"))?;
    }
    if let Some(shrunk) = shrunk {
        let short = if shrunk.complete {
            "shortest"
        } else {
            "shortest found"
        };
        say(format_args!(
            "# The {short} script that fails so, after {} tries. Save it, and run\n\
             # `cabinet check {} --script THIS`.\n{}",
            shrunk.tries,
            artifact.path.display(),
            shrunk.script,
        ))?;
    }
    Ok(())
}

/// The report with its verdicts in colour.
fn painted(report: &str, colour: bool) -> String {
    if !colour {
        return report.to_owned();
    }
    let paint = |line: &str| match line.get(..4) {
        Some("FAIL") => format!("\x1b[1;31mFAIL\x1b[0m{}\n", &line[4..]),
        Some("pass") => format!("\x1b[32mpass\x1b[0m{}\n", &line[4..]),
        _ => format!("{line}\n"),
    };
    report.lines().map(paint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_duration_as_scripts_write_it() {
        assert_eq!(deadline("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(deadline("2s"), Ok(Duration::from_secs(2)));
        for bad in ["", "100", "fast", "-1s", "1s\nseed 2", "1s # x y"] {
            let said = deadline(bad);
            assert!(said.is_err() || bad.contains('#'), "{bad:?}: {said:?}");
        }
    }

    #[test]
    fn verdicts_are_painted_on_a_terminal_only() {
        let report = "FAIL  guest fault\npass  linear memory\nother\n";
        assert_eq!(painted(report, false), report);
        let painted = painted(report, true);
        assert!(
            painted.contains("\x1b[1;31mFAIL\x1b[0m  guest fault\n"),
            "{painted:?}"
        );
        assert!(painted.ends_with("other\n"));
    }
}
