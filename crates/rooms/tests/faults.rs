//! Faults from end to end: whom they end, what is recorded and in which order, what the author is
//! told, who is blamed, and what quarantine makes of it.

mod common;
#[path = "../../host/tests/common/mod.rs"]
mod guests;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cabinet_host::{Fault, GameOptions, Input, Status, TrapKind};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{StoreAdmin, wait_for};
use cabinet_rooms::{
    Blame, EndReason, Ending, Evidence, Export, GameLabel, Listed, Listing, Quarantine,
    QuarantinePolicy, Recorder, Registry, RoomHandle, RoomSpec, Seat, Witness,
};
use cabinet_wire::outcome::{self, Ranking};

use common::{ByHand, WIDE, by_hand_with, fixture, fixtures, game, host, list, ms, player};

/// Everything a recorder is told but times and sizes, in order.
#[derive(Default)]
struct Sequence(Mutex<Vec<String>>);

impl Sequence {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
}

impl Recorder for Sequence {
    fn callback(&self, _: &GameLabel, export: Export, _: Duration) {
        self.add(format!("callback {}", export.name()));
    }
    fn callback_deadline(&self, _: &GameLabel, export: Export) {
        self.add(format!("deadline {}", export.name()));
    }
    fn stolen(&self, _: &GameLabel, _: Export, stolen: Duration) {
        self.add(format!("stolen {stolen:?}"));
    }
    fn excused(&self, _: &GameLabel, _: Export) {
        self.add("excused");
    }
    fn host_io_deadline(&self, _: &GameLabel, _: Export) {
        self.add("host io");
    }
    fn host_fault(&self, _: &GameLabel) {
        self.add("host fault");
    }
    fn fault(&self, _: &GameLabel) {
        self.add("fault");
    }
    fn input_bytes_in(&self, _: &GameLabel, bytes: u64) {
        self.add(format!("input {bytes}"));
    }
    fn rooms(&self, _: &GameLabel, delta: i64) {
        self.add(format!("rooms {delta}"));
    }
    fn room_ended(&self, _: &GameLabel, reason: &'static str) {
        self.add(format!("ended {reason}"));
    }
    fn quarantined(&self, _: &GameLabel) {
        self.add("quarantined");
    }
}

/// A misdeed that kills its room, as `misdeeds.toml` has it.
#[derive(Debug)]
struct Misdeed {
    rune: char,
    name: String,
    class: String,
    /// It is the next wake that faults.
    later: bool,
}

fn misdeeds() -> Vec<Misdeed> {
    let text = std::fs::read_to_string(fixtures().join("misdeeds.toml")).unwrap();
    let mut found = Vec::new();
    for table in text.split("[[misdeed]]").skip(1) {
        let value = |key: &str| {
            table
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))
                .map(|rest| rest.strip_suffix('"').unwrap().replace('\\', ""))
        };
        let class = |key| value(key)?.strip_prefix("fault:").map(str::to_owned);
        let now = class("outcome");
        if let Some(class) = now.clone().or_else(|| class("then")) {
            found.push(Misdeed {
                rune: value("rune").unwrap().chars().next().unwrap(),
                name: value("name").unwrap(),
                class,
                later: now.is_none(),
            });
        }
    }
    found
}

fn misbehave() -> Listing {
    Listing::new(game("misbehave.wasm"))
}

/// A room whose operator gave its callbacks so long.
fn spec(deadline: Option<Duration>) -> RoomSpec {
    let mut spec = RoomSpec::default();
    spec.seed = Some(7);
    if let Some(deadline) = deadline {
        let store = MemoryStore::new();
        let value = deadline.as_millis().to_string();
        wait_for(|reply| {
            store.set_config(
                "misbehave",
                b"host.deadline_ms",
                Some(value.as_bytes()),
                reply,
            );
        })
        .unwrap();
        spec.services.config = Some(Arc::new(store));
    }
    spec
}

/// A witness that has seen this, whatever happened.
fn witness(evidence: Evidence) -> Option<Witness> {
    Some(Arc::new(move |_, _| evidence))
}

