//! How a callback ended: the outcomes an embedder tells apart.

use std::fmt;
use std::time::Duration;

/// What one call by hand led to.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Outcome {
    /// The guest was called and returned.
    Done(CallReport),
    /// The guest was called and the room is dead now; [`crate::Room::fault`] says why.
    Faulted(CallReport),
    /// The guest was not called.
    Skipped(Skip),
}

impl Outcome {
    /// The report of the call, when there was one.
    pub fn report(&self) -> Option<&CallReport> {
        match self {
            Self::Done(report) | Self::Faulted(report) => Some(report),
            Self::Skipped(_) => None,
        }
    }

    /// Whether this call killed the room. The calls after it are [`Skip::Dead`];
    /// [`crate::Room::fault`] tells at any time.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Faulted(_))
    }
}

/// Why the guest was not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skip {
    /// The room faulted earlier, or was closed.
    Dead,
    /// `start` has not been called yet.
    NotStarted,
    /// `start` was called before.
    AlreadyStarted,
    /// Nobody is in the room and it is not resident, so it does not wake.
    Empty,
    /// The player is a member already.
    AlreadyMember,
    /// The player is not a member.
    NotMember,
    /// The roster cannot be described on the wire: too many players, or a name too long.
    RosterTooLarge,
}

/// What one call did and cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CallReport {
    /// The export called.
    pub export: &'static str,
    /// The guest's return code: 0 is success; `proc_exit` codes appear here; a killed call has
    /// [`EXIT_DEADLINE`], a trap 1.
    pub exit: u32,
    /// Wall time in guest code, host functions excluded.
    pub guest_time: Duration,
    /// Wall time in host functions.
    pub host_time: Duration,
    /// Part of `host_time` spent waiting for stores.
    pub io_time: Duration,
    /// Fuel burned, in operators: an upper bound of what ran, the same on every machine.
    pub fuel: u64,
    /// Frames accepted (a broadcast counts once).
    pub frames: u32,
    /// Container bytes of those frames.
    pub bytes_out: u64,
    /// Payload bytes the callback was given.
    pub bytes_in: u64,
    /// Calls from the guest into game functions (`extism:host/user`).
    pub host_calls: u32,
}

/// The return code reported for a call stopped by its deadline.
pub const EXIT_DEADLINE: u32 = 0xEFFF_FFFF;

/// Why a room died.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The guest could not be instantiated. Loading had instantiated the same module, so this is
    /// memory or address space the host lacks, not the guest's doing.
    Instantiation {
        /// What the engine said.
        message: String,
    },
    /// Guest code trapped.
    Trap(Trap),
    /// Guest code called `proc_exit` or an export returned non-zero.
    Exit {
        /// The code.
        code: u32,
    },
    /// A call on an instance that had left through `proc_exit(0)`.
    Exited,
    /// The guest set the kernel's error text.
    ErrorText {
        /// The text, made valid UTF-8, at most 4,096 bytes.
        text: String,
    },
    /// The deterministic work budget ran out.
    Budget {
        /// The budget, in fuel.
        fuel: u64,
    },
    /// The wall-clock deadline passed.
    Deadline {
        /// The deadline.
        deadline: Duration,
        /// CPU time the machine lost to others meanwhile, all its CPUs together, when known.
        stolen: Option<Duration>,
        /// CPU time the thread that ran the callback got at most, when the system tells, and what
        /// it waited for stores in calls past the number that is free. On a machine that does not
        /// account for stolen time, that counts too.
        cpu: Option<Duration>,
    },
    /// Stores took longer than the callback's I/O ceiling. Not the guest's doing.
    HostIo {
        /// Time spent waiting.
        waited: Duration,
        /// The ceiling.
        ceiling: Duration,
    },
    /// The host itself failed. Not the guest's doing.
    HostBug {
        /// What went wrong.
        message: String,
    },
}

