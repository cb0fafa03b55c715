//! Somebody with the bucket and without the key: what they do, and what may come of it.

use std::rc::Rc;

use bytes::Bytes;

use super::{World, mark_of};
use crate::ids::Epoch;
use crate::names;
use crate::store::Key;
use crate::vault::{Vault, VaultError};

/// What somebody did to the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    /// The head, or what it names, is not what it was.
    Damage,
    /// What is there is another room's.
    Splice,
    /// The head is an older one of this room, at this epoch.
    PutBack(Epoch),
}

/// After a deed nobody is given anything wrong.
pub(super) async fn victim(world: Rc<World>, vault: Vault, deed: Deed) {
    world.saw("tampered");
    let newest = world.oracle.borrow().newest();
    let latest = vault.latest(world.room, None).await.map(|read| {
        let mark = mark_of(world.room, &read.bytes);
        (read.epoch, mark)
    });
    let claimed = vault.claim(world.room, world.clock.get()).await;
    let claimed = claimed.map(|(lease, _)| lease.epoch());
    match deed {
        Deed::Damage | Deed::Splice => {
            let told = |error: &VaultError| {
                matches!(
                    error,
                    VaultError::Corrupt { .. } | VaultError::Unreadable(_)
                )
            };
            match &latest {
                Err(error) if told(error) => {}
                // Nothing was written yet, so there was nothing to break but the head.
                Err(VaultError::NoCheckpoint) if newest == Epoch::NONE => {}
                other => world.breaks(format!("{deed:?}: reading gave {other:?}")),
            }
            match &claimed {
                Err(error) if told(error) => {}
                Err(VaultError::Standing(_)) => {}
                Ok(Epoch::NONE) if newest == Epoch::NONE => {}
                other => world.breaks(format!("{deed:?}: claiming gave {other:?}")),
            }
        }
        // One epoch back looks like a crash between the two requests of a checkpoint.
        Deed::PutBack(epoch) => match &claimed {
            Err(VaultError::RolledBack | VaultError::Corrupt { .. } | VaultError::Standing(_)) => {}
            Ok(_) if epoch.next() >= newest => {}
            other => world.breaks(format!(
                "{deed:?}, newest {newest}: claiming gave {other:?}"
            )),
        },
    }
}

impl World {
    pub(super) fn tamper(&self, old_head: Option<(Epoch, Bytes)>) -> Option<Deed> {
        let mut state = self.sim.lock();
        let head = names::head(self.room);
        let objects: Vec<(Key, Bytes)> = state
            .objects()
            .iter()
            .map(|(key, (bytes, _))| (key.clone(), bytes.clone()))
            .collect();
        let of = |key: &Key| {
            objects
                .iter()
                .find(|(other, _)| other == key)
                .map(|(_, bytes)| bytes.clone())
        };
        match self.below(4) {
            // A flipped bit, most of the time in the header, where every field tempts somebody.
            0 | 1 => {
                let mut bytes = of(&head)?.to_vec();
                let at = if self.percent(70) {
                    self.below(124)
                } else {
                    self.below(bytes.len())
                };
                match self.below(8) {
                    0 => bytes.truncate(at),
                    1 => bytes.extend([0; 9]),
                    _ => bytes[at] ^= 1 << self.below(8),
                }
                state.tamper(head, Some(bytes.into()));
                Some(Deed::Damage)
            }
            2 => {
                let (from, to) = (self.other.to_string(), self.room.to_string());
                for (key, bytes) in &objects {
                    if key.as_str().contains(&from) {
                        let name = key.as_str().replace(&from, &to);
                        state.tamper(Key::known(name), Some(bytes.clone()));
                    }
                }
                Some(Deed::Splice)
            }
            _ => {
                let (epoch, bytes) = old_head?;
                if of(&head)? == bytes {
                    return None;
                }
                state.tamper(head, Some(bytes));
                Some(Deed::PutBack(epoch))
            }
        }
    }
}
