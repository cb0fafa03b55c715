//! `cabinet config GAME [KEY[=VALUE]]`: what an operator may set for a game, and what is set.
//!
//! The keys are those the game declares and the host's own. Values live in a durable store's
//! directory; without one the command tells what there is to set.

use std::path::{Path, PathBuf};

use cabinet_conformance::{error_line, files};
use cabinet_host::{GameOptions, Host, HostOptions};
use cabinet_rooms::GameSlug;
use cabinet_rooms::host_keys::{DEADLINE_MS, HEARTBEAT_MS, HostKey};
use cabinet_rooms::services::durable::{DurableOptions, DurableStore, look_config};
use cabinet_rooms::services::{StoreAdmin, wait_for};
use cabinet_wire::ConfigType;
use cabinet_wire::meta::ConfigSpecOwned;
use serde_json::{Value, json};

use crate::artifact::Artifact;
use crate::outcome::{self, Outcome, Problem, say};

/// Arguments of `cabinet config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cabinet config game.wasm                         every key, its type, default and bounds
  cabinet config game.wasm --store /var/lib/cabinet/store speed=2
  cabinet config game.wasm --store /var/lib/cabinet/store host.deadline_ms

A value that is set applies to rooms made from then on. The store must not be open elsewhere. A look
writes nothing, and works where nothing may be written.")]
pub struct Args {
    /// A game's module, or its directory, which is built first.
    #[arg(value_name = "GAME")]
    game: PathBuf,
    /// The key to show, or to set to a value; all keys when there is none.
    #[arg(value_name = "KEY[=VALUE]")]
    key: Option<String>,
    /// Directory of the durable store the values are kept in.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// What the platform calls the game, when that is not its own name: `ada/chess`.
    #[arg(long, value_name = "SLUG", value_parser = platform_slug)]
    slug: Option<String>,
    /// Print a JSON object: `slug`, `applies` and the `keys`.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when there is no such game, key or store, or the value is not one of its type.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    if let Some(dir) = &args.store {
        // What the store keeps there. Anything else in their place would be waited for.
        for name in ["store.redb", "store.lock"] {
            let found = files::none_or_file(&dir.join(name));
            found.map_err(|error| Problem::new(format!("--store: {}", error_line(&error))))?;
        }
    }
    let artifact = Artifact::resolve(&args.game)?;
    let host = Host::new(HostOptions::default()).map_err(|error| Problem::about("host", &error))?;
    let game = host
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| Problem::about(artifact.path.display(), &error))?;
    let slug = args.slug.as_deref().unwrap_or(&game.meta().slug);
    let declared = game.meta().config.iter().cloned();
    let mut keys: Vec<ConfigSpecOwned> = declared.chain(HostKey::ALL.map(HostKey::spec)).collect();
    let (name, value) = match args.key.as_deref().map(|key| key.split_once('=')) {
        Some(Some((name, value))) => (Some(name), Some(value)),
        Some(None) => (args.key.as_deref(), None),
        None => (None, None),
    };
    if let Some(name) = name {
        let known: Vec<&str> = keys.iter().map(|spec| spec.key.as_str()).collect();
        let unknown = format!(
            "{slug} has no key {name:?}; its keys are {}",
            known.join(", ")
        );
        keys.retain(|spec| spec.key == name);
        if keys.is_empty() {
            return Err(Problem::new(unknown));
        }
    }
    if let (Some(value), Some(spec)) = (value, keys.first()) {
        acceptable(spec, value)
            .map_err(|why| Problem::new(format!("{} cannot be {value:?}: {why}", spec.key)))?;
    }
    let set = match (&args.store, value, &keys[..]) {
        (Some(dir), Some(value), [spec]) => {
            keep(dir, slug, &spec.key, value)?;
            vec![Some(value.to_owned())]
        }
        (None, Some(_), _) => {
            return Err(Problem::new(
                "name the store the value is kept in with --store DIR",
            ));
        }
        (Some(dir), ..) => {
            let names: Vec<&[u8]> = keys.iter().map(|spec| spec.key.as_bytes()).collect();
            let found = look_config(dir, slug, &names)
                .map_err(|error| Problem::about("--store", &error))?;
            let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
            found.into_iter().map(|value| value.map(text)).collect()
        }
        (None, None, _) => vec![None; keys.len()],
    };
    let rows = keys.iter().zip(set);
    if args.json {
        let keys: Vec<Value> = rows
            .map(|(spec, set)| as_json(spec, set.as_deref()))
            .collect();
        let told = json!({ "slug": slug, "applies": "rooms made from now on", "keys": keys });
        say(format_args!("{}\n", outcome::json(&told)))?;
    } else if let (Some(value), Some(spec)) = (value, keys.first()) {
        say(format_args!(
            "{} of {slug} is {value:?} for rooms made from now on\n",
            Plain(&spec.key)
        ))?;
    } else {
        for (spec, set) in rows {
            say(as_text(spec, set.as_deref()))?;
        }
    }
    Ok(Outcome::Good)
}

/// Keeps a value in the store of a directory, which is made when there is none.
fn keep(dir: &Path, slug: &str, key: &str, value: &str) -> Result<(), Problem> {
    let store = DurableStore::open(dir, &DurableOptions::default())
        .map_err(|error| Problem::about("--store", &error))?;
    let bytes = Some(value.as_bytes());
    let kept = wait_for(|reply| store.set_config(slug, key.as_bytes(), bytes, reply));
    store.close();
    kept.map_err(|error| Problem::about("the value was not kept", &error))
}

