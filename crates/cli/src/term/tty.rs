//! The real terminal: raw mode, the alternate screen, what is typed, signals.
//!
//! Whoever holds a [`Tty`] has the terminal; dropping it gives it back as it was, and so do a panic
//! and the signals that end or stop a program.

use std::io::{self, IsTerminal, Read, Write};
use std::panic;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::layout::Size;
use crate::outcome::remark;

/// The alternate screen, no cursor, pastes marked.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[2J";
/// All of that undone, and nothing half drawn.
const LEAVE: &str = "\x1b[?2026l\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l";

/// What a terminal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Bytes were typed.
    Typed(Vec<u8>),
    /// Nothing can be typed any more: the terminal is gone.
    HungUp,
    /// It has another size now.
    Resized,
    /// The program is to stop until it is told to go on: to be passed to [`Tty::stop_or_go_on`].
    Stop,
    /// The program was stopped, and goes on: likewise.
    Continued,
    /// This signal asks the program to end.
    Signal(i32),
}

/// The terminal, ours for the time being.
#[derive(Debug)]
pub struct Tty {
    _private: (),
}

/// The terminal is ours and has to be given back.
static HELD: AtomicBool = AtomicBool::new(false);

impl Tty {
    /// Whether there is a terminal to take.
    #[must_use]
    pub fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Takes the terminal. `told` is called with what happens, on threads of its own; they end
    /// with the process.
    ///
    /// # Errors
    /// When the system refuses raw mode, signals or a thread.
    pub fn take<E: Send + 'static>(
        events: &Sender<E>,
        event: impl Fn(Told) -> E + Send + Clone + 'static,
    ) -> io::Result<Self> {
        restore_on_panic();
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT])?;
        crossterm::terminal::enable_raw_mode()?;
        HELD.store(true, Ordering::SeqCst);
        // From here on, dropping it gives the terminal back.
        let tty = Self { _private: () };
        tty.write(ENTER)?;

        let (to, make) = (events.clone(), event.clone());
        thread::Builder::new()
            .name("cabinet-signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    let told = match signal {
                        SIGWINCH => Told::Resized,
                        SIGTSTP => Told::Stop,
                        SIGCONT => Told::Continued,
                        signal => Told::Signal(signal),
                    };
                    if to.send(make(told)).is_err() {
                        return;
                    }
                }
            })?;
        let (to, make) = (events.clone(), event);
        thread::Builder::new()
            .name("cabinet-keys".into())
            .spawn(move || {
                let mut stdin = io::stdin().lock();
                let mut buffer = [0; 4096];
                loop {
                    let told = match stdin.read(&mut buffer) {
                        Ok(0) => Told::HungUp,
                        Ok(count) => Told::Typed(buffer[..count].to_vec()),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(_) => Told::HungUp,
                    };
                    let last = told == Told::HungUp;
                    if to.send(make(told)).is_err() || last {
                        return;
                    }
                }
            })?;
        Ok(tty)
    }

    /// Its size; of one that does not say, the smallest that shows a frame.
    #[must_use]
    pub fn size(&self) -> Size {
        let (cols, rows) = crossterm::terminal::size().unwrap_or((80, 24));
        Size::new(cols.into(), rows.into())
    }

    /// Has everything stop that the shell started with this program, as Ctrl-Z does of a program
    /// that leaves the key to the terminal. [`Told::Stop`] comes of it.
    pub fn ask_to_stop(&self) {
        if !has_job_control() {
            return;
        }
        let mut kill = Command::new("kill");
        kill.args(["-s", "TSTP", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It stops with us, so it is waited for elsewhere. Without it the key does nothing.
        if let Ok(mut kill) = kill.spawn() {
            thread::spawn(move || kill.wait());
        }
    }

    /// Gives the terminal back and stops; or takes it again. After either, everything is to be
    /// drawn anew.
    ///
    /// # Errors
    /// When the terminal cannot be taken again.
    pub fn stop_or_go_on(&self, told: &Told) -> io::Result<()> {
        if *told == Told::Stop {
            if !has_job_control() {
                return Ok(());
            }
            give_back();
            // Returns when somebody lets us go on.
            emulate_default_handler(SIGTSTP)?;
        }
        // Whoever had the terminal meanwhile left it as they like it.
        retry(crossterm::terminal::disable_raw_mode)?;
        retry(crossterm::terminal::enable_raw_mode)?;
        HELD.store(true, Ordering::SeqCst);
        self.write(ENTER)
    }

    /// Writes to it, at once.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        give_back();
    }
}

/// The signal to go on interrupts what waited for the terminal in the background.
fn retry(set: fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match set() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Whether a shell would let us go on after a stop: it puts each job into a process group of its
/// own. A group that leads its session was started by no such shell, and would stop for ever; there
/// the system ignores the signal too, unless it is caught. Where nothing tells, there is one.
fn has_job_control() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return true;
    };
    // After the name: state, parent, process group, session.
    let fields: Vec<&str> = fields.split_whitespace().take(4).collect();
    fields.get(2) != fields.get(3)
}

/// Gives the terminal back as it was. Once; later calls do nothing.
fn give_back() {
    if HELD.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        // A terminal that is gone needs nothing back.
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        let _ = crossterm::terminal::disable_raw_mode();
        let held_back = std::mem::take(&mut *lock(held_back()));
        for text in held_back {
            remark(format_args!("{text}"));
        }
    }
}

/// What panics of other threads said while the terminal was ours.
fn held_back() -> &'static Mutex<Vec<String>> {
    static TEXTS: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    TEXTS.get_or_init(Mutex::default)
}

/// Panics of other threads that are told; a room that panics over and over says the same.
const HELD_BACK_MAX: usize = 16;

/// From now on, a panic of the thread that took the terminal gives it back before it is reported;
/// those of others are reported once it is given back.
fn restore_on_panic() {
    let owner = thread::current().id();
    let before: Arc<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync> =
        Arc::from(panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == owner || !HELD.load(Ordering::SeqCst) {
            give_back();
            before(info);
            return;
        }
        let mut texts = lock(held_back());
        if texts.len() < HELD_BACK_MAX {
            texts.push(info.to_string());
        }
    }));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
