//! `cabinet play`: a game in the terminal, everybody at one keyboard.
//!
//! [`session`] decides what keys mean, [`table`] is the room, [`meter`] its figures; here the
//! terminal, the room and the clock are brought together.

pub mod config;
pub mod last_log;
pub mod log_file;
pub mod meter;
pub mod session;
pub mod table;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use cabinet_host::GameOptions;
use cabinet_rooms::EndReason;

use crate::artifact::Artifact;
use crate::host_cache::CacheArgs;
use crate::outcome::{Outcome, Problem, remark, say};
use crate::term::caps::{Caps, Depth};
use crate::term::keys::{Decoder, Press};
use crate::term::layout::{Screen, Size};
use crate::term::paint::Painter;
use crate::term::tty::{Told, Tty};

use self::session::Session;
use self::table::{NotOpened, Over, Setup, Table, failure_of};

/// Play a game in the terminal, everybody at one keyboard.
///
/// Ctrl-C or Esc leaves, Ctrl-T gives the keyboard to the next seat, Ctrl-Z stops until the shell's
/// `fg`; every other key is the game's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The game: a .wasm file, or a directory to build.
    #[arg(value_name = "FILE|DIR")]
    game: PathBuf,
    /// How many play; within what the game admits. Default: as many as it takes to begin.
    #[arg(long, value_name = "N")]
    seats: Option<u16>,
    /// The room's seed; without it one is drawn.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
    /// Time between wakes, such as 50ms, for games that declare none.
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    heartbeat: Option<Duration>,
    /// Configure the game; @FILE takes the file's content. May be repeated.
    #[arg(long, value_name = "KEY=VALUE|KEY=@FILE")]
    config: Vec<String>,
    /// Record everything to a file, for `cabinet replay`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Append everything the game logs to a file, as it comes; `tail -f` shows it. Without, a crash
    /// tells the last lines.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    look: Look,
    /// Print how long it took until the first frame, in milliseconds, and end. Needs no terminal.
    #[arg(long)]
    bench_first_frame: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

/// What the terminal can show, where the environment does not say it right.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Look {
    /// Colours to use. Default: what COLORTERM, TERM and NO_COLOR say.
    #[arg(long, value_name = "DEPTH")]
    color: Option<Depth>,
    /// Write ASCII stand-ins for everything else.
    #[arg(long)]
    ascii: bool,
}

impl Look {
    /// What to draw for.
    #[must_use]
    pub fn caps(self) -> Caps {
        let mut caps = Caps::from_env(|name| std::env::var(name).ok());
        if let Some(depth) = self.color {
            caps.depth = depth;
        }
        caps.utf8 &= !self.ascii;
        caps
    }
}

/// How often the status line's figures are renewed.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How soon keys are offered again to a room that had no place for them.
const OFFER_EVERY: Duration = Duration::from_millis(10);

/// Plays until somebody leaves or the room is over.
///
/// # Errors
/// When there is nothing to play, or nowhere to.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    let began = Instant::now();
    if !args.bench_first_frame && !Tty::is_there() {
        return Err(Problem::new(
            "play needs a terminal for its keys and its screen; scripts use `cabinet smoke` or `cabinet check`",
        ));
    }
    let setup = Setup {
        seats: args.seats,
        seed: args.seed,
        heartbeat: args.heartbeat,
        config: config::config(&args.config)?,
        record: args.record.clone(),
        log: args.log.clone(),
    };
    let artifact = Artifact::resolve(&args.game)?;
    let mut options = GameOptions::default();
    if let Some(heartbeat) = args.heartbeat {
        options.heartbeat = heartbeat;
    }
    let game = args
        .cache
        .host()?
        .load(&artifact.wasm, &options)
        .map_err(|error| Problem::about(args.game.display(), &error))?;
    let (loaded, from_cache) = (began.elapsed(), game.from_cache());
    let table = match Table::open(game, &artifact.path, &setup) {
        Ok(table) => table,
        Err(NotOpened::Problem(problem)) => return Err(problem),
        Err(NotOpened::Ended(over)) => return tell(&over),
    };
    if args.bench_first_frame {
        return bench(table, args, began, loaded, from_cache);
    }
    let (record, log) = (args.record.as_deref(), args.log.as_deref());
    at_the_table(table, args.look, record, log)
}

