//! `play` and `replay` in a real terminal: keys are typed into tmux, its screen is read.
//!
//! Without tmux nothing is tested, and one line says so.
#![cfg(unix)]

use std::process::Command;
use std::time::{Duration, Instant};

use common::terminal::{Terminal, cache, fixture};

mod common;

/// The game's 24 rows of a screen of 100 × 30, without what is around them.
fn game_rows(screen: &str) -> Vec<String> {
    let lines: Vec<&str> = screen.lines().collect();
    let top = lines
        .iter()
        .position(|line| line.trim_start().starts_with("+--"))
        .unwrap();
    let inner = |line: &&str| {
        let line = line.trim_start().strip_prefix('|').unwrap_or(line);
        let line = line.trim_end();
        line.strip_suffix('|').unwrap_or(line).trim_end().to_owned()
    };
    lines[top + 1..top + 25].iter().map(inner).collect()
}

#[test]
fn a_player_joins_types_sees_it_and_control_c_gives_the_screen_back() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    terminal.line("echo before the game");
    let before = terminal.settings();
    terminal.cabinet(&format!(
        "play {} --seed 7 --config greeting=salve",
        fixture("tour.wasm")
    ));
    let screen = terminal.shows("TOUR");
    assert!(screen.contains("seat-1"), "{screen}");
    assert!(
        screen.contains("seat 1/1") && screen.contains("B/frame"),
        "{screen}"
    );
    assert!(!screen.contains("before the game"), "{screen}");
    terminal.press(&["z"]);
    terminal.shows("'z'");
    terminal.text("é");
    terminal.shows("'é'");
    terminal.press(&["Up"]);
    terminal.shows("Up");
    // A paste is typed, whatever is in it.
    terminal.tmux(&["set-buffer", "pq\u{3}Z"]);
    terminal.tmux(&["paste-buffer", "-p"]);
    terminal.shows("'Z'");
    terminal.press(&["C-c"]);
    let screen = terminal.ended_with(0);
    assert!(!screen.contains("TOUR"), "{screen}");
    assert_eq!(terminal.settings(), before);
    // The cursor is there again.
    let cursor = terminal.tmux(&["display-message", "-p", "#{cursor_flag} #{alternate_on}"]);
    assert_eq!(String::from_utf8_lossy(&cursor.stdout).trim(), "1 0");
}

#[test]
fn a_bare_escape_leaves_too() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    terminal.cabinet(&format!("play {}", fixture("tour.wasm")));
    terminal.shows("TOUR");
    terminal.press(&["Escape"]);
    terminal.ended_with(0);
}

#[test]
fn a_terminal_that_becomes_too_small_says_so_and_one_that_grows_shows_the_game_again() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    terminal.cabinet(&format!("play {} --seed 7", fixture("tour.wasm")));
    terminal.shows("TOUR");
    terminal.resize(60, 20);
    let small = terminal.shows("60x20.");
    assert!(!small.contains("TOUR"), "{small}");
    terminal.resize(80, 24);
    let exact = terminal.shows("TOUR");
    assert!(exact.lines().next().unwrap().starts_with("TOUR"), "{exact}");
    terminal.resize(120, 40);
    let large = terminal.until("a frame around it", |screen| {
        screen.contains("TOUR") && screen.contains("+-----")
    });
    assert!(large.contains("seat 1/1"), "{large}");
    terminal.press(&["C-c"]);
    terminal.ended_with(0);
}

