//! One score per account out of many results.

use std::collections::HashMap;

use cabinet_wire::{Aggregation, Direction};

use super::BoardSpec;

/// What an account achieved within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Score {
    /// Whose it is.
    pub account: String,
    /// What the account was last called; `None` when the source knows no such account any more.
    pub handle: Option<String>,
    /// The best metric or the sum.
    pub value: i64,
    /// When, Unix nanoseconds: of the best results the earliest, of a sum the earliest part.
    pub achieved: i64,
}

/// Sums results up; for implementors of [`super::BoardSource`]. Holds one entry per account, however
/// many results it is told.
#[derive(Debug)]
pub struct Tally {
    direction: Direction,
    aggregation: Aggregation,
    /// Wider than a metric: a sum that runs over and comes back is right.
    accounts: HashMap<String, (i128, i64)>,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(spec: &BoardSpec) -> Self {
        Self {
            direction: spec.direction,
            aggregation: spec.aggregation,
            accounts: HashMap::new(),
        }
    }

    /// Counts a result. Their order does not matter.
    pub fn add(&mut self, account: &str, metric: i64, at: i64) {
        let metric = i128::from(metric);
        let Some((value, achieved)) = self.accounts.get_mut(account) else {
            self.accounts.insert(account.to_owned(), (metric, at));
            return;
        };
        match self.aggregation {
            Aggregation::Sum => {
                *value += metric;
                *achieved = (*achieved).min(at);
            }
            Aggregation::Best if metric == *value => *achieved = (*achieved).min(at),
            Aggregation::Best => {
                let better = match self.direction {
                    Direction::HigherBetter => metric > *value,
                    Direction::LowerBetter => metric < *value,
                };
                if better {
                    (*value, *achieved) = (metric, at);
                }
            }
        }
    }

    /// The scores, in no order, with the handle `handle_of` knows for each account. A sum past what
    /// an `i64` holds is that bound.
    pub fn scores(self, mut handle_of: impl FnMut(&str) -> Option<String>) -> Vec<Score> {
        let accounts = self.accounts.into_iter();
        accounts
            .map(|(account, (value, achieved))| Score {
                handle: handle_of(&account),
                account,
                value: value.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
                achieved,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally(direction: Direction, aggregation: Aggregation, results: &[(i64, i64)]) -> (i64, i64) {
        let mut tally = Tally::new(&BoardSpec {
            direction,
            aggregation,
            ..BoardSpec::default()
        });
        for (metric, at) in results {
            tally.add("a1", *metric, *at);
        }
        let scores = tally.scores(|_| None);
        assert_eq!(scores.len(), 1);
        (scores[0].value, scores[0].achieved)
    }

    #[test]
    fn the_best_result_counts_and_among_equals_the_earliest() {
        let results = [(5, 30), (9, 40), (1, 10), (9, 20), (1, 50)];
        let best = |direction| tally(direction, Aggregation::Best, &results);
        assert_eq!(best(Direction::HigherBetter), (9, 20));
        assert_eq!(best(Direction::LowerBetter), (1, 10));
    }

    #[test]
    fn a_sum_is_dated_by_its_first_part_and_stays_an_integer() {
        let sum = |results: &[_]| tally(Direction::HigherBetter, Aggregation::Sum, results);
        assert_eq!(sum(&[(5, 30), (-2, 10), (4, 20)]), (7, 10));
        assert_eq!(sum(&[(i64::MAX, 1), (i64::MAX, 2)]), (i64::MAX, 1));
        assert_eq!(sum(&[(i64::MAX, 1), (1, 2), (-1, 3)]), (i64::MAX, 1));
    }

    proptest! {
        #[test]
        fn the_order_of_results_does_not_matter(
            results in proptest::collection::vec((any::<i64>(), any::<i64>()), 1..20),
            lower in any::<bool>(),
            sum in any::<bool>(),
        ) {
            let direction = if lower { Direction::LowerBetter } else { Direction::HigherBetter };
            let aggregation = if sum { Aggregation::Sum } else { Aggregation::Best };
            let mut backwards = results.clone();
            backwards.reverse();
            prop_assert_eq!(
                tally(direction, aggregation, &results),
                tally(direction, aggregation, &backwards)
            );
        }
    }
}
