//! The games that are played, and files that are none.

use std::sync::OnceLock;
use std::time::Duration;

use cabinet_host::{Game, GameOptions, Host, HostOptions, Input, Key};
use cabinet_rooms::Listing;
use cabinet_wire::Lifecycle;

use crate::chance::Chance;
use crate::common::{WIDE, fixture};

/// A game as it is offered and played here.
pub struct Kind {
    pub slug: &'static str,
    file: &'static str,
    lifecycle: Lifecycle,
    capacity: u32,
    /// How often a new room is of it.
    pub weight: usize,
    /// What players type.
    keys: &'static str,
    /// What they type seldom: it ends the room, well or badly.
    last_keys: &'static str,
}

const ARROWS: &str = "↑↓←→⏎";
const TOUR: &str = "hawilckmxydtoupppp↑";
/// Misdeeds a room survives.
const MISDEEDS: &str = "012345678jJ!\"&*~qQyYIU";
/// Misdeeds it does not: traps, exits, a dive, memory to the cap, and loops that only the work
/// budget ends; the last settles the room.
const FELONIES: &str = "u/bBcCpxXzZdDlohHEVWtrnNsSiR+";

/// One row of [`KINDS`].
const fn kind(
    slug: &'static str,
    file: &'static str,
    lifecycle: Lifecycle,
    capacity: u32,
    weight: usize,
    keys: (&'static str, &'static str),
) -> Kind {
    Kind {
        slug,
        file,
        lifecycle,
        capacity,
        weight,
        keys: keys.0,
        last_keys: keys.1,
    }
}

pub const KINDS: [Kind; 17] = {
    use Lifecycle::{Ephemeral, Resident, Resumable};
    const PLAIN: (&str, &str) = ("x", "x");
    [
        kind("tour", "tour.wasm", Resumable, 4, 14, (TOUR, "ef!")),
        kind("tour-short", "tour.wasm", Ephemeral, 2, 8, (TOUR, "ef!")),
        kind("tour-always", "tour.wasm", Resident, 4, 4, (TOUR, "f!")),
        kind("coil", "coil.wasm", Ephemeral, 0, 8, (ARROWS, "x")),
        kind("coil-kept", "coil.wasm", Resumable, 6, 8, (ARROWS, "x")),
        kind("fences", "fences.wasm", Resumable, 4, 10, (ARROWS, "x")),
        kind("crowd", "crowd.wasm", Ephemeral, 0, 3, ("↑↓←→p", "p")),
        kind(
            "wild",
            "misbehave.wasm",
            Resumable,
            3,
            12,
            (MISDEEDS, FELONIES),
        ),
        kind(
            "wild-short",
            "misbehave.wasm",
            Ephemeral,
            3,
            6,
            (MISDEEDS, FELONIES),
        ),
        kind("small", "wat/ok-smallest.wat", Resumable, 2, 6, PLAIN),
        kind("state", "wat/ok-state.wat", Resident, 2, 4, PLAIN),
        kind(
            "bad-start",
            "wat/fault-start-trap.wat",
            Resumable,
            2,
            1,
            PLAIN,
        ),
        kind(
            "bad-join",
            "wat/fault-join-trap.wat",
            Resumable,
            2,
            1,
            PLAIN,
        ),
        kind(
            "bad-leave",
            "wat/fault-leave-trap.wat",
            Resumable,
            2,
            2,
            PLAIN,
        ),
        kind(
            "bad-wake",
            "wat/fault-wake-trap.wat",
            Resumable,
            2,
            1,
            PLAIN,
        ),
        kind(
            "bad-close",
            "wat/fault-close-trap.wat",
            Resumable,
            2,
            3,
            PLAIN,
        ),
        kind(
            "bad-input",
            "wat/fault-loop-in-input.wat",
            Resumable,
            2,
            2,
            PLAIN,
        ),
    ]
};

/// Work a callback may do. It ends the loops above, not the clock: the same work for the same seed.
const FUEL: u64 = 3_000_000;

impl Kind {
    pub fn listing(&self) -> Listing {
        let at = KINDS.iter().position(|kind| kind.slug == self.slug);
        let game = games()[at.unwrap()].clone();
        let listing = match self.slug {
            "crowd" => Listing::load_test(game).with_deadline(WIDE),
            _ => Listing::new(game)
                .with_lifecycle(self.lifecycle)
                .with_capacity(self.capacity),
        };
        listing.with_slug(self.slug.parse().unwrap())
    }

    pub fn input(&self, chance: &mut Chance) -> Input {
        let keys = match chance.one_in(60) {
            true => self.last_keys,
            false => self.keys,
        };
        match chance.letter(keys) {
            '↑' => Input::Key(Key::Up),
            '↓' => Input::Key(Key::Down),
            '←' => Input::Key(Key::Left),
            '→' => Input::Key(Key::Right),
            '⏎' => Input::Key(Key::Enter),
            rune => Input::Rune(rune.into()),
        }
    }
}

/// The games of [`KINDS`], each file compiled once.
fn games() -> &'static [Game] {
    static GAMES: OnceLock<Vec<Game>> = OnceLock::new();
    GAMES.get_or_init(|| {
        let mut loaded: Vec<(&str, Game)> = Vec::new();
        KINDS
            .iter()
            .map(
                |kind| match loaded.iter().find(|(file, _)| *file == kind.file) {
                    Some((_, game)) => game.clone(),
                    None => {
                        let game = load(&bytes(kind.file)).unwrap();
                        loaded.push((kind.file, game.clone()));
                        game
                    }
                },
            )
            .collect()
    })
}

fn load(wasm: &[u8]) -> Result<Game, cabinet_host::LoadError> {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| {
        let mut options = HostOptions::default();
        options.probe_deadline = WIDE;
        options.idle_memories = 8;
        Host::new(options).unwrap()
    });
    let mut options = GameOptions::default();
    options.deadline = WIDE;
    options.io_ceiling = Duration::from_secs(60);
    options.fuel = Some(FUEL);
    // Enough for each of them, and not much for the one that takes all it can.
    options.memory_pages_max = 64;
    host.load(wasm, &options)
}

fn bytes(file: &str) -> Vec<u8> {
    let bytes = fixture(file);
    if file.ends_with(".wat") {
        return wat::parse_bytes(&bytes).unwrap().into_owned();
    }
    bytes
}

/// Loads something that is no game, or one that nobody plays; says what came of it.
pub fn load_for_nothing(chance: &mut Chance) -> &'static str {
    let (wasm, why) = match chance.below(5) {
        0 => ((0..300).map(|_| chance.draw() as u8).collect(), "garbage"),
        1 => (bytes("wat/refused-abi-3.wat"), "another abi"),
        2 => (bytes("wat/refused-missing-wake.wat"), "no wake"),
        3 => {
            let mut cut = bytes("tour.wasm");
            cut.truncate(cut.len() / 2);
            (cut, "half a file")
        }
        _ => {
            drop(load(&bytes("wat/ok-every-import.wat")).unwrap());
            return "loaded and dropped";
        }
    };
    assert!(load(&wasm).is_err(), "{why}");
    why
}
