//! `cargo xtask ci`: everything that must hold before a change is merged, step by step.
//!
//! Each step is a plain command or a small check of ours. The cheap ones come first, the first failure ends the
//! run, and a table of durations closes it. `.ci/run` installs what is missing and calls this; nothing here
//! installs anything.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use cabinet_conformance::toolchain::{DEFAULT_TARGET, Toolchain};

mod code;
mod consumers;
mod layers;
mod prose;
mod tables;
mod tidy;

/// Arguments of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only this step; may be given more than once.
    #[arg(long = "step", value_name = "NAME")]
    steps: Vec<String>,
    /// Print the steps and what each one proves, run nothing.
    #[arg(long)]
    list: bool,
}

/// One thing that must hold.
struct Step {
    name: &'static str,
    proves: &'static str,
    run: fn(&Workspace) -> Result<(), Failure>,
}

/// In order of cost, so that a typo is reported in seconds and not after the build.
const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        proves: "rustfmt with default settings changes nothing",
        run: fmt_check,
    },
    Step {
        name: "tidy",
        proves: "module docs, nothing unfinished, unsafe only where listed, true tables in the docs",
        run: tidy::run,
    },
    Step {
        name: "layers",
        proves: "each crate depends only on what its layer may, and wasmer is named only in host",
        run: layers::run,
    },
    Step {
        name: "sources",
        proves: "every committed fixture was built from the committed sources",
        run: fixture_sources,
    },
    Step {
        name: "deny",
        proves: "licences, banned crates, duplicate versions and sources are as deny.toml says",
        run: deny,
    },
    Step {
        name: "clippy",
        proves: "no warning in any target",
        run: clippy,
    },
    Step {
        name: "docs",
        proves: "rustdoc has no warning",
        run: docs,
    },
    Step {
        name: "guests",
        proves: "the fixture guests have no warning, and their own tests pass",
        run: guests,
    },
    Step {
        name: "test",
        proves: "the README's test command passes",
        run: test,
    },
    Step {
        name: "stores",
        proves: "the README's test command has the tests of buckets in it, with moto where it must be",
        run: stores,
    },
    Step {
        name: "turns",
        proves: "simulated clusters under faults keep every promise, seed by seed",
        run: turns,
    },
    Step {
        name: "conformance",
        proves: "the README's first command passes on the committed fixtures",
        run: conformance,
    },
    Step {
        name: "consumers",
        proves: "a stranger can build against each packaged library crate",
        run: consumers::run,
    },
];

