//! What a game declares about itself, built in a `const`.

use core::time::Duration;

use cabinet_wire::meta::{self as wire, List, MetaError};
use cabinet_wire::{
    Aggregation, CTX_FEATURE_CHARACTER, CTX_FEATURE_ROSTER_EPOCH, ConfigType, Direction, Key,
    Lifecycle, MetricFormat, Text, WIRE_REVISION,
};

/// A game's declaration; the value of [`Game::META`](crate::Game::META).
///
/// ```
/// use cabinet_guest::{ConfigSpec, Control, Key, Leaderboard, Meta};
///
/// const META: Meta = Meta::new("four-up", "Four Up")
///     .description("Drop discs, line up four")
///     .players(2, 4)
///     .tags(&["board", "turn-based"])
///     .leaderboard(Leaderboard::highest("Wins").summed())
///     .config(&[ConfigSpec::number("turn_seconds", "Seconds per turn", "30")])
///     .controls(&[Control::key(Key::Enter, "DROP"), Control::char('r', "REMATCH")]);
///
/// META.validate().unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    slug: &'static str,
    name: &'static str,
    description: &'static str,
    min_players: u16,
    max_players: u16,
    tags: &'static [&'static str],
    quick_label: &'static str,
    solo_label: &'static str,
    invite_line: &'static str,
    leaderboard: Option<Leaderboard>,
    config: &'static [ConfigSpec],
    features: u32,
    heartbeat_ms: u64,
    lifecycle: Lifecycle,
    controls: &'static [Control],
}

impl Meta {
    /// A game for one player with nothing else declared.
    ///
    /// The slug is the game's bare name on a platform: 1 to 32 of `a-z`, `0-9` and `-`.
    pub const fn new(slug: &'static str, name: &'static str) -> Meta {
        Meta {
            slug,
            name,
            description: "",
            min_players: 1,
            max_players: 1,
            tags: &[],
            quick_label: "",
            solo_label: "",
            invite_line: "",
            leaderboard: None,
            config: &[],
            features: 0,
            heartbeat_ms: 0,
            lifecycle: Lifecycle::Resumable,
            controls: &[],
        }
    }

    /// One line for the catalogue.
    pub const fn description(mut self, line: &'static str) -> Meta {
        self.description = line;
        self
    }

    /// Players it takes to begin and players a room holds.
    pub const fn players(mut self, min: u16, max: u16) -> Meta {
        (self.min_players, self.max_players) = (min, max);
        self
    }

