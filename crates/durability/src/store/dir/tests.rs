//! Every step of a put fails once, and the process dies at every step: what is there afterwards is
//! the old object or the new one, whole.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::files::{Gate, Pass, Step};
use super::*;

const OLD: &[u8] = b"the old object";
const NEW: &[u8] = b"the new object, which is longer";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    /// One step fails, and half of it is done.
    Once,
    /// Nothing works from that step on: the process is gone.
    Crash,
}

#[derive(Clone)]
struct Closed {
    at: usize,
    failing: Failing,
    steps: Arc<Mutex<Vec<Step>>>,
    met: Arc<AtomicUsize>,
}

impl Closed {
    fn at(at: usize, failing: Failing) -> Self {
        Self {
            at,
            failing,
            steps: Arc::default(),
            met: Arc::default(),
        }
    }

    fn steps(&self) -> Vec<Step> {
        self.steps.lock().expect("no test panics with it").clone()
    }
}

impl Gate for Closed {
    fn pass(&self, step: Step) -> Pass {
        self.steps
            .lock()
            .expect("no test panics with it")
            .push(step);
        let index = self.met.fetch_add(1, Ordering::Relaxed);
        match self.failing {
            Failing::Once | Failing::Crash if index == self.at => Pass::Torn,
            Failing::Crash if index > self.at => Pass::Fail,
            _ => Pass::Go,
        }
    }
}

fn key(name: &str) -> Key {
    Key::new(name).expect("a key")
}

fn gated(root: &Path, gate: &Closed) -> DirStore {
    let root = fs::canonicalize(root).expect("it is there");
    DirStore::new(root, Access::Sealed, Files::behind(Box::new(gate.clone())))
}

async fn put_empty(store: &DirStore, name: &str) {
    let put = store.put(&key(name), Bytes::new(), Condition::None).await;
    put.expect("the put");
}

async fn seen(root: &Path, key: &Key) -> Option<Bytes> {
    let store = DirStore::open(root).expect("it opens");
    let blob = store
        .get(key, Want::Whole { max: 1 << 20 })
        .await
        .expect("it reads");
    blob.map(|blob| blob.bytes)
}

async fn put_failing_everywhere(failing: Failing, condition: fn(Version) -> Condition) -> usize {
    let object = key("rooms/one/head");
    for at in 0.. {
        let root = tempfile::tempdir().expect("a directory");
        let old = DirStore::open(root.path())
            .expect("it opens")
            .put(&object, Bytes::from_static(OLD), Condition::None)
            .await
            .expect("the first put");
        let gate = Closed::at(at, failing);
        let store = gated(root.path(), &gate);
        let answer = store
            .put(&object, Bytes::from_static(NEW), condition(old))
            .await;
        let steps = gate.steps();
        let there = seen(root.path(), &object).await.expect("an object");
        let renamed = steps.iter().position(|step| *step == Step::Rename);
        match answer {
            Ok(_) => assert_eq!(there, NEW, "step {at}"),
            Err(StoreError::Ambiguous(_)) => assert!(there == NEW || there == OLD, "step {at}"),
            Err(StoreError::Unavailable(_)) => {
                assert_eq!(there, OLD, "step {at}");
                assert!(renamed.is_none_or(|renamed| renamed >= at), "step {at}");
            }
            Err(other) => panic!("step {at}: {other:?}"),
        }
        let page = DirStore::open(root.path())
            .expect("it opens")
            .list("", None, 10)
            .await
            .expect("it lists");
        assert_eq!(page.entries.len(), 1, "step {at}: a leftover is listed");
        assert_eq!(page.foreign, 0, "step {at}");
        if steps.len() <= at {
            return at;
        }
    }
    unreachable!("a put has an end")
}

