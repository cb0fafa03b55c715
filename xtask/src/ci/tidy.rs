//! The rules no compiler checks: every module says what it is for, nothing is left half done, in code or in prose,
//! unsafe code stays where it is expected, the README's commands are the ones we run, and the tables of the docs are
//! true.

use std::{collections::BTreeSet, path::Path};

use super::{Failure, Workspace, code, prose, read, tables, verdict};

/// The only files that may hold unsafe code. Each block in them carries a `SAFETY` comment (clippy insists).
const UNSAFE_FILES: &[&str] = &[
    // The one place where a guest meets its imports, and the macro that gives it its exports.
    "crates/guest/src/abi.rs",
    "crates/guest/src/lib.rs",
    // Where host and wasmer meet: linear memory and global cells, loading our own machine code, the room that moves
    // between threads, the watchdog's write, the compile worker's address-space limit.
    "crates/host/src/memory.rs",
    "crates/host/src/game.rs",
    "crates/host/src/room/core.rs",
    "crates/host/src/watchdog.rs",
    "crates/host/src/compile.rs",
    // The CPU clock of another thread.
    "crates/host/src/cputime.rs",
    "crates/host/tests/rewrite_semantics.rs",
    "crates/host/tests/rewrite_stops.rs",
    // Test allocators that count.
    "crates/durability/tests/bombs.rs",
    "crates/consensus/tests/turn_allocations.rs",
    "crates/guest/tests/allocations.rs",
    "crates/host/tests/common/counting.rs",
    "crates/wire/tests/allocations.rs",
];

/// Folders that may hold unsafe code as a whole: guests that attack the host on purpose.
const UNSAFE_FOLDERS: &[&str] = &["fixtures/guests/misbehave/"];

/// A file longer than this is mentioned, not refused: it has probably become two things.
const LONG_FILE_LINES: usize = 700;

/// What the README must show on its first screen, and how many lines a first screen has.
const README_COMMANDS: &[&str] = &["cargo xtask conformance", "cargo test --workspace"];
const FIRST_SCREEN_LINES: usize = 40;

/// Marks of unfinished work. They are looked for in comments too.
pub(super) const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX"];

/// Words of code that mean the same.
const STUBS: &[&str] = &["todo", "unimplemented"];

/// Pages with tables whose third column names the tests that prove a row.
const PROVEN: &[&str] = &["docs/parity.md", "docs/ABI.md"];

/// Reads every Rust file of the repository, and its pages.
pub(super) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let files = files(&workspace.root, ".rs")?;
    let mut findings = prose::check(&workspace.root)?;
    let mut tests = BTreeSet::new();
    for file in &files {
        let source = read(&workspace.root.join(file))?;
        findings.extend(check_file(file, &source));
        tests.extend(test_names(&source));
        let lines = source.lines().count();
        if lines > LONG_FILE_LINES {
            println!("note: {file} has {lines} lines; is it still one thing?");
        }
    }
    findings.extend(check_readme(&read(&workspace.root.join("README.md"))?));
    for page in PROVEN {
        let text = read(&workspace.root.join(page))?;
        findings.extend(check_proofs(page, &text, &tests));
    }
    findings.extend(tables::check(&workspace.root)?);
    println!("{} Rust files read", files.len());
    verdict(findings)
}

/// Every file below the root whose name ends so, as sorted `/`-separated paths relative to it. Build output and
/// hidden folders are left out.
pub(super) fn files(root: &Path, suffix: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let failed = |source| Failure::File {
            path: path.clone(),
            source,
        };
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let relative = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            if entry.file_type().map_err(failed)?.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(relative);
                }
            } else if name.ends_with(suffix) {
                found.push(relative);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn check_file(file: &str, source: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !opens_with_module_doc(source) {
        findings.push(format!("{file}: does not open with a module doc (`//!`)"));
    }
    for (number, line) in source.lines().enumerate() {
        let mark = UNFINISHED
            .iter()
            .find(|mark| code::words(line).any(|word| word == **mark));
        // The marks are the subject of this very file.
        if let Some(mark) = mark.filter(|_| file != "xtask/src/ci/tidy.rs") {
            findings.push(format!("{file}:{}: {mark} is left in", number + 1));
        }
    }
    let unsafe_allowed = UNSAFE_FILES.contains(&file)
        || UNSAFE_FOLDERS.iter().any(|folder| file.starts_with(folder));
    let code = code::code_only(source);
    if !unsafe_allowed
        && let Some(number) = code
            .lines()
            .position(|line| code::words(line).any(|word| word == "unsafe"))
    {
        findings.push(format!(
            "{file}:{}: unsafe code in a file that xtask/src/ci/tidy.rs does not list",
            number + 1
        ));
    }
    for (number, line) in code.lines().enumerate() {
        let at = format!("{file}:{}", number + 1);
        for stub in STUBS {
            if line.contains(&format!("{stub}!")) {
                findings.push(format!("{at}: {stub}! is left in"));
            }
        }
        if line.contains("#[ignore") {
            findings.push(format!("{at}: an ignored test proves nothing"));
        }
    }
    findings
}

/// Whether the first line that is neither blank nor a shebang is an inner doc comment with words in it.
fn opens_with_module_doc(source: &str) -> bool {
    source
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && (!line.starts_with("#!") || line.starts_with("#![")))
        .and_then(|line| line.strip_prefix("//!"))
        .is_some_and(|text| !text.trim().is_empty())
}

