//! How many writes may wait, and how much of that posts may take.
//!
//! A game may post as fast as its callbacks run and does not wait for the answer; a guest that sets
//! a value does. So posts get half of the places and half of the bytes, and values always find the
//! rest.

/// What one write takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    pub(super) bytes: usize,
    pub(super) is_post: bool,
}

/// Places and bytes of the queue, or what is taken of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) writes: usize,
    pub(super) bytes: usize,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    all: Load,
    /// Part of `all`.
    posts: Load,
}

impl Waiting {
    /// Takes the place of a write, or says why it may not wait.
    pub(super) fn enters(&mut self, write: Weight, max: Load) -> Result<(), &'static str> {
        let half = Load {
            // One post may wait whatever the limits.
            writes: (max.writes / 2).max(1),
            bytes: max.bytes / 2,
        };
        self.all.fits(write.bytes, max)?;
        if write.is_post {
            self.posts.fits(write.bytes, half)?;
            self.posts.add(write.bytes);
        }
        self.all.add(write.bytes);
        Ok(())
    }

    /// Gives back the place of a write that entered.
    pub(super) fn leaves(&mut self, write: Weight) {
        self.all.remove(write.bytes);
        if write.is_post {
            self.posts.remove(write.bytes);
        }
    }
}

impl Load {
    /// Where nothing waits a write of any size does.
    fn fits(self, bytes: usize, max: Self) -> Result<(), &'static str> {
        if self.writes >= max.writes {
            return Err("too many requests wait");
        }
        if self.writes > 0 && self.bytes.saturating_add(bytes) > max.bytes {
            return Err("too many bytes wait to be written");
        }
        Ok(())
    }

    fn add(&mut self, bytes: usize) {
        self.writes += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.writes -= 1;
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn post(bytes: usize) -> Weight {
        Weight {
            bytes,
            is_post: true,
        }
    }

    fn value(bytes: usize) -> Weight {
        Weight {
            bytes,
            is_post: false,
        }
    }

    const MAX: Load = Load {
        writes: 10,
        bytes: 1_000,
    };

    #[test]
    fn posts_take_half_of_the_places_and_values_find_the_rest() {
        let mut waiting = Waiting::default();
        for _ in 0..5 {
            waiting.enters(post(1), MAX).unwrap();
        }
        assert_eq!(waiting.enters(post(1), MAX), Err("too many requests wait"));
        for _ in 0..5 {
            waiting.enters(value(1), MAX).unwrap();
        }
        assert_eq!(waiting.enters(value(1), MAX), Err("too many requests wait"));
        waiting.leaves(value(1));
        assert!(waiting.enters(post(1), MAX).is_err());
        waiting.leaves(post(1));
        waiting.enters(post(1), MAX).unwrap();
    }

    #[test]
    fn posts_take_half_of_the_bytes_and_values_find_the_rest() {
        let mut waiting = Waiting::default();
        waiting.enters(post(1), MAX).unwrap();
        let full = Err("too many bytes wait to be written");
        assert_eq!(waiting.enters(post(500), MAX), full);
        waiting.enters(post(499), MAX).unwrap();
        assert_eq!(waiting.enters(post(1), MAX), full);
        assert_eq!(waiting.enters(value(501), MAX), full);
        waiting.enters(value(500), MAX).unwrap();
    }

    #[test]
    fn one_post_and_one_write_wait_whatever_their_size() {
        let none = Load {
            writes: 1,
            bytes: 0,
        };
        for write in [post(9), value(9)] {
            let mut waiting = Waiting::default();
            waiting.enters(write, none).unwrap();
            assert!(waiting.enters(write, none).is_err());
        }
        let mut waiting = Waiting::default();
        waiting.enters(value(1), MAX).unwrap();
        waiting.enters(post(999), MAX).unwrap();
        assert!(waiting.enters(post(0), MAX).is_err());
    }

    proptest! {
        #[test]
        fn what_left_leaves_nothing_behind(writes: Vec<(u16, bool)>) {
            let mut waiting = Waiting::default();
            let mut entered = Vec::new();
            for (bytes, is_post) in writes {
                let write = Weight { bytes: bytes.into(), is_post };
                let before = waiting;
                match waiting.enters(write, MAX) {
                    Ok(()) => entered.push(write),
                    Err(_) => prop_assert_eq!(waiting, before),
                }
                prop_assert!(entered.len() <= 10);
            }
            for write in entered {
                waiting.leaves(write);
            }
            prop_assert_eq!(waiting, Waiting::default());
        }
    }
}
