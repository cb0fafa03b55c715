//! Whose fault a kill was.
//!
//! A guest that spins is to blame for its deadline. A guest that the machine did not run is not:
//! it is excused, but only on proof that it got less than half of its window. CPU time that was
//! stolen from the machine proves nothing by having advanced: on a crowded host it always does.

use std::fmt;
use std::time::Duration;

use cabinet_host::Fault;

/// What is known of the window in which a callback ran into its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// CPU time of the thread that ran the guest, within the window; `None` where the system
    /// does not tell.
    pub cpu: Option<Duration>,
    /// CPU time the hypervisor gave to other machines within the window, summed over all
    /// `cores`; `None` where the system does not tell.
    pub stolen: Option<Duration>,
    /// CPUs that `stolen` is summed over. 0 if that is not known: stolen time then proves
    /// nothing.
    pub cores: u32,
}

impl Evidence {
    /// What the host measured of a deadline kill on a machine with so many CPUs; nothing of any
    /// other fault.
    #[must_use]
    pub fn of(fault: &Fault, cores: u32) -> Self {
        match *fault {
            Fault::Deadline { stolen, cpu, .. } => Self { cpu, stolen, cores },
            _ => Self::default(),
        }
    }
}

/// Who killed a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The guest did. Counts towards quarantine.
    Guest,
    /// Its deadline passed, but the machine did not give it half of its window. Excused.
    Starved,
    /// The host did, or a store. Excused.
    Host,
}

impl Blame {
    /// Who is to blame for `fault`. The evidence matters to a deadline kill only.
    #[must_use]
    pub fn of(fault: &Fault, evidence: &Evidence) -> Self {
        match fault {
            Fault::Deadline { deadline, .. } => judge_deadline(*deadline, evidence),
            fault if fault.is_guests() => Self::Guest,
            _ => Self::Host,
        }
    }

    /// Whether the fault counts against the game.
    #[must_use]
    pub fn counts(self) -> bool {
        self == Self::Guest
    }

