//! The recording's bytes.
//!
//! `CABP`, a version, then records: each its length, a CRC-32 over its number and its content, and
//! the content. The first is the header, an end may be the last, all others are callbacks. A file
//! that was being written when its process died ends in a piece of a record: that is left out.
//! Anything else that does not fit is an error; no bytes make the reader panic or take more memory
//! than a small multiple of theirs.

use cabinet_host::Input;
use cabinet_rooms::Export;
use cabinet_wire::{ArtifactDigest, Key, Mode, ROSTER_CAP};

use super::{Answer, Callback, End, Header, Recording};

/// What a recording begins with.
pub const MAGIC: &[u8; 4] = b"CABP";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Bytes of a recording.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one record's content.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Records of a recording.
pub const RECORDS_MAX: usize = 4 << 20;
/// Answers of stores in one callback.
pub const ANSWERS_MAX: usize = 65_536;
/// Configuration values.
pub const CONFIG_MAX: usize = 256;
/// Bytes of a value a store answered or the game was configured with.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a name or a text.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Seats.
pub const SEATS_MAX: u16 = ROSTER_CAP as u16;

const KIND_HEADER: u8 = 0;
const KIND_CALLBACK: u8 = 1;
const KIND_END: u8 = 2;
const PREFIX_BYTES: usize = 8;
const NO_SEAT: u16 = 0;
const INPUT_NONE: u8 = 0;
const INPUT_RUNE: u8 = 1;
const INPUT_KEY: u8 = 2;
const ANSWER_NONE: u8 = 0;
const ANSWER_VALUE: u8 = 1;
const ANSWER_FAILED: u8 = 2;

/// Bytes that are not a recording, or one that was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It begins with something else.
    #[error("this is no recording of `cabinet play`")]
    NotARecording,
    /// Another version wrote it.
    #[error("the recording has version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// It is larger than a recording may be.
    #[error("the recording has {0} bytes, at most {FILE_BYTES_MAX} are read")]
    FileTooLarge(u64),
    /// It ends before its header does.
    #[error("the recording ends before its first callback")]
    NoHeader,
    /// A record is larger than one may be.
    #[error("record {record} has {bytes} bytes, at most {RECORD_BYTES_MAX} are read")]
    RecordTooLarge {
        /// Its number, from 0.
        record: usize,
        /// Its bytes.
        bytes: usize,
    },
    /// A record is not what was written.
    #[error("record {record} is damaged: its checksum does not agree")]
    Checksum {
        /// Its number, from 0.
        record: usize,
    },
    /// A record's content makes no sense.
    #[error("record {record} is malformed: {what}")]
    Malformed {
        /// Its number, from 0.
        record: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// There are more records than a recording may have.
    #[error("the recording has more than {RECORDS_MAX} records")]
    TooManyRecords,
}

/// A recording cannot hold this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A text, a value, a list is longer than its limit.
    #[error("{what} is {found}, a recording takes at most {limit}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// How long, how many.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

/// Appends records, numbered.
#[derive(Debug, Default)]
pub struct Writer {
    records: usize,
    bytes: u64,
}

impl Writer {
    /// For a recording that has nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what comes first.
    ///
    /// # Errors
    /// [`WriteError`]; `out` is as it was.
    pub fn header(&mut self, header: &Header, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut content = vec![KIND_HEADER];
        content.extend(header.artifact.0);
        put_text(&mut content, "the game's name", &header.slug)?;
        put_text(&mut content, "the artifact's path", &header.path)?;
        content.push(u8::from(header.mode));
        content.extend(header.capacity.to_le_bytes());
        content.extend(header.min_players.to_le_bytes());
        content.extend(header.seed.to_le_bytes());
        content.push(u8::from(header.seed_set));
        limit("the number of seats", header.seats.into(), SEATS_MAX.into())?;
        content.extend(header.seats.to_le_bytes());
        content.extend(header.heartbeat_ms.to_le_bytes());
        put_count(
            &mut content,
            "the configuration",
            header.config.len(),
            CONFIG_MAX,
        )?;
        for (key, value) in &header.config {
            put_text(&mut content, "a configuration key", key)?;
            put_value(&mut content, value)?;
        }
        if self.records == 0 {
            self.bytes += (MAGIC.len() + 4) as u64;
        }
        let mut record = Vec::new();
        self.record(&content, &mut record)?;
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(record);
        Ok(())
    }