/// A thread that got all of its time.
fn guilty() -> Evidence {
    Evidence {
        cpu: Some(WIDE),
        stolen: None,
        cores: 2,
    }
}

fn open(by: &ByHand, listed: &Arc<Listed>, deadline: Option<Duration>) -> (RoomHandle, Seat) {
    let room = by.runtime.open(listed, spec(deadline)).unwrap();
    let seat = by.run(room.join(player(1))).unwrap();
    (room, seat)
}

fn press(by: &ByHand, seat: &Seat, rune: char) {
    by.run(seat.input(Input::Rune(rune as u32))).unwrap();
    by.pass(Duration::ZERO);
}

/// A room of `listed` that does this misdeed, and how it ended.
fn ended_by(
    by: &ByHand,
    listed: &Arc<Listed>,
    rune: char,
    deadline: Option<Duration>,
) -> Arc<Ending> {
    let (room, seat) = open(by, listed, deadline);
    press(by, &seat, rune);
    room.ending().unwrap_or_else(|| panic!("{rune:?} kills"))
}

fn wakes(seat: &mut Seat) -> u32 {
    let _ = seat.frames().try_next();
    let row = seat.frames().frame().row_text(1);
    row.strip_prefix("wakes=").unwrap().parse().unwrap()
}

#[test]
fn every_misdeed_that_faults_ends_its_own_room_and_no_other() {
    let by = by_hand_with(|options| options.witness = witness(guilty()));
    let listed = list(misbehave());
    let (sibling, mut seat) = open(&by, &listed, None);
    let misdeeds = misdeeds();
    assert!(misdeeds.len() > 30, "{}", misdeeds.len());
    let mut classes: Vec<&str> = misdeeds.iter().map(|it| it.class.as_str()).collect();
    classes.sort_unstable();
    classes.dedup();
    assert_eq!(
        classes,
        ["deadline", "error-text", "exit", "exited", "trap"]
    );
    for (at, misdeed) in misdeeds.iter().enumerate() {
        let spins = misdeed.class == "deadline";
        let (room, culprit) = open(&by, &listed, spins.then_some(ms(50)));
        press(&by, &culprit, misdeed.rune);
        if misdeed.later {
            assert!(room.ending().is_none(), "{misdeed:?}");
            by.pass(ms(50));
        }
        let ending = room
            .ending()
            .unwrap_or_else(|| panic!("not ended: {misdeed:?}"));
        let report = ending.fault.as_ref().unwrap();
        assert_eq!(report.fault.class(), misdeed.class, "{}", misdeed.name);
        assert_eq!(ending.reason, EndReason::Fault, "{}", misdeed.name);
        assert_eq!(report.blame(), Blame::Guest, "{}", misdeed.name);
        let export = match misdeed.later {
            true => Export::Wake,
            false => Export::Input,
        };
        assert_eq!(report.export, export, "{}", misdeed.name);
        let lines = &ending.result.as_ref().unwrap().standings;
        assert_eq!(lines.len(), 1, "{}", misdeed.name);
        assert_eq!(lines[0].status, Some(Status::Dnf), "{}", misdeed.name);

        let before = wakes(&mut seat);
        by.pass(ms(50));
        assert_eq!(wakes(&mut seat), before + 1, "after {}", misdeed.name);
        assert!(sibling.ending().is_none(), "after {}", misdeed.name);
        assert_eq!(by.counts.get("fault"), at as i64 + 1, "{}", misdeed.name);
        assert_eq!(by.counts.get("rooms"), 1, "{}", misdeed.name);
    }
    press(&by, &seat, '~');
    assert!(sibling.ending().is_none());
    assert_eq!(by.counts.get("host fault"), 0);
}

