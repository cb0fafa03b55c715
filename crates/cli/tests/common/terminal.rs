//! A real terminal for tests: a tmux server of its own, into which keys are typed and whose screen is
//! read.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::skip::skipped;

/// How long a screen may take to be as it should. Machines are slow and shared.
pub const WIDE: Duration = Duration::from_secs(90);

/// A tmux server of its own, with one window in which a shell waits.
pub struct Terminal {
    socket: String,
    pub home: tempfile::TempDir,
}

impl Terminal {
    /// `None` where there is no tmux.
    pub fn open(cols: u32, rows: u32) -> Option<Self> {
        static OPENED: AtomicU32 = AtomicU32::new(0);
        if Command::new("tmux").arg("-V").output().is_err() {
            skipped(
                "tmux",
                "it is not installed, nothing is tested in a terminal",
            );
            return None;
        }
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            socket: format!("cabinet-{}-{number}", std::process::id()),
            home: tempfile::tempdir().unwrap(),
        };
        let (cols, rows) = (cols.to_string(), rows.to_string());
        let shell = "exec env -i PATH=\"$PATH\" TERM=\"$TERM\" LANG=C.UTF-8 PS1='ready> ' sh -i";
        let opened = terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &cols,
            "-y",
            &rows,
            "sh",
            "-c",
            shell,
        ]);
        assert!(opened.status.success(), "{opened:?}");
        terminal.until("a shell", |screen| screen.contains("ready>"));
        // One cache for all: what is compiled once starts at once.
        terminal.line(&format!(
            "XDG_CACHE_HOME={}; export XDG_CACHE_HOME",
            cache().display()
        ));
        Some(terminal)
    }

    /// Has tmux do something with it.
    pub fn tmux(&self, args: &[&str]) -> Output {
        Command::new("tmux")
            .args(["-L", &self.socket])
            .args(args)
            .output()
            .unwrap()
    }

    /// The whole screen.
    pub fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the screen is as `wanted`, and returns it.
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(
                began.elapsed() < WIDE,
                "waited for {what}, the screen is:\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a text.
    pub fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// Presses keys by tmux's names.
    pub fn press(&self, keys: &[&str]) {
        let pressed = self.tmux(&[&["send-keys"], keys].concat());
        assert!(pressed.status.success(), "{pressed:?}");
    }

    /// Types text as it is.
    pub fn text(&self, text: &str) {
        self.press(&["-l", text]);
    }

    /// Types a command to the shell.
    pub fn line(&self, command: &str) {
        self.text(command);
        self.press(&["Enter"]);
    }

    /// Gives the window another size.
    pub fn resize(&self, cols: u32, rows: u32) {
        let (cols, rows) = (cols.to_string(), rows.to_string());
        let resized = self.tmux(&["resize-window", "-x", &cols, "-y", &rows]);
        assert!(resized.status.success(), "{resized:?}");
    }

    /// A file of this terminal's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs `cabinet` with these words, and has its exit code shown when it ends.
    pub fn cabinet(&self, words: &str) {
        let program = env!("CARGO_BIN_EXE_cabinet");
        self.line(&format!("clear; {program} {words}; echo \"code=$?\""));
    }

    /// The program is over with this code, and the screen is the shell's again.
    pub fn ended_with(&self, code: u32) -> String {
        let line = format!("code={code}");
        self.until(&line, |screen| {
            screen.lines().any(|shown| shown == line) && screen.contains("ready>")
        })
    }

    /// The settings of the terminal line, as `stty` says.
    pub fn settings(&self) -> String {
        let path = self.file("stty");
        let _ = std::fs::remove_file(&path);
        self.line(&format!(
            "stty -a > {0}.new; mv {0}.new {0}",
            path.display()
        ));
        let began = Instant::now();
        while !path.exists() {
            assert!(began.elapsed() < WIDE, "stty did not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(path).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// A cache directory for this run of the tests.
pub fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A game of `fixtures`.
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name);
    path.to_str().unwrap().to_owned()
}
