//! Where two traces part: the first line that differs, and in what.
//!
//! Read side by side, a line of each at a time, so that a trace may be longer than memory. A frame
//! written with its grid is compared cell by cell.

use std::fmt;
use std::io::{self, BufRead, Read as _};

use cabinet_wire::cell::Cell;
use cabinet_wire::{CELL_BYTES, COLS, FRAME_BYTES, ROWS};
use serde::Serialize;
use serde_json::Value;

use crate::shot::glyph;
use crate::units::{cut, escaped};

/// Longest line of a trace, bytes.
pub const MAX_LINE_BYTES: usize = 64 << 20;
/// Most fields, and most cells, that a [`Divergence`] names.
pub const MAX_TOLD: usize = 16;

/// One of the two traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// Why two traces were not compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// A trace could not be read.
    #[error("line {line} could not be read")]
    Read {
        /// Of which.
        side: Side,
        /// Where, counted from 1.
        line: usize,
        /// What the system answered.
        source: io::Error,
    },
    /// A line is longer than any a trace has.
    #[error("line {line} has more than {MAX_LINE_BYTES} bytes")]
    LineTooLong {
        /// Of which.
        side: Side,
        /// Where, counted from 1.
        line: usize,
    },
    /// A line is no JSON object; the first of an empty file is none either.
    #[error("line {line} is not a line of a trace, which is one JSON object")]
    NotATrace {
        /// Of which.
        side: Side,
        /// Where, counted from 1.
        line: usize,
    },
}

impl DiffError {
    /// Which of the two traces it is about.
    #[must_use]
    pub fn side(&self) -> Side {
        match self {
            Self::Read { side, .. }
            | Self::LineTooLong { side, .. }
            | Self::NotATrace { side, .. } => *side,
        }
    }
}

/// The first line at which two traces differ. Its texts are cut and otherwise as the traces have
/// them; `Display` is for people, and escapes what would draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Divergence {
    /// The line, counted from 1.
    pub line: usize,
    /// What the line tells: `header`, a callback and its number, a note.
    pub what: String,
    /// The fields that differ, the first [`MAX_TOLD`] of them.
    pub fields: Vec<FieldDifference>,
    /// The cells that differ in the first differing frame, the first [`MAX_TOLD`] of them, when
    /// both traces carry grids.
    pub cells: Vec<CellDifference>,
    /// How many cells of that frame differ.
    pub cells_differing: usize,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FieldDifference {
    /// The way to it, such as `host[2].args[0]`.
    pub path: String,
    /// What the first trace has there, shortened; `nothing` when it has none.
    pub a: String,
    /// What the second has.
    pub b: String,
}

/// A cell that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CellDifference {
    /// From the top, 0 first.
    pub row: usize,
    /// From the left, 0 first.
    pub col: usize,
    /// What the first shows there, glyph and style.
    pub a: String,
    /// What the second shows.
    pub b: String,
}

/// Compares two traces. `None` when they are the same; the name that a header gives its artifact
/// does not count.
///
/// # Errors
/// [`DiffError`], when a line before the first difference is not readable.
pub fn diff(a: &mut dyn BufRead, b: &mut dyn BufRead) -> Result<Option<Divergence>, DiffError> {
    let mut line = 0;
    loop {
        line += 1;
        let ours = next(a, Side::A, line)?;
        let theirs = next(b, Side::B, line)?;
        match (ours, theirs) {
            (None, None) => return Ok(None),
            (Some(ours), Some(theirs)) if ours == theirs => {}
            (Some(mut ours), Some(mut theirs)) => {
                if line == 1 {
                    for header in [&mut ours, &mut theirs] {
                        header
                            .as_object_mut()
                            .map(|object| object.remove("artifact"));
                    }
                    if ours == theirs {
                        continue;
                    }
                }
                return Ok(Some(divergence(line, &ours, &theirs)));
            }
            (ours, theirs) => {
                let (told, a, b) = match (&ours, &theirs) {
                    (Some(ours), _) => (ours, "goes on", "ends before this line"),
                    (_, Some(theirs)) => (theirs, "ends before this line", "goes on"),
                    (None, None) => return Ok(None),
                };
                return Ok(Some(Divergence {
                    line,
                    what: what(line, told),
                    fields: vec![FieldDifference {
                        path: "the trace".to_owned(),
                        a: a.to_owned(),
                        b: b.to_owned(),
                    }],
                    cells: Vec::new(),
                    cells_differing: 0,
                }));
            }
        }
    }
}

fn next(from: &mut dyn BufRead, side: Side, line: usize) -> Result<Option<Value>, DiffError> {
    let mut bytes = Vec::new();
    from.take(MAX_LINE_BYTES as u64 + 1)
        .read_until(b'\n', &mut bytes)
        .map_err(|source| DiffError::Read { side, line, source })?;
    if bytes.is_empty() && line > 1 {
        return Ok(None);
    }
    if bytes.len() > MAX_LINE_BYTES {
        return Err(DiffError::LineTooLong { side, line });
    }
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        _ => Err(DiffError::NotATrace { side, line }),
    }
}

