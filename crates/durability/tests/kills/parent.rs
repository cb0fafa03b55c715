//! The parent: starts children, kills them, and looks at what they left.

use std::env;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write as _};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cabinet_durability::store::{BlobStore, DELETE_KEYS_MAX, DirStore, Want};
use cabinet_durability::{Epoch, RoomId, RoomIds, RoomObject, Standing, VaultError, Written};

use super::child::Errand;
use super::history::History;
use super::line::{At, Did, Line, Mark};
use super::place::{ARTIFACT, Dice, Place, mark, now_ms, state, take};

/// Lines that a child says at most before it is killed.
const LINES_MAX: u64 = 60;
/// Turns of a busy loop at most before a kill: some milliseconds, several requests.
const SPINS_MAX: u64 = 300_000;

/// Kills that many children over a room in `place`; `test` is the test to start for a child.
pub fn run(test: &str, place: &Place, default: u64) {
    let kills = asked("CABINET_KILLS", default);
    let seed = asked("CABINET_KILL_SEED", 1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let room = RoomIds::default().next(now_ms(), [5; 8]);
    let mut parent = Parent {
        test,
        place,
        room,
        seed,
        dice: Dice::new(seed),
        children: 0,
        killed: 0,
        leftovers: 0,
        history: History::default(),
    };
    while parent.killed < kills {
        let children = parent.children;
        parent.round();
        runtime.block_on(parent.look());
        // A round that kills nobody fenced somebody.
        assert!(parent.children > children);
    }
    runtime.block_on(parent.write_again());
    parent.summarise();
}

fn asked(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}")),
        Err(_) => default,
    }
}

struct Parent<'a> {
    test: &'a str,
    place: &'a Place,
    room: RoomId,
    seed: u64,
    dice: Dice,
    /// Children so far, this process included whenever it took the room.
    children: u64,
    killed: u64,
    /// Temporary files that kills left.
    leftovers: u64,
    history: History,
}

