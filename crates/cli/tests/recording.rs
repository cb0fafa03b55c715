//! A recorded room run again shows what was seen live, forward and backward.

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cabinet_cli::play::table::end_of;
use cabinet_cli::recording::format::{Writer, decode};
use cabinet_cli::recording::tap::Tap;
use cabinet_cli::recording::{Answer, Header, Recording, player_of};
use cabinet_cli::replay::machine::Machine;
use cabinet_host::{Frame, Game, GameOptions, Host, HostOptions, Input, Key, Mode};
use cabinet_rooms::services::StoreAdmin;
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::{
    Clock, Listing, ManualClock, Registry, Reply, RoomSpec, Runtime, RuntimeOptions, Seat,
    SeededEntropy,
};

const EPOCH: i64 = 1_700_000_000_000_000_000;

fn load(name: &str) -> Game {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| Host::new(HostOptions::default()).unwrap());
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name);
    let mut options = GameOptions::default();
    options.deadline = Duration::from_secs(60);
    host.load(&std::fs::read(path).unwrap(), &options).unwrap()
}

/// A file in memory.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What happens in a recorded room.
#[derive(Clone, Copy)]
enum Act {
    Type(usize, char),
    Press(usize, Key),
    Pass(u64),
    Leave(usize),
}

use Act::{Leave, Pass, Press, Type};

/// What each seat saw after so many callbacks.
struct Seen {
    callbacks: usize,
    frames: Vec<Frame>,
}

struct Live {
    runtime: Runtime,
    clock: ManualClock,
}

impl Live {
    fn pass(&self, time: Duration) {
        self.runtime.run_until(&self.clock, self.clock.now() + time);
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1_000 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            self.pass(Duration::ZERO);
        }
        panic!("the future waits for something that needs time to pass");
    }
}

/// Plays a room by hand and records it.
fn play(game: &Game, seats: u16, seed: Option<i64>, acts: &[Act]) -> (Recording, Vec<Seen>) {
    let clock = ManualClock::new(EPOCH);
    let mut options = RuntimeOptions::default();
    options.entropy = Arc::new(SeededEntropy::new(42));
    let live = Live {
        runtime: Runtime::by_hand(options, &clock),
        clock,
    };
    let store = MemoryStore::new();
    let slug = game.meta().slug.clone();
    for (key, value) in [(&b"greeting"[..], &b"salve"[..]), (b"round_seconds", b"10")] {
        store.set_config(
            &slug,
            key,
            Some(value),
            Reply::new(|answer| answer.unwrap()),
        );
    }
    let file = Shared::default();
    let header = Header {
        artifact: game.digest(),
        slug,
        path: String::new(),
        mode: Mode::Quick,
        capacity: 0,
        min_players: 0,
        seed: 0,
        seed_set: false,
        seats,
        heartbeat_ms: 50,
        config: Vec::new(),
    };
    let tap = Tap::start(file.clone(), header, game.meta().ctx_features).unwrap();
    let mut spec = RoomSpec::default();
    spec.mode = Mode::Private;
    spec.seed = seed;
    spec.services = tap.services(store.services());
    spec.observer = Some(tap.observer());
    let listed = Registry::new().add(Listing::new(game.clone())).unwrap();
    let room = live.runtime.open(&listed, spec).unwrap();

    let mut seen = Vec::new();
    let mut frames = vec![Frame::blank(); seats.into()];
    let mut taken: Vec<Option<Seat>> = Vec::new();
    let mut look = |taken: &mut Vec<Option<Seat>>| {
        for (frame, seat) in frames.iter_mut().zip(taken) {
            if let Some(view) = seat.as_mut().and_then(|seat| seat.frames().try_next()) {
                *frame = view.frame;
            }
        }
        seen.push(Seen {
            callbacks: room.callbacks() as usize,
            frames: frames.clone(),
        });
    };
    live.run(room.started()).unwrap();
    for seat in 1..=seats {
        taken.push(Some(live.run(room.join(player_of(seat))).unwrap()));
        look(&mut taken);
    }
    for act in acts {
        match *act {
            Type(seat, c) => {
                let seat = taken[seat].as_ref().unwrap();
                let _ = live.run(seat.input(Input::Rune(u32::from(c))));
                live.pass(Duration::ZERO);
            }
            Press(seat, key) => {
                let _ = live.run(taken[seat].as_ref().unwrap().input(Input::Key(key)));
                live.pass(Duration::ZERO);
            }
            Pass(millis) => live.pass(Duration::from_millis(millis)),
            Leave(seat) => {
                // Its last frame is looked at first.
                look(&mut taken);
                live.run(taken[seat].take().unwrap().leave());
            }
        }
        look(&mut taken);
    }
    room.close();
    let ending = live.run(room.ended());
    drop(taken);
    tap.finish(end_of(&ending)).unwrap();
    let bytes = file.0.lock().unwrap().clone();
    (decode(&bytes).unwrap(), seen)
}

