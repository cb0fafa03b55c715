//! Proposing for the node's own client: its session, its serials, and asking again.
//!
//! Invariants
//! - a proposal is sent again under its first key until it is decided or its deadline passes;
//! - a session that ended is opened again, and the key kept: the table refuses a serial that may
//!   have been applied before, so that nothing is applied twice;
//! - a serial drawn here is nobody else's: if another process of the client may have used it
//!   meanwhile, another is drawn, or nothing is promised;
//! - of a serial the caller chose nothing is promised before it is decided: it may have been
//!   proposed before, by this process or an earlier one, and that attempt may still be in a log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::patience::UnderWay;
use super::{Node, Undecided, guard};
use crate::config;
use crate::ids::{ActionKey, ClientId, NodeId};
use crate::state::Applied;
use crate::state::command::plain::{Draft, PlainAct};
use crate::state::command::{Body as Do, Open};
use crate::state::seats::NoPlace;
use crate::state::sessions::{Kept, Opened, Rejection, SERIAL_MAX};

/// A proposal without a verdict.
///
/// Under a number of the caller's own ([`propose_with_id`](crate::turns::TurnSequencer::propose_with_id))
/// an attempt before may be under way. Where this would say that the action will not take effect,
/// or that the session is closed, it says [`ProposeError::Unknown`] then; the other errors say
/// nothing then of what became of that attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// No leader took the action before the deadline: it did not and will not take effect. Never
    /// the answer to a number of the caller's own.
    #[error("no leader took the action in time: try again once there is one")]
    NotAppended {
        /// Who was believed to lead.
        leader: Option<NodeId>,
    },
    /// The deadline passed with the action under way, or this node lost its place meanwhile: it may
    /// still take effect. Propose it again under the same key to learn what became of it.
    #[error("what became of {key} is not known: propose it again under the same key")]
    Unknown {
        /// The action's key.
        key: ActionKey,
    },
    /// The action is larger than the limit.
    #[error("an action has at most {max} bytes, this one has {len}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The leader has too much under way, from this node or from all: the action did not and will
    /// not take effect. Never the answer to a number of the caller's own.
    #[error("the leader has too much under way: try again later")]
    Overloaded,
    /// The game remembers as many clients as it may.
    #[error("the game remembers as many clients as it may")]
    SessionsFull,
    /// This node has as many proposals under way as it may.
    #[error("{max} proposals are under way: wait for one to be decided")]
    TooManyPending {
        /// Proposals allowed.
        max: usize,
    },
    /// What became of the serial is older than what the game remembers: it is too far behind the
    /// client's last, or of a session of the client that ended. It may have taken effect, and will
    /// not any more. The events say which.
    #[error("serial {serial} is older than what the game remembers of this client")]
    Forgotten {
        /// The serial.
        serial: u64,
    },
    /// The serial is zero, or larger than there can be.
    #[error("a serial is between 1 and {SERIAL_MAX}, not {serial}")]
    NoSerial {
        /// The serial.
        serial: u64,
    },
    /// Another process uses the client id.
    #[error("client id {client} is used by another process or peer: take another")]
    IdentityTaken {
        /// The client id.
        client: ClientId,
    },
    /// A voter says that this node has no place in the game any more, so nobody takes what it proposes: the
    /// action did not and will not take effect. See
    /// [`GameSession::refused`](crate::session::GameSession::refused), which says when that is over.
    /// Never the answer to a number of the caller's own.
    #[error("this node has no place in the game any more")]
    NoPlace(#[source] NoPlace),
    /// The node has stopped, and the action did not and will not take effect. Never the answer to a
    /// number of the caller's own.
    #[error("the session is closed")]
    Closed,
}

impl ProposeError {
    /// The same, where `key` may have been proposed before: nothing is promised of it.
    fn of_asked_before(self, key: ActionKey) -> Self {
        match self {
            Self::NotAppended { .. } | Self::Overloaded | Self::NoPlace(_) | Self::Closed => {
                Self::Unknown { key }
            }
            other => other,
        }
    }
}

#[derive(Default)]
pub(super) struct ClientState {
    opened: Option<Opened>,
    next_serial: u64,
    pub(super) under_way: UnderWay,
}

impl Node {
    /// The client's session, opened if it is not.
    async fn opened(&self, deadline: Instant) -> Result<Opened, ProposeError> {
        let opened = guard(&self.state).opened;
        match opened {
            Some(opened) => Ok(opened),
            None => self.open(deadline).await,
        }
    }