#[tokio::test]
async fn a_put_whose_every_step_fails_once_leaves_the_old_object_or_the_new_one() {
    let steps = put_failing_everywhere(Failing::Once, |_| Condition::None).await;
    assert!(steps >= 10, "{steps}");
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_leaves_the_old_object_or_the_new_one() {
    put_failing_everywhere(Failing::Crash, |_| Condition::None).await;
    let steps = put_failing_everywhere(Failing::Crash, Condition::Matches).await;
    assert!(steps >= 12, "{steps}");
}

#[tokio::test]
async fn a_delete_that_dies_at_any_step_leaves_the_object_whole_or_gone() {
    for at in 0..4 {
        let root = tempfile::tempdir().expect("a directory");
        let object = key("a/b");
        let store = DirStore::open(root.path()).expect("it opens");
        let put = store.put(&object, Bytes::from_static(OLD), Condition::None);
        put.await.expect("the put");
        let gate = Closed::at(at, Failing::Crash);
        let answer = gated(root.path(), &gate)
            .delete(std::slice::from_ref(&object))
            .await;
        let there = seen(root.path(), &object).await;
        assert!(there.is_none() || there.is_some_and(|there| there == OLD));
        assert_eq!(answer.is_ok(), gate.steps().len() <= at, "step {at}");
    }
}

#[tokio::test]
async fn content_is_synced_before_it_has_its_name_and_the_name_before_the_answer() {
    let root = tempfile::tempdir().expect("a directory");
    let gate = Closed::at(usize::MAX, Failing::Once);
    let store = gated(root.path(), &gate);
    let object = key("a/b");
    for _ in 0..2 {
        let put = store.put(&object, Bytes::from_static(NEW), Condition::None);
        put.await.expect("the put");
    }
    use Step::{Create, Lock, MakeDirectory, Rename, SyncDirectory, SyncFile, Write};
    let put = [Create, Write, SyncFile, Lock, Rename, SyncDirectory];
    // The first put also makes the directory of locks, and locks again.
    let first = [
        MakeDirectory,
        SyncDirectory,
        Create,
        Write,
        SyncFile,
        Lock,
        MakeDirectory,
        Lock,
        Rename,
        SyncDirectory,
    ];
    assert_eq!(gate.steps(), [&first[..], &put[..]].concat());
    assert_eq!(store.syncs(), 5);
}

#[tokio::test]
async fn leftovers_are_no_objects_and_a_sweep_removes_the_old_ones() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirStore::open(root.path()).expect("it opens");
    store
        .put(&key("a/b"), Bytes::from_static(OLD), Condition::None)
        .await
        .expect("the put");
    let leftover = root.path().join("a+/.tmp-1-1");
    fs::write(&leftover, "half").expect("it is written");
    let written = fs::metadata(&leftover)
        .and_then(|metadata| metadata.modified())
        .expect("it has a time");
    let second = Duration::from_secs(1);
    assert_eq!(store.sweep_unfinished(written).await.expect("a sweep"), 0);
    let later = written + second;
    assert_eq!(store.sweep_unfinished(later).await.expect("a sweep"), 1);
    assert!(!leftover.exists());
    assert_eq!(seen(root.path(), &key("a/b")).await.expect("still"), OLD);
}

#[tokio::test]
async fn names_of_others_are_counted_once_over_all_pages() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirStore::open(root.path()).expect("it opens");
    for name in ["a/b", "c", "d"] {
        put_empty(&store, name).await;
    }
    fs::create_dir(root.path().join("bare")).expect("a directory");
    fs::write(root.path().join("UPPER"), "x").expect("a file");
    fs::write(root.path().join("z z"), "x").expect("a file");
    let (mut after, mut foreign, mut keys) = (None::<String>, 0, Vec::new());
    loop {
        let page = store.list("", after.as_deref(), 1).await.expect("a page");
        foreign += page.foreign;
        keys.extend(page.entries.into_iter().map(|entry| entry.key.to_string()));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(keys, ["a/b", "c", "d"]);
    assert_eq!(foreign, 3);
    let page = store.list("", None, 10).await.expect("a page");
    assert_eq!((page.entries.len(), page.foreign), (3, 3));
}

#[tokio::test]
async fn a_deep_prefix_reads_no_directory_beside_it() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirStore::open(root.path()).expect("it opens");
    for name in ["rooms/a/1", "rooms/a/2", "rooms/b/1"] {
        put_empty(&store, name).await;
    }
    // Met only by whoever reads `rooms+` itself.
    fs::write(root.path().join("rooms+/UPPER"), "x").expect("a file");
    let page = store.list("rooms/a/", None, 10).await.expect("a page");
    assert_eq!(page.entries.len(), 2);
    assert_eq!(page.foreign, 0);
    for none in ["rooms/../", "Rooms/", "/", "rooms//", "absent/deep/er"] {
        let page = store.list(none, None, 10).await.expect("a page");
        assert_eq!(page, Page::default(), "{none}");
    }
}