/// Shows that a machine is everywhere what was seen live, whichever way it gets there.
fn shows_the_same(game: Game, recording: Recording, seen: &[Seen]) {
    let seats = recording.header.seats;
    assert!(!recording.torn);
    let mut machine = Machine::new(game, recording).unwrap();
    let same = |machine: &mut Machine, seen: &Seen| {
        machine.seek(seen.callbacks);
        assert_eq!(machine.at(), seen.callbacks);
        for seat in 1..=seats {
            let live = &seen.frames[usize::from(seat) - 1];
            let again = machine.frame(seat);
            assert!(
                again == *live,
                "seat {seat} after {} callbacks",
                seen.callbacks
            );
        }
    };
    seen.iter().for_each(|seen| same(&mut machine, seen));
    seen.iter().rev().for_each(|seen| same(&mut machine, seen));
    // To and fro.
    for (at, one) in seen.iter().enumerate() {
        same(&mut machine, one);
        same(&mut machine, &seen[(at * 7) % seen.len()]);
    }
    machine.seek(usize::MAX);
    assert_eq!(machine.at(), machine.steps());
    assert_eq!(machine.diverged(), None);
}

#[test]
fn a_tour_with_stores_timers_and_dice_is_seen_again() {
    let game = load("tour.wasm");
    let acts = [
        Type(0, 'c'),
        Type(0, 'k'),
        Pass(120),
        Type(1, 'k'),
        Type(1, 'm'),
        Type(0, 'd'),
        Type(0, 'w'),
        Pass(400),
        Type(0, 'o'),
        Type(1, 'u'),
        Pass(2_000),
        Type(0, 'h'),
        Type(1, 'a'),
        Press(0, Key::Left),
        Press(1, Key::Enter),
        Pass(5_000),
        Type(0, 'x'),
        Type(0, 'k'),
        Type(2, 'p'),
        Leave(1),
        Pass(300),
        Type(2, 'd'),
        Type(0, 't'),
        Pass(100),
        Type(0, 'e'),
    ];
    let (recording, seen) = play(&game, 3, Some(7), &acts);
    let answers = recording
        .callbacks
        .iter()
        .flat_map(|callback| &callback.answers);
    assert!(
        answers
            .clone()
            .any(|answer| *answer == Answer::Value(Some(b"salve".to_vec())))
    );
    assert!(answers.count() > 4);
    assert_eq!(recording.end.as_ref().unwrap().reason, "game");
    assert!(recording.header.seed_set && recording.header.seed == 7);
    assert!(
        recording.callbacks.len() > 150,
        "enough for snapshots to be used"
    );
    shows_the_same(game, recording, &seen);
}

#[test]
fn a_game_in_real_time_with_a_drawn_seed_is_seen_again() {
    let game = load("coil.wasm");
    let acts = [
        Pass(700),
        Press(0, Key::Up),
        Pass(900),
        Press(1, Key::Down),
        Pass(900),
        Press(0, Key::Left),
        Pass(1_500),
        Press(1, Key::Left),
        Pass(7_000),
        Press(0, Key::Down),
        Pass(9_000),
    ];
    let (recording, seen) = play(&game, 2, None, &acts);
    assert!(!recording.header.seed_set);
    shows_the_same(game, recording, &seen);
}

#[test]
fn a_board_game_whose_players_see_different_frames_is_seen_again() {
    let game = load("fences.wasm");
    let acts = [
        Press(0, Key::Enter),
        Type(0, 'w'),
        Type(1, 'a'),
        Pass(600),
        Press(0, Key::Right),
        Type(0, 's'),
        Press(1, Key::Up),
        Type(1, 'd'),
        Pass(40_000),
        Leave(0),
        Pass(500),
    ];
    let (recording, seen) = play(&game, 2, Some(-1), &acts);
    shows_the_same(game, recording, &seen);
}

