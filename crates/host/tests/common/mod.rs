//! What the host's tests share: fixtures, players, a clock.
#![allow(dead_code)] // each test binary uses its part

use std::path::{Path, PathBuf};
use std::time::Duration;

use cabinet_host::{
    Game, GameOptions, Host, HostOptions, LoadError, MemoryServices, Player, Refusal, Room,
    RoomConfig, Seed,
};

/// 2023-11-14T22:13:20Z, in Unix nanoseconds: where every test's clock starts.
pub const EPOCH: i64 = 1_700_000_000_000_000_000;

/// A deadline no test runs into by accident.
pub const WIDE: Duration = Duration::from_secs(60);
/// A deadline for guests that must run into it.
pub const SHORT: Duration = Duration::from_millis(50);

pub fn ms(milliseconds: i64) -> i64 {
    EPOCH + milliseconds * 1_000_000
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = fixtures().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn wat(name: &str) -> Vec<u8> {
    let path = fixtures().join("wat").join(name);
    wat::parse_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn host() -> Host {
    let mut options = HostOptions::default();
    options.probe_deadline = WIDE;
    Host::new(options).expect("a host")
}

pub fn options(deadline: Duration) -> GameOptions {
    let mut options = GameOptions::default();
    options.deadline = deadline;
    options
}

pub fn game(wasm: &[u8]) -> Game {
    host().load(wasm, &options(WIDE)).expect("a game")
}

pub fn ada() -> Player {
    Player::member("a1", "ada", "c1")
}

pub fn bob() -> Player {
    Player::member("a2", "bob", "c2")
}

pub fn room(game: &Game) -> (Room, MemoryServices) {
    let services = MemoryServices::new().keeping_frames();
    let room = game.room(RoomConfig::new(Seed::Set(42)), Box::new(services.clone()));
    (room, services)
}

/// The class names of `fixtures/wat/outcomes.toml`.
pub fn refusal_class(error: &LoadError) -> &'static str {
    match error {
        LoadError::Refused(refusal) => match refusal {
            Refusal::NotWasm => "not-wasm",
            Refusal::Invalid { .. } => "invalid",
            Refusal::Feature { .. } => "feature",
            Refusal::Limit { .. } => "limit",
            Refusal::ImportModule { .. } => "import-module",
            Refusal::ImportName { .. } => "import-name",
            Refusal::ImportType { .. } => "import-type",
            Refusal::ImportKind { .. } => "import-kind",
            Refusal::NoMemory => "no-memory",
            Refusal::MemoryNotExported => "memory-not-exported",
            Refusal::MissingExport { .. } => "missing-export",
            Refusal::ExportSignature { .. } => "export-signature",
            Refusal::ReservedExport { .. } => "reserved-export",
            Refusal::Uncapturable { .. } => "uncapturable",
            _ => "refused",
        },
        LoadError::TooExpensive { .. } => "too-expensive",
        LoadError::Compile(_) => "compile",
        LoadError::Instantiate(_) => "instantiation",
        LoadError::Probe { fault, .. } => fault.class(),
        LoadError::AbiOutput(_) => "abi-output",
        LoadError::AbiMajor { .. } => "abi-major",
        LoadError::NewerRevision { .. } => "newer-revision",
        LoadError::Meta(_) => "meta",
        _ => "other",
    }
}

/// Lines of a frame, right-trimmed, for readable failures.
pub fn lines(frame: &cabinet_host::Frame) -> Vec<String> {
    (0..cabinet_wire::ROWS)
        .map(|row| {
            let line: String = (0..cabinet_wire::COLS)
                .map(|col| {
                    let cell = frame.cell(row, col);
                    let point = u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]);
                    char::from_u32(point).filter(|c| *c >= ' ').unwrap_or(' ')
                })
                .collect();
            line.trim_end().to_owned()
        })
        .collect()
}

/// Assembles a module written in a test.
pub fn wat_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's own module assembles")
}
