//! `cabinet replay`: a recorded game again, forward and backward.
//!
//! [`machine`] runs the guest again, [`view`] is where somebody is in it; here are the terminal,
//! and the output that scripts read.

pub mod machine;
pub mod view;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use cabinet_conformance::{error_line, files};
use cabinet_host::{Frame, GameOptions, Input};
use cabinet_wire::ROWS;
use serde_json::{Value, json};

use crate::artifact::Artifact;
use crate::host_cache::CacheArgs;
use crate::outcome::{self, Outcome, Problem, remark};
use crate::play::Look;
use crate::recording::format::{self, FILE_BYTES_MAX};
use crate::recording::{Callback, Recording};
use crate::term::keys::{Decoder, Press};
use crate::term::layout::Screen;
use crate::term::paint::Painter;
use crate::term::tty::{Told, Tty};

use self::machine::{DEADLINE, Machine};
use self::view::{Timeline, View};

/// Look at a recorded game again, forward and backward.
///
/// Keys: space pauses; left and right go a callback, PgUp and PgDn a hundred; Home, End, or a number
/// and Enter jump; + and - change the speed; Tab shows the next seat; q leaves.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recording, made by `cabinet play --record`.
    recording: PathBuf,
    /// The game that was recorded. Default: the file it was played from.
    #[arg(value_name = "GAME")]
    game: Option<PathBuf>,
    /// Print what was seen after this many callbacks, and end.
    #[arg(long, value_name = "N", conflicts_with = "dump")]
    frame: Option<usize>,
    /// Print everything that was seen, each time it changed, and end.
    #[arg(long)]
    dump: bool,
    /// Which seat's screen, from 1.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    seat: u16,
    /// Print JSON: with --frame an object, with --dump an object a line, alone what the recording is.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Time after which the screen is drawn anew in any case.
const IDLE: Duration = Duration::from_millis(500);
/// The shortest time between two screens of one that plays.
const SCREEN: Duration = Duration::from_millis(16);

/// Shows a recording.
///
/// # Errors
/// When it is none, its game cannot be had, or there is nowhere to show it.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    let recording = read(&args.recording)?;
    if recording.torn {
        remark(format_args!(
            "cabinet: warning: {} ends in the middle of a record, which is left out",
            args.recording.display()
        ));
    }
    let seats = recording.header.seats;
    if args.seat > seats {
        let seat = args.seat;
        return Err(Problem::new(format!(
            "--seat {seat}: the recording has seats 1 to {seats}"
        )));
    }
    let prints = args.frame.is_some() || args.dump;
    if args.json && !prints {
        print(&format!("{}\n", outcome::json(&summary(&recording))))?;
        return Ok(Outcome::Good);
    }
    if !prints && !Tty::is_there() {
        return Err(Problem::new(
            "replay needs a terminal for its keys and its screen; for scripts there are --frame, --dump and --json",
        ));
    }
    let game = load(args, &recording)?;
    let mut machine = Machine::new(game, recording)
        .map_err(|error| Problem::about(args.recording.display(), &error))?;
    if let Some(step) = args.frame {
        let steps = machine.steps();
        if step > steps {
            return Err(Problem::new(format!(
                "--frame {step}: the recording has steps 0 to {steps}"
            )));
        }
        machine.seek(step);
        print(&shown(&machine, args.seat, args.json))?;
    } else if args.dump {
        dump(&mut machine, args)?;
    } else {
        show(&mut machine, args)?;
    }
    if let Some(callback) = machine.diverged() {
        remark(format_args!(
            "cabinet: the game went another way than when it was recorded, from callback {callback} on: \
             it was recorded by another version of this program, or the file was changed"
        ));
        return Ok(Outcome::Bad);
    }
    Ok(Outcome::Good)
}

fn read(path: &Path) -> Result<Recording, Problem> {
    let about = |error: &(dyn std::error::Error + 'static)| Problem::about(path.display(), error);
    let mut bytes = Vec::new();
    files::open(path)
        .map_err(|error| Problem::new(error_line(&error)))?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| about(&error))?;
    format::decode(&bytes).map_err(|error| about(&error))
}

fn load(args: &Args, recording: &Recording) -> Result<cabinet_host::Game, Problem> {
    let artifact = match &args.game {
        Some(path) => Artifact::resolve(path)?,
        // Whoever made the recording wrote this path: it is read, never built.
        None => Artifact::file(Path::new(&recording.header.path)).map_err(|problem| {
            Problem::new(format!(
                "{problem}; name the game: cabinet replay FILE GAME"
            ))
        })?,
    };
    let mut options = GameOptions::default();
    options.deadline = DEADLINE;
    args.cache
        .host()?
        .load(&artifact.wasm, &options)
        .map_err(|error| Problem::about(artifact.path.display(), &error))
}

/// What a recording is, for programs.
fn summary(recording: &Recording) -> Value {
    let header = &recording.header;
    let pair = |(key, value): &(String, Vec<u8>)| json!({ "key": key, "value": String::from_utf8_lossy(value) });
    let config: Vec<Value> = header.config.iter().map(pair).collect();
    json!({
        "artifact": header.artifact.to_string(),
        "slug": header.slug,
        "path": header.path,
        "mode": header.mode.as_str(),
        "capacity": header.capacity,
        "min_players": header.min_players,
        "seed": header.seed,
        "seed_set": header.seed_set,
        "seats": header.seats,
        "heartbeat_ms": header.heartbeat_ms,
        "config": config,
        "callbacks": recording.callbacks.len(),
        "torn": recording.torn,
        "end": recording.end.as_ref().map(|end| json!({
            "reason": end.reason,
            "fault": end.fault,
            "text": end.text,
        })),
    })
}