impl Parent<'_> {
    fn round(&mut self) {
        match self.dice.below(8) {
            0..=3 => self.kill_one_that_is_alone(),
            4 | 5 => self.kill_one_that_fenced_another(),
            6 => self.kill_one_amid_its_claim(),
            _ => self.kill_one_amid_anothers_claim(),
        }
    }

    fn kill_one_that_is_alone(&mut self) {
        let mut stage = Stage::open();
        let only = self.start(&mut stage);
        stage.is_complete();
        self.hear_some(&mut stage);
        assert!(!self.history.is_fenced(only), "{only} was fenced by nobody");
        self.kill(&mut stage, only);
        self.hear_the_rest(stage);
    }

    fn kill_one_that_fenced_another(&mut self) {
        let mut stage = Stage::open();
        let older = self.start(&mut stage);
        self.hear_until(&mut stage, |history| history.has_taken(older));
        self.hear_some(&mut stage);
        let newer = self.start(&mut stage);
        stage.is_complete();
        // It must come: the newer one does not rest before it has the room.
        self.hear_until(&mut stage, |history| history.is_fenced(older));
        self.hear_some(&mut stage);
        assert!(!self.history.is_fenced(newer), "the older one fenced it");
        self.kill(&mut stage, newer);
        self.hear_the_rest(stage);
    }

    /// The older one is fenced, or is not.
    fn kill_one_amid_its_claim(&mut self) {
        let mut stage = Stage::open();
        let older = self.start(&mut stage);
        self.hear_until(&mut stage, |history| history.has_taken(older));
        self.hear_some(&mut stage);
        let newer = self.start(&mut stage);
        stage.is_complete();
        for _ in 0..self.dice.below(LINES_MAX) {
            self.hear(&mut stage);
        }
        self.kill(&mut stage, newer);
        for _ in 0..self.dice.below(LINES_MAX) {
            if self.history.is_fenced(older) || !self.hear(&mut stage) {
                break;
            }
        }
        if !self.history.is_fenced(older) {
            self.kill(&mut stage, older);
        }
        self.hear_the_rest(stage);
    }

    fn kill_one_amid_anothers_claim(&mut self) {
        let mut stage = Stage::open();
        let older = self.start(&mut stage);
        self.hear_until(&mut stage, |history| history.has_taken(older));
        self.hear_some(&mut stage);
        let newer = self.start(&mut stage);
        stage.is_complete();
        for _ in 0..self.dice.below(LINES_MAX) {
            self.hear(&mut stage);
        }
        self.kill(&mut stage, older);
        self.hear_until(&mut stage, |history| history.has_taken(newer));
        self.hear_some(&mut stage);
        assert!(!self.history.is_fenced(newer), "the dead one fenced it");
        self.kill(&mut stage, newer);
        self.hear_the_rest(stage);
    }

    fn start(&mut self, stage: &mut Stage) -> u64 {
        self.children += 1;
        let errand = Errand {
            place: self.place.clone(),
            room: self.room,
            child: self.children,
            seed: self.seed,
        };
        stage.start(&errand, self.test);
        self.children
    }

    /// Kills a child somewhere amid what it does next.
    fn kill(&mut self, stage: &mut Stage, child: u64) {
        for _ in 0..self.dice.below(SPINS_MAX) {
            std::hint::spin_loop();
        }
        let running = stage.running.iter_mut().find(|one| one.number == child);
        let running = running.expect("it was started");
        // SIGKILL. One that was fenced meanwhile may have ended.
        running.process.kill().expect("it is ours to kill");
        running.is_killed = true;
        self.killed += 1;
    }

    /// Hears one line; false when everybody is gone.
    fn hear(&mut self, stage: &mut Stage) -> bool {
        let mut text = String::new();
        while stage.lines.read_line(&mut text).expect("lines") > 0 {
            if let Some(line) = Line::read(&text) {
                self.history.hear(line);
                return true;
            }
            text.clear();
        }
        false
    }

    fn hear_some(&mut self, stage: &mut Stage) {
        for _ in 0..self.dice.below(LINES_MAX) {
            assert!(self.hear(stage), "all ended by themselves");
        }
    }

    fn hear_until(&mut self, stage: &mut Stage, mut until: impl FnMut(&History) -> bool) {
        while !until(&self.history) {
            assert!(self.hear(stage), "all ended by themselves");
        }
    }

    /// What was said before the kills, though it is heard after.
    fn hear_the_rest(&mut self, mut stage: Stage) {
        while self.hear(&mut stage) {}
        for running in &mut stage.running {
            let status = running.process.wait().expect("it was started");
            let child = running.number;
            let fine = match running.is_killed {
                true => !status.success() || self.history.is_fenced(child),
                false => status.success() && self.history.is_fenced(child),
            };
            assert!(fine, "child {child} ended by itself: {status}");
        }
    }

    /// Looks at the store as somebody who was not there.
    async fn look(&mut self) {
        let vault = self.place.vault("reader");
        let found = match vault.latest(self.room, Some(ARTIFACT)).await {
            Ok(latest) => Some(At {
                epoch: latest.epoch.0,
                fence: latest.fence.0,
                mark: Some(mark(&latest.bytes)),
            }),
            Err(VaultError::NoCheckpoint) => None,
            Err(error) => panic!("it does not read: {error:?}"),
        };
        self.history.found(found);
        if let Some(head) = vault.head(self.room).await.expect("it reads") {
            let standing = head.standing;
            assert!(matches!(standing, Standing::Live | Standing::Parked));
        }
        if let Some(root) = self.place.directory() {
            self.leftovers += sweep(root).await;
        }
        nothing_is_torn(&self.place.store()).await;
        if self.dice.below(4) == 0 {
            self.write_again().await;
        }
    }

    /// Takes the room and writes it, here.
    async fn write_again(&mut self) {
        self.children += 1;
        let child = self.children;
        let vault = self.place.vault("parent");
        let (lease, did, at) = take(&vault, self.room).await;
        self.history.hear(Line { child, did, at });
        for n in 1..=2 {
            let mark = Mark { child, n };
            let at = At {
                epoch: lease.next_epoch().0,
                fence: lease.fence().0,
                mark: Some(mark),
            };
            let did = Did::Began;
            self.history.hear(Line { child, did, at });
            let packed = lease.pack(Epoch(at.epoch), ARTIFACT, &state(mark), now_ms());
            let packed = packed.expect("it packs");
            let written = lease.write(&packed, now_ms()).await.expect("it is written");
            assert_eq!(written, Written::Newest);
            let did = Did::Acked;
            self.history.hear(Line { child, did, at });
            let latest = vault.latest(self.room, Some(ARTIFACT)).await;
            assert_eq!(latest.expect("it reads").epoch.0, at.epoch);
        }
    }

    fn summarise(&self) {
        let counts = self.history.counts;
        let place = match self.place {
            Place::Directory(_) => "a directory",
            #[cfg(feature = "s3")]
            Place::Bucket(_) => "moto",
        };
        let line = format!(
            "kill -9 over {place}: {} kills of {} children (seed {}), {} acked, {} unheard of and there, \
             {} fenced, {} claimed, {} parked, {} taken, {} pruned, {} failed, {} temporary files swept",
            self.killed,
            self.children,
            self.seed,
            counts.acked,
            counts.landed,
            counts.fenced,
            counts.claimed,
            counts.parked,
            counts.taken,
            counts.pruned,
            counts.failed,
            self.leftovers,
        );
        // Seen even where a test's output is kept back; where nobody can see it, nothing is lost.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// The children of a round, and the pipe they share.
struct Stage {
    lines: BufReader<PipeReader>,
    /// Given to each child. Gone once all were started, so that the lines end with the children.
    writer: Option<PipeWriter>,
    running: Vec<Running>,
}

struct Running {
    number: u64,
    process: Child,
    is_killed: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Stage {
    fn open() -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Self {
            lines: BufReader::new(reader),
            writer: Some(writer),
            running: Vec::new(),
        }
    }

    fn start(&mut self, errand: &Errand, test: &str) {
        let writer = self.writer.as_ref().expect("not all were started");
        let process = errand
            .command(test)
            .stdout(writer.try_clone().expect("a pipe"))
            .spawn()
            .expect("it starts");
        self.running.push(Running {
            number: errand.child,
            process,
            is_killed: false,
        });
    }

    fn is_complete(&mut self) {
        self.writer = None;
    }
}

/// Every object is as long as its entry says, and every checkpoint's bytes are those it is named for.
async fn nothing_is_torn(store: &Arc<dyn BlobStore>) {
    let mut after: Option<String> = None;
    loop {
        let page = store.list("", after.as_deref(), DELETE_KEYS_MAX).await;
        let page = page.expect("a page");
        assert_eq!(page.foreign, 0, "there is what is no object");
        for entry in page.entries {
            let max = entry.bytes;
            let blob = store.get(&entry.key, Want::Whole { max }).await;
            let blob = blob.expect("it reads").expect("it is listed");
            assert_eq!(blob.bytes.len() as u64, entry.bytes, "{}", entry.key);
            let name = entry.key.as_str().rsplit('/').next().expect("a segment");
            if let Some(RoomObject::Checkpoint(name)) = RoomObject::parse(name) {
                let digest = ring::digest::digest(&ring::digest::SHA256, &blob.bytes);
                assert!(digest.as_ref().starts_with(&name.digest), "{}", entry.key);
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return,
        }
    }
}

/// Sweeps the temporary files that kills left, all of them, and says how many there were.
async fn sweep(root: &Path) -> u64 {
    let there = temporary_files(root);
    let store = DirStore::open(root).expect("it opens");
    // Everybody is dead: whatever there is was left.
    let before = SystemTime::now() + Duration::from_secs(60);
    let swept = store.sweep_unfinished(before).await.expect("it sweeps");
    assert_eq!(swept, there);
    assert_eq!(temporary_files(root), 0);
    swept
}

fn temporary_files(folder: &Path) -> u64 {
    let mut found = 0;
    for entry in std::fs::read_dir(folder).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            found += temporary_files(&entry.path());
        } else {
            found += u64::from(entry.file_name().to_string_lossy().starts_with(".tmp-"));
        }
    }
    found
}
