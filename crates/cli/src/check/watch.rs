//! Once more whenever a file of the game is saved, until Ctrl-C.

use std::path::{Component, Path};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{Event, RecursiveMode, Watcher as _};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::outcome::{Outcome, Problem, remark};

/// Editors write a file in several goes; what follows within this time belongs to one save.
const SETTLE: Duration = Duration::from_millis(200);
/// Longest that saves which follow each other put a check off.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// What cargo and others leave in a directory of things that can be made again.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// Runs `check` now and after every save below `game` and of `script`, until Ctrl-C ends the process with the exit
/// code of the last check.
pub(super) fn run(
    game: &Path,
    script: Option<&Path>,
    check: &mut dyn FnMut() -> Result<Outcome, Problem>,
) -> Result<Outcome, Problem> {
    let cannot = |error: notify::Error| Problem::about("cannot watch for changes", &error);
    let root = game
        .canonicalize()
        .map_err(|error| Problem::about(game.display(), &error))?;
    let (sender, events) = channel();
    let mut watcher = notify::recommended_watcher(sender).map_err(cannot)?;
    // A file that is replaced is another file: its directory is what stays.
    let (dir, depth) = match root.parent() {
        Some(parent) if root.is_file() => (parent, RecursiveMode::NonRecursive),
        _ => (root.as_path(), RecursiveMode::Recursive),
    };
    watcher.watch(dir, depth).map_err(cannot)?;
    let about = |path: &Path, error| Problem::about(path.display(), &error);
    let script = script.map(|path| path.canonicalize().map_err(|error| about(path, error)));
    let script = script.transpose()?;
    if let Some(parent) = script.as_deref().and_then(Path::parent)
        && !(depth == RecursiveMode::Recursive && parent.starts_with(dir))
        && parent != dir
    {
        watcher
            .watch(parent, RecursiveMode::NonRecursive)
            .map_err(cannot)?;
    }
    let last = Arc::new(AtomicU8::new(Outcome::Unusable.code()));
    end_on_control_c(Arc::clone(&last))
        .map_err(|error| Problem::about("cannot listen for Ctrl-C", &error))?;
    loop {
        let outcome = check().unwrap_or_else(|problem| {
            remark(format_args!("cabinet: {problem}"));
            Outcome::Unusable
        });
        last.store(outcome.code(), Ordering::SeqCst);
        remark(format_args!(
            "watching {}; stop with Ctrl-C",
            root.display()
        ));
        wait(&events, &|event| {
            let also = script.as_ref().is_some_and(|script| {
                !event.kind.is_access() && !event.kind.is_other() && event.paths.contains(script)
            });
            also || is_save(event, &root)
        })?;
        if !dir.is_dir() {
            return Err(Problem::new(format!("{} is gone", dir.display())));
        }
    }
}

/// At any moment: what is being checked is of no use to who wants to stop.
fn end_on_control_c(code: Arc<AtomicU8>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT])?;
    thread::Builder::new()
        .name("cabinet-signals".into())
        .spawn(move || {
            if signals.forever().next().is_some() {
                process::exit(code.load(Ordering::SeqCst).into());
            }
        })?;
    Ok(())
}

/// Returns when something was saved and has settled.
fn wait(
    events: &Receiver<notify::Result<Event>>,
    is_save: &dyn Fn(&Event) -> bool,
) -> Result<(), Problem> {
    let mut saves = Saves::default();
    loop {
        let event = match saves.settled_at() {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(Ok(event)) if is_save(&event) => saves.add(Instant::now()),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                let gone = "nothing watches for changes any more; start again";
                return Err(Problem::new(gone));
            }
        }
    }
}

/// Saves that belong together.
#[derive(Debug, Default)]
struct Saves {
    /// When the first and the last of them were noticed.
    between: Option<(Instant, Instant)>,
}

impl Saves {
    fn add(&mut self, now: Instant) {
        let (first, _) = self.between.unwrap_or((now, now));
        self.between = Some((first, now));
    }

    /// When they are to be checked, unless another comes before.
    fn settled_at(&self) -> Option<Instant> {
        let (first, last) = self.between?;
        Some((last + SETTLE).min(first + SETTLE_MAX))
    }
}

/// Whether the event is about the game itself, and not what a build or an editor leaves beside it.
fn is_save(event: &Event, root: &Path) -> bool {
    if event.kind.is_access() || event.kind.is_other() {
        return false;
    }
    event
        .paths
        .iter()
        .any(|path| match path.strip_prefix(root) {
            Err(_) => false,
            Ok(below) => !below.components().any(is_left_behind) && !is_cached(path, root),
        })
}

fn is_left_behind(part: Component<'_>) -> bool {
    let Component::Normal(name) = part else {
        return false;
    };
    let name = name.to_string_lossy();
    name.starts_with('.')
        || name.ends_with('~')
        || ["target", "smoke-out", "Cargo.lock"].contains(&name.as_ref())
}

/// Whether a directory between the two says that what is in it can be made again: a build's target
/// directory, by any name.
fn is_cached(path: &Path, root: &Path) -> bool {
    path.ancestors()
        .take_while(|dir| *dir != root)
        .any(|dir| dir.join(CACHE_TAG).is_file())
}

#[cfg(test)]
mod tests {
    use notify::EventKind;
    use notify::event::{AccessKind, CreateKind, ModifyKind};

    use super::*;

    #[test]
    fn saves_settle_a_while_after_the_last_and_are_not_put_off_for_ever() {
        let mut saves = Saves::default();
        assert_eq!(saves.settled_at(), None);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        saves.add(start);
        assert_eq!(saves.settled_at(), Some(after(200)));
        saves.add(after(150));
        assert_eq!(saves.settled_at(), Some(after(350)));
        for millis in (300..=3_000).step_by(150) {
            saves.add(after(millis));
        }
        assert_eq!(saves.settled_at(), Some(after(2_000)));
    }

    #[test]
    fn a_source_that_is_saved_counts_and_what_a_build_leaves_does_not() {
        let of =
            |kind, path: &str| is_save(&Event::new(kind).add_path(path.into()), Path::new("/g"));
        let modified = EventKind::Modify(ModifyKind::Any);
        assert!(of(modified, "/g/src/lib.rs"));
        assert!(of(EventKind::Create(CreateKind::File), "/g/Cargo.toml"));
        assert!(of(modified, "/g"));
        for path in [
            "/g/target/x",
            "/g/.git/index",
            "/g/src/.lib.rs.swp",
            "/g/src/lib.rs~",
            "/h/x",
        ] {
            assert!(!of(modified, path), "{path}");
        }
        assert!(!of(EventKind::Access(AccessKind::Any), "/g/src/lib.rs"));
    }

    #[test]
    fn a_target_directory_of_any_name_is_known_by_its_tag() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("built/release")).unwrap();
        let event = |path: &str| {
            let kind = EventKind::Modify(ModifyKind::Any);
            is_save(&Event::new(kind).add_path(root.join(path)), root)
        };
        assert!(event("built/release/game.wasm"));
        std::fs::write(root.join("built").join(CACHE_TAG), "").unwrap();
        assert!(!event("built/release/game.wasm") && !event("built"));
        assert!(event("src/lib.rs"));
        // What a game's own directory is in is nobody's business here.
        std::fs::write(root.join(CACHE_TAG), "").unwrap();
        assert!(event("src/lib.rs"));
    }
}
