//! A YAML document as a tree with lines: what a smoke script is read from.
//!
//! Only the first document of a stream. Aliases are refused, so a small file never becomes a large
//! tree; depth and bytes have limits, and the rest follows from them.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::parse::ScriptProblem;

/// Largest script file, bytes.
pub const MAX_SCRIPT_BYTES: usize = 1 << 20;
/// Deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 16;

/// A value and the line it begins at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In document order; a key may come twice.
    Mapping(Vec<(Node, Node)>),
}

/// A scalar as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    /// The text, without quotes and escapes; empty where nothing is written.
    pub text: String,
    /// Neither quoted nor a block.
    pub plain: bool,
    /// The last part of an explicit tag, such as `int`.
    pub tag: Option<String>,
}

impl Node {
    /// The text of a scalar; empty for anything else, as the reference takes it.
    pub fn text(&self) -> &str {
        match &self.value {
            Value::Scalar(scalar) => &scalar.text,
            _ => "",
        }
    }

    /// The number a scalar is, in any of the notations YAML has for whole numbers. Those for others
    /// count where the number is whole.
    pub fn integer(&self) -> Option<i64> {
        let Value::Scalar(scalar) = &self.value else {
            return None;
        };
        // Within a number it means nothing, before it there is none.
        if scalar.text.starts_with('_') {
            return None;
        }
        match scalar.tag.as_deref() {
            Some("int" | "float") => {}
            None if scalar.plain => {}
            _ => return None,
        }
        integer(&scalar.text).or_else(|| whole(&scalar.text))
    }

    /// Whether nothing is said: an empty value, `~` or `null`, or what is tagged as that.
    pub fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => match scalar.tag.as_deref() {
                Some(tag) => tag == "null" || scalar.text.is_empty(),
                None => {
                    let null = matches!(scalar.text.as_str(), "~" | "null" | "Null" | "NULL");
                    scalar.text.is_empty() || scalar.plain && null
                }
            },
            _ => false,
        }
    }
}

/// `1.0`, `1e3`, `-.0`, and `089`, which is no octal number: those without a fraction, which an `i64`
/// holds.
fn whole(text: &str) -> Option<i64> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    // What YAML calls a number begins like one; Rust also reads `inf`.
    let begins = |c: char| c.is_ascii_digit() || c == '.';
    let number = digits
        .trim_start_matches(['+', '-'])
        .starts_with(begins)
        .then(|| digits.parse::<f64>().ok())??;
    // Two to the power of 63 is the first that does not fit.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    (fits && number.fract() == 0.0).then_some(number as i64)
}

/// `-12`, `1_000`, `0x1f`, `0o17`, `017`, `0b11`.
fn integer(text: &str) -> Option<i64> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let (sign, magnitude) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let lower = magnitude.to_ascii_lowercase();
    let (radix, magnitude) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if magnitude.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{magnitude}"), radix).ok()
}

/// The root of the first document; `None` where there is none.
pub(super) fn document(text: &str) -> Result<Option<Node>, ScriptProblem> {
    let mut events = Parser::new_from_str(text);
    // Lists and mappings that are open, outermost first.
    let mut open: Vec<Open> = Vec::new();
    while let Some(event) = events.next_event() {
        let (event, span) = event
            .map_err(|e| ScriptProblem::at(e.marker().line(), format!("not YAML: {}", e.info())))?;
        let line = span.start.line();
        let complete = match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
            Event::StreamEnd | Event::DocumentEnd => return Ok(None),
            Event::Alias(_) => {
                return Err(ScriptProblem::at(
                    line,
                    "aliases are not taken: write the value out",
                ));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() == MAX_DEPTH {
                    let what = format!("nested more than {MAX_DEPTH} deep");
                    return Err(ScriptProblem::at(line, what));
                }
                open.push(Open {
                    line,
                    mapping: matches!(event, Event::MappingStart(..)),
                    nodes: Vec::new(),
                });
                continue;
            }
            Event::Scalar(text, style, _, tag) => Node {
                line: match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => block_line(open.last(), line),
                    _ => line,
                },
                value: Value::Scalar(Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                    tag: tag.map(|tag| tag.suffix.clone()),
                }),
            },
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(closed) => closed.node(),
                // The parser ends only what it began.
                None => return Ok(None),
            },
        };
        match open.last_mut() {
            Some(parent) => parent.nodes.push(complete),
            None => return Ok(Some(complete)),
        }
    }
    Ok(None)
}