#[test]
fn two_seats_take_turns_at_the_keyboard_and_each_sees_its_own_side() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let record = terminal.file("match.cabp");
    terminal.cabinet(&format!(
        "play {} --seats 2 --seed 7 --config rounds=1 --config turn_seconds=300 --record {}",
        fixture("fences.wasm"),
        record.display()
    ));
    let lobby = terminal.shows("2 farmers: Enter starts");
    assert!(
        lobby.contains("seat 1/2") && lobby.contains("REC"),
        "{lobby}"
    );
    assert!(lobby.contains("match of 1 rounds"), "{lobby}");
    terminal.press(&["Enter"]);
    let first = terminal.shows("Your turn");
    let open = |screen: &str| fences_open(screen).unwrap();
    // Seat 1 draws a fence, then seat 2, whose turn it was not.
    terminal.press(&["C-t"]);
    terminal.until("the other side", |screen| {
        screen.contains("seat 2/2") && screen.contains("seat-1 draws")
    });
    terminal.press(&["C-t"]);
    terminal.shows("Your turn");
    terminal.press(&["w"]);
    let drawn = terminal.shows("seat-2 draws");
    assert_eq!(open(&drawn), open(&first) - 1);
    terminal.press(&["C-t"]);
    terminal.shows("Your turn");
    terminal.press(&["d"]);
    let drawn = terminal.shows("seat-1 draws");
    assert_eq!(open(&drawn), open(&first) - 2);
    let second = game_rows(&drawn);
    terminal.press(&["C-c"]);
    terminal.ended_with(0);

    // The same screens again, one of each seat.
    let program = env!("CARGO_BIN_EXE_cabinet");
    let output = Command::new(program)
        .args(["replay", record.to_str().unwrap(), "--dump", "--seat", "2"])
        .env("XDG_CACHE_HOME", cache())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.windows(24).any(|rows| rows == second);
    assert!(shown, "{second:#?}\nis not among\n{text}");
}

/// How many fences are left, as the panel says.
fn fences_open(screen: &str) -> Option<u32> {
    let words: Vec<&str> = screen.split_whitespace().collect();
    let at = words.windows(2).position(|two| two == ["fences", "open"])?;
    words[at.checked_sub(1)?].parse().ok()
}

/// Keys that draw the open fence nearest to the cursor of who is looking.
fn keys_to_a_fence(rows: &[String]) -> Option<Vec<&'static str>> {
    let grid: Vec<Vec<char>> = rows.iter().map(|row| row.chars().collect()).collect();
    let at = |row: usize, col: usize| grid[row].get(col).copied().unwrap_or(' ');
    // Posts are six columns and three rows apart.
    let post = |row: usize, col: usize| (3 + 3 * row, 3 + 6 * col);
    let posts = || (0..6).flat_map(|row| (0..9).map(move |col| (row, col)));
    let cursor = posts().find(|(row, col)| {
        let (row, col) = post(*row, *col);
        at(row, col) == '◉'
    })?;
    let open = posts().flat_map(|(row, col)| {
        let (top, left) = post(row, col);
        let right = (col < 8 && at(top, left + 1) != '━').then_some(("d", row, col));
        let below = (row < 5 && at(top + 1, left) != '┃').then_some(("s", row, col));
        right.into_iter().chain(below)
    });
    let far = |row: usize, col: usize| row.abs_diff(cursor.0) + col.abs_diff(cursor.1);
    let (key, row, col) = open.min_by_key(|(_, row, col)| far(*row, *col))?;
    let mut keys = Vec::new();
    let vertical = if row > cursor.0 { "Down" } else { "Up" };
    let horizontal = if col > cursor.1 { "Right" } else { "Left" };
    keys.extend(std::iter::repeat_n(vertical, row.abs_diff(cursor.0)));
    keys.extend(std::iter::repeat_n(horizontal, col.abs_diff(cursor.1)));
    keys.push(key);
    Some(keys)
}

