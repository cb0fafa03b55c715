//! The configuration keys a host keeps for itself, the same for every game.
//!
//! They live in the game's configuration beside its own keys; games may read them. Nothing here
//! reads a store: the functions are told what was found. A store that failed found nothing.

use std::time::Duration;

use cabinet_wire::ConfigType;
use cabinet_wire::meta::ConfigSpecOwned;

/// A reserved key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKey {
    /// `host.heartbeat_ms`: the time between wakes.
    Heartbeat,
    /// `host.resident`: whether the game may have a resident room.
    Resident,
    /// `host.deadline_ms`: the time a callback may take.
    Deadline,
}

/// The shortest and the longest heartbeat, in milliseconds.
pub const HEARTBEAT_MS: (u16, u16) = (20, 1_000);
/// The shortest and the longest callback deadline, in milliseconds.
pub const DEADLINE_MS: (u16, u16) = (10, 2_000);

impl HostKey {
    /// All of them, in the order a form shows them.
    pub const ALL: [Self; 3] = [Self::Heartbeat, Self::Resident, Self::Deadline];

    /// The key in the configuration store.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Heartbeat => "host.heartbeat_ms",
            Self::Resident => "host.resident",
            Self::Deadline => "host.deadline_ms",
        }
    }

    /// What a form says about the key.
    #[must_use]
    pub fn spec(self) -> ConfigSpecOwned {
        let (title, description, config_type, default) = match self {
            Self::Heartbeat => (
                "Host heartbeat",
                "Milliseconds from one wake to the next, 20 to 1000. Rooms made from now on use it.",
                ConfigType::Number,
                "50",
            ),
            Self::Resident => (
                "Resident world",
                "Lets the game have one room that is always there: it runs while empty, comes back after \
                 a restart and is offered to nobody to resume. Only for games whose meta declares \
                 the resident lifecycle.",
                ConfigType::Bool,
                "false",
            ),
            Self::Deadline => (
                "Callback deadline",
                "Milliseconds a callback may take before its room is ended, 10 to 2000. Rooms made \
                 from now on use it.",
                ConfigType::Number,
                "100",
            ),
        };
        ConfigSpecOwned {
            key: self.key().into(),
            title: title.into(),
            description: description.into(),
            config_type: config_type.into(),
            default: default.into(),
            schema: String::new(),
        }
    }
}

/// The time between wakes: what the operator configured, else what the game's meta declares, both
/// kept within [`HEARTBEAT_MS`], else `option` as it is.
///
/// `admin` is the value found under [`HostKey::Heartbeat`]; `meta_ms` is 0 when nothing is declared.
#[must_use]
pub fn heartbeat(admin: Option<&[u8]>, meta_ms: u16, option: Duration) -> Duration {
    let declared = (meta_ms > 0).then_some(i64::from(meta_ms));
    within(HEARTBEAT_MS, admin.and_then(millis).or(declared)).unwrap_or(option)
}

/// The time a callback may take: what the operator configured, kept within [`DEADLINE_MS`], else
/// `option` as it is. `admin` is the value found under [`HostKey::Deadline`].
#[must_use]
pub fn deadline(admin: Option<&[u8]>, option: Duration) -> Duration {
    within(DEADLINE_MS, admin.and_then(millis)).unwrap_or(option)
}

/// Whether the operator lets the game have a resident room; `admin` is the value found under
/// [`HostKey::Resident`]. Yes is `true`, `t` or `1`, in any case, space around it allowed; everything
/// else is no.
#[must_use]
pub fn resident(admin: Option<&[u8]>) -> bool {
    let text = admin.and_then(|value| std::str::from_utf8(value).ok());
    text.is_some_and(|text| {
        let text = text.trim();
        ["true", "t", "1"]
            .iter()
            .any(|yes| text.eq_ignore_ascii_case(yes))
    })
}

/// A positive count of milliseconds: base 10, a sign allowed, space around it allowed. Anything else
/// is as if it were not there.
fn millis(value: &[u8]) -> Option<i64> {
    let millis: i64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (millis > 0).then_some(millis)
}

