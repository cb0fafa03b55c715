//! The room as a game sees it during a callback.

use core::fmt;

use cabinet_wire::ctx::{Decoded, Head};
use cabinet_wire::outcome::{self, Ranking};
use cabinet_wire::{ConfigType, InputContext, LogLevel, MergeRule, Mode};

use crate::abi;
use crate::frames::{Frames, Shown};
use crate::meta::{ConfigSpec, Meta, parse_bool};
use crate::outcome::{Delivery, Outcome};
use crate::rng::Rng;
use crate::roster::{Player, PlayerId, Roster, Update};
use crate::screen::Screen;
use crate::store::{ConfigError, Decimal, KvError, parse_i64};
use crate::time::Instant;

/// A log line's bytes the host keeps of one write.
const LOG_BYTES_MAX: usize = cabinet_wire::LOG_WRITE_BYTES_MAX;

/// The room a callback happens in: its clock, its players, and everything a game can do.
///
/// What it tells holds for the callback; a [`PlayerId`] may be kept. Nothing here allocates once
/// the buffers have grown to what the game uses.
#[derive(Debug)]
pub struct Room {
    meta: &'static Meta,
    head: Head,
    settled: bool,
    ended: bool,
    roster: Roster,
    frames: Frames,
    rng: Option<Rng>,
    /// What `draw` and `draw_each` draw on, between their calls.
    canvas: Option<Screen>,
    /// Values read from the host.
    value: Vec<u8>,
    /// Payloads to the host.
    payload: Vec<u8>,
    rankings: Vec<Ranking>,
    line: String,
    mismatch_logged: bool,
}

/// Time and settings.
impl Room {
    /// Room time. It stands still during a callback.
    pub fn now(&self) -> Instant {
        Instant::from_unix_nanos(self.head.now_unix_nanos)
    }

    /// How the room came to be.
    pub fn mode(&self) -> Mode {
        self.head.mode
    }

    /// Players the room holds, or `None` for any number.
    pub fn capacity(&self) -> Option<u16> {
        (self.head.capacity > 0).then_some(self.head.capacity)
    }

    /// Players the room begins with.
    pub fn min_players(&self) -> u16 {
        self.head.min_players
    }

    /// The room's seed; [`rng`](Room::rng) starts from it.
    pub fn seed(&self) -> i64 {
        self.head.seed
    }

    /// Whether the result stands: true in `close`.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// Whether the game's [`end`](Room::end) reached the host.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The room's random numbers.
    pub fn rng(&mut self) -> &mut Rng {
        let seed = self.head.seed.cast_unsigned();
        self.rng.get_or_insert_with(|| Rng::seeded(seed))
    }
}

/// Players.
impl Room {
    /// Everybody who is in the room and stays: in `leave` without the player who leaves.
    pub fn players(&self) -> impl Iterator<Item = Player<'_>> {
        let staying = (0..self.roster.len()).filter(|&index| self.roster.stays(index));
        staying.filter_map(|index| self.roster.player(index))
    }

    /// How many [`players`](Room::players) there are.
    pub fn player_count(&self) -> usize {
        (0..self.roster.len())
            .filter(|&index| self.roster.stays(index))
            .count()
    }

    /// A player of this callback, also the one who leaves; `None` when they have left.
    pub fn player(&self, id: PlayerId) -> Option<Player<'_>> {
        self.roster.player(self.roster.index_of(id)?)
    }

    /// The name to show for a player; `"(left)"` when they have left.
    pub fn handle(&self, id: PlayerId) -> &str {
        self.player(id).map_or("(left)", |player| player.handle)
    }

    /// Whether the player is in the room and stays.
    pub fn is_present(&self, id: PlayerId) -> bool {
        self.roster
            .index_of(id)
            .is_some_and(|index| self.roster.stays(index))
    }
}

/// Frames.
impl Room {
    /// Shows the screen to everybody.
    ///
    /// Only what changed since the last frame is sent, and nothing when nothing did (a room that
    /// was silent for a second is sent nine bytes). A player who joins changes the roster, and the
    /// first frame after that goes out whole: show the screen in `join`.
    pub fn show(&mut self, screen: &Screen) -> Shown {
        let now = self.now();
        self.frames.identical(screen, now)
    }