    async fn open(&self, deadline: Instant) -> Result<Opened, ProposeError> {
        let open = Do::Open(Open {
            client: self.client.as_str().to_owned(),
            owner: self.me().peer.as_str().to_owned(),
            nonce: self.nonce,
        });
        let open = Draft::Other(open);
        match self.submit_noting(open, None, deadline, &mut false).await {
            Ok(Applied::Opened(opened)) => {
                let mut state = guard(&self.state);
                state.opened = Some(opened);
                state.next_serial = state.next_serial.max(opened.next_serial);
                Ok(opened)
            }
            Ok(Applied::Rejected(Rejection::NotYours)) => Err(ProposeError::IdentityTaken {
                client: self.client.clone(),
            }),
            Ok(Applied::Rejected(Rejection::Full)) => Err(ProposeError::SessionsFull),
            Ok(_) => Err(ProposeError::NotAppended { leader: None }),
            // A session that may be open harms nobody.
            Err(Undecided::Late { leader, .. }) => Err(ProposeError::NotAppended { leader }),
            Err(Undecided::Busy) => Err(ProposeError::Overloaded),
            Err(Undecided::NoPlace(why)) => Err(ProposeError::NoPlace(why)),
            Err(Undecided::Closed) => Err(ProposeError::Closed),
        }
    }

    /// Takes a serial, if the client's session is open.
    fn reserve(self: &Arc<Self>, pinned: Option<u64>) -> Result<Option<Reserved>, ProposeError> {
        let max = self.limits.pending_max;
        let mut state = guard(&self.state);
        let Some(opened) = state.opened else {
            return Ok(None);
        };
        let serial = pinned.unwrap_or(state.next_serial.max(1));
        if serial == 0 || serial > SERIAL_MAX {
            return Err(ProposeError::NoSerial { serial });
        }
        if !state.under_way.begin(serial, max) {
            return Err(ProposeError::TooManyPending { max });
        }
        state.next_serial = state.next_serial.max(serial + 1);
        drop(state);
        Ok(Some(Reserved {
            node: self.clone(),
            opened,
            serial,
            pinned: pinned.is_some(),
        }))
    }

    /// Whether an action is small enough.
    pub(crate) fn fits(&self, action: &Bytes) -> Result<(), ProposeError> {
        let (len, max) = (action.len(), self.limits.action_bytes_max);
        if len > max {
            return Err(ProposeError::TooLarge { len, max });
        }
        Ok(())
    }

    /// Takes a number for an action, `pinned` or the client's next one, before it is proposed.
    async fn take_serial(
        self: &Arc<Self>,
        pinned: Option<u64>,
        deadline: Instant,
    ) -> Result<Reserved, ProposeError> {
        loop {
            if let Some(reserved) = self.reserve(pinned)? {
                return Ok(reserved);
            }
            // Once in a session's life: it must not make every proposal larger.
            Box::pin(self.open(deadline)).await?;
        }
    }

    /// Proposes an action and waits for its verdict. `pinned` is the client's own number for it.
    pub(crate) async fn propose(
        self: &Arc<Self>,
        action: Bytes,
        pinned: Option<u64>,
        expected_turn: Option<u64>,
        within: Duration,
    ) -> Result<(ActionKey, Kept), ProposeError> {
        self.fits(&action)?;
        let deadline = config::deadline(within);
        loop {
            let reserved = self.number(pinned, deadline).await?;
            let decided = self.decide(&reserved, &action, expected_turn, deadline);
            match decided.await {
                Ok(kept) => return Ok((reserved.key(), kept)),
                Err(Undone::SerialTaken) => {}
                Err(Undone::Failed(why)) => {
                    self.pause_if_stopped(&why).await;
                    return Err(why);
                }
            }
        }
    }

