//! `cargo xtask fixtures`: the committed guests, their sources, and the proof that they match.
//!
//! Three ways to run it:
//! - plain: build every guest under `fixtures/guests` to `fixtures/<name>.wasm` and pin it in
//!   `fixtures/manifest.toml`;
//! - `--sources`: no compiler needed. Every hash in the manifest is recomputed and every WAT
//!   guest is assembled, so a source changed without a rebuild is red. CI and tests run this;
//! - `--check`: all of that, and a rebuild from nothing whose bytes are compared.
//!
//! Which files count as a guest's sources is [`sources`]'s business, which compiler is found
//! where [`toolchain`]'s.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::fixtures::manifest::{Artifact, Manifest};
use crate::fixtures::sources::{Guest, sha256_hex};
use crate::fixtures::toolchain::Toolchain;

mod manifest;
mod sources;
mod toolchain;
mod wat;

/// What `cargo xtask fixtures` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rebuild from nothing in a temporary directory and compare with what is committed.
    #[arg(long, conflicts_with = "sources")]
    check: bool,
    /// Compare committed hashes only; needs no compiler.
    #[arg(long)]
    sources: bool,
    /// Guests to build or check; all of them when none is named.
    names: Vec<String>,
}

/// Runs the command; failure means that something differs or could not be built.
pub fn run(args: &Args) -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let outcome = root
        .canonicalize()
        .map_err(|source| FixturesError::io("find the workspace at", &root, source))
        .and_then(|root| {
            if args.check {
                check(&root, &args.names)
            } else if args.sources {
                verify(&root, &args.names)
            } else {
                build(&root, &args.names)
            }
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fixtures: {error}");
            ExitCode::FAILURE
        }
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
    let toolchain = Toolchain::find()?;
    println!("compiler: {toolchain}");
    let target = root.join("target/fixtures");
    let mut manifest = Manifest::read(root).or_else(|error| match error {
        FixturesError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Manifest::default())
        }
        other => Err(other),
    })?;
    for guest in &guests {
        let wasm = toolchain.build(root, guest, &target)?;
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
fn check(root: &Path, names: &[String]) -> Result<(), FixturesError> {
    verify(root, names)?;
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(missing @ FixturesError::NoCompiler) => {
            println!("sources and hashes agree; not rebuilt: {missing}");
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    let manifest = Manifest::read(root)?;
    let elsewhere = tempfile::tempdir()
        .map_err(|source| FixturesError::io("make", &std::env::temp_dir(), source))?;
    let mut differences = Vec::new();
    for guest in &selected(root, names)? {
        // `verify` passed, so every selected guest is pinned; a missing pin would be a stray.
        let Some(pinned) = manifest.get(&guest.name) else {
            continue;
        };
        if pinned.toolchain != toolchain.to_string() {
            println!(
                "{:<12} not rebuilt: pinned with {}, here is {toolchain}",
                guest.name, pinned.toolchain
            );
            continue;
        }
        let rebuilt = sha256_hex(&toolchain.build(root, guest, elsewhere.path())?);
        let same = rebuilt == pinned.wasm_sha256;
        let verdict = if same {
            "rebuilt, byte for byte the same"
        } else {
            "rebuilt, differs"
        };
        println!("{:<12} {verdict}", guest.name);
        if !same {
            differences.push(format!(
                "{}: a rebuild gives {rebuilt}, the manifest pins {}",
                guest.name, pinned.wasm_sha256
            ));
        }
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(FixturesError::Differs(differences))
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
    #[error(
        "no compiler for wasm32-unknown-unknown here. Either `rustup target add \
         wasm32-unknown-unknown`, or on Debian `apt install rustc-web cargo-web rust-web-src` \
         with a rustup toolchain (for its rust-lld) or `lld`"
    )]
    NoCompiler,
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
    #[error("could not {action} {path}: {source}")]
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
