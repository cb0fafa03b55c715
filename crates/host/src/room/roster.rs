//! What the guest is told about who is in the room, and when that counts as a change.
//!
//! The reference compares account ids, kinds and the count, and so misses a player who comes back
//! under another name, connection or avatar (docs/parity.md, Deviations). Here a change is a change of the bytes
//! the guest would be sent.
//!
//! Work is done only when members changed: a steady callback compares and encodes nothing, and in
//! the roster-epoch form sends six bytes.

use cabinet_wire::ctx::{self, CtxError, Head, RosterForm};
use cabinet_wire::{CTX_FEATURE_CHARACTER, CTX_FEATURE_ROSTER_EPOCH, CTX_ROSTER_COUNT_MAX};

use crate::player::Player;

/// The roster as the guest knows it.
#[derive(Debug, Clone)]
pub(crate) struct Roster {
    features: u32,
    /// Bumped at every change; the first callback always is one, so a guest sees epochs from 1.
    epoch: u32,
    last_full_epoch: u32,
    force_full: bool,
    /// Members in the section of the last callback, and the section itself.
    count: u16,
    section: Vec<u8>,
    /// Some callback has settled on a roster.
    known: bool,
    /// Members changed since the section was encoded, or it ends with somebody who left.
    stale: bool,
    scratch: Vec<u8>,
    /// The section came without characters, from a blob that has none: the next comparison leaves
    /// them out.
    without_characters: bool,
}

impl Roster {
    pub(crate) fn new(features: u32) -> Self {
        Self {
            features,
            epoch: 0,
            last_full_epoch: 0,
            force_full: features & CTX_FEATURE_ROSTER_EPOCH != 0,
            count: 0,
            section: Vec::new(),
            known: false,
            stale: true,
            scratch: Vec::new(),
            without_characters: false,
        }
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn members_changed(&mut self) {
        self.stale = true;
    }

    /// Adopts the roster of the coming callback; `true` when it differs from the last one's.
    pub(crate) fn settle_on(
        &mut self,
        members: &[Player],
        departed: Option<&Player>,
    ) -> Result<bool, CtxError> {
        if self.known && !self.stale {
            return Ok(false);
        }
        let features = if self.without_characters {
            self.features & !CTX_FEATURE_CHARACTER
        } else {
            self.features
        };
        let count = self.encode_section(members, departed, features)?;
        let changed = !self.known || count != self.count || self.scratch != self.section;
        if std::mem::take(&mut self.without_characters) {
            self.encode_section(members, departed, self.features)?;
            std::mem::swap(&mut self.section, &mut self.scratch);
        } else if changed {
            std::mem::swap(&mut self.section, &mut self.scratch);
        }
        if changed {
            self.count = count;
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.known = true;
        self.stale = departed.is_some();
        Ok(changed)
    }

    /// Writes the context, in the form the guest is due.
    pub(crate) fn encode(
        &mut self,
        head: &Head,
        settled: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), CtxError> {
        let form = if self.features & CTX_FEATURE_ROSTER_EPOCH == 0 {
            RosterForm::Legacy
        } else if self.force_full || self.epoch != self.last_full_epoch {
            RosterForm::Full { epoch: self.epoch }
        } else {
            RosterForm::Unchanged { epoch: self.epoch }
        };
        ctx::encode_with_members(head, form, self.count, &self.section, settled, out)?;
        if matches!(form, RosterForm::Full { .. }) {
            self.last_full_epoch = self.epoch;
            self.force_full = false;
        }
        Ok(())
    }

    /// What a snapshot keeps: epoch, last full epoch, whether a full form is due, and the last
    /// callback's section, `None` before the first.
    pub(crate) fn export(&self) -> (u32, u32, bool, Option<Vec<u8>>) {
        (
            self.epoch,
            self.last_full_epoch,
            self.force_full,
            self.known.then(|| self.section.clone()),
        )
    }

    /// Continues an exported roster, whose last section described `last_roster`.
    pub(crate) fn import(
        &mut self,
        epoch: u32,
        last_full_epoch: u32,
        force_full: bool,
        section: Option<Vec<u8>>,
        last_roster: &[Player],
    ) {
        self.epoch = epoch;
        self.last_full_epoch = last_full_epoch;
        self.force_full = force_full;
        self.known = section.is_some();
        self.section = section.unwrap_or_default();
        // A snapshot's lists are no longer than the wire's count.
        self.count = last_roster.len() as u16;
        // A section that came from a blob without characters is told by its bytes: with them it
        // would be longer.
        let plain = self.features & !CTX_FEATURE_CHARACTER;
        self.without_characters = plain != self.features
            && self.encode_section(last_roster, None, plain).is_ok()
            && self.scratch == self.section;
        self.stale = true;
    }

    /// Takes a roster as known without counting it as a change, as the reference restores one.
    pub(crate) fn adopt(&mut self, members: &[Player], force_full: bool) -> Result<(), CtxError> {
        let features = self.features & !CTX_FEATURE_CHARACTER;
        self.count = self.encode_section(members, None, features)?;
        self.without_characters = self.features & CTX_FEATURE_CHARACTER != 0;
        std::mem::swap(&mut self.section, &mut self.scratch);
        self.force_full = force_full;
        self.known = true;
        self.stale = true;
        Ok(())
    }

    /// Encodes into `scratch`; the count.
    fn encode_section(
        &mut self,
        members: &[Player],
        departed: Option<&Player>,
        features: u32,
    ) -> Result<u16, CtxError> {
        let count = members.len() + usize::from(departed.is_some());
        let too_many = CtxError::TooManyMembers {
            count,
            max: CTX_ROSTER_COUNT_MAX,
        };
        let count = u16::try_from(count).map_err(|_| too_many)?;
        if count > CTX_ROSTER_COUNT_MAX {
            return Err(too_many);
        }
        self.scratch.clear();
        ctx::encode_members(
            members.iter().map(Player::to_wire),
            features,
            &mut self.scratch,
        )?;
        ctx::encode_members(
            departed.into_iter().map(Player::to_wire),
            features,
            &mut self.scratch,
        )?;
        Ok(count)
    }
}
