//! What a child says, one line for each thing it did.
//!
//! Children of one round write to one pipe, and a line is one write: the lines are in the order in
//! which they were said, whoever said them. That order is what the history rests on.

use std::fmt;
use std::str::FromStr;

/// What a line begins with; the test harness prints others.
const BEGINNING: &str = "kill-nine ";

/// Which state a checkpoint holds: a child's n-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    pub child: u64,
    pub n: u64,
}

/// A checkpoint, and under which fence it is or was to be written; where a room had none, the epoch
/// is 0 and there is no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub epoch: u64,
    pub fence: u64,
    pub mark: Option<Mark>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// The room was created or claimed, and is gone on with from there.
    Claimed,
    /// The room was taken parked, and is gone on with from there.
    Taken,
    /// A checkpoint is about to be written.
    Began,
    /// It was acknowledged.
    Acked,
    /// It was acknowledged, and the room parked with it.
    Parked,
    /// It failed in passing, and nobody knows what became of it.
    Failed,
    /// An earlier one that had failed was there already.
    Superseded,
    /// Old checkpoints were deleted.
    Pruned,
    /// Somebody else has the room. It is the last that a child says.
    Fenced,
}

const WORDS: [(Did, &str); 9] = [
    (Did::Claimed, "claimed"),
    (Did::Taken, "taken"),
    (Did::Began, "began"),
    (Did::Acked, "acked"),
    (Did::Parked, "parked"),
    (Did::Failed, "failed"),
    (Did::Superseded, "superseded"),
    (Did::Pruned, "pruned"),
    (Did::Fenced, "fenced"),
];

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub child: u64,
    pub did: Did,
    pub at: At,
}

impl Line {
    /// A line that is whole and a child's.
    pub fn read(text: &str) -> Option<Self> {
        let (_, said) = text.strip_suffix('\n')?.split_once(BEGINNING)?;
        let mut words = said.split(' ');
        let child = words.next()?.parse().ok()?;
        let word = words.next()?;
        let (did, _) = WORDS.iter().find(|(_, known)| *known == word)?;
        let at = At {
            epoch: words.next()?.parse().ok()?,
            fence: words.next()?.parse().ok()?,
            mark: match words.next()? {
                "-" => None,
                mark => Some(mark.parse().ok()?),
            },
        };
        let did = *did;
        Some(Self { child, did, at })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { child, did, at } = self;
        let word = WORDS.iter().find(|(known, _)| known == did);
        let (_, word) = word.expect("each has a word");
        let (epoch, fence) = (at.epoch, at.fence);
        write!(f, "{BEGINNING}{child} {word} {epoch} {fence} ")?;
        match at.mark {
            Some(mark) => mark.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.child, self.n)
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('.').and_then(|(child, n)| {
            let (child, n) = (child.parse().ok()?, n.parse().ok()?);
            Some(Self { child, n })
        });
        parsed.ok_or_else(|| format!("no mark: {text}"))
    }
}
