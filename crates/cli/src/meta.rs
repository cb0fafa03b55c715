//! `cabinet meta FILE|DIR`: what a game says about itself, and what the host found out.
//!
//! JSON in the reference's order of fields, two spaces of indent, `<`, `>` and `&` escaped, so that
//! the output can be compared with the reference's. After its fields come three of ours: `probed`
//! (ABI major and wire revision the guest answered with), `host` (what this program speaks) and
//! `warnings`.

use std::path::PathBuf;

use cabinet_conformance::error_line;
use cabinet_conformance::trace::meta_json;
use cabinet_host::{GameOptions, Host, HostOptions};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};

use crate::artifact::Artifact;
use crate::outcome::{self, Outcome, Problem, say};

/// Fields in the order they are printed; others follow in alphabetical order.
const ORDER: &[&str] = &[
    "abi",
    "slug",
    "name",
    "shortDescription",
    "minPlayers",
    "maxPlayers",
    "tags",
    "quickModeLabel",
    "soloModeLabel",
    "privateInviteLine",
    "leaderboard",
    "metricLabel",
    "direction",
    "aggregation",
    "format",
    "config",
    "ctxFeatures",
    "heartbeatMS",
    "lifecycle",
    "wireRevision",
    "controls",
    // In an entry of `controls`, then of `config`.
    "kind",
    "rune",
    "key",
    "label",
    "title",
    "description",
    "type",
    "default",
    "schema",
    "probed",
    "host",
    "warnings",
];

/// Arguments of `cabinet meta`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cabinet meta game.wasm | jq .maxPlayers")]
pub struct Args {
    /// A game's module, or its directory, which is built first.
    #[arg(value_name = "FILE|DIR")]
    game: PathBuf,
    /// Print JSON, which is what is printed without it too.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when there is no such game or the host refuses it.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    // There is one form: the reference's.
    let Args { game, json: _ } = args;
    let artifact = Artifact::resolve(game)?;
    let host = Host::new(HostOptions::default()).map_err(|error| Problem::about("host", &error))?;
    let game = host
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| Problem::about(artifact.path.display(), &error))?;
    let mut value = meta_json(game.meta());
    value["abi"] = json!(game.abi_major());
    value["probed"] = json!({ "abi": game.abi_major(), "wireRevision": game.wire_revision() });
    value["host"] = json!({
        "abi": cabinet_wire::ABI_MAJOR, "wireRevision": cabinet_wire::WIRE_REVISION,
    });
    let warnings = game.warnings().iter();
    let warnings: Vec<String> = warnings.map(ToString::to_string).collect();
    if !warnings.is_empty() {
        value["warnings"] = json!(warnings);
    }
    let text = serde_json::to_string_pretty(&Ordered(&value))
        .map_err(|error| Problem::new(error_line(&error)))?;
    say(format_args!("{}\n", outcome::json_escaped(&escaped(&text))))?;
    Ok(Outcome::Good)
}

/// As Go writes JSON that may end up in a page. These characters occur in strings only.
fn escaped(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// A value whose objects are written in the order of [`ORDER`].
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(object) => {
                let place = |key: &str| ORDER.iter().position(|known| *known == key);
                let mut entries: Vec<_> = object.iter().collect();
                entries.sort_by_key(|(key, _)| place(key).unwrap_or(ORDER.len()));
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, &Ordered(value))?;
                }
                map.end()
            }
            Value::Array(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                for value in list {
                    seq.serialize_element(&Ordered(value))?;
                }
                seq.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_the_references_order_and_markup_is_escaped() {
        let value = json!({ "name": "a<b>&c", "abi": 2, "slug": "x", "zzz": 1,
            "controls": [{ "label": "UP", "kind": 1, "key": 5 }] });
        let text = serde_json::to_string(&Ordered(&value)).unwrap();
        assert_eq!(
            escaped(&text),
            "{\"abi\":2,\"slug\":\"x\",\"name\":\"a\\u003cb\\u003e\\u0026c\",\
             \"controls\":[{\"kind\":1,\"key\":5,\"label\":\"UP\"}],\"zzz\":1}"
        );
    }
}