fn divergence(line: usize, a: &Value, b: &Value) -> Divergence {
    let mut fields = Vec::new();
    differing("", a, b, &mut fields);
    let mut found = Divergence {
        line,
        what: what(line, a),
        fields,
        cells: Vec::new(),
        cells_differing: 0,
    };
    let frames = |value: &Value| value["frames"].as_array().cloned().unwrap_or_default();
    for (ours, theirs) in frames(a).iter().zip(&frames(b)) {
        let grids = (grid(&ours["grid"]), grid(&theirs["grid"]));
        if ours != theirs
            && let (Some(ours), Some(theirs)) = grids
        {
            cells(&ours, &theirs, &mut found);
            break;
        }
    }
    found
}

fn what(line: usize, value: &Value) -> String {
    if line == 1 {
        return "header".to_owned();
    }
    let text = |key: &str| value[key].as_str().unwrap_or("?");
    if value["note"].is_string() {
        return cut(&format!("note {}", value["note"]));
    }
    cut(&format!(
        "callback {} ({}, room {})",
        value["seq"],
        text("cb"),
        text("inst")
    ))
}

/// Where two values differ. The texts that only repeat another difference are left out: grids and
/// what is hashed beside them.
fn differing(path: &str, a: &Value, b: &Value, told: &mut Vec<FieldDifference>) {
    if a == b || told.len() == MAX_TOLD {
        return;
    }
    match (a, b) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let more = theirs.keys().filter(|key| !ours.contains_key(*key));
            for key in ours.keys().chain(more) {
                if key == "grid" {
                    continue;
                }
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", cut(key));
                differing(&path, &a[key], &b[key], told);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            for at in 0..ours.len().max(theirs.len()) {
                let of = |list: &Vec<Value>| list.get(at).cloned().unwrap_or_default();
                differing(&format!("{path}[{at}]"), &of(ours), &of(theirs), told);
            }
        }
        _ => told.push(FieldDifference {
            path: path.to_owned(),
            a: shown(a),
            b: shown(b),
        }),
    }
}

fn shown(value: &Value) -> String {
    const CHARS: usize = 80;
    if value.is_null() {
        return "nothing".to_owned();
    }
    let text = value.to_string();
    let short: String = text.chars().take(CHARS).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short}{more}")
}

/// The cells of a grid as a trace writes it.
fn grid(value: &Value) -> Option<Vec<u8>> {
    let packed = unhex(value.as_str()?)?;
    let mut cells = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed.as_slice()).ok()?;
    let read = decoder.take(FRAME_BYTES as u64 + 1).read_to_end(&mut cells);
    (read.ok()? == FRAME_BYTES).then_some(cells)
}

