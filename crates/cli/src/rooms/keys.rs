//! Master keys from a file. No byte of it is in any message.

use std::io::Read as _;
use std::path::Path;

use cabinet_conformance::{error_line, files};
use cabinet_durability::seal::{Keyring, MasterKey};

use crate::outcome::Problem;

/// Hex digits of a key.
const KEY_DIGITS: usize = 64;
/// Largest key file, bytes.
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// Reads a key file: a line for each key, its number and 64 hex digits. Records are sealed under the
/// first; the others open what is older. Empty lines and lines that begin with `#` say nothing.
///
/// # Errors
/// [`Problem`], which names the line.
pub fn read(path: &Path) -> Result<Keyring, Problem> {
    if let Some(problem) = pasted(&path.to_string_lossy()) {
        return Err(problem);
    }
    let shown = path.display();
    let mut text = String::new();
    let file = files::open(path).map_err(|error| Problem::new(error_line(&error)))?;
    file.take(MAX_KEY_FILE_BYTES + 1)
        .read_to_string(&mut text)
        // The error of a text that is none may not quote it, whatever the library does.
        .map_err(|error| Problem::new(format!("{shown}: cannot be read: {}", error.kind())))?;
    if text.len() as u64 > MAX_KEY_FILE_BYTES {
        let what = format!("{shown}: more than {MAX_KEY_FILE_BYTES} bytes; that is no key file");
        return Err(Problem::new(what));
    }
    parse(&text).map_err(|what| Problem::new(format!("{shown}: {what}")))
}

/// A path that holds the digits of a key was meant to be the key, and is repeated nowhere.
fn pasted(path: &str) -> Option<Problem> {
    let mut run = 0;
    let is_key = path.chars().any(|c| {
        run = if c.is_ascii_hexdigit() { run + 1 } else { 0 };
        run >= KEY_DIGITS
    });
    is_key.then(|| {
        Problem::new("that looks like a key and not like a file; write `1 KEY` into a file only you can read, and name that")
    })
}

fn parse(text: &str) -> Result<Keyring, String> {
    let mut ring: Option<Keyring> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let shape = || format!("line {number}: want a key's number and its 64 hex digits");
        let (id, digits) = line.split_once(char::is_whitespace).ok_or_else(shape)?;
        let id: u32 = id.parse().map_err(|_| shape())?;
        let at = |error| format!("line {number}: {error}");
        let key = MasterKey::from_hex(id, digits).map_err(at)?;
        ring = Some(match ring {
            None => Keyring::new(key),
            Some(ring) => ring.with_older(key).map_err(at)?,
        });
    }
    ring.ok_or_else(|| "no key in it; want a line with a number and 64 hex digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_seals_and_the_others_open() {
        let (new, old) = ("0f".repeat(31) + "aa", "3c".repeat(31) + "bb");
        let ring = parse(&format!("# new\n2 {new}\n\n  1\t{old}  \n")).unwrap();
        assert_eq!(ring.current().id(), 2);
        assert_eq!(format!("{ring:?}"), "[MasterKey(2), MasterKey(1)]");
    }

    #[test]
    fn a_key_given_as_the_files_name_is_not_repeated() {
        let digits = "0f".repeat(31) + "aa";
        for path in [digits.clone(), format!("1 {digits}"), format!("./{digits}")] {
            let told = read(Path::new(&path)).unwrap_err().to_string();
            assert!(
                !told.contains("0f0f") && told.contains("looks like a key"),
                "{told}"
            );
        }
        let one_less = read(Path::new(&digits[1..])).unwrap_err().to_string();
        assert!(one_less.contains(&digits[1..]), "{one_less}");
    }

    #[test]
    fn a_bad_file_says_which_line_and_shows_nothing_of_it() {
        let good = "0f".repeat(31) + "aa";
        for text in [
            String::new(),
            "# nothing\n".to_owned(),
            good.clone(),
            format!("x {good}"),
            format!("0 {good}"),
            format!("1 {}", &good[1..]),
            format!("1 {}zz", &good[2..]),
            format!("1 {good}\n1 {good}"),
            format!("1 {}", "aa".repeat(32)),
        ] {
            let told = parse(&text).unwrap_err();
            assert!(!told.contains("0f0f") && !told.contains("aaaa"), "{told}");
        }
        assert!(
            parse(&format!("1 {good}\nx\n"))
                .unwrap_err()
                .starts_with("line 2:")
        );
    }
}
