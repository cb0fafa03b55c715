//! The ten game functions, `extism:host/user`.
//!
//! Rules they share: outside a room callback they do nothing and answer 0; an index means the
//! roster of this callback; a block the guest names is read whole, and an offset that is no live
//! block reads as nothing. None of them tells the guest about a failing store: the ABI cannot.

use std::time::{Duration, Instant};

use cabinet_wire::{LogLevel, ROSTER_CAP, outcome};
use wasmer::{FunctionEnvMut, RuntimeError};

use crate::observe::HostCall;
use crate::room::shared::{IoStop, Shared};
use crate::services::{Recipient, RoomResult, Standing};

/// Longest kv or config key; a longer one is as absent as an empty one.
const KV_KEY_BYTES_MAX: usize = 4 << 10;
/// Longest kv value; a longer one is dropped with a warning.
const KV_VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest merge rule; the known ones have at most eleven bytes.
const KV_RULE_BYTES_MAX: usize = 64;
/// Leaderboard posts carried out per callback; later ones are dropped.
const POSTS_PER_CALLBACK_MAX: u32 = 1_024;
/// Rankings read of one result: four for each player, and room for a few in any case.
const RANKINGS_PER_PLAYER: usize = 4;
const RANKINGS_MIN: usize = 64;

type Env<'a> = FunctionEnvMut<'a, Shared>;

