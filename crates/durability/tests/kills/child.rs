//! A child: takes the room and writes it until it is killed or fenced.

use std::env;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use cabinet_durability::{Lease, Retention, RoomId, Vault, VaultError, Written};

use super::line::{At, Did, Line, Mark};
use super::place::{ARTIFACT, Dice, Place, header, now_ms, state, take, take_parked};

const PLACE: &str = "CABINET_KILL_NINE_PLACE";
const ROOM: &str = "CABINET_KILL_NINE_ROOM";
const CHILD: &str = "CABINET_KILL_NINE_CHILD";
const SEED: &str = "CABINET_KILL_NINE_SEED";

/// What a child is to do.
pub struct Errand {
    pub place: Place,
    pub room: RoomId,
    pub child: u64,
    pub seed: u64,
}

impl Errand {
    /// What this process is to do; `None` when it is no child.
    pub fn given() -> Option<Self> {
        let variable = |name| env::var(name).expect("a child is told everything");
        let place = env::var(PLACE).ok()?;
        Some(Self {
            place: Place::read(&place),
            room: variable(ROOM).parse().expect("a room"),
            child: variable(CHILD).parse().expect("a number"),
            seed: variable(SEED).parse().expect("a number"),
        })
    }

    /// This process again, in that test, with this errand.
    pub fn command(&self, test: &str) -> Command {
        let mut command = Command::new(env::current_exe().expect("a path"));
        command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(PLACE, self.place.word())
            .env(ROOM, self.room.to_string())
            .env(CHILD, self.child.to_string())
            .env(SEED, self.seed.to_string());
        command
    }
}

/// Returns when somebody else has the room.
pub fn run(errand: &Errand) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let vault = errand.place.vault(&format!("child {}", errand.child));
        let (lease, did, at) = take(&vault, errand.room).await;
        say(errand.child, did, at);
        let mut writer = Writer {
            dice: Dice::new(errand.seed ^ errand.child << 32),
            acked: at.epoch,
            child: errand.child,
            n: 0,
            vault,
            lease,
        };
        while writer.step().await {}
        let at = At {
            epoch: writer.acked,
            fence: writer.lease.fence().0,
            mark: None,
        };
        say(errand.child, Did::Fenced, at);
    });
}

/// One line, in one write.
fn say(child: u64, did: Did, at: At) {
    let line = format!("{}\n", Line { child, did, at });
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).expect("somebody listens");
    out.flush().expect("somebody listens");
}

struct Writer {
    vault: Vault,
    lease: Lease,
    dice: Dice,
    child: u64,
    /// The state that was written last.
    n: u64,
    /// The newest epoch that was acknowledged to us, or that we went on from.
    acked: u64,
}

impl Writer {
    /// One more thing; false when the room is not ours any more.
    async fn step(&mut self) -> bool {
        match self.dice.below(16) {
            0 => self.park().await,
            1 | 2 => self.prune().await,
            3..=5 => self.read().await,
            _ => self.write().await,
        }
    }

    fn begin(&mut self) -> At {
        self.n += 1;
        let at = At {
            epoch: self.lease.next_epoch().0,
            fence: self.lease.fence().0,
            mark: Some(Mark {
                child: self.child,
                n: self.n,
            }),
        };
        say(self.child, Did::Began, at);
        at
    }

    fn pack(&self, at: At) -> cabinet_durability::Packed {
        let state = state(at.mark.expect("what is written has a mark"));
        let epoch = cabinet_durability::Epoch(at.epoch);
        let packed = self.lease.pack(epoch, ARTIFACT, &state, now_ms());
        packed.expect("it packs")
    }

    async fn write(&mut self) -> bool {
        let at = self.begin();
        let packed = self.pack(at);
        match self.lease.write(&packed, now_ms()).await {
            Ok(Written::Newest) => self.acknowledged(Did::Acked, at),
            Ok(Written::Superseded) => say(self.child, Did::Superseded, at),
            Err(error) => return self.failed(&error, at),
        }
        true
    }

    /// Parks the room, and takes it again, which is a race with everybody else.
    async fn park(&mut self) -> bool {
        let at = self.begin();
        let packed = self.pack(at);
        match self.lease.park(&packed, header(), now_ms()).await {
            Ok(()) => self.acknowledged(Did::Parked, at),
            Err(error) => return self.failed(&error, at),
        }
        loop {
            match take_parked(&self.vault, self.lease.room()).await {
                Ok((lease, at)) => {
                    self.lease = lease;
                    say(self.child, Did::Taken, at);
                    return true;
                }
                Err(VaultError::AlreadyResumed) => return false,
                Err(error) => assert!(error.is_passing(), "it cannot be taken: {error:?}"),
            }
        }
    }

    async fn prune(&mut self) -> bool {
        let keep = Retention {
            keep_last: 1 + self.dice.below(3) as usize,
            keep_younger: Duration::ZERO,
        };
        if let Err(error) = self.lease.prune(&keep, now_ms()).await {
            assert!(error.is_passing(), "it cannot be pruned: {error:?}");
        }
        let at = At {
            epoch: self.acked,
            fence: self.lease.fence().0,
            mark: None,
        };
        say(self.child, Did::Pruned, at);
        true
    }

    /// Reads the room as often as the dice say: meanwhile others have their turn.
    async fn read(&mut self) -> bool {
        for _ in 0..self.dice.below(6) {
            match self.vault.latest(self.lease.room(), Some(ARTIFACT)).await {
                Ok(latest) => {
                    super::place::mark(&latest.bytes);
                    assert!(latest.epoch.0 >= self.acked, "{latest:?} {}", self.acked);
                }
                Err(VaultError::NoCheckpoint) => assert_eq!(self.acked, 0),
                Err(error) => assert!(error.is_passing(), "it cannot be read: {error:?}"),
            }
        }
        true
    }

    fn acknowledged(&mut self, did: Did, at: At) {
        self.acked = at.epoch;
        say(self.child, did, at);
    }

    /// Whether the room is ours still.
    fn failed(&self, error: &VaultError, at: At) -> bool {
        match error {
            VaultError::Fenced { .. } => false,
            error => {
                assert!(error.is_passing(), "it cannot be written: {error:?}");
                say(self.child, Did::Failed, at);
                true
            }
        }
    }
}
