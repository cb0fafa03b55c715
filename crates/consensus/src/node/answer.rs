//! What a leader answers to a forwarded command, as a message.

use crate::raft::SubmitError;
use crate::raft::wire::Submitted;
use crate::state::sessions::{Opened, Rejection};
use crate::state::{Applied, KeptMsg};

/// What became of a command, for the node that forwarded it.
pub(super) fn submitted(result: Result<Applied, SubmitError>) -> Submitted {
    let mut answer = Submitted::default();
    match result {
        Err(SubmitError::NotLeader { leader }) => answer.leader = leader.as_ref().map(Into::into),
        Err(SubmitError::Busy) => answer.outcome = 6,
        Err(_) => answer.outcome = 1,
        Ok(Applied::Decided { kept, duplicate }) => {
            answer.outcome = 2;
            answer.kept = Some(KeptMsg::new(0, 0, &kept));
            answer.a = u64::from(duplicate);
        }
        Ok(Applied::Rejected(why)) => {
            answer.outcome = 3;
            answer.a = match why {
                Rejection::NoSession => 0,
                Rejection::Superseded => 1,
                Rejection::TooOld => 2,
                Rejection::NotYours => 3,
                Rejection::Malformed => 4,
                Rejection::Expired => 5,
                Rejection::Full => 6,
                Rejection::TooLarge { max } => {
                    answer.b = max;
                    7
                }
            };
        }
        Ok(Applied::Opened(opened)) => {
            answer.outcome = 4;
            answer.a = opened.generation;
            answer.b = opened.next_serial;
        }
        Ok(_) => answer.outcome = 5,
    }
    answer
}

/// What the leader said became of a command.
pub(super) fn submitted_from(answer: Submitted) -> Result<Applied, SubmitError> {
    match answer.outcome {
        0 => Err(SubmitError::NotLeader {
            leader: answer.leader.and_then(|node| node.node()),
        }),
        2 => match answer.kept.map(KeptMsg::kept) {
            Some(Ok(kept)) => Ok(Applied::Decided {
                kept,
                duplicate: answer.a != 0,
            }),
            _ => Err(SubmitError::Unknown),
        },
        3 => Ok(Applied::Rejected(match answer.a {
            0 => Rejection::NoSession,
            1 => Rejection::Superseded,
            2 => Rejection::TooOld,
            3 => Rejection::NotYours,
            5 => Rejection::Expired,
            6 => Rejection::Full,
            7 => Rejection::TooLarge { max: answer.b },
            _ => Rejection::Malformed,
        })),
        4 => Ok(Applied::Opened(Opened {
            generation: answer.a,
            next_serial: answer.b,
        })),
        5 => Ok(Applied::Internal),
        6 => Err(SubmitError::Busy),
        _ => Err(SubmitError::Unknown),
    }
}
