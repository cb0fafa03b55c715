//! When a quiet connection is asked whether it is there, and when it is given up.
//!
//! No clock here: every call is told the time.

use std::time::{Duration, Instant};

/// What to do now about a connection's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing until then.
    Until(Instant),
    /// Send a ping.
    Ping,
    /// The other end is gone.
    Dead,
}

/// One connection's silence.
pub(super) struct Idle {
    ping_after: Duration,
    dead_after: Duration,
    heard: Instant,
    pinged: Instant,
}

impl Idle {
    pub(super) fn new(ping_after: Duration, dead_after: Duration, now: Instant) -> Self {
        Self {
            ping_after,
            dead_after,
            heard: now,
            pinged: now,
        }
    }

    /// Bytes arrived.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// What the silence until `now` calls for. A ping is asked for once per interval.
    pub(super) fn poll(&mut self, now: Instant) -> Silence {
        let dead = self.heard + self.dead_after;
        let ping = self.heard.max(self.pinged) + self.ping_after;
        if now >= dead {
            Silence::Dead
        } else if now >= ping {
            self.pinged = now;
            Silence::Ping
        } else {
            Silence::Until(ping.min(dead))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_connection_is_pinged_each_interval_and_then_given_up() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut idle = Idle::new(Duration::from_secs(2), Duration::from_secs(5), start);
        assert_eq!(idle.poll(at(0)), Silence::Until(at(2)));
        assert_eq!(idle.poll(at(2)), Silence::Ping);
        assert_eq!(idle.poll(at(2)), Silence::Until(at(4)));
        assert_eq!(idle.poll(at(4)), Silence::Ping);
        assert_eq!(idle.poll(at(4)), Silence::Until(at(5)));
        assert_eq!(idle.poll(at(5)), Silence::Dead);
        idle.on_heard(at(5));
        assert_eq!(idle.poll(at(5)), Silence::Until(at(7)));
    }
}
