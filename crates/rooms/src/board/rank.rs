//! The order of a board.

use std::cmp::Ordering;

use cabinet_wire::Direction;

use super::Score;

/// A line of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardRow {
    /// Place, from 1; no two rows of a board share one.
    pub rank: u64,
    /// Whose line it is.
    pub account: String,
    /// What the account was last called.
    pub handle: String,
    /// The score.
    pub value: i64,
    /// When it was achieved, Unix nanoseconds.
    pub achieved: i64,
}

/// Ranks scores: by value in the board's direction, then whose was achieved earlier, then by account
/// id. Scores of accounts that are empty or unknown (without a handle) are left out.
#[must_use]
pub fn rank(mut scores: Vec<Score>, direction: Direction) -> Vec<BoardRow> {
    scores.retain(|score| !score.account.is_empty() && score.handle.is_some());
    scores.sort_unstable_by(|a, b| order(a, b, direction));
    (1..)
        .zip(scores)
        .filter_map(|(rank, score)| {
            Some(BoardRow {
                rank,
                account: score.account,
                handle: score.handle?,
                value: score.value,
                achieved: score.achieved,
            })
        })
        .collect()
}

fn order(a: &Score, b: &Score, direction: Direction) -> Ordering {
    let by_value = match direction {
        Direction::HigherBetter => b.value.cmp(&a.value),
        Direction::LowerBetter => a.value.cmp(&b.value),
    };
    by_value
        .then(a.achieved.cmp(&b.achieved))
        .then_with(|| a.account.cmp(&b.account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn score(account: &str, value: i64, achieved: i64) -> Score {
        Score {
            account: account.into(),
            handle: Some(format!("the {account}")),
            value,
            achieved,
        }
    }

    fn ranked(scores: &[Score], direction: Direction) -> Vec<(u64, String)> {
        let rows = rank(scores.to_vec(), direction);
        rows.into_iter()
            .map(|row| (row.rank, row.account))
            .collect()
    }

    #[test]
    fn equals_are_ordered_by_time_and_then_by_account_and_the_unknown_are_left_out() {
        let gone = Score {
            handle: None,
            ..score("gone", 99, 0)
        };
        let scores = [
            score("d", 5, 20),
            score("b", 7, 30),
            gone,
            score("", 98, 0),
            score("c", 5, 10),
            score("a", 5, 20),
        ];
        let names = |order: [&str; 4]| -> Vec<(u64, String)> {
            (1..).zip(order.map(String::from)).collect()
        };
        let higher = ranked(&scores, Direction::HigherBetter);
        assert_eq!(higher, names(["b", "c", "a", "d"]));
        let lower = ranked(&scores, Direction::LowerBetter);
        assert_eq!(lower, names(["c", "a", "d", "b"]));
        assert_eq!(
            rank(scores.to_vec(), Direction::HigherBetter)[0].handle,
            "the b"
        );
    }

    proptest! {
        #[test]
        fn ranks_count_up_and_do_not_depend_on_the_order_of_the_scores(
            values in proptest::collection::vec((-3..3i64, 0..3i64), 0..40),
            rotate in 0..40usize,
            lower in any::<bool>(),
        ) {
            let direction = if lower { Direction::LowerBetter } else { Direction::HigherBetter };
            let mut scores: Vec<Score> = (0..)
                .zip(&values)
                .map(|(n, (value, achieved))| score(&format!("a{n:02}"), *value, *achieved))
                .collect();
            let rows = rank(scores.clone(), direction);
            prop_assert_eq!(rows.len(), values.len());
            prop_assert!(rows.iter().map(|row| row.rank).eq(1..=values.len() as u64));
            for pair in rows.windows(2) {
                let key = |row: &BoardRow| {
                    let value = if lower { row.value } else { -row.value };
                    (value, row.achieved, row.account.clone())
                };
                prop_assert!(key(&pair[0]) < key(&pair[1]));
            }
            if !scores.is_empty() {
                let by = rotate % scores.len();
                scores.rotate_left(by);
            }
            prop_assert_eq!(rank(scores, direction), rows);
        }
    }
}
