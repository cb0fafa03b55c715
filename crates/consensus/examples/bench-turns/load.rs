//! Closed loops of callers, and what they saw.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Error;
use crate::cluster::Cluster;

/// Who writes, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// openraft's own write, at the leader.
    Bare,
    /// A turn proposed at the leader.
    Leader,
    /// A turn proposed at a follower.
    Follower,
}

/// What a while of writing was.
pub struct Run {
    pub turns: u64,
    pub took: Duration,
    /// Messages delivered on the Raft lane meanwhile, heartbeats among them.
    pub messages: u64,
    /// Syncs of all logs meanwhile.
    pub syncs: u64,
    /// Each write's time in nanoseconds, in order of size.
    nanos: Vec<u64>,
}

impl Run {
    pub fn rate(&self) -> f64 {
        self.turns as f64 / self.took.as_secs_f64()
    }

    pub fn percentile_us(&self, percent: usize) -> f64 {
        let at = (self.nanos.len() * percent / 100).min(self.nanos.len() - 1);
        self.nanos[at] as f64 / 1e3
    }
}

/// The middle one; NaN of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    ranked(values, 2)
}

/// The one that a quarter is at most.
pub fn quarter(values: impl Iterator<Item = f64>) -> f64 {
    ranked(values, 4)
}

fn ranked(values: impl Iterator<Item = f64>, part: usize) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / part).copied().unwrap_or(f64::NAN)
}

/// `in_flight` callers, each of which writes again as soon as it was answered.
pub async fn closed_loop(
    cluster: &Cluster,
    caller: Caller,
    in_flight: usize,
    time: Duration,
) -> Result<Run, Error> {
    let (messages, syncs) = (cluster.messages(), cluster.syncs());
    let began = Instant::now();
    let until = began + time;
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let writer = cluster.writer(caller);
        callers.spawn(async move {
            let mut nanos = Vec::with_capacity(1024);
            loop {
                let asked = Instant::now();
                if asked >= until {
                    return Ok::<_, Error>(nanos);
                }
                writer.write().await?;
                nanos.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        });
    }
    let mut nanos = Vec::new();
    while let Some(done) = callers.join_next().await {
        nanos.extend(done??);
    }
    let took = began.elapsed();
    nanos.sort_unstable();
    if nanos.is_empty() {
        return Err(format!("{caller:?}: not one write in {time:?}").into());
    }
    Ok(Run {
        turns: nanos.len() as u64,
        took,
        messages: cluster.messages() - messages,
        syncs: cluster.syncs() - syncs,
        nanos,
    })
}

/// `in_flight` callers that write `count` times between them.
pub async fn counted_loop(
    cluster: &Cluster,
    caller: Caller,
    in_flight: usize,
    count: usize,
) -> Result<(), Error> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let (writer, left) = (cluster.writer(caller), left.clone());
        callers.spawn(async move {
            let take = |left: usize| left.checked_sub(1);
            while left.fetch_update(Relaxed, Relaxed, take).is_ok() {
                writer.write().await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok(())
}