    /// Shows the screen to one player, who keeps it until the next frame for them or for everybody.
    pub fn show_to(&mut self, player: PlayerId, screen: &Screen) -> Shown {
        match self.roster.index_of(player) {
            Some(index) if self.roster.stays(index) => {
                let now = self.now();
                self.frames.send(index, screen, now)
            }
            _ => Shown::Dropped,
        }
    }

    /// Draws on a cleared screen that the room keeps, and shows it to everybody.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Screen, &Room)) -> Shown {
        let mut screen = self.canvas.take().unwrap_or_default();
        screen.clear();
        draw(&mut screen, self);
        let shown = self.show(&screen);
        self.canvas = Some(screen);
        shown
    }

    /// Draws on a cleared screen and shows it, for each player in turn.
    ///
    /// ```
    /// # use cabinet_guest::prelude::*;
    /// # fn example(room: &mut Room) {
    /// room.draw_each(|screen, room, player| {
    ///     let mut pen = screen.pen(0, 0, Color::WHITE);
    ///     write!(pen, "{}, you are one of {}", player.handle, room.player_count()).ok();
    /// });
    /// # }
    /// ```
    pub fn draw_each(&mut self, mut draw: impl FnMut(&mut Screen, &Room, Player<'_>)) {
        let mut screen = self.canvas.take().unwrap_or_default();
        let now = self.now();
        for index in 0..self.roster.len() {
            if let Some(player) = self
                .roster
                .player(index)
                .filter(|_| self.roster.stays(index))
            {
                screen.clear();
                draw(&mut screen, self, player);
                self.frames.send(index, &screen, now);
            }
        }
        self.canvas = Some(screen);
    }

    /// Says what typed letters mean from now on, for viewers that translate keys.
    pub fn set_input_context(&mut self, context: InputContext) {
        abi::set_input_context(u8::from(context));
    }
}

/// Results.
impl Room {
    /// Posts a round's result to the leaderboard; the room goes on.
    pub fn post(&mut self, outcome: &Outcome) -> Delivery {
        self.deliver(outcome, abi::post)
    }

    /// Ends the room with a result. The callback runs to its end; `close` may follow, nothing else.
    /// Only the first result that reaches the host counts.
    pub fn end(&mut self, outcome: &Outcome) -> Delivery {
        if self.ended {
            return Delivery::AlreadyEnded;
        }
        let delivery = self.deliver(outcome, abi::end);
        self.ended = delivery != Delivery::Dropped;
        delivery
    }

    fn deliver(&mut self, outcome: &Outcome, send: impl FnOnce(&[u8]) -> bool) -> Delivery {
        let mut left_out = 0;
        self.rankings.clear();
        for standing in outcome.standings() {
            match self.roster.index_of(standing.player) {
                Some(index) => self.rankings.push(Ranking {
                    player: u32::try_from(index).unwrap_or(u32::MAX),
                    metric: standing.metric,
                    rank: standing.rank,
                    status: u8::from(standing.status),
                }),
                None => left_out += 1,
            }
        }
        self.payload.clear();
        // Each ranking has a seat of its own, and a roster has fewer seats than a result rankings.
        let encoded = outcome::encode(&self.rankings, &mut self.payload);
        debug_assert!(encoded.is_ok(), "{encoded:?}");
        if !send(&self.payload) {
            return Delivery::Dropped;
        }
        if left_out == 0 {
            return Delivery::Complete;
        }
        self.warn(format_args!(
            "{left_out} standings left out: their players have left"
        ));
        Delivery::Partial(left_out)
    }
}

/// The key-value store: bytes per account and key that outlive the room.
///
/// The ABI has no way to say that the store is down: a read then answers as if nothing were stored,
/// and a write is lost. So never add to what a read found and write it back: after one failed read
/// the sum starts again from nothing, for good. Totals belong on a
/// [summed](crate::Leaderboard::summed) leaderboard, which adds for itself; personal bests are safe
/// under [`MergeRule::Max`], where a host keeps the larger number.
impl Room {
    /// Reads a value: `None` when nothing is stored, or the store is down.
    ///
    /// # Errors
    ///
    /// [`KvError`] without asking the host.
    pub fn kv_get(&mut self, player: PlayerId, key: &str) -> Result<Option<&[u8]>, KvError> {
        let index = self.kv_index(player, key)?;
        let found = abi::kv_get(index, key.as_bytes(), &mut self.value);
        Ok((found && !self.value.is_empty()).then_some(&self.value))
    }

