//! Whole objects: put, got, replaced, deleted.

use bytes::Bytes;

use super::{Bench, Broken, Verdict, same, wrong};
use crate::store::{Condition, DELETE_KEYS_MAX, Key, StoreError, Want};

pub(super) async fn replaced(bench: Bench<'_>) -> Verdict {
    let key = bench.key("replaced")?;
    let first = bench.put(&key, b"first", Condition::None).await?;
    bench.is_there(&key, b"first").await?;
    let second = bench.put(&key, b"second, longer", Condition::None).await?;
    bench.is_there(&key, b"second, longer").await?;
    if first == second {
        return Err(wrong("versions of other bytes", "others", &(first, second)));
    }
    bench.put(&key, b"3", Condition::None).await?;
    bench.is_there(&key, b"3").await
}

pub(super) async fn missing(bench: Bench<'_>) -> Verdict {
    for name in ["missing", "missing/deep/er"] {
        let key = bench.key(name)?;
        for want in [
            Want::Whole { max: 1 },
            Want::Whole { max: 0 },
            Want::First(1),
        ] {
            let found = bench.store.get(&key, want).await?;
            same(&format!("{name} with {want:?}"), &None, &found)?;
        }
    }
    Ok(())
}

pub(super) async fn empty(bench: Bench<'_>) -> Verdict {
    let key = bench.key("empty")?;
    let version = bench.put(&key, b"", Condition::None).await?;
    for want in [
        Want::Whole { max: 0 },
        Want::Whole { max: 9 },
        Want::First(0),
        Want::First(9),
    ] {
        let found = bench.store.get(&key, want).await?;
        let Some(found) = found else {
            return Err(wrong("an empty object", "one", &found));
        };
        let expected = (Bytes::new(), 0, version.clone());
        let found = (found.bytes, found.total, found.version);
        same(&format!("an empty object with {want:?}"), &expected, &found)?;
    }
    Ok(())
}

pub(super) async fn first_bytes(bench: Bench<'_>) -> Verdict {
    let key = bench.key("first")?;
    let object = b"0123456789";
    let version = bench.put(&key, object, Condition::None).await?;
    for most in [0, 1, 9, 10, 11, u64::MAX] {
        let found = bench.store.get(&key, Want::First(most)).await?;
        let Some(found) = found else {
            return Err(wrong("an object", "one", &found));
        };
        let kept = &object[..most.min(10) as usize];
        let expected = (Bytes::copy_from_slice(kept), 10, version.clone());
        let found = (found.bytes, found.total, found.version);
        same(&format!("the first {most} bytes"), &expected, &found)?;
    }
    Ok(())
}

pub(super) async fn limits(bench: Bench<'_>) -> Verdict {
    let key = bench.key("limits")?;
    bench.put(&key, b"0123456789", Condition::None).await?;
    for max in [10, 11, u64::MAX] {
        let found = bench.store.get(&key, Want::Whole { max }).await?;
        let length = found.map(|blob| (blob.bytes.len(), blob.total));
        same(&format!("ten bytes of {max}"), &Some((10, 10)), &length)?;
    }
    for max in [9, 0] {
        match bench.store.get(&key, Want::Whole { max }).await {
            Err(StoreError::TooLarge {
                bytes: 10,
                max: said,
            }) if said == max => {}
            other => {
                return Err(wrong(
                    "ten bytes where less is allowed",
                    "too large",
                    &other,
                ));
            }
        }
    }
    Ok(())
}

pub(super) async fn large(bench: Bench<'_>) -> Verdict {
    let key = bench.key("large")?;
    // A period that divides no block size, so that a block out of place shows.
    let object: Vec<u8> = (0..bench.options.large_bytes)
        .map(|index| (index % 251) as u8)
        .collect();
    bench.put(&key, &object, Condition::None).await?;
    let found = bench.get(&key).await?;
    let found = found.is_some_and(|found| found == object);
    same("whether a large object came back", &true, &found)?;
    bench.store.delete(&[key]).await?;
    Ok(())
}

