//! Keeps one kind of connection to one peer of the directory, whoever makes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::arbiter::{Turn, turn};
use super::backoff::Backoff;
use super::handshake;
use super::registry::Errand;

/// Dials whenever no connection is up, until it is aborted or the entry is gone.
pub(super) async fn keep(shared: Arc<Shared>, errand: Errand) {
    let Errand {
        peer,
        kind,
        address,
        mut up,
    } = errand;
    let patience = match turn(&shared.local, &peer) {
        Turn::First => Duration::ZERO,
        Turn::Second => shared.backoff.yield_for,
    };
    let mut backoff = Backoff::new(shared.backoff);
    let mut wait = Duration::ZERO;
    let mut made_one = false;
    loop {
        let comes_first = tokio::time::timeout(wait + patience, up.wait_for(|up| *up));
        let came = match comes_first.await {
            Ok(Ok(_)) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
        let since = Instant::now();
        if !came {
            match handshake::dial(&shared, &peer, kind, address).await {
                Ok(()) => {
                    if made_one {
                        shared.counts.reconnected.add(1);
                    }
                    made_one = true;
                }
                Err(failure) => {
                    tracing::debug!(%peer, ?kind, %failure, "dialling failed");
                    failure.count(&shared);
                    let entropy = (shared.entropy)();
                    wait = if failure.lasts() {
                        backoff.after_refusal(entropy)
                    } else {
                        backoff.after_failure(entropy)
                    };
                    continue;
                }
            }
        }
        if up.wait_for(|up| !*up).await.is_err() {
            return;
        }
        wait = backoff.after_loss(since.elapsed(), (shared.entropy)());
    }
}
