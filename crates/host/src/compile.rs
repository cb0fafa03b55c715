//! Turning a rewritten guest into machine code: here, or in a worker process with hard limits.
//!
//! Cranelift cannot be cancelled inside one function, and a hostile function can hold it for half
//! a minute (docs/ARCHITECTURE.md). Guests are admitted by a cost estimate first
//! ([`crate::ModuleLimits`]); an embedder who wants a hard bound runs the compiler in a process of
//! its own: call [`compile_worker`] from a program of yours and name that program in
//! [`CompileIn::Worker`].

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use wasmer::sys::{Cranelift, CraneliftOptLevel, EngineBuilder, Features};
use wasmer::{Engine, Module};
use wasmer_types::target::Target;

use crate::memory::{MemoryChecks, Pool, RoomTunables};
use crate::rewrite;

/// How hard the compiler tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tier {
    /// Decide by the module's cost estimate.
    #[default]
    Auto,
    /// Optimised code.
    Speed,
    /// No optimisation: compile time linear in the module's size.
    Quick,
}

/// Where compilation happens.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum CompileIn {
    /// On the calling thread.
    #[default]
    ThisProcess,
    /// In a fresh process per module.
    Worker(WorkerOptions),
}

/// A compile worker: a program that calls [`compile_worker`].
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Wall time after which the worker is killed.
    pub timeout: Duration,
    /// Address space the worker allows itself, in bytes.
    pub address_space_bytes: u64,
}

/// Compilation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The compiler refused the module.
    #[error("the compiler refused the module: {0}")]
    Refused(String),
    /// The worker process could not be started or spoken to.
    #[error("the compile worker failed: {0}")]
    Worker(String),
    /// The worker process ran out of its time.
    #[error("the compile worker was killed after {0:?}")]
    TimedOut(Duration),
}

/// Pinned in the workspace's Cargo.toml; a test compares.
const WASMER_VERSION: &str = "7.4.2";

/// What the produced code depends on, beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) canonical_nans: bool,
    pub(crate) checks: MemoryChecks,
}

impl Settings {
    /// Everything that must agree for cached code to be valid, as text for the cache key.
    pub(crate) fn describe(&self) -> String {
        let target = Target::default();
        format!(
            "wasmer {} cranelift {} nans {} memory {:?} rewrite {} target {} cpu {:?}",
            WASMER_VERSION,
            if self.quick { "none" } else { "speed" },
            if self.canonical_nans {
                "canonical"
            } else {
                "native"
            },
            self.checks,
            rewrite::VERSION,
            target.triple(),
            target.cpu_features(),
        )
    }
}

/// Compiles a rewritten module to wasmer's serialised form.
pub(crate) fn compile(
    wasm: &[u8],
    settings: Settings,
    place: &CompileIn,
) -> Result<Vec<u8>, CompileError> {
    match place {
        CompileIn::ThisProcess => compile_here(wasm, settings),
        CompileIn::Worker(options) => compile_there(wasm, settings, options),
    }
}

/// The features guests may use; see [`crate::rewrite`] for what each refusal says.
fn features() -> Features {
    let mut features = Features::none();
    features
        .bulk_memory(true)
        .multi_value(true)
        .reference_types(true)
        .simd(true);
    features
}

fn compile_here(wasm: &[u8], settings: Settings) -> Result<Vec<u8>, CompileError> {
    let mut compiler = Cranelift::new();
    compiler
        .opt_level(if settings.quick {
            CraneliftOptLevel::None
        } else {
            CraneliftOptLevel::Speed
        })
        .canonicalize_nans(settings.canonical_nans);
    let mut engine = EngineBuilder::new(compiler)
        .set_features(Some(features()))
        .engine();
    // Only the memory style matters while compiling; rooms bring their own tunables.
    engine.set_tunables(RoomTunables::new(
        Arc::new(Pool::new(0)),
        65_536,
        settings.checks,
        0,
    ));
    let engine: Engine = engine.into();
    // A compiler that panics on a module it should have refused must not take the embedder along.
    let module = catch_unwind(AssertUnwindSafe(|| Module::new(&engine, wasm)))
        .map_err(|_| CompileError::Refused("the compiler panicked".into()))?
        .map_err(|error| CompileError::Refused(error.to_string()))?;
    let bytes = module
        .serialize()
        .map_err(|error| CompileError::Refused(error.to_string()))?;
    Ok(bytes.to_vec())
}