#[test]
fn a_crowd_with_roster_epochs_that_comes_and_goes_is_seen_again() {
    let game = load("crowd.wasm");
    let mut acts = vec![Pass(500)];
    for seat in 0..10 {
        acts.extend([
            Press(seat, Key::Right),
            Pass(60),
            Press(seat + 10, Key::Down),
        ]);
    }
    acts.extend([
        Leave(3),
        Pass(100),
        Leave(0),
        Press(7, Key::Left),
        Pass(4_000),
    ]);
    let (recording, seen) = play(&game, 20, Some(3), &acts);
    shows_the_same(game, recording, &seen);
}

#[test]
fn a_fault_is_seen_again_too() {
    let game = load("misbehave.wasm");
    let (recording, seen) = play(&game, 1, Some(1), &[Pass(200), Type(0, 'u')]);
    let end = recording.end.clone().unwrap();
    assert_eq!(
        (end.reason.as_str(), end.fault.as_deref()),
        ("fault", Some("trap"))
    );
    assert!(end.text.contains("unreachable"), "{}", end.text);
    shows_the_same(game, recording, &seen);
}

#[test]
fn another_artifact_is_refused() {
    let (recording, _) = play(&load("tour.wasm"), 1, Some(1), &[]);
    let error = Machine::new(load("coil.wasm"), recording).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("another game, or another version of it")
    );
}

#[test]
fn a_recording_that_was_forged_runs_and_says_that_it_went_another_way() {
    let game = load("tour.wasm");
    let acts = [Type(0, 'k'), Pass(200), Type(0, 'd'), Pass(200)];
    let (recording, _) = play(&game, 1, Some(1), &acts);
    let input = recording
        .callbacks
        .iter()
        .position(|one| one.input.is_some())
        .unwrap();
    let diverged = |change: &dyn Fn(&mut Recording)| {
        let mut forged = recording.clone();
        change(&mut forged);
        let mut machine = Machine::new(game.clone(), forged).unwrap();
        machine.seek(usize::MAX);
        machine.diverged()
    };
    assert_eq!(diverged(&|_| {}), None);
    let answer = Answer::Value(Some(b"41".to_vec()));
    assert_eq!(
        diverged(&|one| one.callbacks[input].answers = vec![answer.clone()]),
        Some(input)
    );
    assert_eq!(
        diverged(&|one| one.callbacks[input].answers.clear()),
        Some(input)
    );
    assert_eq!(
        diverged(&|one| one.callbacks[input].input = Some(Input::Rune(u32::from('k') + 1))),
        Some(input)
    );
    assert_eq!(diverged(&|one| one.callbacks[1].seat = None), Some(1));
    assert_eq!(diverged(&|one| drop(one.callbacks.remove(0))), Some(0));
    assert_eq!(diverged(&|one| one.callbacks.swap(0, 1)), Some(0));
    assert!(diverged(&|one| one.header.seed = 2).is_some());
}

/// Whoever made a recording wrote the path in it. Somebody who only looks at one runs no build script.
#[test]
fn the_path_in_a_recording_is_read_and_never_built() {
    let (recording, _) = play(&load("tour.wasm"), 1, Some(1), &[]);
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("project");
    std::fs::create_dir_all(project.join("src")).unwrap();
    let manifest = "[package]\nname = \"evil\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(project.join("go.mod"), "module evil\n").unwrap();
    std::fs::write(project.join("src/lib.rs"), "").unwrap();
    let header = Header {
        path: project.to_str().unwrap().to_owned(),
        ..recording.header.clone()
    };
    let (mut writer, mut bytes) = (Writer::new(), Vec::new());
    writer.header(&header, &mut bytes).unwrap();
    for callback in &recording.callbacks {
        writer.callback(callback, &mut bytes).unwrap();
    }
    let file = dir.path().join("a.cabp");
    std::fs::write(&file, bytes).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cabinet"))
        .arg("replay")
        .arg(&file)
        .args(["--frame", "0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("name the game: cabinet replay FILE GAME"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let made = std::fs::read_dir(&project).unwrap().count();
    assert_eq!(made, 3, "something was built");
}
