//! Runs callbacks: reads the payload, finds the player, calls the game.
//!
//! Tolerant where the wire says so: a payload that is short, names nobody or carries a key of a
//! newer revision is dropped, and the export still returns 0. Anything else would cost the room.

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, Ordering};
use std::thread::LocalKey;

use cabinet_wire::{ABI_MAJOR, ctx, input as wire_input};

use crate::abi;
use crate::game::Game;
use crate::input::Input;
use crate::room::{Line, Room};
use crate::roster::PlayerId;

/// An exported callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// Once, before anybody joins.
    Start,
    /// Somebody joined.
    Join,
    /// Somebody leaves.
    Leave,
    /// Somebody typed.
    Input,
    /// Time passed.
    Wake,
    /// The result stands.
    Close,
}

/// A room and the game in it.
#[derive(Debug)]
pub struct Runtime<G> {
    room: Room,
    /// `None` until `start`.
    game: Option<G>,
    payload: Vec<u8>,
}

impl<G: Game> Runtime<G> {
    /// A room that has not started.
    pub fn new() -> Runtime<G> {
        Runtime {
            room: Room::new(const { &G::META }),
            game: None,
            payload: Vec::new(),
        }
    }

    /// Runs one callback on the host's current input.
    pub fn call(&mut self, callback: Callback) {
        let mut payload = core::mem::take(&mut self.payload);
        abi::input(&mut payload);
        self.dispatch(callback, &payload);
        self.payload = payload;
    }

    /// The game, once it has started.
    pub fn game(&self) -> Option<&G> {
        self.game.as_ref()
    }

    /// The room.
    pub fn room(&self) -> &Room {
        &self.room
    }

    #[cfg(test)]
    pub(crate) fn room_mut(&mut self) -> &mut Room {
        &mut self.room
    }

    fn dispatch(&mut self, callback: Callback, payload: &[u8]) {
        if callback == Callback::Start {
            (self.room, self.game) = (Room::new(const { &G::META }), None);
        } else if self.game.is_none() {
            return;
        }
        let Ok(context) = ctx::decode(payload, self.room.meta().features()) else {
            return;
        };
        self.room.enter(&context);
        let Runtime { room, game, .. } = self;
        let Some(game) = game else {
            let mut game = G::new(room);
            game.start(room);
            self.game = Some(game);
            return;
        };
        match callback {
            Callback::Start => {}
            Callback::Join => {
                let seat = wire_input::decode_index(context.extras).ok();
                if let Some(id) = seat.and_then(|seat| room.roster_mut().joining(index(seat))) {
                    game.join(room, id);
                }
            }
            Callback::Leave => {
                let seat = wire_input::decode_index(context.extras).ok();
                if let Some(id) = seat.and_then(|seat| room.roster_mut().leaving(index(seat))) {
                    game.leave(room, id);
                }
            }
            Callback::Input => {
                if let Some((id, input)) = read_input(room, context.extras) {
                    game.input(room, id, input);
                }
            }
            Callback::Wake => game.wake(room),
            Callback::Close => game.close(room),
        }
    }
}

impl<G: Game> Default for Runtime<G> {
    fn default() -> Runtime<G> {
        Runtime::new()
    }
}

/// The player and the key press behind a context, if both mean something.
fn read_input(room: &Room, extras: &[u8]) -> Option<(PlayerId, Input)> {
    let (seat, input) = wire_input::decode(extras).ok()?;
    let id = room.roster().id_at(index(seat))?;
    let input = match input {
        wire_input::Input::Rune(rune) => Input::Char(char::from_u32(rune)?),
        wire_input::Input::Key(key) => Input::Key(key),
    };
    Some((id, input))
}

/// A seat number as an index; one past the address space is past every roster.
fn index(seat: u32) -> usize {
    usize::try_from(seat).unwrap_or(usize::MAX)
}

/// The body of the `shellcade_abi` export.
pub fn answer_abi() -> i32 {
    abi::output(&ABI_MAJOR.to_le_bytes());
    0
}

/// The body of the `meta` export. A declaration that is not valid is refused with a text that names
/// the rule.
pub fn answer_meta<G: Game>() -> i32 {
    log_panics();
    let mut bytes = Vec::new();
    if let Err(error) = G::META.encode(&mut bytes) {
        // Nobody logs while a game is loaded: the kernel's error text is what the loader shows.
        let reason = match core::error::Error::source(&error) {
            Some(source) => format!("META is invalid: {error}: {source}"),
            None => format!("META is invalid: {error}"),
        };
        abi::fail(&reason);
        return 1;
    }
    abi::output(&bytes);
    0
}

/// The body of the other six exports.
pub fn run<G: Game>(
    runtime: &'static LocalKey<RefCell<Option<Runtime<G>>>>,
    callback: Callback,
) -> i32 {
    log_panics();
    runtime.with_borrow_mut(|runtime| runtime.get_or_insert_default().call(callback));
    0
}

/// Has a panic write what and where to the room's log before it traps.
fn log_panics() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|panic| {
            let mut line = String::new();
            // Cut at what a host keeps of one line.
            let _ = core::fmt::write(&mut Line(&mut line), format_args!("{panic}"));
            abi::log(u8::from(cabinet_wire::LogLevel::Error), line.as_bytes());
        }));
    }
}