#[test]
fn a_match_is_played_to_its_end_and_somebody_wins() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    terminal.cabinet(&format!(
        "play {} --seats 2 --seed 7 --config rounds=1 --config turn_seconds=300",
        fixture("fences.wasm"),
    ));
    terminal.shows("Enter starts");
    terminal.press(&["Enter"]);
    let over = |screen: &str| screen.contains("OVER: any key leaves");
    // A screen read in the middle of being drawn may mislead: then it is looked at again.
    for _ in 0..1_000 {
        let screen = terminal.until("somebody's turn", |screen| {
            screen.contains("Your turn") || screen.contains(" draws") || over(screen)
        });
        if over(&screen) {
            break;
        }
        if !screen.contains("Your turn") {
            terminal.press(&["C-t"]);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                let screen = terminal.screen();
                if screen.contains("Your turn") || over(&screen) {
                    break;
                }
            }
            continue;
        }
        let Some(keys) = keys_to_a_fence(&game_rows(&screen)) else {
            continue;
        };
        terminal.press(&keys);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            let after = terminal.screen();
            if over(&after) || fences_open(&after) < fences_open(&screen) {
                break;
            }
        }
    }
    let screen = terminal.shows("OVER: any key leaves");
    assert_eq!(fences_open(&screen), Some(0), "{screen}");
    let said = ["The field is yours!", "wins the match", "A draw"];
    assert!(said.iter().any(|said| screen.contains(said)), "{screen}");
    terminal.press(&["Enter"]);
    let screen = terminal.ended_with(0);
    assert!(screen.contains(" 1. seat-"), "{screen}");
}

#[test]
fn a_game_that_ends_is_looked_at_until_a_key_is_pressed_and_its_result_is_printed() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    terminal.cabinet(&format!("play {} --seats 2", fixture("tour.wasm")));
    terminal.shows("TOUR");
    terminal.press(&["e"]);
    let over = terminal.shows("OVER: any key leaves");
    assert!(over.contains("TOUR"), "{over}");
    terminal.press(&["x"]);
    let screen = terminal.ended_with(0);
    assert!(
        screen.contains("seat-1") && screen.contains("finished"),
        "{screen}"
    );
}

#[test]
fn a_guest_that_crashes_gives_the_terminal_back_and_says_why() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let before = terminal.settings();
    for (key, says) in [
        ("u", "unreachable"),
        ("p", "asked to by seat"),
        ("x", "exit in input"),
    ] {
        let log = terminal.file(&format!("{key}.log"));
        terminal.cabinet(&format!(
            "play {} --log {}",
            fixture("misbehave.wasm"),
            log.display()
        ));
        terminal.shows("Ctrl-C leave");
        terminal.press(&[key]);
        let screen = terminal.ended_with(1);
        // All that is shown of the log is in the file, a panic's words among it.
        let logged = std::fs::read_to_string(&log).unwrap();
        let shown = screen
            .lines()
            .filter_map(|line| line.split_once("log       "));
        for (_, line) in shown {
            let begins: String = line.trim_end().chars().take(60).collect();
            assert!(logged.contains(&begins), "{line} is not in {logged}");
        }
        assert_eq!(logged.contains("asked to by seat"), key == "p", "{logged}");
        assert!(
            screen.contains("the game failed") && screen.contains(says),
            "{screen}"
        );
        assert!(!screen.contains("Ctrl-C leave"), "{screen}");
    }
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_signal_that_ends_it_gives_the_terminal_back_and_is_seen_by_who_started_it() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let before = terminal.settings();
    let program = env!("CARGO_BIN_EXE_cabinet");
    // A shell that sees its command die of SIGINT runs nothing after it, so there it is not asked.
    for (signal, code) in [("TERM", Some(143)), ("INT", None), ("HUP", Some(129))] {
        let pid = terminal.file(signal);
        terminal.line(&format!(
            "clear; (sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec {program} play {1}'); echo \"code=$?\"",
            pid.display(),
            fixture("tour.wasm")
        ));
        terminal.shows("TOUR");
        let number = std::fs::read_to_string(&pid).unwrap();
        let killed = Command::new("kill")
            .args([&format!("-{signal}"), number.trim()])
            .status();
        assert!(killed.unwrap().success());
        let screen = match code {
            Some(code) => terminal.ended_with(code),
            None => terminal.until("the shell", |screen| {
                screen.contains("ready>") && !screen.contains("TOUR")
            }),
        };
        assert!(!screen.contains("TOUR"), "{screen}");
        assert_eq!(terminal.settings(), before, "after SIG{signal}");
    }
}

