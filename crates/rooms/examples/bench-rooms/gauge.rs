//! What the benches measure with: histograms without locks, the process's CPU time and memory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cabinet_host::CallReport;
use cabinet_rooms::{Export, GameLabel, Recorder};

use super::Error;

const BUCKETS: usize = 40 * 16;

/// Times, in buckets a sixteenth of a power of two wide.
pub struct Histogram {
    buckets: Vec<AtomicU64>,
    most: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            most: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(16);
        let power = nanos.ilog2();
        let part = (nanos >> (power - 4)) & 15;
        let bucket = ((power - 4) * 16 + part as u32) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.most.fetch_max(nanos, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    pub fn most(&self) -> Duration {
        Duration::from_nanos(self.most.load(Ordering::Relaxed))
    }

    /// The upper end of the bucket that holds this part of the times.
    pub fn quantile(&self, part: f64) -> Duration {
        let want = (self.count() as f64 * part).ceil() as u64;
        let mut sum = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            sum += bucket.load(Ordering::Relaxed);
            if sum >= want {
                let (power, part) = (at as u32 / 16 + 4, at as u64 % 16);
                return Duration::from_nanos((17 + part) << (power - 4));
            }
        }
        self.most()
    }

    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.most.store(0, Ordering::Relaxed);
    }
}

/// Records wakes by game, the first few games each on their own.
#[derive(Default)]
pub struct Watch {
    pub late: [Histogram; 4],
    pub took: [Histogram; 4],
    pub host_time: Histogram,
    pub skipped: AtomicU64,
    pub fuel: AtomicU64,
    pub host_calls: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub faults: AtomicU64,
    pub host_faults: AtomicU64,
}

impl Watch {
    pub fn clear(&self) {
        let histograms = self.late.iter().chain(&self.took);
        for histogram in histograms.chain([&self.host_time]) {
            histogram.clear();
        }
        for sum in [
            &self.skipped,
            &self.fuel,
            &self.host_calls,
            &self.bytes_in,
            &self.bytes_out,
        ] {
            sum.store(0, Ordering::Relaxed);
        }
    }

    fn add(sum: &AtomicU64, by: u64) {
        sum.fetch_add(by, Ordering::Relaxed);
    }
}

impl Recorder for Watch {
    fn callback(&self, game: &GameLabel, export: Export, took: Duration) {
        if export == Export::Wake {
            self.took[game.index().min(3)].add(took);
        }
    }

    fn work(&self, _: &GameLabel, export: Export, report: &CallReport) {
        if export == Export::Wake {
            self.host_time.add(report.host_time);
            Self::add(&self.fuel, report.fuel);
            Self::add(&self.host_calls, report.host_calls.into());
            Self::add(&self.bytes_in, report.bytes_in);
            Self::add(&self.bytes_out, report.bytes_out);
        }
    }

    fn wake_late(&self, game: &GameLabel, late: Duration) {
        self.late[game.index().min(3)].add(late);
    }

    fn wakes_skipped(&self, game: &GameLabel, count: u64) {
        if game.index() == 0 {
            Self::add(&self.skipped, count);
        }
    }

    fn fault(&self, _: &GameLabel) {
        Self::add(&self.faults, 1);
    }

    fn host_io_deadline(&self, _: &GameLabel, _: Export) {
        Self::add(&self.host_faults, 1);
    }
}

/// CPU time of this process over a stretch of wall time.
pub struct Stretch {
    began: Instant,
    cpu: Duration,
}

impl Stretch {
    pub fn begin() -> Result<Self, Error> {
        Ok(Self {
            began: Instant::now(),
            cpu: cpu_time()?,
        })
    }

    /// CPUs busy on average.
    pub fn cpus(&self) -> Result<f64, Error> {
        let cpu = cpu_time()?.saturating_sub(self.cpu);
        Ok(cpu.as_secs_f64() / self.began.elapsed().as_secs_f64())
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

fn cpu_time() -> Result<Duration, Error> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name may hold spaces; what follows its bracket does not.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    // Hundredths of a second, user and system.
    Ok(Duration::from_millis(10 * fields.iter().sum::<u64>()))
}

/// Resident memory of this process, in bytes.
pub fn resident() -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

pub fn fixture(name: &str) -> Result<Vec<u8>, Error> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name);
    Ok(std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?)
}

pub fn reference() -> Option<PathBuf> {
    std::env::var_os("CABINET_REFERENCE").map(PathBuf::from)
}

pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

pub fn word(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}
