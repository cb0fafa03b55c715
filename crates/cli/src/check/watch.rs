//! Once more whenever a file of the game is saved.

use std::path::{Component, Path};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use notify::{Event, RecursiveMode, Watcher as _};

use crate::outcome::{Outcome, Problem};

/// Editors write a file in several goes; what follows within this time belongs to one save.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs `check` now and after every save below `game`, until the program is stopped.
pub(super) fn run(
    game: &Path,
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
    loop {
        if let Err(problem) = check() {
            errln!("cabinet: {problem}");
        }
        errln!("watching {}; stop with Ctrl-C", root.display());
        wait(&events, &root)?;
    }
}

/// Returns when something was saved and nothing more follows.
fn wait(events: &Receiver<notify::Result<Event>>, root: &Path) -> Result<(), Problem> {
    let gone = || Problem::new("nothing watches for changes any more; start again");
    loop {
        match events.recv() {
            Ok(Ok(event)) if is_save(&event, root) => break,
            Ok(_) => {}
            Err(_) => return Err(gone()),
        }
    }
    loop {
        match events.recv_timeout(SETTLE) {
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(gone()),
        }
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
            Ok(below) => !below.components().any(|part| match part {
                Component::Normal(name) => {
                    let name = name.to_string_lossy();
                    name.starts_with('.')
                        || name.ends_with('~')
                        || ["target", "smoke-out", "Cargo.lock"].contains(&name.as_ref())
                }
                _ => false,
            }),
        })
}

#[cfg(test)]
mod tests {
    use notify::EventKind;
    use notify::event::{AccessKind, CreateKind, ModifyKind};

    use super::*;

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
}
