//! The committed corpora, through what the fuzzer calls: what it once found stays found.

use std::path::Path;

use cabinet_durability::fuzzing;

/// Runs every file of a target's corpus.
fn run(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("it lists").path())
        .collect();
    assert!(
        files.len() >= 6,
        "{target}: a corpus of {} files",
        files.len()
    );
    for file in files {
        let bytes = std::fs::read(&file).expect("it reads");
        println!("{}", file.display());
        body(&bytes);
    }
}

#[test]
fn every_record_of_the_corpus_is_taken_or_refused() {
    run("record", fuzzing::record);
}

#[test]
fn every_head_of_the_corpus_is_taken_or_refused() {
    run("head", fuzzing::head);
}

#[test]
fn every_claim_of_the_corpus_is_taken_or_refused() {
    run("claim", fuzzing::claim);
}

#[test]
fn every_name_of_the_corpus_is_taken_or_refused() {
    run("room_object_name", fuzzing::room_object_name);
}

#[test]
fn every_reference_record_of_the_corpus_is_taken_or_refused() {
    run("reference_record", fuzzing::reference_record);
}

#[test]
fn every_reference_pointer_of_the_corpus_is_taken_or_refused() {
    run("reference_pointer", fuzzing::reference_pointer);
}
