//! What is in a checkpoint: dump, diff, restore.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use cabinet_durability::{Checkpoint, Vault, VaultError};
use cabinet_host::{
    Frame, GameOptions, Host, HostOptions, MemoryServices, Outcome as Called, Room, Slot, Snapshot,
};
use cabinet_rooms::keeper::RoomState;
use serde_json::{Value, json};

use super::{Which, about_store, shown};
use crate::artifact::Artifact;
use crate::host_cache::CacheArgs;
use crate::outcome::{Outcome, Problem};
use crate::play::table::{NotOpened, Table};
use crate::play::{Look, at_the_table, tell};
use crate::smoke::render;
use crate::term::tty::Tty;

/// Pages of a difference that are listed; the rest are counted.
const PAGES_SHOWN: usize = 100;
const PAGE_BYTES: usize = 4_096;

/// Writes a checkpoint's parts into a new folder.
pub(super) async fn dump(
    vault: &Vault,
    which: &Which,
    out: &Path,
    json: bool,
) -> Result<Outcome, Problem> {
    let (checkpoint, state) = read(vault, which).await?;
    let snapshot = &state.snapshot;
    let mut memory = vec![0; usize::try_from(snapshot.memory().byte_len()).unwrap_or(usize::MAX)];
    if !snapshot.memory().write_to(&mut memory) {
        return Err(Problem::new("the memory does not fit this machine"));
    }
    let players = |players: &[cabinet_host::Player]| -> Vec<Value> {
        let players = players.iter();
        players
            .map(|one| json!({ "account": one.account, "handle": one.handle, "conn": one.conn }))
            .collect()
    };
    let about = json!({
        "room": which.room.to_string(),
        "epoch": checkpoint.epoch.0,
        "fence": checkpoint.fence.0,
        "artifact": checkpoint.artifact.to_string(),
        "at_ms": checkpoint.at_ms,
        "game": state.slug.as_str(),
        "room_clock_unix_nanos": snapshot.clock_unix_nanos(),
        "memory_bytes": memory.len(),
        "roster": players(&state.roster),
        "joined": players(&state.joined),
        "posts_waiting": state.posts.len(),
    });
    let globals: Vec<Value> = snapshot.globals().map(global_json).collect();
    let files = [
        ("state.json", pretty(&about)),
        ("globals.json", pretty(&Value::from(globals))),
        ("tables.json", pretty(&json!(snapshot.tables()))),
        ("memory.bin", memory),
    ];
    let failed = |path: &Path, error: io::Error| {
        let what = format!(
            "{}: {error}; name a new folder with --out DIR",
            path.display()
        );
        Problem::new(what)
    };
    fs::create_dir(out).map_err(|error| failed(out, error))?;
    for (name, bytes) in &files {
        let path = out.join(name);
        let mut file = fs::File::create_new(&path).map_err(|error| failed(&path, error))?;
        file.write_all(bytes)
            .map_err(|error| failed(&path, error))?;
    }
    if json {
        outln!("{about}");
    } else {
        for (name, bytes) in &files {
            outln!("{name}  {} bytes", bytes.len());
        }
    }
    Ok(Outcome::Good)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn global_json((kind, bits): (&'static str, u128)) -> Value {
    json!({ "type": kind, "bits": format!("0x{bits:x}") })
}

/// Compares two checkpoints.
pub(super) async fn diff(
    vault: &Vault,
    a: &Which,
    b: &Which,
    json: bool,
) -> Result<Outcome, Problem> {
    let (_, a) = read(vault, a).await?;
    let (_, b) = read(vault, b).await?;
    let found = difference(&a.snapshot, &b.snapshot);
    if json {
        outln!(
            "{}",
            crate::outcome::json(&json!({ "same": found.is_empty(), "differences": found }))
        );
    } else {
        for line in found.iter().take(PAGES_SHOWN) {
            outln!("{line}");
        }
        if found.len() > PAGES_SHOWN {
            outln!("and {} more", found.len() - PAGES_SHOWN);
        }
        outln!("{} differences", found.len());
    }
    Ok(if found.is_empty() {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}

/// Every difference between two snapshots, a line each.
fn difference(a: &Snapshot, b: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differs = |what: &str, a: String, b: String| {
        if a != b {
            lines.push(format!("{what}: {a}, then {b}"));
        }
    };
    differs(
        "artifact",
        a.artifact().to_string(),
        b.artifact().to_string(),
    );
    let clock = |snapshot: &Snapshot| snapshot.clock_unix_nanos().to_string();
    differs("room clock", clock(a), clock(b));
    let pages = |snapshot: &Snapshot| snapshot.memory().wasm_pages().to_string();
    differs("memory pages", pages(a), pages(b));
    let globals = |snapshot: &Snapshot| -> Vec<String> {
        snapshot
            .globals()
            .map(|(kind, bits)| format!("{kind} 0x{bits:x}"))
            .collect()
    };
    let (of_a, of_b) = (globals(a), globals(b));
    for at in 0..of_a.len().max(of_b.len()) {
        let of = |globals: &[String]| {
            globals
                .get(at)
                .cloned()
                .unwrap_or_else(|| "none".to_owned())
        };
        differs(&format!("global {at}"), of(&of_a), of(&of_b));
    }
    for at in 0..a.tables().len().max(b.tables().len()) {
        let of = |snapshot: &Snapshot| {
            let table = snapshot.tables().get(at);
            table.map_or("none".to_owned(), |table| {
                format!("{} elements", table.len())
            })
        };
        let (of_a, of_b) = (of(a), of(b));
        let same = a.tables().get(at) == b.tables().get(at);
        let of_b = if of_a == of_b && !same {
            format!("{of_b}, others")
        } else {
            of_b
        };
        differs(&format!("table {at}"), of_a, of_b);
    }
    let (pages_a, pages_b): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (a.memory().pages().collect(), b.memory().pages().collect());
    let mut offsets: Vec<usize> = pages_a.keys().chain(pages_b.keys()).copied().collect();
    offsets.sort_unstable();
    offsets.dedup();
    let zeros = [0; PAGE_BYTES];
    for offset in offsets {
        // A page that is not kept is all zeros.
        let of_a = pages_a.get(&offset).copied().unwrap_or(&zeros);
        let of_b = pages_b.get(&offset).copied().unwrap_or(&zeros);
        let mut differing = (0..PAGE_BYTES).filter(|at| of_a[*at] != of_b[*at]);
        if let Some(first) = differing.next() {
            let count = 1 + differing.count();
            let (number, address) = (offset / PAGE_BYTES, offset + first);
            lines.push(format!(
                "page {number}: {count} bytes differ, the first at {address:#x}"
            ));
        }
    }
    lines
}

/// Goes on from a checkpoint in this process, and prints what is seen.
pub(super) async fn restore(
    vault: &Vault,
    which: &Which,
    game: &Path,
    wakes: u32,
    json: bool,
) -> Result<Outcome, Problem> {
    let (_, state) = read(vault, which).await?;
    let artifact = Artifact::resolve(game)?;
    let about =
        |error: &(dyn std::error::Error + 'static)| Problem::about(artifact.path.display(), error);
    let host = Host::new(HostOptions::default()).map_err(|error| about(&error))?;
    let game = host
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| about(&error))?;
    let services = Box::new(MemoryServices::new());
    let mut room = game
        .restore(&state.snapshot, services)
        .map_err(|error| about(&error))?;
    let beat = i64::try_from(room.heartbeat().as_nanos()).unwrap_or(i64::MAX);
    for _ in 0..wakes {
        let now = room.now().saturating_add(beat);
        if let Called::Faulted(_) = room.wake(now) {
            let fault = room.fault().map_or(String::new(), ToString::to_string);
            return Err(Problem::new(format!(
                "the room faulted as it woke: {fault}"
            )));
        }
    }
    let screens = screens(&room);
    if json {
        let screens = screens.iter();
        let screens: Vec<Value> = screens
            .map(|(who, frame)| json!({ "who": who, "rows": rows(frame) }))
            .collect();
        outln!(
            "{}",
            crate::outcome::json(
                &json!({ "room": which.room.to_string(), "wakes": wakes, "screens": screens })
            )
        );
    } else {
        for (who, frame) in &screens {
            outln!("{}:", shown(who));
            let text = render::text(frame);
            outln!("{}", text.strip_suffix('\n').unwrap_or(&text));
        }
        outln!("{} screens after {wakes} wakes", screens.len());
    }
    Ok(Outcome::Good)
}

/// Plays on from a checkpoint, which stays as it is.
pub(super) fn play(
    (checkpoint, state): (Checkpoint, RoomState),
    game: &Path,
    look: Look,
) -> Result<Outcome, Problem> {
    if !Tty::is_there() {
        let what =
            "--play needs a terminal for its keys and its screen; --wakes N prints what is seen";
        return Err(Problem::new(what));
    }
    let artifact = Artifact::resolve(game)?;
    let loaded = CacheArgs::default()
        .host()?
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| Problem::about(game.display(), &error))?;
    if loaded.digest() != checkpoint.artifact {
        let what = format!(
            "{}: the game is artifact {}, the room is of {}; give that version",
            game.display(),
            loaded.digest(),
            checkpoint.artifact
        );
        return Err(Problem::new(what));
    }
    match Table::resume(loaded, &artifact.path, state) {
        Ok(table) => at_the_table(table, look, None, None),
        Err(NotOpened::Problem(problem)) => Err(problem),
        Err(NotOpened::Ended(over)) => tell(&over),
    }
}

fn rows(frame: &Frame) -> Vec<String> {
    render::text(frame).lines().map(str::to_owned).collect()
}

/// What everyone was last sent, and what each member was.
fn screens(room: &Room) -> Vec<(String, Frame)> {
    let everyone = room
        .frame(Slot::Broadcast)
        .map(|frame| ("everyone".to_owned(), frame));
    let members = room
        .members()
        .iter()
        .enumerate()
        .filter_map(|(at, member)| Some((member.handle.clone(), room.frame(Slot::Member(at))?)));
    everyone.into_iter().chain(members).collect()
}

pub(super) async fn read(vault: &Vault, which: &Which) -> Result<(Checkpoint, RoomState), Problem> {
    let room = which.room;
    let checkpoint = match which.epoch {
        None => vault.latest(room, None).await,
        Some(epoch) => {
            let names = vault.checkpoints(room).await.map_err(about_store)?;
            let name = names
                .iter()
                .rev()
                .find(|name| name.epoch == epoch)
                .ok_or_else(|| {
                    let what =
                        "no such checkpoint; `cabinet rooms show ROOM` lists those there are";
                    Problem::new(format!("{room}@{epoch}: {what}"))
                })?;
            vault.checkpoint(room, name).await
        }
    };
    let mut checkpoint = checkpoint.map_err(|error| match error {
        VaultError::NoCheckpoint => {
            let what = "no checkpoint of such a room; `cabinet rooms list` shows those there are";
            Problem::new(format!("{room}: {what}"))
        }
        error => Problem::about(room, &error),
    })?;
    let bytes = std::mem::take(&mut checkpoint.bytes);
    let state = RoomState::decode(room, bytes).map_err(|error| Problem::about(room, &error))?;
    Ok((checkpoint, state))
}
