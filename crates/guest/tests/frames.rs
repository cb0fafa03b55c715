//! What reaches the host when a game shows frames, and what viewers then see.
//!
//! The game under test does what it is typed: `a`..`z` draw that letter everywhere and broadcast it,
//! `A`..`Z` put that letter in one cell and send it to the one who typed. A wake broadcasts what is
//! drawn.

use cabinet_guest::Shown;
use cabinet_guest::prelude::*;
use cabinet_guest::testing::{Sent, TestPlayer};
use proptest::prelude::*;

#[derive(Debug)]
struct Painter {
    screen: Screen,
    shown: Vec<Shown>,
}

impl Game for Painter {
    const META: Meta = Meta::new("painter", "Painter").players(1, 1024);

    fn new(_: &mut Room) -> Painter {
        Painter {
            screen: Screen::new(),
            shown: Vec::new(),
        }
    }

    fn input(&mut self, room: &mut Room, player: PlayerId, input: Input) {
        let shown = match input {
            Input::Char(ch @ 'a'..='z') => {
                self.screen.fill(Rect::SCREEN, ch, Style::new());
                room.show(&self.screen)
            }
            Input::Char('.') => room.show(&self.screen),
            Input::Char(ch) => {
                self.screen.set(5, 7, ch, Style::new());
                room.show_to(player, &self.screen)
            }
            Input::Key(_) => room.show_to(player, &self.screen),
        };
        self.shown.push(shown);
    }

    fn wake(&mut self, room: &mut Room) {
        let shown = room.show(&self.screen);
        self.shown.push(shown);
    }

    fn leave(&mut self, room: &mut Room, player: PlayerId) {
        let shown = room.show_to(player, &self.screen);
        self.shown.push(shown);
    }
}

fn room() -> (TestRoom<Painter>, Seat, Seat) {
    let mut room = TestRoom::new();
    let (ada, bob) = (room.join("ada"), room.join("bob"));
    (room, ada, bob)
}

fn kinds(room: &TestRoom<Painter>) -> Vec<(bool, bool)> {
    room.sent()
        .iter()
        .map(|sent| (sent.keyframe, sent.applied))
        .collect()
}

#[test]
fn the_first_frame_is_whole_and_the_next_is_what_changed() {
    let (mut room, ada, _) = room();
    room.type_text(ada, "AB");
    assert_eq!(room.game().shown, [Shown::Keyframe, Shown::Delta]);
    let sizes: Vec<usize> = room.sent().iter().map(|sent| sent.bytes).collect();
    assert_eq!(sizes, [46_093, 9 + 4 + 24]);
    assert_eq!(room.line(ada, 5), "       B");
}

#[test]
fn a_frame_that_changed_everywhere_is_whole() {
    let (mut room, ada, _) = room();
    room.type_text(ada, "ab");
    assert_eq!(room.game().shown, [Shown::Keyframe, Shown::Keyframe]);
}

#[test]
fn a_rejected_delta_is_followed_by_one_keyframe_under_the_hosts_epoch() {
    let (mut room, ada, _) = room();
    room.type_text(ada, "A");
    room.forget_frames();
    room.clear_sent();
    room.type_text(ada, "B");
    assert_eq!(room.game().shown, [Shown::Keyframe, Shown::Resynced]);
    let [delta, keyframe]: [Sent; 2] = room.sent().try_into().unwrap();
    assert!(!delta.keyframe && !delta.applied);
    assert!(keyframe.keyframe && keyframe.applied);
    assert_eq!(keyframe.epoch, delta.returned);
    assert_eq!(room.line(ada, 5), "       B");
    room.clear_sent();
    room.type_text(ada, "C");
    assert_eq!(kinds(&room), [(false, true)]);
}

#[test]
fn a_rejected_broadcast_is_followed_by_one_keyframe() {
    let (mut room, ada, bob) = room();
    room.type_text(ada, "a");
    room.forget_frames();
    room.clear_sent();
    room.type_text(ada, "X");
    room.type_text(ada, ".");
    assert_eq!(kinds(&room), [(true, true), (false, false), (true, true)]);
    assert_eq!(room.lines(bob), room.lines(ada));
}

#[test]
fn after_a_broadcast_a_slot_that_was_ever_sent_to_goes_on_with_deltas() {
    let (mut room, ada, bob) = room();
    room.type_text(ada, "Aa");
    room.clear_sent();
    room.type_text(ada, "B");
    assert_eq!(kinds(&room), [(false, true)]);
    room.type_text(bob, "C");
    assert_eq!(
        kinds(&room)[1],
        (true, true),
        "bob's slot was never allocated"
    );
    let with = |ch: char| format!("{}{ch}{}", "a".repeat(7), "a".repeat(72));
    assert_eq!(
        (room.line(ada, 5), room.line(bob, 5)),
        (with('B'), with('C'))
    );
}

#[test]
fn a_broadcast_after_a_private_frame_reaches_who_saw_the_private_one() {
    let (mut room, ada, bob) = room();
    room.type_text(ada, "a");
    let everybody = room.lines(bob);
    room.type_text(ada, "Z");
    assert_ne!(room.lines(ada), everybody);
    room.type_text(bob, "a");
    assert_eq!(
        (room.lines(ada), room.lines(bob)),
        (everybody.clone(), everybody)
    );
}