    /// Words to find the game by.
    pub const fn tags(mut self, tags: &'static [&'static str]) -> Meta {
        self.tags = tags;
        self
    }

    /// What quick match is called here, instead of the platform's words.
    pub const fn quick_label(mut self, label: &'static str) -> Meta {
        self.quick_label = label;
        self
    }

    /// What playing alone is called here, instead of the platform's words.
    pub const fn solo_label(mut self, label: &'static str) -> Meta {
        self.solo_label = label;
        self
    }

    /// The line above a private invitation, instead of the platform's words.
    pub const fn invite_line(mut self, line: &'static str) -> Meta {
        self.invite_line = line;
        self
    }

    /// Ranks players by the metric of [`Room::post`](crate::Room::post) and
    /// [`Room::end`](crate::Room::end).
    pub const fn leaderboard(mut self, leaderboard: Leaderboard) -> Meta {
        self.leaderboard = Some(leaderboard);
        self
    }

    /// The configuration keys that [`Room::config`](crate::Room::config) may read.
    pub const fn config(mut self, specs: &'static [ConfigSpec]) -> Meta {
        self.config = specs;
        self
    }

    /// Keys to offer players without a keyboard, at most 32.
    pub const fn controls(mut self, controls: &'static [Control]) -> Meta {
        self.controls = controls;
        self
    }

    /// Time between wakes, 20 ms to 1 s in whole milliseconds; the host's default is 50 ms.
    pub const fn heartbeat(mut self, period: Duration) -> Meta {
        // Saturating into what validation refuses; a zero would read as "the host's default".
        self.heartbeat_ms = match period.as_millis() {
            0 => 1,
            ms if ms > u16::MAX as u128 => u16::MAX as u64,
            ms => ms as u64,
        };
        self
    }

    /// What becomes of a room that nobody is in. A resident game must be able to begin with one
    /// player.
    pub const fn lifecycle(mut self, lifecycle: Lifecycle) -> Meta {
        self.lifecycle = lifecycle;
        self
    }

    /// Has the host send the roster only when it changed. For rooms of many players: otherwise
    /// every callback carries 7 bytes, the handle, the account and the connection of each, which of
    /// a thousand is 30 KB with short names and 90 KB with two UUIDs.
    pub const fn roster_epochs(mut self) -> Meta {
        self.features |= CTX_FEATURE_ROSTER_EPOCH;
        self
    }

    /// Has the host send every player's [`Character`](crate::Character).
    pub const fn characters(mut self) -> Meta {
        self.features |= CTX_FEATURE_CHARACTER;
        self
    }

    /// Checks the declaration by every rule a host refuses a game for and by those only an author
    /// can mend. Call it in a test: a game that breaks a rule traps when the host asks for its
    /// meta.
    ///
    /// # Errors
    ///
    /// The first rule broken.
    pub fn validate(&self) -> Result<(), InvalidMeta> {
        if self.max_players == 0 || self.min_players > self.max_players {
            return Err(InvalidMeta::Players {
                min: self.min_players,
                max: self.max_players,
            });
        }
        for (index, spec) in self.config.iter().enumerate() {
            let fits = match spec.config_type {
                ConfigType::Number => is_number(spec.default),
                ConfigType::Bool => parse_bool(spec.default).is_some(),
                ConfigType::Json => {
                    spec.default.is_empty()
                        || cabinet_wire::json::is_well_formed(spec.default.as_bytes())
                }
                ConfigType::Text => true,
            };
            if !fits {
                return Err(InvalidMeta::Default { index });
            }
        }
        self.with_wire(|meta| meta.validate_authored())
            .map_err(InvalidMeta::Wire)
    }

    /// The spec of a declared key.
    pub fn config_spec(&self, key: &str) -> Option<&'static ConfigSpec> {
        self.config.iter().find(|spec| spec.key == key)
    }

    /// Milliseconds between wakes, 0 for the host's default.
    pub const fn heartbeat_ms(&self) -> u64 {
        self.heartbeat_ms
    }

    /// Players it takes to begin.
    pub const fn min_players(&self) -> u16 {
        self.min_players
    }

    /// Players a room holds.
    pub const fn max_players(&self) -> u16 {
        self.max_players
    }

    pub(crate) const fn features(&self) -> u32 {
        self.features
    }

    /// Appends the payload of the `meta` export.
    ///
    /// # Errors
    ///
    /// As [`validate`](Meta::validate); `out` is then as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), InvalidMeta> {
        self.validate()?;
        self.with_wire(|meta| wire::encode(meta, out))
            .map_err(InvalidMeta::Wire)
    }

    /// Lends the declaration in the wire crate's terms.
    fn with_wire<R>(&self, use_it: impl FnOnce(&wire::Meta<'_>) -> R) -> R {
        let tags: Vec<Text<'_>> = self.tags.iter().map(|tag| Text::new(tag)).collect();
        let config: Vec<_> = self.config.iter().map(|spec| spec.to_wire()).collect();
        let controls: Vec<_> = self
            .controls
            .iter()
            .map(|control| control.to_wire())
            .collect();
        use_it(&wire::Meta {
            slug: Text::new(self.slug),
            name: Text::new(self.name),
            short_description: Text::new(self.description),
            min_players: self.min_players,
            max_players: self.max_players,
            tags: List::new(&tags),
            quick_mode_label: Text::new(self.quick_label),
            solo_mode_label: Text::new(self.solo_label),
            private_invite_line: Text::new(self.invite_line),
            leaderboard: self.leaderboard.map(Leaderboard::to_wire),
            config: List::new(&config),
            ctx_features: self.features,
            heartbeat_ms: self.heartbeat_ms as u16,
            lifecycle: u8::from(self.lifecycle),
            wire_revision: WIRE_REVISION,
            controls: List::new(&controls),
        })
    }
}

/// How a game's metric is ranked and shown.
#[derive(Clone, Copy, Debug)]
pub struct Leaderboard {
    label: &'static str,
    direction: Direction,
    aggregation: Aggregation,
    format: MetricFormat,
}

impl Leaderboard {
    /// The highest metric leads. An empty label shows as "Score".
    pub const fn highest(label: &'static str) -> Leaderboard {
        Leaderboard {
            label,
            direction: Direction::HigherBetter,
            aggregation: Aggregation::Best,
            format: MetricFormat::Integer,
        }
    }

