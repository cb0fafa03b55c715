//! `cargo xtask fixtures`: the committed guests, their sources, and the proof that they match.
//!
//! Three ways to run it:
//! - plain: build every guest under `fixtures/guests` to `fixtures/<name>.wasm` and pin it in
//!   `fixtures/manifest.toml`;
//! - `--sources`: no compiler needed. Every hash in the manifest is recomputed and every WAT
//!   guest is assembled, so a source changed without a rebuild is red. CI and a test below run this;
//! - `--check`: all of that, and a rebuild from nothing whose bytes are compared. It needs the
//!   toolchain the manifest pins, and says so by its exit code when that is not here.
//!
//! Exit code 0: in order; 1: something differs or could not be built; 3: what could be compared
//! agrees, but not every guest was rebuilt.
//!
//! Which files count as a guest's sources is [`sources`]'s business, which compiler is
//! found [`cabinet_conformance::toolchain`]'s, and how it is used [`toolchain`]'s.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cabinet_conformance::toolchain::{DEFAULT_TARGET, NoCompiler, Toolchain};

use crate::fixtures::manifest::{Artifact, Manifest};
use crate::fixtures::sources::{Guest, sha256_hex};

mod manifest;
mod sources;
mod toolchain;
mod wat;

/// What `cargo xtask fixtures` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rebuild from nothing in a temporary directory and compare with what is committed; exit code
    /// 3 when that needs a toolchain that is not here.
    #[arg(long, conflicts_with = "sources")]
    check: bool,
    /// Compare committed hashes only; needs no compiler.
    #[arg(long)]
    sources: bool,
    /// Guests to build or check; all of them when none is named.
    names: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let outcome = root
        .canonicalize()
        .map_err(|source| FixturesError::io("find the workspace at", &root, source))
        .and_then(|root| {
            if args.check {
                check(&root, &args.names)
            } else if args.sources {
                verify(&root, &args.names).map(|()| Done::InOrder)
            } else {
                build(&root, &args.names).map(|()| Done::InOrder)
            }
        });
    match &outcome {
        Ok(Done::InOrder) => {}
        Ok(Done::NotAllRebuilt { rebuilt, guests }) => {
            let rebuilt = match rebuilt {
                0 => "nothing was rebuilt".to_owned(),
                some => format!("{some} of {guests} guests were rebuilt"),
            };
            eprintln!("fixtures: sources and hashes agree, but {rebuilt}");
        }
        Err(error) => {
            eprintln!("fixtures: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
        }
    }
    ExitCode::from(exit_code(&outcome))
}

/// What a run without a difference came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Everything it set out to do.
    InOrder,
    /// Some guests, or all, need a toolchain that is not here.
    NotAllRebuilt { rebuilt: usize, guests: usize },
}

fn exit_code(outcome: &Result<Done, FixturesError>) -> u8 {
    match outcome {
        Ok(Done::InOrder) => 0,
        Err(_) => 1,
        Ok(Done::NotAllRebuilt { .. }) => 3,
    }
}

/// Recomputes every committed hash and assembles every WAT guest.
///
/// # Errors
///
/// [`FixturesError::Differs`] with one line per difference.
fn verify(root: &Path, names: &[String]) -> Result<(), FixturesError> {
    let manifest = Manifest::read(root)?;
    let guests = selected(root, names)?;
    let mut differences = Vec::new();
    for guest in &guests {
        let problem = difference(root, guest, &manifest)?;
        println!(
            "{:<12} {}",
            guest.name,
            problem.as_deref().unwrap_or("as committed")
        );
        differences.extend(problem.map(|problem| format!("{}: {problem}", guest.name)));
    }
    if names.is_empty() {
        differences.extend(strays(root, &guests, &manifest)?);
        let (assembled, problems) = wat::verify(&root.join("fixtures/wat"))?;
        println!("{assembled} WAT guests assemble");
        differences.extend(problems);
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(FixturesError::Differs(differences))
    }
}

/// Why one committed guest is not what the manifest says, if it is not.
fn difference(
    root: &Path,
    guest: &Guest,
    manifest: &Manifest,
) -> Result<Option<String>, FixturesError> {
    let Some(pinned) = manifest.get(&guest.name) else {
        return Ok(Some(
            "not in the manifest; run `cargo xtask fixtures`".to_owned(),
        ));
    };
    if pinned.sources_sha256 != guest.sources_sha256(root)? {
        return Ok(Some(
            "sources changed since it was built; run `cargo xtask fixtures`".to_owned(),
        ));
    }
    let path = artifact_path(root, &guest.name);
    let wasm = match std::fs::read(&path) {
        Ok(wasm) => wasm,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Some(format!("{} is missing", path.display())));
        }
        Err(source) => return Err(FixturesError::io("read", &path, source)),
    };
    Ok((sha256_hex(&wasm) != pinned.wasm_sha256)
        .then(|| "the committed wasm is not the one the manifest pins".to_owned()))
}