/// Carries out a game function: counts it and the time it takes, charges it, and does not begin
/// it when the callback was told to stop. `blocks` are the kernel blocks it reads.
///
/// A guest without loops is never stopped by its own code, so its calls into the host must be.
fn timed<T>(
    env: &mut Env<'_>,
    blocks: &[i64],
    body: impl FnOnce(&mut Env<'_>) -> Result<T, IoStop>,
) -> Result<T, RuntimeError> {
    let began = Instant::now();
    let shared = env.data_mut();
    shared.tally.call_began = Some(began);
    let bytes: u64 = blocks
        .iter()
        .map(|at| shared.kernel.length(*at as u64))
        .sum();
    shared.charge(bytes).map_err(stop)?;
    let value = body(env);
    let tally = &mut env.data_mut().tally;
    tally.host_time += began.elapsed();
    tally.host_calls = tally.host_calls.saturating_add(1);
    value.map_err(stop)
}

/// Reports a call to the room's observer.
fn observe(
    shared: &mut Shared,
    name: &'static str,
    args: &[i64],
    blocks: &[i64],
    ret: Option<i64>,
) {
    let Some(observer) = shared.observer.as_mut() else {
        return;
    };
    let began = shared.tally.call_began;
    let took = began.map_or(Duration::ZERO, |began| began.elapsed());
    let inputs: Vec<&[u8]> = blocks
        .iter()
        .map(|at| shared.kernel.read(*at).unwrap_or(&[]))
        .collect();
    let output = match (name, ret) {
        ("kv_get" | "config_get", Some(at)) if at != 0 => shared.kernel.read(at).ok(),
        _ => None,
    };
    observer.host_call(&HostCall {
        name,
        args,
        inputs: &inputs,
        ret,
        output,
        took,
    });
}

fn stop(reason: IoStop) -> RuntimeError {
    RuntimeError::user(Box::new(reason))
}

/// A roster index as the guest passes it, when it names somebody.
fn seat(shared: &Shared, index: i64) -> Option<usize> {
    usize::try_from(index)
        .ok()
        .filter(|index| *index < shared.roster_len())
}

pub(crate) fn send(mut env: Env<'_>, index: i64, payload: i64) -> Result<i64, RuntimeError> {
    timed(&mut env, &[payload], |env| {
        let shared = env.data_mut();
        let epoch = send_to(shared, index, payload);
        observe(shared, "send", &[index, payload], &[payload], Some(epoch));
        Ok(epoch)
    })
}

fn send_to(shared: &mut Shared, index: i64, payload: i64) -> i64 {
    if !shared.in_callback {
        return 0;
    }
    let Some(seat) = seat(shared, index).filter(|seat| *seat < ROSTER_CAP) else {
        return 0;
    };
    let Ok(container) = shared.kernel.read(payload) else {
        return 0;
    };
    let len = container.len() as u64;
    let applied = shared.slots.apply(seat, container);
    let (epoch, malformed) = (applied.epoch, applied.malformed);
    if let Some(frame) = applied.frame {
        shared.tally.frames += 1;
        shared.tally.bytes_out += len;
        if !shared.settled
            && let Some(player) = shared.members.get(seat)
        {
            shared
                .services
                .deliver(Recipient::Member(seat, player), frame);
        }
    }
    if malformed {
        shared.host_log(LogLevel::Warn, "dropped a malformed frame");
    }
    i64::from(epoch)
}

pub(crate) fn identical(mut env: Env<'_>, payload: i64) -> Result<i64, RuntimeError> {
    timed(&mut env, &[payload], |env| {
        let shared = env.data_mut();
        let epoch = send_to_all(shared, payload);
        observe(shared, "identical", &[payload], &[payload], Some(epoch));
        Ok(epoch)
    })
}

fn send_to_all(shared: &mut Shared, payload: i64) -> i64 {
    if !shared.in_callback {
        return 0;
    }
    let Ok(container) = shared.kernel.read(payload) else {
        return i64::from(shared.slots.bump_broadcast());
    };
    let len = container.len() as u64;
    let applied = shared.slots.identical(container);
    let (epoch, malformed) = (applied.epoch, applied.malformed);
    if let Some(frame) = applied.frame {
        shared.tally.frames += 1;
        shared.tally.bytes_out += len;
        if !shared.settled {
            shared.services.deliver(Recipient::Everyone, frame);
        }
    }
    if malformed {
        shared.host_log(LogLevel::Warn, "dropped a malformed frame");
    }
    i64::from(epoch)
}

pub(crate) fn set_input_context(mut env: Env<'_>, context: i64) -> Result<(), RuntimeError> {
    timed(&mut env, &[], |env| {
        let shared = env.data_mut();
        if shared.in_callback {
            shared.input_context = (context & 0xff) as u8;
        }
        observe(shared, "set_input_context", &[context], &[], None);
        Ok(())
    })
}

pub(crate) fn end(mut env: Env<'_>, payload: i64) -> Result<(), RuntimeError> {
    timed(&mut env, &[payload], |env| {
        let shared = env.data_mut();
        if shared.in_callback {
            shared.ended = true;
            // The first end wins; later ones change nothing.
            if shared.result.is_none() {
                let result = decode_result(shared, payload, 0);
                if result.is_none() {
                    shared.host_log(
                        LogLevel::Warn,
                        "bad end payload: the game ends without a result",
                    );
                }
                shared.result = Some(result.unwrap_or_else(|| RoomResult {
                    mode: shared.mode,
                    standings: Vec::new(),
                    round_seq: 0,
                }));
            }
        }
        observe(shared, "end", &[payload], &[payload], None);
        Ok(())
    })
}

pub(crate) fn post(mut env: Env<'_>, payload: i64) -> Result<(), RuntimeError> {
    timed(&mut env, &[payload], |env| {
        let shared = env.data_mut();
        if shared.in_callback && shared.tally.posts < POSTS_PER_CALLBACK_MAX {
            shared.tally.posts += 1;
            let next = shared.post_seq.wrapping_add(1);
            // A payload that cannot be read does not use up a number.
            if let Some(result) = decode_result(shared, payload, next) {
                shared.post_seq = next;
                shared.services.post(&result);
            }
        }
        observe(shared, "post", &[payload], &[payload], None);
        Ok(())
    })
}

fn decode_result(shared: &Shared, payload: i64, round_seq: u32) -> Option<RoomResult> {
    let bytes = shared.kernel.read(payload).ok()?;
    let rankings = outcome::decode(bytes, shared.roster_len()).ok()?;
    if rankings.len() > RANKINGS_MIN.max(RANKINGS_PER_PLAYER * shared.roster_len()) {
        return None;
    }
    let standings = rankings
        .map(|ranking| {
            let player = shared.roster_at(ranking.player as usize)?.clone();
            Some(Standing {
                player,
                metric: ranking.metric,
                rank: ranking.rank,
                status: ranking.status(),
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(RoomResult {
        mode: shared.mode,
        standings,
        round_seq,
    })
}

pub(crate) fn log(mut env: Env<'_>, level: i64, message: i64) -> Result<(), RuntimeError> {
    timed(&mut env, &[message], |env| {
        let shared = env.data_mut();
        if shared.in_callback {
            shared.log_from_kernel(LogLevel::from_argument(level), message);
        }
        observe(shared, "log", &[level, message], &[message], None);
        Ok(())
    })
}

pub(crate) fn kv_get(mut env: Env<'_>, index: i64, key: i64) -> Result<i64, RuntimeError> {
    timed(&mut env, &[key], |env| {
        let shared = env.data_mut();
        let value = kv(
            shared,
            "kv_get",
            index,
            key,
            |services, player, key, within| services.kv_get(player, key, within),
        )?;
        let at = give(env, value.flatten());
        observe(env.data_mut(), "kv_get", &[index, key], &[key], Some(at));
        Ok(at)
    })
}

pub(crate) fn kv_set(
    mut env: Env<'_>,
    index: i64,
    key: i64,
    value: i64,
    rule: i64,
) -> Result<(), RuntimeError> {
    timed(&mut env, &[key, value, rule], |env| {
        let shared = env.data_mut();
        observe(
            shared,
            "kv_set",
            &[index, key, value, rule],
            &[key, value, rule],
            None,
        );
        let value = shared.kernel.read(value);
        let rule = shared.kernel.read(rule);
        let (Ok(value), Ok(rule)) = (value, rule) else {
            return Ok(());
        };
        if value.len() > KV_VALUE_BYTES_MAX || rule.len() > KV_RULE_BYTES_MAX {
            shared.host_log(LogLevel::Warn, "dropped a kv value or rule over the limit");
            return Ok(());
        }
        let (value, rule) = (value.to_vec(), rule.to_vec());
        kv(
            shared,
            "kv_set",
            index,
            key,
            |services, player, key, within| services.kv_set(player, key, &value, &rule, within),
        )?;
        Ok(())
    })
}

pub(crate) fn kv_delete(mut env: Env<'_>, index: i64, key: i64) -> Result<(), RuntimeError> {
    timed(&mut env, &[key], |env| {
        let shared = env.data_mut();
        observe(shared, "kv_delete", &[index, key], &[key], None);
        kv(
            shared,
            "kv_delete",
            index,
            key,
            |services, player, key, within| services.kv_delete(player, key, within),
        )?;
        Ok(())
    })
}

/// One kv call, when there is a callback, a player and a key.
fn kv<T>(
    shared: &mut Shared,
    operation: &'static str,
    index: i64,
    key: i64,
    call: impl FnOnce(
        &mut dyn crate::services::Services,
        &crate::player::Player,
        &[u8],
        std::time::Duration,
    ) -> Result<T, crate::services::ServiceError>,
) -> Result<Option<T>, IoStop> {
    if !shared.in_callback {
        return Ok(None);
    }
    let Some(seat) = seat(shared, index) else {
        return Ok(None);
    };
    let Shared {
        kernel,
        members,
        departed,
        services,
        tally,
        io,
        ..
    } = shared;
    let Some(player) = members.get(seat).or(departed.as_ref()) else {
        return Ok(None);
    };
    let key = match kernel.read(key) {
        Ok(key) if !key.is_empty() && key.len() <= KV_KEY_BYTES_MAX => key,
        _ => return Ok(None),
    };
    let answer = io.call(tally, services.as_mut(), |services, within| {
        call(services, player, key, within)
    })?;
    Ok(shared.or_report(operation, answer))
}

pub(crate) fn config_get(mut env: Env<'_>, key: i64) -> Result<i64, RuntimeError> {
    timed(&mut env, &[key], |env| {
        let shared = env.data_mut();
        let value = config(shared, key)?;
        let at = give(env, value);
        observe(env.data_mut(), "config_get", &[key], &[key], Some(at));
        Ok(at)
    })
}

fn config(shared: &mut Shared, key: i64) -> Result<Option<Vec<u8>>, IoStop> {
    if !shared.in_callback {
        return Ok(None);
    }
    let Shared {
        kernel,
        services,
        tally,
        io,
        ..
    } = shared;
    let key = match kernel.read(key) {
        Ok(key) if !key.is_empty() && key.len() <= KV_KEY_BYTES_MAX => key,
        _ => return Ok(None),
    };
    let answer = io.call(tally, services.as_mut(), |services, within| {
        services.config_get(key, within)
    })?;
    Ok(shared.or_report("config_get", answer).flatten())
}

/// Puts a value into the kernel for the guest; 0 for none, for an empty one and when there is no
/// room.
fn give(env: &mut Env<'_>, value: Option<Vec<u8>>) -> i64 {
    let Some(value) = value else { return 0 };
    let (shared, mut store) = env.data_and_store_mut();
    shared.kernel.put(&mut store, &value) as i64
}