    /// The lowest metric leads.
    pub const fn lowest(label: &'static str) -> Leaderboard {
        Leaderboard {
            direction: Direction::LowerBetter,
            ..Leaderboard::highest(label)
        }
    }

    /// A player's results add up; otherwise the best one counts.
    pub const fn summed(mut self) -> Leaderboard {
        self.aggregation = Aggregation::Sum;
        self
    }

    /// How the metric is written: as it is, in tenths, or as seconds in `m:ss`.
    pub const fn format(mut self, format: MetricFormat) -> Leaderboard {
        self.format = format;
        self
    }

    fn to_wire(self) -> wire::Leaderboard<'static> {
        wire::Leaderboard {
            metric_label: Text::new(self.label),
            direction: u8::from(self.direction),
            aggregation: u8::from(self.aggregation),
            format: u8::from(self.format),
        }
    }
}

/// A configuration key the game reads, with the value it has when nobody set one.
#[derive(Clone, Copy, Debug)]
pub struct ConfigSpec {
    pub(crate) key: &'static str,
    pub(crate) config_type: ConfigType,
    pub(crate) default: &'static str,
    title: &'static str,
    description: &'static str,
    schema: &'static str,
}

impl ConfigSpec {
    /// Any text.
    pub const fn text(key: &'static str, title: &'static str, default: &'static str) -> ConfigSpec {
        ConfigSpec {
            key,
            config_type: ConfigType::Text,
            default,
            title,
            description: "",
            schema: "",
        }
    }

    /// A number; the default is one, written as in JSON.
    pub const fn number(
        key: &'static str,
        title: &'static str,
        default: &'static str,
    ) -> ConfigSpec {
        ConfigSpec {
            config_type: ConfigType::Number,
            ..ConfigSpec::text(key, title, default)
        }
    }

    /// `true` or `false`; the default is one of them.
    pub const fn bool(key: &'static str, title: &'static str, default: bool) -> ConfigSpec {
        let default = if default { "true" } else { "false" };
        ConfigSpec {
            config_type: ConfigType::Bool,
            ..ConfigSpec::text(key, title, default)
        }
    }

    /// A JSON value, with a JSON schema for the form that edits it (or `""`).
    pub const fn json(
        key: &'static str,
        title: &'static str,
        default: &'static str,
        schema: &'static str,
    ) -> ConfigSpec {
        ConfigSpec {
            config_type: ConfigType::Json,
            schema,
            ..ConfigSpec::text(key, title, default)
        }
    }

    /// What to tell whoever edits it.
    pub const fn description(mut self, text: &'static str) -> ConfigSpec {
        self.description = text;
        self
    }

    fn to_wire(self) -> wire::ConfigSpec<'static> {
        wire::ConfigSpec {
            key: Text::new(self.key),
            title: Text::new(self.title),
            description: Text::new(self.description),
            config_type: u8::from(self.config_type),
            default: Text::new(self.default),
            schema: Text::new(self.schema),
        }
    }
}

/// A key to offer players who have no keyboard, with up to 16 characters written on it.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    input: wire::ControlInput,
    label: &'static str,
}

impl Control {
    /// A key that types a character.
    pub const fn char(ch: char, label: &'static str) -> Control {
        Control {
            input: wire::ControlInput::Rune(ch as u32),
            label,
        }
    }

    /// A key that types no character.
    pub const fn key(key: Key, label: &'static str) -> Control {
        Control {
            input: wire::ControlInput::Key(key as u8),
            label,
        }
    }

    fn to_wire(self) -> wire::Control<'static> {
        wire::Control {
            input: self.input,
            label: Text::new(self.label),
        }
    }
}

/// Why a declaration would be refused.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum InvalidMeta {
    /// More players to begin than fit, or room for none.
    Players {
        /// Players to begin.
        min: u16,
        /// Players a room holds.
        max: u16,
    },
    /// A configuration default is not of its declared type.
    Default {
        /// Which spec.
        index: usize,
    },
    /// A rule of the wire.
    Wire(MetaError),
}