/// A grid as a trace writes it: packed, in hex.
pub(crate) fn pack(grid: &[u8]) -> io::Result<String> {
    Ok(crate::hash::hex(&zstd::bulk::compress(grid, 1)?))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

fn cells(a: &[u8], b: &[u8], found: &mut Divergence) {
    for at in 0..ROWS * COLS {
        let bytes = at * CELL_BYTES..(at + 1) * CELL_BYTES;
        let (Some(ours), Some(theirs)) = (a.get(bytes.clone()), b.get(bytes)) else {
            return;
        };
        if ours == theirs {
            continue;
        }
        found.cells_differing += 1;
        if found.cells.len() < MAX_TOLD {
            let (a, b) = (cell(ours), cell(theirs));
            let (row, col) = (at / COLS, at % COLS);
            found.cells.push(CellDifference { row, col, a, b });
        }
    }
}

fn cell(bytes: &[u8]) -> String {
    let Ok(bytes) = <&[u8; CELL_BYTES]>::try_from(bytes) else {
        return String::new();
    };
    let cell = Cell::read(bytes);
    format!("\"{}\" {cell:?}", glyph(&cell))
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, what) = (self.line, escaped(&self.what));
        writeln!(f, "the first difference is at line {line}: {what}")?;
        for field in &self.fields {
            let [path, a, b] = [&field.path, &field.a, &field.b].map(|text| escaped(text));
            writeln!(f, "  {path}: {a} / {b}")?;
        }
        if self.cells_differing > 0 {
            writeln!(f, "  {} cells of that frame differ:", self.cells_differing)?;
        }
        for cell in &self.cells {
            writeln!(f, "  row {} col {}", cell.row, cell.col)?;
            writeln!(f, "    a {}", escaped(&cell.a))?;
            writeln!(f, "    b {}", escaped(&cell.b))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compared(a: &str, b: &str) -> Result<Option<Divergence>, DiffError> {
        diff(&mut a.as_bytes(), &mut b.as_bytes())
    }

    const HEADER: &str = "{\"artifact\":\"a\",\"seed\":1}\n";

    #[test]
    fn the_same_trace_under_another_name_is_the_same() {
        let other = HEADER.replace("\"a\"", "\"b\"");
        assert_eq!(compared(HEADER, &other).unwrap(), None);
    }

    #[test]
    fn the_first_line_that_differs_is_told_field_by_field() {
        let line = |exit: u32| {
            format!(
                "{{\"seq\":0,\"cb\":\"wake\",\"inst\":\"A\",\"host\":[{{\"ret\":[{exit}]}}]}}\n"
            )
        };
        let [a, b] = [0, 1].map(|exit| format!("{HEADER}{}", line(exit)));
        let found = compared(&a, &b).unwrap().unwrap();
        assert_eq!(
            (found.line, found.what.as_str()),
            (2, "callback 0 (wake, room A)")
        );
        assert_eq!(found.fields.len(), 1);
        assert_eq!(found.fields[0].path, "host[0].ret[0]");
        assert_eq!(
            (found.fields[0].a.as_str(), found.fields[0].b.as_str()),
            ("0", "1")
        );
    }

    #[test]
    fn a_trace_that_ends_sooner_is_a_difference() {
        let longer = format!("{HEADER}{{\"note\":\"snapshot\"}}\n");
        let found = compared(HEADER, &longer).unwrap().unwrap();
        assert_eq!(found.line, 2);
        assert_eq!(found.fields[0].a, "ends before this line");
    }

    #[test]
    fn frames_with_grids_are_compared_cell_by_cell() {
        let frame = |glyph: char| {
            let mut grid = vec![0; FRAME_BYTES];
            let at = (3 * COLS + 7) * CELL_BYTES;
            grid[at..at + CELL_BYTES].copy_from_slice(&Cell::of(glyph).to_bytes());
            format!(
                "{HEADER}{{\"seq\":4,\"frames\":[{{\"grid_sha256\":\"{glyph}\",\"grid\":\"{}\"}}]}}\n",
                pack(&grid).unwrap()
            )
        };
        let found = compared(&frame('x'), &frame('y')).unwrap().unwrap();
        assert_eq!(found.cells_differing, 1);
        assert_eq!((found.cells[0].row, found.cells[0].col), (3, 7));
        assert!(found.cells[0].a.starts_with("\"x\""), "{found}");
        assert!(found.cells[0].b.starts_with("\"y\""), "{found}");
    }

    #[test]
    fn texts_are_kept_as_they_are_and_escaped_for_people_only() {
        let line = |text: &str| format!("{HEADER}{{\"note\":\"FAIL\u{202e}\",\"{text}\":1}}\n");
        let found = compared(&line("FAIL\u{2066}"), &line("b"))
            .unwrap()
            .unwrap();
        assert_eq!(found.what, "note \"FAIL\u{202e}\"");
        assert_eq!(found.fields[0].path, "FAIL\u{2066}");
        let line = |text: &str| format!("{HEADER}{{\"cb\":\"FAIL\",\"x\":\"FAIL{text}\"}}\n");
        let found = compared(&line("\u{202e}"), &line("")).unwrap().unwrap();
        assert_eq!(found.what, "callback null (FAIL, room ?)");
        assert_eq!(found.fields[0].a, "\"FAIL\u{202e}\"");
        let told = found.to_string();
        assert!(
            !told.contains("FAIL") && !told.contains('\u{202e}'),
            "{told}"
        );
        assert!(told.contains("x: \"fail\\u{202e}\" / \"fail\""), "{told}");
    }

    #[test]
    fn what_is_no_trace_is_told_with_its_side_and_line() {
        let error = compared(HEADER, "hello\n").unwrap_err();
        assert_eq!(error.side(), Side::B);
        assert!(matches!(error, DiffError::NotATrace { line: 1, .. }));
    }

    #[test]
    fn a_line_is_read_at_its_limit_and_refused_one_past_it() {
        let line = |bytes: usize| {
            let mut text = b"{\"x\":\"".to_vec();
            text.resize(bytes - 2, b'a');
            text.extend_from_slice(b"\"}");
            text
        };
        let at = line(MAX_LINE_BYTES);
        assert_eq!(diff(&mut at.as_slice(), &mut at.as_slice()).unwrap(), None);
        let past = line(MAX_LINE_BYTES + 1);
        let error = diff(&mut past.as_slice(), &mut past.as_slice()).unwrap_err();
        assert!(matches!(error, DiffError::LineTooLong { line: 1, .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(a: Vec<u8>, b: Vec<u8>) {
            let _ = diff(&mut a.as_slice(), &mut b.as_slice());
        }

        #[test]
        fn no_grid_makes_it_panic(grid in "[0-9a-g]{0,40}", other in "(28b52ffd)?[0-9a-f]{0,40}") {
            let line = |grid: &str| format!("{{\"frames\":[{{\"grid\":{grid:?}}}]}}\n");
            let _ = compared(&line(&grid), &line(&other));
        }
    }
}