/// Committed things that belong to no guest.
fn strays(
    root: &Path,
    guests: &[Guest],
    manifest: &Manifest,
) -> Result<Vec<String>, FixturesError> {
    let known: BTreeSet<&str> = guests.iter().map(|guest| guest.name.as_str()).collect();
    let mut found: Vec<String> = manifest
        .artifacts
        .iter()
        .filter(|artifact| !known.contains(artifact.name.as_str()))
        .map(|artifact| format!("{}: in the manifest, but has no sources", artifact.name))
        .collect();
    for path in sources::entries(&root.join("fixtures"))? {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or("");
        if path.extension().is_some_and(|ext| ext == "wasm") && !known.contains(stem) {
            found.push(format!("{}: has no sources", path.display()));
        }
    }
    Ok(found)
}

/// Builds the guests and pins them.
fn build(root: &Path, names: &[String]) -> Result<(), FixturesError> {
    let guests = selected(root, names)?;
    let toolchain = Toolchain::find(DEFAULT_TARGET)?;
    println!("compiler: {toolchain}");
    let target = root.join("target/fixtures");
    let mut manifest = Manifest::read(root).or_else(|error| match error {
        FixturesError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Manifest::default())
        }
        other => Err(other),
    })?;
    for guest in &guests {
        let wasm = toolchain::build(&toolchain, root, guest, &target)?;
        let path = artifact_path(root, &guest.name);
        std::fs::write(&path, &wasm).map_err(|source| FixturesError::io("write", &path, source))?;
        let artifact = Artifact {
            name: guest.name.clone(),
            bytes: wasm.len() as u64,
            wasm_sha256: sha256_hex(&wasm),
            sources_sha256: guest.sources_sha256(root)?,
            toolchain: toolchain.to_string(),
        };
        println!(
            "{:<12} {:>7} bytes  {}",
            artifact.name, artifact.bytes, artifact.wasm_sha256
        );
        manifest.put(artifact);
        // After each guest, so that one that does not build leaves the others pinned.
        manifest.write(root)?;
    }
    if names.is_empty() {
        manifest.keep_only(&guests);
    }
    manifest.write(root)
}

/// Verifies what is committed, then rebuilds it elsewhere and compares bytes.
fn check(root: &Path, names: &[String]) -> Result<Done, FixturesError> {
    verify(root, names)?;
    let manifest = Manifest::read(root)?;
    let guests = selected(root, names)?;
    let toolchain = match Toolchain::find(DEFAULT_TARGET) {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            println!("not rebuilt: {missing}");
            return Ok(Done::NotAllRebuilt {
                rebuilt: 0,
                guests: guests.len(),
            });
        }
    };
    let elsewhere = tempfile::tempdir()
        .map_err(|source| FixturesError::io("make", &std::env::temp_dir(), source))?;
    rebuild(&guests, &manifest, &toolchain.to_string(), &|guest| {
        toolchain::build(&toolchain, root, guest, elsewhere.path())
    })
}

/// Compares what `build` makes of each guest that `toolchain` is pinned for.
fn rebuild(
    guests: &[Guest],
    manifest: &Manifest,
    toolchain: &str,
    build: &dyn Fn(&Guest) -> Result<Vec<u8>, FixturesError>,
) -> Result<Done, FixturesError> {
    let mut differences = Vec::new();
    let mut rebuilt = 0;
    for guest in guests {
        // `verify` passed, so every guest is pinned; a missing pin would be a difference.
        let Some(pinned) = manifest.get(&guest.name) else {
            continue;
        };
        if pinned.toolchain != toolchain {
            println!(
                "{:<12} not rebuilt: pinned with {}, here is {toolchain}",
                guest.name, pinned.toolchain
            );
            continue;
        }
        rebuilt += 1;
        let bytes = sha256_hex(&build(guest)?);
        if bytes == pinned.wasm_sha256 {
            println!("{:<12} rebuilt, byte for byte the same", guest.name);
        } else {
            println!("{:<12} rebuilt, differs", guest.name);
            differences.push(format!(
                "{}: a rebuild gives {bytes}, the manifest pins {}",
                guest.name, pinned.wasm_sha256
            ));
        }
    }
    match differences.as_slice() {
        [] if rebuilt == guests.len() => Ok(Done::InOrder),
        [] => Ok(Done::NotAllRebuilt {
            rebuilt,
            guests: guests.len(),
        }),
        _ => Err(FixturesError::Differs(differences)),
    }
}