impl core::fmt::Display for InvalidMeta {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            InvalidMeta::Players { min, max } => {
                write!(f, "a room for {min} to {max} players cannot be played in")
            }
            InvalidMeta::Default { index } => {
                write!(f, "the default of config spec {index} is not of its type")
            }
            InvalidMeta::Wire(_) => f.write_str("the declaration breaks a rule of the wire"),
        }
    }
}

impl core::error::Error for InvalidMeta {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            InvalidMeta::Wire(error) => Some(error),
            _ => None,
        }
    }
}

/// A number as JSON writes one. Not parsed: that would link float parsing into every game.
fn is_number(text: &str) -> bool {
    let text = text.trim();
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && cabinet_wire::json::is_well_formed(text.as_bytes())
}

/// `true` or `false`, whitespace around it tolerated.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Meta = Meta::new("base", "Base");

    #[test]
    fn every_section_comes_out_of_the_wire_as_it_went_in() {
        const FULL: Meta = BASE
            .description("all of it")
            .players(1, 4)
            .tags(&["a", "b"])
            .quick_label("Q")
            .solo_label("S")
            .invite_line("I")
            .leaderboard(
                Leaderboard::lowest("Time")
                    .summed()
                    .format(MetricFormat::Duration),
            )
            .config(&[
                ConfigSpec::text("motd", "Message", "hi").description("shown on top"),
                ConfigSpec::number("n", "N", "3"),
                ConfigSpec::bool("b", "B", true),
                ConfigSpec::json("j", "J", "{}", r#"{"type":"object"}"#),
            ])
            .controls(&[Control::char('r', "AGAIN"), Control::key(Key::Tab, "NEXT")])
            .heartbeat(Duration::from_millis(100))
            .lifecycle(Lifecycle::Resident)
            .roster_epochs()
            .characters();
        let mut bytes = Vec::new();
        FULL.encode(&mut bytes).unwrap();
        let meta = wire::decode(&bytes).unwrap();
        assert_eq!((meta.min_players, meta.max_players), (1, 4));
        assert!(meta.tags.iter().eq([Text::new("a"), Text::new("b")]));
        let leaderboard = meta.leaderboard.unwrap();
        assert_eq!(
            (
                leaderboard.direction,
                leaderboard.aggregation,
                leaderboard.format
            ),
            (1, 1, 2)
        );
        let types: Vec<u8> = meta.config.iter().map(|spec| spec.config_type).collect();
        assert_eq!(types, [0, 1, 2, 3]);
        assert_eq!(
            (meta.ctx_features, meta.heartbeat_ms, meta.lifecycle),
            (3, 100, 2)
        );
        assert_eq!(meta.wire_revision, WIRE_REVISION);
        assert_eq!(meta.controls.len(), 2);
        meta.validate_authored().unwrap();
    }

    #[test]
    fn a_bare_declaration_is_valid() {
        BASE.validate().unwrap();
    }

    #[test]
    fn each_broken_rule_is_refused() {
        let players = |min, max| BASE.players(min, max).validate();
        assert_eq!(players(3, 2), Err(InvalidMeta::Players { min: 3, max: 2 }));
        assert_eq!(players(0, 0), Err(InvalidMeta::Players { min: 0, max: 0 }));
        const BAD_DEFAULT: Meta = BASE.config(&[ConfigSpec::number("n", "N", "three")]);
        assert_eq!(
            BAD_DEFAULT.validate(),
            Err(InvalidMeta::Default { index: 0 })
        );
        const BROKEN: [Meta; 6] = [
            Meta::new("Not A Slug", "N"),
            BASE.config(&[ConfigSpec::text("host.x", "X", "")]),
            BASE.config(&[ConfigSpec::json("j", "J", "{}", "{")]),
            BASE.controls(&[Control::char('\n', "ENTER")]),
            BASE.controls(&[Control::char('a', "seventeen letters")]),
            BASE.players(2, 2).lifecycle(Lifecycle::Resident),
        ];
        for broken in BROKEN {
            assert!(
                matches!(broken.validate(), Err(InvalidMeta::Wire(_))),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn a_heartbeat_outside_20_ms_to_1_s_is_refused_also_far_outside() {
        let valid = |period| BASE.heartbeat(period).validate().is_ok();
        let ms = Duration::from_millis;
        assert!(valid(ms(20)) && valid(ms(1_000)));
        for period in [Duration::ZERO, ms(19), ms(1_001), ms(65_556), Duration::MAX] {
            assert!(!valid(period), "{period:?}");
        }
    }
}
