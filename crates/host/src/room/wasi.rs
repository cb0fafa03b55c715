//! WASI preview 1 as a room has it: a clock that stands still during a callback, a seeded entropy
//! stream, stdout and stderr into the log, and nothing else.
//!
//! All 46 functions exist, so that any guest links. Error numbers are those the reference was seen
//! to answer (docs/ABI.md).

use wasmer::{FunctionEnvMut, RuntimeError};

use crate::observe::WasiCall;
use crate::room::shared::{IoStop, Shared};

const OK: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const NOSYS: i32 = 52;
const NOTSUP: i32 = 58;

/// What an observer is told of one call at most.
const SAID_BYTES_MAX: usize = 64 << 10;
/// Size of a subscription and of an event of `poll_oneoff`.
const SUBSCRIPTION_BYTES: u64 = 48;
const EVENT_BYTES: u64 = 32;
/// Entropy drawn between two looks at the deadline; one operator of fuel a byte.
const ENTROPY_PIECE_BYTES: usize = 64 << 10;
/// Scatter lists and subscription lists longer than this are refused.
const LIST_MAX: u64 = 1_024;

/// The guest called `proc_exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("proc_exit({0})")]
pub(crate) struct Exit(pub(crate) u32);

/// Carries out one call and tells the observer.
///
/// # Errors
/// [`Exit`] for `proc_exit`.
pub(crate) fn call(
    mut env: FunctionEnvMut<'_, Shared>,
    name: &'static str,
    args: &[i64],
) -> Result<i32, RuntimeError> {
    if name == "proc_exit" {
        let code = args.first().copied().unwrap_or(0) as u32;
        tell(env.data_mut(), name, args, OK, &[]);
        return Err(RuntimeError::user(Box::new(Exit(code))));
    }
    let shared = env.data_mut();
    shared
        .charge(0)
        .map_err(|reason| RuntimeError::user(Box::new(reason)))?;
    let mut said = Vec::new();
    let errno = answer(shared, name, args, &mut said);
    tell(shared, name, args, errno, &said);
    if shared.stopped() {
        return Err(RuntimeError::user(Box::new(IoStop::Late)));
    }
    if shared.fuel.is_some_and(|fuel| fuel.get_i64() < 0) {
        return Err(RuntimeError::user(Box::new(IoStop::Budget)));
    }
    Ok(errno)
}

fn tell(shared: &mut Shared, name: &'static str, args: &[i64], errno: i32, data: &[u8]) {
    if let Some(observer) = shared.observer.as_mut() {
        observer.wasi_call(&WasiCall {
            name,
            args,
            errno,
            data,
        });
    }
}

/// The error number; `said` receives what an observer wants to know.
fn answer(shared: &mut Shared, name: &str, args: &[i64], said: &mut Vec<u8>) -> i32 {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    let pointer = |index: usize| u64::from(arg(index) as u32);
    let observed = shared.observer.is_some();
    match name {
        "clock_time_get" => match arg(0) {
            0 | 1 => {
                if observed {
                    said.extend_from_slice(shared.now.to_string().as_bytes());
                }
                let now = shared.now.to_le_bytes();
                put(shared, pointer(2), &now)
            }
            _ => INVAL,
        },
        "clock_res_get" => match arg(0) {
            0 | 1 => put(shared, pointer(1), &1u64.to_le_bytes()),
            _ => INVAL,
        },
        "random_get" => random(shared, pointer(0), pointer(1), observed.then_some(said)),
        "args_sizes_get" | "environ_sizes_get" => {
            match put(shared, pointer(0), &0u32.to_le_bytes()) {
                OK => put(shared, pointer(1), &0u32.to_le_bytes()),
                errno => errno,
            }
        }
        "args_get" | "environ_get" | "sched_yield" => OK,
        "fd_write" => match arg(0) {
            1 | 2 => write(
                shared,
                pointer(1),
                pointer(2),
                pointer(3),
                observed.then_some(said),
            ),
            _ => BADF,
        },
        "fd_read" => match arg(0) {
            // End of input.
            0 => put(shared, pointer(3), &0u32.to_le_bytes()),
            _ => BADF,
        },
        "fd_fdstat_get" => match arg(0) {
            0..=2 => {
                let mut stat = [0; 24];
                // A block device, with no flags and no rights.
                stat[0] = 1;
                put(shared, pointer(1), &stat)
            }
            _ => BADF,
        },
        "fd_seek" | "fd_tell" => match arg(0) {
            0..=2 => NOSYS,
            _ => BADF,
        },
        "fd_close" => match arg(0) {
            0..=2 => OK,
            _ => BADF,
        },
        "poll_oneoff" => poll(shared, pointer(0), pointer(1), pointer(2), pointer(3)),
        "proc_raise" | "fd_fdstat_set_rights" => NOSYS,
        _ => BADF,
    }
}

