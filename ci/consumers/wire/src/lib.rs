//! A proxy that watches frames pass: it needs the payloads and no host.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;

use cabinet_wire::{
    Kind, Mode, Slug, SlugError, Text, ctx,
    delta::{self, DeltaError, Grid},
};

/// Applies a frame to what the viewer has; tells how many runs changed.
///
/// # Errors
/// When the container is malformed; the grid is untouched then.
pub fn follow(container: &[u8], grid: &mut Grid) -> Result<usize, DeltaError> {
    let container = delta::check(container)?;
    container.apply_to(grid);
    Ok(container.runs().count())
}

/// The context of an empty room, as a host would send it.
///
/// # Errors
/// When it cannot be put on the wire.
pub fn empty_room(now_unix_nanos: i64, out: &mut Vec<u8>) -> Result<(), ctx::CtxError> {
    let head = ctx::Head {
        now_unix_nanos,
        seed: 1,
        seed_set: true,
        mode: Mode::Solo,
        capacity: 1,
        min_players: 1,
    };
    ctx::encode(&head, &ctx::Roster::Legacy(&[]), 0, false, out)
}

/// A member without a character.
pub fn member<'a>(handle: &'a str, account: &'a str) -> ctx::Member<'a> {
    ctx::Member {
        handle: Text::new(handle),
        account: Text::new(account),
        kind: Kind::Member,
        ..Default::default()
    }
}

/// A game's name, checked.
///
/// # Errors
/// When it is not a slug.
pub fn name(text: &str) -> Result<Slug, SlugError> {
    Slug::new(text.as_bytes())
}
