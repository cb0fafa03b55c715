//! How much a function's merge points ask of the compiler.
//!
//! Where many branches meet, Cranelift settles every local that is read from there on, and looks at
//! all those branches again for each: the square of the branches times the locals. Reads are not
//! followed further than this: if the code after a label runs into `unreachable` or `return`
//! without branching, as a panic does, only the reads up to there count; otherwise all of the
//! function's locals do.

use wasmparser::Operator;

/// An entry of a `br_table` counts for half a branch: 10,000 to one label with 100 locals took 9.8 s
/// at either tier, a quarter of what as many `br_if` take.
const HALVES_PER_BRANCH: u64 = 2;

/// Fed every operator of a function in order.
pub(super) struct Merges {
    /// Open labels, the function's own first.
    labels: Vec<Label>,
    /// Closed labels whose code has not been seen to its end, by rising depth.
    waiting: Vec<Waiting>,
    gets: u64,
    /// Sum of branches² × reads over the labels known to end soon.
    ending: u64,
    /// Sum of branches² over all others.
    open: u64,
}

struct Label {
    half_branches: u64,
    is_loop: bool,
}

struct Waiting {
    /// Labels open around it.
    depth: usize,
    branches: u64,
    /// Reads of locals before it.
    gets: u64,
}

impl Merges {
    pub fn new() -> Self {
        Self {
            labels: vec![Label {
                half_branches: 0,
                is_loop: false,
            }],
            waiting: Vec::new(),
            gets: 0,
            ending: 0,
            open: 0,
        }
    }

    pub fn observe(&mut self, operator: &Operator<'_>) {
        match operator {
            Operator::LocalGet { .. } => self.gets += 1,
            Operator::Block { .. } | Operator::If { .. } => self.labels.push(Label {
                half_branches: 0,
                is_loop: false,
            }),
            Operator::Loop { .. } => self.labels.push(Label {
                half_branches: 0,
                is_loop: true,
            }),
            Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                self.branch(*relative_depth, HALVES_PER_BRANCH);
                self.leave(0);
            }
            Operator::BrTable { targets } => {
                for label in targets.targets().filter_map(Result::ok) {
                    self.branch(label, 1);
                }
                self.branch(targets.default(), 1);
                self.leave(0);
            }
            Operator::Unreachable | Operator::Return => self.finish(),
            Operator::Else => self.leave(self.labels.len()),
            Operator::End => self.end(),
            _ => {}
        }
    }

    /// Branches² × locals, summed, for a function that touches so many locals.
    pub fn total(&self, locals: u64) -> u64 {
        self.waiting
            .iter()
            .map(|label| square(label.branches))
            .fold(self.open, u64::saturating_add)
            .saturating_mul(locals)
            .saturating_add(self.ending)
    }

    fn branch(&mut self, relative_depth: u32, halves: u64) {
        let index = self.labels.len().checked_sub(1 + relative_depth as usize);
        // What leaves the function takes no locals along.
        if let Some(index) = index.filter(|index| *index > 0) {
            self.labels[index].half_branches += halves;
        }
    }

    /// The code after the labels at this depth or deeper goes on somewhere else.
    fn leave(&mut self, depth: usize) {
        while let Some(label) = self.waiting.pop_if(|label| label.depth >= depth) {
            self.open = self.open.saturating_add(square(label.branches));
        }
    }

    /// The code after the labels at the present depth ends here.
    fn finish(&mut self) {
        let depth = self.labels.len();
        while let Some(label) = self.waiting.pop_if(|label| label.depth >= depth) {
            let cost = square(label.branches).saturating_mul(self.gets - label.gets);
            self.ending = self.ending.saturating_add(cost);
        }
    }

    fn end(&mut self) {
        self.leave(self.labels.len());
        let Some(label) = self.labels.pop().filter(|label| label.half_branches > 0) else {
            return;
        };
        let branches = 1 + label.half_branches / HALVES_PER_BRANCH;
        if label.is_loop {
            self.open = self.open.saturating_add(square(branches));
        } else {
            self.waiting.push(Waiting {
                depth: self.labels.len(),
                branches,
                gets: self.gets,
            });
        }
    }
}

fn square(value: u64) -> u64 {
    value.saturating_mul(value)
}
