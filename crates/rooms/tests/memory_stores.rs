//! The store in memory: what every store does, and accounts.

mod stores;

use cabinet_host::Player;
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{Accounts, ServiceError, wait_for};
use stores::{Stores, every_store_behaves, post};

#[test]
fn the_store_in_memory_behaves_like_every_store() {
    every_store_behaves(|| Stores::of(&MemoryStore::new()));
}

#[test]
fn a_room_gets_every_service_but_a_log_from_it() {
    let services = MemoryStore::new().services();
    assert!(services.kv.is_some() && services.config.is_some());
    assert!(services.leaderboard.is_some() && services.accounts.is_some());
    assert!(services.log.is_none());
}

#[test]
fn clones_share_what_they_keep() {
    let store = MemoryStore::new();
    Stores::of(&store.clone()).set(("g", "a", b"k"), "v", b"");
    assert_eq!(
        Stores::of(&store).get(("g", "a", b"k")),
        Some(b"v".to_vec())
    );
}

#[test]
fn an_account_is_the_players_own_on_every_connection_and_guests_share_the_empty_one() {
    let store = MemoryStore::new();
    let account = |player: &Player| wait_for(|reply| store.account(player, reply)).unwrap();
    let ada = Player::member("a1", "ada", "c1");
    assert_eq!(account(&ada), Some("a1".into()));
    assert_eq!(
        account(&Player::member("a1", "Ada", "c2")),
        Some("a1".into())
    );
    assert_eq!(account(&Player::guest("bob", "c3")), Some(String::new()));
    assert_eq!(account(&Player::guest("eve", "c4")), Some(String::new()));
    let long = Player::member("a".repeat(1_025), "a", "c5");
    let refused = wait_for(|reply| store.account(&long, reply));
    assert!(matches!(refused, Err(ServiceError::Refused(_))));
}

#[test]
fn a_board_shows_the_handle_a_player_was_last_seen_under_even_without_a_post() {
    let store = MemoryStore::new();
    Stores::of(&store).post(&post("g", 1, 5, &[("a1", 3)]));
    let seen = Player::member("a1", "Countess", "c1");
    wait_for(|reply| store.account(&seen, reply)).unwrap();
    let page = Stores::of(&store).board_of("g");
    assert_eq!(page.rows()[0].handle, "Countess");
    assert_eq!(page.rows()[0].achieved, 5);
    assert_eq!(page.total(), 1);
}
