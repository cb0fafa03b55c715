//! `cabinet rooms import`: rooms of the reference host, parked here in our own format.
//!
//! A room is converted with the game it runs, because the reference's snapshots hold less than ours;
//! rooms of other games are left for another run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cabinet_conformance::error_line;
use cabinet_conformance::files::{self, FileError};
use cabinet_durability::reference::{
    self, OBJECT_BYTES_MAX, ReferenceError, ReferenceKey, ReferenceRoom, ReferenceStore,
    open_sealed,
};
use cabinet_durability::store::DirStore;
use cabinet_durability::{Header, Member, RoomId, Vault, VaultError};
use cabinet_host::{Game, GameOptions, Player};
use cabinet_rooms::keeper::{ReferenceStateError, state_of_reference};
use cabinet_rooms::{GameSlug, Listing};
use serde_json::{Value, json};

use super::store::DryRun;
use super::{now_ms, room_id, shown, store};
use crate::artifact::Artifact;
use crate::host_cache::CacheArgs;
use crate::outcome::{Outcome, Problem};

/// Bytes of the reference's key at most.
const MAX_KEY_BYTES: usize = 64 << 10;

/// Of a room in a folder without seals that was never parked: the reference host writes no
/// checkpoint without one.
const SEALED_CHECKPOINT: &str = "its checkpoint is sealed: run again with --reference-key FILE in place of --reference-unsealed";

/// What to take in, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the reference host left: a folder or a bucket with its `snapshots/`, or a file that is
    /// one record or one SCK1 snapshot, such as a `.snap`.
    #[arg(value_name = "FROM")]
    from: String,
    /// The game the rooms run: a .wasm file, or a folder that is built first.
    #[arg(value_name = "FILE|DIR")]
    game: PathBuf,
    /// A file with the key the records are sealed under, byte for byte; one line feed at its end
    /// does not count.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "reference_unsealed"
    )]
    reference_key: Option<PathBuf>,
    /// What FROM names carries no seal, and you vouch for it: a file, or a folder that a reference host
    /// without a key wrote.
    #[arg(long, conflicts_with = "reference_key")]
    reference_unsealed: bool,
    /// Only this room; a snapshot does not say of which room it is, so this does, or a file's name,
    /// ROOM or ROOM.snap.
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// The slug of rooms whose record does not say one. Default: the game's own.
    #[arg(long, value_name = "SLUG")]
    slug: Option<String>,
    /// Do it. Without this, say what would be done.
    #[arg(long)]
    pub(super) write: bool,
}

/// A room of the reference, with its seal off.
struct Found {
    room: RoomId,
    /// What the record says; `None` of a checkpoint.
    header: Option<Header>,
    blob: Bytes,
}

/// What became of the rooms.
#[derive(Default)]
struct Report {
    imported: Vec<Value>,
    there: Vec<RoomId>,
    others: Vec<RoomId>,
    refused: Vec<(RoomId, String)>,
}

/// Takes rooms in.
pub(super) async fn import(
    vault: &Vault,
    args: &Args,
    dry: &DryRun,
    json: bool,
) -> Result<Outcome, Problem> {
    let only = args.room.as_deref().map(room_id).transpose()?;
    let key = args.reference_key.as_deref().map(read_key).transpose()?;
    let artifact = Artifact::resolve(&args.game)?;
    let game = CacheArgs::default()
        .host()?
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| Problem::about(args.game.display(), &error))?;
    let slug = match &args.slug {
        None => Listing::new(game.clone()).slug().clone(),
        Some(slug) => slug
            .parse()
            .map_err(|error| Problem::about(format!("--slug {slug}"), &error))?,
    };
    let mut report = Report::default();
    let taker = Taker {
        vault,
        game: &game,
        slug: &slug,
    };
    let from = Path::new(args.from.strip_prefix("file://").unwrap_or(&args.from));
    let from_bucket = args.from.starts_with("s3://");
    let is_single = !from_bucket && is_file(&args.from, from)?;
    if is_single {
        let found = read_file(from, key.as_ref(), only)?;
        taker.take(found, &mut report).await?;
        if let Some((room, what)) = report.refused.pop() {
            return Err(Problem::new(format!("{}: room {room}: {what}", args.from)));
        }
    } else if args.reference_unsealed && !from_bucket {
        let mut rooms = unsealed(from)?;
        rooms.retain(|(room, _)| only.is_none_or(|only| *room == only));
        if rooms.is_empty() {
            return Err(nothing(&args.from));
        }
        for (room, path) in rooms {
            let found = match path.is_dir() {
                true => Err(SEALED_CHECKPOINT.to_owned()),
                false => read_unsealed(&path, room),
            };
            match found {
                Ok(found) => taker.take(found, &mut report).await?,
                Err(what) => report.refused.push((room, what)),
            }
        }
    } else {
        let key = key.ok_or_else(|| {
            let what = "--reference-unsealed takes a file or a folder; a bucket needs --reference-key FILE";
            Problem::new(what)
        })?;
        let reference = match from_bucket {
            true => ReferenceStore::new(store::open(&args.from, false)?, key),
            false => in_folder(from, key)?,
        };
        let rooms = reference.rooms().await;
        let mut rooms = rooms.map_err(|error| Problem::about(&args.from, &error))?;
        rooms.retain(|found| only.is_none_or(|only| found.room == only));
        if rooms.is_empty() {
            return Err(nothing(&args.from));
        }
        for found in rooms {
            match read(&reference, found).await {
                Ok(found) => taker.take(found, &mut report).await?,
                Err(ReferenceError::Unavailable(error)) => {
                    return Err(Problem::about(&args.from, &error));
                }
                Err(error) => report.refused.push((found.room, error_line(&error))),
            }
        }
    }
    tell(&report, &dry.notes(), args.write, json);
    let asked_for_one = is_single || only.is_some();
    let none = asked_for_one && report.imported.is_empty();
    Ok(if report.refused.is_empty() && !none {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}

struct Taker<'a> {
    vault: &'a Vault,
    game: &'a Game,
    slug: &'a GameSlug,
}