    /// Appends a callback.
    ///
    /// # Errors
    /// [`WriteError`]; `out` is as it was.
    pub fn callback(&mut self, callback: &Callback, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut content = vec![KIND_CALLBACK, callback.export as u8];
        content.extend(callback.now.to_le_bytes());
        content.extend(callback.seat.unwrap_or(NO_SEAT).to_le_bytes());
        let (kind, value) = match callback.input {
            None => (INPUT_NONE, 0),
            Some(Input::Rune(rune)) => (INPUT_RUNE, rune),
            Some(Input::Key(key)) => (INPUT_KEY, u32::from(u8::from(key))),
        };
        content.push(kind);
        content.extend(value.to_le_bytes());
        content.extend(callback.check.to_le_bytes());
        let answers = &callback.answers;
        put_count(
            &mut content,
            "the stores' answers to a callback",
            answers.len(),
            ANSWERS_MAX,
        )?;
        for answer in answers {
            match answer {
                Answer::Value(None) => content.push(ANSWER_NONE),
                Answer::Value(Some(value)) => {
                    content.push(ANSWER_VALUE);
                    put_value(&mut content, value)?;
                }
                Answer::Failed => content.push(ANSWER_FAILED),
            }
        }
        self.record(&content, out)
    }

    /// Appends the end.
    ///
    /// # Errors
    /// [`WriteError`]; `out` is as it was.
    pub fn end(&mut self, end: &End, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut content = vec![KIND_END];
        put_text(&mut content, "the reason of the end", &end.reason)?;
        put_text(
            &mut content,
            "the fault",
            end.fault.as_deref().unwrap_or_default(),
        )?;
        put_text(&mut content, "the end's text", &end.text)?;
        self.record(&content, out)
    }

    fn record(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        limit("a record", content.len(), RECORD_BYTES_MAX)?;
        limit("the number of records", self.records + 1, RECORDS_MAX)?;
        let bytes = self.bytes + (PREFIX_BYTES + content.len()) as u64;
        // Both fit a `usize` on what this runs on.
        limit("the recording", bytes as usize, FILE_BYTES_MAX as usize)?;
        out.extend((content.len() as u32).to_le_bytes());
        out.extend(checksum(self.records, content).to_le_bytes());
        out.extend(content);
        self.records += 1;
        self.bytes = bytes;
        Ok(())
    }
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), WriteError> {
    if found > limit {
        return Err(WriteError::TooLong { what, found, limit });
    }
    Ok(())
}

fn put_count(
    out: &mut Vec<u8>,
    what: &'static str,
    count: usize,
    max: usize,
) -> Result<(), WriteError> {
    limit(what, count, max)?;
    out.extend((count as u32).to_le_bytes());
    Ok(())
}

fn put_text(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), WriteError> {
    put_count(out, what, text.len(), TEXT_BYTES_MAX)?;
    out.extend(text.as_bytes());
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: &[u8]) -> Result<(), WriteError> {
    put_count(out, "a value", value.len(), VALUE_BYTES_MAX)?;
    out.extend(value);
    Ok(())
}

/// Over the record's number too, so that records cannot change places.
fn checksum(record: usize, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(record as u64).to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// Reads a recording.
///
/// # Errors
/// [`FormatError`]. A file that ends in the middle of a record is no error: [`Recording::torn`].
pub fn decode(bytes: &[u8]) -> Result<Recording, FormatError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FormatError::FileTooLarge(bytes.len() as u64));
    }
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(FormatError::NotARecording);
    };
    let Some((version, mut rest)) = rest.split_first_chunk::<4>() else {
        return Err(FormatError::NoHeader);
    };
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let mut header = None;
    let mut callbacks = Vec::new();
    let mut end = None;
    let mut torn = false;
    for record in 0.. {
        let content = match next_record(record, rest)? {
            Next::Record(content, after) => {
                rest = after;
                content
            }
            Next::Torn => {
                torn = true;
                break;
            }
            Next::Nothing => break,
        };
        let malformed = |what| FormatError::Malformed { record, what };
        if end.is_some() {
            return Err(malformed("it comes after the end"));
        }
        let mut fields = Fields(content);
        let kind = fields.u8().map_err(malformed)?;
        match (kind, &header) {
            (KIND_HEADER, None) => header = Some(fields.header().map_err(malformed)?),
            (KIND_CALLBACK, Some(Header { seats, .. })) => {
                callbacks.push(fields.callback(*seats).map_err(malformed)?);
            }
            (KIND_END, Some(_)) => end = Some(fields.end().map_err(malformed)?),
            (_, None) => return Err(malformed("the first is not a header")),
            _ => return Err(malformed("it is of no known kind, or a second header")),
        }
        fields.finish().map_err(malformed)?;
    }
    Ok(Recording {
        header: header.ok_or(FormatError::NoHeader)?,
        callbacks,
        end,
        torn,
    })
}

enum Next<'a> {
    Record(&'a [u8], &'a [u8]),
    /// A piece of one, as a process that died leaves it.
    Torn,
    Nothing,
}

