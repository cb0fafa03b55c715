//! Scripts that the reference and we play alike, and such that neither reads.

/// Where a game's module is.
#[derive(Debug, Clone, Copy)]
pub enum Game {
    /// Under `fixtures`.
    Ours(&'static str),
    /// Under `host/gameabi/testdata` of the reference.
    Theirs(&'static str),
    /// The painter's.
    Painter,
}

/// Played to its end by both.
pub struct Case {
    pub name: &'static str,
    pub game: Game,
    pub script: &'static str,
}

const TWO: &str = "\
seed: 1234
seats: 2
steps:
  - shot: start
  - rune: \"a\"
  - key: enter
  - seat: 1
  - text: \"is\"
  - advance: 250ms
  - wake:
  - shot: mid
  - shot: only-one
    seats: [1]
";

const ALONE: &str = "\
# Every kind of step, in other notations.
seed: -7
seats: 1
heartbeat: 100ms
config: {greeting: hallo, speed: 2.5, music: off, route: 017, none: }
steps: [{shot: a}, {text: \"cwdti\"}, {shot: b}, {advance: 1s}, {shot: c}, {key: up}, {key: left},
  {key: space}, {key: tab}, {key: esc}, {key: backspace}, {shot: d}, {text: \"wé個x\"}, {rune: w},
  {shot: e}, {rune: h}, {shot: f}, {wake: ~}, {shot: g, seats: [0]}]
";

const THREE: &str = "\
seed: 0x7fff_ffff_ffff
seats: 3
heartbeat: 20ms
steps:
- shot: A9._-
- seat: 2
- text: |
    h1
- shot: b
- advance: 0.6s
- shot: c
  seats: [2, 0]
- seat: 0
- key: down
- key: right
- seat: 1
- key: escape
- advance: 1s20ms
- shot: d
";

const PARTY: &str = "\
seed: 9223372036854775807
seats: 8
steps: [shot: a, advance: 2s, shot: b, seat: 7, text: 'hau', advance: 500ms, shot: c]
";

const ENDED: &str = "\
seed: 3
seats: 2
steps: [text: 'd', shot: before, text: 'e', shot: a, advance: 100ms, shot: b, text: 'q', shot: c]
";

/// For guests that show nothing before they woke, or when they were only joined.
const AWAKE: &str = "\
seed: 5
seats: 2
steps: [advance: 500ms, shot: a, seat: 1, key: right, text: 'x', advance: 2s, shot: b]
";

const PAGES: &str = "\
seed: 1
seats: 2
steps: [shot: styles, wake: , shot: glyphs, wake: , shot: oddities, wake: , shot: by-chance,
  rune: x, shot: apart, {shot: first, seats: [0]}, {shot: second, seats: [1]}]
";

const fn case(name: &'static str, game: Game, script: &'static str) -> Case {
    Case { name, game, script }
}

/// What is played.
pub const CASES: &[Case] = &[
    case("painter", Game::Painter, PAGES),
    case("tour-two", Game::Ours("tour.wasm"), TWO),
    case("tour-alone", Game::Ours("tour.wasm"), ALONE),
    case("tour-three", Game::Ours("tour.wasm"), THREE),
    case("tour-party", Game::Ours("tour.wasm"), PARTY),
    case("tour-ended", Game::Ours("tour.wasm"), ENDED),
    case("coil-two", Game::Ours("coil.wasm"), TWO),
    case("coil-alone", Game::Ours("coil.wasm"), ALONE),
    case("coil-three", Game::Ours("coil.wasm"), THREE),
    case("fences-two", Game::Ours("fences.wasm"), TWO),
    case("fences-three", Game::Ours("fences.wasm"), THREE),
    case("crowd-awake", Game::Ours("crowd.wasm"), AWAKE),
    case("fixture-two", Game::Theirs("fixture/fixture.wasm"), TWO),
    case("fixture-alone", Game::Theirs("fixture/fixture.wasm"), ALONE),
    case("fixture-ended", Game::Theirs("fixture/fixture.wasm"), ENDED),
    case("rust-two", Game::Theirs("fixture-rs/fixture-rs.wasm"), TWO),
    case(
        "rust-alone",
        Game::Theirs("fixture-rs/fixture-rs.wasm"),
        ALONE,
    ),
    case(
        "rust-ended",
        Game::Theirs("fixture-rs/fixture-rs.wasm"),
        ENDED,
    ),
    case(
        "rust-kit-two",
        Game::Theirs("fixture-rs-kit/fixture-rs-kit.wasm"),
        TWO,
    ),
    case(
        "rust-kit-alone",
        Game::Theirs("fixture-rs-kit/fixture-rs-kit.wasm"),
        ALONE,
    ),
    case(
        "rust-kit-ended",
        Game::Theirs("fixture-rs-kit/fixture-rs-kit.wasm"),
        ENDED,
    ),
    case(
        "spike-awake",
        Game::Theirs("loadspike/loadspike.wasm"),
        AWAKE,
    ),
    case(
        "spike-cons-awake",
        Game::Theirs("loadspike/loadspike-cons.wasm"),
        AWAKE,
    ),
];
