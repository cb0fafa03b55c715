//! The small enumerations of the wire, each a byte (the merge rule alone is a string).

use core::fmt;

/// A byte that this revision assigns no meaning to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode {
    /// Which enumeration was asked.
    pub what: &'static str,
    /// The byte.
    pub code: u8,
}

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no code {}", self.what, self.code)
    }
}

impl core::error::Error for UnknownCode {}

// A macro because a function cannot define types: eleven enums that must agree in how a byte, a
// variant and a name relate.
macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident $what:literal { $($(#[$vmeta:meta])* $variant:ident = $code:literal $text:literal),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$vmeta])* #[doc = concat!("\n\nCode ", stringify!($code), ", named `", $text, "`.")] $variant = $code),+
        }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name used in text: scripts, traces, logs, snapshots.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The value of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == name)
            }
        }

        impl TryFrom<u8> for $name {
            type Error = UnknownCode;
            fn try_from(code: u8) -> Result<Self, UnknownCode> {
                match code {
                    $($code => Ok(Self::$variant),)+
                    code => Err(UnknownCode { what: $what, code }),
                }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> u8 {
                value as u8
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

codes! {
    /// What a player is to the platform.
    #[derive(Default)]
    Kind "player kind" {
        /// Keyless: no account behind it.
        #[default]
        Guest = 0 "guest",
        /// Signed in.
        Member = 1 "member",
    }

    /// How a room came to be.
    #[derive(Default)]
    Mode "room mode" {
        /// Matched with strangers.
        #[default]
        Quick = 0 "quick",
        /// By invitation.
        Private = 1 "private",
        /// Alone.
        Solo = 2 "solo",
    }

    /// How a player's run ended.
    Status "ranking status" {
        /// Played to the end.
        Finished = 0 "finished",
        /// Did not finish.
        Dnf = 1 "dnf",
        /// Finished, and the game wants it looked at.
        Flagged = 2 "flagged",
    }

    /// A key that is not a character.
    Key "key" {
        /// Return.
        Enter = 1 "enter",
        /// Delete to the left.
        Backspace = 2 "backspace",
        /// Escape.
        Esc = 3 "esc",
        /// Tabulator.
        Tab = 4 "tab",
        /// Arrow up.
        Up = 5 "up",
        /// Arrow down.
        Down = 6 "down",
        /// Arrow left.
        Left = 7 "left",
        /// Arrow right.
        Right = 8 "right",
        /// Control and C together.
        CtrlC = 9 "ctrl-c",
    }

    /// What typed characters mean at the moment.
    #[derive(Default)]
    InputContext "input context" {
        /// Letters move.
        #[default]
        Nav = 0 "nav",
        /// Letters are commands.
        Command = 1 "command",
        /// Letters are text.
        Text = 2 "text",
    }

    /// How much a log line matters.
    LogLevel "log level" {
        /// For the author.
        Debug = 0 "debug",
        /// Normal.
        Info = 1 "info",
        /// Worth a look.
        Warn = 2 "warn",
        /// Something broke.
        Error = 3 "error",
    }

    /// What becomes of a room that nobody is in.
    #[derive(Default)]
    Lifecycle "lifecycle" {
        /// It is parked and can be resumed.
        #[default]
        Resumable = 0 "resumable",
        /// It ends.
        Ephemeral = 1 "ephemeral",
        /// It keeps ticking.
        Resident = 2 "resident",
    }

    /// What a config value is.
    ConfigType "config type" {
        /// Any text.
        Text = 0 "text",
        /// A number.
        Number = 1 "number",
        /// True or false.
        Bool = 2 "bool",
        /// A JSON document, optionally with a schema.
        Json = 3 "json",
    }

    /// Which metric wins a leaderboard.
    Direction "leaderboard direction" {
        /// The higher.
        HigherBetter = 0 "higher",
        /// The lower.
        LowerBetter = 1 "lower",
    }

    /// How a player's metrics combine.
    Aggregation "leaderboard aggregation" {
        /// The best counts.
        Best = 0 "best",
        /// They add up.
        Sum = 1 "sum",
    }

    /// How a metric is shown.
    MetricFormat "leaderboard format" {
        /// As it is.
        Integer = 0 "integer",
        /// A tenth of it, with one decimal.
        Decimal = 1 "decimal",
        /// As seconds, `m:ss`.
        Duration = 2 "duration",
    }
}

impl LogLevel {
    /// The level a host reads from the argument of `log`: 0, 2 and 3 are themselves, everything
    /// else is info.
    #[must_use]
    pub const fn from_argument(level: i64) -> Self {
        match level {
            0 => Self::Debug,
            2 => Self::Warn,
            3 => Self::Error,
            _ => Self::Info,
        }
    }
}

impl Lifecycle {
    /// The lifecycle a host reads from meta: an unassigned code is resumable.
    #[must_use]
    pub const fn from_code_lossy(code: u8) -> Self {
        match code {
            1 => Self::Ephemeral,
            2 => Self::Resident,
            _ => Self::Resumable,
        }
    }
}

/// What happens to a stored value when two accounts become one. A string on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MergeRule {
    /// The surviving account's value stays. What an empty or unknown rule acts as.
    #[default]
    KeepWinner,
    /// The dissolved account's value is taken.
    KeepLoser,
    /// Both are base-10 integers and add up.
    Sum,
    /// Both are base-10 integers and the larger stays.
    Max,
}

impl MergeRule {
    /// Every rule.
    pub const ALL: &'static [Self] = &[Self::KeepWinner, Self::KeepLoser, Self::Sum, Self::Max];

    /// The rule as it is on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeepWinner => "keep-winner",
            Self::KeepLoser => "keep-loser",
            Self::Sum => "sum",
            Self::Max => "max",
        }
    }

    /// The rule of exactly these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|rule| rule.as_str().as_bytes() == bytes)
    }

    /// The rule these bytes act as when accounts merge: unknown ones keep the winner's value.
    #[must_use]
    pub fn from_bytes_lossy(bytes: &[u8]) -> Self {
        Self::from_bytes(bytes).unwrap_or_default()
    }
}

