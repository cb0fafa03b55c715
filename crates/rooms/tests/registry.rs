//! The registry: what is offered, under which name and terms, asked from many threads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cabinet_host::Game;
use cabinet_rooms::{
    GAME_LABELS_MAX, GameLabel, GameSlug, Listed, Listing, Registry, RegistryError,
};
use cabinet_wire::meta::Meta;
use cabinet_wire::{Lifecycle, ROSTER_CAP};

#[path = "../../host/tests/common/mod.rs"]
mod common;

fn plain() -> Game {
    common::game(&common::guest(&common::plain(), "", ""))
}

fn slug(text: &str) -> GameSlug {
    text.parse().unwrap()
}

fn slugs(listed: &[Arc<Listed>]) -> Vec<&str> {
    listed.iter().map(|it| it.slug().as_str()).collect()
}

#[test]
fn a_game_is_offered_as_it_declares_itself_until_it_is_removed() {
    let registry = Registry::new();
    let game = plain();
    let added = registry.add(Listing::new(game.clone())).unwrap();

    let found = registry.get("plain").unwrap();
    assert_eq!(found.generation(), added.generation());
    assert_eq!(found.game().digest(), game.digest());
    let terms = found.listing();
    assert_eq!(terms.capacity(), 4);
    assert_eq!(terms.lifecycle(), Lifecycle::Resumable);
    assert_eq!(terms.deadline(), game.deadline());
    assert!(!terms.is_hidden() && !terms.is_exempt());

    assert!(registry.get("plainer").is_none());
    assert!(registry.remove("plain").is_some());
    assert!(registry.remove("plain").is_none());
    assert!(registry.get("plain").is_none());
}

#[test]
fn each_override_changes_its_own_term_and_not_the_game() {
    let game = plain();
    let listing = Listing::new(game.clone())
        .with_slug(slug("alice/fixture"))
        .with_capacity(0)
        .with_lifecycle(Lifecycle::Ephemeral)
        .with_deadline(Duration::from_secs(1))
        .hidden()
        .exempt();
    assert_eq!(listing.slug().as_str(), "alice/fixture");
    assert_eq!(listing.capacity(), 0);
    assert_eq!(listing.lifecycle(), Lifecycle::Ephemeral);
    assert_eq!(listing.deadline(), Duration::from_secs(1));
    assert!(listing.is_hidden() && listing.is_exempt());

    assert_eq!(game.meta().slug, "plain");
    assert_eq!(Listing::new(game).capacity(), 4);
}

#[test]
fn one_game_can_be_offered_under_several_names_but_not_twice_under_one() {
    let registry = Registry::new();
    let game = plain();
    registry.add(Listing::new(game.clone())).unwrap();
    let owned = Listing::new(game).with_slug(slug("alice/plain"));
    let first = registry.add(owned.clone()).unwrap();
    assert_eq!(
        registry.add(owned.clone()).unwrap_err(),
        RegistryError::SlugTaken {
            slug: slug("alice/plain")
        }
    );
    assert_eq!(
        registry.get("alice/plain").unwrap().generation(),
        first.generation()
    );

    registry.remove("alice/plain");
    let second = registry.add(owned).unwrap();
    assert!(second.generation() > first.generation());
}

#[test]
fn all_are_in_the_order_of_their_slugs_and_hidden_ones_are_not_shown() {
    let registry = Registry::new();
    let game = plain();
    for name in ["b", "ada/z", "a", "a-"] {
        let listing = Listing::new(game.clone()).with_slug(slug(name));
        registry.add(listing).unwrap();
    }
    let hidden = Listing::new(game).with_slug(slug("ada/a")).hidden();
    registry.add(hidden).unwrap();

    assert_eq!(slugs(&registry.all()), ["a", "a-", "ada/a", "ada/z", "b"]);
    assert_eq!(slugs(&registry.listed()), ["a", "a-", "ada/z", "b"]);
    assert!(registry.get("ada/a").is_some());
}

#[test]
fn the_load_test_is_hidden_ephemeral_capped_exempt_and_patient() {
    let crowd = common::game(&common::fixture("crowd.wasm"));
    assert_eq!(crowd.meta().lifecycle(), Lifecycle::Resident);

    let listing = Listing::load_test(crowd);
    assert_eq!(listing.slug().as_str(), "crowd");
    assert!(listing.is_hidden());
    assert!(listing.is_exempt());
    assert_eq!(listing.capacity() as usize, ROSTER_CAP);
    assert_eq!(listing.deadline(), Duration::from_secs(2));
    for granted in [false, true] {
        assert_eq!(listing.lifecycle_of_new_room(granted), Lifecycle::Ephemeral);
    }
}

