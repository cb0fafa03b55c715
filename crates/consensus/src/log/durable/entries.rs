//! The entries of a log as they are in memory: which there are, and what may follow them.
//!
//! Invariants
//! - indices are contiguous, from right after what was purged; in a log that never held or purged
//!   anything, from where the first append says;
//! - terms never go down from one entry to the next.

use std::collections::VecDeque;

use super::super::{LogError, Position, RECORD_BYTES_MAX, Record};

#[derive(Debug, Default)]
pub(super) struct Entries {
    purged: Option<Position>,
    records: VecDeque<Record>,
}

impl Entries {
    pub fn new(purged: Option<Position>, records: VecDeque<Record>) -> Self {
        Self { purged, records }
    }

    pub fn purged(&self) -> Option<Position> {
        self.purged
    }

    /// The last entry, or what was purged.
    pub fn last(&self) -> Option<Position> {
        self.records.back().map(|record| record.at).or(self.purged)
    }

    /// The index of the first record, or of the one that would be.
    pub fn first(&self) -> u64 {
        match self.records.front() {
            Some(record) => record.at.index,
            None => self.purged.map_or(0, |at| at.index.saturating_add(1)),
        }
    }

    fn next(&self) -> u64 {
        self.first() + self.records.len() as u64
    }

    /// See [`super::super::LogStore::read`].
    pub fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError> {
        if from >= to {
            return Ok(Vec::new());
        }
        if from < self.first() {
            return Err(LogError::Missing(from));
        }
        if to > self.next() {
            return Err(LogError::Missing(self.next().max(from)));
        }
        // Within the length by the two checks above.
        let start = (from - self.first()) as usize;
        let end = (to - self.first()) as usize;
        Ok(self.records.range(start..end).cloned().collect())
    }

    /// Whether `records` may be appended.
    pub fn admit(&self, records: &[Record]) -> Result<(), LogError> {
        let mut last = self.last();
        for record in records {
            if let Some(before) = last {
                let expected = before.index.saturating_add(1);
                if record.at.index != expected {
                    return Err(LogError::Gap {
                        expected,
                        got: record.at.index,
                    });
                }
                if record.at.term < before.term {
                    return Err(LogError::Term {
                        index: record.at.index,
                        known: before.term,
                        got: record.at.term,
                    });
                }
            }
            if record.at.index == u64::MAX {
                // The index after it could not be named.
                return Err(LogError::Gap {
                    expected: u64::MAX - 1,
                    got: u64::MAX,
                });
            }
            if record.body.len() > RECORD_BYTES_MAX {
                return Err(LogError::TooLarge {
                    what: "a record",
                    len: record.body.len(),
                    max: RECORD_BYTES_MAX,
                });
            }
            last = Some(record.at);
        }
        Ok(())
    }

    /// Adds records that were admitted.
    pub fn append(&mut self, records: &[Record]) {
        self.records.extend(records.iter().cloned());
    }

    /// Removes what comes after `last` and says which index comes next then.
    pub fn truncate_after(&mut self, last: Option<u64>) -> u64 {
        let next = last
            .map_or(0, |last| last.saturating_add(1))
            .max(self.first());
        self.records
            .truncate(usize::try_from(next - self.first()).unwrap_or(usize::MAX));
        next
    }

    /// Forgets the entries through `through`; whether that was anything new.
    pub fn purge(&mut self, through: Position) -> Result<bool, LogError> {
        if self.purged.is_some_and(|at| at.index >= through.index) {
            return Ok(false);
        }
        if let Some(known) = self.term(through.index)
            && known != through.term
        {
            return Err(LogError::Term {
                index: through.index,
                known,
                got: through.term,
            });
        }
        while self
            .records
            .front()
            .is_some_and(|record| record.at.index <= through.index)
        {
            self.records.pop_front();
        }
        self.purged = Some(through);
        Ok(true)
    }

    fn term(&self, index: u64) -> Option<u64> {
        let place = index.checked_sub(self.first())?;
        let record = self.records.get(usize::try_from(place).ok()?)?;
        Some(record.at.term)
    }
}