/// A trap an author can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// What happened.
    pub kind: TrapKind,
    /// The engine's words.
    pub message: String,
    /// Innermost frame first; at most [`TRAP_FRAMES_MAX`].
    pub backtrace: Vec<TrapFrame>,
}

/// Frames kept of a trap's backtrace.
pub const TRAP_FRAMES_MAX: usize = 32;

/// A frame of a trap's backtrace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrapFrame {
    /// Index of the function in the module.
    pub function: u32,
    /// Its name, where the module has one.
    pub name: Option<String>,
}

/// What a trap was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapKind {
    /// `unreachable` was executed, which is how panics end.
    Unreachable,
    /// A memory access outside the memory.
    MemoryOutOfBounds,
    /// A table access outside the table.
    TableOutOfBounds,
    /// An indirect call through an empty table slot.
    NullCall,
    /// An indirect call of a function of another type.
    CallType,
    /// Integer division by zero.
    DivisionByZero,
    /// Integer overflow.
    IntegerOverflow,
    /// A float that does not fit an integer.
    ConversionToInteger,
    /// Calls nested deeper than the limit.
    CallDepth,
    /// A kernel function that always traps: `var_set`, `http_request`.
    Kernel,
    /// Anything else.
    Other,
}

impl Fault {
    /// A stable name: `instantiation`, `trap`, `exit`, `exited`, `error-text`, `budget`,
    /// `deadline`, `host-io` or `host-bug`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Instantiation { .. } => "instantiation",
            Self::Trap(_) => "trap",
            Self::Exit { .. } => "exit",
            Self::Exited => "exited",
            Self::ErrorText { .. } => "error-text",
            Self::Budget { .. } => "budget",
            Self::Deadline { .. } => "deadline",
            Self::HostIo { .. } => "host-io",
            Self::HostBug { .. } => "host-bug",
        }
    }

    /// Whether the guest is to blame.
    pub fn is_guests(&self) -> bool {
        !matches!(
            self,
            Self::Instantiation { .. } | Self::HostIo { .. } | Self::HostBug { .. }
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instantiation { message } => write!(f, "cannot instantiate the guest: {message}"),
            Self::Trap(trap) => write!(f, "guest trap: {trap}"),
            Self::Exit { code } => write!(f, "guest exited with code {code}"),
            Self::Exited => write!(f, "the guest had left through proc_exit"),
            Self::ErrorText { text } => write!(f, "guest reported an error: {text}"),
            Self::Budget { fuel } => write!(f, "work budget of {fuel} fuel used up"),
            Self::Deadline {
                deadline,
                stolen: None | Some(Duration::ZERO),
                ..
            } => write!(f, "deadline of {deadline:?} passed"),
            Self::Deadline {
                deadline,
                stolen: Some(stolen),
                ..
            } => write!(
                f,
                "deadline of {deadline:?} passed ({stolen:?} of CPU stolen meanwhile)"
            ),
            Self::HostIo { waited, ceiling } => write!(
                f,
                "stores took {waited:?}, more than the callback's ceiling of {ceiling:?}"
            ),
            Self::HostBug { message } => write!(f, "host bug: {message}"),
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.kind == TrapKind::Other || self.kind == TrapKind::Kernel {
            write!(f, " ({})", self.message)?;
        }
        for (depth, frame) in self.backtrace.iter().take(3).enumerate() {
            let place = if depth == 0 { " in" } else { " from" };
            match &frame.name {
                Some(name) => write!(f, "{place} {name}")?,
                None => write!(f, "{place} function {}", frame.function)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable code reached",
            Self::MemoryOutOfBounds => "memory access out of bounds",
            Self::TableOutOfBounds => "table access out of bounds",
            Self::NullCall => "indirect call to null",
            Self::CallType => "indirect call type mismatch",
            Self::DivisionByZero => "integer division by zero",
            Self::IntegerOverflow => "integer overflow",
            Self::ConversionToInteger => "float does not fit an integer",
            Self::CallDepth => "call depth exhausted",
            Self::Kernel => "kernel trap",
            Self::Other => "trap",
        })
    }
}
