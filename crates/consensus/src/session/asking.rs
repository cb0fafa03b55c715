//! Asking for a place: a peer that is in no session announces itself until who leads says what becomes
//! of it.
//!
//! Invariants
//! - who is believed is `lobby::knock`'s to say;
//! - who asked and did not get in says so, whatever ended it: a place it was given meanwhile is free
//!   again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::attend::{broadcast, connected, send};
use super::bootstrap::JoinError;
use super::{OpenError, SessionConfig};
use crate::fabric::{Links, Port};
use crate::ids::{NodeId, PeerId, SessionId};
use crate::lobby::admission::REANNOUNCE_EVERY;
use crate::lobby::claim::{ClaimAction, HostClaim};
use crate::lobby::knock::Knock;
use crate::lobby::wire::{self, Announce, Answer, LobbyMsg, Verdict};
use crate::state::command::Kind;

/// What a peer that is in no session asks, and whom it believes.
pub(super) struct Asking<'a> {
    pub me: &'a NodeId,
    pub kind: Kind,
    /// Whether a place without a vote is none.
    pub needs_vote: bool,
    /// Whether its log has not begun.
    pub begins: bool,
    pub session: Option<SessionId>,
    /// Peers whose word counts alone, if there are any.
    pub hosts: BTreeSet<PeerId>,
    pub within: Duration,
}

/// A place somebody asked for: given back, as far as anybody hears it, when it is dropped before it
/// was [had](Self::had). Who leads may have given it although nobody believed that here.
pub(super) struct Wanted {
    links: Links,
    me: NodeId,
    had: bool,
}

impl Wanted {
    pub fn had(&mut self) {
        self.had = true;
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if !self.had {
            let node = self.me.clone();
            broadcast(&self.links, &LobbyMsg::GiveUp { node });
        }
    }
}

impl Asking<'_> {
    /// Who leads said welcome; how many answers were not believed; and the place asked for.
    pub async fn of(
        self,
        port: &mut Port,
        config: &SessionConfig,
    ) -> Result<(Answer, u64, Wanted), JoinError> {
        let Self {
            me,
            kind,
            needs_vote,
            begins,
            session,
            hosts,
            within,
        } = self;
        let wanted = Wanted {
            links: port.links.clone(),
            me: me.clone(),
            had: false,
        };
        let connected = connected(&port.links);
        let mut knock = Knock::new(me.clone(), session, hosts, connected, REANNOUNCE_EVERY);
        let announce = Announce {
            node: me.clone(),
            kind,
            session,
            member: false,
            needs_vote,
            begins,
        };
        let asked = ask_in(port, &mut knock, announce, config);
        match tokio::time::timeout(within, asked).await {
            Ok(answer) => Ok((welcomed(answer?)?, knock.dropped(), wanted)),
            Err(_) if knock.dropped() > 0 => Err(JoinError::NotVouchedFor {
                within,
                answers: knock.dropped(),
            }),
            Err(_) => Err(JoinError::Timeout(within)),
        }
    }
}

fn welcomed(answer: Answer) -> Result<Answer, JoinError> {
    match answer.verdict {
        Verdict::Welcome => Ok(answer),
        Verdict::RosterFull => Err(JoinError::RosterFull),
        Verdict::GalleryFull => Err(JoinError::SpectatorsClosed),
        Verdict::NoWitness => Err(JoinError::NoWitness),
        Verdict::CoreVotes => Err(JoinError::CoreVotes),
        Verdict::LogLost => Err(JoinError::LogLost),
        // The last two decide nothing: `Knock` does not keep them.
        Verdict::Superseded | Verdict::WrongSession | Verdict::NotOpen => {
            Err(JoinError::Superseded)
        }
    }
}

/// Announces this peer until who leads says what becomes of it.
async fn ask_in(
    port: &mut Port,
    knock: &mut Knock,
    announce: Announce,
    config: &SessionConfig,
) -> Result<Answer, OpenError> {
    let links: Links = port.links.clone();
    let clock = &config.clock;
    let me = announce.node.clone();
    let announce = LobbyMsg::Announce(announce);
    let mut host = HostClaim::idle(me, &connected(&links), REANNOUNCE_EVERY);
    let mut peers = links.peers();
    loop {
        broadcast(&links, &announce);
        let again = clock.now().saturating_add(REANNOUNCE_EVERY);
        loop {
            let now = clock.now();
            if now >= again {
                break;
            }
            let wake = knock.wakes_at().map_or(again, |at| at.min(again));
            let pause = wake.saturating_sub(now).max(Duration::from_millis(1));
            let inbound = tokio::select! {
                biased;
                inbound = port.incoming.lobby.recv() => inbound,
                // Whoever came may be the host.
                Ok(()) = peers.changed() => {
                    knock.peers_changed(connected(&links));
                    break;
                }
                () = tokio::time::sleep(pause) => {
                    if let Some(answer) = knock.decide(clock.now()) {
                        return Ok(answer);
                    }
                    continue;
                }
            };
            let Some(inbound) = inbound else {
                return Err(OpenError::Start("the fabric is closed".to_owned()));
            };
            let from = &inbound.from;
            let now = clock.now();
            knock.peers_changed(connected(&links));
            let mut actions = Vec::new();
            match wire::decode(from, &inbound.frame) {
                Ok(LobbyMsg::Answer(answer)) => knock.heard_answer(from, answer),
                Ok(LobbyMsg::Claim(claim)) => {
                    // A claimant waits for everybody to have said that they host nothing.
                    actions = host.heard_claim(from, &claim, now);
                    knock.heard_claim(from, claim, now);
                }
                Ok(LobbyMsg::NoClaim { .. }) => knock.heard_no_claim(from),
                Ok(LobbyMsg::Withdraw { .. }) => knock.heard_withdraw(from),
                Ok(LobbyMsg::Announce(_)) => actions = host.heard_announce(from),
                _ => {}
            }
            for action in actions {
                if let ClaimAction::Send { to, msg } = action {
                    send(&links, &to, &msg);
                }
            }
            if let Some(answer) = knock.decide(now) {
                return Ok(answer);
            }
        }
    }
}
