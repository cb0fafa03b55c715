//! What every store decides alike: which write wins, what a merge leaves, which rows of a post
//! count. Pure functions, so that the store in memory and the one on disk cannot differ.

use cabinet_host::Status;

use super::limits::HANDLE_BYTES_MAX;
use super::{MergeRule, Post};

/// A value with the rule its game gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub value: Vec<u8>,
    pub rule: Option<MergeRule>,
}

/// Whether a write changes nothing: under `max` a stored integer is never lowered.
pub(crate) fn keeps_stored(stored: &[u8], value: &[u8], rule: Option<MergeRule>) -> bool {
    rule == Some(MergeRule::Max)
        && matches!((integer(stored), integer(value)), (Some(stored), Some(new)) if stored >= new)
}

/// Whether a merge of these accounts does nothing: an empty account is nobody's, and nobody is
/// merged into themselves.
pub(crate) fn merges_nothing(winner: &str, loser: &str) -> bool {
    winner.is_empty() || loser.is_empty() || winner == loser
}

/// What the winner has under a key after a merge in which the loser had `loser` there.
///
/// The winner's rule decides, or the loser's where the winner's game named none. A sum past what an
/// `i64` holds stays at that bound: a counter that is full is nearer the truth than one that lost
/// the loser's part, or changed its sign.
pub(crate) fn merged(winner: Option<Stored>, loser: Stored) -> Stored {
    let Some(winner) = winner else { return loser };
    let rule = winner.rule.or(loser.rule);
    let integers = integer(&winner.value).zip(integer(&loser.value));
    let value = match (rule, integers) {
        (Some(MergeRule::KeepLoser), _) => loser.value,
        (Some(MergeRule::Sum), Some((a, b))) => a.saturating_add(b).to_string().into_bytes(),
        (Some(MergeRule::Max), Some((a, b))) => a.max(b).to_string().into_bytes(),
        _ => winner.value,
    };
    Stored { value, rule }
}

/// A value as the integer rules and [`super::StoreAdmin::int_values`] read it: base 10, a sign
/// allowed, space around it allowed.
pub(crate) fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A standing that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub account: &'a str,
    pub metric: i64,
    pub status: Option<Status>,
}

/// The standings of a post that are recorded: those of players who have an account.
pub(crate) fn rows(post: &Post) -> impl Iterator<Item = Row<'_>> {
    let standings = post.result.standings.iter();
    standings
        .filter(|standing| !standing.player.account.is_empty())
        .map(|standing| Row {
            account: &standing.player.account,
            metric: standing.metric,
            status: standing.status,
        })
}

/// The accounts a post shows and what they were called, for boards to show.
pub(crate) fn handles(post: &Post) -> impl Iterator<Item = (&str, &str)> {
    let players = post
        .result
        .standings
        .iter()
        .map(|standing| &standing.player);
    players
        .filter(|player| !player.account.is_empty())
        .map(|player| (player.account.as_str(), remembered(&player.handle)))
}

/// As much of a handle as is remembered.
pub(crate) fn remembered(handle: &str) -> &str {
    &handle[..handle.floor_char_boundary(HANDLE_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: &str, rule: &[u8]) -> Stored {
        Stored {
            value: value.into(),
            rule: MergeRule::named(rule),
        }
    }

    #[test]
    fn twelve_merges_leave_what_the_rules_say() {
        let cases: [(&str, Option<Stored>, Stored, Stored); 12] = [
            ("moves", None, stored("7", b"sum"), stored("7", b"sum")),
            (
                "no rule",
                Some(stored("w", b"")),
                stored("l", b""),
                stored("w", b""),
            ),
            (
                "keep-winner",
                Some(stored("w", b"keep-winner")),
                stored("l", b"keep-loser"),
                stored("w", b"keep-winner"),
            ),
            (
                "unknown",
                Some(stored("w", b"newest")),
                stored("l", b"keep-loser"),
                stored("w", b"newest"),
            ),
            (
                "keep-loser",
                Some(stored("w", b"keep-loser")),
                stored("l", b""),
                stored("l", b"keep-loser"),
            ),
            (
                "loser's rule",
                Some(stored("3", b"")),
                stored("4", b"sum"),
                stored("7", b"sum"),
            ),
            (
                "sum",
                Some(stored(" 3\n", b"sum")),
                stored("+4", b"max"),
                stored("7", b"sum"),
            ),
            (
                "sum of text",
                Some(stored("3", b"sum")),
                stored("four", b"sum"),
                stored("3", b"sum"),
            ),
            (
                "sum into text",
                Some(stored("three", b"sum")),
                stored("4", b"sum"),
                stored("three", b"sum"),
            ),
            (
                "max, loser",
                Some(stored("3", b"max")),
                stored(" 9 ", b"max"),
                stored("9", b"max"),
            ),
            (
                "max, winner",
                Some(stored("-3", b"max")),
                stored("-9", b"max"),
                stored("-3", b"max"),
            ),
            (
                "max of text",
                Some(stored("b", b"max")),
                stored("z", b"max"),
                stored("b", b"max"),
            ),
        ];
        for (name, winner, loser, expected) in cases {
            assert_eq!(merged(winner, loser), expected, "{name}");
        }
    }

    #[test]
    fn a_sum_past_the_integers_stays_at_their_end() {
        let most = i64::MAX.to_string();
        let least = i64::MIN.to_string();
        assert_eq!(
            merged(Some(stored(&most, b"sum")), stored("1", b"")).value,
            most.as_bytes()
        );
        assert_eq!(
            merged(Some(stored(&least, b"sum")), stored("-1", b"")).value,
            least.as_bytes()
        );
        // One past what an i64 reads as is text.
        let past = "9223372036854775808";
        assert_eq!(
            merged(Some(stored(past, b"sum")), stored("1", b"")).value,
            past.as_bytes()
        );
    }

    #[test]
    fn a_long_handle_is_cut_at_a_character() {
        let handle = format!("{}é", "h".repeat(HANDLE_BYTES_MAX - 1));
        assert_eq!(remembered(&handle).len(), HANDLE_BYTES_MAX - 1);
        assert_eq!(
            remembered(&handle[..HANDLE_BYTES_MAX - 1]).len(),
            HANDLE_BYTES_MAX - 1
        );
        let exact = "h".repeat(HANDLE_BYTES_MAX);
        assert_eq!(remembered(&exact), exact);
    }
}