    /// Reads a number: `None` when nothing is stored, or the store is down.
    ///
    /// # Errors
    ///
    /// [`KvError::NotANumber`] for another value, and as for [`kv_get`](Room::kv_get).
    pub fn kv_get_i64(&mut self, player: PlayerId, key: &str) -> Result<Option<i64>, KvError> {
        match self.kv_get(player, key)? {
            Some(value) => parse_i64(value).map(Some).ok_or(KvError::NotANumber),
            None => Ok(None),
        }
    }

    /// Stores a value. The rule says what happens when two accounts become one.
    ///
    /// # Errors
    ///
    /// [`KvError`] without asking the host; that the host stored it cannot be known.
    pub fn kv_set(
        &mut self,
        player: PlayerId,
        key: &str,
        value: &[u8],
        rule: MergeRule,
    ) -> Result<(), KvError> {
        let index = self.kv_index(player, key)?;
        if value.is_empty() {
            return Err(KvError::EmptyValue);
        }
        let numeric = matches!(rule, MergeRule::Sum | MergeRule::Max);
        if numeric && parse_i64(value).is_none() {
            return Err(KvError::NotANumber);
        }
        abi::kv_set(index, key.as_bytes(), value, rule.as_str().as_bytes());
        Ok(())
    }

    /// Stores a number, in base 10.
    ///
    /// # Errors
    ///
    /// As [`kv_set`](Room::kv_set).
    pub fn kv_set_i64(
        &mut self,
        player: PlayerId,
        key: &str,
        value: i64,
        rule: MergeRule,
    ) -> Result<(), KvError> {
        self.kv_set(player, key, Decimal::new(value).as_bytes(), rule)
    }

    /// Forgets a value.
    ///
    /// # Errors
    ///
    /// As [`kv_get`](Room::kv_get).
    pub fn kv_delete(&mut self, player: PlayerId, key: &str) -> Result<(), KvError> {
        let index = self.kv_index(player, key)?;
        abi::kv_delete(index, key.as_bytes());
        Ok(())
    }

    fn kv_index(&self, player: PlayerId, key: &str) -> Result<u32, KvError> {
        if key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        let index = self.roster.index_of(player).ok_or(KvError::NotInRoom)?;
        let account = self
            .roster
            .player(index)
            .map_or("", |player| player.account);
        if account.is_empty() {
            return Err(KvError::NoAccount);
        }
        u32::try_from(index).map_err(|_| KvError::NotInRoom)
    }
}

/// Configuration: values an admin may set for all rooms of the game.
impl Room {
    /// A declared key's value as text, or its declared default. The host cannot be asked whether it
    /// failed to answer: then, too, it is the default. A configured value that is not UTF-8 is
    /// logged and the default taken.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Undeclared`].
    pub fn config(&mut self, key: &str) -> Result<&str, ConfigError> {
        let spec = self.meta.config_spec(key).ok_or(ConfigError::Undeclared)?;
        let found = abi::config_get(spec.key.as_bytes(), &mut self.value);
        if !found || self.value.is_empty() {
            return Ok(spec.default);
        }
        if core::str::from_utf8(&self.value).is_err() {
            self.warn(format_args!(
                "config {key}: not UTF-8 text, using the default"
            ));
        }
        Ok(core::str::from_utf8(&self.value).unwrap_or(spec.default))
    }

    /// A declared number. A configured value that is none is logged and the default taken.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the key is not declared as a number.
    pub fn config_number(&mut self, key: &str) -> Result<f64, ConfigError> {
        let finite = |text: &str| {
            text.trim()
                .parse()
                .ok()
                .filter(|value: &f64| value.is_finite())
        };
        self.config_as(key, ConfigType::Number, finite)
    }

    /// A declared number that is whole. A configured value that is not is logged and the default
    /// taken.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the key is not declared as a number, or the default is not whole.
    pub fn config_i64(&mut self, key: &str) -> Result<i64, ConfigError> {
        self.config_as(key, ConfigType::Number, |text| parse_i64(text.as_bytes()))
    }