/// The guests that `names` names, in order of name; all when it names none.
fn selected(root: &Path, names: &[String]) -> Result<Vec<Guest>, FixturesError> {
    let all = Guest::all(root)?;
    if let Some(unknown) = names
        .iter()
        .find(|name| all.iter().all(|guest| guest.name != **name))
    {
        return Err(FixturesError::UnknownGuest {
            name: unknown.clone(),
            known: all
                .iter()
                .map(|guest| guest.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        });
    }
    Ok(all
        .into_iter()
        .filter(|guest| names.is_empty() || names.contains(&guest.name))
        .collect())
}

fn artifact_path(root: &Path, name: &str) -> PathBuf {
    root.join("fixtures").join(name).with_extension("wasm")
}

/// Why the fixtures are not in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FixturesError {
    /// What is committed is not what its sources or the manifest say.
    #[error("{}", .0.join("\nfixtures: "))]
    Differs(Vec<String>),
    /// No compiler on this machine can emit wasm.
    #[error(transparent)]
    NoCompiler(#[from] NoCompiler),
    /// A guest does not build.
    #[error("building {name} failed ({status}); cargo said:\n{stderr}")]
    Build {
        /// The guest's name.
        name: String,
        /// How cargo ended.
        status: std::process::ExitStatus,
        /// What cargo wrote to standard error.
        stderr: String,
    },
    /// A name given on the command line names no guest.
    #[error("no guest is called {name:?}; there are {known}")]
    UnknownGuest {
        /// The name that was given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A file that should be TOML of a known shape is not.
    #[error("{path} does not read as it should")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What the parser objects to.
        source: Box<toml::de::Error>,
    },
    /// The manifest could not be turned into TOML.
    #[error("the manifest does not serialise")]
    Serialise(#[from] toml::ser::Error),
    /// The file system or a process got in the way.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl FixturesError {
    fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "rustc 1, LLD 2, std from source";

    fn root() -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        root.canonicalize().unwrap()
    }

    /// The committed guests, pinned as if `toolchain` had made each from its own name.
    fn pinned(toolchain: &str) -> (Vec<Guest>, Manifest) {
        let guests = Guest::all(&root()).unwrap();
        let mut manifest = Manifest::default();
        for guest in &guests {
            manifest.put(Artifact {
                name: guest.name.clone(),
                bytes: 0,
                wasm_sha256: sha256_hex(guest.name.as_bytes()),
                sources_sha256: String::new(),
                toolchain: toolchain.to_owned(),
            });
        }
        (guests, manifest)
    }

    #[test]
    fn every_committed_fixture_is_the_one_its_committed_sources_gave() {
        if let Err(error) = verify(&root(), &[]) {
            panic!("{error}");
        }
    }

    #[test]
    fn a_rebuild_that_gives_the_pinned_bytes_is_in_order_and_another_is_a_difference() {
        let (guests, manifest) = pinned(OURS);
        let same = rebuild(&guests, &manifest, OURS, &|guest| {
            Ok(guest.name.clone().into_bytes())
        });
        assert_eq!(exit_code(&same), 0);
        let other = rebuild(&guests, &manifest, OURS, &|_| Ok(Vec::new()));
        assert!(
            matches!(&other, Err(FixturesError::Differs(all)) if all.len() == guests.len()),
            "{other:?}"
        );
        assert_eq!(exit_code(&other), 1);
    }

    #[test]
    fn what_another_toolchain_built_is_not_rebuilt_and_that_is_no_success() {
        let (guests, manifest) = pinned("another");
        let never = |_: &Guest| -> Result<Vec<u8>, FixturesError> { panic!("built") };
        let done = rebuild(&guests, &manifest, OURS, &never);
        let expected = Done::NotAllRebuilt {
            rebuilt: 0,
            guests: guests.len(),
        };
        assert_eq!(done.as_ref().ok(), Some(&expected));
        assert_eq!(exit_code(&done), 3);
    }

    #[test]
    fn an_error_leaves_the_text_of_its_cause_to_its_cause() {
        let cause = std::io::Error::other("the cause");
        let error = FixturesError::io("read", Path::new("/x"), cause);
        assert_eq!(error.to_string(), "could not read /x");
        assert!(error.source().is_some());
    }
}