    /// A stable name: `guest`, `starved` or `host`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Starved => "starved",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Judges a callback that was killed when its `window` had passed: [`Blame::Starved`] if it is
/// proven that the guest got less than half of it, else [`Blame::Guest`].
///
/// Either of two proofs will do:
/// - the guest's own CPU time is known, and less than half of the window;
/// - so much was stolen that more than half of the window was lost to the guest even if every
///   other core was stolen from all the while: `stolen - (cores - 1) * window > window / 2`.
///
/// The second counts even when the CPU time says otherwise. On a virtual machine without
/// paravirtual time accounting a thread is charged for time in which its core did not run, so a
/// long CPU time is no proof that the guest had it; a short one is proof that it had not. A guest
/// that got exactly half was not starved.
///
/// ```
/// use std::time::Duration;
/// use cabinet_rooms::{Blame, Evidence, judge_deadline};
///
/// let ms = Duration::from_millis;
/// let spinner = Evidence { cpu: Some(ms(98)), stolen: Some(ms(90)), cores: 2 };
/// assert_eq!(judge_deadline(ms(100), &spinner), Blame::Guest);
/// let starved = Evidence { cpu: Some(ms(12)), stolen: None, cores: 2 };
/// assert_eq!(judge_deadline(ms(100), &starved), Blame::Starved);
/// ```
#[must_use]
pub fn judge_deadline(window: Duration, evidence: &Evidence) -> Blame {
    let half_unused = evidence
        .cpu
        .is_some_and(|cpu| twice(cpu) < window.as_nanos());
    let half_lost = evidence.stolen.is_some_and(|stolen| {
        twice(lost_for_sure(window, stolen, evidence.cores)) > window.as_nanos()
    });
    if half_unused || half_lost {
        Blame::Starved
    } else {
        Blame::Guest
    }
}

/// The part of the window that the guest's core cannot have run, wherever the rest was stolen.
fn lost_for_sure(window: Duration, stolen: Duration, cores: u32) -> Duration {
    let Some(others) = cores.checked_sub(1) else {
        return Duration::ZERO;
    };
    stolen
        .saturating_sub(window.saturating_mul(others))
        .min(window)
}

/// Exact, where halving would round.
fn twice(time: Duration) -> u128 {
    2 * time.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cabinet_host::{Trap, TrapKind};
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_millis(100);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn judged(cpu: Option<u64>, stolen: Option<u64>, cores: u32) -> Blame {
        let evidence = Evidence {
            cpu: cpu.map(ms),
            stolen: stolen.map(ms),
            cores,
        };
        judge_deadline(WINDOW, &evidence)
    }

    #[test]
    fn a_matrix_of_cpu_and_stolen_time_shows_who_is_blamed() {
        use Blame::{Guest, Starved};
        let cpu = [None, Some(0), Some(49), Some(50), Some(51), Some(100)];
        // Columns: stolen unknown, 0, 50, 51, 100, 150, 151, 200 ms of a window of 100 ms.
        let stolen = [
            None,
            Some(0),
            Some(50),
            Some(51),
            Some(100),
            Some(150),
            Some(151),
            Some(200),
        ];
        // What stolen time alone says; more cores can absorb more.
        let by_stolen = [
            (0, [Guest, Guest, Guest, Guest, Guest, Guest, Guest, Guest]),
            (
                1,
                [
                    Guest, Guest, Guest, Starved, Starved, Starved, Starved, Starved,
                ],
            ),
            (
                2,
                [Guest, Guest, Guest, Guest, Guest, Guest, Starved, Starved],
            ),
            (4, [Guest, Guest, Guest, Guest, Guest, Guest, Guest, Guest]),
        ];
        // What CPU time alone says, in the order of `cpu`.
        let by_cpu = [Guest, Starved, Starved, Guest, Guest, Guest];
        for (cores, row) in by_stolen {
            for (stolen, says) in stolen.into_iter().zip(row) {
                for (cpu, cpu_says) in cpu.into_iter().zip(by_cpu) {
                    let expected = if says == Starved || cpu_says == Starved {
                        Starved
                    } else {
                        Guest
                    };
                    assert_eq!(
                        judged(cpu, stolen, cores),
                        expected,
                        "cpu {cpu:?}, stolen {stolen:?}, {cores} cores"
                    );
                }
            }
        }
    }

    #[test]
    fn the_bounds_are_exact_to_the_nanosecond() {
        let nano = Duration::from_nanos(1);
        let window = Duration::from_nanos(101);
        let with_cpu = |cpu| Evidence {
            cpu: Some(cpu),
            ..Evidence::default()
        };
        assert_eq!(judge_deadline(window, &with_cpu(nano * 50)), Blame::Starved);
        assert_eq!(judge_deadline(window, &with_cpu(nano * 51)), Blame::Guest);
        let with_stolen = |stolen| Evidence {
            cpu: None,
            stolen: Some(stolen),
            cores: 3,
        };
        let others = window * 2;
        assert_eq!(
            judge_deadline(window, &with_stolen(others + nano * 50)),
            Blame::Guest
        );
        assert_eq!(
            judge_deadline(window, &with_stolen(others + nano * 51)),
            Blame::Starved
        );
    }

    #[test]
    fn times_at_the_end_of_their_range_do_not_overflow() {
        let all = Evidence {
            cpu: Some(Duration::MAX),
            stolen: Some(Duration::MAX),
            cores: u32::MAX,
        };
        assert_eq!(judge_deadline(Duration::MAX, &all), Blame::Guest);
        assert_eq!(judge_deadline(Duration::ZERO, &all), Blame::Guest);
    }

    #[test]
    fn only_deadlines_are_weighed() {
        let starved = Evidence {
            cpu: Some(Duration::ZERO),
            stolen: Some(WINDOW),
            cores: 1,
        };
        let text = || "words".to_owned();
        let trap = Trap {
            kind: TrapKind::Unreachable,
            message: text(),
            backtrace: Vec::new(),
        };
        let guests = [
            Fault::Trap(trap),
            Fault::Exit { code: 3 },
            Fault::Exited,
            Fault::ErrorText { text: text() },
            Fault::Budget { fuel: 1 },
        ];
        for fault in &guests {
            assert_eq!(Blame::of(fault, &starved), Blame::Guest, "{fault}");
        }
        let hosts = [
            Fault::Instantiation { message: text() },
            Fault::HostIo {
                waited: WINDOW,
                ceiling: WINDOW,
            },
            Fault::HostBug { message: text() },
        ];
        for fault in &hosts {
            assert_eq!(
                Blame::of(fault, &Evidence::default()),
                Blame::Host,
                "{fault}"
            );
        }
        assert!(Blame::Guest.counts());
        assert!(!Blame::Starved.counts() && !Blame::Host.counts());
    }

    #[test]
    fn a_deadline_kill_brings_its_own_evidence() {
        let fault = |cpu| Fault::Deadline {
            deadline: WINDOW,
            stolen: Some(ms(90)),
            cpu: Some(ms(cpu)),
        };
        for (cpu, blame) in [(30, Blame::Starved), (95, Blame::Guest)] {
            let evidence = Evidence::of(&fault(cpu), 2);
            assert_eq!((evidence.cpu, evidence.cores), (Some(ms(cpu)), 2));
            assert_eq!(Blame::of(&fault(cpu), &evidence), blame);
        }
        assert_eq!(Evidence::of(&Fault::Exited, 2), Evidence::default());
    }

    prop_compose! {
        fn evidence()(
            cpu in proptest::option::of(0..400_u64),
            stolen in proptest::option::of(0..1_000_u64),
            cores in 0..8_u32,
        ) -> Evidence {
            Evidence { cpu: cpu.map(ms), stolen: stolen.map(ms), cores }
        }
    }

    fn is_starved(window: Duration, evidence: &Evidence) -> bool {
        judge_deadline(window, evidence) == Blame::Starved
    }

    proptest! {
        #[test]
        fn more_cpu_time_never_excuses(evidence in evidence(), window in 1..300_u64, more in 0..300_u64) {
            let with_more = Evidence { cpu: evidence.cpu.map(|cpu| cpu + ms(more)), ..evidence };
            prop_assert!(is_starved(ms(window), &evidence) || !is_starved(ms(window), &with_more));
        }

        #[test]
        fn more_stolen_time_never_convicts(evidence in evidence(), window in 1..300_u64, more in 0..300_u64) {
            let with_more = Evidence { stolen: evidence.stolen.map(|stolen| stolen + ms(more)), ..evidence };
            prop_assert!(!is_starved(ms(window), &evidence) || is_starved(ms(window), &with_more));
        }

        #[test]
        fn more_cores_never_excuse(evidence in evidence(), window in 1..300_u64, more in 0..8_u32) {
            prop_assume!(evidence.cores > 0);
            let with_more = Evidence { cores: evidence.cores + more, ..evidence };
            prop_assert!(is_starved(ms(window), &evidence) || !is_starved(ms(window), &with_more));
        }

        #[test]
        fn stolen_time_within_its_bound_never_excuses_a_spinner(
            window in 1..1_000_000_u64, cores in 1..256_u32, share in 0.0..=1.0_f64,
        ) {
            let window = Duration::from_nanos(window);
            let bound = window * (cores - 1) + window / 2;
            let spinner = Evidence { cpu: Some(window), stolen: Some(bound.mul_f64(share).min(bound)), cores };
            prop_assert_eq!(judge_deadline(window, &spinner), Blame::Guest);
        }
    }
}
