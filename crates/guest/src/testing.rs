//! A room in memory for a game's own tests: no wasm, no terminal, no clock but the test's.
//!
//! ```
//! use cabinet_guest::prelude::*;
//!
//! struct Echo;
//! impl Game for Echo {
//!     const META: Meta = Meta::new("echo", "Echo");
//!     fn new(_: &mut Room) -> Echo {
//!         Echo
//!     }
//!     fn input(&mut self, room: &mut Room, _: PlayerId, input: Input) {
//!         if let Input::Char(ch) = input {
//!             room.draw(|screen, _| {
//!                 screen.set(0, 0, ch, Color::WHITE);
//!             });
//!         }
//!     }
//! }
//!
//! let mut room = TestRoom::<Echo>::new();
//! let ada = room.join("ada");
//! room.input(ada, 'x');
//! assert_eq!(room.line(ada, 0), "x");
//! ```
//!
//! A [`TestRoom`] encodes real payloads, runs whole callbacks and keeps what viewers see by the
//! host's own rules: it decodes every frame, holds every baseline and rejects what a host would
//! reject. It can be told to forget its baselines, to have no memory and to lose its store. Two runs
//! of the same test are the same run. It enforces no time or memory limit.

pub(crate) mod host;

use core::time::Duration;

use cabinet_wire::{Kind, LogLevel, Mode, Status, input as wire_input};

use crate::game::Game;
use crate::input::Input;
use crate::roster::PlayerId;
use crate::runtime::Runtime;

pub use crate::runtime::Callback;
use crate::screen::Screen;
use crate::time::Instant;
use host::TestHost;

/// How a [`TestRoom`] opens.
#[derive(Clone, Debug)]
pub struct TestOptions {
    /// The room's seed.
    pub seed: i64,
    /// How the room came to be.
    pub mode: Mode,
    /// The clock at `start`.
    pub start: Instant,
    /// Players the room holds, 0 for any number; `None` takes the game's own maximum.
    pub capacity: Option<u16>,
    /// Configuration values, by key.
    pub config: Vec<(String, String)>,
}

impl Default for TestOptions {
    /// Seed 42, private, 1 700 000 000 s, the game's capacity, nothing configured.
    fn default() -> TestOptions {
        TestOptions {
            seed: 42,
            mode: Mode::Private,
            start: Instant::from_unix_nanos(1_700_000_000_000_000_000),
            capacity: None,
            config: Vec::new(),
        }
    }
}

/// A player of a [`TestRoom`], also after they left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub(crate) usize);

/// Who joins a [`TestRoom`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestPlayer {
    /// The name to show.
    pub handle: String,
    /// The account, empty for a guest.
    pub account: String,
    /// The connection.
    pub conn: String,
    /// Guest or member.
    pub kind: Kind,
    /// The figure's glyph, empty for none.
    pub glyph: String,
    /// The figure's colour and the one behind it.
    pub colors: [[u8; 3]; 2],
    /// The figure in ASCII, 0 for none.
    pub ascii_fallback: u8,
}

/// A frame payload that reached the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The seat it was for, `None` for everybody.
    pub to: Option<Seat>,
    /// Whether it was a whole frame.
    pub keyframe: bool,
    /// The epoch it was stamped with.
    pub epoch: u32,
    /// The epoch the host returned.
    pub returned: u32,
    /// Its size.
    pub bytes: usize,
    /// Whether the host showed it.
    pub applied: bool,
}

/// One player's part of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Who.
    pub seat: Seat,
    /// The metric.
    pub metric: i64,
    /// Place, from 1; 0 is unranked.
    pub rank: u16,
    /// How the player came to it.
    pub status: Status,
}

/// A room with a game in it and the test as its host.
#[derive(Debug)]
pub struct TestRoom<G> {
    runtime: Runtime<G>,
    /// `None` while a callback has it.
    host: Option<Box<TestHost>>,
    heartbeat: Duration,
    closed: bool,
}

/// Driving.
impl<G: Game> TestRoom<G> {
    /// Opens a room and starts the game.
    pub fn new() -> TestRoom<G> {
        TestRoom::with(TestOptions::default())
    }

