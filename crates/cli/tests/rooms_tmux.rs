//! `cabinet rooms restore --play` in a real terminal: a stored room is played on from where it was.
#![cfg(unix)]

mod common;

use common::fixture;
use common::place::Place;
use common::terminal::Terminal;

#[test]
fn a_stored_room_is_played_on_and_the_store_stays_as_it_is() {
    let Some(terminal) = Terminal::open(100, 30) else {
        return;
    };
    let place = Place::new();
    let before = place.files();
    let folder = place.folder.path().display().to_string();
    let game = fixture("tour.wasm");
    let restore = format!(
        "rooms restore {}@1 {} --play --store {folder}/store --key-file {folder}/keys",
        place.live,
        game.display()
    );
    terminal.cabinet(&restore);
    let screen = terminal.shows("TOUR");
    // Who was in it sits there again; what they called themselves does not colour the terminal.
    assert!(screen.contains("Ada"), "{screen}");
    assert!(screen.contains("seat 1/1"), "{screen}");
    terminal.press(&["z"]);
    terminal.shows("'z'");
    terminal.press(&["C-c"]);
    terminal.ended_with(0);
    assert_eq!(place.files(), before);

    // Another game is told from the room's own.
    let other = fixture("coil.wasm");
    terminal.cabinet(&restore.replace(&*game.to_string_lossy(), &other.to_string_lossy()));
    let screen = terminal.ended_with(2);
    assert!(screen.contains("give that version"), "{screen}");
}