pub(super) async fn longest_key(bench: Bench<'_>) -> Verdict {
    let options = bench.options;
    let mut name = bench.text("");
    let mut segment = 0;
    while name.len() < options.key_bytes_max {
        // Neither the first of a segment nor the last of the key.
        let full = segment == options.segment_bytes_max && name.len() + 1 < options.key_bytes_max;
        segment = if full { 0 } else { segment + 1 };
        name.push(if full { '/' } else { 'k' });
    }
    let key = Key::new(name).map_err(|error| Broken::Error(StoreError::Refused(error.into())))?;
    bench.put(&key, b"far", Condition::None).await?;
    bench.is_there(&key, b"far").await?;
    let page = bench.store.list(key.as_str(), None, 2).await?;
    let found: Vec<Key> = page.entries.into_iter().map(|entry| entry.key).collect();
    same("the longest key listed", &vec![key.clone()], &found)?;
    bench.store.delete(std::slice::from_ref(&key)).await?;
    same("the longest key deleted", &None, &bench.get(&key).await?)
}

pub(super) async fn characters(bench: Bench<'_>) -> Verdict {
    let names = [
        "a",
        "0",
        "-",
        "_",
        "a.",
        "a..",
        "abcdefghijklmnopqrstuvwxyz0123456789._-",
    ];
    for name in names {
        let key = bench.key(&format!("characters/{name}"))?;
        bench.put(&key, name.as_bytes(), Condition::None).await?;
    }
    for name in names {
        let key = bench.key(&format!("characters/{name}"))?;
        bench.is_there(&key, name.as_bytes()).await?;
    }
    Ok(())
}

pub(super) async fn deleted(bench: Bench<'_>) -> Verdict {
    let keys = ["deleted/a", "deleted/b", "deleted/c"].map(|name| bench.key(name));
    let [a, b, c] = keys;
    let (a, b, c) = (a?, b?, c?);
    for key in [&a, &b] {
        bench.put(key, b"x", Condition::None).await?;
    }
    bench.store.delete(&[]).await?;
    bench.is_there(&a, b"x").await?;
    bench.store.delete(std::slice::from_ref(&c)).await?;
    bench.store.delete(std::slice::from_ref(&a)).await?;
    same("a deleted object", &None, &bench.get(&a).await?)?;
    bench.is_there(&b, b"x").await?;
    bench.store.delete(&[a.clone(), b.clone(), c]).await?;
    same("a deleted object", &None, &bench.get(&b).await?)?;
    bench.put(&a, b"again", Condition::None).await?;
    bench.is_there(&a, b"again").await
}

pub(super) async fn delete_limits(bench: Bench<'_>) -> Verdict {
    let kept = bench.key("many/kept")?;
    bench.put(&kept, b"x", Condition::None).await?;
    let mut keys = vec![kept.clone()];
    for index in 0..DELETE_KEYS_MAX {
        keys.push(bench.key(&format!("many/{index}"))?);
    }
    match bench.store.delete(&keys).await {
        Err(StoreError::TooMany { found }) if found == keys.len() => {}
        other => return Err(wrong("one key too many", "too many", &other)),
    }
    bench.is_there(&kept, b"x").await?;
    bench.store.delete(&keys[..DELETE_KEYS_MAX]).await?;
    same(
        "one of as many as are allowed",
        &None,
        &bench.get(&kept).await?,
    )
}

pub(super) async fn nested(bench: Bench<'_>) -> Verdict {
    let names = ["nested", "nested/b", "nested/b/c"];
    for name in names {
        bench
            .put(&bench.key(name)?, name.as_bytes(), Condition::None)
            .await?;
    }
    for name in names {
        bench.is_there(&bench.key(name)?, name.as_bytes()).await?;
    }
    bench.store.delete(&[bench.key("nested")?]).await?;
    bench.is_there(&bench.key("nested/b")?, b"nested/b").await?;
    bench.store.delete(&[bench.key("nested/b/c")?]).await?;
    bench
        .put(&bench.key("nested")?, b"again", Condition::None)
        .await?;
    bench.is_there(&bench.key("nested/b")?, b"nested/b").await
}