/// First bytes of a request and of a reply.
const MAGIC: [u8; 4] = *b"CBW1";
/// Largest module a worker takes and largest artifact a host takes back.
const TRANSFER_BYTES_MAX: u64 = 1 << 30;

fn compile_there(
    wasm: &[u8],
    settings: Settings,
    options: &WorkerOptions,
) -> Result<Vec<u8>, CompileError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CompileError::Worker(format!("{what}: {error}"))
    };
    let mut child = Command::new(&options.program)
        .args(&options.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            CompileError::Worker(format!(
                "cannot start {}: {error}",
                options.program.display()
            ))
        })?;
    let (Some(mut to_child), Some(mut from_child)) = (child.stdin.take(), child.stdout.take())
    else {
        return Err(CompileError::Worker("no pipes to the worker".into()));
    };
    let mut request = Vec::with_capacity(wasm.len() + 32);
    request.extend_from_slice(&MAGIC);
    request.push(u8::from(settings.quick));
    request.push(u8::from(settings.canonical_nans));
    request.push(u8::from(settings.checks == MemoryChecks::InCode));
    request.extend_from_slice(&options.address_space_bytes.to_le_bytes());
    request.extend_from_slice(&(wasm.len() as u64).to_le_bytes());
    request.extend_from_slice(wasm);
    let (sender, receiver) = mpsc::channel();
    let talk = std::thread::Builder::new()
        .name("cabinet-compile".into())
        .spawn(move || {
            // A worker that dies early shows as a short reply.
            let _ = to_child.write_all(&request);
            drop(to_child);
            let mut reply = Vec::new();
            let read = from_child
                .by_ref()
                .take(TRANSFER_BYTES_MAX + 16)
                .read_to_end(&mut reply);
            let _ = sender.send(read.map(|_| reply));
        })
        .map_err(|error| {
            let _ = child.kill();
            let _ = child.wait();
            failed("cannot start a thread", &error)
        })?;
    let reply = receiver.recv_timeout(options.timeout);
    // A worker that answered has nothing left to do; one that did not must go, with whatever it
    // started.
    end_group(&child);
    let _ = child.kill();
    let _ = child.wait();
    if reply.is_ok() {
        let _ = talk.join();
    }
    match reply {
        Err(mpsc::RecvTimeoutError::Timeout) => Err(CompileError::TimedOut(options.timeout)),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(CompileError::Worker(
            "the thread that talks to it died".into(),
        )),
        Ok(Err(error)) => Err(failed("cannot read its reply", &error)),
        Ok(Ok(reply)) => parse_reply(&reply),
    }
}

/// Kills the worker's process group.
fn end_group(child: &std::process::Child) {
    if let Ok(group) = libc::pid_t::try_from(child.id()) {
        // SAFETY: a signal to the group this process made for the worker, which is not reaped yet,
        // so its id names nothing else.
        unsafe { libc::killpg(group, libc::SIGKILL) };
    }
}

/// Magic, status, length, SHA-256 of the body.
const REPLY_HEAD_BYTES: usize = 4 + 1 + 8 + 32;

/// A reply counts only whole: a worker that dies while it writes leaves half of one.
fn parse_reply(reply: &[u8]) -> Result<Vec<u8>, CompileError> {
    let cut = || CompileError::Worker("it ended without an answer (out of memory or time?)".into());
    if reply.get(..4).is_some_and(|magic| magic != MAGIC) {
        return Err(CompileError::Worker("it is not a compile worker".into()));
    }
    let (head, body) = reply.split_at_checked(REPLY_HEAD_BYTES).ok_or_else(cut)?;
    let whole =
        head[5..13] == (body.len() as u64).to_le_bytes() && head[13..] == crate::game::sha256(body);
    if !whole {
        return Err(cut());
    }
    match head[4] {
        0 => Ok(body.to_vec()),
        _ => Err(CompileError::Refused(
            String::from_utf8_lossy(body).into_owned(),
        )),
    }
}

