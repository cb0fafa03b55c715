//! Words of a script line: blanks, comments, quotes and escapes.
//!
//! [`words`] and [`quoted`] are inverse: what one writes the other reads as one word.

use std::fmt;

use super::LineProblem;

/// One word of a line, quotes resolved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The text, quotes and escapes resolved.
    pub text: String,
    /// Byte offset in `text` of the first `=` that stood outside quotes.
    equals: Option<usize>,
}

impl Word {
    /// The two sides of `KEY=VALUE`.
    pub(super) fn pair(&self) -> Option<(&str, &str)> {
        let at = self.equals?;
        Some((&self.text[..at], &self.text[at + 1..]))
    }
}

/// Splits a line into words and drops its comment.
pub(super) fn words(line: &str) -> Result<Vec<Word>, LineProblem> {
    let mut words = Vec::new();
    let mut current: Option<Word> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' => break,
            ' ' | '\t' | '\r' => words.extend(current.take()),
            '\'' | '"' => {
                let word = current.get_or_insert_with(Word::empty);
                loop {
                    match chars.next().ok_or(LineProblem::OpenQuote)? {
                        end if end == c => break,
                        '\\' => word.text.push(escape(&mut chars)?),
                        plain => word.text.push(plain),
                    }
                }
            }
            plain => {
                let word = current.get_or_insert_with(Word::empty);
                if plain == '=' && word.equals.is_none() {
                    word.equals = Some(word.text.len());
                }
                word.text.push(plain);
            }
        }
    }
    words.extend(current);
    Ok(words)
}

impl Word {
    fn empty() -> Self {
        Self {
            text: String::new(),
            equals: None,
        }
    }
}

fn escape(chars: &mut std::str::Chars<'_>) -> Result<char, LineProblem> {
    match chars.next().ok_or(LineProblem::OpenQuote)? {
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        '0' => Ok('\0'),
        same @ ('\\' | '\'' | '"') => Ok(same),
        'u' => {
            let rest = chars.as_str();
            let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let (digits, after) = inner.ok_or(LineProblem::BadEscape)?;
            // Six digits hold every code point; a sign would pass `from_str_radix`.
            if digits.len() > 6 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(LineProblem::BadEscape);
            }
            let code = u32::from_str_radix(digits, 16).map_err(|_| LineProblem::BadEscape)?;
            *chars = after.chars();
            char::from_u32(code).ok_or(LineProblem::BadEscape)
        }
        _ => Err(LineProblem::BadEscape),
    }
}

/// Displays a text as one word, quoted only where it must be.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_alphanumeric() || "-_.:/+@,".contains(c);
        if self.0.chars().all(bare) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        self.0.chars().try_for_each(|c| write_escaped(c, '"', f))?;
        f.write_str("\"")
    }
}

/// Displays a character between single quotes.
pub(super) struct Rune(pub char);

impl fmt::Display for Rune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        write_escaped(self.0, '\'', f)?;
        f.write_str("'")
    }
}

fn write_escaped(c: char, quote: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c == quote => write!(f, "\\{c}"),
        c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => write!(f, "{c}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(line: &str) -> Vec<String> {
        words(line)
            .unwrap()
            .into_iter()
            .map(|word| word.text)
            .collect()
    }

    #[test]
    fn a_line_splits_at_blanks_and_ends_at_a_comment() {
        assert_eq!(texts("  input\t0 'x' # a move"), ["input", "0", "x"]);
        assert_eq!(texts("input 0 '#'"), ["input", "0", "#"]);
        assert_eq!(texts("input 0 ' '"), ["input", "0", " "]);
        assert_eq!(texts("# nothing"), Vec::<String>::new());
    }

    #[test]
    fn quotes_may_stand_inside_a_word_and_hide_an_equals_sign() {
        let words = words(r#"k="a b" "x=y"=z bare"#).unwrap();
        assert_eq!(words[0].pair(), Some(("k", "a b")));
        assert_eq!(words[1].pair(), Some(("x=y", "z")));
        assert_eq!(words[2].pair(), None);
    }

    #[test]
    fn escapes_name_characters_and_bad_ones_are_refused() {
        assert_eq!(
            texts(r"'\n\r\t\0\\\'\u{e9}\u{10FFFF}'"),
            ["\n\r\t\0\\'é\u{10FFFF}"]
        );
        for bad in [
            r"'\x'",
            r"'\u{110000}'",
            r"'\u{d800}'",
            r"'\u{}'",
            r"'\u{+41}'",
            r"'\u41'",
        ] {
            assert_eq!(words(bad), Err(LineProblem::BadEscape), "{bad}");
        }
        for open in ["'", "\"abc", r"'\"] {
            assert_eq!(words(open), Err(LineProblem::OpenQuote), "{open}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_text_reads_back_as_one_word(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assume!(!text.is_empty());
            prop_assert_eq!(texts(&Quoted(&text).to_string()), vec![text]);
        }

        #[test]
        fn a_quoted_rune_reads_back(rune in any::<char>()) {
            prop_assert_eq!(texts(&Rune(rune).to_string()), vec![rune.to_string()]);
        }

        #[test]
        fn no_line_makes_the_splitter_panic(line in "\\PC*|[\\\\'\"#u{}= a0-9]*") {
            let _ = words(&line);
        }
    }
}
