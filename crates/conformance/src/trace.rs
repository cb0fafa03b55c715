//! What a guest and the host said to each other, as JSON lines.
//!
//! Line by line:
//!
//! 1. A header: `abi_major`, `artifact` (a name), `artifact_sha256`, `seed`, `seed_set`, `mode`,
//!    `capacity`, `min_players`, `clock_start_unix_nanos`, `config` (an object, or null),
//!    `memory_pages` (the script's cap, 0 for the host's) and `meta`.
//! 2. One object per callback: `seq`, `inst`, `cb`, `payload` {`len`, `sha256`, `hex`}, `exit`,
//!    `err` (when the room died), `host` [{`fn`, `args`, `in` [{`len`, `sha256`, and `hex` up to
//!    512 bytes or else `head13`}], `ret`, `out`}], `wasi` [{`fn`, `args`, `errno`, `data` (its
//!    first 4,096 bytes)}], `calls_omitted` (past 65,536), `mem_pages`, `mem_sha256`,
//!    `entropy_consumed`, `broadcast_grid_sha256`, `host_epoch_seq`, `host_roster_epoch`, `log`
//!    (the guest's messages; `guest` stands for a write to stdout or stderr), `host_log` (the
//!    host's, about the guest) and `frames` [{`seat` (a number, or `"all"`), `grid_sha256` of the
//!    46,080-byte canonical grid}]. Empty lists are left out. A callback stopped by its deadline
//!    stops anywhere, so it has no memory hash.
//! 3. A `{"note":"snapshot",…}` at the script's `snapshot` step, with its `format`. `cabinet`: `len`
//!    and `sha256` of the encoded snapshot. `sck1`: `raw_len`, `raw_sha256` and `raw_head_hex` (its
//!    first 200 bytes) of the uncompressed blob.
//! 4. A `{"note":"skipped",…}` for a step whose call the room refused.
//! 5. A `{"note":"room ended","result":{…}}` when it did; players who joined and are not ranked
//!    did not finish, and lines are in order of rank.
//!
//! The steps after `snapshot` are taken twice: by the room that was saved (`inst` is `A`) and then
//! by one restored from the snapshot (`B-restored`), with the same clock and members. A trace takes
//! one snapshot at most. Two runs give the same bytes, except where a deadline strikes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use cabinet_host::{
    Fault, Game, GameOptions, Host, LoadError, LogSource, Player, RoomResult, Slot, frame_bytes,
};
use cabinet_wire::Status;
use cabinet_wire::meta::{ControlInput, MetaOwned};
use serde::Serialize;
use serde_json::{Value, json};

use crate::check::{load_options, skip_name};
use crate::hash::{hex, sha256};
use crate::lane::{HibernateError, Lane, Record, Restore};
use crate::script::{Script, Step};
use crate::tape::{Blob, Grid, INPUT_KEPT_BYTES, Keep, Sent, To, WasiEntry};

/// Bytes of an uncompressed blob that a snapshot note shows.
const BLOB_HEAD_BYTES: usize = 200;
/// Largest uncompressed blob a trace unpacks.
const BLOB_MAX_BYTES: u64 = 1 << 30;

/// How to trace.
#[derive(Debug, Clone, Default)]
pub struct TraceOptions {
    /// How the game is loaded. A script's `deadline` and `memory-pages` win over these.
    pub game: GameOptions,
    /// What the header calls the artifact.
    pub artifact: String,
    /// How the second room is restored at a `snapshot` step.
    pub restore: Restore,
    /// Restore the second room from these bytes, in the format of `restore`, instead of from what
    /// was saved. The steps before `snapshot` still say which clock and members it gets.
    pub resume_from: Option<Vec<u8>>,
    /// Also write each frame's `grid`: its 46,080 bytes as a zstd frame in hex, which
    /// [`diff`](crate::diff::diff) compares cell by cell.
    pub grids: bool,
}

