//! Listings: their order, their prefixes and their pages.

use super::{Bench, Broken, Verdict, same, wrong};
use crate::store::{Condition, Entry, PAGE_KEYS_MAX, StoreError};

/// Rising by bytes: `-` and `.` come before `/`, digits and `_` after it.
const NAMES: [&str; 10] = [
    "a-b", "a.b", "a/b", "a/b-c", "a/c/d", "a0", "a_b", "ab", "b", "b-",
];

async fn prepared(bench: Bench<'_>) -> Result<(), Broken> {
    for name in NAMES.iter().rev() {
        let key = bench.key(name)?;
        bench.put(&key, name.as_bytes(), Condition::None).await?;
    }
    Ok(())
}

async fn listed(
    bench: Bench<'_>,
    prefix: &str,
    after: Option<&str>,
) -> Result<Vec<String>, Broken> {
    let after = after.map(|after| bench.text(after));
    let prefix = bench.text(prefix);
    let page = bench
        .store
        .list(&prefix, after.as_deref(), PAGE_KEYS_MAX)
        .await?;
    same(
        "where a listing goes on that is at its end",
        &None,
        &page.next,
    )?;
    same("names of others", &0, &page.foreign)?;
    Ok(names(bench, &page.entries))
}

fn names(bench: Bench<'_>, entries: &[Entry]) -> Vec<String> {
    let base = bench.text("");
    let name = |entry: &Entry| {
        let key = entry.key.as_str();
        key.strip_prefix(&base).unwrap_or(key).into()
    };
    entries.iter().map(name).collect()
}

fn expected(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let names = NAMES.into_iter().filter(|name| wanted(name));
    names.map(str::to_owned).collect()
}

pub(super) async fn order(bench: Bench<'_>) -> Verdict {
    prepared(bench).await?;
    same(
        "every key",
        &expected(|_| true),
        &listed(bench, "", None).await?,
    )?;
    let page = bench
        .store
        .list(&bench.text(""), None, PAGE_KEYS_MAX)
        .await?;
    for (entry, name) in page.entries.iter().zip(NAMES) {
        same(
            &format!("the bytes of {name}"),
            &(name.len() as u64),
            &entry.bytes,
        )?;
    }
    Ok(())
}

pub(super) async fn prefixes(bench: Bench<'_>) -> Verdict {
    prepared(bench).await?;
    for prefix in [
        "a", "a/", "a/b", "a-", "ab", "b", "b-", "a/c", "a/c/", "c", "a/b/", "a/c/d/e",
    ] {
        let wanted = expected(|name| name.starts_with(prefix));
        let found = listed(bench, prefix, None).await?;
        same(&format!("keys with the prefix {prefix}"), &wanted, &found)?;
    }
    Ok(())
}

pub(super) async fn after(bench: Bench<'_>) -> Verdict {
    prepared(bench).await?;
    // Keys, and texts between, before and behind them; some end where a prefix does.
    let texts = [
        "", "0", "a", "a-b", "a.", "a/", "a/b", "a/b/", "a/c", "a0", "aa", "b", "b-", "c",
    ];
    for prefix in ["", "a", "a/", "b"] {
        for after in texts {
            let wanted = expected(|name| name.starts_with(prefix) && name > after);
            let found = listed(bench, prefix, Some(after)).await?;
            same(
                &format!("keys with the prefix {prefix} after {after}"),
                &wanted,
                &found,
            )?;
        }
    }
    Ok(())
}

pub(super) async fn pages(bench: Bench<'_>) -> Verdict {
    prepared(bench).await?;
    for (prefix, limits) in [("", 0..=NAMES.len() + 1), ("a/", 1..=4)] {
        let wanted = expected(|name| name.starts_with(prefix));
        for limit in limits {
            let found = paged(bench, prefix, limit).await?;
            same(
                &format!("pages of {limit} with the prefix {prefix}"),
                &wanted,
                &found,
            )?;
        }
    }
    Ok(())
}

async fn paged(bench: Bench<'_>, prefix: &str, limit: usize) -> Result<Vec<String>, Broken> {
    let prefix = bench.text(prefix);
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = bench.store.list(&prefix, after.as_deref(), limit).await?;
        // A limit of 0 is one of 1: nobody comes to an end otherwise.
        if page.entries.len() > limit.max(1) {
            return Err(wrong("keys of a page", &format!("{limit}"), &page.entries));
        }
        found.extend(names(bench, &page.entries));
        match page.next {
            None => return Ok(found),
            Some(next) if after.as_ref().is_some_and(|after| next <= *after) => {
                return Err(wrong("where a listing goes on", "later each time", &next));
            }
            Some(next) => after = Some(next),
        }
        if found.len() > 2 * NAMES.len() {
            let error = StoreError::Refused("a listing without an end".into());
            return Err(Broken::Error(error));
        }
    }
}