/// What a callback was, in a few words.
fn what(callback: Option<&Callback>) -> String {
    let Some(callback) = callback else {
        return "beginning".to_owned();
    };
    let mut text = callback.export.name().to_owned();
    if let Some(seat) = callback.seat {
        text.push_str(&format!(" {seat}"));
    }
    match callback.input {
        Some(Input::Rune(rune)) => match char::from_u32(rune) {
            Some(c) => text.push_str(&format!(" {c:?}")),
            None => text.push_str(&format!(" U+{rune:X}")),
        },
        Some(Input::Key(key)) => text.push_str(&format!(" {}", key.as_str())),
        None => {}
    }
    text
}

/// The step a machine is at, as a seat sees it.
fn shown(machine: &Machine, seat: u16, as_json: bool) -> String {
    let frame = machine.frame(seat);
    let rows: Vec<String> = (0..ROWS).map(|row| frame.row_text(row)).collect();
    let what = what(machine.last());
    if as_json {
        let micros = u64::try_from(machine.elapsed().as_micros()).unwrap_or(u64::MAX);
        let step = json!({
            "step": machine.at(),
            "time_us": micros,
            "callback": what,
            "seat": seat,
            "rows": rows,
        });
        return format!("{}\n", outcome::json(&step));
    }
    let mut text = rows.join("\n");
    text.push('\n');
    text
}

fn dump(machine: &mut Machine, args: &Args) -> Result<(), Problem> {
    let mut before = Frame::blank();
    while machine.step() {
        let frame = machine.frame(args.seat);
        if frame == before {
            continue;
        }
        before = frame;
        if !args.json {
            let millis = machine.elapsed().as_millis();
            print(&format!(
                "# step {}  {millis} ms  {}\n",
                machine.at(),
                what(machine.last())
            ))?;
        }
        print(&shown(machine, args.seat, args.json))?;
    }
    Ok(())
}

/// Writes to standard output; whoever does not read to the end has read enough.
fn print(text: &str) -> Result<(), Problem> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem::about("cannot write the output", &error))
        }
        _ => Ok(()),
    }
}

fn show(machine: &mut Machine, args: &Args) -> Result<(), Problem> {
    let times = (0..=machine.steps()).map(|step| machine.time_of(step));
    let mut view = View::new(Timeline::new(times), machine.recording().header.seats);
    for _ in 1..args.seat {
        view.press(&Press::Tab);
    }
    let (to, from) = mpsc::channel();
    let tty = Tty::take(&to, |told| told)
        .map_err(|error| Problem::about("cannot take the terminal", &error))?;
    let seen = look(machine, &mut view, args, &tty, &from);
    drop(tty);
    let signal = seen.map_err(|error| Problem::about("cannot write to the terminal", &error))?;
    if let Some(signal) = signal {
        // As if it had not been caught.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    Ok(())
}

/// Until somebody has seen enough, or a signal came.
fn look(
    machine: &mut Machine,
    view: &mut View,
    args: &Args,
    tty: &Tty,
    from: &Receiver<Told>,
) -> io::Result<Option<i32>> {
    let caps = args.look.caps();
    let mut decoder = Decoder::new();
    let mut painter = Painter::new(caps);
    let mut size = tty.size();
    let (mut now, mut typed_at) = (Instant::now(), Instant::now());
    let (mut presses, mut out) = (Vec::new(), String::new());
    while !view.is_leaving() {
        machine.seek(view.step());
        let status = view.status(&what(machine.last()));
        let frame = machine.frame(view.seat());
        out.clear();
        painter.paint(Screen::compose(&frame, &status, size, caps), &mut out);
        if !out.is_empty() {
            tty.write(&out)?;
        }
        let mut wait = view.until_next().unwrap_or(IDLE).clamp(SCREEN, IDLE);
        if let Some(patience) = decoder.patience() {
            wait = wait.min(patience);
        }
        match from.recv_timeout(wait) {
            Ok(Told::Typed(bytes)) => {
                typed_at = Instant::now();
                decoder.feed(&bytes, &mut presses);
            }
            Ok(Told::Resized) => {
                size = tty.size();
                painter.forget();
            }
            Ok(told @ (Told::Stop | Told::Continued)) => {
                tty.stop_or_go_on(&told)?;
                size = tty.size();
                painter.forget();
                // Nothing was shown meanwhile.
                now = Instant::now();
            }
            Ok(Told::Signal(signal)) => return Ok(Some(signal)),
            Ok(Told::HungUp) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let patience = decoder.patience();
        if patience.is_some_and(|patience| typed_at.elapsed() >= patience) {
            decoder.flush(&mut presses);
        }
        let before = std::mem::replace(&mut now, Instant::now());
        view.pass(now.duration_since(before));
        for press in presses.drain(..) {
            match press {
                Press::Ctrl('z') => tty.ask_to_stop(),
                press => view.press(&press),
            }
        }
    }
    Ok(None)
}