fn within((least, most): (u16, u16), millis: Option<i64>) -> Option<Duration> {
    let millis = millis?.clamp(least.into(), most.into());
    // The bounds are positive.
    Some(Duration::from_millis(millis.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEARTBEAT: Duration = Duration::from_millis(50);
    const DEADLINE: Duration = Duration::from_millis(100);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_three_keys_are_specified_in_order() {
        let specs = HostKey::ALL.map(HostKey::spec);
        let shown = specs.each_ref().map(|spec| {
            (
                spec.key.as_str(),
                spec.title.as_str(),
                spec.config_type(),
                spec.default.as_str(),
            )
        });
        assert_eq!(
            shown,
            [
                (
                    "host.heartbeat_ms",
                    "Host heartbeat",
                    Some(ConfigType::Number),
                    "50"
                ),
                (
                    "host.resident",
                    "Resident world",
                    Some(ConfigType::Bool),
                    "false"
                ),
                (
                    "host.deadline_ms",
                    "Callback deadline",
                    Some(ConfigType::Number),
                    "100"
                ),
            ]
        );
        assert!(specs.iter().all(|spec| !spec.description.is_empty()));
    }

    #[test]
    fn configured_times_override_the_options_within_their_bounds() {
        for (admin, beats, ends) in [
            (None, HEARTBEAT, DEADLINE),
            (Some("200"), ms(200), ms(200)),
            (Some(" 500\n"), ms(500), ms(500)),
            (Some("+30"), ms(30), ms(30)),
            (Some("60000"), ms(1_000), ms(2_000)),
            (Some("9223372036854775807"), ms(1_000), ms(2_000)),
            (Some("1"), ms(20), ms(10)),
        ] {
            let admin = admin.map(str::as_bytes);
            assert_eq!(heartbeat(admin, 0, HEARTBEAT), beats, "{admin:?}");
            assert_eq!(deadline(admin, DEADLINE), ends, "{admin:?}");
        }
    }

    #[test]
    fn the_bounds_themselves_are_taken_and_one_past_them_is_not() {
        for (admin, beats, ends) in [
            ("20", 20, 20),
            ("19", 20, 19),
            ("1000", 1_000, 1_000),
            ("1001", 1_000, 1_001),
            ("10", 20, 10),
            ("9", 20, 10),
            ("2000", 1_000, 2_000),
            ("2001", 1_000, 2_000),
        ] {
            let admin = Some(admin.as_bytes());
            assert_eq!(heartbeat(admin, 0, HEARTBEAT), ms(beats), "{admin:?}");
            assert_eq!(deadline(admin, DEADLINE), ms(ends), "{admin:?}");
        }
    }

    #[test]
    fn what_is_not_a_positive_number_overrides_nothing() {
        for text in [
            "",
            " ",
            "fast",
            "0",
            "-1",
            "-200",
            "50ms",
            "5e2",
            "0x40",
            "1_000",
            "50.0",
            "9223372036854775808",
        ] {
            let admin = Some(text.as_bytes());
            assert_eq!(heartbeat(admin, 0, HEARTBEAT), HEARTBEAT, "{text:?}");
            assert_eq!(heartbeat(admin, 100, HEARTBEAT), ms(100), "{text:?}");
            assert_eq!(deadline(admin, DEADLINE), DEADLINE, "{text:?}");
        }
        assert_eq!(deadline(Some(b"5\xff0"), DEADLINE), DEADLINE);
    }

    #[test]
    fn the_operator_goes_before_the_game_and_the_game_before_the_option() {
        assert_eq!(heartbeat(None, 100, HEARTBEAT), ms(100));
        assert_eq!(heartbeat(Some(b"250"), 100, HEARTBEAT), ms(250));
        assert_eq!(heartbeat(None, 0, HEARTBEAT), HEARTBEAT);
        // What a game declares is bounded; an option is the embedder's own affair.
        assert_eq!(heartbeat(None, 1, HEARTBEAT), ms(20));
        assert_eq!(heartbeat(None, u16::MAX, HEARTBEAT), ms(1_000));
        assert_eq!(heartbeat(None, 0, ms(5)), ms(5));
        assert_eq!(deadline(None, ms(5)), ms(5));
    }

    #[test]
    fn a_resident_room_is_allowed_by_a_plain_yes_alone() {
        for yes in ["true", "TRUE", "True", "t", "T", "1", " true\n"] {
            assert!(resident(Some(yes.as_bytes())), "{yes:?}");
        }
        for no in ["", "false", "0", "yes", "on", "2", "truely", "true true"] {
            assert!(!resident(Some(no.as_bytes())), "{no:?}");
        }
        assert!(!resident(None));
        assert!(!resident(Some(b"tru\xe9")));
    }

    proptest! {
        #[test]
        fn whatever_is_configured_the_times_stay_within_their_bounds(
            admin in proptest::option::of(prop_oneof![
                any::<Vec<u8>>(),
                any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            ]),
            meta_ms: u16,
        ) {
            let beats = heartbeat(admin.as_deref(), meta_ms, HEARTBEAT);
            prop_assert!((ms(20)..=ms(1_000)).contains(&beats));
            let ends = deadline(admin.as_deref(), DEADLINE);
            prop_assert!((ms(10)..=ms(2_000)).contains(&ends));
        }
    }
}