/// Where a block of text begins that is a value: at its `|` or `>`, behind the key, while the parser
/// tells where the text is.
fn block_line(parent: Option<&Open>, line: usize) -> usize {
    let key = parent.filter(|open| open.mapping && open.nodes.len() % 2 == 1);
    let key = key.and_then(|open| open.nodes.last());
    key.map_or(line, |key| key.line)
}

struct Open {
    line: usize,
    mapping: bool,
    nodes: Vec<Node>,
}

impl Open {
    fn node(self) -> Node {
        let value = if self.mapping {
            let mut nodes = self.nodes.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                pairs.push((key, value));
            }
            Value::Mapping(pairs)
        } else {
            Value::List(self.nodes)
        };
        Node {
            line: self.line,
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_in_every_notation_of_yaml() {
        for (text, number) in [
            ("0", Some(0)),
            ("-42", Some(-42)),
            ("+7", Some(7)),
            ("1_000", Some(1_000)),
            ("0x1F", Some(31)),
            ("-0x10", Some(-16)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0b101", Some(5)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1.5", None),
            ("1e3", None),
            ("", None),
            ("-", None),
            ("0x", None),
            ("0x-1", None),
            ("--1", None),
            ("089", None),
            ("seven", None),
        ] {
            assert_eq!(integer(text), number, "{text:?}");
        }
    }

    #[test]
    fn numbers_without_a_fraction_are_whole_however_they_are_written() {
        for (text, number) in [
            ("1.0", Some(1)),
            ("1e3", Some(1_000)),
            ("-2.50e1", Some(-25)),
            ("089", Some(89)),
            ("1_0.", Some(10)),
            (".0", Some(0)),
            ("9223372036854774784.0", Some(9_223_372_036_854_774_784)),
            ("9223372036854775808.0", None),
            ("-9223372036854775808.0", Some(i64::MIN)),
            ("1.5", None),
            ("1e400", None),
            ("inf", None),
            ("-infinity", None),
            (".inf", None),
            ("nan", None),
            ("--1.0", None),
            ("1:30", None),
            ("0x1.0", None),
            ("", None),
        ] {
            assert_eq!(whole(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_value_knows_its_line_also_where_nothing_is_written() {
        let text = "a: 1\nb:\nc: [x,\n  y]\nd:\n  - e\n";
        let Some(Node {
            value: Value::Mapping(pairs),
            line: 1,
        }) = document(text).unwrap()
        else {
            panic!("a mapping on line 1");
        };
        let lines: Vec<(usize, usize)> = pairs.iter().map(|(k, v)| (k.line, v.line)).collect();
        assert_eq!(lines, [(1, 1), (2, 2), (3, 3), (5, 6)]);
        assert!(pairs[1].1.is_nothing() && pairs[1].1.text().is_empty());
        let Value::List(items) = &pairs[2].1.value else {
            panic!("a list");
        };
        assert_eq!((items[1].line, items[1].text()), (4, "y"));
    }

    #[test]
    fn a_block_of_text_begins_where_it_is_announced() {
        let Some(Node {
            value: Value::Mapping(pairs),
            ..
        }) = document("a: |\n\n  x\nb: >-\n  y\n").unwrap()
        else {
            panic!("a mapping");
        };
        let lines: Vec<usize> = pairs.iter().map(|(_, value)| value.line).collect();
        assert_eq!(lines, [1, 4]);
    }

    #[test]
    fn sixteen_levels_are_read_and_one_more_is_not() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(document(&nested(MAX_DEPTH)).is_ok());
        let refused = document(&nested(MAX_DEPTH + 1)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "smoke.yaml:1: nested more than 16 deep"
        );
    }

    #[test]
    fn an_alias_is_refused_where_it_stands() {
        let refused = document("a: &x 1\nb: *x\n").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "smoke.yaml:2: aliases are not taken: write the value out"
        );
    }
}