#[test]
fn each_class_is_told_once_and_in_order() {
    let sequence = Arc::new(Sequence::default());
    let recorder = sequence.clone();
    let by = by_hand_with(move |options| {
        options.recorder = recorder;
        options.witness = witness(Evidence {
            stolen: Some(ms(20)),
            ..guilty()
        });
    });
    let listed = list(misbehave());
    let cases: [(char, &[&str]); 5] = [
        ('u', &["callback input", "fault"]),
        ('x', &["callback input", "fault"]),
        ('E', &["callback input", "fault"]),
        (
            't',
            &["callback input", "deadline input", "stolen 20ms", "fault"],
        ),
        ('z', &["callback input", "callback wake", "fault"]),
    ];
    for (rune, told) in cases {
        let (_room, seat) = open(&by, &listed, (rune == 't').then_some(ms(50)));
        assert_eq!(
            sequence.take(),
            ["rooms 1", "callback start", "callback join"]
        );
        press(&by, &seat, rune);
        by.pass(ms(50));
        let mut expected = vec!["input 10"];
        expected.extend(told);
        expected.extend(["rooms -1", "ended fault"]);
        assert_eq!(sequence.take(), expected, "{rune:?}");
    }
}

/// A game whose wake traps three calls deep.
fn deep_trap() -> Arc<Listed> {
    let extra = r#"
        (func $innermost (param $n i32) (result i32) (i32.div_u (i32.const 1) (local.get $n)))
        (func $middle (result i32) (call $innermost (i32.const 0)))"#;
    let wasm = guests::guest(&guests::plain(), extra, "(drop (call $middle))");
    list(Listing::new(common::load(&wasm, WIDE)))
}

