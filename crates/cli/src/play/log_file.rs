//! `--log FILE`: what a guest says, line by line, in a file that can be followed while it plays.
//!
//! Room threads must not wait for a disk: lines go through a queue to a thread that writes them. A
//! queue that is full loses lines, and how many is told at the end.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cabinet_conformance::error_line;
use cabinet_conformance::files;
use cabinet_host::{LogLevel, LogSource};

use super::last_log;
use crate::outcome::Problem;

/// Records that wait to be written; each is at most 4 KiB.
const WAITING_MAX: usize = 1_024;
/// Bytes written at most. A room logs 32 KiB a second at most: more than half an hour of that.
const WRITTEN_MAX: u64 = 64 << 20;

/// What every log begins with, so that nothing else is taken for one.
const FIRST_LINE: &[u8; 54] = b"# a log of cabinet play: seconds, source, level, text\n";

/// The queue, and the thread that empties it and says how many records it left out.
type Writer = (SyncSender<String>, JoinHandle<io::Result<u64>>);

/// The file, while the room plays.
#[derive(Debug)]
pub struct LogFile {
    began: Instant,
    to: Mutex<Option<Writer>>,
    lost: AtomicU64,
}

impl LogFile {
    /// Appends to the file at `path`, which is made if there is none. One that does not begin as a
    /// log does is left alone.
    ///
    /// # Errors
    /// A [`Problem`] when it cannot be opened, or is no log.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let about =
            |error: io::Error| Problem::about(format!("cannot log to {}", path.display()), &error);
        let opened = files::open_to_write(path, true);
        let mut file = opened
            .map_err(|error| Problem::new(format!("cannot log to {}", error_line(&error))))?;
        let found = file.metadata().map_err(about)?;
        if found.len() > 0 && !is_log(&file).map_err(about)? {
            return Err(Problem::new(format!(
                "cannot log to {}: it is there, and is no log; name another file",
                path.display()
            )));
        }
        if found.is_file() && found.len() == 0 {
            file.write_all(FIRST_LINE).map_err(about)?;
        }
        let (to, from) = sync_channel(WAITING_MAX);
        let writer = thread::Builder::new()
            .name("cabinet-log".into())
            .spawn(move || write(file, &from, WRITTEN_MAX))
            .map_err(about)?;
        Ok(Self {
            began: Instant::now(),
            to: Mutex::new(Some((to, writer))),
            lost: AtomicU64::new(0),
        })
    }

    /// Takes on a record of the guest.
    pub fn record(&self, level: LogLevel, source: LogSource, message: &[u8]) {
        let text = lines(self.began.elapsed(), level, source, message);
        let lost = match &*self.lock() {
            Some((to, _)) => to.try_send(text).is_err(),
            None => true,
        };
        self.lost.fetch_add(lost.into(), Ordering::Relaxed);
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// What is missing, and why.
    pub fn finish(&self) -> Result<(), String> {
        let Some((to, writer)) = self.lock().take() else {
            return Ok(());
        };
        drop(to);
        let unwritten = match writer.join() {
            Ok(Ok(unwritten)) => unwritten,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("its thread panicked".to_owned()),
        };
        match unwritten + self.lost.load(Ordering::Relaxed) {
            0 => Ok(()),
            missing => Err(format!("{missing} records are missing")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Writer>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file begins as a log does: a name typed wrong adds to nothing else.
fn is_log(mut file: &File) -> io::Result<bool> {
    let mut start = [0; FIRST_LINE.len()];
    match file.read_exact(&mut start) {
        Ok(()) => Ok(start == *FIRST_LINE),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes what comes, as it comes, up to `max` bytes; how many records were left out.
fn write(mut file: File, from: &Receiver<String>, max: u64) -> io::Result<u64> {
    let (mut written, mut left_out) = (0, 0);
    for text in from {
        if left_out == 0 && written + text.len() as u64 <= max {
            file.write_all(text.as_bytes())?;
            written += text.len() as u64;
        } else {
            left_out += 1;
        }
    }
    Ok(left_out)
}

/// A record, a line for each of its lines, with control characters as escapes:
/// `   1.250 guest info: text`.
fn lines(at: Duration, level: LogLevel, source: LogSource, message: &[u8]) -> String {
    let source = match source {
        LogSource::Guest => "guest",
        LogSource::Stdio => "stdio",
        _ => "host",
    };
    let level = level.as_str();
    let text = String::from_utf8_lossy(message);
    let mut out = String::new();
    for line in text.lines() {
        let seconds = at.as_secs_f64();
        // Writing to a string does not fail.
        let _ = write!(out, "{seconds:8.3} {source} {level}: ");
        last_log::push_escaped(line.chars(), &mut out);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_says_when_who_and_how_bad_and_controls_nothing() {
        let at = Duration::from_millis(1_250);
        let text = lines(
            at,
            LogLevel::Warn,
            LogSource::Guest,
            b"a\x1b[2J\r\nb\xff\n\nc",
        );
        assert_eq!(
            text,
            "   1.250 guest warn: a\\u{1b}[2J\n   1.250 guest warn: b\u{fffd}\n   \
             1.250 guest warn: \n   1.250 guest warn: c\n"
        );
        assert_eq!(lines(at, LogLevel::Info, LogSource::Host, b""), "");
    }

    #[test]
    fn what_is_there_is_kept_and_what_comes_is_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("game.log");
        for message in ["first", "second"] {
            let log = LogFile::open(&path).unwrap();
            log.record(LogLevel::Info, LogSource::Stdio, message.as_bytes());
            assert_eq!(log.finish(), Ok(()));
            assert_eq!(log.finish(), Ok(()));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.strip_prefix(str::from_utf8(FIRST_LINE).unwrap());
        let said: Vec<&str> = text.unwrap().lines().map(|line| &line[9..]).collect();
        assert_eq!(said, ["stdio info: first", "stdio info: second"]);
        let problem = LogFile::open(dir.path()).unwrap_err().to_string();
        assert!(problem.starts_with("cannot log to "), "{problem}");
    }

    #[test]
    fn a_file_is_filled_to_its_limit_and_what_is_left_out_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("game.log");
        let write_two = |max| {
            let file = File::create(&path).unwrap();
            let (to, from) = sync_channel(2);
            to.send("12345\n".to_owned()).unwrap();
            to.send("6789\n".to_owned()).unwrap();
            drop(to);
            let left_out = write(file, &from, max).unwrap();
            (left_out, std::fs::read_to_string(&path).unwrap())
        };
        assert_eq!(write_two(11), (0, "12345\n6789\n".to_owned()));
        assert_eq!(write_two(10), (1, "12345\n".to_owned()));
        assert_eq!(write_two(5), (2, String::new()));
    }

    #[test]
    fn lines_that_find_no_room_are_told_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::open(&dir.path().join("game.log")).unwrap();
        log.record(LogLevel::Info, LogSource::Guest, b"kept");
        log.lost.fetch_add(2, Ordering::Relaxed);
        assert_eq!(log.finish(), Err("2 records are missing".to_owned()));
    }

    #[test]
    fn a_log_goes_on_with_a_log_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let (other, short) = (FIRST_LINE.to_ascii_uppercase(), &FIRST_LINE[..53]);
        for no_log in [&b"\0asm\x01\0\0\0"[..], b"1 3f3f\n", &other, short] {
            std::fs::write(&path, no_log).unwrap();
            let told = LogFile::open(&path).unwrap_err().to_string();
            assert!(told.contains("is no log; name another file"), "{told}");
            assert_eq!(std::fs::read(&path).unwrap(), no_log);
        }
        for log in [&b""[..], FIRST_LINE] {
            std::fs::write(&path, log).unwrap();
            LogFile::open(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), FIRST_LINE);
        }
    }
}