/// Runs the chosen steps in order.
///
/// Exits 0 when all pass, 1 at the first failure, 2 when an unknown step is named.
pub fn run(args: &Args) -> ExitCode {
    if args.list {
        for step in STEPS {
            println!("{:<12} {}", step.name, step.proves);
        }
        return ExitCode::SUCCESS;
    }
    let chosen = match choose(&args.steps) {
        Ok(chosen) => chosen,
        Err(unknown) => {
            eprintln!("ci: no step is called {unknown:?}; `cargo xtask ci --list` names them");
            return ExitCode::from(2);
        }
    };
    let workspace = Workspace::here();
    println!("{}", recorded_data(&workspace.root));
    println!("{}", guest_compiler());
    let mut durations = Vec::new();
    for step in chosen {
        println!("\n=== ci: {}: {}", step.name, step.proves);
        let started = Instant::now();
        let outcome = (step.run)(&workspace);
        let took = started.elapsed();
        durations.push((step.name, took));
        match outcome {
            Ok(()) => println!("=== ci: {} ok in {}", step.name, Seconds(took)),
            Err(failure) => {
                eprintln!(
                    "=== ci: {} failed after {}: {failure}",
                    step.name,
                    Seconds(took)
                );
                let mut cause = std::error::Error::source(&failure);
                while let Some(error) = cause {
                    eprintln!("  because: {error}");
                    cause = error.source();
                }
                eprintln!(
                    "=== ci: run it alone with `cargo xtask ci --step {}`",
                    step.name
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!("\n=== ci: all passed");
    for (name, took) in &durations {
        println!("{name:<12} {:>9}", Seconds(*took).to_string());
    }
    let total = durations.iter().map(|(_, took)| *took).sum();
    println!("{:<12} {:>9}", "total", Seconds(total).to_string());
    ExitCode::SUCCESS
}

/// One line about the data that some tests read from outside the repository.
fn recorded_data(root: &Path) -> String {
    let given = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    // As the tests look for them.
    let vectors = given("CABINET_VECTORS").unwrap_or_else(|| root.join("../shared/vectors"));
    let found = |path: Option<PathBuf>| match path.filter(|path| path.is_dir()) {
        Some(path) => path.display().to_string(),
        None => "not here, its tests will say SKIPPED".to_string(),
    };
    format!(
        "recorded vectors (CABINET_VECTORS): {}; reference kit (CABINET_REFERENCE): {}",
        found(Some(vectors)),
        found(given("CABINET_REFERENCE")),
    )
}

/// One line about the compiler that some tests build games with.
fn guest_compiler() -> String {
    let found = Toolchain::find(DEFAULT_TARGET).map_err(|missing| missing.to_string());
    let found = found.and_then(|toolchain| {
        let too_old = toolchain.too_old_for(env!("CARGO_PKG_RUST_VERSION"));
        too_old.map_or_else(|| Ok(toolchain.to_string()), Err)
    });
    match found {
        Ok(toolchain) => format!("compiler for games: {toolchain}"),
        Err(why) => format!("compiler for games: none, what builds one will say SKIPPED ({why})"),
    }
}

/// The steps of that name, in our order whatever the order asked; all of them when none is named.
fn choose(names: &[String]) -> Result<Vec<&'static Step>, &str> {
    for name in names {
        if !STEPS.iter().any(|step| step.name == name) {
            return Err(name);
        }
    }
    Ok(STEPS
        .iter()
        .filter(|step| names.is_empty() || names.iter().any(|name| name == step.name))
        .collect())
}

/// Where the steps work, and with which cargo.
struct Workspace {
    root: PathBuf,
    cargo: OsString,
}

impl Workspace {
    fn here() -> Workspace {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        Workspace {
            // xtask sits directly under the root, so the fallback is never taken.
            root: manifest.parent().unwrap_or(manifest).to_path_buf(),
            cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        }
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root).args(args);
        command
    }

    /// Where cargo puts what it builds; `CARGO_TARGET_DIR` moves it.
    fn target_dir(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.root.join("target"),
        }
    }
}

/// Why a step did not pass.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("`{command}` ended with {status}")]
    Command {
        command: String,
        status: std::process::ExitStatus,
    },
    #[error("`{command}` cannot be started")]
    Start {
        command: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{what} is not what we can read: {detail}")]
    Unreadable { what: String, detail: String },
    #[error("{} finding(s):\n  {}", .0.len(), .0.join("\n  "))]
    Findings(Vec<String>),
    #[error("{0}")]
    Missing(String),
}

/// Ok when nothing was found, else the findings as a failure.
fn verdict(findings: Vec<String>) -> Result<(), Failure> {
    if findings.is_empty() {
        Ok(())
    } else {
        Err(Failure::Findings(findings))
    }
}

/// Runs a command with our own standard streams, so that its output reads as if typed by hand.
fn execute(command: &mut Command) -> Result<(), Failure> {
    let shown = show(command);
    println!("$ {shown}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Command {
            command: shown,
            status,
        }),
        Err(source) => Err(Failure::Start {
            command: shown,
            source,
        }),
    }
}

/// Runs a command and keeps what it prints on standard output.
fn capture(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let shown = show(command);
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|source| Failure::Start {
            command: shown.clone(),
            source,
        })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure::Command {
            command: shown,
            status: output.status,
        })
    }
}

/// The command as a person would type it.
fn show(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let mut shown = program.to_string_lossy().into_owned();
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    shown
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|source| Failure::File {
        path: path.to_path_buf(),
        source,
    })
}

/// A duration as people read it in a log: `7.1 s`, `12 min 03 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds < 60 {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        } else {
            write!(f, "{} min {:02} s", seconds / 60, seconds % 60)
        }
    }
}