#[test]
fn a_trap_report_names_the_place_in_the_guests_own_words() {
    let by = by_hand_with(|_| {});
    let listed = deep_trap();
    let room = by.runtime.open(&listed, spec(None)).unwrap();
    let _seat = by.run(room.join(player(1))).unwrap();
    by.pass(ms(50));
    let ending = room.ending().unwrap();
    let report = ending.fault.as_ref().unwrap();
    let Fault::Trap(trap) = &report.fault else {
        panic!("a trap: {:?}", report.fault);
    };
    assert_eq!(trap.kind, TrapKind::DivisionByZero);
    let backtrace: Vec<_> = trap
        .backtrace
        .iter()
        .map(|frame| (frame.function, frame.name.as_deref()))
        .collect();
    // The guest has four imports. Its `wake` has no name but that of its export.
    assert_eq!(
        backtrace[..2],
        [(4, Some("innermost")), (5, Some("middle"))],
        "{backtrace:?}"
    );
    assert_eq!(backtrace.len(), 3, "{backtrace:?}");
    assert_eq!(report.export, Export::Wake);
    // start, join, wake
    assert_eq!(report.step, 3);
    assert_eq!(report.slug.as_str(), "plain");
    assert_eq!(report.artifact, listed.game().digest());
    let into_the_first_period = report.room_clock - common::EPOCH;
    assert!((1..=50_000_000).contains(&into_the_first_period));
    // Two pages, as the guest declares.
    assert_eq!(report.memory_bytes, 2 * 65_536);
    let call = report.call.as_ref().unwrap();
    assert_eq!((call.export, call.exit), ("wake", 1));
    assert!(call.fuel > 0);
    let text = report.to_string();
    for part in [
        "trap in wake of plain",
        "integer division by zero",
        "innermost",
        "middle",
        "callback 3",
        "blame     guest",
        &report.room.to_string(),
        &report.artifact.to_string(),
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    // A player is nobody an author needs to know.
    let words = || text.split(|c: char| !c.is_alphanumeric());
    for secret in ["a1", "p1", "c1"] {
        assert!(words().all(|word| word != secret), "{text}");
    }
}

#[test]
fn a_guest_without_names_is_told_its_functions_numbers() {
    let by = by_hand_with(|_| {});
    // Two functions that call each other until the stack is full.
    let ending = ended_by(&by, &list(misbehave()), 'D', None);
    let report = ending.fault.as_ref().unwrap();
    let Fault::Trap(trap) = &report.fault else {
        panic!("a trap: {ending:?}");
    };
    assert_eq!(trap.kind, TrapKind::CallDepth);
    assert_eq!(trap.backtrace.len(), cabinet_host::TRAP_FRAMES_MAX);
    let (one, other) = (&trap.backtrace[0], &trap.backtrace[1]);
    assert_ne!(one.function, other.function);
    for pair in trap.backtrace.chunks(2) {
        assert_eq!(pair, [one.clone(), other.clone()]);
    }
    let text = report.to_string();
    for frame in [one, other] {
        assert_eq!(frame.name, None);
        let number = format!("function {}", frame.function);
        assert!(text.contains(&number), "{number:?} is not in\n{text}");
    }
}

#[test]
fn a_report_counts_callbacks_of_this_room_only() {
    let by = by_hand_with(|_| {});
    let listed = list(misbehave());
    let (_other, _seat) = open(&by, &listed, None);
    let (room, seat) = open(&by, &listed, None);
    by.pass(ms(500));
    press(&by, &seat, '~');
    press(&by, &seat, 'u');
    // start, join, ten wakes, an input that did no harm, this one.
    assert_eq!(room.ending().unwrap().fault.as_ref().unwrap().step, 14);
}

/// What a witness says, and whom that leads to.
struct Case {
    cpu: Option<u64>,
    stolen: Option<u64>,
    cores: u32,
    blame: Blame,
}

#[test]
fn a_matrix_of_stolen_and_cpu_time_shows_who_is_blamed_and_what_counts() {
    use Blame::{Guest, Starved};
    const WINDOW: u64 = 60;
    let case = |cpu, stolen, cores, blame| Case {
        cpu,
        stolen,
        cores,
        blame,
    };
    let cases = [
        // A spinner, however much was stolen elsewhere.
        case(Some(60), None, 2, Guest),
        case(Some(60), Some(0), 2, Guest),
        case(Some(60), Some(20), 2, Guest),
        case(Some(60), Some(90), 2, Guest),
        // More was stolen than the other core can have lost.
        case(Some(60), Some(91), 2, Starved),
        case(Some(60), Some(31), 1, Starved),
        // Without knowing how many cores, nothing follows.
        case(Some(60), Some(900), 0, Guest),
        // Half of the window, and less.
        case(Some(30), Some(10), 2, Guest),
        case(Some(29), Some(10), 2, Starved),
        case(Some(29), None, 2, Starved),
        case(Some(0), Some(0), 2, Starved),
        // Nothing is known: the deadline stands.
        case(None, None, 2, Guest),
        case(None, Some(90), 2, Guest),
        case(None, Some(91), 2, Starved),
    ];
    for (at, case) in cases.iter().enumerate() {
        let evidence = Evidence {
            cpu: case.cpu.map(ms),
            stolen: case.stolen.map(ms),
            cores: case.cores,
        };
        let registry = Arc::new(Registry::new());
        let quarantine = Arc::new(Quarantine::new(Arc::clone(&registry), threshold(1)));
        let sequence = Arc::new(Sequence::default());
        let (recorder, watching) = (sequence.clone(), quarantine.clone());
        let by = by_hand_with(move |options| {
            options.recorder = recorder;
            options.quarantine = Some(watching);
            options.witness = witness(evidence);
        });
        let listed = registry.add(misbehave()).unwrap();
        let (room, seat) = open(&by, &listed, Some(ms(WINDOW)));
        sequence.take();
        press(&by, &seat, 't');

        let ending = room.ending().unwrap();
        let report = ending.fault.as_ref().unwrap();
        assert!(
            matches!(report.fault, Fault::Deadline { deadline, .. } if deadline == ms(WINDOW)),
            "{:?}",
            report.fault
        );
        assert_eq!(report.evidence, evidence);
        assert_eq!(report.blame(), case.blame, "case {at}: {evidence:?}");
        let mut expected = vec![
            "input 10".to_owned(),
            "callback input".into(),
            "deadline input".into(),
        ];
        if let Some(stolen) = case.stolen.filter(|stolen| *stolen > 0) {
            expected.push(format!("stolen {:?}", ms(stolen)));
        }
        let told: &[&str] = match case.blame {
            Guest => &["fault", "quarantined", "rooms -1", "ended fault"],
            // Whoever starved it, it was not the guest.
            _ => &["excused", "rooms -1", "ended host"],
        };
        expected.extend(told.iter().map(|told| (*told).to_owned()));
        assert_eq!(sequence.take(), expected, "case {at}: {evidence:?}");
        let pulled = registry.get("misbehave").is_none();
        assert_eq!(pulled, case.blame == Guest, "case {at}: {evidence:?}");
    }
}

#[test]
fn a_witness_excuses_deadlines_only() {
    let by = by_hand_with(|options| {
        options.witness = witness(Evidence {
            cpu: Some(Duration::ZERO),
            stolen: Some(WIDE),
            cores: 1,
        });
    });
    let ending = ended_by(&by, &list(misbehave()), 'u', None);
    assert_eq!(ending.fault.as_ref().unwrap().blame(), Blame::Guest);
    assert_eq!(by.counts.get("fault"), 1);
    assert_eq!(by.counts.get("stolen") + by.counts.get("excused"), 0);
}

/// CPU time of the calling thread, as the scheduler counts it; `None` where it does not tell.
fn own_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// With what the host measures, unaltered, against what the scheduler says of this thread. The
/// machine may be busy with something else, so a spinner gets several chances to have a core for
/// half of its window.
#[test]
fn a_spinner_that_had_its_core_is_never_excused() {
    let by = by_hand_with(|_| {});
    let listed = list(misbehave());
    let window = ms(300);
    // The callback is not all that this thread does between two readings.
    let more_than_half = window / 2 + ms(30);
    for _ in 0..20 {
        let (room, seat) = open(&by, &listed, Some(window));
        let (faults, before) = (by.counts.get("fault"), own_cpu());
        press(&by, &seat, 't');
        let had = own_cpu().zip(before).map(|(after, before)| after - before);
        let ending = room.ending().unwrap();
        let report = ending.fault.as_ref().unwrap();
        let (evidence, blame) = (report.evidence, report.blame());
        let guilty = blame == Blame::Guest;
        assert_eq!(ending.reason == EndReason::Fault, guilty, "{evidence:?}");
        let counted = by.counts.get("fault") - faults;
        assert_eq!(counted, i64::from(guilty), "{evidence:?}");
        if cfg!(target_os = "linux") {
            assert!(evidence.cpu.is_some(), "Linux tells a thread's CPU time");
        }
        if had.or(evidence.cpu).is_none_or(|had| had > more_than_half) {
            assert_eq!(blame, Blame::Guest, "had {had:?}: {evidence:?}");
            return;
        }
    }
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED the verdict on a spinner: of 20, none had a core for half of {window:?}"
    );
}