#[test]
fn control_z_gives_the_screen_to_the_shell_and_fg_takes_it_again() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let before = terminal.settings();
    let record = terminal.file("stopped.cabp");
    terminal.cabinet(&format!(
        "play {} --seed 7 --record {}",
        fixture("tour.wasm"),
        record.display()
    ));
    terminal.shows("TOUR");
    for key in ["b", "g"] {
        terminal.press(&["C-z"]);
        let screen = terminal.until("the shell", |screen| {
            screen.contains("Stopped") && screen.trim_end().ends_with("ready>")
        });
        assert!(!screen.contains("TOUR"), "{screen}");
        assert_eq!(terminal.settings(), before);
        terminal.line("clear; fg");
        terminal.shows("TOUR");
        // Raw mode is back: a key is a key at once.
        terminal.press(&[key]);
        terminal.shows(&format!("'{key}'"));
    }
    // A size that changed meanwhile is noticed.
    terminal.press(&["C-z"]);
    terminal.shows("Stopped");
    terminal.resize(60, 20);
    terminal.line("clear; fg");
    terminal.shows("60x20.");
    terminal.resize(100, 30);
    terminal.shows("TOUR");
    terminal.press(&["C-c"]);
    terminal.until("the shell", |screen| {
        screen.contains("ready>") && !screen.contains("TOUR")
    });
    assert_eq!(terminal.settings(), before);

    // So it is with what is looked at again.
    terminal.cabinet(&format!("replay {}", record.display()));
    terminal.shows("PAUSE");
    terminal.press(&["C-z"]);
    terminal.shows("Stopped");
    assert_eq!(terminal.settings(), before);
    terminal.line("clear; fg");
    terminal.shows("PAUSE");
    terminal.press(&["q"]);
    terminal.until("the shell", |screen| {
        screen.contains("ready>") && !screen.contains("PAUSE")
    });
    assert_eq!(terminal.settings(), before);
}

#[test]
fn who_was_stopped_without_notice_takes_the_terminal_again_too() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let before = terminal.settings();
    let pid = terminal.file("pid");
    let program = env!("CARGO_BIN_EXE_cabinet");
    terminal.line(&format!(
        "clear; sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec {program} play {1}'",
        pid.display(),
        fixture("tour.wasm")
    ));
    terminal.shows("TOUR");
    let number = std::fs::read_to_string(&pid).unwrap();
    let kill = |signal: &str| {
        let killed = Command::new("kill").args([signal, number.trim()]).status();
        assert!(killed.unwrap().success());
    };
    kill("-STOP");
    // The terminal is as the game left it; the shell makes it its own.
    terminal.text("stty sane; clear; fg");
    terminal.press(&["C-j"]);
    terminal.shows("TOUR");
    terminal.press(&["z"]);
    terminal.shows("'z'");
    terminal.press(&["C-c"]);
    terminal.until("the shell", |screen| {
        screen.contains("ready>") && !screen.contains("TOUR")
    });
    assert_eq!(terminal.settings(), before);
}

#[test]
fn control_z_stops_nothing_that_no_shell_could_let_go_on() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    // A window whose one program is the game.
    let opened = terminal.tmux(&[
        "new-window",
        "-e",
        &format!("XDG_CACHE_HOME={}", cache().display()),
        env!("CARGO_BIN_EXE_cabinet"),
        "play",
        &fixture("tour.wasm"),
    ]);
    assert!(opened.status.success(), "{opened:?}");
    terminal.shows("TOUR");
    terminal.press(&["C-z", "b"]);
    terminal.shows("'b'");
    terminal.press(&["C-c"]);
    terminal.shows("ready>");
}

