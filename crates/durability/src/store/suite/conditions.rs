//! Puts that depend on what is there, one at a time and all at once.

use super::{Bench, Broken, Racer, Verdict, same, together, wrong};
use crate::store::{Condition, Key, StoreError, Version, Want};

fn held_back(what: &str, answer: Result<Version, StoreError>) -> Verdict {
    match answer {
        Err(StoreError::Precondition) => Ok(()),
        other => Err(wrong(what, "the precondition to fail", &other)),
    }
}

pub(super) async fn absent(bench: Bench<'_>) -> Verdict {
    let key = bench.key("absent")?;
    bench.put(&key, b"first", Condition::Absent).await?;
    for bytes in [b"first", b"other"] {
        let again = bench.put(&key, bytes, Condition::Absent).await;
        held_back("a put where something is", again)?;
    }
    bench.is_there(&key, b"first").await?;
    bench.store.delete(std::slice::from_ref(&key)).await?;
    bench.put(&key, b"after", Condition::Absent).await?;
    bench.is_there(&key, b"after").await
}

pub(super) async fn matches(bench: Bench<'_>) -> Verdict {
    let key = bench.key("matches")?;
    let first = bench.put(&key, b"first", Condition::None).await?;
    let second = bench
        .put(&key, b"second", Condition::Matches(first.clone()))
        .await?;
    bench.is_there(&key, b"second").await?;
    let late = bench.put(&key, b"late", Condition::Matches(first)).await;
    held_back("a put that wants an old version", late)?;
    bench.is_there(&key, b"second").await?;
    bench.store.delete(std::slice::from_ref(&key)).await?;
    let gone = bench.put(&key, b"gone", Condition::Matches(second)).await;
    held_back("a put that wants a version where nothing is", gone)?;
    same("what such a put left", &None, &bench.get(&key).await?)
}

pub(super) async fn versions(bench: Bench<'_>) -> Verdict {
    let key = bench.key("versions")?;
    let mut version = bench.put(&key, b"0", Condition::Absent).await?;
    for (turn, want) in [Want::Whole { max: 9 }, Want::First(0), Want::First(9)]
        .into_iter()
        .enumerate()
    {
        let got = bench.store.get(&key, want).await?.map(|blob| blob.version);
        same(
            &format!("the version with {want:?}"),
            &Some(version.clone()),
            &got,
        )?;
        let next = format!("{}", turn + 1);
        version = bench
            .put(&key, next.as_bytes(), Condition::Matches(version))
            .await?;
    }
    Ok(())
}

pub(super) async fn absent_race(bench: Bench<'_>) -> Verdict {
    for round in 0..4 {
        let key = bench.key(&format!("absent-race/{round}"))?;
        let contents: Vec<String> = (0..bench.options.racers)
            .map(|racer| racer.to_string())
            .collect();
        let racers = contents.iter().map(|bytes| {
            let key = key.clone();
            Box::pin(async move { first_to_put(bench, &key, bytes.as_bytes()).await })
                as Racer<'_, bool>
        });
        let mut winners = Vec::new();
        for (bytes, won) in contents.iter().zip(together(racers.collect()).await) {
            if won? {
                winners.push(bytes);
            }
        }
        let [winner] = winners[..] else {
            return Err(wrong("puts that succeeded", "one", &winners));
        };
        bench.is_there(&key, winner.as_bytes()).await?;
    }
    Ok(())
}

/// Puts unless something is there; tries again while another put is under way.
async fn first_to_put(bench: Bench<'_>, key: &Key, bytes: &[u8]) -> Result<bool, Broken> {
    loop {
        match bench.put(key, bytes, Condition::Absent).await {
            Ok(_) => return Ok(true),
            Err(StoreError::Precondition) => return Ok(false),
            // Nothing was done. Some other put was, so this comes to an end.
            Err(StoreError::Conflict) => {}
            Err(other) => return Err(other.into()),
        }
    }
}

pub(super) async fn counter_race(bench: Bench<'_>) -> Verdict {
    const TURNS: usize = 4;
    let key = bench.key("counter")?;
    bench.put(&key, b"0", Condition::Absent).await?;
    let racers = (0..bench.options.racers).map(|_| {
        let key = key.clone();
        Box::pin(async move {
            for _ in 0..TURNS {
                count(bench, &key).await?;
            }
            Ok(())
        }) as Racer<'_, ()>
    });
    for counted in together(racers.collect()).await {
        counted?;
    }
    let total = (bench.options.racers * TURNS).to_string();
    bench.is_there(&key, total.as_bytes()).await
}

/// Adds one to a number, however often somebody else was first.
async fn count(bench: Bench<'_>, key: &Key) -> Verdict {
    loop {
        let Some(blob) = bench.store.get(key, Want::Whole { max: 20 }).await? else {
            return Err(wrong("a counter", "one", &"none"));
        };
        let number: Option<u64> = std::str::from_utf8(&blob.bytes)
            .ok()
            .and_then(|text| text.parse().ok());
        let Some(number) = number else {
            return Err(wrong("a counter", "a number", &blob.bytes));
        };
        let next = (number + 1).to_string();
        match bench
            .put(key, next.as_bytes(), Condition::Matches(blob.version))
            .await
        {
            Ok(_) => return Ok(()),
            Err(StoreError::Precondition | StoreError::Conflict) => {}
            Err(other) => return Err(other.into()),
        }
    }
}
