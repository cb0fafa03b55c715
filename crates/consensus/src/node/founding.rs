//! The secret of a session, as a log holds it whose settings are not applied yet.
//!
//! Invariants
//! - the first settings in the log count, as they do once they are applied: should they not be
//!   committed, the log loses them, and what stands in their place is found;
//! - what was looked through is not read again while its last entry stands: then all before it do.

use prost::Message;

use crate::lobby::proof::Secret;
use crate::log::{LogStore, Position, Record, RecordKind};
use crate::state::command::{Body, Command};

/// Entries at the beginning of a log that are looked through for the first settings. Before them
/// stand the members, a blank entry of each leader that did not get as far, and what others were
/// quick to propose. A node whose log has them later proves nothing until it has applied them.
pub(super) const SETTINGS_WITHIN: u64 = 64;

/// What a log was found to hold.
#[derive(Default)]
pub(super) struct SecretInLog {
    /// The last entry that was looked at.
    at: Option<Position>,
    /// What the first settings hold, if they were found: there, if not `None`.
    found: Option<Option<Secret>>,
}

impl SecretInLog {
    /// The secret in the first settings, where the log has them.
    pub(super) fn look(&mut self, log: &dyn LogStore) -> Option<Secret> {
        if self
            .at
            .is_some_and(|at| entry(log, at.index).map(|e| e.at) != Some(at))
        {
            *self = Self::default();
        }
        while self.found.is_none() {
            let next = self.at.map_or(0, |at| at.index + 1);
            if next >= SETTINGS_WITHIN {
                break;
            }
            let record = entry(log, next)?;
            self.at = Some(record.at);
            self.found = settings(&record);
        }
        self.found.clone().flatten()
    }
}

fn entry(log: &dyn LogStore, index: u64) -> Option<Record> {
    log.read(index, index + 1).ok()?.pop()
}

/// The secret in an entry's settings, if it is settings.
fn settings(record: &Record) -> Option<Option<Secret>> {
    if record.kind != RecordKind::Command {
        return None;
    }
    match Command::decode(record.body.clone()).ok()?.body? {
        Body::Configure(configure) => Some(Secret::from_bytes(&configure.secret)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::log::MemoryLog;
    use crate::state::command::{Configure, Tick};

    fn secret(of: u64) -> Secret {
        Secret::drawn(&of.to_be_bytes(), "sum", SessionId(1))
    }

    fn record(index: u64, term: u64, body: Body) -> Record {
        Record {
            at: Position { term, index },
            kind: RecordKind::Command,
            body: Command::new(0, body).to_bytes(),
        }
    }

    fn tick(index: u64) -> Record {
        record(index, 1, Body::Tick(Tick {}))
    }

    fn configure(index: u64, term: u64, of: u64) -> Record {
        let secret = secret(of).to_bytes();
        let configure = Configure {
            secret,
            ..Configure::default()
        };
        record(index, term, Body::Configure(configure))
    }

    fn put(log: &MemoryLog, records: impl IntoIterator<Item = Record>) {
        let records = records.into_iter().collect();
        log.append(records, Box::new(|_| {})).unwrap();
    }

    #[test]
    fn settings_are_found_in_the_last_entry_looked_at_and_not_one_past_it() {
        for (at, found) in [
            (0, true),
            (SETTINGS_WITHIN - 1, true),
            (SETTINGS_WITHIN, false),
        ] {
            let (log, mut held) = (MemoryLog::new(), SecretInLog::default());
            put(&log, (0..at).map(tick));
            assert_eq!(held.look(&log), None, "{at}: not there yet");
            put(&log, [configure(at, 1, 7)]);
            for _ in 0..2 {
                assert_eq!(held.look(&log), found.then(|| secret(7)), "{at}");
            }
        }
    }

    #[tokio::test]
    async fn settings_that_the_log_lost_again_give_way_to_those_that_took_their_place() {
        let (log, mut held) = (MemoryLog::new(), SecretInLog::default());
        put(&log, [tick(0), configure(1, 1, 7)]);
        assert_eq!(held.look(&log), Some(secret(7)));
        // A founder crashed before they were committed, and another leader wrote its own.
        log.truncate_after(Some(0)).await.unwrap();
        assert_eq!(held.look(&log), None);
        put(&log, [configure(1, 2, 8), configure(2, 2, 9)]);
        assert_eq!(held.look(&log), Some(secret(8)), "the first of them count");
    }

    #[test]
    fn settings_without_a_secret_are_the_first_all_the_same() {
        let (log, mut held) = (MemoryLog::new(), SecretInLog::default());
        let none = record(0, 1, Body::Configure(Configure::default()));
        put(&log, [none, configure(1, 1, 7)]);
        assert_eq!(held.look(&log), None);
    }
}