    /// Opens a room of some kind and starts the game.
    ///
    /// # Panics
    ///
    /// When [`Game::META`] is not valid: no host would load the game.
    pub fn with(options: TestOptions) -> TestRoom<G> {
        if let Err(error) = G::META.validate() {
            let source = core::error::Error::source(&error);
            let reason = source.map_or(String::new(), |source| format!(": {source}"));
            panic!("META is invalid: {error}{reason}");
        }
        let heartbeat = match G::META.heartbeat_ms() {
            0 => cabinet_wire::HEARTBEAT_DEFAULT_MS,
            ms => ms,
        };
        let mut room = TestRoom {
            runtime: Runtime::new(),
            host: Some(Box::new(TestHost::new(&G::META, options))),
            heartbeat: Duration::from_millis(heartbeat),
            closed: false,
        };
        room.call(Callback::Start, None, &[]);
        room
    }

    /// A member joins, with an account and a connection of their own.
    pub fn join(&mut self, handle: &str) -> Seat {
        let conn = self.host().seat_count();
        self.join_as(TestPlayer {
            handle: handle.to_owned(),
            account: format!("account-{handle}"),
            conn: format!("conn-{conn}"),
            kind: Kind::Member,
            ..TestPlayer::default()
        })
    }

    /// A guest without an account joins.
    pub fn join_guest(&mut self, handle: &str) -> Seat {
        let conn = self.host().seat_count();
        self.join_as(TestPlayer {
            handle: handle.to_owned(),
            conn: format!("conn-{conn}"),
            ..TestPlayer::default()
        })
    }

    /// Anybody joins.
    ///
    /// # Panics
    ///
    /// When no payload can say who is in the room: beyond 65,533 players, or with a text of more
    /// than 65,535 bytes.
    pub fn join_as(&mut self, player: TestPlayer) -> Seat {
        let seat = self.host_mut().add(player);
        self.call_about(Callback::Join, seat);
        seat
    }

    /// The player leaves; nothing happens when they have left.
    pub fn leave(&mut self, seat: Seat) {
        if self.host_mut().remove(seat) {
            self.call_about(Callback::Leave, seat);
            self.host_mut().forget_departed();
        }
    }

    /// The player presses a key.
    pub fn input(&mut self, seat: Seat, input: impl Into<Input>) {
        let input = match input.into() {
            Input::Char(ch) => wire_input::Input::Rune(u32::from(ch)),
            Input::Key(key) => wire_input::Input::Key(key),
        };
        if let Some(index) = self.host().index_of(seat) {
            let mut extras = [0; cabinet_wire::INPUT_BYTES];
            host::encode_input(index, &input, &mut extras);
            self.call(Callback::Input, None, &extras);
        }
    }

    /// The player types, one key press a character.
    pub fn type_text(&mut self, seat: Seat, text: &str) {
        for ch in text.chars() {
            self.input(seat, ch);
        }
    }

    /// One heartbeat passes.
    pub fn wake(&mut self) {
        self.pass(self.heartbeat);
        self.call(Callback::Wake, None, &[]);
    }