#[test]
fn an_equal_frame_is_not_sent() {
    let (mut room, ada, _) = room();
    room.type_text(ada, "a.");
    room.input(ada, Key::Enter);
    room.clear_sent();
    room.type_text(ada, ".");
    room.input(ada, Key::Enter);
    room.input(ada, Key::Enter);
    // The private frame in between made everybody's and ada's differ as far as slots go.
    assert_eq!(room.game().shown[1], Shown::Unchanged);
    assert_eq!(room.game().shown[4..], [Shown::Unchanged; 2]);
    assert_eq!(room.sent().len(), 1);
    assert_eq!(room.sent()[0].bytes, 9);
}

#[test]
fn an_equal_frame_after_a_second_of_silence_mends_a_host_that_forgot() {
    let (mut room, ada, bob) = room();
    room.type_text(ada, "a");
    room.forget_frames();
    room.pass(Duration::from_secs(1));
    room.clear_sent();
    room.type_text(ada, ".");
    assert_eq!(kinds(&room), [(false, false), (true, true)]);
    room.clear_sent();
    room.type_text(bob, ".");
    assert_eq!(kinds(&room), []);
}

#[test]
fn a_joiner_gets_a_whole_frame_though_nothing_changed() {
    let (mut room, ada, _) = room();
    room.type_text(ada, "a");
    let cyd = room.join("cyd");
    room.clear_sent();
    room.type_text(ada, ".");
    assert_eq!(kinds(&room), [(true, true)]);
    assert_eq!(room.lines(cyd), room.lines(ada));
}

#[test]
fn a_leave_clears_the_baselines_of_who_stays() {
    let (mut room, ada, bob) = room();
    room.type_text(bob, "A");
    room.leave(ada);
    room.clear_sent();
    room.type_text(bob, "B");
    assert_eq!(kinds(&room), [(true, true)]);
    assert_eq!(room.line(bob, 5), "       B");
}

#[test]
fn a_frame_for_who_leaves_or_left_is_dropped() {
    let (mut room, ada, _) = room();
    room.leave(ada);
    assert_eq!(room.game().shown, [Shown::Dropped]);
    assert_eq!(room.sent(), []);
}

#[test]
fn seats_beyond_the_hosts_slots_are_dropped_and_the_last_slot_is_not() {
    let mut room = TestRoom::<Painter>::new();
    let seats: Vec<Seat> = (0..1025)
        .map(|index| {
            room.join_as(TestPlayer {
                conn: index.to_string(),
                ..TestPlayer::default()
            })
        })
        .collect();
    room.type_text(seats[1023], "A");
    room.type_text(seats[1024], "B");
    assert_eq!(room.game().shown, [Shown::Keyframe, Shown::Dropped]);
    room.type_text(seats[0], "x");
    assert_eq!(room.line(seats[1024], 5), "x".repeat(80));
}

#[test]
fn a_payload_the_host_has_no_memory_for_is_dropped_and_the_next_frame_is_right() {
    let (mut room, ada, _) = room();
    room.type_text(ada, "A");
    room.set_memory(false);
    room.type_text(ada, "B.");
    assert_eq!(room.game().shown[1..], [Shown::Dropped; 2]);
    room.set_memory(true);
    room.type_text(ada, "C");
    assert_eq!(room.game().shown[3], Shown::Delta);
    assert_eq!(room.screen(ada), room.game().screen);
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

/// Checks that what was just shown reached these viewers, in as few payloads as it may take.
fn check(room: &mut TestRoom<Painter>, viewers: &[Seat]) -> Result<(), TestCaseError> {
    let shown = room.game().shown.last().copied();
    if shown != Some(Shown::Dropped) {
        let expected = &room.game().screen;
        for &viewer in viewers {
            prop_assert_eq!(&room.screen(viewer), expected);
        }
    }
    let silent = matches!(shown, Some(Shown::Unchanged | Shown::Dropped));
    prop_assert_eq!(room.sent().is_empty(), silent);
    let retries = room.sent().iter().filter(|sent| !sent.applied).count();
    prop_assert!(retries <= 1 && room.sent().len() <= 1 + retries);
    room.clear_sent();
    Ok(())
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..6_usize, proptest::sample::select(&['a', 'b', 'A', 'B', 'C', '.', '#'][..]))
            .prop_map(|(seat, ch)| Event::Type(seat, ch)),
        1 => Just(Event::Join),
        1 => (0..6_usize).prop_map(Event::Leave),
        1 => Just(Event::Forget),
        1 => any::<bool>().prop_map(Event::Memory),
        1 => Just(Event::Wake),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_viewer_sees_what_was_shown_last_whatever_happened_before(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut room = TestRoom::<Painter>::new();
        let mut seats = vec![room.join("p0")];
        for event in events {
            match event {
                Event::Type(seat, ch) => {
                    let seat = seats[seat % seats.len()];
                    room.input(seat, ch);
                    if ch.is_ascii_lowercase() || ch == '.' {
                        check(&mut room, &seats)?;
                    } else {
                        check(&mut room, &[seat])?;
                    }
                }
                Event::Wake => {
                    room.wake();
                    check(&mut room, &seats)?;
                }
                Event::Join if seats.len() < 6 => {
                    seats.push(room.join(&format!("p{}", seats.len())));
                }
                Event::Leave(seat) if seats.len() > 1 => {
                    room.leave(seats.remove(seat % seats.len()));
                }
                Event::Forget => {
                    room.forget_frames();
                    // A host that forgot is only noticed by what is sent, so let time pass.
                    room.pass(Duration::from_secs(1));
                }
                Event::Memory(available) => room.set_memory(available),
                Event::Join | Event::Leave(_) => {}
            }
        }
    }
}