impl Taker<'_> {
    async fn take(&self, found: Found, report: &mut Report) -> Result<(), Problem> {
        let room = found.room;
        let header = found.header;
        let slug: GameSlug = match &header {
            None => self.slug.clone(),
            Some(header) => match header.slug.parse() {
                Ok(slug) => slug,
                Err(error) => {
                    report.refused.push((room, error_line(&error)));
                    return Ok(());
                }
            },
        };
        let now = now_ms();
        let now_nanos = i64::try_from(u128::from(now) * 1_000_000).unwrap_or(i64::MAX);
        let at = header.as_ref().map_or(now_nanos, |header| header.at);
        let state = match state_of_reference(self.game, &slug, room, &found.blob, at) {
            Ok(state) => state,
            Err(ReferenceStateError::OtherGame { .. }) => {
                report.others.push(room);
                return Ok(());
            }
            Err(error) => {
                report.refused.push((room, error_line(&error)));
                return Ok(());
            }
        };
        let is_parked = header.is_some();
        let header = header.unwrap_or_else(|| Header {
            slug: slug.as_str().to_owned(),
            at,
            roster: state.roster.iter().map(member).collect(),
        });
        let players = header.roster.len();
        let artifact = self.game.digest();
        let imported = self.vault.import(room, artifact, &state.bytes, header, now);
        match imported.await {
            Ok(()) => report.imported.push(json!({
                "room": room.to_string(),
                "game": slug.as_str(),
                "from": if is_parked { "parked" } else { "checkpoint" },
                "players": players,
                "bytes": state.bytes.len(),
            })),
            Err(VaultError::AlreadyThere) => report.there.push(room),
            Err(error @ (VaultError::Unavailable(_) | VaultError::Floors(_))) => {
                let what = error_line(&error);
                return Err(Problem::new(format!(
                    "the store: {what}; run it again, what is done is done"
                )));
            }
            Err(error) => report.refused.push((room, error_line(&error))),
        }
        Ok(())
    }
}

fn member(player: &Player) -> Member {
    Member {
        account: player.account.clone(),
        handle: player.handle.clone(),
    }
}

async fn read(reference: &ReferenceStore, found: ReferenceRoom) -> Result<Found, ReferenceError> {
    let room = found.room;
    if found.parked {
        let (header, blob) = reference.parked(room).await?;
        let header = Some(header);
        return Ok(Found { room, header, blob });
    }
    let (_, blob) = reference.latest(room).await?;
    Ok(Found {
        room,
        header: None,
        blob,
    })
}

/// Whether FROM is a file to read, and not a folder. A pipe that the shell made is read as one.
fn is_file(from: &str, path: &Path) -> Result<bool, Problem> {
    match files::no_other(path) {
        Ok(()) => Ok(true),
        Err(FileError::NotAFile { .. }) if path.is_dir() => Ok(false),
        // What follows a scheme may hold a password.
        Err(FileError::Io { .. }) if from.contains("://") && !from.starts_with("file://") => {
            let scheme = from.split_once("://").map_or("", |(scheme, _)| scheme);
            Err(Problem::new(format!(
                "{scheme:?} is nothing to import from; name a folder, a file, or s3://BUCKET/PREFIX?region=REGION"
            )))
        }
        Err(error) => Err(Problem::new(error_line(&error))),
    }
}

/// The folder of the reference.
fn in_folder(folder: &Path, key: ReferenceKey) -> Result<ReferenceStore, Problem> {
    let store = DirStore::reference_layout(folder);
    let store = store.map_err(|error| Problem::about(folder.display(), &error))?;
    Ok(ReferenceStore::new(Arc::new(store), key))
}

fn nothing(from: &str) -> Problem {
    Problem::new(format!(
        "{from}: no room of the reference host there; it keeps them under snapshots/"
    ))
}

