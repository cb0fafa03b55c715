//! One small consumer per library crate, built against what `cargo package` would publish.
//!
//! The workspace can hide a missing file, an undeclared feature or a path that only exists here. So the `.crate`
//! files are made, unpacked, and offered to `ci/consumers/*` as a stranger would see them: those manifests name a
//! version, not a path. Only the profile and the lock file are ours, so that what is built already is built once.

use std::path::{Path, PathBuf};

use super::{Failure, Workspace, execute, read};

/// The library crates, in the order of their dependencies. Each has a consumer in `ci/consumers/<name>`.
const LIBRARIES: &[&str] = &[
    "wire",
    "guest",
    "durability",
    "consensus",
    "host",
    "conformance",
    "rooms",
];

/// Packages, unpacks and checks each consumer alone, so that no crate lives on another's features.
pub(super) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut package = workspace.cargo(&["package", "--no-verify", "--allow-dirty", "--offline"]);
    for library in LIBRARIES {
        package.args(["-p", &package_name(library)]);
    }
    execute(&mut package)?;

    let home = workspace.target_dir().join("package-ci");
    let unpacked = home.join("crates");
    replace_dir(&unpacked)?;
    for library in LIBRARIES {
        let archive = workspace
            .target_dir()
            .join("package")
            .join(archive_name(library));
        let mut tar = std::process::Command::new("tar");
        tar.arg("-xzf").arg(&archive).arg("-C").arg(&unpacked);
        execute(&mut tar)?;
    }

    let consumers = home.join("consumers");
    replace_dir(&consumers)?;
    for library in LIBRARIES {
        copy_dir(
            &workspace.root.join("ci/consumers").join(library),
            &consumers.join(library),
        )?;
    }
    let root_manifest = read(&workspace.root.join("Cargo.toml"))?;
    write(&consumers.join("Cargo.toml"), &manifest(&root_manifest)?)?;
    write(
        &consumers.join("Cargo.lock"),
        &read(&workspace.root.join("Cargo.lock"))?,
    )?;

    for library in LIBRARIES {
        let mut check = workspace.cargo(&[
            "check",
            "--offline",
            "--package",
            &format!("consumer-{library}"),
        ]);
        check
            .current_dir(&consumers)
            .arg("--target-dir")
            .arg(workspace.target_dir());
        execute(&mut check)?;
    }
    Ok(())
}

fn package_name(library: &str) -> String {
    format!("cabinet-{library}")
}

/// All our crates carry the workspace's version, which is also xtask's.
fn archive_stem(library: &str) -> String {
    format!("{}-{}", package_name(library), env!("CARGO_PKG_VERSION"))
}

fn archive_name(library: &str) -> String {
    format!("{}.crate", archive_stem(library))
}

/// The consumers' workspace: the unpacked crates stand in for the registry, the profiles are those of the root.
fn manifest(root_manifest: &str) -> Result<String, Failure> {
    let unreadable = |detail: String| Failure::Unreadable {
        what: "the workspace manifest".to_string(),
        detail,
    };
    let root: toml::Table = root_manifest
        .parse()
        .map_err(|e: toml::de::Error| unreadable(e.to_string()))?;
    let members: toml::value::Array = LIBRARIES.iter().map(|library| (*library).into()).collect();
    let mut workspace = toml::Table::new();
    workspace.insert("resolver".to_string(), "3".into());
    workspace.insert("members".to_string(), members.into());
    let mut patches = toml::Table::new();
    for library in LIBRARIES {
        let mut patch = toml::Table::new();
        patch.insert(
            "path".to_string(),
            format!("../crates/{}", archive_stem(library)).into(),
        );
        patches.insert(package_name(library), patch.into());
    }
    let mut patch = toml::Table::new();
    patch.insert("crates-io".to_string(), patches.into());
    let mut ours = toml::Table::new();
    ours.insert("workspace".to_string(), workspace.into());
    ours.insert("patch".to_string(), patch.into());
    if let Some(profile) = root.get("profile") {
        ours.insert("profile".to_string(), profile.clone());
    }
    toml::to_string(&ours).map_err(|error| unreadable(error.to_string()))
}

/// Makes the folder anew, empty.
fn replace_dir(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(file_failure(path, error));
        }
        _ => {}
    }
    std::fs::create_dir_all(path).map_err(|error| file_failure(path, error))
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to).map_err(|error| file_failure(to, error))?;
    for entry in std::fs::read_dir(from).map_err(|error| file_failure(from, error))? {
        let entry = entry.map_err(|error| file_failure(from, error))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_dir(&source, &target)?;
        } else {
            std::fs::copy(&source, &target).map_err(|error| file_failure(&source, error))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| file_failure(path, error))
}

fn file_failure(path: &Path, source: std::io::Error) -> Failure {
    Failure::File {
        path: PathBuf::from(path),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consumers_see_packaged_crates_and_our_profile() {
        let text =
            manifest("[workspace]\nmembers = []\n[profile.dev]\ndebug = false\nopt-level = 1\n")
                .expect("the manifest is toml");
        let table: toml::Table = text.parse().expect("what we wrote is toml");
        let path = table["patch"]["crates-io"]["cabinet-wire"]["path"].as_str();
        assert_eq!(
            path,
            Some(format!("../crates/{}", archive_stem("wire")).as_str())
        );
        assert_eq!(table["profile"]["dev"]["opt-level"].as_integer(), Some(1));
        assert_eq!(
            table["workspace"]["members"].as_array().map(Vec::len),
            Some(LIBRARIES.len())
        );
    }

    #[test]
    fn a_manifest_that_is_not_toml_is_refused() {
        let failure = manifest("[workspace").expect_err("an open bracket is no table");
        assert!(
            failure
                .to_string()
                .starts_with("the workspace manifest is not what we can read")
        );
    }

    #[test]
    fn every_library_has_a_consumer_that_names_no_path() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/consumers");
        for library in LIBRARIES {
            let path = root.join(library).join("Cargo.toml");
            let text = read(&path).expect("each library has a consumer");
            assert!(text.contains(&package_name(library)), "{}", path.display());
            assert!(!text.contains("path ="), "{}", path.display());
        }
    }

    #[test]
    fn copying_takes_the_whole_tree_and_replacing_empties_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("src")).expect("a folder");
        std::fs::write(from.join("src/lib.rs"), "//! x\n").expect("a file");
        let to = dir.path().join("to");
        copy_dir(&from, &to).expect("a copy");
        assert_eq!(
            read(&to.join("src/lib.rs")).expect("the copied file"),
            "//! x\n"
        );
        replace_dir(&to).expect("an empty folder");
        assert!(!to.join("src").exists());
    }
}
