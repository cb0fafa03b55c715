//! `cabinet new NAME`: a game that passes `check` and `smoke` as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cabinet_conformance::files::read_up_to;
use cabinet_wire::Slug;
use clap::ValueEnum as _;
use serde_json::json;

use crate::outcome::{self, Outcome, Problem, say};
use crate::smoke;

mod shots;

/// Largest manifest looked at for the kit, bytes.
const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// Arguments of `cabinet new`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cabinet new maze
  cabinet new maze --template sprint --license apache-2.0")]
pub struct Args {
    /// The game's name: 1 to 32 of a-z, 0-9 and `-`. Also its directory, made here.
    name: String,
    /// What to begin with.
    #[arg(long, default_value = "blank")]
    template: Template,
    /// Apache-2.0, BSD-3-Clause, MIT, MPL-2.0 or Unlicense.
    #[arg(long, value_name = "ID", default_value = "MIT", value_parser = license)]
    license: &'static License,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Template {
    /// Counts keys: the least a game can be.
    #[value(alias = "counter")]
    Blank,
    /// A race of one to eight: players, scores, an end and a leaderboard.
    Sprint,
}

impl Template {
    /// The game and what `smoke` films of it.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Blank => (
                include_str!("../templates/blank.rs"),
                include_str!("../templates/blank.yaml"),
            ),
            Self::Sprint => (
                include_str!("../templates/sprint.rs"),
                include_str!("../templates/sprint.yaml"),
            ),
        }
    }
}

/// A licence a game may have.
#[derive(Debug)]
struct License {
    id: &'static str,
    text: &'static str,
}

const LICENSES: &[License] = &[
    License {
        id: "Apache-2.0",
        text: include_str!("../templates/licenses/Apache-2.0.txt"),
    },
    License {
        id: "BSD-3-Clause",
        text: include_str!("../templates/licenses/BSD-3-Clause.txt"),
    },
    License {
        id: "MIT",
        text: include_str!("../templates/licenses/MIT.txt"),
    },
    License {
        id: "MPL-2.0",
        text: include_str!("../templates/licenses/MPL-2.0.txt"),
    },
    License {
        id: "Unlicense",
        text: include_str!("../templates/licenses/Unlicense.txt"),
    },
];

fn license(id: &str) -> Result<&'static License, String> {
    let known = LICENSES.iter().map(|license| license.id);
    let known = known.collect::<Vec<_>>().join(", ");
    LICENSES
        .iter()
        .find(|license| license.id.eq_ignore_ascii_case(id))
        .ok_or_else(|| format!("unknown license, the known ones are {known}"))
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when the name is no game's, the directory exists or cannot be written.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    let here = std::env::current_dir()
        .map_err(|error| Problem::about("cannot tell the directory", &error))?;
    let name = name(&args.name)?;
    let dir = Path::new(name.as_str());
    let sdk = sdk(&here, Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut files = files(&name, args.template, args.license, &sdk, year());
    files.extend(screens(&name, args.template));
    write(dir, &files)?;
    if args.json {
        // The names are ours, and text.
        let paths = files.iter().map(|(path, _)| path.display().to_string());
        let template = args.template.to_possible_value();
        let told = json!({
            "name": name.as_str(),
            "dir": dir.display().to_string(),
            "template": template.as_ref().map(clap::builder::PossibleValue::get_name),
            "license": args.license.id,
            "files": paths.collect::<Vec<_>>(),
        });
        return say(format_args!("{}\n", outcome::json(&told))).map(|()| Outcome::Good);
    }
    // A name may begin as an option does.
    let here = if name.as_str().starts_with('-') {
        "./"
    } else {
        ""
    };
    say(format_args!(
        "made {name}; next:\n  cabinet check {here}{name}\n  cabinet play {here}{name}\n  \
         cabinet smoke {here}{name} --check\n"
    ))?;
    Ok(Outcome::Good)
}

/// The game's name, checked as the loader checks it.
fn name(given: &str) -> Result<Slug, Problem> {
    given
        .to_ascii_lowercase()
        .parse()
        .map_err(|error| Problem::about(format!("{given:?} cannot be a game's name"), &error))
}