#[test]
fn what_was_recorded_is_seen_again_forward_and_backward() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let record = terminal.file("tour.cabp");
    terminal.cabinet(&format!(
        "play {} --seats 2 --seed 7 --record {}",
        fixture("tour.wasm"),
        record.display()
    ));
    terminal.shows("TOUR");
    // What each key led to, without the clock and the counter of wakes, which go on.
    let still = |screen: &str| -> Vec<String> {
        let rows = game_rows(screen);
        rows.into_iter()
            .filter(|row| !row.contains("wakes=") && !row.contains("now="))
            .collect()
    };
    let mut live = Vec::new();
    for key in ["b", "g", "j"] {
        terminal.press(&[key]);
        live.push(still(&terminal.shows(&format!("'{key}'"))));
    }
    terminal.press(&["C-c"]);
    terminal.ended_with(0);

    terminal.cabinet(&format!("replay {}", record.display()));
    terminal.shows("PAUSE");
    terminal.press(&["Home"]);
    terminal.shows("step 0/");
    // Forward, callback by callback, until each key was pressed; then back again.
    let go = |direction: &str, key: &str| {
        for _ in 0..2_000 {
            let before = terminal.shows("seat 1/2");
            let status = before.lines().last().unwrap_or_default().to_owned();
            if status.contains(&format!("input 1 '{key}'")) {
                return still(&before);
            }
            terminal.press(&[direction]);
            terminal.until("the next step", |screen| {
                screen.lines().last().is_some_and(|line| line != status)
            });
        }
        panic!("'{key}' was not reached");
    };
    for (key, seen) in ["b", "g", "j"].iter().zip(&live) {
        assert_eq!(&go("Right", key), seen, "'{key}' forward");
    }
    for (key, seen) in ["b", "g", "j"].iter().zip(&live).rev() {
        assert_eq!(&go("Left", key), seen, "'{key}' backward");
    }
    terminal.press(&["Tab"]);
    terminal.shows("seat 2/2");
    terminal.press(&["5", "Enter"]);
    terminal.shows("step 5/");
    terminal.press(&["q"]);
    terminal.ended_with(0);
}

#[test]
fn a_snake_is_steered_and_the_arena_is_drawn_for_a_terminal_without_utf8_or_colours() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    terminal.cabinet(&format!(
        "play {} --ascii --color none",
        fixture("coil.wasm")
    ));
    terminal.shows("Ctrl-C leave");
    let screen = terminal.until("something drawn", |screen| {
        game_rows(screen).iter().any(|row| !row.is_empty())
    });
    assert!(screen.is_ascii(), "{screen}");
    let before = game_rows(&screen);
    terminal.press(&["Up"]);
    terminal.until("a move", |screen| game_rows(screen) != before);
    let coloured = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(!String::from_utf8_lossy(&coloured.stdout).contains("38;2;"));
    terminal.press(&["C-c"]);
    terminal.ended_with(0);
}

/// Says that this very program is to take the terminal and panic.
const PANICS: &str = "CABINET_TEST_PANICS";

#[test]
fn a_panic_gives_the_terminal_back_and_is_told() {
    if std::env::var_os(PANICS).is_some() {
        let (to, _from) = std::sync::mpsc::channel();
        let tty = cabinet_cli::term::tty::Tty::take(&to, |told| told).unwrap();
        tty.write("the screen of a game").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        panic!("as asked for");
    }
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let before = terminal.settings();
    let this = std::env::current_exe().unwrap();
    terminal.line(&format!(
        "clear; {PANICS}=1 {} --exact a_panic_gives_the_terminal_back_and_is_told --nocapture; echo \"code=$?\"",
        this.display()
    ));
    let screen = terminal.ended_with(101);
    assert!(screen.contains("as asked for"), "{screen}");
    assert!(!screen.contains("the screen of a game"), "{screen}");
    assert_eq!(terminal.settings(), before);
}
