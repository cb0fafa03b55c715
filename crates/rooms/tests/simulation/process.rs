//! What the process holds, as the kernel counts it.

use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub descriptors: usize,
    pub mappings: usize,
    pub resident_bytes: u64,
}

impl Held {
    pub fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let resident: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.parse().ok())
            .unwrap();
        Self {
            descriptors,
            mappings: maps.lines().count(),
            resident_bytes: resident * 1_024,
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors, {} mappings, {} MiB resident",
            self.descriptors,
            self.mappings,
            self.resident_bytes >> 20
        )
    }
}