fn check_readme(readme: &str) -> Vec<String> {
    let first_screen: Vec<&str> = readme.lines().take(FIRST_SCREEN_LINES).collect();
    README_COMMANDS
        .iter()
        .filter(|command| !first_screen.iter().any(|line| line.trim() == **command))
        .map(|command| {
            format!("README.md: `{command}` is not a line of its own among the first {FIRST_SCREEN_LINES}")
        })
        .collect()
}

/// Every test the source defines, those inside a property-test macro too.
fn test_names(source: &str) -> Vec<String> {
    let code = code::code_only(source);
    let mut names = Vec::new();
    let mut marked = false;
    for line in code.lines() {
        let line = line.trim_start();
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let mut words = code::words(line);
        if marked
            && words.any(|word| word == "fn")
            && let Some(name) = words.next()
        {
            names.push(name.to_string());
            marked = false;
        }
    }
    names
}

/// In tables whose third column is headed `test`, each name in backticks there must be a test of ours. A name may
/// carry a path (`wire::delta::name`); the last part counts.
fn check_proofs(page: &str, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut names_tests = false;
    for (number, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            names_tests = false;
            continue;
        };
        let cell = row.split('|').nth(2).unwrap_or_default();
        names_tests |= cell.trim() == "test";
        if !names_tests {
            continue;
        }
        for name in cell.split('`').skip(1).step_by(2) {
            let test = name.rsplit("::").next().unwrap_or(name);
            if !tests.contains(test) {
                findings.push(format!(
                    "{page}:{}: there is no test called {name}",
                    number + 1
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_says_what_it_is_passes() {
        let source =
            "//! The one thing.\n\n/// Adds.\npub fn add(a: u32, b: u32) -> u32 { a + b }\n";
        assert_eq!(
            check_file("crates/x/src/lib.rs", source),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_without_a_module_doc_is_found() {
        for source in [
            "",
            "use std::fmt;\n//! late",
            "//!\nfn f() {}",
            "#![no_std]\n//! behind an attribute",
            "// //! no",
        ] {
            let findings = check_file("crates/x/src/lib.rs", source);
            assert_eq!(findings.len(), 1, "{source:?}: {findings:?}");
            assert!(findings[0].contains("module doc"), "{findings:?}");
        }
    }

    #[test]
    fn unsafe_code_is_found_but_the_word_may_be_written() {
        let source =
            "//! No unsafe here.\n#![forbid(unsafe_code)]\n// unsafe\nfn f() { unsafe { g() } }\n";
        let findings = check_file("crates/wire/src/lib.rs", source);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("crates/wire/src/lib.rs:4: unsafe code"));
        assert_eq!(
            check_file("fixtures/guests/misbehave/src/lib.rs", source),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments() {
        let stub = format!("//! A stub.\nfn f() {{ {}!() }}\n", "todo");
        let note = format!("//! A note.\n// {}: later\n", "TODO");
        let ignored = format!(
            "//! A test.\n#[test]\n#[{}]\nfn f() {{}}\n",
            "ignore = \"slow\""
        );
        for source in [stub, note, ignored] {
            let findings = check_file("crates/x/src/lib.rs", &source);
            assert_eq!(findings.len(), 1, "{source:?}: {findings:?}");
        }
    }

    #[test]
    fn the_readme_must_show_both_commands_early() {
        let good = "# Cabinet\n\n    cargo xtask conformance\n    cargo test --workspace\n";
        assert_eq!(check_readme(good), Vec::<String>::new());
        let late = format!("{}{good}", "\n".repeat(FIRST_SCREEN_LINES));
        assert_eq!(check_readme(&late).len(), 2);
    }

    #[test]
    fn tables_name_only_tests_that_exist() {
        let source = "#[test]\nfn one() {}\n// #[test]\nfn two() {}\nfn helper() {}\n\
                      proptest! {\n    #[test]\n    #[cfg(unix)]\n    fn three(n in 0..9u8) {}\n}\n";
        let tests: BTreeSet<String> = test_names(source).into_iter().collect();
        assert!(tests.iter().eq(["one", "three"]));
        let table = "| reference | ours | test | note |\n|---|---|---|---|\n\
                     | `TestOne` | `f` | `wire::one`, `two` | `x` |\n\nprose `four`\n\n\
                     | what | theirs | ours |\n|---|---|---|\n| a | b | `five` |\n";
        let findings = check_proofs("docs/parity.md", table, &tests);
        assert_eq!(findings, ["docs/parity.md:3: there is no test called two"]);
    }

    #[test]
    fn listed_unsafe_files_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for file in UNSAFE_FILES {
            assert!(root.join(file).is_file(), "{file} is listed but gone");
        }
    }
}
