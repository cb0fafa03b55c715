//! What was typed, from the bytes a terminal sends.
//!
//! Bytes come in pieces cut anywhere; a [`Decoder`] keeps what is not whole yet. Only time tells a
//! bare Escape from the beginning of a longer sequence, and a paste whose end was lost from one that
//! goes on: when nothing came for as long as [`Decoder::patience`] says, call [`Decoder::flush`].

use std::time::Duration;

/// How long the rest of an escape sequence may take. Terminals send sequences whole; a slow line
/// may cut one.
pub const ESCAPE_WAIT: Duration = Duration::from_millis(50);
/// How long a paste may say nothing before it is taken to be over. Without it a line that lost the
/// end of a paste would never again take a key, not even Ctrl-C.
pub const PASTE_WAIT: Duration = Duration::from_secs(1);
/// Bytes kept of one paste; the rest is dropped.
pub const PASTE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an escape sequence; a longer one is dropped.
const SEQUENCE_BYTES_MAX: usize = 32;
const PASTE_END: &[u8] = b"\x1b[201~";

/// One key press.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Press {
    /// A character that can be seen, or a space.
    Char(char),
    /// Enter: CR or LF.
    Enter,
    /// Backspace: 0x7F or 0x08.
    Backspace,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Home.
    Home,
    /// End.
    End,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Escape and nothing after it.
    Esc,
    /// Control and a letter, in lower case.
    Ctrl(char),
    /// Text that was pasted, control characters included.
    Paste(String),
}

/// Decodes a terminal's bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of something.
    pending: Vec<u8>,
    /// The text of a paste that has not ended.
    paste: Option<Vec<u8>>,
}

/// What the beginning of some bytes is.
enum Parsed {
    /// So many bytes are this, or nothing we know.
    Whole(usize, Option<Press>),
    /// So many bytes begin a paste.
    Paste(usize),
    /// More must come.
    Partial,
}