fn reply_head(status: u8, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(REPLY_HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.push(status);
    head.extend_from_slice(&(body.len() as u64).to_le_bytes());
    head.extend_from_slice(&crate::game::sha256(body));
    head
}

/// The body of a compile worker: reads one request from stdin, answers on stdout, returns.
///
/// Call it from `main` of a program you ship (`cabinet compile-worker` will be one), and name that
/// program in [`WorkerOptions`]. It lowers its own address space limit to what the request allows.
pub fn compile_worker() -> ExitCode {
    let mut request = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(TRANSFER_BYTES_MAX)
        .read_to_end(&mut request);
    let answer = match (read, parse_request(&request)) {
        (Ok(_), Some((settings, address_space, wasm))) => {
            limit_address_space(address_space);
            compile_here(wasm, settings)
        }
        _ => Err(CompileError::Worker("malformed request".into())),
    };
    let (status, body) = match answer {
        Ok(artifact) => (0, artifact),
        Err(error) => (1, error.to_string().into_bytes()),
    };
    let mut stdout = std::io::stdout().lock();
    let sent = stdout
        .write_all(&reply_head(status, &body))
        .and_then(|()| stdout.write_all(&body))
        .and_then(|()| stdout.flush());
    if sent.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse_request(request: &[u8]) -> Option<(Settings, u64, &[u8])> {
    let (head, wasm) = request.split_at_checked(23)?;
    if head[..4] != MAGIC {
        return None;
    }
    let settings = Settings {
        quick: head[4] == 1,
        canonical_nans: head[5] == 1,
        checks: if head[6] == 1 {
            MemoryChecks::InCode
        } else {
            MemoryChecks::Reserved
        },
    };
    let address_space = u64::from_le_bytes(head[7..15].try_into().ok()?);
    let len = u64::from_le_bytes(head[15..23].try_into().ok()?);
    (len == wasm.len() as u64).then_some((settings, address_space, wasm))
}

fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: `limit` is a valid rlimit for the duration of the call. A failure leaves the
    // worker's wall-time limit as the bound.
    unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_trip_and_a_short_one_is_refused() {
        let mut request = Vec::new();
        request.extend_from_slice(&MAGIC);
        request.extend_from_slice(&[1, 0, 1]);
        request.extend_from_slice(&77u64.to_le_bytes());
        request.extend_from_slice(&3u64.to_le_bytes());
        request.extend_from_slice(b"abc");
        let (settings, address_space, wasm) = parse_request(&request).unwrap();
        assert!(settings.quick && !settings.canonical_nans);
        assert_eq!(settings.checks, MemoryChecks::InCode);
        assert_eq!((address_space, wasm), (77, &b"abc"[..]));
        assert!(parse_request(&request[..request.len() - 1]).is_none());
        assert!(parse_request(&[]).is_none());
    }

    #[test]
    fn a_reply_counts_only_whole() {
        let body = b"machine code".to_vec();
        let whole = [reply_head(0, &body), body.clone()].concat();
        assert_eq!(parse_reply(&whole).unwrap(), body);
        for end in 0..whole.len() {
            assert!(
                matches!(parse_reply(&whole[..end]), Err(CompileError::Worker(_))),
                "cut at {end}"
            );
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let result = parse_reply(&changed);
            assert!(result.is_err() || at == 4, "changed at {at}");
        }
        let refused = [reply_head(1, b"no"), b"no".to_vec()].concat();
        assert!(matches!(parse_reply(&refused), Err(CompileError::Refused(why)) if why == "no"));
    }

    #[test]
    fn the_version_in_the_cache_key_is_the_one_we_build_with() {
        let lock = include_str!("../../../Cargo.lock");
        let pinned = format!("name = \"wasmer\"\nversion = \"{WASMER_VERSION}\"");
        assert!(lock.contains(&pinned), "Cargo.lock has another wasmer");
    }

    /// An empty module, compiled by a worker that is this program with this argument.
    fn compile_with(program: &str, arg: &str, timeout: Duration) -> Result<Vec<u8>, CompileError> {
        let options = WorkerOptions {
            program: program.into(),
            args: vec![arg.into()],
            timeout,
            address_space_bytes: 1 << 30,
        };
        let settings = Settings {
            quick: false,
            canonical_nans: true,
            checks: MemoryChecks::Reserved,
        };
        compile(b"\0asm\x01\0\0\0", settings, &CompileIn::Worker(options))
    }

    #[test]
    fn a_program_that_is_no_worker_is_named_as_such() {
        let error = compile_with("/bin/cat", "/dev/null", Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, CompileError::Worker(_)), "{error}");
    }

    #[test]
    fn a_worker_that_hangs_is_killed() {
        let error = compile_with("/bin/sleep", "3600", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, CompileError::TimedOut(_)), "{error}");
    }
}
