//! A failing script reduced to the shortest that still fails: no step of it can be left out.

use crate::script::Script;

/// What became of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The shortest failing script found.
    pub script: Script,
    /// How often a script was tried.
    pub tries: usize,
    /// Whether every single step was shown to be needed; else the tries ran out.
    pub complete: bool,
}

/// Leaves out what `fails` does not need, in ever smaller pieces, in at most `tries_max` tries.
/// `script` itself is taken to fail; its setup stays.
pub fn shrink(script: &Script, tries_max: usize, fails: &mut dyn FnMut(&Script) -> bool) -> Shrunk {
    let mut best = script.clone();
    let mut tries = 0;
    let mut piece = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut shorter = false;
        let mut at = 0;
        while at < best.steps.len() {
            if tries == tries_max {
                return Shrunk {
                    script: best,
                    tries,
                    complete: false,
                };
            }
            tries += 1;
            let mut without = best.clone();
            let end = (at + piece).min(without.steps.len());
            without.steps.drain(at..end);
            if fails(&without) {
                best = without;
                shorter = true;
            } else {
                at = end;
            }
        }
        match piece {
            1 if !shorter => {
                return Shrunk {
                    script: best,
                    tries,
                    complete: true,
                };
            }
            1 => {}
            _ => piece = piece.div_ceil(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use crate::script::Step;

    /// Fails when somebody types `x` after a snapshot.
    fn fails(script: &Script) -> bool {
        let mut steps = script.steps.iter();
        steps.any(|step| *step == Step::Snapshot)
            && steps.any(|step| matches!(step, Step::Input { rune: 'x', .. }))
    }

    #[test]
    fn only_the_steps_that_make_it_fail_are_left() {
        let mut shrunk = 0;
        for seed in 0..60 {
            let script = random::script(seed, 3, &['x'], 60);
            if !fails(&script) {
                continue;
            }
            let result = shrink(&script, 10_000, &mut |script| fails(script));
            assert!(result.complete, "seed {seed}");
            assert_eq!(
                result.script.steps.len(),
                2,
                "seed {seed}: {}",
                result.script
            );
            assert!(fails(&result.script), "seed {seed}");
            shrunk += 1;
        }
        assert!(shrunk > 10, "only {shrunk} scripts failed at all");
    }

    #[test]
    fn the_tries_are_limited_and_what_was_reached_still_fails() {
        let script = Script::parse("join 0\nwake\nwake\nsnapshot\nwake\ninput 0 x\nwake").unwrap();
        for tries_max in 0..12 {
            let result = shrink(&script, tries_max, &mut |script| fails(script));
            assert!(result.tries <= tries_max);
            assert!(fails(&result.script));
        }
        let empty = shrink(&Script::default(), 5, &mut |_| true);
        assert!(empty.complete && empty.tries == 0);
    }
}
