//! Every screen a script leads to, for whoever judges how a game looks.
//!
//! One room, no verdicts: a guest that dies ends it, and what was seen until then was seen.

use cabinet_host::{Fault, Frame, Game};

use crate::lane::{Lane, Record};
use crate::script::Script;
use crate::tape::Keep;

/// What taking a game through a script came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Looked {
    /// The most linear memory the guest had after a call, bytes.
    pub peak_bytes: u64,
    /// The step the guest died at, counted from 1, 0 for the room's `start`; and what killed it.
    pub died: Option<(usize, Fault)>,
}

/// Takes a game through a script, and after `start` and every step that called the guest shows `look`
/// each frame in force: everyone's, then each member's. Frames go on after the guest's `end`.
pub fn every_screen(game: &Game, script: &Script, look: &mut dyn FnMut(&Frame)) -> Looked {
    let setup = &script.setup;
    let mut lane = Lane::new(game, script, setup.deadline, Keep::Counts).filmed();
    let (mut peak_bytes, mut died) = (0, None);
    let mut seen = |step: usize, record: Record| {
        if let Some(fault) = record.fault {
            died.get_or_insert((step, fault));
        }
        if record.call.is_some() {
            peak_bytes = peak_bytes.max(record.state.memory_bytes);
            record.state.frames.iter().flatten().for_each(&mut *look);
        }
    };
    seen(0, lane.start());
    for (at, step) in (1..).zip(&script.steps) {
        if lane.room.dead() {
            break;
        }
        seen(at, lane.step(setup, step));
    }
    Looked { peak_bytes, died }
}

#[cfg(test)]
mod tests {
    use cabinet_host::GameOptions;

    use super::*;
    use crate::testing::{ECHO, guest, host};

    fn seen(wake: &str, script: &str) -> (String, Looked) {
        let game = host().load(&guest(wake, ECHO), &GameOptions::default());
        let mut seen = String::new();
        let script = Script::parse(script).unwrap();
        let looked = every_screen(&game.unwrap(), &script, &mut |frame| {
            seen.extend(frame.row_text(0).chars().next());
        });
        (seen, looked)
    }

    #[test]
    fn each_call_shows_the_frames_in_force_after_it() {
        let wake = "(i32.const 65)";
        let (screens, looked) = seen(wake, "join 0\ninput 0 'x'\nwake\nadvance 1s\nwake");
        // Nothing is drawn before the input, and nothing is looked at when only the clock moves.
        assert_eq!(screens, "xAA");
        assert_eq!(looked.peak_bytes, 65_536);
        assert!(looked.died.is_none());
    }

    #[test]
    fn a_guest_that_dies_is_looked_at_until_then() {
        let (screens, looked) = seen("(unreachable)", "join 0\ninput 0 'x'\nwake\ninput 0 'y'");
        assert!(
            screens.starts_with("xx") && !screens.contains('y'),
            "{screens}"
        );
        assert_eq!(looked.peak_bytes, 65_536);
        assert_eq!(looked.died.map(|(step, _)| step), Some(3));
    }
}
