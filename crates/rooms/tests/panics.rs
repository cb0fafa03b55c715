//! Host code that panics in a room's turn ends that room and no other.

mod common;

use std::sync::Arc;

use cabinet_host::{Input, Status};
use cabinet_rooms::{
    EndReason, Export, GameLabel, Listed, Listing, Phase, Recorder, Registry, RoomSpec,
};

use common::{ByHand, Counts, by_hand_with, game, ms, player};

/// Panics at every input of one game, and there again when told of it.
struct Panicky {
    counts: Arc<Counts>,
    twice: bool,
}

impl Recorder for Panicky {
    fn callback(&self, game: &GameLabel, export: Export, took: std::time::Duration) {
        assert!(
            game.slug() != "bench/panics" || export != Export::Input,
            "a recorder that panics"
        );
        self.counts.callback(game, export, took);
    }

    fn host_fault(&self, game: &GameLabel) {
        assert!(!self.twice, "a recorder that panics again");
        self.counts.host_fault(game);
    }

    fn rooms(&self, game: &GameLabel, delta: i64) {
        self.counts.rooms(game, delta);
    }

    fn linear_memory(&self, game: &GameLabel, delta: i64) {
        self.counts.linear_memory(game, delta);
    }
}

fn scene(twice: bool) -> (ByHand, Arc<Counts>, [Arc<Listed>; 2]) {
    let counts = Arc::new(Counts::default());
    let recorder = Arc::new(Panicky {
        counts: Arc::clone(&counts),
        twice,
    });
    let by = by_hand_with(|options| options.recorder = recorder);
    let registry = Registry::new();
    let tour = game("tour.wasm");
    let victim = Listing::new(tour.clone()).with_slug("bench/panics".parse().unwrap());
    let listed = [victim, Listing::new(tour)].map(|listing| registry.add(listing).unwrap());
    (by, counts, listed)
}

fn the_room_ends_and_its_neighbour_plays_on(twice: bool) -> Arc<Counts> {
    let (by, counts, listed) = scene(twice);
    let [victim, neighbour] =
        listed.map(|listed| by.runtime.open(&listed, RoomSpec::default()).unwrap());
    let ada = by.run(victim.join(player(1))).unwrap();
    let mut bob = by.run(neighbour.join(player(2))).unwrap();
    by.run(ada.input(Input::Rune('x' as u32))).unwrap();
    let ending = by.run(victim.ended());
    assert_eq!(ending.reason, EndReason::Host);
    assert_eq!(victim.status().phase, Phase::Settled);
    let lines = &ending.result.as_ref().unwrap().standings;
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0].player, lines[0].status),
        (&player(1), Some(Status::Dnf))
    );
    assert!(by.runtime.find(victim.id()).is_none());

    by.run(bob.input(Input::Rune('x' as u32))).unwrap();
    let before = counts.get("callback wake");
    by.pass(ms(400));
    assert_eq!(counts.get("callback wake") - before, 10);
    assert!(bob.frames().try_next().is_some());
    assert!(neighbour.ending().is_none());
    neighbour.close();
    by.run(neighbour.ended());
    counts
}

#[test]
fn a_panic_in_a_rooms_turn_ends_that_room_alone() {
    let counts = the_room_ends_and_its_neighbour_plays_on(false);
    assert_eq!(counts.get("host fault"), 1);
    assert_eq!(counts.get("rooms"), 0);
    assert_eq!(counts.get("memory"), 0);
}

#[test]
fn a_recorder_that_panics_at_the_panic_too_holds_nobody_up() {
    let counts = the_room_ends_and_its_neighbour_plays_on(true);
    assert_eq!(counts.get("host fault"), 0);
}

#[test]
fn a_quarantine_hook_that_panics_costs_nobody_the_report() {
    let counts = Arc::new(Counts::default());
    let registry = Arc::new(Registry::new());
    let listed = registry.add(Listing::new(game("tour.wasm"))).unwrap();
    let policy = cabinet_rooms::QuarantinePolicy {
        threshold: std::num::NonZeroU8::MIN,
        ..Default::default()
    };
    let quarantine = cabinet_rooms::Quarantine::new(Arc::clone(&registry), policy)
        .on_quarantine(|_| panic!("a hook that panics"));
    let recorder = Arc::clone(&counts);
    let by = by_hand_with(|options| {
        options.recorder = recorder;
        options.quarantine = Some(Arc::new(quarantine));
    });
    let room = by.runtime.open(&listed, RoomSpec::default()).unwrap();
    let ada = by.run(room.join(player(1))).unwrap();
    by.run(ada.input(Input::Rune('!' as u32))).unwrap();
    let ending = by.run(room.ended());
    assert_eq!(ending.reason, EndReason::Fault);
    assert!(ending.fault.is_some());
    assert!(registry.get("tour").is_none());
    assert_eq!((counts.get("fault"), counts.get("quarantined")), (1, 1));
    assert_eq!(counts.get("host fault"), 0);
}