fn threshold(faults: u8) -> QuarantinePolicy {
    QuarantinePolicy {
        threshold: faults.try_into().unwrap(),
        ..QuarantinePolicy::default()
    }
}

#[test]
fn two_faulting_rooms_pull_the_game_and_a_running_one_is_spared() {
    let registry = Arc::new(Registry::new());
    let quarantine = Arc::new(Quarantine::new(Arc::clone(&registry), threshold(2)));
    let watching = quarantine.clone();
    let by = by_hand_with(move |options| options.quarantine = Some(watching));
    let old = registry.add(misbehave()).unwrap();
    let (spared, mut seat) = open(&by, &old, None);
    ended_by(&by, &old, 'u', None);
    assert!(registry.get("misbehave").is_some());
    ended_by(&by, &old, 'x', None);
    assert!(registry.get("misbehave").is_none());
    assert_eq!(by.counts.get("quarantined"), 1);

    let before = wakes(&mut seat);
    by.pass(ms(500));
    assert_eq!(wakes(&mut seat), before + 10);
    press(&by, &seat, '~');
    assert!(spared.ending().is_none());

    let now = cabinet_rooms::Clock::now(&by.clock);
    let new = quarantine.restore("misbehave", now).unwrap();
    assert!(new.generation() > old.generation());
    // A room of the listing that was pulled does not spoil the clean count: with it, the next
    // fault would be the second.
    press(&by, &seat, 'u');
    assert_eq!(spared.ending().unwrap().reason, EndReason::Fault);
    ended_by(&by, &new, 'u', None);
    assert!(registry.get("misbehave").is_some());
    assert_eq!(by.counts.get("quarantined"), 1);
    ended_by(&by, &new, 'u', None);
    assert!(registry.get("misbehave").is_none());
    assert_eq!(by.counts.get("quarantined"), 2);
    assert_eq!(by.counts.get("fault"), 5);
}