impl fmt::Display for MergeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Debug;

    fn codes_of<T>(all: &[T], first: u8)
    where
        T: Copy + PartialEq + Debug + TryFrom<u8, Error = UnknownCode> + Into<u8>,
    {
        for code in 0..=u8::MAX {
            match T::try_from(code) {
                Ok(value) => assert_eq!(value.into(), code),
                Err(error) => assert_eq!(error.code, code),
            }
        }
        let known = (0..=u8::MAX).filter_map(|code| T::try_from(code).ok());
        assert!(known.eq(all.iter().copied()));
        assert_eq!(all[0].into(), first);
    }

    #[test]
    fn every_code_reads_back_and_no_other_byte_is_one() {
        codes_of(Kind::ALL, 0);
        codes_of(Mode::ALL, 0);
        codes_of(Status::ALL, 0);
        codes_of(Key::ALL, 1);
        codes_of(InputContext::ALL, 0);
        codes_of(LogLevel::ALL, 0);
        codes_of(Lifecycle::ALL, 0);
        codes_of(ConfigType::ALL, 0);
        codes_of(Direction::ALL, 0);
        codes_of(Aggregation::ALL, 0);
        codes_of(MetricFormat::ALL, 0);
        assert_eq!(Key::ALL.len(), 9);
        assert_eq!(Key::from_name("ctrl-c"), Some(Key::CtrlC));
        assert_eq!(Mode::from_name("Quick"), None);
    }

    #[test]
    fn an_unassigned_log_level_is_info_and_an_unassigned_lifecycle_resumable() {
        for (level, read) in [
            (0, LogLevel::Debug),
            (2, LogLevel::Warn),
            (3, LogLevel::Error),
        ] {
            assert_eq!(LogLevel::from_argument(level), read);
        }
        for level in [-1, 1, 4, 9, 258, i64::MIN, i64::MAX] {
            assert_eq!(LogLevel::from_argument(level), LogLevel::Info);
        }
        for code in 0..=u8::MAX {
            let read = Lifecycle::try_from(code).unwrap_or_default();
            assert_eq!(Lifecycle::from_code_lossy(code), read);
        }
    }

    #[test]
    fn an_unknown_merge_rule_keeps_the_winner() {
        for &rule in MergeRule::ALL {
            assert_eq!(MergeRule::from_bytes(rule.as_str().as_bytes()), Some(rule));
        }
        assert_eq!(MergeRule::from_bytes(b"MAX"), None);
        assert_eq!(MergeRule::from_bytes_lossy(b""), MergeRule::KeepWinner);
    }
}
