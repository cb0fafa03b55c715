//! Rust source with everything that is not code blanked out, so that a word in a comment or a string is not
//! taken for a use of it.

/// What the scanner is inside of.
#[derive(Clone, Copy)]
enum Inside {
    Code,
    LineComment,
    /// Block comments nest; the number is how deep we are.
    BlockComment(u32),
    Text,
    /// A raw string and how many `#` close it.
    RawText(usize),
}

/// The source with comments and string and character literals replaced by spaces. Line breaks stay, so that
/// line numbers still hold.
pub(super) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut inside = Inside::Code;
    let mut i = 0;
    while i < chars.len() {
        let here = at(i);
        // How many characters this step takes, whether they are kept, and where it leaves us.
        let (taken, kept, next) = match inside {
            Inside::Code => match (here, at(i + 1)) {
                ('/', '/') => (2, false, Inside::LineComment),
                ('/', '*') => (2, false, Inside::BlockComment(1)),
                ('"', _) => (1, false, Inside::Text),
                ('r', '"' | '#') if !continues_a_word(&chars, i) => match raw_hashes(&chars, i) {
                    Some(hashes) => (2 + hashes, false, Inside::RawText(hashes)),
                    None => (1, true, Inside::Code),
                },
                ('\'', _) => match char_literal(&chars, i) {
                    Some(length) => (length, false, Inside::Code),
                    None => (1, true, Inside::Code), // a lifetime
                },
                _ => (1, true, Inside::Code),
            },
            Inside::LineComment if here == '\n' => (1, false, Inside::Code),
            Inside::LineComment => (1, false, inside),
            Inside::BlockComment(depth) => match (here, at(i + 1)) {
                ('/', '*') => (2, false, Inside::BlockComment(depth + 1)),
                ('*', '/') if depth == 1 => (2, false, Inside::Code),
                ('*', '/') => (2, false, Inside::BlockComment(depth - 1)),
                _ => (1, false, inside),
            },
            Inside::Text => match here {
                '\\' => (2, false, inside),
                '"' => (1, false, Inside::Code),
                _ => (1, false, inside),
            },
            Inside::RawText(hashes) => {
                if here == '"' && (1..=hashes).all(|n| at(i + n) == '#') {
                    (1 + hashes, false, Inside::Code)
                } else {
                    (1, false, inside)
                }
            }
        };
        for &c in chars.iter().skip(i).take(taken) {
            out.push(if kept || c == '\n' { c } else { ' ' });
        }
        i += taken;
        inside = next;
    }
    out
}

/// The words of a line of code: runs of letters, digits and underscores.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
}

/// Whether the character before `i` belongs to the same word, as the `r` of `for` does. The `b` of `br"…"`
/// starts a literal and is no such word.
fn continues_a_word(chars: &[char], i: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    match i.checked_sub(1).map(|before| chars[before]) {
        Some('b') => i >= 2 && is_word(chars[i - 2]),
        Some(before) => is_word(before),
        None => false,
    }
}

/// The number of `#` of a raw string that starts at `i`; none for a raw identifier such as `r#type`.
fn raw_hashes(chars: &[char], i: usize) -> Option<usize> {
    let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(i + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// The length of the character literal that starts at `i`; none when the quote starts a lifetime.
fn char_literal(chars: &[char], i: usize) -> Option<usize> {
    if chars.get(i + 1) == Some(&'\\') {
        // The longest escape is `\u{10FFFF}`; the search starts behind the escaped character itself.
        let close = chars.iter().skip(i + 3).take(10).position(|c| *c == '\'')?;
        return Some(close + 4);
    }
    (chars.get(i + 2) == Some(&'\'')).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_vanish_and_code_stays() {
        let source = "let a = \"unsafe\"; // unsafe\nunsafe {} /* unsafe /* deeper */ still */ b";
        let code = code_only(source);
        assert_eq!(code.matches("unsafe").count(), 1);
        assert!(code.contains("let a ="));
        assert!(code.ends_with(" b"));
        assert!(!code.contains("still"));
    }

    #[test]
    fn lines_keep_their_numbers() {
        let source = "a\n/* b\nc */\nlet d = \"e\nf\";\ng";
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count());
        assert_eq!(code.lines().last(), Some("g"));
    }

    #[test]
    fn raw_strings_end_only_at_their_own_hashes() {
        assert_eq!(
            words(&code_only("x(r#\"todo \"quoted\" todo\"#) y")).collect::<Vec<_>>(),
            ["x", "y"]
        );
        assert_eq!(
            words(&code_only("x(br\"todo\\\") y")).collect::<Vec<_>>(),
            ["x", "b", "y"]
        );
        assert_eq!(
            words(&code_only("for r#type in v")).collect::<Vec<_>>(),
            ["for", "r", "type", "in", "v"]
        );
    }

    #[test]
    fn a_quote_is_a_character_or_a_lifetime() {
        let code = code_only("fn f<'a>(x: &'a str) { ('\"', '\\'', '\\u{1F600}', 'x', todo) }");
        assert!(code.contains("&'a str"));
        assert!(code.contains("todo"));
        assert!(!code.contains('"'));
    }

    #[test]
    fn escaped_quotes_do_not_end_a_string() {
        assert_eq!(
            words(&code_only(r#"a("x\"todo\\") b"#)).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }

    #[test]
    fn broken_source_is_scanned_to_its_end() {
        for source in ["\"open", "/* open", "r#\"open", "'", "'\\", "r#", "\\", "r"] {
            assert_eq!(
                code_only(source).chars().count(),
                source.chars().count(),
                "{source:?}"
            );
        }
    }
}
