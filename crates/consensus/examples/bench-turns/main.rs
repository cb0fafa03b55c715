//! `cargo xtask bench turns`: what a turn costs beside openraft's bare `client_write` on the same
//! nodes, fabric and log, in turns and in one run.
//!
//! Prints a table with its targets and exits 1 when one is missed. See `docs/ARCHITECTURE.md`,
//! Measuring. `bench-turns work SETTING CALLER IN_FLIGHT COUNT` does so many writes on one thread and
//! measures nothing: the difference of two counts under `valgrind --tool=callgrind` is what a write
//! executes. With `flood` as the caller it is COUNT bursts of IN_FLIGHT broadcasts by each node.

use std::process::ExitCode;
use std::time::{Duration, Instant};

mod cluster;
mod load;

use cabinet_consensus::config::Timing;
use cluster::{Cluster, FLOOD_EVERY, Setting};
use load::{Caller, Run, closed_loop, counted_loop, median, quarter};

/// Why nothing could be measured.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bare and ours are measured in turns, so that whatever else the machine does meets both.
const ROUNDS: usize = 7;
const LATENCY_MS: u64 = 400;
/// A load says much in little time: more and shorter rounds, so that a pause decides less.
const LOAD_ROUNDS: usize = 21;
const LOAD_MS: u64 = 150;
/// Quiet slices, and as many flooded ones.
const SLICES: usize = 40;
const SLICE_MS: u64 = 100;
const FLOOD_ALONE: Duration = Duration::from_secs(2);
/// In flight, besides one.
const LOADS: [usize; 2] = [64, 1024];

const P50_MAX: f64 = 1.5;
const LOAD_MIN: f64 = 0.6;
const FLOOD_P99_MAX: f64 = 1.2;
/// Every message of a turn on an idle cluster of three, heartbeats apart: 4(N-1).
const IDLE_MESSAGES_MAX: u64 = 8;

const SLOW: Timing = Timing {
    election_min_ms: 2_000,
    election_max_ms: 4_000,
    heartbeat_ms: 300,
};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let (mut builder, work) = match args[..] {
        ["work", setting, caller, in_flight, count] => (
            tokio::runtime::Builder::new_current_thread(),
            Some([setting, caller, in_flight, count]),
        ),
        _ => (tokio::runtime::Builder::new_multi_thread(), None),
    };
    let runtime = builder.enable_all().build().map_err(Error::from);
    let ran = runtime.and_then(|runtime| match work {
        Some(work) => runtime.block_on(only_work(work)),
        None => runtime.block_on(bench(args.first().copied())),
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench turns: {error}");
            ExitCode::from(2)
        }
    }
}

async fn only_work([setting, caller, in_flight, count]: [&str; 4]) -> Result<bool, Error> {
    let setting = Setting::ALL.into_iter().find(|s| s.name() == setting);
    let setting = setting.ok_or("no such setting")?;
    let caller = match caller {
        "bare" => Some(Caller::Bare),
        "leader" => Some(Caller::Leader),
        "follower" => Some(Caller::Follower),
        "flood" => None,
        _ => return Err("no such caller".into()),
    };
    // A profiler may slow everything down fifty times.
    let cluster = Cluster::start(setting, SLOW).await?;
    let messages = cluster.messages();
    match caller {
        Some(caller) => counted_loop(&cluster, caller, in_flight.parse()?, count.parse()?).await?,
        None => cluster.bursts(in_flight.parse()?, count.parse()?).await?,
    }
    println!("{} messages", cluster.messages() - messages);
    cluster.close().await;
    Ok(true)
}

async fn bench(only: Option<&str>) -> Result<bool, Error> {
    let mut table = Table { met: true };
    println!("three nodes in one process; `bare` is openraft's client_write at the leader");
    for setting in Setting::ALL {
        if only.is_some_and(|only| only != setting.name()) {
            continue;
        }
        let cluster = Cluster::start(setting, Timing::default()).await?;
        table.heading(setting.title());
        one_client(&cluster, &mut table).await?;
        idle_turn(&cluster, &mut table).await?;
        for in_flight in LOADS {
            under_load(&cluster, in_flight, &mut table).await?;
        }
        if setting != Setting::Durable {
            flooded(&cluster, &mut table).await?;
        }
        cluster.close().await;
    }
    println!(
        "\n{}",
        if table.met {
            "all targets met"
        } else {
            "a target was MISSED"
        }
    );
    Ok(table.met)
}