    /// A declared `true` or `false`. A configured value that is neither is logged and the default
    /// taken.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the key is not declared as a bool.
    pub fn config_bool(&mut self, key: &str) -> Result<bool, ConfigError> {
        self.config_as(key, ConfigType::Bool, parse_bool)
    }

    fn config_as<T>(
        &mut self,
        key: &str,
        config_type: ConfigType,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let spec: &ConfigSpec = self.meta.config_spec(key).ok_or(ConfigError::Undeclared)?;
        if spec.config_type != config_type {
            return Err(ConfigError::WrongType);
        }
        if let Some(value) = parse(self.config(key)?) {
            return Ok(value);
        }
        let Some(default) = parse(spec.default) else {
            self.warn(format_args!(
                "config {key}: no usable {config_type}, and the declared default is none either"
            ));
            return Err(ConfigError::BadDefault);
        };
        self.warn(format_args!(
            "config {key}: not a usable {config_type}, using the default"
        ));
        Ok(default)
    }
}

/// The room's log, which operators read and players do not.
impl Room {
    /// Writes a line; the host keeps 4096 bytes of it and about 32 KiB a second of all of them.
    ///
    /// ```
    /// # fn example(room: &mut cabinet_guest::Room, score: i64) {
    /// room.log(cabinet_guest::LogLevel::Info, format_args!("round over: {score}"));
    /// # }
    /// ```
    pub fn log(&mut self, level: LogLevel, message: fmt::Arguments<'_>) {
        self.line.clear();
        // The writer only fails when it has cut the line short, which is what it is for.
        let _ = fmt::write(&mut Line(&mut self.line), message);
        abi::log(u8::from(level), self.line.as_bytes());
    }

    /// Writes a line for the author.
    pub fn debug(&mut self, message: fmt::Arguments<'_>) {
        self.log(LogLevel::Debug, message);
    }

    /// Writes a line.
    pub fn info(&mut self, message: fmt::Arguments<'_>) {
        self.log(LogLevel::Info, message);
    }

    /// Writes a line about something worth a look.
    pub fn warn(&mut self, message: fmt::Arguments<'_>) {
        self.log(LogLevel::Warn, message);
    }

    /// Writes a line about something broken.
    pub fn error(&mut self, message: fmt::Arguments<'_>) {
        self.log(LogLevel::Error, message);
    }
}

/// What the runtime does to a room.
impl Room {
    pub(crate) fn new(meta: &'static Meta) -> Room {
        Room {
            meta,
            head: Head::default(),
            settled: false,
            ended: false,
            roster: Roster::default(),
            frames: Frames::default(),
            rng: None,
            canvas: None,
            value: Vec::new(),
            payload: Vec::new(),
            rankings: Vec::new(),
            line: String::new(),
            mismatch_logged: false,
        }
    }

    /// Takes over a callback's context.
    pub(crate) fn enter(&mut self, context: &Decoded<'_>) {
        self.head = context.head;
        self.settled = context.settled;
        // From the first callback's seed: a host may tell another one after it restored the room.
        self.rng();
        match self.roster.update(&context.roster) {
            Update::Same => {}
            Update::Changed => self.frames.forget(),
            Update::Mismatch => {
                self.frames.forget();
                if !self.mismatch_logged {
                    self.mismatch_logged = true;
                    self.warn(format_args!(
                        "the host says \"roster unchanged\" of a roster it never sent; keeping ours"
                    ));
                }
            }
        }
    }

    /// Has the room keep at most so many distinct rows of what viewers see.
    #[cfg(test)]
    pub(crate) fn limit_rows(&mut self, limit: u16) {
        self.frames = Frames::with_rows(limit);
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(crate) fn roster_mut(&mut self) -> &mut Roster {
        &mut self.roster
    }

    pub(crate) fn meta(&self) -> &'static Meta {
        self.meta
    }
}

/// A line that stops growing at [`LOG_BYTES_MAX`].
pub(crate) struct Line<'s>(pub &'s mut String);

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LOG_BYTES_MAX.saturating_sub(self.0.len());
        let cut = text.floor_char_boundary(room);
        self.0.push_str(&text[..cut]);
        if cut < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}
