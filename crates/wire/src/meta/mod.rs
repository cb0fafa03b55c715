//! What a game declares about itself: the output of its `meta` export.
//!
//! ```text
//! str slug · str name · str short_description · u16 min_players · u16 max_players
//! u16 n · n × str tag · str quick_label · str solo_label · str invite_line
//! u8 has_leaderboard · if 1: str metric_label · u8 direction · u8 aggregation · u8 format
//! -- each section below may be missing, together with all after it --
//! A  u16 n · n × { str key · str title · str description · u8 type · str default · str schema }
//! B  u32 ctx_features · u16 heartbeat_ms
//! C  u8 lifecycle
//! D  u16 wire_revision
//! E  u16 n · n × { u8 kind · kind 0: u32 rune, kind 1: u8 key · str label }
//! ```
//!
//! A host calls [`decode`], which reads the structure, then [`Meta::validate`], which applies the
//! rules an artifact is refused by, and keeps a [`MetaOwned`]. A guest SDK fills a [`Meta`], calls
//! [`Meta::validate_authored`] and [`encode`]s it.
//!
//! ```
//! use cabinet_wire::{meta::{self, Meta, MetaOwned}, Text, WIRE_REVISION};
//!
//! let authored = Meta { slug: Text::new("chess"), name: Text::new("Chess"), min_players: 2,
//!     max_players: 2, wire_revision: WIRE_REVISION, ..Meta::default() };
//! authored.validate_authored()?;
//! let mut payload = Vec::new();
//! meta::encode(&authored, &mut payload)?;
//!
//! let declared = meta::decode(&payload)?;
//! declared.validate()?;
//! assert_eq!(declared, authored);
//! assert_eq!(MetaOwned::from(&declared).name, "Chess");
//! # Ok::<(), meta::MetaError>(())
//! ```
//!
//! Codes are kept as sent (`lifecycle`, `direction`, ...) because hosts must carry and report what
//! they do not know; the methods of the same name give the enum.

mod decode;
mod encode;
mod error;
mod list;
mod owned;
mod validate;

pub use decode::decode;
pub use encode::encode;
pub use error::MetaError;
pub use list::{List, ListIter};
pub use owned::{ConfigSpecOwned, ControlOwned, LeaderboardOwned, MetaOwned};

use crate::{Aggregation, ConfigType, Direction, Lifecycle, MetricFormat, Slug, SlugError, Text};

/// A game's declaration, borrowing its strings and lists.
///
/// The default is empty and invalid: at least `slug` must be set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Meta<'a> {
    /// The bare name, unique on a platform; see [`Meta::slug`].
    pub slug: Text<'a>,
    /// The name to show.
    pub name: Text<'a>,
    /// One line about the game.
    pub short_description: Text<'a>,
    /// Players it takes to begin.
    pub min_players: u16,
    /// Players a room holds.
    pub max_players: u16,
    /// Words to find it by.
    pub tags: List<'a, Text<'a>>,
    /// What quick match is called here; empty for the platform's words.
    pub quick_mode_label: Text<'a>,
    /// What playing alone is called here; empty for the platform's words.
    pub solo_mode_label: Text<'a>,
    /// The line above a private invitation; empty for the platform's words.
    pub private_invite_line: Text<'a>,
    /// The leaderboard, if the game has one.
    pub leaderboard: Option<Leaderboard<'a>>,
    /// Config keys an admin may set (section A).
    pub config: List<'a, ConfigSpec<'a>>,
    /// `CTX_FEATURE_*` bits the game understands (section B), carried verbatim.
    pub ctx_features: u32,
    /// Milliseconds between wakes, 0 for the host's default (section B).
    pub heartbeat_ms: u16,
    /// The lifecycle code (section C); see [`Meta::lifecycle`].
    pub lifecycle: u8,
    /// The newest wire revision the game was built against, 0 for unknown (section D).
    pub wire_revision: u16,
    /// Keys to offer players who have no keyboard (section E).
    pub controls: List<'a, Control<'a>>,
}

impl Meta<'_> {
    /// The slug, if it is one.
    ///
    /// # Errors
    ///
    /// [`SlugError`]; never after [`Meta::validate`] has passed.
    pub fn slug(&self) -> Result<Slug, SlugError> {
        Slug::new(self.slug.as_bytes())
    }

    /// The lifecycle; an unassigned code is resumable.
    #[must_use]
    pub const fn lifecycle(&self) -> Lifecycle {
        Lifecycle::from_code_lossy(self.lifecycle)
    }
}

/// How a game's metric is ranked and shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaderboard<'a> {
    /// What the metric is called; empty for "Score".
    pub metric_label: Text<'a>,
    /// The direction code; see [`Leaderboard::direction`].
    pub direction: u8,
    /// The aggregation code; see [`Leaderboard::aggregation`].
    pub aggregation: u8,
    /// The format code; see [`Leaderboard::format`].
    pub format: u8,
}

impl Leaderboard<'_> {
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

/// A config key a game reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigSpec<'a> {
    /// The key; unique, not empty, not under [`HOST_KEY_PREFIX`](crate::HOST_KEY_PREFIX).
    pub key: Text<'a>,
    /// What to call it in a form.
    pub title: Text<'a>,
    /// What to say about it in a form.
    pub description: Text<'a>,
    /// The type code; see [`ConfigSpec::config_type`].
    pub config_type: u8,
    /// What the game does without it, as text.
    pub default: Text<'a>,
    /// A JSON schema, for [`ConfigType::Json`] alone.
    pub schema: Text<'a>,
}

impl ConfigSpec<'_> {
    /// What the value is, `None` for an unassigned code.
    #[must_use]
    pub fn config_type(&self) -> Option<ConfigType> {
        ConfigType::try_from(self.config_type).ok()
    }
}

/// A key a game wants to be pressable without a keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control<'a> {
    /// What pressing it sends.
    pub input: ControlInput,
    /// What to write on it.
    pub label: Text<'a>,
}

/// What a control sends, as declared: neither the rune nor the key need be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlInput {
    /// A code point.
    Rune(u32),
    /// A key code.
    Key(u8),
}