#[test]
fn a_new_room_is_resident_only_if_declared_and_granted() {
    use Lifecycle::{Ephemeral, Resident, Resumable};
    // Declared code, the operator's override, room without the grant, room with it.
    let table = [
        (0_u8, None, Resumable, Resumable),
        (1, None, Ephemeral, Ephemeral),
        (2, None, Resumable, Resident),
        // A lifecycle of a later revision reads as resumable.
        (3, None, Resumable, Resumable),
        (0, Some(Resumable), Resumable, Resumable),
        (0, Some(Ephemeral), Ephemeral, Ephemeral),
        (0, Some(Resident), Resumable, Resident),
        (1, Some(Resumable), Resumable, Resumable),
        (1, Some(Ephemeral), Ephemeral, Ephemeral),
        (1, Some(Resident), Resumable, Resident),
        (2, Some(Resumable), Resumable, Resumable),
        (2, Some(Ephemeral), Ephemeral, Ephemeral),
        (2, Some(Resident), Resumable, Resident),
    ];
    let declaring = |lifecycle| {
        let meta = Meta {
            lifecycle,
            ..common::plain()
        };
        common::game(&common::guest(&meta, "", ""))
    };
    let games = [0, 1, 2, 3].map(declaring);
    for (code, instead, refused, granted) in table {
        let mut listing = Listing::new(games[usize::from(code)].clone());
        if let Some(lifecycle) = instead {
            listing = listing.with_lifecycle(lifecycle);
        }
        let made = [false, true].map(|grant| listing.lifecycle_of_new_room(grant));
        assert_eq!(made, [refused, granted], "code {code}, {instead:?}");
    }
}

#[test]
fn labels_outlive_listings_and_strangers_get_none() {
    let registry = Registry::new();
    let game = plain();
    let named = |name: &str| Listing::new(game.clone()).with_slug(slug(name));
    let first = registry.add(named("ada/chess")).unwrap();
    registry.add(named("bob/chess")).unwrap();
    assert_eq!(first.label().slug(), "ada/chess");
    assert_eq!(
        [first.label().index(), registry.label("bob/chess").index()],
        [0, 1]
    );

    registry.remove("ada/chess");
    assert_eq!(registry.label("ada/chess"), *first.label());
    let again = registry.add(named("ada/chess")).unwrap();
    assert_eq!(again.label(), first.label());

    assert_eq!(registry.label("made/up"), GameLabel::other());
}

#[test]
fn games_past_the_last_label_share_one_and_are_offered_all_the_same() {
    let registry = Registry::new();
    let game = plain();
    let mut indices = BTreeSet::new();
    for at in 0..GAME_LABELS_MAX + 2 {
        let name = slug(&format!("game-{at}"));
        let listed = registry.add(Listing::new(game.clone()).with_slug(name));
        indices.insert(listed.unwrap().label().index());
    }
    assert_eq!(indices.len(), GAME_LABELS_MAX + 1);
    assert_eq!(registry.label("game-1024").slug(), "_other");
    assert_eq!(registry.label("game-1025"), GameLabel::other());
    assert_eq!(registry.all().len(), GAME_LABELS_MAX + 2);
}

/// Every thread offers and withdraws games while all look: each slug is won by one thread at a
/// time, and what is seen is always whole.
#[test]
fn many_threads_may_add_remove_and_look_at_once() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 200;
    let registry = Arc::new(Registry::new());
    let game = plain();
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (registry, game) = (Arc::clone(&registry), game.clone());
            thread::spawn(move || {
                let mut won = Vec::new();
                for round in 0..ROUNDS {
                    let name = slug(&format!("game-{}", round % 5));
                    let hidden = Listing::new(game.clone()).with_slug(name.clone()).hidden();
                    if let Ok(mine) = registry.add(hidden) {
                        assert_eq!(registry.label(name.as_str()), *mine.label());
                        let removed = registry.remove(name.as_str()).unwrap();
                        assert_eq!(removed.generation(), mine.generation());
                        won.push(mine.generation());
                    }
                    assert!(registry.listed().is_empty());
                    let all = registry.all();
                    assert!(slugs(&all).is_sorted());
                    assert!(all.len() <= 5);
                }
                won
            })
        })
        .collect();
    let won: Vec<_> = workers
        .into_iter()
        .flat_map(|worker| worker.join().unwrap())
        .collect();
    assert_eq!(won.iter().collect::<BTreeSet<_>>().len(), won.len());
    // At least the first offer of each name was taken.
    assert!(won.len() >= 5);
    assert!(registry.all().is_empty());
}