    async fn decide(
        &self,
        reserved: &Reserved,
        action: &[u8],
        expected_turn: Option<u64>,
        deadline: Instant,
    ) -> Result<Kept, Undone> {
        let Reserved {
            serial,
            pinned,
            mut opened,
            ..
        } = *reserved;
        let mut maybe = pinned;
        loop {
            let act = Draft::Act(PlainAct {
                client: self.client.as_str(),
                session: opened.generation,
                serial,
                expected_turn,
                action,
                owner: self.me().peer.as_str(),
            });
            let decided = self.submit_noting(act, Some(serial), deadline, &mut maybe);
            let failed = match decided.await {
                Ok(Applied::Decided { kept, .. }) => return Ok(kept),
                Ok(Applied::Rejected(why @ (Rejection::NoSession | Rejection::Superseded)))
                    if self.ended(opened, why) =>
                {
                    opened = match Box::pin(self.opened(deadline)).await {
                        Ok(opened) => opened,
                        Err(why) if pinned => {
                            return Err(why.of_asked_before(reserved.key()).into());
                        }
                        Err(_) if maybe => return Err(reserved.unknown().into()),
                        Err(why) => return Err(why.into()),
                    };
                    if pinned || serial >= opened.next_serial {
                        continue;
                    }
                    // Another process of this client may have used it meanwhile.
                    if !maybe {
                        return Err(Undone::SerialTaken);
                    }
                    reserved.unknown()
                }
                Ok(Applied::Rejected(Rejection::TooOld | Rejection::Expired)) => {
                    ProposeError::Forgotten { serial }
                }
                Ok(Applied::Rejected(Rejection::Superseded | Rejection::NotYours))
                    if pinned || !maybe =>
                {
                    ProposeError::IdentityTaken {
                        client: self.client.clone(),
                    }
                }
                Ok(Applied::Rejected(Rejection::TooLarge { max })) if !maybe => {
                    ProposeError::TooLarge {
                        len: action.len(),
                        max: usize::try_from(max).unwrap_or(usize::MAX),
                    }
                }
                Ok(_) => reserved.unknown(),
                Err(Undecided::Late {
                    maybe: false,
                    leader,
                }) => ProposeError::NotAppended { leader },
                Err(Undecided::Late { .. }) => reserved.unknown(),
                Err(Undecided::Busy) => ProposeError::Overloaded,
                Err(Undecided::NoPlace(why)) => ProposeError::NoPlace(why),
                Err(Undecided::Closed) => ProposeError::Closed,
            };
            return Err(Undone::Failed(failed));
        }
    }

    /// Whether a session this node had open is to be opened again: it ended, or another proposal
    /// of this node opened it again meanwhile. Otherwise another process took the client over.
    fn ended(&self, had: Opened, why: Rejection) -> bool {
        let mut state = guard(&self.state);
        if state.opened != Some(had) {
            return true;
        }
        if why == Rejection::NoSession {
            state.opened = None;
        }
        state.opened.is_none()
    }

    /// Takes a number for an action, `pinned` or the client's next one, before it is proposed. Of
    /// one that is pinned nothing is promised.
    pub(crate) async fn number(
        self: &Arc<Self>,
        pinned: Option<u64>,
        deadline: Instant,
    ) -> Result<Reserved, ProposeError> {
        let taken = self.take_serial(pinned, deadline).await;
        let Some(serial) = pinned else { return taken };
        match taken {
            Ok(reserved) => Ok(reserved),
            Err(why) => {
                let client = self.client.clone();
                let why = why.of_asked_before(ActionKey { client, serial });
                self.pause_if_stopped(&why).await;
                Err(why)
            }
        }
    }

    /// Who is told that an outcome is unknown asks again: it must not keep the thread that closes
    /// the session.
    async fn pause_if_stopped(&self, why: &ProposeError) {
        let asks_again = matches!(why, ProposeError::Unknown { .. });
        if asks_again && self.status().borrow().stopped.is_some() {
            tokio::time::sleep(self.timing.heartbeat()).await;
        }
    }
}

/// Why an action has no verdict.
enum Undone {
    /// Its serial, drawn here, may be another process's by now, and it was never appended under it.
    SerialTaken,
    Failed(ProposeError),
}

impl From<ProposeError> for Undone {
    fn from(why: ProposeError) -> Self {
        Self::Failed(why)
    }
}

/// A serial that is this proposal's alone until it ends, however it does.
pub(crate) struct Reserved {
    node: Arc<Node>,
    /// The client's session then. One that ended since is found out by proposing under it.
    opened: Opened,
    serial: u64,
    /// Whether the caller chose it: then it is asked for whoever may have used it.
    pinned: bool,
}

impl Reserved {
    pub(crate) fn key(&self) -> ActionKey {
        ActionKey {
            client: self.node.client.clone(),
            serial: self.serial,
        }
    }

    fn unknown(&self) -> ProposeError {
        ProposeError::Unknown { key: self.key() }
    }

    /// Whatever an attempt before came to, the next one asks only what became of it.
    pub(crate) fn pin(&mut self) {
        self.pinned = true;
    }

    /// Proposes the action under this serial and waits for its verdict.
    pub(crate) async fn propose(
        &self,
        action: Bytes,
        expected_turn: Option<u64>,
        deadline: Instant,
    ) -> Result<Kept, ProposeError> {
        let decided = self.node.decide(self, &action, expected_turn, deadline);
        decided.await.map_err(|why| match why {
            // The key was given away with the serial: it cannot become another.
            Undone::SerialTaken => ProposeError::NotAppended { leader: None },
            Undone::Failed(why) => why,
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        guard(&self.node.state).under_way.end(self.serial);
    }
}
