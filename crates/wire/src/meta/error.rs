//! Why a meta is refused.

use core::fmt;

use crate::reader::Short;
use crate::{
    CONTROL_LABEL_CHARS_MAX, CONTROLS_MAX, HEARTBEAT_MAX_MS, HEARTBEAT_MIN_MS, HOST_KEY_PREFIX,
    LIST_COUNT_MAX, SlugError, TEXT_BYTES_MAX,
};

/// Why a meta could not be read, breaks a rule, or could not be written. An `index` counts the
/// config specs or controls from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaError {
    /// A field runs past the end of the payload.
    Short,
    /// The slug is empty, which is refused before any rule is applied.
    EmptySlug,
    /// A control is neither rune nor key.
    UnknownControlKind {
        /// Which control.
        index: usize,
        /// Its kind.
        kind: u8,
    },
    /// A config key is empty.
    ConfigKeyEmpty {
        /// Which spec.
        index: usize,
    },
    /// A config key was declared before.
    ConfigKeyRepeated {
        /// Which spec, the later of the two.
        index: usize,
    },
    /// A config key belongs to the host.
    ConfigKeyReserved {
        /// Which spec.
        index: usize,
    },
    /// A config type has no such code.
    ConfigTypeUnknown {
        /// Which spec.
        index: usize,
        /// The code.
        code: u8,
    },
    /// A schema on a value that is not JSON.
    SchemaOnNonJson {
        /// Which spec.
        index: usize,
    },
    /// A schema that is not JSON itself, or nests too deep.
    SchemaMalformed {
        /// Which spec.
        index: usize,
    },
    /// A heartbeat that is neither 0 nor in range.
    HeartbeatOutOfRange {
        /// The heartbeat declared.
        heartbeat_ms: u16,
    },
    /// More controls than a platform shows.
    TooManyControls {
        /// How many.
        count: usize,
    },
    /// A control sends a control character.
    ControlRuneNotPrintable {
        /// Which control.
        index: usize,
        /// The code point.
        rune: u32,
    },
    /// A control sends a key that does not exist.
    ControlKeyUnknown {
        /// Which control.
        index: usize,
        /// The key code.
        key: u8,
    },
    /// A control sends what an earlier one does.
    ControlRepeated {
        /// Which control, the later of the two.
        index: usize,
    },
    /// A control without a label.
    ControlLabelEmpty {
        /// Which control.
        index: usize,
    },
    /// A label that does not fit its button.
    ControlLabelTooLong {
        /// Which control.
        index: usize,
        /// Its code points.
        chars: usize,
    },
    /// The slug breaks the naming rule.
    Slug(SlugError),
    /// Authors only: feature bits without a meaning.
    UnknownFeatures {
        /// The unknown bits.
        bits: u32,
    },
    /// Authors only: a lifecycle without a meaning.
    UnknownLifecycle {
        /// The code.
        code: u8,
    },
    /// Authors only: a resident room runs with nobody in it, so it cannot wait for two.
    ResidentNeedsOnePlayer {
        /// The minimum declared.
        min_players: u16,
    },
    /// Encoding only: a string has more bytes than the wire can carry.
    TextTooLong {
        /// Which string.
        field: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// Encoding only: a list has more items than the wire can count.
    ListTooLong {
        /// Which list.
        field: &'static str,
        /// Its items.
        count: usize,
    },
}

impl From<Short> for MetaError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl From<SlugError> for MetaError {
    fn from(error: SlugError) -> Self {
        Self::Slug(error)
    }
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("meta ends inside a field"),
            Self::EmptySlug => f.write_str("meta has an empty slug"),
            Self::UnknownControlKind { index, kind } => {
                write!(f, "control {index} has unknown kind {kind}")
            }
            Self::ConfigKeyEmpty { index } => write!(f, "config spec {index} has an empty key"),
            Self::ConfigKeyRepeated { index } => {
                write!(f, "config spec {index} repeats the key of an earlier one")
            }
            Self::ConfigKeyReserved { index } => write!(
                f,
                "config spec {index} has a key under \"{HOST_KEY_PREFIX}\", which is the host's"
            ),
            Self::ConfigTypeUnknown { index, code } => {
                write!(f, "config spec {index} has unknown type {code}")
            }
            Self::SchemaOnNonJson { index } => {
                write!(f, "config spec {index} has a schema and is not json")
            }
            Self::SchemaMalformed { index } => {
                write!(f, "config spec {index} has a schema that is not valid json")
            }
            Self::HeartbeatOutOfRange { heartbeat_ms } => write!(
                f,
                "heartbeat of {heartbeat_ms} ms is neither 0 nor in \
                 {HEARTBEAT_MIN_MS}..={HEARTBEAT_MAX_MS}"
            ),
            Self::TooManyControls { count } => {
                write!(f, "{count} controls declared, at most {CONTROLS_MAX} fit")
            }
            Self::ControlRuneNotPrintable { index, rune } => {
                write!(f, "control {index} sends {rune:#x}, which is not printable")
            }
            Self::ControlKeyUnknown { index, key } => {
                write!(f, "control {index} sends unknown key {key}")
            }
            Self::ControlRepeated { index } => {
                write!(f, "control {index} sends what an earlier one does")
            }
            Self::ControlLabelEmpty { index } => write!(f, "control {index} has an empty label"),
            Self::ControlLabelTooLong { index, chars } => write!(
                f,
                "control {index} has a label of {chars} characters, at most \
                 {CONTROL_LABEL_CHARS_MAX} fit"
            ),
            Self::Slug(_) => f.write_str("meta has an invalid slug"),
            Self::UnknownFeatures { bits } => write!(f, "unknown context features {bits:#x}"),
            Self::UnknownLifecycle { code } => write!(f, "unknown lifecycle {code}"),
            Self::ResidentNeedsOnePlayer { min_players } => write!(
                f,
                "a resident game must start with at most 1 player, not {min_players}"
            ),
            Self::TextTooLong { field, bytes } => {
                write!(f, "{field} has {bytes} bytes, at most {TEXT_BYTES_MAX} fit")
            }
            Self::ListTooLong { field, count } => {
                write!(f, "{count} {field} declared, at most {LIST_COUNT_MAX} fit")
            }
        }
    }
}

impl core::error::Error for MetaError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Slug(error) => Some(error),
            _ => None,
        }
    }
}
