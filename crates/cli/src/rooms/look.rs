//! What is in a store: list, show, verify.

use cabinet_conformance::error_line;
use cabinet_durability::{Head, ObjectName, RoomId, Vault};
use serde_json::{Value, json};

use super::{about_store, hex, shown};
use crate::outcome::{Outcome, Problem};

/// Every room, and how it is.
pub(super) async fn list(vault: &Vault, json: bool) -> Result<Outcome, Problem> {
    let rooms = vault.all_rooms().await.map_err(about_store)?;
    let mut told = Vec::new();
    let mut damaged = 0;
    for (room, head) in &rooms {
        told.push(match head {
            Ok(Some(head)) => head_json(head),
            Ok(None) => {
                damaged += 1;
                json!({ "room": room.to_string(), "problem": "its head is lost" })
            }
            Err(error) => {
                damaged += 1;
                json!({ "room": room.to_string(), "problem": error_line(error) })
            }
        });
    }
    if json {
        outln!(
            "{}",
            crate::outcome::json(&json!({ "rooms": told, "damaged": damaged }))
        );
    } else {
        for room in &told {
            outln!("{}", line(room));
        }
        outln!("{} rooms, {damaged} damaged", told.len());
    }
    Ok(if damaged == 0 {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}

/// A room of a list, on one line.
fn line(room: &Value) -> String {
    let text = |field: &str| room[field].as_str().map_or("-".to_owned(), shown);
    if let Some(problem) = room["problem"].as_str() {
        return format!("{}  DAMAGED  {}", text("room"), shown(problem));
    }
    let number = |field: &str| room[field].to_string();
    let players = room["players"].as_array().map_or(0, Vec::len);
    format!(
        "{}  {:<7}  {}  epoch {}  fence {}  {} bytes  {players} players",
        text("room"),
        text("standing"),
        text("game"),
        number("epoch"),
        number("fence"),
        number("bytes"),
    )
}

/// One room, in full.
pub(super) async fn show(vault: &Vault, room: RoomId, json: bool) -> Result<Outcome, Problem> {
    let head = vault.head(room).await.map_err(about_store)?;
    let checkpoints = vault.checkpoints(room).await.map_err(about_store)?;
    let head = match head {
        Some(head) => head_json(&head),
        None if checkpoints.is_empty() => {
            let what = format!("{room}: no such room; `cabinet rooms list` shows those there are");
            return Err(Problem::new(what));
        }
        None => json!({ "room": room.to_string(), "problem": "its head is lost" }),
    };
    let damaged = head["problem"].is_string();
    if json {
        let checkpoints: Vec<Value> = checkpoints.iter().map(checkpoint_json).collect();
        outln!(
            "{}",
            crate::outcome::json(&json!({ "head": head, "checkpoints": checkpoints }))
        );
    } else {
        let fields = head.as_object().into_iter().flatten();
        for (name, value) in fields.filter(|(name, _)| *name != "players") {
            let text = value.as_str().map_or_else(|| value.to_string(), shown);
            outln!("{name:<12} {text}");
        }
        for player in head["players"].as_array().into_iter().flatten() {
            let text = |field: &str| shown(player[field].as_str().unwrap_or(""));
            outln!("{:<12} {} ({})", "player", text("account"), text("handle"));
        }
        for name in &checkpoints {
            let (epoch, fence, at) = (name.epoch, name.fence, name.at_ms);
            outln!(
                "{:<12} @{epoch} under fence {fence}, at {at} ms",
                "checkpoint"
            );
        }
    }
    Ok(if damaged { Outcome::Bad } else { Outcome::Good })
}

fn head_json(head: &Head) -> Value {
    let object = head.object.as_ref();
    let header = head.header.as_ref();
    let players = header.map(|header| {
        let roster = header.roster.iter();
        let players = roster.map(|one| json!({ "account": one.account, "handle": one.handle }));
        players.collect::<Vec<Value>>()
    });
    json!({
        "room": head.room.to_string(),
        "standing": head.standing.name(),
        "game": header.map(|header| &header.slug),
        "epoch": head.epoch().0,
        "fence": head.fence.0,
        "owner": head.owner.to_string(),
        "artifact": object.map(|object| object.artifact.to_string()),
        "bytes": object.map_or(0, |object| object.bytes),
        "digest": object.map(|object| hex(&object.digest)),
        "at_ms": head.at_ms,
        "players": players,
    })
}

fn checkpoint_json(name: &ObjectName) -> Value {
    json!({
        "epoch": name.epoch.0,
        "fence": name.fence.0,
        "at_ms": name.at_ms,
        "digest": hex(&name.digest),
    })
}

/// Every record, opened.
pub(super) async fn verify(vault: &Vault, json: bool) -> Result<Outcome, Problem> {
    let audit = vault.audit().await.map_err(about_store)?;
    if json {
        let findings = audit.findings.iter();
        let findings = findings
            .map(|finding| json!({ "key": finding.key, "problem": error_line(&finding.error) }));
        let told = json!({
            "records": audit.records,
            "entries": audit.entries,
            "foreign": audit.foreign,
            "findings": findings.collect::<Vec<Value>>(),
            "more": audit.more,
        });
        outln!("{}", crate::outcome::json(&told));
    } else {
        for finding in &audit.findings {
            outln!("{}: {}", shown(&finding.key), error_line(&finding.error));
        }
        if audit.more > 0 {
            outln!("and {} more", audit.more);
        }
        outln!(
            "{} records and {} index entries looked at, {} wrong; {} other objects left alone",
            audit.records,
            audit.entries,
            audit.findings.len() as u64 + audit.more,
            audit.foreign
        );
    }
    Ok(if audit.is_clean() {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}