fn next_record(record: usize, rest: &[u8]) -> Result<Next<'_>, FormatError> {
    if rest.is_empty() {
        return Ok(Next::Nothing);
    }
    if record >= RECORDS_MAX {
        return Err(FormatError::TooManyRecords);
    }
    let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(Next::Torn);
    };
    let field = |at: usize| {
        u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
    };
    let (length, sum) = (field(0) as usize, field(4));
    if length == 0 {
        // A file system may give a torn file its length and not its bytes.
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(Next::Torn);
        }
        return Err(FormatError::Malformed {
            record,
            what: "it is empty",
        });
    }
    if length > RECORD_BYTES_MAX {
        return Err(FormatError::RecordTooLarge {
            record,
            bytes: length,
        });
    }
    let Some((content, after)) = after.split_at_checked(length) else {
        return Ok(Next::Torn);
    };
    if checksum(record, content) != sum {
        if after.is_empty() {
            return Ok(Next::Torn);
        }
        return Err(FormatError::Checksum { record });
    }
    Ok(Next::Record(content, after))
}

/// The fields of a record that are not read yet.
struct Fields<'a>(&'a [u8]);

type Field<T> = Result<T, &'static str>;

impl<'a> Fields<'a> {
    fn header(&mut self) -> Field<Header> {
        let artifact = ArtifactDigest(self.array()?);
        let slug = self.text()?;
        let path = self.text()?;
        let mode = Mode::try_from(self.u8()?).map_err(|_| "the mode is unknown")?;
        let capacity = self.u16()?;
        let min_players = self.u16()?;
        let seed = i64::from_le_bytes(self.array()?);
        let seed_set = self.bool()?;
        let seats = self.u16()?;
        if seats == 0 || seats > SEATS_MAX {
            return Err("the number of seats is out of range");
        }
        let heartbeat_ms = self.u32()?;
        let count = self.count(CONFIG_MAX, "there are too many configuration values")?;
        let config = (0..count)
            .map(|_| Ok((self.text()?, self.value()?)))
            .collect::<Field<_>>()?;
        Ok(Header {
            artifact,
            slug,
            path,
            mode,
            capacity,
            min_players,
            seed,
            seed_set,
            seats,
            heartbeat_ms,
            config,
        })
    }

    fn callback(&mut self, seats: u16) -> Field<Callback> {
        let export = usize::from(self.u8()?);
        let export = *Export::ALL.get(export).ok_or("the callback is unknown")?;
        let now = i64::from_le_bytes(self.array()?);
        let seat = Some(self.u16()?).filter(|seat| *seat != NO_SEAT);
        if seat.is_some_and(|seat| seat > seats) {
            return Err("there is no such seat");
        }
        let (kind, value) = (self.u8()?, self.u32()?);
        let input = match kind {
            INPUT_NONE => None,
            INPUT_RUNE => Some(Input::Rune(value)),
            INPUT_KEY => {
                let key = u8::try_from(value)
                    .ok()
                    .and_then(|key| Key::try_from(key).ok());
                Some(Input::Key(key.ok_or("the key is unknown")?))
            }
            _ => return Err("the input is of no known kind"),
        };
        let has_seat = matches!(export, Export::Join | Export::Leave | Export::Input);
        if seat.is_some() != has_seat || input.is_some() != (export == Export::Input) {
            return Err("seat or input do not go with the callback");
        }
        let check = self.u32()?;
        let count = self.count(ANSWERS_MAX, "there are too many answers")?;
        let answers = (0..count)
            .map(|_| match self.u8()? {
                ANSWER_NONE => Ok(Answer::Value(None)),
                ANSWER_VALUE => Ok(Answer::Value(Some(self.value()?))),
                ANSWER_FAILED => Ok(Answer::Failed),
                _ => Err("an answer is of no known kind"),
            })
            .collect::<Field<_>>()?;
        Ok(Callback {
            export,
            now,
            seat,
            input,
            answers,
            check,
        })
    }

    fn end(&mut self) -> Field<End> {
        Ok(End {
            reason: self.text()?,
            fault: Some(self.text()?).filter(|fault| !fault.is_empty()),
            text: self.text()?,
        })
    }

    fn finish(&self) -> Field<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("there is more in it than there should be")
        }
    }

    fn text(&mut self) -> Field<String> {
        let count = self.count(TEXT_BYTES_MAX, "a text is too long")?;
        let bytes = self.bytes(count)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8")
    }

    fn value(&mut self) -> Field<Vec<u8>> {
        let count = self.count(VALUE_BYTES_MAX, "a value is too long")?;
        Ok(self.bytes(count)?.to_vec())
    }

    fn count(&mut self, max: usize, too_many: &'static str) -> Field<usize> {
        let count = self.u32()? as usize;
        // Each takes a byte at least: no count reserves more than the file's own size.
        if count > max || count > self.0.len() {
            return Err(if count > max { too_many } else { SHORT });
        }
        Ok(count)
    }

    fn bool(&mut self) -> Field<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a truth value is neither 0 nor 1"),
        }
    }

    fn u8(&mut self) -> Field<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Field<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Field<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Field<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*array)
    }

    fn bytes(&mut self, count: usize) -> Field<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }
}

const SHORT: &str = "it ends inside a field";

#[cfg(test)]
mod tests;