/// Runs what is compared in turns, once unmeasured; answers each one's runs.
async fn in_turns<const N: usize>(
    cluster: &Cluster,
    callers: [Caller; N],
    in_flight: usize,
    rounds: usize,
    ms: u64,
) -> Result<[Vec<Run>; N], Error> {
    let mut runs = [(); N].map(|()| Vec::with_capacity(rounds));
    for round in 0..=rounds {
        for (caller, runs) in callers.iter().zip(&mut runs) {
            let ms = if round == 0 { ms / 4 } else { ms };
            let run = closed_loop(cluster, *caller, in_flight, Duration::from_millis(ms)).await?;
            if round > 0 {
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// The median over the rounds of what one is to the other in each.
fn ratio(ours: &[Run], bare: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    median(ours.iter().zip(bare).map(|(a, b)| of(a) / of(b)))
}

fn each(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(of))
}

async fn one_client(cluster: &Cluster, table: &mut Table) -> Result<(), Error> {
    let callers = [Caller::Bare, Caller::Leader, Caller::Follower];
    let [bare, ours, follower] = in_turns(cluster, callers, 1, ROUNDS, LATENCY_MS).await?;
    let line = |runs: &[Run]| {
        format!(
            "p50 {:>6.0} us  p99 {:>7.0} us  {:>7.0} /s",
            each(runs, |run| run.percentile_us(50)),
            each(runs, |run| run.percentile_us(99)),
            each(runs, Run::rate)
        )
    };
    table.row("1 client, bare", line(&bare));
    table.row("1 client, propose at the leader", line(&ours));
    let p50 = ratio(&ours, &bare, |run| run.percentile_us(50));
    let p99 = ratio(&ours, &bare, |run| run.percentile_us(99));
    table.judged(
        "  p50 beside bare",
        format!("{p50:.2} x (p99 {p99:.2} x)"),
        &format!("at most {P50_MAX} x"),
        p50 <= P50_MAX,
    );
    table.row("1 client, propose at a follower", line(&follower));
    let apart = ratio(&follower, &ours, |run| run.percentile_us(50));
    table.row("  p50 beside the leader's", format!("{apart:.2} x"));
    if cluster.setting == Setting::Durable {
        let syncs = each(&ours, |run| run.syncs as f64 / run.turns as f64);
        let bare = each(&bare, |run| run.syncs as f64 / run.turns as f64);
        table.row(
            "  fsyncs a turn, three nodes",
            format!("{syncs:.2} (bare {bare:.2})"),
        );
    }
    Ok(())
}

/// A turn while nothing else goes on, and all it causes before the next heartbeat.
async fn idle_turn(cluster: &Cluster, table: &mut Table) -> Result<(), Error> {
    for (what, caller, max) in [
        (
            "messages of an idle turn, at the leader",
            Caller::Leader,
            Some(IDLE_MESSAGES_MAX),
        ),
        (
            "messages of an idle turn, at a follower",
            Caller::Follower,
            None,
        ),
    ] {
        let mut counts = Vec::new();
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(15)).await;
            let before = cluster.messages();
            cluster.call(caller).await?;
            tokio::time::sleep(Duration::from_millis(15)).await;
            counts.push(cluster.messages() - before);
        }
        // A heartbeat falls into some of them.
        counts.sort_unstable();
        let count = counts[counts.len() / 2];
        match max {
            Some(max) => {
                table.judged(
                    what,
                    count,
                    &format!("at most 4(N-1) = {max}"),
                    count <= max,
                );
            }
            None => table.row(what, count),
        }
    }
    Ok(())
}

async fn under_load(cluster: &Cluster, in_flight: usize, table: &mut Table) -> Result<(), Error> {
    let callers = [Caller::Bare, Caller::Leader, Caller::Follower];
    let [bare, ours, follower] =
        in_turns(cluster, callers, in_flight, LOAD_ROUNDS, LOAD_MS).await?;
    let line = |runs: &[Run]| {
        let per_turn = |of: fn(&Run) -> u64| each(runs, |run| of(run) as f64 / run.turns as f64);
        let mut line = format!(
            "{:>7.0} /s  {:>5.2} messages",
            each(runs, Run::rate),
            per_turn(|run| run.messages)
        );
        if cluster.setting == Setting::Durable {
            line += &format!("  {:>5.3} fsyncs", per_turn(|run| run.syncs));
        }
        line + " a turn"
    };
    table.row(&format!("{in_flight} in flight, bare"), line(&bare));
    let what = format!("{in_flight} in flight, propose at the leader");
    table.row(&what, line(&ours));
    let beside = ratio(&ours, &bare, Run::rate);
    let measured = format!("{:.0} %", beside * 100.0);
    if in_flight == LOADS[1] {
        let target = format!("at least {:.0} %", LOAD_MIN * 100.0);
        table.judged("  beside bare", measured, &target, beside >= LOAD_MIN);
        let messages = each(&ours, |run| run.messages as f64 / run.turns as f64);
        table.judged(
            "  messages a turn",
            format!("{messages:.2}"),
            "below 1",
            messages < 1.0,
        );
        if cluster.setting == Setting::Durable {
            let syncs = each(&ours, |run| run.syncs as f64 / run.turns as f64);
            table.judged(
                "  fsyncs a turn, three nodes",
                format!("{syncs:.3}"),
                "below 1",
                syncs < 1.0,
            );
        }
    } else {
        table.row("  beside bare", measured);
    }
    let what = format!("{in_flight} in flight, propose at a follower");
    table.row(&what, line(&follower));
    Ok(())
}

/// An app channel that everybody floods and nobody reads, in many short slices, each beside a quiet
/// one: a pause of the machine falls into one slice, and a slice counts once.
async fn flooded(cluster: &Cluster, table: &mut Table) -> Result<(), Error> {
    let slice = || closed_loop(cluster, Caller::Leader, 1, Duration::from_millis(SLICE_MS));
    // What it takes of the two or more cores that three nodes share here.
    let while_quiet = cpu_of(FLOOD_ALONE).await?;
    let flood = cluster.flood().await?;
    let alone = (cpu_of(FLOOD_ALONE).await? - while_quiet).max(0.0);
    flood.stop().await;
    let burst = alone * FLOOD_EVERY.as_secs_f64() * 1e6 / 3.0;
    table.row(
        "the flood alone",
        format!("{:.0} % of a core, {burst:.0} us a burst", alone * 100.0),
    );
    let mut quiet = Vec::new();
    let mut loud = Vec::new();
    for round in 0..=SLICES {
        for flooded in [round % 2 == 0, round % 2 == 1] {
            let run = if flooded {
                let flood = cluster.flood().await?;
                let run = slice().await?;
                flood.stop().await;
                run
            } else {
                slice().await?
            };
            if round > 0 {
                let runs = if flooded { &mut loud } else { &mut quiet };
                runs.push(run);
            }
        }
    }
    let p50 = |run: &Run| run.percentile_us(50);
    let p99 = |run: &Run| run.percentile_us(99);
    let row = |quiet: f64, loud: f64| format!("{quiet:.0} us, {loud:.0} us");
    let p50 = row(each(&quiet, p50), each(&loud, p50));
    table.row("1 client, p50 quiet, then flooded", p50);
    // Where others use the machine too, the best quarter says most of what is ours.
    let best = |runs: &[Run]| quarter(runs.iter().map(p99));
    let (best_quiet, best_loud) = (best(&quiet), best(&loud));
    table.row(
        "  p99, the best quarter of slices",
        format!(
            "{} ({:.2} x)",
            row(best_quiet, best_loud),
            best_loud / best_quiet
        ),
    );
    let (quiet, loud) = (each(&quiet, p99), each(&loud, p99));
    table.row("  p99, the median slice", row(quiet, loud));
    let beside = loud / quiet;
    table.judged(
        "  p99 flooded beside quiet",
        format!("{beside:.2} x"),
        &format!("at most {FLOOD_P99_MAX} x"),
        beside <= FLOOD_P99_MAX,
    );
    Ok(())
}

/// How much of a core this process kept busy for so long.
async fn cpu_of(time: Duration) -> Result<f64, Error> {
    let (began, before) = (Instant::now(), cpu_time()?);
    tokio::time::sleep(time).await;
    Ok((cpu_time()? - before) / began.elapsed().as_secs_f64())
}

/// Seconds this process has computed, to a hundredth.
fn cpu_time() -> Result<f64, Error> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The fields after the name, which is in parentheses: the 12th and 13th are ticks.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}

/// What was measured, printed as it comes.
struct Table {
    met: bool,
}

impl Table {
    fn heading(&self, text: &str) {
        println!("\n{text}");
    }

    fn row(&self, what: &str, measured: impl std::fmt::Display) {
        println!("  {what:<44} {measured}");
    }

    /// A row with a target.
    fn judged(&mut self, what: &str, measured: impl std::fmt::Display, target: &str, met: bool) {
        self.met &= met;
        let verdict = if met { "met" } else { "MISSED" };
        println!("  {what:<44} {measured}   ({target}: {verdict})");
    }
}
