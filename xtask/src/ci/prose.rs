//! What the pages must not hold: marks of unfinished work, and names left standing for text that was to come.
//!
//! A name in capitals with an underscore is a placeholder unless it is code, that is between backticks, in a fence or
//! in an indented block.

use std::path::Path;

use super::{Failure, code, read, tidy};

/// Reads every Markdown file of the repository.
pub(super) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    for file in tidy::files(root, ".md")? {
        findings.extend(check_page(&file, &read(&root.join(&file))?));
    }
    Ok(findings)
}

fn check_page(file: &str, page: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (number, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced || line.starts_with("    ") {
            continue;
        }
        // Every second piece is between backticks.
        for prose in line.split('`').step_by(2) {
            for word in code::words(prose).filter(|word| is_placeholder(word)) {
                findings.push(format!("{file}:{}: {word} is left in", number + 1));
            }
        }
    }
    findings
}

fn is_placeholder(word: &str) -> bool {
    let name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let is_name = word.contains('_')
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(name);
    is_name || tidy::UNFINISHED.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_left_for_a_section_is_found_and_code_is_not() {
        let page = "# Page\n\nTRACE_SECTION\n## Next\n`CABINET_VECTORS` and `A`, HOST_IO, SHA-256\n\n    export A_B\n\
                    ```\nC_D\n```\nE_F\n";
        assert_eq!(
            check_page("docs/x.md", page),
            [
                "docs/x.md:3: TRACE_SECTION is left in",
                "docs/x.md:5: HOST_IO is left in",
                "docs/x.md:11: E_F is left in",
            ]
        );
    }

    #[test]
    fn marks_of_unfinished_work_are_found() {
        for mark in tidy::UNFINISHED {
            let page = format!("Some text. {mark}: more of it.\n");
            assert_eq!(check_page("README.md", &page).len(), 1, "{mark}");
        }
    }
}
