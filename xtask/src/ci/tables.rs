//! The outcome tables of `docs/ABI.md` against the files the host's tests run.
//!
//! `fixtures/misdeeds.toml` and `fixtures/wat/outcomes.toml` are what is proven; the page is what people read. A row
//! that differs, is missing or is one too many is found here.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use super::{Failure, read};

const PAGE: &str = "docs/ABI.md";
const MISDEEDS: &str = "fixtures/misdeeds.toml";
const GUESTS: &str = "fixtures/wat/outcomes.toml";

#[derive(Debug, Deserialize)]
struct Misdeeds {
    misdeed: Vec<Misdeed>,
}

/// What a running guest does.
#[derive(Debug, Deserialize)]
struct Misdeed {
    name: String,
    does: String,
    outcome: String,
    /// What the next wake comes to, when it is not the same.
    then: Option<String>,
    /// Whether it settles the room.
    #[serde(default)]
    ends: bool,
}

#[derive(Debug, Deserialize)]
struct Guests {
    guest: Vec<Guest>,
}

/// What a module contains.
#[derive(Debug, Deserialize)]
struct Guest {
    file: String,
    phase: String,
    outcome: String,
}

/// A line per row of the page that does not agree with the files.
pub(super) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let page = read(&root.join(PAGE))?;
    let misdeeds: Misdeeds = load(root, MISDEEDS)?;
    let guests: Guests = load(root, GUESTS)?;
    Ok(compare(&page, &misdeeds.misdeed, &guests.guest))
}

fn load<T: DeserializeOwned>(root: &Path, file: &str) -> Result<T, Failure> {
    toml::from_str(&read(&root.join(file))?).map_err(|error| Failure::Unreadable {
        what: file.to_string(),
        detail: error.to_string(),
    })
}

fn compare(page: &str, misdeeds: &[Misdeed], guests: &[Guest]) -> Vec<String> {
    let mut expected: BTreeSet<Vec<String>> = misdeeds.iter().map(misdeed_cells).collect();
    expected.extend(guests.iter().map(guest_cells));
    let found: BTreeSet<Vec<String>> = page.lines().filter_map(outcome_cells).collect();
    let missing = expected
        .difference(&found)
        .map(|row| format!("{PAGE}: lacks the row {}", row.join(" | ")));
    let extra = found
        .difference(&expected)
        .map(|row| format!("{PAGE}: no fixture has the row {}", row.join(" | ")));
    missing.chain(extra).collect()
}

fn misdeed_cells(misdeed: &Misdeed) -> Vec<String> {
    let mut outcome = format!("`{}`", misdeed.outcome);
    if let Some(then) = &misdeed.then {
        outcome.push_str(&format!(", then `{then}`"));
    }
    if misdeed.ends {
        outcome.push_str("; the game ends");
    }
    vec![format!("`{}`", misdeed.name), misdeed.does.clone(), outcome]
}

/// The page describes a guest in words of its own, so that cell is left out.
fn guest_cells(guest: &Guest) -> Vec<String> {
    let name = guest.file.strip_suffix(".wat").unwrap_or(&guest.file);
    let callback = match guest.phase.as_str() {
        "load" => "–".to_string(),
        callback => format!("`{callback}`"),
    };
    vec![
        format!("`{name}`"),
        callback,
        format!("`{}`", guest.outcome),
    ]
}

/// The cells of a row that tells an outcome: three for a misdeed, four for a guest, of which three are compared.
fn outcome_cells(line: &str) -> Option<Vec<String>> {
    let row = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let cells: Vec<String> = row.split(" | ").map(str::to_string).collect();
    let outcome = cells.last()?;
    if !["`ok`", "`fault:", "`refused:"]
        .iter()
        .any(|start| outcome.starts_with(start))
    {
        return None;
    }
    match cells.len() {
        4 => Some(vec![cells[0].clone(), cells[2].clone(), cells[3].clone()]),
        _ => Some(cells),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "\
| misdeed | what it does | outcome |\n|---|---|---|\n\
| `exit-0` | leaves | `ok`, then `fault:exit` |\n\
| `end-twice` | ends twice | `ok`; the game ends |\n\
\n\
| guest | what it is | callback | outcome |\n|---|---|---|---|\n\
| `fault-deep` | Recursion | `wake` | `fault:trap` |\n\
| `ok-smallest` | Nothing | – | `ok` |\n";

    fn misdeeds() -> Vec<Misdeed> {
        let text = "[[misdeed]]\nrune = \"z\"\nname = \"exit-0\"\ndoes = \"leaves\"\noutcome = \"ok\"\nthen = \"fault:exit\"\n\
                    [[misdeed]]\nrune = \":\"\nname = \"end-twice\"\ndoes = \"ends twice\"\noutcome = \"ok\"\nends = true\n";
        toml::from_str::<Misdeeds>(text)
            .expect("the shape of misdeeds.toml")
            .misdeed
    }

    fn guests() -> Vec<Guest> {
        let text = "[[guest]]\nfile = \"fault-deep.wat\"\nphase = \"wake\"\noutcome = \"fault:trap\"\n\
                    [[guest]]\nfile = \"ok-smallest.wat\"\nphase = \"load\"\noutcome = \"ok\"\n";
        toml::from_str::<Guests>(text)
            .expect("the shape of outcomes.toml")
            .guest
    }

    #[test]
    fn a_page_that_says_what_is_tested_passes() {
        assert_eq!(
            compare(PAGE_TEXT, &misdeeds(), &guests()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_changed_outcome_shows_on_both_sides() {
        let page = PAGE_TEXT.replace("`fault:trap`", "`fault:deadline`");
        let findings = compare(&page, &misdeeds(), &guests());
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].ends_with("lacks the row `fault-deep` | `wake` | `fault:trap`"));
        assert!(
            findings[1]
                .ends_with("no fixture has the row `fault-deep` | `wake` | `fault:deadline`")
        );
    }

    #[test]
    fn a_misdeed_nobody_wrote_down_is_found() {
        let findings = compare(PAGE_TEXT, &misdeeds()[..1], &guests());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains("no fixture has the row `end-twice`"));
    }
}
