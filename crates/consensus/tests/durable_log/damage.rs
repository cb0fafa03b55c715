//! Bytes that are not what was written.

use std::collections::BTreeMap;

use cabinet_consensus::log::durable::sim_disk::SimDisk;
use cabinet_consensus::log::{LogError, LogStore};

use super::*;

/// A log whose last segment has two batches, and everything else.
async fn stored() -> (BTreeMap<String, Vec<u8>>, Held) {
    let disk = SimDisk::new();
    let log = open_sim(&disk).await.unwrap();
    log.save_identity(vec![5; 40].into()).await.unwrap();
    for step in [
        Step::Vote(1),
        Step::Append(6, 30, 0),
        Step::Append(1, 200, 0),
        Step::Snapshot,
        Step::Purge(3),
        Step::Append(1, 20, 1),
        Step::Append(2, 20, 0),
    ] {
        perform(&log, &step).await.unwrap();
    }
    let held = held(&log).await;
    log.close().await.unwrap();
    (disk.files(), held)
}

fn last_segment(files: &BTreeMap<String, Vec<u8>>) -> String {
    let segments: Vec<_> = files.keys().filter(|n| n.ends_with(".seg")).collect();
    assert!(segments.len() >= 2, "{segments:?}");
    segments[segments.len() - 1].clone()
}

#[test]
fn every_flipped_bit_is_refused_or_cuts_the_batch_that_was_written_last() {
    run(async {
        let (files, before) = stored().await;
        let last = last_segment(&files);
        // The last batch: two records of 33 + 20 bytes.
        let batch = files[&last].len() - 2 * 53;
        let (mut cuts, mut refusals) = (0, 0);
        for (name, bytes) in &files {
            for place in 0..bytes.len() {
                for bit in 0..8 {
                    let mut changed = files.clone();
                    changed.get_mut(name).unwrap()[place] ^= 1 << bit;
                    let story = format!("bit {bit} of byte {place} of {name}");
                    match open_sim(&SimDisk::with_files(&changed)).await {
                        Err(LogError::Corrupt { file, .. }) => {
                            assert_eq!(&file, name, "{story}");
                            refusals += 1;
                        }
                        Err(error) => panic!("{story}: {error}"),
                        Ok(log) => {
                            assert!(*name == last && place >= batch, "{story} was not seen");
                            let found = held(&log).await;
                            let kept =
                                before.records.len() - if place < batch + 53 { 2 } else { 1 };
                            assert_eq!(found.records, before.records[..kept], "{story}");
                            log.close().await.unwrap();
                            cuts += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(cuts, 8 * 2 * 53);
        let bytes: usize = files.values().map(Vec::len).sum();
        assert_eq!(refusals, 8 * (bytes - 2 * 53));
    });
}

#[test]
fn a_file_cut_anywhere_is_refused_or_has_lost_only_its_end() {
    run(async {
        let (files, before) = stored().await;
        let last = last_segment(&files);
        for (name, bytes) in &files {
            for len in 0..bytes.len() {
                let mut changed = files.clone();
                changed.get_mut(name).unwrap().truncate(len);
                match open_sim(&SimDisk::with_files(&changed)).await {
                    Err(LogError::Corrupt { .. }) => {}
                    Err(error) => panic!("{name} cut at {len}: {error}"),
                    Ok(log) => {
                        assert_eq!(*name, last, "cut at {len}");
                        let found = held(&log).await.records;
                        assert!(found.len() < before.records.len(), "cut at {len}");
                        assert_eq!(found, before.records[..found.len()]);
                        log.close().await.unwrap();
                    }
                }
            }
        }
    });
}

#[test]
fn a_segment_that_is_missing_misnamed_or_of_another_version_is_refused() {
    run(async {
        let disk = SimDisk::new();
        let log = open_sim(&disk).await.unwrap();
        for _ in 0..3 {
            perform(&log, &Step::Append(2, 100, 0)).await.unwrap();
        }
        log.close().await.unwrap();
        let files = disk.files();
        assert_eq!(files.keys().filter(|n| n.ends_with(".seg")).count(), 3);
        for gone in [0, 2] {
            let mut changed = files.clone();
            changed.remove(&format!("log-{gone:020}.seg")).unwrap();
            let refused = open_sim(&SimDisk::with_files(&changed)).await;
            assert!(matches!(refused, Err(LogError::Corrupt { .. })), "{gone}");
        }

        let name = "log-00000000000000000002.seg";
        let mut changed = files.clone();
        let newer = changed.get_mut(name).unwrap();
        newer[4] = 2;
        let crc = crc32fast::hash(&newer[..25]);
        newer[25..29].copy_from_slice(&crc.to_le_bytes());
        let refused = open_sim(&SimDisk::with_files(&changed)).await.err();
        let version = LogError::Version {
            file: name.to_owned(),
            version: 2,
            known: 1,
        };
        assert_eq!(refused, Some(version));

        // Whatever else lies there is left alone.
        let mut changed = files;
        changed.insert("somebody else's".to_owned(), Vec::new());
        let beside = SimDisk::with_files(&changed);
        open_sim(&beside).await.unwrap().close().await.unwrap();
        assert!(beside.files().contains_key("somebody else's"));
        changed.insert("log-7.seg".to_owned(), Vec::new());
        let refused = open_sim(&SimDisk::with_files(&changed)).await.err();
        assert!(matches!(refused, Some(LogError::Corrupt { file, .. }) if file == "log-7.seg"));
    });
}
