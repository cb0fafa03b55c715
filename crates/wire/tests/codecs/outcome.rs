//! Results of `end` and `post`.

use cabinet_wire::outcome::{self, OutcomeError, Ranking};
use cabinet_wire::{RANKING_BYTES, Status};
use proptest::prelude::*;

const MIXED: [Ranking; 2] = [
    Ranking::new(1, 9000, 1, Status::Finished),
    Ranking::new(0, -1, 2, Status::Dnf),
];

fn encoded(rankings: &[Ranking]) -> Vec<u8> {
    let mut out = Vec::new();
    outcome::encode(rankings, &mut out).unwrap();
    out
}

#[test]
fn a_result_reads_back_negative_metrics_and_all() {
    let mut bytes = encoded(&MIXED);
    assert_eq!(bytes.len(), 2 + 2 * RANKING_BYTES);
    bytes.extend_from_slice(b"later revisions");
    let rankings = outcome::decode(&bytes, 2).unwrap();
    assert_eq!(rankings.len(), 2);
    assert!(rankings.eq(MIXED));
    assert_eq!(outcome::decode(&[0, 0], 0).unwrap().count(), 0);
}

#[test]
fn a_result_that_names_a_player_outside_the_roster_is_void() {
    let bytes = encoded(&MIXED);
    let refused = OutcomeError::NotInRoster {
        index: 0,
        player: 1,
        roster_len: 1,
    };
    assert_eq!(outcome::decode(&bytes, 1).unwrap_err(), refused);
    let far = encoded(&[Ranking::new(u32::MAX, 0, 0, Status::Dnf)]);
    assert!(outcome::decode(&far, 1024).is_err());
}

#[test]
fn an_unassigned_status_is_carried_and_is_no_status() {
    let mut ranking = MIXED[0];
    ranking.status = 3;
    let bytes = encoded(&[ranking]);
    let read = outcome::decode(&bytes, 2).unwrap().next().unwrap();
    assert_eq!((read.status, read.status()), (3, None));
    assert_eq!(MIXED[1].status(), Some(Status::Dnf));
}

#[test]
fn every_truncation_of_a_result_is_short() {
    let bytes = encoded(&MIXED);
    for len in 0..bytes.len() {
        assert_eq!(
            outcome::decode(&bytes[..len], 2).unwrap_err(),
            OutcomeError::Short
        );
    }
    assert_eq!(
        outcome::decode(&[0xFF, 0xFF], 2).unwrap_err(),
        OutcomeError::Short
    );
}

#[test]
fn a_result_holds_65535_rankings_and_no_more() {
    let many = vec![MIXED[1]; 65536];
    let bytes = encoded(&many[..65535]);
    assert_eq!(outcome::decode(&bytes, 1).unwrap().count(), 65535);
    let mut out = vec![1];
    let refused = OutcomeError::TooMany { count: 65536 };
    assert_eq!(outcome::encode(&many, &mut out), Err(refused));
    assert_eq!(out, [1]);
}

proptest! {
    #[test]
    fn a_result_survives_the_round_trip(
        rankings in prop::collection::vec(any::<(u32, i64, u16, u8)>(), 0..20),
    ) {
        let rankings: Vec<_> = rankings.into_iter()
            .map(|(player, metric, rank, status)| Ranking { player: player % 1024, metric, rank, status })
            .collect();
        let bytes = encoded(&rankings);
        let read: Vec<_> = outcome::decode(&bytes, 1024).unwrap().collect();
        prop_assert_eq!(&read, &rankings);
        prop_assert_eq!(encoded(&read), bytes);
    }
}
