//! A process that is stopped and goes on, as by Ctrl-Z and `fg`: no guest is judged by the time that
//! went by meanwhile.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::fixture;
use common::terminal::Terminal;

/// Wide: a callback takes a hundredth of this on a machine with nothing else to do.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often a program is stopped, for longer than the deadline.
const STOPS: u64 = 3;
/// CPU time it gets before each stop, in hundredths of a second. It takes no more than that to start, or not
/// much, and its callbacks take much more than all.
const BETWEEN_STOPS: u64 = 50;

/// To where a callback counts that takes a few hundredths of a second.
const COUNT: u32 = 30_000_000;

/// A game whose `wake` counts to `count`.
fn slow(path: &Path, count: u32) {
    let text = std::fs::read_to_string(fixture("wat/fault-error-text.wat")).unwrap();
    // Counts instead of failing.
    let wake = text.find("(func (export \"wake\")").unwrap();
    let slow = format!(
        "{}(func (export \"wake\") (result i32) (local $n i32)
           (local.set $n (i32.const {count}))
           (loop $again
             (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
           (i32.const 0)))",
        &text[..wake]
    );
    std::fs::write(path, wat::parse_str(slow).unwrap()).unwrap();
}

#[test]
fn control_z_holds_a_callback_and_fg_lets_it_go_on() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let play = |game: &str, count: u32, config: &str| {
        let game = terminal.file(game);
        slow(&game, count);
        terminal.cabinet(&format!("play {} {config}", game.display()));
    };
    // It is judged by what it takes, and the program ends.
    play("slow.wasm", 10 * COUNT, "--config host.deadline_ms=10");
    let screen = terminal.ended_with(1);
    assert!(screen.contains("deadline of 10ms passed"), "{screen}");
    // The longest deadline a room may have. It is in a callback nearly all the time.
    play(
        "quicker.wasm",
        COUNT,
        "--config host.deadline_ms=2000 --config host.heartbeat_ms=20",
    );
    terminal.shows("seat 1/1");
    for _ in 0..3 {
        terminal.press(&["C-z"]);
        terminal.shows("Stopped");
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            sleep(Duration::from_millis(50));
        }
        terminal.line("clear; fg");
        terminal.shows("seat 1/1");
        // Time in which it would have been judged.
        sleep(Duration::from_millis(500));
        terminal.shows("seat 1/1");
    }
    terminal.press(&["C-c"]);
    let screen = terminal.until("the shell", |screen| screen.contains("ready>"));
    assert!(!screen.contains("passed"), "{screen}");
}

#[test]
fn a_callback_that_is_held_longer_than_its_deadline_is_not_late() {
    let dir = tempfile::tempdir().unwrap();
    slow(&dir.path().join("slow.wasm"), COUNT);
    let wakes = "wake\n".repeat(200);
    std::fs::write(dir.path().join("s"), format!("join 0\n{wakes}")).unwrap();
    let deadline = format!("{}s", DEADLINE.as_secs());
    let mut child = Command::new(env!("CARGO_BIN_EXE_cabinet"))
        .args(["check", "slow.wasm", "--script", "s", "--deadline"])
        .arg(deadline)
        .arg("--json")
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let tell = |signal: &str| {
        let told = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(told.success(), "{signal}");
    };
    // It is in a callback nearly all the time, but for its start.
    let computed = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        // User time, hundredths of a second.
        fields.nth(11).unwrap().parse::<u64>().unwrap()
    };
    let mut stops = 0;
    while stops < STOPS && child.try_wait().unwrap().is_none() {
        if computed() < BETWEEN_STOPS * (stops + 1) {
            sleep(Duration::from_millis(2));
            continue;
        }
        tell("-STOP");
        let began = Instant::now();
        while began.elapsed() < DEADLINE + Duration::from_secs(1) {
            sleep(Duration::from_millis(50));
        }
        tell("-CONT");
        stops += 1;
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(stops, STOPS, "it was over too soon");
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    let verdicts = told["report"]["verdicts"].as_array().unwrap();
    let latency = verdicts
        .iter()
        .find(|one| one["name"] == "callback latency");
    assert_eq!(latency.unwrap()["judgement"], "pass", "{said}");
}