/// How a game depends on the SDK: by path where a checkout is around `here` or is what this
/// program was built from, else by version.
fn sdk(here: &Path, built_from: &Path) -> String {
    let around = here.ancestors().map(|dir| dir.join("crates/guest"));
    let beside = built_from.parent().map(|crates| crates.join("guest"));
    let checkout = around.chain(beside).find(|dir| {
        // One that is no file, or larger than a manifest is, is not the kit's.
        let manifest = read_up_to(&dir.join("Cargo.toml"), MANIFEST_BYTES_MAX);
        String::from_utf8_lossy(&manifest.unwrap_or_default()).contains("name = \"cabinet-guest\"")
    });
    match checkout.as_deref().and_then(Path::to_str) {
        Some(path) => format!("{{ path = {} }}", toml::Value::from(path)),
        None => toml::Value::from(env!("CARGO_PKG_VERSION")).to_string(),
    }
}

fn year() -> u64 {
    const SECONDS: f64 = 365.2425 * 86_400.0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    1970 + (now.unwrap_or_default().as_secs_f64() / SECONDS) as u64
}

/// What a game's CI file says where its SDK is a directory of this machine.
const PATH_NOTE: &str = "\
      # Cargo.toml names cabinet-guest by a path of the machine this game was made on, which a
      # runner does not have: give it a version or a git address before you push.
";

/// What is written, by path.
fn files(
    name: &Slug,
    template: Template,
    license: &License,
    sdk: &str,
    year: u64,
) -> Vec<(PathBuf, Vec<u8>)> {
    let name = name.as_str();
    let sdk_note = if sdk.starts_with('{') { PATH_NOTE } else { "" };
    let filled = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{title}}", &title(name))
            .replace("{{package}}", &package(name))
            .replace("{{license}}", license.id)
            .replace("{{sdk}}", sdk)
            .replace("{{sdk_note}}", sdk_note)
            .replace("{{year}}", &year.to_string())
    };
    let (game, smoke) = template.texts();
    let texts = [
        ("Cargo.toml", include_str!("../templates/Cargo.toml.txt")),
        ("src/lib.rs", game),
        ("smoke.yaml", smoke),
        ("README.md", include_str!("../templates/README.md")),
        ("LICENSE", license.text),
        (".gitignore", "/target\n/smoke-out\n"),
        // Compared byte by byte: git must not change their line ends.
        (".gitattributes", "/shots/* -text\n"),
        (
            ".github/workflows/check.yml",
            include_str!("../templates/ci.yml"),
        ),
    ];
    texts
        .into_iter()
        .map(|(path, text)| (PathBuf::from(path), filled(text).into_bytes()))
        .collect()
}

/// What `smoke --check` compares with, by path.
fn screens(name: &Slug, template: Template) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let pictures = shots::of(template, &title(name.as_str()));
    let files = |picture: smoke::files::Picture| [picture.ansi(), picture.text()];
    let files = pictures.into_iter().flat_map(files);
    files.map(|(file, bytes)| (Path::new("shots").join(file), bytes))
}

/// The name as a title: `tic-tac` is `Tic Tac`.
fn title(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    let words: Vec<String> = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_ascii_uppercase() + rest
        })
        .collect();
    match words.is_empty() {
        true => name.to_owned(),
        false => words.join(" "),
    }
}

/// A package's name begins with a letter, and cargo keeps some for itself.
fn package(name: &str) -> String {
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphabetic());
    let kept = [
        "test",
        "core",
        "std",
        "alloc",
        "proc-macro",
        "cabinet-guest",
        "cabinet-wire",
    ];
    if begins_well && !kept.contains(&name) {
        name.to_owned()
    } else {
        format!("game-{name}")
    }
}

