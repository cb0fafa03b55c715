//! The compiler that builds guests: rustup's wasm target, else Debian's compiler for the web.
//!
//! Debian ships no prebuilt standard library for wasm, so there it is built from
//! `rust-web-src` with cargo's unstable `-Zbuild-std`; the linker is any `rust-lld` to hand.
//!
//! [`Toolchain::cargo`] is a cargo that hears the project's own configuration, for authors;
//! [`Toolchain::sealed_cargo`] one that hears nothing but what it is told, for builds whose bytes
//! are compared.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target a game is built for unless its project says otherwise.
pub const DEFAULT_TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// A compiler that can emit wasm.
///
/// Its text names everything that may change the bytes of what it builds: equal texts promise
/// equal artifacts.
#[derive(Debug, Clone)]
pub struct Toolchain {
    target: String,
    rustc_version: String,
    linker_version: String,
    std: Std,
}

/// Where the guests' standard library comes from.
#[derive(Debug, Clone)]
enum Std {
    /// The toolchain has one for the target.
    Prebuilt,
    /// It is built with the guest.
    Source { library: PathBuf, linker: PathBuf },
}

/// No compiler on this machine can emit wasm. The text says what to install.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no compiler for {target} here. Either `rustup target add {target}`, or on Debian \
     `apt install rustc-web cargo-web rust-web-src` with a rustup toolchain (for its rust-lld) or \
     `lld`"
)]
pub struct NoCompiler {
    /// The target that was asked for.
    pub target: String,
}

impl Toolchain {
    /// Looks for a compiler for `target`: the active toolchain first, Debian's second.
    ///
    /// # Errors
    ///
    /// [`NoCompiler`], which says what to install.
    pub fn find(target: &str) -> Result<Self, NoCompiler> {
        Self::active(target)
            .or_else(|| Self::debian(target))
            .ok_or_else(|| NoCompiler {
                target: target.to_owned(),
            })
    }

    fn active(target: &str) -> Option<Self> {
        let libraries =
            answer(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
        let has_std = std::fs::read_dir(libraries)
            .ok()?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"));
        let linker = rust_lld("rustc")?;
        has_std.then_some(())?;
        Some(Self {
            target: target.to_owned(),
            rustc_version: answer(Command::new("rustc").arg("--version"))?,
            linker_version: linker_version(&linker)?,
            std: Std::Prebuilt,
        })
    }

    fn debian(target: &str) -> Option<Self> {
        let files = answer(Command::new("dpkg").args(["-L", "rust-web-src"]))?;
        let library = files
            .lines()
            .filter(|line| line.ends_with("/library"))
            .min_by_key(|line| line.len())
            .map(PathBuf::from)?;
        let linker = rust_lld(DEBIAN_RUSTC)
            .or_else(|| rust_lld("rustc"))
            .or_else(|| on_path("rust-lld"))
            .or_else(|| on_path("wasm-ld"))?;
        Path::new(DEBIAN_CARGO).is_file().then_some(())?;
        Some(Self {
            target: target.to_owned(),
            rustc_version: answer(Command::new(DEBIAN_RUSTC).arg("--version"))?,
            linker_version: linker_version(&linker)?,
            std: Std::Source { library, linker },
        })
    }

    /// The target it builds for, a triple.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What `rustc --version` says of it: major and minor; `None` when it says nothing of the kind.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.rustc_version.split(' ').nth(1)?.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// Why it cannot build what asks for `rust_version`, as a manifest's `rust-version` is written;
    /// `None` when it can.
    #[must_use]
    pub fn too_old_for(&self, rust_version: &str) -> Option<String> {
        let mut numbers = rust_version.split('.').map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten().unwrap_or(0);
        let needed = (number(), number());
        let is_old = self.version() < Some(needed);
        is_old.then(|| format!("{self} is older than {rust_version}"))
    }

    /// Where the standard library's sources are, when it is built with the guest.
    #[must_use]
    pub fn library(&self) -> Option<&Path> {
        match &self.std {
            Std::Prebuilt => None,
            Std::Source { library, .. } => Some(library),
        }
    }

    /// A cargo that builds with this toolchain and otherwise as its project and its caller say.
    /// What to do, such as `build`, and the target are arguments for the caller to add.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut cargo = self.any_cargo();
        if let Std::Source { linker, .. } = &self.std {
            let triple = self.target.to_uppercase().replace('-', "_");
            // As an environment variable it leaves the project's own flags in force.
            cargo.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
        }
        cargo
    }

