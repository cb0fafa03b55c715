//! `cargo xtask bench durability`: what it costs that rooms outlive their process.
//!
//! Prints a table with its targets and exits 1 when one is missed. See `docs/ARCHITECTURE.md`,
//! Measuring.

use std::process::ExitCode;

mod guest;
mod many;
mod one;
mod server;

/// Why nothing could be measured.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ran = runtime.map_err(Error::from).and_then(|runtime| {
        runtime.block_on(async {
            let mut table = Table::default();
            let only = std::env::args().nth(1);
            let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
            if wanted("pause") {
                one::pause(&mut table)?;
            }
            if wanted("checkpoints") {
                one::checkpoints(&mut table).await?;
            }
            if wanted("restore") {
                one::restore(&mut table).await?;
            }
            if wanted("park") {
                one::park_to_first_frame(&mut table).await?;
            }
            if wanted("drain") {
                many::drain(&mut table).await?;
            }
            if wanted("list") {
                many::list(&mut table).await?;
            }
            Ok(table.met)
        })
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench durability: {error}");
            ExitCode::from(2)
        }
    }
}

/// What was measured, printed as it comes.
struct Table {
    met: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self { met: true }
    }
}

impl Table {
    fn heading(&self, text: &str) {
        println!("\n{text}");
    }

    fn row(&self, what: &str, measured: impl std::fmt::Display) {
        println!("  {what:<52} {measured}");
    }

    /// A row with a target.
    fn judged(&mut self, what: &str, measured: impl std::fmt::Display, target: &str, met: bool) {
        self.met &= met;
        let verdict = if met { "" } else { "  MISSED" };
        println!("  {what:<52} {measured}   {target}{verdict}");
    }
}

/// CPU time the threads of this process have had that are there still, milliseconds: the
/// scheduler's own count, in nanoseconds, where `stat` counts in hundredths of a second.
fn cpu_ms() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let nanos: f64 = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum();
    nanos / 1e6
}
