//! What the fuzzer calls: whatever the bytes, nothing panics, and what is read is what would be
//! written. The tests of `keeper::state` run the committed corpus through it.

use cabinet_durability::RoomId;

use crate::captures::Captured;
use crate::keeper::{RoomState, encode_state};

/// A room's state, as a checkpoint holds it.
pub fn room_state(bytes: &[u8]) {
    let Ok(room) = "0190b8a0-1234-7abc-8def-0123456789ab".parse::<RoomId>() else {
        return;
    };
    let Ok(state) = RoomState::decode(room, bytes.to_vec()) else {
        return;
    };
    let captured = Captured {
        room,
        slug: state.slug,
        lifecycle: state.lifecycle,
        roster: state.roster,
        joined: state.joined,
        at: state.at,
        callbacks: 0,
        posts: state.posts,
        snapshot: state.snapshot,
    };
    let mut again = Vec::new();
    let written = encode_state(&captured, &mut again);
    assert!(
        written.is_ok() && again == bytes,
        "what was read would be written otherwise"
    );
}
