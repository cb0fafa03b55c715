//! `FILE|DIR`: a wasm module as it is, or a game's directory, built first.
//!
//! A directory with a `Cargo.toml` is built with cargo, for release: for the wasm target that its
//! `.cargo/config.toml` names under `build.target`, or for `wasm32-unknown-unknown`, for which a
//! game imports nothing but the game's own interface. Else one with a `go.mod` is built with
//! TinyGo, as its own kit does. What the build says goes to stderr.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cabinet_conformance::toolchain::{DEFAULT_TARGET, Toolchain};
use cabinet_conformance::{error_line, files};

use crate::outcome::Problem;

/// Most of cargo's messages kept, bytes. A build of a thousand crates tells less.
const MAX_MESSAGES_BYTES: usize = 64 << 20;
/// Largest `.cargo/config.toml` read, bytes.
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// A game's module, and where it came from.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The module. At most [`files::MAX_ARTIFACT_BYTES`].
    pub wasm: Vec<u8>,
    /// The file it was read from: what was named, or what the build wrote.
    pub path: PathBuf,
    /// The game's directory: what was named, or the file's own.
    pub dir: PathBuf,
}

impl Artifact {
    /// Reads the module that `named` means, and builds it first when that is a directory.
    ///
    /// # Errors
    /// A [`Problem`] when there is no such module, it does not build, or the compiler is missing.
    pub fn resolve(named: &Path) -> Result<Self, Problem> {
        let shown = named.display();
        let about = std::fs::metadata(named).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Problem::new(format!(
                "{shown}: no such file or directory; name a .wasm file or a game's directory"
            )),
            _ => Problem::about(shown, &error),
        })?;
        if about.is_dir() {
            return Self::built(named);
        }
        Self::file(named)
    }

    /// Reads the module in a file, and builds nothing: for a path that came out of a file and not from
    /// whoever runs the program.
    ///
    /// # Errors
    /// A [`Problem`] when the file is no module.
    pub fn file(path: &Path) -> Result<Self, Problem> {
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        Self::read(path, parent.unwrap_or(Path::new(".")))
    }

    fn read(path: &Path, dir: &Path) -> Result<Self, Problem> {
        let wasm = files::read_artifact(path).map_err(|error| Problem::new(error_line(&error)))?;
        Ok(Self {
            wasm,
            path: path.to_owned(),
            dir: dir.to_owned(),
        })
    }

    fn built(dir: &Path) -> Result<Self, Problem> {
        if dir.join("Cargo.toml").is_file() {
            return Self::read(&cargo_build(dir)?, dir);
        }
        if dir.join("go.mod").is_file() {
            let out = tempfile::tempdir()
                .map_err(|error| Problem::about("no place for what is built", &error))?;
            return Self::read(&tinygo_build(dir, out.path())?, dir);
        }
        Err(Problem::new(format!(
            "{}: neither Cargo.toml nor go.mod in this directory; name a .wasm file or a game's \
             directory",
            dir.display()
        )))
    }
}

/// Builds the crate in `dir` and says where the module is.
fn cargo_build(dir: &Path) -> Result<PathBuf, Problem> {
    let target = configured_target(dir)?.unwrap_or_else(|| DEFAULT_TARGET.to_owned());
    let toolchain = Toolchain::find(&target)
        .map_err(|missing| Problem::new(format!("{}: {missing}", dir.display())))?;
    let mut cargo = toolchain.cargo();
    cargo
        .args(["build", "--release", "--target", &target])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = cargo
        .spawn()
        .map_err(|error| Problem::about("cargo does not run", &error))?;
    let mut messages = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // Dropped when it is full: cargo then ends, and says why.
        let read = stdout
            .take(MAX_MESSAGES_BYTES as u64)
            .read_to_end(&mut messages);
        read.map_err(|error| Problem::about("cargo cannot be heard", &error))?;
    }
    let status = child
        .wait()
        .map_err(|error| Problem::about("cargo does not end", &error))?;
    if !status.success() {
        return Err(Problem::new(format!(
            "{} does not build ({status}); mend what cargo says above",
            dir.display()
        )));
    }
    only_module(&String::from_utf8_lossy(&messages), dir)
}

/// The wasm target that the project's own configuration names.
fn configured_target(dir: &Path) -> Result<Option<String>, Problem> {
    let path = dir.join(".cargo/config.toml");
    if !path.is_file() {
        return Ok(None);
    }
    let text = files::read_up_to(&path, MAX_CONFIG_BYTES)
        .map_err(|error| Problem::new(error_line(&error)))?;
    let table: toml::Table = toml::from_str(&String::from_utf8_lossy(&text))
        .map_err(|error| Problem::new(format!("{}: {}", path.display(), error.message())))?;
    let target = table
        .get("build")
        .and_then(|build| build.get("target"))
        .and_then(toml::Value::as_str)
        .filter(|target| target.starts_with("wasm32-"));
    Ok(target.map(str::to_owned))
}

