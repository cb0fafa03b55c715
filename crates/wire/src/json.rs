//! Is this one well-formed JSON value? The gate for config schemas.
//!
//! RFC 8259 syntax over bytes, as lenient as the reference host: any top-level value, white space
//! around it, bytes from 0x80 unchecked in strings, lone surrogate escapes and repeated keys pass.
//! No byte order mark, no control bytes in strings, nesting to [`JSON_DEPTH_MAX`]. Nothing is built,
//! allocated or recursed into.

use crate::JSON_DEPTH_MAX;

/// Whether `bytes` are exactly one JSON value.
///
/// ```
/// use cabinet_wire::json::is_well_formed;
/// assert!(is_well_formed(br#" {"type": "object"} "#));
/// assert!(!is_well_formed(b"[1,]"));
/// ```
#[must_use]
pub fn is_well_formed(bytes: &[u8]) -> bool {
    Scanner {
        rest: bytes,
        nesting: Nesting::new(),
    }
    .document()
    .is_some()
}

struct Scanner<'a> {
    rest: &'a [u8],
    nesting: Nesting,
}

// Steps answer `None` for "not JSON", so that `?` ends the scan.
impl Scanner<'_> {
    fn document(&mut self) -> Option<()> {
        loop {
            self.value_start()?;
            loop {
                self.white_space();
                let Some(container) = self.nesting.innermost() else {
                    return self.rest.is_empty().then_some(());
                };
                match (self.take()?, container) {
                    (b',', Container::Array) => {}
                    (b',', Container::Object) => self.key()?,
                    (b']', Container::Array) | (b'}', Container::Object) => {
                        self.nesting.leave();
                        continue;
                    }
                    _ => return None,
                }
                break;
            }
        }
    }

    /// Reads up to where a value has ended: a whole scalar or empty container, or a container up to
    /// its first scalar.
    fn value_start(&mut self) -> Option<()> {
        loop {
            self.white_space();
            match self.take()? {
                b'[' => {
                    self.nesting.enter(Container::Array)?;
                    self.white_space();
                    if self.rest.first() != Some(&b']') {
                        continue;
                    }
                    // Left to the caller, which closes containers.
                    return self.close_empty();
                }
                b'{' => {
                    self.nesting.enter(Container::Object)?;
                    self.white_space();
                    if self.rest.first() != Some(&b'}') {
                        self.key()?;
                        continue;
                    }
                    return self.close_empty();
                }
                b'"' => return self.string_tail(),
                b't' => return self.literal(b"rue"),
                b'f' => return self.literal(b"alse"),
                b'n' => return self.literal(b"ull"),
                b'-' => {
                    let first = self.take()?;
                    return self.number_tail(first);
                }
                first => return self.number_tail(first),
            }
        }
    }

    fn close_empty(&mut self) -> Option<()> {
        self.take()?;
        self.nesting.leave();
        Some(())
    }

    fn key(&mut self) -> Option<()> {
        self.white_space();
        self.expect(b'"')?;
        self.string_tail()?;
        self.white_space();
        self.expect(b':')
    }

    fn string_tail(&mut self) -> Option<()> {
        loop {
            match self.take()? {
                b'"' => return Some(()),
                b'\\' => match self.take()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let (digits, rest) = self.rest.split_at_checked(4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.rest = rest;
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number_tail(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => _ = self.digits(),
            _ => return None,
        }
        if self.rest.first() == Some(&b'.') {
            self.take()?;
            self.digits()?;
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.take()?;
            if matches!(self.rest.first(), Some(b'+' | b'-')) {
                self.take()?;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        (count > 0).then_some(())
    }

    fn literal(&mut self, tail: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(tail)?;
        Some(())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.take()? == byte).then_some(())
    }

    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn white_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// The open containers, a bit each: set for an object.
struct Nesting {
    depth: usize,
    objects: [u64; JSON_DEPTH_MAX.div_ceil(64)],
}

impl Nesting {
    fn new() -> Self {
        Self {
            depth: 0,
            objects: [0; JSON_DEPTH_MAX.div_ceil(64)],
        }
    }

    fn enter(&mut self, container: Container) -> Option<()> {
        if self.depth == JSON_DEPTH_MAX {
            return None;
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        match container {
            Container::Object => self.objects[word] |= bit,
            Container::Array => self.objects[word] &= !bit,
        }
        self.depth += 1;
        Some(())
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn innermost(&self) -> Option<Container> {
        let at = self.depth.checked_sub(1)?;
        let object = self.objects[at / 64] & (1 << (at % 64)) != 0;
        Some(if object {
            Container::Object
        } else {
            Container::Array
        })
    }
}