/// Why a trace was not written, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The host refused the artifact.
    #[error("the artifact was refused")]
    Load(#[source] LoadError),
    /// The script has several `snapshot` steps.
    #[error("a trace takes one snapshot, the script has {0}")]
    Snapshots(usize),
    /// Saving or restoring failed.
    #[error(transparent)]
    Hibernate(#[from] HibernateError),
    /// The blob that was saved could not be unpacked.
    #[error("the blob that was saved could not be unpacked")]
    Unpack(#[source] io::Error),
    /// The blob that was saved is larger than a trace unpacks.
    #[error("the blob that was saved has more than {max} bytes, too many for a trace")]
    BlobTooLarge {
        /// The most bytes it may have.
        max: u64,
    },
    /// The trace could not be written.
    #[error("the trace could not be written")]
    Write(#[from] io::Error),
}

/// Takes an artifact through a script and writes what happens to `out`. See the
/// [module](self) for the lines.
///
/// # Errors
/// [`TraceError`]; lines written before it stay written. A guest that dies is not an error.
pub fn trace(
    host: &Host,
    artifact: &[u8],
    options: &TraceOptions,
    script: &Script,
    out: &mut dyn Write,
) -> Result<(), TraceError> {
    if script.snapshots() > 1 {
        return Err(TraceError::Snapshots(script.snapshots()));
    }
    let load = load_options(&options.game, Some(script));
    let game = host.load(artifact, &load).map_err(TraceError::Load)?;
    let mut lane = Lane::new(&game, script, None, Keep::Calls);
    let mut writer = Writer {
        out,
        script,
        grids: options.grids,
        seq: 0,
        joined: Vec::new(),
    };
    writer.header(&game, options, &lane)?;

    let mut restored = None;
    let record = lane.start();
    writer.callback("A", "start", &lane, &record)?;
    let mut steps = script.steps.iter();
    // Until the snapshot one room plays, and then the saved one goes on first.
    while let Some(step) = steps.next() {
        if lane.room.fault().is_some() {
            break;
        }
        if matches!(step, Step::Snapshot) {
            let encoded = lane.save(options.restore)?;
            writer.snapshot(options.restore, &encoded)?;
            let encoded = options.resume_from.as_ref().unwrap_or(&encoded);
            restored = Some((lane.branch(options.restore, encoded)?, steps.clone()));
            continue;
        }
        writer.step("A", &mut lane, step)?;
    }
    if let Some((mut branch, rest)) = restored {
        for step in rest {
            if branch.room.fault().is_some() {
                break;
            }
            writer.step("B-restored", &mut branch, step)?;
        }
        lane = branch;
    }
    writer.ended(&lane)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    script: &'a Script,
    grids: bool,
    seq: u64,
    /// Everybody who ever joined, in order.
    joined: Vec<Player>,
}

impl Writer<'_> {
    fn header(
        &mut self,
        game: &Game,
        options: &TraceOptions,
        lane: &Lane,
    ) -> Result<(), TraceError> {
        let setup = &self.script.setup;
        let config = lane.room.config();
        self.line(&json!({
            "abi_major": game.abi_major(),
            "artifact": options.artifact,
            "artifact_sha256": hex(&game.digest().0),
            "capacity": config.capacity,
            "clock_start_unix_nanos": setup.clock_unix_nanos,
            "config": if setup.config.is_empty() { Value::Null } else { json!(setup.config) },
            "memory_pages": setup.memory_pages_max.unwrap_or(0),
            "meta": meta_json(game.meta()),
            "min_players": config.min_players,
            "mode": setup.mode.as_str(),
            "seed": setup.seed,
            "seed_set": true,
        }))
    }

    /// Takes a step and writes what came of it.
    fn step(&mut self, inst: &'static str, lane: &mut Lane, step: &Step) -> Result<(), TraceError> {
        let record = lane.step(&self.script.setup, step);
        if let Some(skip) = record.skipped {
            return self.line(&json!({
                "note": "skipped", "inst": inst, "step": step.to_string(), "why": skip_name(skip),
            }));
        }
        if let Step::Join { seat } = step {
            let player = self.script.setup.player(*seat);
            if !self.joined.contains(&player) {
                self.joined.push(player);
            }
        }
        match &record.call {
            Some(call) => self.callback(inst, call.export, lane, &record),
            None => Ok(()),
        }
    }

    fn callback(
        &mut self,
        inst: &'static str,
        export: &'static str,
        lane: &Lane,
        record: &Record,
    ) -> Result<(), TraceError> {
        let effects = &record.effects;
        let by_clock = matches!(record.fault, Some(Fault::Deadline { .. }));
        let mut memory = Vec::new();
        if !by_clock {
            lane.room.copy_memory(&mut memory);
        }
        let logs = |wanted: fn(LogSource) -> bool| -> Vec<String> {
            let logs = effects.logs.iter().filter(|logged| wanted(logged.source));
            logs.map(|logged| match logged.source {
                LogSource::Stdio => "guest".to_owned(),
                _ => String::from_utf8_lossy(&logged.message).into_owned(),
            })
            .collect()
        };
        let broadcast = lane.room.frame(Slot::Broadcast);
        let line = Callback {
            seq: self.seq,
            inst,
            cb: export,
            payload: Payload {
                len: effects.detail.payload.len(),
                sha256: hex(&sha256(&effects.detail.payload)),
                hex: hex(&effects.detail.payload),
            },
            exit: record.call.as_ref().map_or(0, |call| call.exit),
            err: record.fault.as_ref().map(ToString::to_string),
            host: effects.detail.host.iter().map(host_json).collect(),
            wasi: effects.detail.wasi.iter().map(wasi_json).collect(),
            calls_omitted: effects.detail.omitted,
            mem_pages: memory.len() / 65_536,
            mem_sha256: (!by_clock).then(|| hex(&sha256(&memory))),
            entropy_consumed: record.state.entropy_consumed,
            broadcast_grid_sha256: broadcast.map(|f| hex(&sha256(frame_bytes(&f).as_slice()))),
            host_epoch_seq: record.state.epoch_seq,
            host_roster_epoch: record.state.roster_epoch,
            log: logs(|source| source != LogSource::Host),
            host_log: logs(|source| source == LogSource::Host),
            frames: effects
                .frames
                .iter()
                .map(|sent| frame_json(sent, self.grids))
                .collect::<io::Result<_>>()?,
        };
        self.seq += 1;
        self.line(&line)
    }

    fn snapshot(&mut self, how: Restore, encoded: &[u8]) -> Result<(), TraceError> {
        match how {
            Restore::Complete => self.line(&json!({
                "note": "snapshot",
                "format": "cabinet",
                "len": encoded.len(),
                "sha256": hex(&sha256(encoded)),
            })),
            Restore::Sck1 => {
                let raw = unpack(encoded, BLOB_MAX_BYTES)?;
                self.line(&json!({
                    "note": "snapshot",
                    "format": "sck1",
                    "raw_len": raw.len(),
                    "raw_sha256": hex(&sha256(&raw)),
                    "raw_head_hex": hex(&raw[..raw.len().min(BLOB_HEAD_BYTES)]),
                }))
            }
        }
    }

    /// The final note, once the room has a result.
    fn ended(&mut self, lane: &Lane) -> Result<(), TraceError> {
        let result = match (lane.room.result(), lane.room.fault()) {
            (Some(result), _) => result.clone(),
            // A dead room ends with nobody ranked.
            (None, Some(_)) => RoomResult {
                mode: self.script.setup.mode,
                standings: Vec::new(),
                round_seq: 0,
            },
            (None, None) => return Ok(()),
        };
        let result = result_json(&result, &self.joined);
        self.line(&json!({ "note": "room ended", "result": result }))
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), TraceError> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }
}

/// The uncompressed bytes of an `SCK1` blob.
fn unpack(blob: &[u8], max: u64) -> Result<Vec<u8>, TraceError> {
    let decoder = zstd::stream::read::Decoder::new(blob).map_err(TraceError::Unpack)?;
    let mut raw = Vec::new();
    let read = decoder.take(max.saturating_add(1)).read_to_end(&mut raw);
    let read = read.map_err(TraceError::Unpack)?;
    match u64::try_from(read) {
        Ok(bytes) if bytes <= max => Ok(raw),
        _ => Err(TraceError::BlobTooLarge { max }),
    }
}

#[derive(Serialize)]
struct Callback {
    seq: u64,
    inst: &'static str,
    cb: &'static str,
    payload: Payload,
    exit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    err: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wasi: Vec<Value>,
    #[serde(skip_serializing_if = "is_zero")]
    calls_omitted: u64,
    mem_pages: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_sha256: Option<String>,
    entropy_consumed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast_grid_sha256: Option<String>,
    host_epoch_seq: u32,
    host_roster_epoch: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host_log: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    frames: Vec<Value>,
}

#[derive(Serialize)]
struct Payload {
    len: usize,
    sha256: String,
    hex: String,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn host_json(call: &crate::tape::HostEntry) -> Value {
    let mut object = BTreeMap::from([("fn", json!(call.name)), ("args", json!(call.args))]);
    if !call.inputs.is_empty() {
        object.insert("in", call.inputs.iter().map(blob_json).collect());
    }
    if let Some(ret) = call.ret {
        object.insert("ret", json!([ret]));
    }
    if let Some(output) = &call.output {
        object.insert("out", blob_json(output));
    }
    json!(object)
}

fn blob_json(blob: &Blob) -> Value {
    let shown = if blob.len <= INPUT_KEPT_BYTES {
        "hex"
    } else {
        "head13"
    };
    json!({ "len": blob.len, "sha256": hex(&blob.sha256), shown: hex(&blob.shown) })
}

fn wasi_json(call: &WasiEntry) -> Value {
    let mut object = BTreeMap::from([
        ("fn", json!(call.name)),
        ("args", json!(call.args)),
        ("errno", json!(call.errno)),
    ]);
    if !call.data.is_empty() {
        let text = match call.name.as_str() {
            "random_get" => hex(&call.data),
            _ => String::from_utf8_lossy(&call.data).into_owned(),
        };
        object.insert("data", json!(text));
    }
    json!(object)
}

fn frame_json(sent: &Sent, grids: bool) -> io::Result<Value> {
    let seat = match sent.to {
        To::Everyone => json!("all"),
        To::Seat(seat) => json!(seat),
        To::Index(index) => json!(format!("index {index}")),
    };
    let mut object = json!({ "seat": seat, "grid_sha256": hex(&sent.sha256()) });
    if let (true, Grid::Kept(frame)) = (grids, &sent.grid) {
        object["grid"] = json!(crate::diff::pack(frame_bytes(frame).as_slice())?);
    }
    Ok(object)
}

fn result_json(result: &RoomResult, joined: &[Player]) -> Value {
    let ranked = |player: &Player| result.standings.iter().any(|line| line.player == *player);
    let absent = joined.iter().filter(|player| !ranked(player));
    let mut lines: Vec<(u16, Value)> = result
        .standings
        .iter()
        .map(|line| {
            (
                line.rank,
                standing_json(&line.player, line.metric, line.rank, line.status),
            )
        })
        .chain(absent.map(|player| (0, standing_json(player, 0, 0, Some(Status::Dnf)))))
        .collect();
    lines.sort_by_key(|(rank, _)| *rank);
    let lines: Vec<Value> = lines.into_iter().map(|(_, line)| line).collect();
    json!({ "Mode": result.mode.as_str(), "Rankings": lines, "RoundSeq": result.round_seq })
}

fn standing_json(player: &Player, metric: i64, rank: u16, status: Option<Status>) -> Value {
    let character = &player.character;
    json!({
        "Player": {
            "AccountID": player.account,
            "Handle": player.handle,
            "Kind": player.kind.as_str(),
            "Conn": player.conn,
            "Character": {
                "Glyph": character.glyph,
                "InkR": character.ink[0], "InkG": character.ink[1], "InkB": character.ink[2],
                "BgR": character.bg[0], "BgG": character.bg[1], "BgB": character.bg[2],
                "Fallback": character.ascii_fallback,
            },
            "IsSynthetic": false,
        },
        "Metric": metric,
        "Rank": rank,
        "Status": status.map_or("", Status::as_str),
    })
}

/// Meta as the reference's tools print it: absent when zero or empty.
#[must_use]
pub fn meta_json(meta: &MetaOwned) -> Value {
    let mut object = BTreeMap::from([
        ("slug", json!(meta.slug)),
        ("name", json!(meta.name)),
        ("shortDescription", json!(meta.short_description)),
        ("minPlayers", json!(meta.min_players)),
        ("maxPlayers", json!(meta.max_players)),
    ]);
    let mut add = |name: &'static str, present: bool, value: Value| {
        if present {
            object.insert(name, value);
        }
    };
    add("tags", !meta.tags.is_empty(), json!(meta.tags));
    for (name, label) in [
        ("quickModeLabel", &meta.quick_mode_label),
        ("soloModeLabel", &meta.solo_mode_label),
        ("privateInviteLine", &meta.private_invite_line),
    ] {
        add(name, !label.is_empty(), json!(label));
    }
    if let Some(board) = &meta.leaderboard {
        let board = json!({
            "metricLabel": board.metric_label,
            "direction": board.direction,
            "aggregation": board.aggregation,
            "format": board.format,
        });
        add("leaderboard", true, board);
    }
    let config = meta.config.iter().map(|spec| {
        let mut object = BTreeMap::from([
            ("key", json!(spec.key)),
            ("title", json!(spec.title)),
            ("type", json!(spec.config_type)),
        ]);
        let texts = [
            ("description", &spec.description),
            ("default", &spec.default),
            ("schema", &spec.schema),
        ];
        let present = texts.into_iter().filter(|(_, text)| !text.is_empty());
        object.extend(present.map(|(name, text)| (name, json!(text))));
        json!(object)
    });
    add("config", !meta.config.is_empty(), config.collect());
    add(
        "ctxFeatures",
        meta.ctx_features != 0,
        json!(meta.ctx_features),
    );
    add(
        "heartbeatMS",
        meta.heartbeat_ms != 0,
        json!(meta.heartbeat_ms),
    );
    add("lifecycle", meta.lifecycle != 0, json!(meta.lifecycle));
    add(
        "wireRevision",
        meta.wire_revision != 0,
        json!(meta.wire_revision),
    );
    let controls = meta.controls.iter().map(|control| match control.input {
        ControlInput::Rune(rune) => json!({ "kind": 0, "rune": rune, "label": control.label }),
        ControlInput::Key(key) => json!({ "kind": 1, "key": key, "label": control.label }),
    });
    add("controls", !meta.controls.is_empty(), controls.collect());
    json!(object)
}

#[cfg(test)]
mod tests;