/// Makes the directory and everything in it; nothing stays behind when that fails.
fn write(dir: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<(), Problem> {
    fs::create_dir(dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Problem::new(format!(
            "{} already exists; choose another name or take it away",
            dir.display()
        )),
        _ => Problem::about(dir.display(), &error),
    })?;
    for (path, bytes) in files {
        let path = dir.join(path);
        let parent = path.parent().unwrap_or(dir);
        if let Err(error) = fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes)) {
            // The directory is ours: it was made above.
            let _ = fs::remove_dir_all(dir);
            return Err(Problem::about(path.display(), &error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(name: &str) -> Slug {
        name.parse().unwrap()
    }

    #[test]
    fn a_bad_name_is_refused_with_the_loaders_own_words() {
        for bad in ["", "a_b", "../x", "ada/chess", &"a".repeat(33)] {
            let problem = name(bad).unwrap_err().to_string();
            let loaders = Slug::new(bad.as_bytes()).unwrap_err().to_string();
            assert!(problem.ends_with(&loaders), "{problem} / {loaders}");
        }
        assert_eq!(name("Maze").unwrap().as_str(), "maze");
        assert_eq!(name(&"a".repeat(32)).unwrap().as_str().len(), 32);
    }

    #[test]
    fn an_unknown_licence_is_answered_with_the_known_ones() {
        assert_eq!(license("apache-2.0").unwrap().id, "Apache-2.0");
        assert_eq!(license("UNLICENSE").unwrap().id, "Unlicense");
        let problem = license("gpl").unwrap_err();
        assert!(problem.contains("Apache-2.0, BSD-3-Clause, MIT, MPL-2.0, Unlicense"));
    }

    #[test]
    fn every_template_is_filled_and_its_manifest_reads() {
        for template in [Template::Blank, Template::Sprint] {
            for license in LICENSES {
                let files = files(&slug("tic-tac"), template, license, "\"1\"", 2026);
                let text = |at: usize| std::str::from_utf8(&files[at].1).unwrap();
                for (at, (path, _)) in files.iter().enumerate() {
                    let text = text(at);
                    assert!(!text.contains("{{"), "{}: {text}", path.display());
                    assert!(!text.is_empty());
                }
                let manifest: toml::Table = toml::from_str(text(0)).unwrap();
                assert_eq!(manifest["package"]["name"].as_str(), Some("tic-tac"));
                assert_eq!(manifest["package"]["license"].as_str(), Some(license.id));
                assert!(text(1).contains("Meta::new(\"tic-tac\", \"Tic Tac\")"));
            }
        }
    }

    #[test]
    fn a_name_cargo_would_not_take_gets_one_it_takes() {
        assert_eq!(package("2048"), "game-2048");
        assert_eq!(package("test"), "game-test");
        assert_eq!(package("maze"), "maze");
        assert_eq!(title("-"), "-");
        assert_eq!(title("2048"), "2048");
    }

    #[test]
    fn the_sdk_is_a_path_in_a_checkout_and_a_version_elsewhere() {
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(
            sdk(nowhere.path(), nowhere.path()),
            format!("\"{}\"", env!("CARGO_PKG_VERSION"))
        );
        let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(sdk(nowhere.path(), ours).starts_with("{ path = \""));
        assert!(sdk(ours, nowhere.path()).starts_with("{ path = \""));
    }

    #[test]
    fn a_manifest_is_looked_at_to_its_limit_and_no_further() {
        let (here, nowhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kit = here.path().join("crates/guest");
        fs::create_dir_all(&kit).unwrap();
        for (bytes, found) in [(MANIFEST_BYTES_MAX, true), (MANIFEST_BYTES_MAX + 1, false)] {
            let mut text = b"[package]\nname = \"cabinet-guest\"\n".to_vec();
            text.resize(bytes, b'#');
            fs::write(kit.join("Cargo.toml"), text).unwrap();
            let is_path = sdk(here.path(), nowhere.path()).starts_with("{ path = \"");
            assert_eq!(is_path, found, "{bytes} bytes");
        }
    }

    #[test]
    fn an_existing_directory_is_left_as_it_is() {
        let here = tempfile::tempdir().unwrap();
        let dir = here.path().join("maze");
        let files = [(PathBuf::from("a/b"), b"text".to_vec())];
        write(&dir, &files).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a/b")).unwrap(), "text");
        let problem = write(&dir, &[(PathBuf::from("c"), Vec::new())]).unwrap_err();
        assert!(problem.to_string().contains("already exists"), "{problem}");
        assert!(!dir.join("c").exists());
    }
}
