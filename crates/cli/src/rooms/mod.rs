//! `cabinet rooms`: looking after rooms in a store.
//!
//! Commands that look are given a store that refuses writes ([`store::ReadOnly`]); those that change
//! something are given one that only notes what they would do ([`store::DryRun`]), until `--write`.
//! Keys come from a file and are in no message.

pub mod import;
pub mod keys;
mod look;
mod reseal;
mod snapshots;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cabinet_durability::seal::Sealing;
use cabinet_durability::store::BlobStore;
use cabinet_durability::{Epoch, OwnerId, RoomId, SweepPolicy, Vault, VaultError, VaultOptions};
use cabinet_rooms::{Clock as _, SystemClock};
use serde_json::json;

use crate::outcome::{Outcome, Problem};
use crate::play::Look;
use store::{DryRun, ReadOnly};

/// Look after rooms that are stored: list, show, verify, dump, compare, restore, re-seal, import,
/// sweep.
///
/// Reads only, unless --write is given. The store is a folder, file:///FOLDER or
/// s3://BUCKET/PREFIX?region=REGION&endpoint=URL with credentials in AWS_ACCESS_KEY_ID and
/// AWS_SECRET_ACCESS_KEY. A key file has a line for each key: a number and 64 hex digits; the first
/// one seals, the others open what is older.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The store; CABINET_STORE unless given.
    #[arg(long, value_name = "URL", global = true)]
    pub store: Option<String>,
    /// The keys; CABINET_KEY_FILE unless given.
    #[arg(long, value_name = "FILE", global = true)]
    pub key_file: Option<PathBuf>,
    /// The folder was written without keys, for development.
    #[arg(long, global = true, conflicts_with = "key_file")]
    pub unsealed: bool,
    /// Answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to do with a store.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Every room: how it is, its game, its newest checkpoint.
    List,
    /// One room: its head, its players, its checkpoints.
    Show {
        /// The room's id.
        room: String,
    },
    /// Open every record and hold it to its name; exit code 1 when something is wrong.
    Verify,
    /// Write memory, globals and tables of a checkpoint to files.
    Dump {
        /// The room's id, and @EPOCH for one that is not the newest.
        room: String,
        /// A new folder for the files.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Compare two checkpoints page by page; exit code 1 when they differ.
    Diff {
        /// A room's id, and @EPOCH for one that is not the newest.
        a: String,
        /// Another.
        b: String,
    },
    /// Restore a checkpoint in this process, let it wake, and print what players see; or play on from
    /// it. Nothing in the store changes.
    Restore {
        /// The room's id, and @EPOCH for one that is not the newest.
        room: String,
        /// The game: a .wasm file, or a folder that is built first.
        #[arg(value_name = "FILE|DIR")]
        game: PathBuf,
        /// How often the room wakes first.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
        wakes: u32,
        /// Play on from it in the terminal, as everybody who was in the room.
        #[arg(long, conflicts_with = "wakes")]
        play: bool,
        /// What the terminal can show, with --play.
        #[command(flatten)]
        look: Look,
    },
    /// Seal everything under the first key of the key file, so that the others can be dropped. Rooms
    /// that some process has are left to it. What cannot be sealed, or is missing, is named; then the
    /// exit code is 1.
    Reseal {
        /// Do it. Without this, say what would be done.
        #[arg(long)]
        write: bool,
    },
    /// Take in rooms that the reference host left: parked, under their ids, in the format of this
    /// store. A room that is there is never written over.
    Import(import::Args),
    /// Let rooms that were parked too long expire, and remove what leads nowhere.
    Sweep {
        /// Do it. Without this, say what would be done.
        #[arg(long)]
        write: bool,
        /// Days a room may be parked.
        #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        parked_for: u32,
        /// Look through all players' entries and all checkpoints too, also old ones of parked rooms.
        #[arg(long)]
        deep: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// [`Problem`] when the store, the keys or the room cannot be used.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    // Arguments that count for every command conflict only where both stand before it, or behind.
    if args.unsealed && args.key_file.is_some() {
        let what = "--unsealed and --key-file do not go together: give one of them";
        return Err(Problem::new(what));
    }
    let url = args
        .store
        .clone()
        .or_else(|| std::env::var("CABINET_STORE").ok());
    let url = url.ok_or_else(|| Problem::new("no store: give --store URL or set CABINET_STORE"))?;
    run_on(store::open(&url, args.unsealed)?, args)
}

/// Runs the command on a store that is open. Not from within a tokio runtime.
///
/// # Errors
/// As for [`run`].
pub fn run_on(store: Arc<dyn BlobStore>, args: &Args) -> Result<Outcome, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Problem::about("no runtime", &error))?;
    if let What::Restore {
        room,
        game,
        play: true,
        look,
        ..
    } = &args.what
    {
        let vault = vault(Arc::new(ReadOnly(store)), args, OWNER)?;
        let which = which(room)?;
        if args.json {
            return Err(Problem::new("--play has no --json: it needs a terminal"));
        }
        let stored = runtime.block_on(snapshots::read(&vault, &which))?;
        drop(runtime);
        return snapshots::play(stored, game, *look);
    }
    runtime.block_on(on_store(store, args))
}