/// Our workspace, the guests' own, and the consumers, which belong to none until they are checked.
fn fmt_check(workspace: &Workspace) -> Result<(), Failure> {
    execute(&mut workspace.cargo(&["fmt", "--all", "--check"]))?;
    execute(&mut workspace.cargo(&[
        "fmt",
        "--all",
        "--check",
        "--manifest-path",
        "fixtures/guests/Cargo.toml",
    ]))?;
    let mut consumers = Command::new("rustfmt");
    consumers
        .current_dir(&workspace.root)
        .args(["--check", "--edition", "2024"]);
    let files = tidy::files(&workspace.root, ".rs")?;
    consumers.args(files.iter().filter(|file| file.starts_with("ci/")));
    execute(&mut consumers)
}

fn clippy(workspace: &Workspace) -> Result<(), Failure> {
    execute(&mut workspace.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

fn docs(workspace: &Workspace) -> Result<(), Failure> {
    let mut command = workspace.cargo(&[
        "doc",
        "--workspace",
        "--no-deps",
        "--all-features",
        "--locked",
    ]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    execute(&mut command)
}

/// The guests' workspace, on this machine: the games' rules are tested without a host. `misbehave` is wasm
/// through and through and stays out.
fn guests(workspace: &Workspace) -> Result<(), Failure> {
    const GUESTS: &[&str] = &[
        "--manifest-path",
        "fixtures/guests/Cargo.toml",
        "--workspace",
        "--exclude",
        "misbehave",
        "--locked",
        "--target-dir",
    ];
    let target_dir = workspace.target_dir().join("guests-ci");
    let mut clippy = workspace.cargo(&["clippy", "--all-targets"]);
    clippy.args(GUESTS).arg(&target_dir);
    execute(clippy.args(["--", "-D", "warnings"]))?;
    let mut test = workspace.cargo(&["test"]);
    execute(test.args(GUESTS).arg(&target_dir))
}

// The two commands of the README: what a newcomer types is what is proven.

fn test(workspace: &Workspace) -> Result<(), Failure> {
    execute(&mut workspace.cargo(&["test", "--workspace"]))?;
    // What a newcomer does not build: the tests of features that are off.
    execute(workspace.cargo(&["test"]).args(WHOLE).args([
        "--features",
        "cabinet-rooms/metrics",
        "--test",
        "metrics_adapter",
        "--test",
        "metrics_allocations",
    ]))
}

/// Every package is selected even where one package's tests are wanted: cargo then unifies features over the same
/// set as in the README's command and compiles only what a new feature touches. With `--package` it would build
/// wasmer, tokio or the S3 client a second time, with fewer features (by `--unit-graph`, units whose features differ
/// from that command's: 3 instead of 19 for the metrics, and everything above those 19 is built again).
const WHOLE: [&str; 2] = ["--workspace", "--locked"];

/// The tests of a bucket: each is there only while a feature is on that nothing asks for by name.
const BUCKET_TESTS: [(&str, &str); 4] = [
    ("s3_in_process", "a_bucket_keeps_the_promises"),
    (
        "s3_faults",
        "every_failure_of_a_put_has_its_class_and_its_requests",
    ),
    ("s3_moto", "a_bucket_of_moto_keeps_the_promises"),
    (
        "kill_nine",
        "no_kill_breaks_a_promise_over_a_bucket_of_moto",
    ),
];

/// The README's command ran the tests of a bucket. Were the feature off there, or the server not found, it would have
/// left them out and passed: so they are listed here, and not run again.
fn stores(workspace: &Workspace) -> Result<(), Failure> {
    let must_run = std::env::var("CABINET_MUST_RUN").unwrap_or_default();
    let is_found = crate::run::find_moto();
    if !is_found && must_run.split_whitespace().any(|tool| tool == "moto") {
        let what = "CABINET_MUST_RUN lists moto, and it is not here";
        return Err(Failure::Missing(what.to_string()));
    }
    let mut list = workspace.cargo(&["test"]);
    list.args(WHOLE);
    for (target, _) in BUCKET_TESTS {
        list.args(["--test", target]);
    }
    let listed = capture(list.args(["--", "--list"]))?;
    verdict(unlisted(&String::from_utf8_lossy(&listed)))
}

/// The tests of a bucket that are not in a listing of the test harness.
fn unlisted(listing: &str) -> Vec<String> {
    BUCKET_TESTS
        .iter()
        .filter(|(_, test)| !listing.lines().any(|line| line == format!("{test}: test")))
        .map(|(target, test)| {
            format!("the test {test} of {target} is not in `cargo test --workspace`")
        })
        .collect()
}

/// Seeds of the simulator that every change must survive.
const SIM_SEEDS: &str = "500";

/// The simulator's seeds. What needs sockets and certificates runs in the README's command: the crate's tests
/// turn its own features on, so that nothing is compiled twice.
fn turns(workspace: &Workspace) -> Result<(), Failure> {
    const WITH: [&str; 2] = [
        "--features",
        "cabinet-consensus/tls,cabinet-consensus/testkit",
    ];
    let mut build = workspace.cargo(&["build"]);
    execute(build.args(WHOLE).args(WITH).args(["--example", "sim"]))?;
    let sim = workspace
        .target_dir()
        .join("debug/examples")
        .join(format!("sim{}", std::env::consts::EXE_SUFFIX));
    execute(Command::new(sim).args(["--seeds", SIM_SEEDS]))
}

fn conformance(workspace: &Workspace) -> Result<(), Failure> {
    // The README's command with the deadline wide open: a check that runs beside others on a
    // busy machine judges no speed.
    execute(&mut workspace.cargo(&["xtask", "conformance", "--deadline-ms", "10000"]))
}

fn fixture_sources(workspace: &Workspace) -> Result<(), Failure> {
    execute(&mut workspace.cargo(&["xtask", "fixtures", "--sources"]))
}

fn deny(workspace: &Workspace) -> Result<(), Failure> {
    let mut probe = workspace.cargo(&["deny", "--version"]);
    probe
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        return Err(Failure::Missing(
            "cargo-deny is not installed; `.ci/run` installs it, or run `cargo install cargo-deny --locked`".to_string(),
        ));
    }
    println!(
        "advisories are not part of this run: they need the network (`cargo deny check advisories`)"
    );
    execute(&mut workspace.cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[&Step]) -> Vec<&'static str> {
        steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn every_step_runs_when_none_is_named() {
        let chosen = choose(&[]).expect("no name is unknown");
        assert_eq!(chosen.len(), STEPS.len());
    }

    #[test]
    fn named_steps_run_in_our_order() {
        let asked = ["test".to_string(), "fmt".to_string()];
        let chosen = choose(&asked).expect("both names are known");
        assert_eq!(names(&chosen), ["fmt", "test"]);
    }

    #[test]
    fn an_unknown_step_is_named_in_the_refusal() {
        let asked = ["fmt".to_string(), "frobnicate".to_string()];
        assert_eq!(choose(&asked).err(), Some("frobnicate"));
    }

    #[test]
    fn step_names_are_unique() {
        let all: Vec<&Step> = STEPS.iter().collect();
        let mut unique = names(&all);
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), STEPS.len());
    }

    #[test]
    fn a_test_of_buckets_that_is_not_listed_is_named() {
        let mut listing: Vec<String> = BUCKET_TESTS
            .iter()
            .map(|(_, test)| format!("{test}: test"))
            .collect();
        assert_eq!(unlisted(&listing.join("\n")), Vec::<String>::new());
        listing.pop();
        let findings = unlisted(&listing.join("\n"));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains("over_a_bucket_of_moto of kill_nine"));
    }

    #[test]
    fn durations_read_in_seconds_then_in_minutes() {
        assert_eq!(Seconds(Duration::from_millis(7_149)).to_string(), "7.1 s");
        assert_eq!(Seconds(Duration::from_secs(723)).to_string(), "12 min 03 s");
    }

    #[test]
    fn a_command_that_fails_is_shown_as_typed() {
        let mut command = Command::new("/usr/bin/env");
        command.args(["false"]);
        let failure = execute(&mut command).expect_err("false fails");
        assert!(
            failure.to_string().starts_with("`env false` ended with "),
            "{failure}"
        );
    }
}