#[test]
fn the_load_test_faults_and_is_never_pulled() {
    let registry = Arc::new(Registry::new());
    let quarantine = Arc::new(Quarantine::new(Arc::clone(&registry), threshold(1)));
    let watching = quarantine.clone();
    let by = by_hand_with(move |options| options.quarantine = Some(watching));
    let mut options = GameOptions::default();
    options.deadline = WIDE;
    // Enough to describe itself, too little to make its map.
    options.fuel = Some(20_000);
    let crowd = host().load(&fixture("crowd.wasm"), &options).unwrap();
    let listed = registry.add(Listing::load_test(crowd)).unwrap();
    for _ in 0..4 {
        let room = by.runtime.open(&listed, RoomSpec::default()).unwrap();
        let ending = by.run(room.ended());
        assert_eq!(ending.reason, EndReason::Fault);
        let report = ending.fault.as_ref().unwrap();
        assert_eq!(report.fault, Fault::Budget { fuel: 20_000 });
        assert_eq!(report.export, Export::Start);
        assert!(by.run(room.started()).is_err());
    }
    assert_eq!(by.counts.get("fault"), 4);
    assert_eq!(by.counts.get("quarantined"), 0);
    assert!(registry.get("crowd").is_some());
    assert!(quarantine.audit().is_empty());
}

#[test]
fn after_a_fault_everybody_who_was_there_did_not_finish() {
    let by = by_hand_with(|_| {});
    let room = by.runtime.open(&list(misbehave()), spec(None)).unwrap();
    let mut seats: Vec<Seat> = (0..3)
        .map(|n| by.run(room.join(player(n))).unwrap())
        .collect();
    by.run(seats.remove(0).leave());
    press(&by, &seats[1], 'u');
    let ending = room.ending().unwrap();
    let lines: Vec<_> = ending
        .result
        .as_ref()
        .unwrap()
        .standings
        .iter()
        .map(|line| {
            (
                line.player.handle.as_str(),
                line.metric,
                line.rank,
                line.status,
            )
        })
        .collect();
    let dnf = Some(Status::Dnf);
    assert_eq!(
        lines,
        [("p0", 0, 0, dnf), ("p1", 0, 0, dnf), ("p2", 0, 0, dnf)]
    );
}

#[test]
fn a_result_from_before_the_fault_of_the_same_callback_stands() {
    let mut bytes = Vec::new();
    outcome::encode(&[Ranking::new(0, 42, 1, Status::Finished)], &mut bytes).unwrap();
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let extra = format!(
        r#"(import "extism:host/user" "end" (func $end (param i64)))
           (data (i32.const 16) "{data}")"#
    );
    let wake = format!(
        "(call $end (call $block (i32.const 16) (i32.const {}))) (unreachable)",
        bytes.len()
    );
    let wasm = guests::guest(&guests::plain(), &extra, &wake);
    let by = by_hand_with(|_| {});
    let listed = list(Listing::new(common::load(&wasm, WIDE)));
    let room = by.runtime.open(&listed, spec(None)).unwrap();
    let _seats: Vec<Seat> = (1..3)
        .map(|n| by.run(room.join(player(n))).unwrap())
        .collect();
    by.pass(ms(50));
    let ending = room.ending().unwrap();
    assert_eq!(ending.reason, EndReason::Fault);
    let report = ending.fault.as_ref().unwrap();
    assert!(matches!(report.fault, Fault::Trap(_)));
    let lines: Vec<_> = ending
        .result
        .as_ref()
        .unwrap()
        .standings
        .iter()
        .map(|line| {
            (
                line.player.handle.as_str(),
                line.metric,
                line.rank,
                line.status,
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("p1", 42, 1, Some(Status::Finished)),
            ("p2", 0, 0, Some(Status::Dnf))
        ]
    );
}