fn put(shared: &mut Shared, at: u64, bytes: &[u8]) -> i32 {
    let written = shared
        .guest
        .as_mut()
        .is_some_and(|guest| guest.write(at, bytes));
    if written { OK } else { FAULT }
}

/// Whether a range of 32-bit address and length lies in the guest's memory.
fn in_memory(shared: &Shared, at: u64, len: u64) -> bool {
    shared
        .guest
        .as_ref()
        .is_some_and(|guest| guest.get(at, len).is_some())
}

fn word(shared: &Shared, at: u64) -> Option<u64> {
    let bytes = shared.guest.as_ref()?.get(at, 4)?;
    Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))
}

fn random(shared: &mut Shared, at: u64, len: u64, said: Option<&mut Vec<u8>>) -> i32 {
    let Shared {
        guest,
        entropy,
        fuel,
        limit,
        ..
    } = shared;
    let Some(guest) = guest.as_mut() else {
        return FAULT;
    };
    // Lengths are 32-bit, so the sum cannot wrap.
    let (Ok(start), Ok(end)) = (usize::try_from(at), usize::try_from(at + len)) else {
        return FAULT;
    };
    let Some(target) = guest.bytes_mut().get_mut(start..end) else {
        return FAULT;
    };
    // A large request is cut where the watchdog looks: the room is dead then, and the rest of the
    // buffer does not matter.
    for piece in target.chunks_mut(ENTROPY_PIECE_BYTES) {
        let stopped = limit.is_some_and(|limit| limit.get_i64() != 0);
        if stopped || fuel.is_some_and(|fuel| fuel.get_i64() < 0) {
            break;
        }
        entropy.fill(piece);
        if let Some(fuel) = fuel {
            fuel.set_i64(fuel.get_i64().saturating_sub(piece.len() as i64));
        }
    }
    if let Some(said) = said {
        said.extend_from_slice(target);
    }
    OK
}

fn write(
    shared: &mut Shared,
    list: u64,
    count: u64,
    written_at: u64,
    mut said: Option<&mut Vec<u8>>,
) -> i32 {
    if !in_memory(shared, list, count * 8) {
        return FAULT;
    }
    if count > LIST_MAX {
        return INVAL;
    }
    let mut written: u32 = 0;
    for entry in 0..count {
        let at = list + entry * 8;
        let (Some(base), Some(len)) = (word(shared, at), word(shared, at + 4)) else {
            return FAULT;
        };
        if shared.stopped() {
            break;
        }
        if let Some(said) = said.as_deref_mut()
            && said.len() < SAID_BYTES_MAX
        {
            let len = len.min((SAID_BYTES_MAX - said.len()) as u64);
            let bytes = shared.guest.as_ref().and_then(|guest| guest.get(base, len));
            said.extend_from_slice(bytes.unwrap_or(&[]));
        }
        if !shared.log_from_guest(base, len) {
            return FAULT;
        }
        written = written.saturating_add(len as u32);
    }
    put(shared, written_at, &written.to_le_bytes())
}

/// Answers every subscription at once: nothing ever sleeps in a room.
fn poll(shared: &mut Shared, subscriptions: u64, events: u64, count: u64, count_at: u64) -> i32 {
    if count == 0 {
        return INVAL;
    }
    if !in_memory(shared, subscriptions, count * SUBSCRIPTION_BYTES) {
        return FAULT;
    }
    if count > LIST_MAX {
        return INVAL;
    }
    for index in 0..count {
        let at = subscriptions + index * SUBSCRIPTION_BYTES;
        let Some(subscription) = shared
            .guest
            .as_ref()
            .and_then(|guest| guest.get(at, SUBSCRIPTION_BYTES))
            .and_then(|bytes| <[u8; SUBSCRIPTION_BYTES as usize]>::try_from(bytes).ok())
        else {
            return FAULT;
        };
        let kind = subscription[8];
        let errno = match kind {
            0 => match u16::from_le_bytes([subscription[40], subscription[41]]) {
                0 => OK,
                1 => NOTSUP,
                _ => INVAL,
            },
            1 | 2 => match u32::from_le_bytes([
                subscription[16],
                subscription[17],
                subscription[18],
                subscription[19],
            ]) {
                0..=2 => OK,
                _ => BADF,
            },
            _ => return INVAL,
        };
        let mut event = [0; EVENT_BYTES as usize];
        event[..8].copy_from_slice(&subscription[..8]);
        event[8..10].copy_from_slice(&(errno as u16).to_le_bytes());
        event[10] = kind;
        if put(shared, events + index * EVENT_BYTES, &event) != OK {
            return FAULT;
        }
    }
    // `count` is at most LIST_MAX.
    put(shared, count_at, &(count as u32).to_le_bytes())
}
