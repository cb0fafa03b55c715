//! The suite against an S3 server in this process, with and without its conditions and its ETags.

mod common;

use cabinet_durability::store::suite::SuiteOptions;
use cabinet_durability::store::{
    BlobStore, Condition, Conditional, SingleWriter, StoreError, Want, probe,
};

use common::server::Server;
use common::{key, options, passes, store};

/// s3s-fs keeps objects as files: `a` is not beside `a/b`, and the Base64 of a key is part of a
/// file's name.
fn limits() -> SuiteOptions {
    let mut options = SuiteOptions::default();
    options.nested = false;
    options.key_bytes_max = 140;
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_promises() {
    let server = Server::start().await;
    let report = passes(&store(options(server.address)), &limits()).await;
    assert_eq!(report.skipped.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_bucket_keeps_the_promises_and_leaves_the_rest_alone() {
    let server = Server::start().await;
    let all = store(options(server.address));
    let mut options = options(server.address);
    options.prefix = Some(key("cabinet/eu"));
    let part = store(options);
    for name in ["before", "cabinet/eu-other", "cabinet/z"] {
        let put = all.put(&key(name), "x".into(), Condition::None).await;
        put.expect("the put");
    }
    let page = part.list("", None, 10).await.expect("a page");
    assert!(page.entries.is_empty() && page.foreign == 0, "{page:?}");
    passes(&part, &limits()).await;
    let put = part.put(&key("one"), "x".into(), Condition::Absent).await;
    put.expect("the put");
    let page = all.list("cabinet/eu/", None, 10).await.expect("a page");
    assert_eq!(page.entries[0].key, key("cabinet/eu/one"));
    assert_eq!(
        all.list("", None, 10).await.expect("a page").entries.len(),
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_conditions_is_found_out_and_a_single_writer_stands_in() {
    let server = Server::start().await;
    let bucket = store(options(server.address));
    let found = probe(&bucket, &key("probe"), [1; 16]).await;
    assert_eq!(found.expect("an answer"), Conditional::Honoured);
    server.ignore_conditions();
    let found = probe(&bucket, &key("probe"), [2; 16]).await;
    assert_eq!(found.expect("an answer"), Conditional::Ignored);
    assert!(
        bucket
            .list("", None, 1)
            .await
            .expect("a page")
            .entries
            .is_empty()
    );
    passes(&SingleWriter::new(bucket), &limits()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tags_has_versions_all_the_same() {
    let server = Server::start().await;
    server.give_no_tags();
    server.ignore_conditions();
    let bucket = store(options(server.address));
    let found = probe(&bucket, &key("probe"), [1; 16]).await;
    assert_eq!(found.expect("an answer"), Conditional::Ignored);
    let version = bucket.put(&key("a"), "x".into(), Condition::None).await;
    let version = version.expect("the put");
    let put = bucket
        .put(&key("a"), "y".into(), Condition::Matches(version))
        .await;
    assert!(matches!(put, Err(StoreError::Unsupported)));
    passes(&SingleWriter::new(bucket), &limits()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_to_change_is_refused_with_a_hint() {
    let server = Server::start().await;
    let mut bucket = options(server.address);
    bucket.bucket = "nobodys".into();
    let mut stranger = options(server.address);
    stranger.credentials = cabinet_durability::store::S3Credentials::new("access", "wrong");
    for (options, hint) in [(bucket, "make the bucket"), (stranger, "credentials")] {
        match store(options).list("", None, 1).await {
            Err(StoreError::Refused(cause)) => {
                let cause = cause.to_string();
                assert!(
                    cause.contains(hint) && cause.ends_with("attempts=1"),
                    "{cause}"
                );
            }
            other => panic!("{hint}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_seal_are_not_for_buckets() {
    let server = Server::start().await;
    let bucket = store(options(server.address));
    assert!(!bucket.allows_unsealed());
    let missing = bucket.get(&key("a"), Want::First(1)).await;
    assert_eq!(missing.expect("it reads"), None);
}
