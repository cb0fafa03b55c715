//! Claiming to host, before anything is started.
//!
//! Invariants
//! - of two that claim one goes on;
//! - a claim is taken back whenever nothing is founded on it, also when it is dropped: others may
//!   wait for it.

use std::time::Duration;

use super::attend::{FRAMES_AT_ONCE, broadcast, connected, say_closed, send};
use super::bootstrap::{HostError, HostOptions};
use super::{OpenError, SessionConfig};
use crate::fabric::{Links, Port};
use crate::ids::{NodeId, SessionId};
use crate::lobby::claim::{ClaimAction, HostClaim};
use crate::lobby::proof::{Shown, shown};
use crate::lobby::wire::{self, LobbyMsg};

/// A claim that somebody may wait for: taken back when it is dropped before a session was founded
/// on it.
pub(super) struct Claimed {
    links: Links,
    founded: bool,
}

impl Claimed {
    pub fn new(links: Links) -> Self {
        let founded = false;
        Self { links, founded }
    }

    pub fn founded(&mut self) {
        self.founded = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.founded {
            say_closed(&self.links);
        }
    }
}

/// A session nobody else has: by who hosts, in which life, and the number its process drew.
pub(super) fn hosted_session(game: &str, me: &NodeId, nonce: u64) -> SessionId {
    let text = format!("cabinet host\n{}:{game}\n{me}\n{nonce}\n", game.len());
    SessionId::named(&text)
}

/// Finds out whether anybody hosts, by claiming to. Answers how many frames were none.
pub(super) async fn claim(
    port: &mut Port,
    me: &NodeId,
    session: SessionId,
    options: &HostOptions,
    config: &SessionConfig,
    lowest_id_hosts: bool,
) -> Result<u64, HostError> {
    let links = port.links.clone();
    let clock = &config.clock;
    let mut peers = links.peers();
    let mut host = HostClaim::idle(me.clone(), &connected(&links), options.claim_wait);
    host.lowest_id_hosts = lowest_id_hosts;
    let mut actions = host.claim(session, shown(config.nonce, Shown::Claim), clock.now());
    let mut heard = 0;
    let mut malformed = 0;
    loop {
        for action in std::mem::take(&mut actions) {
            match action {
                ClaimAction::Send { to, msg } => send(&links, &to, &msg),
                ClaimAction::Broadcast(msg) => broadcast(&links, &msg),
                ClaimAction::Won => return Ok(malformed),
                ClaimAction::DuplicateHost { incumbent, session } => {
                    return Err(HostError::DuplicateHost { incumbent, session });
                }
                ClaimAction::SplitDetected { .. } => {}
            }
        }
        let now = clock.now();
        let wake = host
            .wakes_at()
            .map_or(options.claim_wait, |at| at.saturating_sub(now));
        tokio::select! {
            biased;
            Ok(()) = peers.changed() => actions = host.peers_changed(&connected(&links), clock.now()),
            inbound = port.incoming.lobby.recv() => {
                let Some(inbound) = inbound else {
                    return Err(OpenError::Start("the fabric is closed".to_owned()).into());
                };
                let now = clock.now();
                actions = match wire::decode(&inbound.from, &inbound.frame) {
                    Ok(LobbyMsg::Claim(claim)) => host.heard_claim(&inbound.from, &claim, now),
                    Ok(LobbyMsg::NoClaim { nonce }) => host.heard_no_claim(&inbound.from, nonce, now),
                    Ok(LobbyMsg::Withdraw { .. }) => host.heard_withdraw(&inbound.from, now),
                    Ok(_) => Vec::new(),
                    Err(_) => {
                        malformed += 1;
                        Vec::new()
                    }
                };
                heard += 1;
                if heard % FRAMES_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                    actions.extend(host.tick(clock.now()));
                }
            }
            () = tokio::time::sleep(wake.max(Duration::from_millis(1))) => actions = host.tick(clock.now()),
        }
    }
}