async fn on_store(store: Arc<dyn BlobStore>, args: &Args) -> Result<Outcome, Problem> {
    let looked_at = || vault(Arc::new(ReadOnly(Arc::clone(&store))), args, OWNER);
    let dry = Arc::new(DryRun::new(Arc::clone(&store)));
    // What is to be written goes to the store, or is only noted.
    let written = |write: bool, owner| {
        let noted: Arc<dyn BlobStore> = dry.clone();
        vault(if write { Arc::clone(&store) } else { noted }, args, owner)
    };
    match &args.what {
        What::List => look::list(&looked_at()?, args.json).await,
        What::Show { room } => look::show(&looked_at()?, room_id(room)?, args.json).await,
        What::Verify => look::verify(&looked_at()?, args.json).await,
        What::Dump { room, out } => {
            snapshots::dump(&looked_at()?, &which(room)?, out, args.json).await
        }
        What::Diff { a, b } => {
            snapshots::diff(&looked_at()?, &which(a)?, &which(b)?, args.json).await
        }
        What::Restore {
            room, game, wakes, ..
        } => snapshots::restore(&looked_at()?, &which(room)?, game, *wakes, args.json).await,
        What::Reseal { write } => {
            let Sealing::Keys(ring) = sealing(args)? else {
                let what =
                    "--unsealed has no key to seal under; give --key-file FILE, the new key first";
                return Err(Problem::new(what));
            };
            let key = ring.current().id();
            let vault = written(*write, OWNER)?;
            reseal::reseal(&vault, key, &dry, *write, args.json).await
        }
        What::Import(import) => {
            let vault = written(import.write, IMPORT_OWNER)?;
            import::import(&vault, import, &dry, args.json).await
        }
        What::Sweep {
            write,
            parked_for,
            deep,
        } => {
            let mut policy = SweepPolicy::default();
            policy.parked_for = Duration::from_secs(u64::from(*parked_for) * 24 * 60 * 60);
            policy.deep = *deep;
            let vault = written(*write, OWNER)?;
            sweep(&vault, &policy, &dry, *write, args.json).await
        }
    }
}

/// The name in what these commands write.
const OWNER: &str = "cabinet rooms";
/// The name in what an import leaves when it is stopped, by which the next one knows it.
const IMPORT_OWNER: &str = "cabinet rooms import";

async fn sweep(
    vault: &Vault,
    policy: &SweepPolicy,
    dry: &DryRun,
    write: bool,
    json: bool,
) -> Result<Outcome, Problem> {
    let swept = vault.sweep(policy, now_ms()).await.map_err(about_store)?;
    let notes = dry.notes();
    if json {
        let told = json!({
            "written": write,
            "expired": swept.expired,
            "erased": swept.erased,
            "entries": swept.entries,
            "orphans": swept.orphans,
            "pruned": swept.pruned,
            "damaged": swept.damaged,
            "failed": swept.failed,
            "would": notes,
        });
        outln!("{}", crate::outcome::json(&told));
    } else {
        for note in &notes {
            outln!("would {note}");
        }
        outln!(
            "{}{} expired, {} erased, {} entries and {} checkpoints that lead nowhere removed, {} old ones of parked rooms, {} damaged, {} failed",
            if write { "" } else { "with --write: " },
            swept.expired,
            swept.erased,
            swept.entries,
            swept.orphans,
            swept.pruned,
            swept.damaged,
            swept.failed
        );
    }
    let whole = swept.damaged == 0 && swept.failed == 0;
    Ok(if whole { Outcome::Good } else { Outcome::Bad })
}

fn vault(store: Arc<dyn BlobStore>, args: &Args, owner: &str) -> Result<Vault, Problem> {
    let options = VaultOptions::new(OwnerId::named(owner));
    Vault::open(store, sealing(args)?, options).map_err(about_store)
}

fn sealing(args: &Args) -> Result<Sealing, Problem> {
    let named = std::env::var_os("CABINET_KEY_FILE").map(PathBuf::from);
    match args.key_file.clone().or(named) {
        _ if args.unsealed => Ok(Sealing::UnsealedForDevelopment),
        Some(path) => Ok(Sealing::Keys(keys::read(&path)?)),
        None => {
            let what = "no keys: give --key-file FILE or set CABINET_KEY_FILE (or --unsealed for a folder of development)";
            Err(Problem::new(what))
        }
    }
}

/// A room, and one of its checkpoints.
pub(crate) struct Which {
    pub room: RoomId,
    /// The newest unless given.
    pub epoch: Option<Epoch>,
}

fn which(text: &str) -> Result<Which, Problem> {
    let (room, epoch) = match text.split_once('@') {
        Some((room, epoch)) => (room, Some(epoch)),
        None => (text, None),
    };
    let number = |epoch: &str| {
        let what = "the epoch behind @ is a number; `cabinet rooms show ROOM` lists them";
        epoch
            .parse()
            .map(Epoch)
            .map_err(|_| Problem::new(format!("{text}: {what}")))
    };
    Ok(Which {
        room: room_id(room)?,
        epoch: epoch.map(number).transpose()?,
    })
}

fn room_id(text: &str) -> Result<RoomId, Problem> {
    text.parse().map_err(|_| {
        Problem::new(format!(
            "{text}: no room's id; `cabinet rooms list` shows those there are"
        ))
    })
}

fn about_store(error: VaultError) -> Problem {
    Problem::about("the store", &error)
}

fn now_ms() -> u64 {
    u64::try_from(SystemClock::new().unix_nanos() / 1_000_000).unwrap_or(0)
}

/// Text from a store, fit for a terminal.
fn shown(text: &str) -> String {
    Problem::new(text).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