/// What is in a folder that a reference host without a key wrote, by its room: a file is a room that
/// it parked, a folder holds the checkpoints of one.
fn unsealed(folder: &Path) -> Result<Vec<(RoomId, PathBuf)>, Problem> {
    let snapshots = folder.join("snapshots");
    let about = |error: std::io::Error| Problem::about(snapshots.display(), &error);
    let mut rooms = Vec::new();
    let entries = match std::fs::read_dir(&snapshots) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(rooms),
        Err(error) => return Err(about(error)),
    };
    for entry in entries {
        let path = entry.map_err(about)?.path();
        let name = path.file_name().and_then(std::ffi::OsStr::to_str);
        let room = name.and_then(|name| name.parse::<RoomId>().ok());
        if let Some(room) = room {
            rooms.push((room, path));
        }
    }
    rooms.sort();
    Ok(rooms)
}

/// The record of a room that nobody sealed. What is refused is told in one line.
fn read_unsealed(path: &Path, room: RoomId) -> Result<Found, String> {
    let limit = usize::try_from(OBJECT_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = files::read_up_to(path, limit).map_err(|error| error_line(&error))?;
    let record = reference::import_unsealed(&bytes).map_err(|damage| error_line(&damage))?;
    if record.room != room.to_string() {
        return Err(error_line(&reference::Damage::OtherRoom));
    }
    Ok(Found {
        room,
        header: Some(record.header),
        blob: record.body,
    })
}

/// The room that a file is named after.
fn room_of(path: &Path) -> Option<RoomId> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".snap").unwrap_or(name).parse().ok()
}

/// One record, or one snapshot, in a file.
fn read_file(
    path: &Path,
    key: Option<&ReferenceKey>,
    only: Option<RoomId>,
) -> Result<Found, Problem> {
    let shown = path.display();
    let limit = usize::try_from(OBJECT_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = files::read_up_to(path, limit);
    let bytes = Bytes::from(bytes.map_err(|error| Problem::new(error_line(&error)))?);
    let about = |damage: reference::Damage| Problem::about(&shown, &damage);
    let bytes = match key {
        Some(key) => open_sealed(key, &bytes).map_err(about)?,
        None => bytes,
    };
    if bytes.starts_with(&reference::MAGIC.to_le_bytes()) {
        let record = reference::import_unsealed(&bytes).map_err(about)?;
        let room: RoomId = record
            .room
            .parse()
            .map_err(|error| Problem::about(format!("{shown}: its room"), &error))?;
        if only.is_some_and(|only| only != room) {
            return Err(Problem::new(format!(
                "{shown}: it is of room {room}; leave --room out"
            )));
        }
        return Ok(Found {
            room,
            header: Some(record.header),
            blob: record.body,
        });
    }
    let named = room_of(path);
    if let (Some(only), Some(named)) = (only, named)
        && only != named
    {
        return Err(Problem::new(format!(
            "{shown}: it is named after room {named}; leave --room out, or name the file otherwise"
        )));
    }
    let room = only.or(named).ok_or_else(|| {
        Problem::new(format!(
            "{shown}: not a parked room's record; if it is a snapshot, give its room with --room ROOM"
        ))
    })?;
    Ok(Found {
        room,
        header: None,
        blob: bytes,
    })
}

/// The reference's key, as it was given. No byte of it is in any message.
fn read_key(path: &Path) -> Result<ReferenceKey, Problem> {
    let bytes = files::read_up_to(path, MAX_KEY_BYTES);
    let bytes = bytes.map_err(|error| Problem::new(error_line(&error)))?;
    let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if key.is_empty() {
        let what = format!(
            "{}: no key in it; want the bytes the reference host seals under",
            path.display()
        );
        return Err(Problem::new(what));
    }
    Ok(ReferenceKey::new(key))
}

fn tell(report: &Report, would: &[String], write: bool, json: bool) {
    let ids = |rooms: &[RoomId]| rooms.iter().map(ToString::to_string).collect::<Vec<_>>();
    if json {
        let refused = report.refused.iter();
        let refused: Vec<Value> = refused
            .map(|(room, problem)| json!({ "room": room.to_string(), "problem": problem }))
            .collect();
        let told = json!({
            "written": write,
            "imported": report.imported,
            "there": ids(&report.there),
            "others": ids(&report.others),
            "refused": refused,
            "would": would,
        });
        outln!("{}", crate::outcome::json(&told));
        return;
    }
    for note in would {
        outln!("would {note}");
    }
    for one in &report.imported {
        let text = |field: &str| shown(one[field].as_str().unwrap_or(""));
        outln!(
            "{}  {}  {}  {} players  {} bytes",
            text("room"),
            text("game"),
            text("from"),
            one["players"],
            one["bytes"]
        );
    }
    for room in &report.there {
        outln!("{room}: the store has that room already");
    }
    for (room, problem) in &report.refused {
        outln!("{room}: {}", shown(problem));
    }
    outln!(
        "{}{} rooms imported, {} there already, {} of other games, {} refused",
        if write { "" } else { "with --write: " },
        report.imported.len(),
        report.there.len(),
        report.others.len(),
        report.refused.len()
    );
}