/// A game's name as a platform may call it: its own, or that after its author's and a slash.
fn platform_slug(text: &str) -> Result<String, String> {
    let slug = text.parse::<GameSlug>();
    slug.map(|slug| slug.as_str().to_owned())
        .map_err(|error| error_line(&error))
}

/// Text from a game, fit for a terminal.
struct Plain<'a>(&'a str);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Problem::new(self.0))
    }
}

fn as_text(spec: &ConfigSpecOwned, set: Option<&str>) -> String {
    let mut text = format!("{}  {}", Plain(&spec.key), kind(spec));
    if let Some((least, most)) = bounds(&spec.key) {
        text += &format!(" {least} to {most}");
    }
    text += &format!(", default {:?}", spec.default);
    if let Some(set) = set {
        text += &format!(", set to {set:?}");
    }
    let words = [&spec.title, &spec.description];
    let words: Vec<String> = words
        .into_iter()
        .filter(|words| !words.is_empty())
        .map(|words| Plain(words).to_string())
        .collect();
    format!("{text}\n    {}\n", words.join(": "))
}

fn as_json(spec: &ConfigSpecOwned, set: Option<&str>) -> Value {
    let bounds = bounds(&spec.key).map(|(least, most)| json!({ "least": least, "most": most }));
    json!({ "key": spec.key, "title": spec.title, "description": spec.description,
        "type": kind(spec), "default": spec.default, "schema": spec.schema,
        "bounds": bounds, "set": set })
}

fn kind(spec: &ConfigSpecOwned) -> &'static str {
    match spec.config_type() {
        Some(ConfigType::Number) => "number",
        Some(ConfigType::Bool) => "bool",
        Some(ConfigType::Json) => "json",
        _ => "text",
    }
}

/// The bounds of a host's key, milliseconds.
fn bounds(key: &str) -> Option<(u16, u16)> {
    if key == HostKey::Heartbeat.key() {
        Some(HEARTBEAT_MS)
    } else if key == HostKey::Deadline.key() {
        Some(DEADLINE_MS)
    } else {
        None
    }
}

/// Whether the key may have the value; else why not.
///
/// # Errors
/// What its values are.
pub(crate) fn acceptable(spec: &ConfigSpecOwned, value: &str) -> Result<(), String> {
    if let Some((least, most)) = bounds(&spec.key) {
        let within = value
            .parse()
            .is_ok_and(|ms: u16| (least..=most).contains(&ms));
        let why = format!("it is a whole number of milliseconds, {least} to {most}");
        return within.then_some(()).ok_or(why);
    }
    let (good, why) = match spec.config_type() {
        Some(ConfigType::Number) => (
            value.parse().is_ok_and(|number: f64| number.is_finite()),
            "it is a number",
        ),
        Some(ConfigType::Bool) => (
            ["true", "false"].contains(&value),
            "it is `true` or `false`",
        ),
        Some(ConfigType::Json) => (
            serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok(),
            "it is JSON",
        ),
        _ => (true, ""),
    };
    good.then_some(()).ok_or_else(|| why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(config_type: ConfigType) -> ConfigSpecOwned {
        ConfigSpecOwned {
            key: "k".into(),
            config_type: config_type.into(),
            ..ConfigSpecOwned::default()
        }
    }

    #[test]
    fn a_value_is_taken_by_its_keys_type_alone() {
        let takes = |of, value| acceptable(&spec(of), value).is_ok();
        assert!(takes(ConfigType::Number, "1.5") && !takes(ConfigType::Number, "fast"));
        assert!(!takes(ConfigType::Number, "inf") && !takes(ConfigType::Number, ""));
        assert!(takes(ConfigType::Bool, "true") && !takes(ConfigType::Bool, "yes"));
        assert!(takes(ConfigType::Json, "[1,2]") && !takes(ConfigType::Json, "[1,"));
    }

    #[test]
    fn the_hosts_keys_are_taken_at_their_bounds_and_not_one_past_them() {
        let takes = |key: HostKey, value| acceptable(&key.spec(), value).is_ok();
        assert!(takes(HostKey::Heartbeat, "20") && takes(HostKey::Heartbeat, "1000"));
        assert!(!takes(HostKey::Heartbeat, "19") && !takes(HostKey::Heartbeat, "1001"));
        assert!(takes(HostKey::Deadline, "10") && takes(HostKey::Deadline, "2000"));
        assert!(!takes(HostKey::Deadline, "9") && !takes(HostKey::Deadline, "2001"));
        assert!(takes(HostKey::Resident, "true") && !takes(HostKey::Resident, "on"));
    }

    #[test]
    fn a_platforms_name_is_a_slug_or_two() {
        assert!(platform_slug("chess").is_ok() && platform_slug("ada/chess").is_ok());
        for bad in ["", "/chess", "ada/", "a/b/c", "Not A\x1b[31m Slug!"] {
            assert!(platform_slug(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_games_words_cannot_draw_on_a_terminal() {
        let mut loud = spec(ConfigType::Bool);
        loud.title = "\x1b[2Jtitle".into();
        loud.default = "\x1b".into();
        let text = as_text(&loud, Some("\x07"));
        assert!(!text.contains(['\x1b', '\x07']), "{text:?}");
    }
}