/// Plays an open room in the terminal until somebody leaves or it is over. `record` and `log` are
/// where it is recorded and logged to, for messages.
///
/// # Errors
/// When the terminal cannot be had, the recording or the log is not whole, or a signal ended it.
pub fn at_the_table(
    table: Table,
    look: Look,
    record: Option<&Path>,
    log: Option<&Path>,
) -> Result<Outcome, Problem> {
    let (over, signal) = play(table, look.caps())?;
    let outcome = tell(&over)?;
    whole(over, record, log)?;
    if let Some(signal) = signal {
        // As if it had not been caught: whoever started us sees what ended us.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        return Err(Problem::new(format!("ended by signal {signal}")));
    }
    Ok(outcome)
}

/// Whether what was to be kept of the room was.
fn whole(over: Over, record: Option<&Path>, log: Option<&Path>) -> Result<(), Problem> {
    for (what, kept, path) in [
        ("recording", over.recorded, record),
        ("log", over.logged, log),
    ] {
        if let (Err(reason), Some(path)) = (kept, path) {
            let path = path.display();
            return Err(Problem::new(format!(
                "the {what} {path} is not whole: {reason}"
            )));
        }
    }
    Ok(())
}

enum Event {
    Told(Told),
    /// There may be a new frame.
    Look,
}

struct Nudge(Mutex<Sender<Event>>);

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        let to = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody looks any more.
        let _ = to.send(Event::Look);
    }
}

/// The terminal is taken, and given back before this returns, however it does. With the signal
/// that ended it, if one did.
fn play(mut table: Table, caps: Caps) -> Result<(Over, Option<i32>), Problem> {
    let (to, from) = mpsc::channel();
    let tty = Tty::take(&to, Event::Told)
        .map_err(|error| Problem::about("cannot take the terminal", &error))?;
    let waker = Waker::from(Arc::new(Nudge(Mutex::new(to))));
    let mut signal = None;
    let seen = sit(&mut table, caps, &tty, &from, &waker, &mut signal);
    // Nothing waits for the screen any more; the room may take its time to end.
    let over = table.leave();
    drop(tty);
    seen.map_err(|error| Problem::about("cannot write to the terminal", &error))?;
    Ok((over, signal))
}

/// Keys in, frames out, until somebody leaves.
fn sit(
    table: &mut Table,
    caps: Caps,
    tty: &Tty,
    from: &Receiver<Event>,
    waker: &Waker,
    signal: &mut Option<i32>,
) -> std::io::Result<()> {
    let mut session = Session::new(u16::try_from(table.seats()).unwrap_or(u16::MAX));
    let mut decoder = Decoder::new();
    let mut painter = Painter::new(caps);
    let mut size = tty.size();
    let mut typed_at = Instant::now();
    let mut status = Status::default();
    let (mut presses, mut out) = (Vec::new(), String::new());
    loop {
        for press in presses.drain(..) {
            match press {
                // In raw mode the key is ours to act on.
                Press::Ctrl('z') => tty.ask_to_stop(),
                press => session.press(&press),
            }
        }
        for seat in 0..session.seats() {
            while let Some(input) = session.next_input(seat) {
                if !table.type_in(seat, input) {
                    break;
                }
                session.taken(seat);
            }
        }
        if session.is_leaving() || signal.is_some() {
            return Ok(());
        }
        let (frame, ending) = table.look(session.current(), waker);
        if let Some(ending) = ending
            && !session.is_over()
        {
            if failure_of(&ending).is_some() {
                return Ok(());
            }
            session.room_over();
        }
        out.clear();
        let line = status.line(table, &session);
        painter.paint(Screen::compose(&frame, line, size, caps), &mut out);
        if !out.is_empty() {
            tty.write(&out)?;
        }
        let wait = if let Some(patience) = decoder.patience() {
            patience.min(STATUS_EVERY)
        } else if session.is_waiting() {
            OFFER_EVERY
        } else {
            STATUS_EVERY
        };
        let mut next = match from.recv_timeout(wait) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // The threads that tell hold the other end for as long as the process lives.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        while let Some(event) = next {
            match event {
                Event::Look => {}
                Event::Told(Told::Typed(bytes)) => {
                    typed_at = Instant::now();
                    decoder.feed(&bytes, &mut presses);
                }
                Event::Told(Told::Resized) => {
                    size = tty.size();
                    painter.forget();
                }
                Event::Told(told @ (Told::Stop | Told::Continued)) => {
                    tty.stop_or_go_on(&told)?;
                    size = tty.size();
                    painter.forget();
                }
                Event::Told(Told::Signal(caught)) => *signal = Some(caught),
                Event::Told(Told::HungUp) => return Ok(()),
            }
            next = from.try_recv().ok();
        }
        let patience = decoder.patience();
        if patience.is_some_and(|patience| typed_at.elapsed() >= patience) {
            decoder.flush(&mut presses);
        }
    }
}

