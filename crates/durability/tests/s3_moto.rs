//! The suite against moto, an S3 server that other people wrote, in a process of its own.
//! Where there is none the test says so and passes.

mod common;

use cabinet_durability::store::suite::SuiteOptions;
use cabinet_durability::store::{Conditional, SingleWriter, probe};

use common::moto::Moto;
use common::{key, options, passes, say, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_moto_keeps_the_promises() {
    let Some(moto) = Moto::start() else {
        return;
    };
    let bucket = store(options(moto.address));
    let honoured = probe(&bucket, &key("probe"), [1; 16])
        .await
        .expect("an answer");
    say(&format!("moto's conditions: {honoured:?}"));
    let mut limits = SuiteOptions::default();
    limits.conditional_writes = honoured == Conditional::Honoured;
    // Its server is threaded, and checks and writes in two steps.
    limits.races = false;
    passes(&bucket, &limits).await;
    let alone = SingleWriter::new(bucket);
    let report = passes(&alone, &SuiteOptions::default()).await;
    assert!(report.skipped.is_empty());
}
