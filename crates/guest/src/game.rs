//! What a game is.

use crate::input::Input;
use crate::meta::Meta;
use crate::room::Room;
use crate::roster::PlayerId;

/// A game: one value per room, driven by the host's callbacks, one at a time.
///
/// The order is `new`, `start`, then any mixture of `join`, `leave`, `input` and `wake`, then
/// perhaps `close`. A callback has about 100 ms; a room whose callback takes longer, or panics, is
/// ended.
///
/// A game holds all its state in itself and reads the clock, the dice and the players from the
/// room. Then the same seed and the same keys make the same room, which is what replay, parking and
/// moving rooms rest on.
pub trait Game: Sized + 'static {
    /// What the platform knows about the game before any room exists.
    const META: Meta;

    /// A new room's game. Usually nobody is in the room yet.
    fn new(room: &mut Room) -> Self;

    /// The room opened: once, right after `new`.
    fn start(&mut self, room: &mut Room) {
        let _ = room;
    }

    /// A player joined and is among [`Room::players`]. Show a screen here: they have none.
    fn join(&mut self, room: &mut Room, player: PlayerId) {
        let _ = (room, player);
    }

    /// A player leaves. They are no longer among [`Room::players`], but can still be looked up,
    /// credited and stored for during this callback.
    fn leave(&mut self, room: &mut Room, player: PlayerId) {
        let _ = (room, player);
    }

    /// A player pressed a key.
    fn input(&mut self, room: &mut Room, player: PlayerId, input: Input) {
        let _ = (room, player, input);
    }

    /// Time passed: every heartbeat while somebody is in the room, always in a resident one.
    fn wake(&mut self, room: &mut Room) {
        let _ = room;
    }

    /// The result stands; nothing follows.
    fn close(&mut self, room: &mut Room) {
        let _ = room;
    }
}
