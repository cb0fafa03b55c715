//! How a room is captured and parked, and what becomes of it when that is answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use cabinet_host::{CaptureError, ServiceError};

use super::{Actor, Live};
use crate::captures::Captured;
use crate::reply::Reply;
use crate::room::{EndReason, HibernateError, Phase};

impl Actor {
    /// Captures the room and sends it to be parked.
    pub(super) fn park(&mut self, live: &mut Live, now: Duration) -> bool {
        let Some(parking) = self.parking.clone() else {
            return self.over(live, EndReason::Abandoned);
        };
        self.attempt += 1;
        let attempt = self.attempt;
        let captured = match self.capture(live) {
            Ok(captured) => captured,
            Err(error) => {
                tracing::error!(room = %self.shared.id, %error, "cannot capture the room");
                if let Some(reply) = self.hibernating.take() {
                    let _ = reply.send(Err(HibernateError::Capture(error)));
                }
                live.life.park_failed(now);
                return true;
            }
        };
        live.life.park_began(now);
        let shared = Arc::clone(&self.shared);
        let reply = Reply::new(move |answer| shared.parked(attempt, answer));
        let asked = catch_unwind(AssertUnwindSafe(|| parking.park(captured, reply)));
        if asked.is_err() {
            // The dropped reply has answered for it.
            tracing::error!(room = %self.shared.id, "parking panicked");
        }
        true
    }

    /// The room as it is between two callbacks.
    pub(super) fn capture(&mut self, live: &mut Live) -> Result<Captured, CaptureError> {
        let buffer = self.env.captures.take(self.captured_bytes);
        let snapshot = live.room.snapshot_into(buffer)?;
        self.captured_bytes = snapshot.page_bytes();
        Ok(Captured {
            room: self.shared.id,
            slug: self.shared.listed.slug().clone(),
            lifecycle: live.life.rules().lifecycle,
            roster: live.life.roster(live.room.members()),
            joined: live.life.everybody().to_vec(),
            at: self.env.clock.unix_nanos(),
            callbacks: self.callbacks,
            posts: self.shared.posts.of_room(self.shared.id),
            snapshot,
        })
    }

    /// Waits for the answer of where the room is to be parked.
    pub(super) fn parking(&mut self, live: &mut Live, now: Duration) -> bool {
        let answer = self
            .shared
            .take_parked()
            .filter(|(attempt, _)| *attempt == self.attempt)
            .map(|(_, answer)| answer);
        let error = match answer {
            Some(Ok(())) => {
                tracing::info!(
                    slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
                    "room hibernated"
                );
                let asked = self.hibernating.take();
                self.gone(Phase::Hibernated, EndReason::Hibernated, None, None);
                if let Some(reply) = asked {
                    // Told last: the room can be resumed at once.
                    let _ = reply.send(Ok(()));
                }
                return false;
            }
            Some(Err(error)) => error,
            None => {
                let _ = live.life.due(now);
                if live.life.is_parking() {
                    return true;
                }
                ServiceError::Unavailable(format!("no answer within {:?}", self.env.park_within))
            }
        };
        tracing::warn!(
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id, %error,
            "room not parked; it goes on"
        );
        if live.life.is_parking() {
            live.life.park_failed(now);
        }
        if let Some(reply) = self.hibernating.take() {
            let _ = reply.send(Err(HibernateError::Park(error)));
        }
        self.publish(live);
        true
    }
}
