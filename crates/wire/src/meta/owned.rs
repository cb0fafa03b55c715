//! A meta that outlives its payload: what a host keeps of a game.

use alloc::string::String;
use alloc::vec::Vec;

use super::{ConfigSpec, Control, ControlInput, Leaderboard, Meta};
use crate::{Aggregation, ConfigType, Direction, Lifecycle, MetricFormat, Slug, SlugError, Text};

/// A [`Meta`] with owned strings, in which bytes that are not UTF-8 have been replaced. Made with
/// `MetaOwned::from(&meta)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaOwned {
    /// The bare name; see [`MetaOwned::slug`].
    pub slug: String,
    /// The name to show.
    pub name: String,
    /// One line about the game.
    pub short_description: String,
    /// Players it takes to begin.
    pub min_players: u16,
    /// Players a room holds.
    pub max_players: u16,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What quick match is called here; empty for the platform's words.
    pub quick_mode_label: String,
    /// What playing alone is called here; empty for the platform's words.
    pub solo_mode_label: String,
    /// The line above a private invitation; empty for the platform's words.
    pub private_invite_line: String,
    /// The leaderboard, if the game has one.
    pub leaderboard: Option<LeaderboardOwned>,
    /// Config keys an admin may set.
    pub config: Vec<ConfigSpecOwned>,
    /// `CTX_FEATURE_*` bits the game declared, known or not.
    pub ctx_features: u32,
    /// Milliseconds between wakes, 0 for the host's default.
    pub heartbeat_ms: u16,
    /// The lifecycle code; see [`MetaOwned::lifecycle`].
    pub lifecycle: u8,
    /// The newest wire revision the game was built against, 0 for unknown.
    pub wire_revision: u16,
    /// Keys to offer players who have no keyboard.
    pub controls: Vec<ControlOwned>,
}

impl MetaOwned {
    /// The slug, if it is one.
    ///
    /// # Errors
    ///
    /// [`SlugError`]; never when the meta this came from was validated.
    pub fn slug(&self) -> Result<Slug, SlugError> {
        self.slug.parse()
    }

    /// The lifecycle; an unassigned code is resumable.
    #[must_use]
    pub const fn lifecycle(&self) -> Lifecycle {
        Lifecycle::from_code_lossy(self.lifecycle)
    }
}

/// An owned [`Leaderboard`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderboardOwned {
    /// What the metric is called; empty for "Score".
    pub metric_label: String,
    /// The direction code; see [`LeaderboardOwned::direction`].
    pub direction: u8,
    /// The aggregation code; see [`LeaderboardOwned::aggregation`].
    pub aggregation: u8,
    /// The format code; see [`LeaderboardOwned::format`].
    pub format: u8,
}

impl LeaderboardOwned {
    /// Which metric wins, `None` for an unassigned code.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        Direction::try_from(self.direction).ok()
    }

    /// How metrics combine, `None` for an unassigned code.
    #[must_use]
    pub fn aggregation(&self) -> Option<Aggregation> {
        Aggregation::try_from(self.aggregation).ok()
    }

    /// How the metric is shown, `None` for an unassigned code.
    #[must_use]
    pub fn format(&self) -> Option<MetricFormat> {
        MetricFormat::try_from(self.format).ok()
    }
}

/// An owned [`ConfigSpec`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSpecOwned {
    /// The key.
    pub key: String,
    /// What to call it in a form.
    pub title: String,
    /// What to say about it in a form.
    pub description: String,
    /// The type code; see [`ConfigSpecOwned::config_type`].
    pub config_type: u8,
    /// What the game does without it, as text.
    pub default: String,
    /// A JSON schema, or empty.
    pub schema: String,
}

impl ConfigSpecOwned {
    /// What the value is, `None` for an unassigned code.
    #[must_use]
    pub fn config_type(&self) -> Option<ConfigType> {
        ConfigType::try_from(self.config_type).ok()
    }
}

/// An owned [`Control`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlOwned {
    /// What pressing it sends.
    pub input: ControlInput,
    /// What to write on it.
    pub label: String,
}

impl From<&Meta<'_>> for MetaOwned {
    fn from(meta: &Meta<'_>) -> Self {
        Self {
            slug: string(meta.slug),
            name: string(meta.name),
            short_description: string(meta.short_description),
            min_players: meta.min_players,
            max_players: meta.max_players,
            tags: meta.tags.iter().map(string).collect(),
            quick_mode_label: string(meta.quick_mode_label),
            solo_mode_label: string(meta.solo_mode_label),
            private_invite_line: string(meta.private_invite_line),
            leaderboard: meta.leaderboard.map(LeaderboardOwned::from),
            config: meta.config.iter().map(ConfigSpecOwned::from).collect(),
            ctx_features: meta.ctx_features,
            heartbeat_ms: meta.heartbeat_ms,
            lifecycle: meta.lifecycle,
            wire_revision: meta.wire_revision,
            controls: meta.controls.iter().map(ControlOwned::from).collect(),
        }
    }
}

impl From<Leaderboard<'_>> for LeaderboardOwned {
    fn from(leaderboard: Leaderboard<'_>) -> Self {
        Self {
            metric_label: string(leaderboard.metric_label),
            direction: leaderboard.direction,
            aggregation: leaderboard.aggregation,
            format: leaderboard.format,
        }
    }
}

impl From<ConfigSpec<'_>> for ConfigSpecOwned {
    fn from(spec: ConfigSpec<'_>) -> Self {
        Self {
            key: string(spec.key),
            title: string(spec.title),
            description: string(spec.description),
            config_type: spec.config_type,
            default: string(spec.default),
            schema: string(spec.schema),
        }
    }
}

impl From<Control<'_>> for ControlOwned {
    fn from(control: Control<'_>) -> Self {
        Self {
            input: control.input,
            label: string(control.label),
        }
    }
}

fn string(text: Text<'_>) -> String {
    text.to_str_lossy().into_owned()
}