/// The one module among what cargo says it made for the crate in `dir`.
fn only_module(messages: &str, dir: &Path) -> Result<PathBuf, Problem> {
    let mut modules: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| {
            let files = message["filenames"].as_array().cloned().unwrap_or_default();
            files.into_iter()
        })
        .filter_map(|file| Some(PathBuf::from(file.as_str()?)))
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .collect();
    modules.sort();
    modules.dedup();
    let shown = dir.display();
    match modules.len() {
        1 => Ok(modules.swap_remove(0)),
        0 => Err(Problem::new(format!(
            "{shown} builds, but to no wasm module; set `crate-type = [\"cdylib\", \"rlib\"]` \
             under [lib]"
        ))),
        several => Err(Problem::new(format!(
            "{shown} builds {several} wasm modules; name one game's directory, or one of them: {}",
            modules[0].display()
        ))),
    }
}

/// Builds the Go module in `dir` to a file in `out`.
fn tinygo_build(dir: &Path, out: &Path) -> Result<PathBuf, Problem> {
    let module = out.join("game.wasm");
    let mut tinygo = Command::new("tinygo");
    tinygo
        .args(["build", "-opt=1", "-no-debug", "-gc=conservative", "-o"])
        .arg(&module)
        .args(["-target", "wasip1", "-buildmode=c-shared", "."])
        .current_dir(dir)
        .stdin(Stdio::null());
    let output = tinygo.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::new(format!(
            "{}: a Go game is built with TinyGo, which is not installed; see tinygo.org/getting-started",
            dir.display()
        )),
        _ => Problem::about("tinygo does not run", &error),
    })?;
    // Nobody is left to tell when stderr is gone.
    let _ = std::io::stderr()
        .write_all(&output.stdout)
        .and_then(|()| std::io::stderr().write_all(&output.stderr));
    if !output.status.success() {
        return Err(Problem::new(format!(
            "{} does not build ({}); mend what tinygo says above",
            dir.display(),
            output.status
        )));
    }
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(named: &Path) -> String {
        Artifact::resolve(named).unwrap_err().to_string()
    }

    #[test]
    fn a_module_is_used_as_it_is_and_its_directory_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("game.wasm");
        std::fs::write(&path, b"\0asm\x01\0\0\0").unwrap();
        let artifact = Artifact::resolve(&path).unwrap();
        assert_eq!(artifact.wasm, b"\0asm\x01\0\0\0");
        assert_eq!(artifact.path, path);
        assert_eq!(artifact.dir, dir.path());
    }

    #[test]
    fn what_is_no_game_is_told_in_one_line_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("game.txt");
        std::fs::write(&text, "hello").unwrap();
        assert!(problem(&text).ends_with("game.txt: not a wasm module"));
        assert!(problem(&dir.path().join("missing")).contains("missing: "));
        let neither = problem(dir.path());
        assert!(
            neither.contains("neither Cargo.toml nor go.mod in this directory; name a .wasm"),
            "{neither}"
        );
    }

    #[test]
    fn the_target_is_what_the_projects_configuration_says_if_that_is_wasm() {
        let dir = tempfile::tempdir().unwrap();
        let configured = |text: &str| {
            std::fs::create_dir_all(dir.path().join(".cargo")).unwrap();
            std::fs::write(dir.path().join(".cargo/config.toml"), text).unwrap();
            configured_target(dir.path())
        };
        assert_eq!(configured_target(dir.path()).unwrap(), None);
        assert_eq!(
            configured("[build]\ntarget = \"wasm32-wasip1\"").unwrap(),
            Some("wasm32-wasip1".to_owned())
        );
        let native = "[build]\ntarget = \"x86_64-unknown-linux-gnu\"";
        assert_eq!(configured(native).unwrap(), None);
        assert_eq!(configured("[alias]\nx = \"run\"").unwrap(), None);
        let broken = configured("[build").unwrap_err().to_string();
        assert!(broken.contains("config.toml: "), "{broken}");
    }

    #[test]
    fn of_what_cargo_made_the_one_module_is_taken() {
        let made = |files: &[&str]| {
            let filenames = serde_json::json!(files);
            serde_json::json!({ "reason": "compiler-artifact", "filenames": filenames }).to_string()
        };
        let dir = Path::new("game");
        let one = [made(&["/t/libx.rlib"]), made(&["/t/g.wasm", "/t/g.rlib"])].join("\n");
        assert_eq!(only_module(&one, dir).unwrap(), Path::new("/t/g.wasm"));
        let none = only_module(&made(&["/t/libx.rlib"]), dir).unwrap_err();
        assert!(none.to_string().contains("crate-type"), "{none}");
        let two = only_module(&made(&["/t/a.wasm", "/t/b.wasm"]), dir).unwrap_err();
        assert!(two.to_string().contains("builds 2 wasm modules"), "{two}");
        assert!(only_module("not json\n{}", dir).is_err());
    }
}