#[tokio::test]
async fn a_directory_of_the_reference_is_read_and_not_written() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("snapshots")).expect("a directory");
    fs::write(root.path().join("snapshots/one"), OLD).expect("a file");
    fs::write(root.path().join("snapshots/.tmp-1"), "half").expect("a file");
    let store = DirStore::reference_layout(root.path()).expect("it opens");
    let whole = Want::Whole { max: 100 };
    let got = store
        .get(&key("snapshots/one"), whole)
        .await
        .expect("it reads");
    assert_eq!(got.expect("an object").bytes, OLD);
    for missing in ["snapshots", "snapshots/two", "snapshots/one/deeper"] {
        let got = store.get(&key(missing), whole).await.expect("it reads");
        assert_eq!(got, None, "{missing}");
    }
    let page = store.list("snap", None, 10).await.expect("a page");
    assert_eq!(page.entries.len(), 1);
    assert_eq!((page.foreign, store.allows_unsealed()), (0, false));
    let put = store.put(&key("a"), Bytes::new(), Condition::None).await;
    assert!(matches!(put, Err(StoreError::Refused(_))));
    let delete = store.delete(&[key("snapshots/one")]).await;
    assert!(matches!(delete, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn a_directory_removed_behind_the_stores_back_is_made_again() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirStore::unsealed_for_development(root.path().join("deep/er")).expect("it opens");
    for _ in 0..2 {
        put_empty(&store, "a/b").await;
        fs::remove_dir_all(root.path().join("deep/er/a+")).expect("it was there");
    }
    assert!(store.allows_unsealed());
}

#[cfg(unix)]
fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_in_an_objects_place_is_refused_and_not_waited_for() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirStore::unsealed_for_development(root.path()).expect("it opens");
    put_empty(&store, "a/b").await;
    let path = root.path().join("a+/b");
    fs::remove_file(&path).expect("it was there");
    make_pipe(&path);
    let name = key("a/b");
    let got = store.get(&name, Want::Whole { max: 100 });
    let got = tokio::time::timeout(std::time::Duration::from_secs(60), got).await;
    assert!(matches!(got, Ok(Err(StoreError::Refused(_)))), "{got:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_in_a_locks_place_is_refused_and_not_waited_for() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirStore::unsealed_for_development(root.path()).expect("it opens");
    put_empty(&store, "a/b").await;
    let locks = fs::read_dir(root.path().join(LOCKS)).expect("it locks");
    for lock in locks {
        let path = lock.expect("it lists").path();
        fs::remove_file(&path).expect("it was there");
        make_pipe(&path);
    }
    let name = key("a/b");
    let put = store.put(&name, Bytes::new(), Condition::None);
    let put = tokio::time::timeout(std::time::Duration::from_secs(60), put).await;
    assert!(matches!(put, Ok(Err(StoreError::Refused(_)))), "{put:?}");
    let names = [name];
    let deleted = tokio::time::timeout(std::time::Duration::from_secs(60), store.delete(&names));
    let deleted = deleted.await;
    assert!(
        matches!(deleted, Ok(Err(StoreError::Refused(_)))),
        "{deleted:?}"
    );
}

/// Puts something else in a directory's place when it is to be synced.
#[cfg(unix)]
struct Swapped {
    directory: PathBuf,
    put: fn(&Path),
}

#[cfg(unix)]
impl Gate for Swapped {
    fn pass(&self, step: Step) -> Pass {
        if step == Step::SyncDirectory {
            let away = self.directory.with_extension("away");
            fs::rename(&self.directory, away).expect("it was there");
            (self.put)(&self.directory);
        }
        Pass::Go
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_swapped_for_a_directory_is_not_waited_for_and_the_put_says_it_does_not_know() {
    let puts: [fn(&Path); 3] = [
        make_pipe,
        |path| fs::write(path, "a file").expect("it is written"),
        // A link that leads nowhere.
        |path| std::os::unix::fs::symlink("nowhere", path).expect("it links"),
    ];
    for put in puts {
        let root = tempfile::tempdir().expect("a directory");
        let store = DirStore::open(root.path()).expect("it opens");
        put_empty(&store, "a/b").await;
        let directory = root.path().join("a+");
        let files = Files::behind(Box::new(Swapped {
            directory: directory.clone(),
            put,
        }));
        let store = DirStore::new(root.path().into(), Access::Sealed, files);
        store.inner.settled().insert(directory);
        let name = key("a/c");
        let put = store.put(&name, Bytes::new(), Condition::None);
        let put = tokio::time::timeout(Duration::from_secs(60), put).await;
        assert!(matches!(put, Ok(Err(StoreError::Ambiguous(_)))), "{put:?}");
        assert_eq!(store.syncs(), 1, "of the file alone");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_a_directory_is_followed() {
    let root = tempfile::tempdir().expect("a directory");
    let elsewhere = tempfile::tempdir().expect("another");
    std::os::unix::fs::symlink(elsewhere.path(), root.path().join("a+")).expect("it links");
    let store = DirStore::open(root.path()).expect("it opens");
    put_empty(&store, "a/b").await;
    assert!(elsewhere.path().join("b").is_file());
    assert!(seen(root.path(), &key("a/b")).await.is_some());
}
