//! Frames of viewers who share so little that the store of rows is full.

use proptest::prelude::*;

use super::*;
use crate::prelude::*;

/// Shows the slide of the letter it is typed: everybody that of `a`..`z`, the one who typed it that
/// of `A`..`Z`. A wake shows everybody their last slide again.
#[derive(Debug)]
struct Slides {
    everybody: char,
    shown: Vec<Shown>,
}

impl Game for Slides {
    const META: Meta = Meta::new("slides", "Slides").players(1, 1000);

    fn new(_: &mut Room) -> Slides {
        Slides {
            everybody: 'z',
            shown: Vec::new(),
        }
    }

    fn input(&mut self, room: &mut Room, player: PlayerId, input: Input) {
        let Input::Char(letter) = input else {
            return;
        };
        let shown = if letter.is_ascii_lowercase() {
            self.everybody = letter;
            room.show(&slide(letter, ""))
        } else {
            let own = slide(letter, room.handle(player));
            room.show_to(player, &own)
        };
        self.shown.push(shown);
    }

    fn wake(&mut self, room: &mut Room) {
        let shown = room.show(&slide(self.everybody, ""));
        self.shown.push(shown);
    }
}

/// No row of it is a row of another letter's slide or of another viewer's; but for `M`..`Z` only its
/// first row is not blank.
fn slide(letter: char, viewer: &str) -> Screen {
    let rows = if ('M'..='Z').contains(&letter) { 1 } else { 24 };
    let mut screen = Screen::new();
    for row in 0..rows {
        let mut pen = screen.pen(row, 0, Style::new());
        write!(pen, "{letter}{row} {viewer}").ok();
    }
    screen
}

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];

/// Three viewers, in a store for the slides of two and two rows.
fn crowded() -> (TestRoom<Slides>, [Seat; 3]) {
    let mut room = TestRoom::<Slides>::new();
    room.limit_rows(50);
    let seats = NAMES.map(|handle| room.join(handle));
    (room, seats)
}

/// Has the viewer type a letter and see its slide; what became of the frame.
fn show(room: &mut TestRoom<Slides>, seat: Seat, letter: char) -> Shown {
    room.input(seat, letter);
    let own = letter.is_ascii_uppercase();
    let slide = slide(letter, if own { NAMES[seat.0] } else { "" });
    assert!(room.screen(seat) == slide, "{:?}", room.lines(seat));
    *room.game().shown.last().unwrap()
}

#[test]
fn a_viewer_the_store_has_no_room_for_is_sent_whole_frames_and_the_others_deltas() {
    let (mut room, [ada, bob, cyd]) = crowded();
    assert_eq!(show(&mut room, ada, 'A'), Shown::Keyframe);
    assert_eq!(show(&mut room, bob, 'A'), Shown::Keyframe);
    for letter in "ABBCC".chars() {
        assert_eq!(show(&mut room, cyd, letter), Shown::Keyframe);
    }
    assert_eq!(show(&mut room, ada, 'B'), Shown::Delta);
    assert_eq!(show(&mut room, ada, 'B'), Shown::Unchanged);
    assert_eq!(room.line(bob, 3), "A3 bob");
}

#[test]
fn a_changed_roster_gives_who_had_no_room_in_the_store_a_new_chance() {
    let (mut room, [ada, bob, cyd]) = crowded();
    for seat in [ada, bob, cyd] {
        show(&mut room, seat, 'A');
    }
    assert_eq!(show(&mut room, cyd, 'B'), Shown::Keyframe);
    room.join("dee");
    assert_eq!(show(&mut room, cyd, 'A'), Shown::Keyframe);
    assert_eq!(show(&mut room, cyd, 'B'), Shown::Delta);
    assert_eq!(show(&mut room, cyd, 'B'), Shown::Unchanged);
    assert_eq!(show(&mut room, ada, 'B'), Shown::Keyframe);
    assert_eq!(show(&mut room, bob, 'B'), Shown::Keyframe);
    assert_eq!(show(&mut room, bob, 'B'), Shown::Keyframe);
}

#[test]
fn a_broadcast_the_store_has_no_room_for_leaves_nobody_with_what_they_saw_before() {
    let (mut room, [ada, bob, cyd]) = crowded();
    for seat in [ada, bob, cyd] {
        show(&mut room, seat, 'A');
    }
    assert_eq!(show(&mut room, cyd, 'x'), Shown::Keyframe);
    for seat in [ada, bob] {
        assert!(room.screen(seat) == slide('x', ""));
    }
    // Deltas from the frames before the broadcast would draw on what is no longer there.
    assert_eq!(show(&mut room, ada, 'M'), Shown::Keyframe);
    assert_eq!(show(&mut room, bob, 'M'), Shown::Keyframe);
    // Both gave up their rows, so that the next broadcast is kept for all.
    assert_eq!(show(&mut room, ada, 'y'), Shown::Keyframe);
    assert_eq!(show(&mut room, cyd, 'y'), Shown::Unchanged);
    assert_eq!(show(&mut room, bob, 'M'), Shown::Delta);
}

