//! Write a terminal game for a Cabinet room: players join, type, and watch 24 rows of 80 cells.
//!
//! A whole game. Players press space; ten presses win.
//!
//! ```
//! #![forbid(unsafe_code)]
//! use cabinet_guest::prelude::*;
//!
//! struct Sprint {
//!     scores: Vec<(PlayerId, i64)>,
//! }
//!
//! impl Game for Sprint {
//!     const META: Meta = Meta::new("sprint", "Sprint")
//!         .description("First to ten presses wins")
//!         .players(1, 8)
//!         .leaderboard(Leaderboard::highest("Presses"))
//!         .controls(&[Control::char(' ', "PRESS")]);
//!
//!     fn new(_: &mut Room) -> Sprint {
//!         Sprint { scores: Vec::new() }
//!     }
//!
//!     fn join(&mut self, room: &mut Room, player: PlayerId) {
//!         self.scores.push((player, 0));
//!         self.draw(room);
//!     }
//!
//!     fn leave(&mut self, room: &mut Room, player: PlayerId) {
//!         self.scores.retain(|(id, _)| *id != player);
//!         self.draw(room);
//!     }
//!
//!     fn input(&mut self, room: &mut Room, player: PlayerId, input: Input) {
//!         if input != Input::Char(' ') {
//!             return;
//!         }
//!         for (id, score) in &mut self.scores {
//!             *score += i64::from(*id == player);
//!         }
//!         self.draw(room);
//!         if self.scores.iter().any(|(_, score)| *score == 10) {
//!             let outcome = self.scores.iter().fold(Outcome::new(), |outcome, &(id, score)| {
//!                 outcome.finished(id, score)
//!             });
//!             room.end(&outcome.ranked_high_to_low());
//!         }
//!     }
//! }
//!
//! impl Sprint {
//!     fn draw(&self, room: &mut Room) {
//!         room.draw(|screen, room| {
//!             screen.text_center(2, "S P R I N T", Style::new().fg(Color::YELLOW).bold());
//!             for (row, (id, score)) in (5..).zip(&self.scores) {
//!                 let mut pen = screen.pen(row, 30, Color::GREEN);
//!                 write!(pen, "{:<12} {score:>3}", room.handle(*id)).ok();
//!             }
//!             screen.text_center(22, "space: press", Color::GRAY);
//!         });
//!     }
//! }
//!
//! cabinet_guest::game!(Sprint);
//!
//! // On any other target than wasm32 the same game runs in a test.
//! # fn main() {
//! let mut room = TestRoom::<Sprint>::new();
//! let ada = room.join("ada");
//! for _ in 0..10 {
//!     room.input(ada, ' ');
//! }
//! assert_eq!(room.result().unwrap()[0].metric, 10);
//! # }
//! ```
//!
//! Build it as a `cdylib` for `wasm32-unknown-unknown`; the `.wasm` file is the game. It imports
//! nothing but the game ABI and runs on any host that speaks ABI 2, revision 6.
//!
//! | to | see |
//! |---|---|
//! | declare the game | [`Meta`], [`Leaderboard`], [`ConfigSpec`], [`Control`] |
//! | draw | [`Screen`], [`Pen`], [`Style`], [`Rect`] |
//! | show | [`Room::draw`], [`Room::draw_each`], [`Room::show`], [`Room::show_to`] |
//! | read players and keys | [`Room::players`], [`PlayerId`], [`Input`] |
//! | let time pass | [`Room::now`], [`Timers`] |
//! | roll dice | [`Room::rng`], [`Rng`] |
//! | keep score | [`Outcome`], [`Room::post`], [`Room::end`] |
//! | remember across rooms | [`Room::kv_get`], [`Room::kv_set`] |
//! | test | `testing::TestRoom` |
//!
//! Nothing allocates per callback once a game is warm, provided the game draws with `write!`
//! instead of `format!`. A panic ends the room; its message is in the room's log.
//!
//! This crate is not a host: it does not run wasm, and its test room has no limits to enforce.

#![deny(unsafe_code)]

mod abi;
mod cluster;
mod frames;
mod game;
mod input;
mod meta;
mod outcome;
mod pen;
mod rng;
mod room;
mod roster;
mod rows;
mod runtime;
mod screen;
mod store;
mod style;
mod time;
mod width;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use cabinet_wire::cell::Cell;
pub use cabinet_wire::{
    COLS, InputContext, Key, Kind, Lifecycle, LogLevel, MergeRule, MetricFormat, Mode, ROWS, Status,
};
pub use cluster::text_width;
pub use frames::Shown;
pub use game::Game;
pub use input::{Direction, Input};
pub use meta::{ConfigSpec, Control, InvalidMeta, Leaderboard, Meta};
pub use outcome::{Delivery, Outcome, Standing};
pub use pen::Pen;
pub use rng::Rng;
pub use room::Room;
pub use roster::{Character, Player, PlayerId};
pub use screen::{Border, Rect, Screen};
pub use store::{ConfigError, KvError};
pub use style::{Color, Style};
pub use time::{Instant, Timers, ZeroPeriod};
pub use width::char_width;

/// What a game usually needs, with `Duration` and the trait behind `write!`.
pub mod prelude {
    pub use core::fmt::Write as _;
    pub use core::time::Duration;

    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::testing::{Seat, TestRoom};
    pub use crate::{
        Border, Color, ConfigSpec, Control, Direction, Game, Input, InputContext, Instant, Key,
        Leaderboard, Lifecycle, MergeRule, Meta, MetricFormat, Mode, Outcome, Player, PlayerId,
        Rect, Rng, Room, Screen, Status, Style, Timers,
    };
}

/// What [`game!`] expands to calls; not for games.
#[doc(hidden)]
pub mod rt {
    pub use crate::runtime::{Callback, Runtime, answer_abi, answer_meta, run};
}

/// Makes a [`Game`] the game of this crate: on wasm32 it emits the eight exports a host calls, on
/// other targets it only checks that the type is a game. Once per crate.
#[macro_export]
macro_rules! game {
    ($game:ty) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> i32 = $crate::rt::answer_meta::<$game>;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::rt::Callback;

            ::std::thread_local! {
                static RUNTIME: ::core::cell::RefCell<
                    ::core::option::Option<$crate::rt::Runtime<$game>>,
                > = const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            #[unsafe(no_mangle)]
            extern "C" fn shellcade_abi() -> i32 {
                $crate::rt::answer_abi()
            }
            #[unsafe(no_mangle)]
            extern "C" fn meta() -> i32 {
                $crate::rt::answer_meta::<$game>()
            }
            #[unsafe(no_mangle)]
            extern "C" fn start() -> i32 {
                $crate::rt::run(&RUNTIME, Callback::Start)
            }
            #[unsafe(no_mangle)]
            extern "C" fn join() -> i32 {
                $crate::rt::run(&RUNTIME, Callback::Join)
            }
            #[unsafe(no_mangle)]
            extern "C" fn leave() -> i32 {
                $crate::rt::run(&RUNTIME, Callback::Leave)
            }
            #[unsafe(no_mangle)]
            extern "C" fn input() -> i32 {
                $crate::rt::run(&RUNTIME, Callback::Input)
            }
            #[unsafe(no_mangle)]
            extern "C" fn wake() -> i32 {
                $crate::rt::run(&RUNTIME, Callback::Wake)
            }
            #[unsafe(no_mangle)]
            extern "C" fn close() -> i32 {
                $crate::rt::run(&RUNTIME, Callback::Close)
            }
        };
    };
}

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