impl Decoder {
    /// Nothing typed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes and appends the key presses they complete.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Press>) {
        for &byte in bytes {
            self.pending.push(byte);
            self.advance(out);
        }
    }

    /// How long to wait for more bytes before [`Decoder::flush`]; `None` when nothing is begun.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        match (&self.paste, self.pending.is_empty()) {
            (Some(_), _) => Some(PASTE_WAIT),
            (None, false) => Some(ESCAPE_WAIT),
            (None, true) => None,
        }
    }

    /// Nothing more came: what looked like the beginning of a sequence was all there is. An Escape
    /// is then a key, a paste is what came of it; anything else is dropped.
    pub fn flush(&mut self, out: &mut Vec<Press>) {
        if let Some(paste) = self.paste.take() {
            // The beginning of the end belongs to no text.
            self.pending.clear();
            let text = String::from_utf8_lossy(&paste).into_owned();
            out.push(Press::Paste(text));
            return;
        }
        if self.pending == [0x1B] {
            out.push(Press::Esc);
        }
        self.pending.clear();
    }

    fn advance(&mut self, out: &mut Vec<Press>) {
        if let Some(paste) = &mut self.paste {
            if self.pending == PASTE_END {
                let text = String::from_utf8_lossy(paste).into_owned();
                out.push(Press::Paste(text));
                self.paste = None;
                self.pending.clear();
                return;
            }
            // The end is looked for as it comes; what cannot become it is text.
            while !PASTE_END.starts_with(&self.pending) {
                let byte = self.pending.remove(0);
                if paste.len() < PASTE_BYTES_MAX {
                    paste.push(byte);
                }
            }
            return;
        }
        while !self.pending.is_empty() {
            match parse(&self.pending) {
                Parsed::Whole(count, press) => {
                    self.pending.drain(..count);
                    out.extend(press);
                }
                Parsed::Paste(count) => {
                    self.pending.drain(..count);
                    self.paste = Some(Vec::new());
                    return;
                }
                Parsed::Partial => return,
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Parsed {
    let Some((&first, rest)) = bytes.split_first() else {
        return Parsed::Partial;
    };
    let press = match first {
        0x1B => return parse_escape(rest),
        b'\r' | b'\n' => Press::Enter,
        b'\t' => Press::Tab,
        0x7F | 0x08 => Press::Backspace,
        0x01..=0x1A => Press::Ctrl(char::from(first + b'a' - 1)),
        0x20..=0x7E => Press::Char(char::from(first)),
        0x80.. => return parse_utf8(bytes),
        _ => return Parsed::Whole(1, None),
    };
    Parsed::Whole(1, Some(press))
}

/// `rest` is what follows the escape character.
fn parse_escape(rest: &[u8]) -> Parsed {
    match rest {
        [] => Parsed::Partial,
        [b'[', sequence @ ..] => parse_csi(sequence),
        [b'O'] => Parsed::Partial,
        [b'O', last, ..] => Parsed::Whole(3, arrow(*last)),
        [0x1B, ..] => Parsed::Whole(1, Some(Press::Esc)),
        // Alt and a key: no game key.
        [byte, ..] if *byte < 0x80 => Parsed::Whole(2, None),
        _ => match parse_utf8(rest) {
            Parsed::Whole(count, _) => Parsed::Whole(1 + count, None),
            other => other,
        },
    }
}

/// `sequence` is what follows `ESC [`.
fn parse_csi(sequence: &[u8]) -> Parsed {
    const PREFIX: usize = 2;
    let Some(end) = sequence
        .iter()
        .position(|byte| !(0x20..=0x3F).contains(byte))
    else {
        if sequence.len() >= SEQUENCE_BYTES_MAX {
            return Parsed::Whole(PREFIX + sequence.len(), None);
        }
        return Parsed::Partial;
    };
    let (parameters, last) = (&sequence[..end], sequence[end]);
    if !(0x40..=0x7E).contains(&last) {
        // A control character in the middle: what came before it is dropped.
        return Parsed::Whole(PREFIX + end, None);
    }
    let count = PREFIX + end + 1;
    let press = match (parameters, last) {
        (b"200", b'~') => return Parsed::Paste(count),
        (b"1" | b"7", b'~') => Some(Press::Home),
        (b"4" | b"8", b'~') => Some(Press::End),
        (b"5", b'~') => Some(Press::PageUp),
        (b"6", b'~') => Some(Press::PageDown),
        (b"", b'Z') => Some(Press::BackTab),
        // With modifiers (`1;5A`) an arrow is an arrow.
        (_, last) => arrow(last),
    };
    Parsed::Whole(count, press)
}

fn arrow(last: u8) -> Option<Press> {
    Some(match last {
        b'A' => Press::Up,
        b'B' => Press::Down,
        b'C' => Press::Right,
        b'D' => Press::Left,
        b'H' => Press::Home,
        b'F' => Press::End,
        b'M' => Press::Enter,
        _ => return None,
    })
}

fn parse_utf8(bytes: &[u8]) -> Parsed {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            // The first of them is whole.
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            return match error.error_len() {
                Some(count) => Parsed::Whole(count, None),
                None => Parsed::Partial,
            };
        }
    };
    match text.chars().next() {
        Some(c) => Parsed::Whole(c.len_utf8(), (!c.is_control()).then_some(Press::Char(c))),
        None => Parsed::Partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed(bytes: &[u8]) -> Vec<Press> {
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        decoder.feed(bytes, &mut out);
        decoder.flush(&mut out);
        out
    }

    #[test]
    fn every_key_of_a_terminal_is_known() {
        for (bytes, press) in [
            (&b"\r"[..], Press::Enter),
            (b"\n", Press::Enter),
            (b"\x1bOM", Press::Enter),
            (b"\x7f", Press::Backspace),
            (b"\t", Press::Tab),
            (b"\x1b[Z", Press::BackTab),
            (b"\x1b[A", Press::Up),
            (b"\x1bOB", Press::Down),
            (b"\x1b[1;5C", Press::Right),
            (b"\x1b[D", Press::Left),
            (b"\x1b[H", Press::Home),
            (b"\x1b[4~", Press::End),
            (b"\x1b[5~", Press::PageUp),
            (b"\x1b[6~", Press::PageDown),
            (b"\x1b", Press::Esc),
            (b"\x03", Press::Ctrl('c')),
            (b"\x14", Press::Ctrl('t')),
            (b" ", Press::Char(' ')),
            ("é".as_bytes(), Press::Char('é')),
            ("日".as_bytes(), Press::Char('日')),
            ("👍".as_bytes(), Press::Char('👍')),
        ] {
            assert_eq!(typed(bytes), [press], "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_dropped_and_what_follows_is_not() {
        for bytes in [
            &b"\x1b[99;99;99q"[..],
            b"\x1b[3~",
            b"\x1bx",
            "\x1bé".as_bytes(),
            b"\x1bOz",
            b"\xff",
            b"\xc3",
            b"\x00",
            b"\x1c",
            b"\xc2\x9b",
        ] {
            let with_a = [bytes, b"a"].concat();
            assert_eq!(typed(&with_a), [Press::Char('a')], "{bytes:?}");
        }
        assert_eq!(typed(b"\x1b\x1b"), [Press::Esc, Press::Esc]);
        assert_eq!(typed(b"\x1b["), []);
    }

    #[test]
    fn a_paste_is_text_whatever_is_in_it_and_has_a_limit() {
        let bytes = b"\x1b[200~a\x03\x1b[A\x1b[201~b";
        let expected = [Press::Paste("a\x03\x1b[A".into()), Press::Char('b')];
        assert_eq!(typed(bytes), expected);
        for (length, kept) in [
            (PASTE_BYTES_MAX, PASTE_BYTES_MAX),
            (PASTE_BYTES_MAX + 1, PASTE_BYTES_MAX),
        ] {
            let bytes = [b"\x1b[200~", &vec![b'x'; length][..], PASTE_END].concat();
            let presses = typed(&bytes);
            assert!(matches!(&presses[..], [Press::Paste(text)] if text.len() == kept));
        }
    }

    #[test]
    fn a_paste_whose_end_was_lost_ends_when_nothing_more_comes() {
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        assert_eq!(decoder.patience(), None);
        decoder.feed(b"\x1b[200~ab\x1b[20", &mut out);
        assert_eq!((decoder.patience(), &out[..]), (Some(PASTE_WAIT), &[][..]));
        decoder.flush(&mut out);
        decoder.feed(b"\x03\x1b", &mut out);
        assert_eq!(decoder.patience(), Some(ESCAPE_WAIT));
        assert_eq!(out, [Press::Paste("ab".into()), Press::Ctrl('c')]);
    }

    #[test]
    fn an_endless_sequence_is_dropped_at_its_limit() {
        let long = |count| [b"\x1b[", &vec![b'1'; count][..], b"A"].concat();
        assert_eq!(typed(&long(SEQUENCE_BYTES_MAX - 1)), [Press::Up]);
        // What comes after the limit is typed text.
        assert_eq!(typed(&long(SEQUENCE_BYTES_MAX)), [Press::Char('A')]);
    }

    proptest! {
        #[test]
        fn pieces_mean_what_the_whole_means(bytes: Vec<u8>, cuts: Vec<prop::sample::Index>) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut decoder = Decoder::new();
            let (mut out, mut from) = (Vec::new(), 0);
            for cut in cuts {
                decoder.feed(&bytes[from..cut], &mut out);
                from = cut;
            }
            decoder.feed(&bytes[from..], &mut out);
            decoder.flush(&mut out);
            prop_assert_eq!(out, typed(&bytes));
        }

        #[test]
        fn typed_text_comes_through_character_by_character(text in "\\PC{0,40}") {
            let expected: Vec<_> = text.chars().map(Press::Char).collect();
            prop_assert_eq!(typed(text.as_bytes()), expected);
        }
    }
}