#[test]
fn a_room_keeps_341_frames_without_a_common_row_and_sends_the_other_viewers_whole_ones() {
    let mut room = TestRoom::<Slides>::new();
    let handles: Vec<String> = (0..344).map(|number| format!("p{number}")).collect();
    let seats: Vec<Seat> = handles.iter().map(|handle| room.join(handle)).collect();
    for letter in ['A', 'B'] {
        for &seat in &seats {
            room.input(seat, letter);
        }
    }
    let (first, second) = room.game().shown.split_at(344);
    assert_eq!(first, [Shown::Keyframe; 344]);
    assert_eq!(second[..341], [Shown::Delta; 341]);
    assert_eq!(second[341..], [Shown::Keyframe; 3]);
    for (&seat, handle) in seats.iter().zip(&handles) {
        assert!(room.screen(seat) == slide('B', handle), "{handle}");
    }
    // The broadcast finds the store full, its viewers then free it.
    for letter in ['x', 'x', 'y'] {
        room.input(seats[0], letter);
        for &seat in &seats {
            assert!(room.screen(seat) == slide(letter, ""));
        }
    }
    assert_eq!(
        room.game().shown[688..],
        [Shown::Keyframe, Shown::Keyframe, Shown::Delta]
    );
    room.input(seats[343], 'A');
    assert_eq!(room.game().shown.last(), Some(&Shown::Delta));
    assert!(room.screen(seats[343]) == slide('A', "p343"));
}

/// One thing that happens to a room.
#[derive(Clone, Debug)]
enum Event {
    Type(usize, char),
    Join,
    Leave(usize),
    Forget,
    Memory(bool),
    Wake,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..6_usize, proptest::sample::select(&['a', 'b', 'A', 'A', 'B', 'M', 'N'][..]))
            .prop_map(|(seat, letter)| Event::Type(seat, letter)),
        1 => Just(Event::Join),
        1 => (0..6_usize).prop_map(Event::Leave),
        1 => Just(Event::Forget),
        1 => any::<bool>().prop_map(Event::Memory),
        1 => Just(Event::Wake),
    ]
}

/// A viewer, and the last frame they were shown that was not dropped.
struct Viewer {
    seat: Seat,
    handle: String,
    sees: Screen,
}

fn join(room: &mut TestRoom<Slides>, number: usize) -> Viewer {
    let handle = format!("p{number}");
    Viewer {
        seat: room.join(&handle),
        handle,
        sees: Screen::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_viewer_sees_what_they_were_shown_last_however_few_rows_are_kept(
        limit in 0..120_u16,
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut room = TestRoom::<Slides>::new();
        room.limit_rows(limit);
        let mut viewers = vec![join(&mut room, 0)];
        for (number, event) in events.into_iter().enumerate() {
            let before = room.game().shown.len();
            let mut shown_to = 0..viewers.len();
            match event {
                Event::Type(at, letter) => {
                    let at = at % viewers.len();
                    room.input(viewers[at].seat, letter);
                    if letter.is_ascii_uppercase() {
                        shown_to = at..at + 1;
                    }
                    if room.game().shown.last() != Some(&Shown::Dropped) {
                        for viewer in &mut viewers[shown_to] {
                            let own = letter.is_ascii_uppercase();
                            viewer.sees = slide(letter, if own { &viewer.handle } else { "" });
                        }
                    }
                }
                Event::Wake => {
                    room.wake();
                    if room.game().shown.last() != Some(&Shown::Dropped) {
                        for viewer in &mut viewers {
                            viewer.sees = slide(room.game().everybody, "");
                        }
                    }
                }
                Event::Join if viewers.len() < 6 => viewers.push(join(&mut room, number + 1)),
                Event::Leave(at) if viewers.len() > 1 => {
                    let at = at % viewers.len();
                    room.leave(viewers.remove(at).seat);
                }
                Event::Join | Event::Leave(_) => {}
                Event::Forget => {
                    room.forget_frames();
                    // A host that forgot is only noticed by what is sent, so let time pass.
                    room.pass(REFRESH_AFTER);
                }
                Event::Memory(available) => room.set_memory(available),
            }
            let silent = matches!(room.game().shown[before..], [] | [Shown::Unchanged | Shown::Dropped]);
            prop_assert_eq!(room.sent().is_empty(), silent);
            room.clear_sent();
            for viewer in &viewers {
                prop_assert!(room.screen(viewer.seat) == viewer.sees, "{:?}", room.lines(viewer.seat));
            }
        }
    }
}
