//! Proofs of having been let into a session, for who has nobody left that it knows.
//!
//! The first settings in a session's log hold a secret. Whoever is given the log knows it, and nobody
//! else: frames of the log go to members alone. A proof is made by one peer for one other, so a peer
//! that is shown one can show it to nobody.
//!
//! What it does not show is that its maker is a member still.

use std::fmt;

use bytes::Bytes;
use ring::hmac;

use crate::ids::{PeerId, SessionId, sha256};

/// Bytes of a secret.
pub(crate) const SECRET_BYTES: usize = 32;
/// Bytes of a proof.
pub(crate) const PROOF_BYTES: usize = 32;

/// That `prover` knows the secret, said to one peer.
pub(crate) type Proof = [u8; PROOF_BYTES];

/// What only those know that were given the log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The secret of one session of one game, founded by a process that drew `entropy`.
    pub(crate) fn drawn(entropy: &[u8], game: &str, session: SessionId) -> Self {
        let mut text = format!("cabinet secret\n{}:{game}\n{session}\n", game.len()).into_bytes();
        text.extend_from_slice(entropy);
        Self(sha256(&text))
    }

    /// What stands in settings; `None` where there is none, or what is there cannot be one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// What `prover`, which knows this, shows `to`.
    pub(crate) fn prove(&self, session: SessionId, prover: &PeerId, to: &PeerId) -> Proof {
        let tag = hmac::sign(&self.key(), &said(session, prover, to));
        let mut proof = [0; PROOF_BYTES];
        // The algorithm's tag has this many bytes.
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Whether `prover` knows this. Takes the same time whatever is shown.
    pub(crate) fn proves(
        &self,
        session: SessionId,
        prover: &PeerId,
        to: &PeerId,
        proof: &Proof,
    ) -> bool {
        hmac::verify(&self.key(), &said(session, prover, to), proof).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// Which of the numbers that others see a process makes of what it drew.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown {
    /// It claims to host with this.
    Claim,
    /// It opens its client's session with this.
    Open,
    /// Its calls are counted from here.
    Calls,
}

/// A number for others to see, made of `nonce`: a secret may be made of that too, and is not found
/// by way of this but by trying every nonce.
pub(crate) fn shown(nonce: u64, what: Shown) -> u64 {
    let label = match what {
        Shown::Claim => "claim",
        Shown::Open => "open",
        Shown::Calls => "calls",
    };
    let hash = sha256(format!("cabinet {label}\n{nonce}\n").as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

fn said(session: SessionId, prover: &PeerId, to: &PeerId) -> Vec<u8> {
    let (prover, to) = (prover.as_str(), to.as_str());
    let text = format!(
        "cabinet member\n{session}\n{}:{prover}\n{}:{to}\n",
        prover.len(),
        to.len()
    );
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn drawn(nonce: u64) -> Secret {
        Secret::drawn(&nonce.to_be_bytes(), "sum", SessionId(1))
    }

    #[test]
    fn a_proof_is_of_one_session_one_prover_and_for_one_peer() {
        let secret = drawn(7);
        let (ann, bob, eve) = (peer("ann"), peer("bob"), peer("eve"));
        let proof = secret.prove(SessionId(1), &ann, &bob);
        assert!(secret.proves(SessionId(1), &ann, &bob, &proof));
        assert!(!secret.proves(SessionId(2), &ann, &bob, &proof));
        assert!(
            !secret.proves(SessionId(1), &bob, &ann, &proof),
            "shown back"
        );
        assert!(!secret.proves(SessionId(1), &ann, &eve, &proof), "shown on");
        assert!(!secret.proves(SessionId(1), &eve, &bob, &proof));
        assert!(!drawn(8).proves(SessionId(1), &ann, &bob, &proof));
        let run_together = secret.prove(SessionId(1), &peer("an"), &peer("nbob"));
        assert_ne!(run_together, proof);
    }

    #[test]
    fn a_secret_has_its_bytes_and_neither_one_more_nor_one_less_is_one() {
        let secret = drawn(7);
        assert_eq!(Secret::from_bytes(&secret.to_bytes()), Some(secret.clone()));
        for len in [0, SECRET_BYTES - 1, SECRET_BYTES + 1] {
            assert_eq!(Secret::from_bytes(&vec![1; len]), None, "{len}");
        }
        assert_eq!(format!("{secret:?}"), "Secret", "it is shown to nobody");
    }

    #[test]
    fn a_secret_is_of_one_game_one_session_and_what_was_drawn() {
        let secrets = [
            Secret::drawn(b"one", "sum", SessionId(1)),
            Secret::drawn(b"two", "sum", SessionId(1)),
            Secret::drawn(b"one", "chess", SessionId(1)),
            Secret::drawn(b"one", "sum", SessionId(2)),
        ];
        for (n, secret) in secrets.iter().enumerate() {
            assert!(!secrets[..n].contains(secret), "{n}");
        }
    }

    #[test]
    fn what_others_see_is_not_what_the_secret_is_made_of() {
        let all = [Shown::Claim, Shown::Open, Shown::Calls];
        for (n, what) in all.into_iter().enumerate() {
            let seen = shown(7, what);
            assert_ne!(seen, 7);
            assert_ne!(seen, shown(8, what));
            assert!(!drawn(7).0.starts_with(&seen.to_be_bytes()));
            assert!(all[..n].iter().all(|other| shown(7, *other) != seen));
        }
    }
}
