//! The scripts that come with the crate, as files so that they can be read, copied and run.

use super::Script;

/// A script that comes with the crate.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Builtin {
    /// The script.
    #[must_use]
    pub fn script(&self) -> Script {
        // Every text in `BUILTIN` is read by a test; an unread one would be an empty script.
        Script::parse(self.text).unwrap_or_default()
    }
}

const fn builtin(name: &'static str, text: &'static str) -> Builtin {
    Builtin { name, text }
}

pub(super) const SOLO: Builtin = builtin("solo", include_str!("../../scripts/solo.script"));
pub(super) const PARTY: Builtin = builtin("party", include_str!("../../scripts/party.script"));

/// Every script that comes with the crate: the two defaults, and the ones the reference kit checks
/// its own guests with.
pub const BUILTIN: &[Builtin] = &[
    SOLO,
    PARTY,
    builtin("fixture", include_str!("../../scripts/fixture.script")),
    builtin(
        "rust-fixtures",
        include_str!("../../scripts/rust-fixtures.script"),
    ),
    builtin(
        "solo-rehydrate",
        include_str!("../../scripts/solo-rehydrate.script"),
    ),
    builtin(
        "send-identical",
        include_str!("../../scripts/send-identical.script"),
    ),
    builtin("mid-join", include_str!("../../scripts/mid-join.script")),
    builtin(
        "fault-trap",
        include_str!("../../scripts/fault-trap.script"),
    ),
    builtin(
        "fault-spin",
        include_str!("../../scripts/fault-spin.script"),
    ),
    builtin(
        "fault-memory",
        include_str!("../../scripts/fault-memory.script"),
    ),
];