    /// A cargo that hears nothing of the caller's flags and wrappers, and compiles with `flags`
    /// and those of the toolchain.
    #[must_use]
    pub fn sealed_cargo(&self, mut flags: Vec<String>) -> Command {
        let mut cargo = self.any_cargo();
        if let Std::Source { library, linker } = &self.std {
            flags.push(remap(library, "/rust/library"));
            flags.push(format!("-Clinker={}", linker.display()));
        }
        for (name, _) in std::env::vars_os() {
            let lossy = name.to_string_lossy();
            let is_flag = lossy.starts_with("RUSTC_")
                || lossy.starts_with("CARGO_BUILD_")
                || lossy.starts_with("CARGO_PROFILE_")
                || lossy.starts_with("CARGO_TARGET_")
                || ["RUSTFLAGS", "RUSTC", "CARGO"].contains(&lossy.as_ref());
            if is_flag && !cargo.get_envs().any(|(set, _)| set == name) {
                cargo.env_remove(&name);
            }
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        cargo
    }

    fn any_cargo(&self) -> Command {
        match &self.std {
            Std::Prebuilt => Command::new("cargo"),
            Std::Source { library, .. } => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC);
                cargo.env("RUSTC_BOOTSTRAP", "1");
                // The one way to tell cargo where the library's sources are.
                cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
                cargo.arg("-Zbuild-std=std,panic_abort");
                cargo
            }
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let std = match self.std {
            Std::Prebuilt => "prebuilt std",
            Std::Source { .. } => "std from source",
        };
        write!(f, "{}, {}, {std}", self.rustc_version, self.linker_version)
    }
}

/// The flag that writes `from` as `to` wherever the compiler would name it.
#[must_use]
pub fn remap(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

/// The linker that comes with the toolchain of `rustc`.
fn rust_lld(rustc: &str) -> Option<PathBuf> {
    let sysroot = answer(Command::new(rustc).args(["--print", "sysroot"]))?;
    std::fs::read_dir(Path::new(&sysroot).join("lib/rustlib"))
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("bin/rust-lld"))
        .find(|path| path.is_file())
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

fn linker_version(linker: &Path) -> Option<String> {
    let mut command = Command::new(linker);
    if linker.ends_with("rust-lld") {
        command.args(["-flavor", "wasm"]);
    }
    let text = answer(command.arg("--version"))?;
    // `LLD 22.1.2 (a build directory or URL, which says nothing more)`
    Some(text.split(" (").next().unwrap_or(&text).to_owned())
}

/// What a program printed, if it exists and succeeded.
fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debians() -> Toolchain {
        Toolchain {
            target: DEFAULT_TARGET.to_owned(),
            rustc_version: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
            linker_version: "LLD 22.1.2".to_owned(),
            std: Std::Source {
                library: "/usr/src/rustc/library".into(),
                linker: "/opt/rust-lld".into(),
            },
        }
    }

    fn env(command: &Command, name: &str) -> Option<String> {
        command
            .get_envs()
            .find(|(set, _)| *set == name)
            .and_then(|(_, value)| Some(value?.to_string_lossy().into_owned()))
    }

    #[test]
    fn a_toolchains_text_and_version_are_what_rustc_says() {
        let toolchain = debians();
        assert_eq!(
            toolchain.to_string(),
            "rustc 1.96.0 (ac68faa20 2026-05-25), LLD 22.1.2, std from source"
        );
        assert_eq!(toolchain.version(), Some((1, 96)));
        let odd = Toolchain {
            rustc_version: "rustc".to_owned(),
            ..toolchain
        };
        assert_eq!(odd.version(), None);
    }

    #[test]
    fn a_toolchain_is_too_old_for_any_version_above_its_own() {
        let too_old = |needed| debians().too_old_for(needed).is_some();
        assert!(!too_old("1.95") && !too_old("1.96") && !too_old("1.96.3") && !too_old("1"));
        assert!(too_old("1.97") && too_old("2.0"));
        let text = debians().too_old_for("1.97").unwrap();
        assert!(text.starts_with("rustc 1.96.0 ") && text.ends_with(" is older than 1.97"));
    }

    #[test]
    fn an_authors_cargo_keeps_the_projects_flags_and_a_sealed_one_sets_all() {
        let authors = debians().cargo();
        assert_eq!(
            env(&authors, "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER").as_deref(),
            Some("/opt/rust-lld")
        );
        assert_eq!(env(&authors, "CARGO_ENCODED_RUSTFLAGS"), None);
        let sealed = debians().sealed_cargo(vec!["-Cx=y".to_owned()]);
        assert_eq!(
            env(&sealed, "CARGO_ENCODED_RUSTFLAGS").as_deref(),
            Some(
                "-Cx=y\u{1f}--remap-path-prefix=/usr/src/rustc/library=/rust/library\u{1f}\
                 -Clinker=/opt/rust-lld"
            )
        );
    }

    #[test]
    fn a_target_nobody_has_is_answered_with_what_to_install() {
        let missing = NoCompiler {
            target: "wasm32-wasip1".to_owned(),
        };
        let text = missing.to_string();
        assert!(text.contains("`rustup target add wasm32-wasip1`"), "{text}");
        assert!(text.contains("`apt install rustc-web"), "{text}");
    }
}