    /// Time passes, with a wake at every heartbeat that fits.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now() + duration;
        while self.now() + self.heartbeat <= end {
            self.wake();
        }
        self.pass(self.now().until(end));
    }

    /// Time passes and nobody is woken, as on a busy host.
    pub fn pass(&mut self, duration: Duration) {
        self.host_mut().pass(duration);
    }

    /// The room settles without the game's doing and the game is told.
    pub fn close(&mut self) {
        self.host_mut().settled = true;
        self.close_if_settled();
    }

    /// Runs a callback on exactly these bytes, as a broken host would.
    pub fn call_raw(&mut self, callback: Callback, payload: &[u8]) {
        self.host_mut().set_input(payload);
        self.run(callback);
    }

    /// The host loses every frame baseline, as the reference does when it restores a room.
    pub fn forget_frames(&mut self) {
        self.host_mut().invalidate_frames();
    }

    /// Whether the host has memory for payloads: frames, results, log lines, keys and values.
    pub fn set_memory(&mut self, available: bool) {
        self.host_mut().has_memory = available;
    }

    /// Whether the store and the configuration answer.
    pub fn set_store(&mut self, available: bool) {
        self.host_mut().has_store = available;
    }

    /// Configures a value, also one that is no text.
    pub fn set_config(&mut self, key: &str, value: &[u8]) {
        self.host_mut().configure(key, value);
    }

    /// Stores a value for the player's account.
    pub fn set_kv(&mut self, seat: Seat, key: &str, value: &[u8]) {
        self.host_mut().store(seat, key, value);
    }

    fn call_about(&mut self, callback: Callback, seat: Seat) {
        self.call(callback, Some(seat), &[]);
    }

    /// Encodes the payload and runs the callback, then `close` if it ended the room.
    fn call(&mut self, callback: Callback, about: Option<Seat>, extras: &[u8]) {
        if self.host().settled {
            return;
        }
        self.host_mut().encode_payload(about, extras);
        self.run(callback);
        self.close_if_settled();
    }

    fn close_if_settled(&mut self) {
        if self.host().settled && !self.closed {
            self.closed = true;
            self.host_mut().encode_payload(None, &[]);
            self.run(Callback::Close);
        }
    }

    fn run(&mut self, callback: Callback) {
        host::enter(&mut self.host, || self.runtime.call(callback));
    }

    /// Has the room keep at most so many distinct rows of what viewers see.
    #[cfg(test)]
    pub(crate) fn limit_rows(&mut self, limit: u16) {
        self.runtime.room_mut().limit_rows(limit);
    }

    // Only `host::enter` takes the host, and it puts it back however the callback ends. During one
    // the room is borrowed, so neither of these can be called.

    fn host(&self) -> &TestHost {
        self.host
            .as_ref()
            .expect("the host is only away during a callback")
    }

    fn host_mut(&mut self) -> &mut TestHost {
        self.host
            .as_mut()
            .expect("the host is only away during a callback")
    }
}

/// Looking.
impl<G: Game> TestRoom<G> {
    /// The room's clock.
    pub fn now(&self) -> Instant {
        self.host().now
    }

    /// What the player sees; blank before their first frame.
    pub fn screen(&self, seat: Seat) -> Screen {
        self.host()
            .seen(seat)
            .map_or_else(Screen::new, Screen::from_bytes)
    }

    /// What the player sees, without blanks at the ends of lines.
    pub fn lines(&self, seat: Seat) -> Vec<String> {
        let screen = self.screen(seat);
        (0..cabinet_wire::ROWS as i32)
            .map(|row| screen.row_text(row).trim_end().to_owned())
            .collect()
    }

    /// One line of what the player sees.
    pub fn line(&self, seat: Seat, row: i32) -> String {
        self.screen(seat).row_text(row).trim_end().to_owned()
    }

    /// Whether the text stands somewhere on a line the player sees.
    pub fn shows(&self, seat: Seat, text: &str) -> bool {
        self.lines(seat).iter().any(|line| line.contains(text))
    }

    /// The game.
    ///
    /// # Panics
    ///
    /// When there is none: see [`started`](TestRoom::started).
    pub fn game(&self) -> &G {
        self.runtime
            .game()
            .expect("the game runs: its last `start` was of a readable payload")
    }

    /// The name the game knows the player by, while they are in the room.
    pub fn player_id(&self, seat: Seat) -> Option<PlayerId> {
        self.runtime
            .room()
            .roster()
            .id_at(self.host().index_of(seat)?)
    }

    /// Whether the game runs; not after a [`call_raw`](TestRoom::call_raw) of a broken `start`.
    pub fn started(&self) -> bool {
        self.runtime.game().is_some()
    }

    /// Log lines so far.
    pub fn logs(&self) -> &[(LogLevel, String)] {
        &self.host().logs
    }

    /// What the player's account has under a key.
    pub fn kv(&self, seat: Seat, key: &str) -> Option<&[u8]> {
        self.host().stored(seat, key)
    }

    /// Results posted so far.
    pub fn posts(&self) -> &[Vec<Credit>] {
        &self.host().posts
    }

    /// The result the room ended with.
    pub fn result(&self) -> Option<&[Credit]> {
        self.host().result.as_deref()
    }

    /// Frame payloads since the last [`clear_sent`](TestRoom::clear_sent).
    pub fn sent(&self) -> &[Sent] {
        &self.host().sent
    }

    /// Forgets the frame payloads so far.
    pub fn clear_sent(&mut self) {
        self.host_mut().sent.clear();
    }

    /// The input context's code, as last set.
    pub fn input_context(&self) -> u8 {
        self.host().input_context
    }
}

impl<G: Game> Default for TestRoom<G> {
    fn default() -> TestRoom<G> {
        TestRoom::new()
    }
}