/// The status line, whose figures stand long enough to be read.
#[derive(Default)]
struct Status {
    renewed: Option<Instant>,
    of: (usize, bool),
    line: String,
}

impl Status {
    fn line(&mut self, table: &Table, session: &Session) -> &str {
        let of = (session.current(), session.is_over());
        let old = self.renewed.is_none_or(|at| at.elapsed() >= STATUS_EVERY);
        if old || of != self.of {
            let (seat, over) = of;
            let figures = table.meter().figures();
            self.line = meter::status_line(figures, seat, session.seats(), over, table.recorded());
            self.of = of;
            self.renewed = Some(Instant::now());
        }
        &self.line
    }
}

/// Says how a room ended: its result, or why it failed.
pub fn tell(over: &Over) -> Result<Outcome, Problem> {
    let ending = &over.ending;
    if let Some(failure) = failure_of(ending) {
        remark(format_args!("cabinet: the game failed"));
        remark(format_args!("{failure}"));
        for line in &over.log {
            remark(format_args!("  log       {line}"));
        }
        return Ok(Outcome::Bad);
    }
    if ending.reason == EndReason::Game
        && let Some(result) = &ending.result
    {
        for standing in &result.standings {
            let status = standing
                .status
                .map_or("unknown", cabinet_host::Status::as_str);
            let (handle, metric) = (&standing.player.handle, standing.metric);
            match standing.rank {
                0 => say(format_args!(" -  {handle}  {metric}  {status}\n"))?,
                rank => say(format_args!("{rank:2}. {handle}  {metric}  {status}\n"))?,
            }
        }
    }
    Ok(Outcome::Good)
}

/// How long after it was asked for the first frame was ready for a terminal of the usual size.
fn bench(
    mut table: Table,
    args: &Args,
    began: Instant,
    loaded: Duration,
    from_cache: bool,
) -> Result<Outcome, Problem> {
    let (to, from) = mpsc::channel();
    let waker = Waker::from(Arc::new(Nudge(Mutex::new(to))));
    let blank = cabinet_host::Frame::blank();
    let mut out = String::new();
    loop {
        let (frame, ending) = table.look(0, &waker);
        if ending.is_some() {
            return tell(&table.leave());
        }
        if frame != blank {
            let caps = args.look.caps();
            let screen = Screen::compose(&frame, "", Size::new(80, 24), caps);
            Painter::new(caps).paint(screen, &mut out);
            break;
        }
        // The waker holds the other end.
        let _ = from.recv();
    }
    let took = began.elapsed();
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    say(format_args!(
        "{}\n",
        serde_json::json!({
            "first_frame_ms": millis(took),
            "load_ms": millis(loaded),
            "from_cache": from_cache,
            "bytes": out.len(),
        })
    ))?;
    whole(table.leave(), args.record.as_deref(), args.log.as_deref())?;
    Ok(Outcome::Good)
}
