//! Bugs that tests plant, to prove that the simulator finds them. In any other build there is none:
//! [`planted`] is `false` and the compiler removes the question.

/// A way to get durability wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The head is put whatever is there.
    UnconditionalHead,
    /// A record of another room opens.
    SealWithoutRoom,
    /// What an unproven header says is acted upon.
    DecodeBeforeVerify,
    /// Old checkpoints go before the head has moved on.
    DeleteBeforeAdvance,
    /// A new owner writes its first checkpoint under the last one's epoch.
    EpochReused,
    /// A lost head is rebuilt from the highest epoch, whoever wrote it.
    RebuildByEpoch,
    /// What was under an older key goes before a head names what is under the new one.
    DropBeforeResealed,
}

#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    tests::PLANTED.get() == Some(bug)
}

#[cfg(test)]
pub(crate) mod tests {
    //! Which bug this thread has.
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        pub(crate) static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Runs `body` with a bug planted in this thread.
    pub(crate) fn with<T>(bug: Option<Bug>, body: impl FnOnce() -> T) -> T {
        let before = PLANTED.replace(bug);
        let out = body();
        PLANTED.set(before);
        out
    }
}
