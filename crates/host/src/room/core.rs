//! The instance of a room: a wasmer store with the guest, its kernel and the host's functions,
//! and the one way to call into it.
//!
//! Invariants
//! - no guest code runs without a deadline: instantiation runs none (the rewrite turned the start
//!   section into an export), and every call goes through [`Core::call`];
//! - after a fault nothing is called again; the instance is kept only to be looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmer::{AsStoreMut, Extern, FunctionEnv, Instance, RuntimeError, Store, TypedFunction};
use wasmer_types::TrapCode;
use wasmer_vm::LinearMemory;

use crate::fault::{EXIT_DEADLINE, Fault, TRAP_FRAMES_MAX, Trap, TrapFrame, TrapKind};
use crate::game::GameInner;
use crate::kernel::Wired;
use crate::memory::{RawGlobal, RawMemory};
use crate::rewrite::{DEPTH_EXHAUSTED, ValueType};
use crate::room::shared::{IoStop, Shared, Watch};
use crate::room::wasi::Exit;

/// Fuel given when there is no budget: more than any deadline allows to burn.
const FUEL_PLENTY: i64 = i64::MAX / 2;
/// Longest error text kept.
const ERROR_TEXT_BYTES_MAX: usize = 4_096;

/// A live instance.
pub(crate) struct Core {
    callbacks: Vec<(&'static str, Entry)>,
    initializers: Vec<Initializer>,
    start: Option<Entry>,
    pub(super) env: FunctionEnv<Shared>,
    fuel: RawGlobal,
    limit: RawGlobal,
    depth: RawGlobal,
    pub(super) globals: Vec<(ValueType, RawGlobal)>,
    pub(super) tables: Vec<wasmer::Table>,
    /// Functions that tables and globals may refer to: index in the module, and reference.
    pub(super) functions: Vec<(u32, wasmer_vm::VMFuncRef)>,
    /// The guest's runtime was initialised.
    pub(crate) initialised: bool,
    /// The guest left through `proc_exit`.
    pub(crate) exited: bool,
    pub(super) store: Store,
    pub(super) guest: wasmer::Memory,
}

// SAFETY: wasmer's `Store` is not `Send` because its trap callback and the raw pointers of its
// instances are not marked so. A `Core` owns its store together with everything that refers to
// it: the instance and kernel it created, their memories, globals and tables (as `RawMemory`,
// `RawGlobal`, `VMFuncRef`) and the function environment, whose contents are `Send`. No trap
// callback is installed. Nothing of it is reachable from another thread but the `limit` cell,
// which the watchdog writes atomically, between arm and disarm, both inside one call. All
// thread-local state of wasmer is set up per call. So moving a `Core` between calls moves
// everything at once.
unsafe impl Send for Core {}

/// An export by the shape of its result.
#[derive(Clone)]
enum Entry {
    Nothing(TypedFunction<(), ()>),
    Int(TypedFunction<(), i32>),
    Long(TypedFunction<(), i64>),
}

#[derive(Clone)]
enum Initializer {
    Plain(Entry),
    /// `hs_init`, which takes an argument count and vector.
    Haskell(TypedFunction<(i32, i32), ()>),
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: u32,
    pub(crate) fault: Option<Fault>,
    pub(crate) wall: Duration,
    pub(crate) fuel: u64,
}

impl Core {
    /// Instantiates a game. Runs no guest code.
    pub(crate) fn build(game: &GameInner, shared: Shared) -> Result<Self, String> {
        let mut store = Store::new(game.engine.clone());
        let env = FunctionEnv::new(&mut store, shared);
        let kernel = Instance::new_by_index(&mut store, &game.kernel, &[])
            .map_err(|error| format!("kernel: {error}"))?;
        let mut externs = Vec::with_capacity(game.imports.len());
        for import in &game.imports {
            let linked = import
                .link(&mut store, &env, &kernel.exports)
                .ok_or_else(|| format!("no host function for {import:?}"))?;
            externs.push(linked);
        }
        let instance = Instance::new_by_index(&mut store, &game.module, &externs)
            .map_err(|error| error.to_string())?;

        let kernel_memory = memory_of(&kernel, "memory")?;
        let wired = Wired {
            memory: raw_memory(&mut store, &kernel_memory)?,
            grow: kernel_memory,
            input_offset: raw_global(&mut store, &kernel, "input_offset")?,
            input_length: raw_global(&mut store, &kernel, "input_length")?,
            dirty: raw_global(&mut store, &kernel, "dirty")?,
        };
        let guest = memory_of(&instance, "memory")?;
        let guest_raw = raw_memory(&mut store, &guest)?;
        let shape = &game.shape;
        let mut globals = Vec::with_capacity(shape.globals.len());
        for global in &shape.globals {
            globals.push((
                global.ty,
                raw_global(&mut store, &instance, &global.export)?,
            ));
        }
        let mut tables = Vec::new();
        for table in shape.tables.iter().filter(|table| table.mutated) {
            tables.push(
                instance
                    .exports
                    .get_table(&table.export)
                    .map_err(|error| error.to_string())?
                    .clone(),
            );
        }
        let mut functions = Vec::with_capacity(shape.references.len());
        for function in &shape.references {
            functions.push((
                function.index,
                raw_function(&mut store, &instance, &function.export)?,
            ));
        }
        let mut callbacks = Vec::with_capacity(shape.callbacks.len());
        for callback in &shape.callbacks {
            callbacks.push((callback.name, entry(&store, &instance, callback.name)?));
        }
        let mut core = Self {
            callbacks,
            initializers: initializers(&store, &instance, shape),
            start: shape
                .start
                .map(|name| entry(&store, &instance, name))
                .transpose()?,
            fuel: raw_global(&mut store, &instance, crate::rewrite::FUEL_EXPORT)?,
            limit: raw_global(&mut store, &instance, crate::rewrite::LIMIT_EXPORT)?,
            depth: raw_global(&mut store, &instance, crate::rewrite::DEPTH_EXPORT)?,
            globals,
            tables,
            functions,
            initialised: false,
            exited: false,
            guest,
            env,
            store,
        };
        let (fuel, limit) = (core.fuel, core.limit);
        let shared = core.shared_mut();
        shared.fuel = Some(fuel);
        shared.limit = Some(limit);
        shared.kernel.wire(wired);
        shared.guest = Some(guest_raw);
        Ok(core)
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.env.as_ref(&self.store)
    }

    pub(crate) fn shared_mut(&mut self) -> &mut Shared {
        self.env.as_mut(&mut self.store)
    }

    /// Runs what was the module's start section.
    pub(crate) fn run_start(&mut self, game: &GameInner, deadline: Duration) -> Option<Ended> {
        let start = self.start.clone()?;
        Some(self.guarded(game, deadline, |core| {
            start.call(&mut core.store).map(|_| 0)
        }))
    }

    /// As [`Core::run_start`], for callers that only want to know whether it worked.
    pub(crate) fn pass_start(&mut self, game: &GameInner, deadline: Duration) -> Result<(), Fault> {
        self.run_start(game, deadline)
            .and_then(|ended| ended.fault)
            .map_or(Ok(()), Err)
    }

    /// Calls `shellcade_abi` or `meta` and returns its output.
    pub(crate) fn probe(
        &mut self,
        game: &GameInner,
        export: &'static str,
        deadline: Duration,
    ) -> Result<Vec<u8>, Fault> {
        let ended = self.call(game, export, &[], deadline);
        match ended.fault {
            Some(fault) => Err(fault),
            None => Ok(self.shared().kernel.output().to_vec()),
        }
    }

    /// Calls an export with a payload, initialising the guest's runtime first if that has not
    /// happened. Everything counts against one deadline and one budget.
    pub(crate) fn call(
        &mut self,
        game: &GameInner,
        export: &'static str,
        payload: &[u8],
        deadline: Duration,
    ) -> Ended {
        if self.exited {
            return Ended {
                exit: 0,
                ..Ended::without_calling(Fault::Exited)
            };
        }
        let Some(entry) = self.entry(export) else {
            // The rewrite refuses a module without one of them.
            return Ended::without_calling(Fault::HostBug {
                message: format!("no export {export}"),
            });
        };
        let mut ended = self.guarded(game, deadline, |core| {
            if !core.present(payload) {
                return Err(RuntimeError::user(Box::new(IoStop::Payload)));
            }
            if !core.initialised {
                core.initialised = true;
                for initializer in core.initializers.clone() {
                    initializer.call(&mut core.store)?;
                }
            }
            entry.call(&mut core.store)
        });
        if ended.fault.is_none()
            && let Some(text) = self.shared().kernel.error_text()
        {
            let text = &text[..text.len().min(ERROR_TEXT_BYTES_MAX)];
            // Each bad byte becomes a character of three.
            let mut text = String::from_utf8_lossy(text).into_owned();
            text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
            ended.fault = Some(Fault::ErrorText { text });
        } else if ended.fault.is_none() && ended.exit != 0 {
            ended.fault = Some(Fault::Exit { code: ended.exit });
        }
        ended
    }

    fn entry(&self, export: &str) -> Option<Entry> {
        self.callbacks
            .iter()
            .find(|(name, _)| *name == export)
            .map(|(_, entry)| entry.clone())
    }

    fn present(&mut self, payload: &[u8]) -> bool {
        let mut env = self.env.clone().into_mut(&mut self.store);
        let (shared, mut store) = env.data_and_store_mut();
        shared.kernel.begin(&mut store, payload)
    }

    /// Runs guest code under deadline, budget and depth limit, and classifies how it ended.
    fn guarded(
        &mut self,
        game: &GameInner,
        deadline: Duration,
        run: impl FnOnce(&mut Self) -> Result<u32, RuntimeError>,
    ) -> Ended {
        let budget = game.options.fuel.map_or(FUEL_PLENTY, |fuel| {
            i64::try_from(fuel).unwrap_or(FUEL_PLENTY).min(FUEL_PLENTY)
        });
        self.fuel.set_i64(budget);
        self.limit.set_i64(0);
        self.depth.set_i32(0);
        let began = Instant::now();
        // SAFETY: the store is alive until `self` is dropped, and `disarm` below runs on every
        // path: a panic inside `run` is caught.
        let ticket = unsafe { game.host.watchdog.arm(self.limit, began, deadline) };
        self.shared_mut().io.watch = Some(Watch {
            host: Arc::clone(&game.host),
            ticket,
        });
        let outcome = catch_unwind(AssertUnwindSafe(|| run(self)));
        let watched = game.host.watchdog.disarm(ticket);
        let wall = watched.wall;
        self.shared_mut().io.watch = None;
        let left = self.fuel.get_i64();
        let fuel = budget.saturating_sub(left).max(0).unsigned_abs();
        let (exit, fault) = match outcome {
            Ok(Ok(code)) => (code, None),
            Ok(Err(error)) => {
                let fired = watched.fired.then_some(Fault::Deadline {
                    deadline,
                    stolen: watched.stolen,
                    // A flood of store calls is the guest's own doing, so it had that time.
                    cpu: watched
                        .cpu
                        .map(|cpu| cpu.saturating_add(self.shared().tally.charged_wait)),
                });
                self.classify(game, error, fired, left)
            }
            Err(panic) => (
                1,
                Some(Fault::HostBug {
                    message: format!("a service panicked: {}", panic_text(panic.as_ref())),
                }),
            ),
        };
        Ended {
            exit,
            fault,
            wall,
            fuel,
        }
    }

    fn classify(
        &mut self,
        game: &GameInner,
        error: RuntimeError,
        fired: Option<Fault>,
        fuel_left: i64,
    ) -> (u32, Option<Fault>) {
        if let Some(Exit(code)) = error.downcast_ref::<Exit>() {
            self.exited = true;
            // proc_exit(0) is a success; only the next call finds nobody home.
            let fault = (*code != 0).then_some(Fault::Exit { code: *code });
            return (*code, fault);
        }
        let stop = error.downcast_ref::<IoStop>().copied();
        match stop {
            Some(IoStop::Ceiling) => {
                let shared = self.shared();
                return (
                    EXIT_DEADLINE,
                    Some(Fault::HostIo {
                        waited: shared.tally.io_time,
                        ceiling: shared.io.ceiling,
                    }),
                );
            }
            Some(IoStop::Payload) => {
                let message = "the payload does not fit the kernel's memory".to_owned();
                return (1, Some(Fault::HostBug { message }));
            }
            Some(IoStop::Late | IoStop::Budget) | None => {}
        }
        // The guest's own end comes first: a deadline that fires while a trap is on its way up
        // does not change what happened.
        let depth_exhausted = self.depth.get_i32() == DEPTH_EXHAUSTED;
        if let Some(fuel) = game.options.fuel
            && fuel_left < 0
            && !depth_exhausted
        {
            return (1, Some(Fault::Budget { fuel }));
        }
        let trap = describe(error, depth_exhausted);
        match fired {
            Some(fault) if stop.is_some() || trap.kind == TrapKind::Unreachable => {
                (EXIT_DEADLINE, Some(fault))
            }
            _ => (1, Some(Fault::Trap(trap))),
        }
    }
}

impl Ended {
    fn without_calling(fault: Fault) -> Self {
        Self {
            exit: 1,
            fault: Some(fault),
            wall: Duration::ZERO,
            fuel: 0,
        }
    }
}

impl Entry {
    fn call(&self, store: &mut Store) -> Result<u32, RuntimeError> {
        match self {
            Self::Nothing(function) => function.call(store).map(|()| 0),
            Self::Int(function) => function.call(store).map(|code| code as u32),
            // The low half, as the ABI has it.
            Self::Long(function) => function.call(store).map(|code| code as u32),
        }
    }
}

impl Initializer {
    fn call(&self, store: &mut Store) -> Result<(), RuntimeError> {
        match self {
            // What it answers, if anything, means nothing.
            Self::Plain(function) => function.call(store).map(|_| ()),
            Self::Haskell(function) => function.call(store, 0, 0),
        }
    }
}

/// What to run before the first export, in order: `_initialize`, else `__wasm_call_ctors`; and
/// `hs_init` after `_initialize` where a Haskell runtime has one.
fn initializers(
    store: &Store,
    instance: &Instance,
    shape: &crate::rewrite::Shape,
) -> Vec<Initializer> {
    let has = |name: &str| shape.initializers.iter().any(|found| found.name == name);
    let plain = |name: &str| entry(store, instance, name).ok().map(Initializer::Plain);
    let haskell = has("hs_init")
        .then(|| {
            instance
                .exports
                .get_typed_function::<(i32, i32), ()>(store, "hs_init")
                .ok()
                .map(Initializer::Haskell)
        })
        .flatten();
    let mut order: Vec<Initializer> = Vec::new();
    if has("_initialize") {
        order.extend(plain("_initialize"));
    } else if haskell.is_none() && has("__wasm_call_ctors") {
        order.extend(plain("__wasm_call_ctors"));
    }
    order.extend(haskell);
    order
}

fn entry(store: &Store, instance: &Instance, name: &str) -> Result<Entry, String> {
    let exports = &instance.exports;
    if let Ok(function) = exports.get_typed_function::<(), i32>(store, name) {
        return Ok(Entry::Int(function));
    }
    if let Ok(function) = exports.get_typed_function::<(), ()>(store, name) {
        return Ok(Entry::Nothing(function));
    }
    exports
        .get_typed_function::<(), i64>(store, name)
        .map(Entry::Long)
        .map_err(|error| format!("export {name}: {error}"))
}

fn memory_of(instance: &Instance, name: &str) -> Result<wasmer::Memory, String> {
    instance
        .exports
        .get_memory(name)
        .cloned()
        .map_err(|error| error.to_string())
}

fn raw_memory(store: &mut Store, memory: &wasmer::Memory) -> Result<RawMemory, String> {
    let wasmer_vm::VMExtern::Memory(handle) =
        Extern::Memory(memory.clone()).to_vm_extern().unwrap_sys()
    else {
        return Err("not a memory".into());
    };
    let definition = handle
        .get(store.as_store_mut().objects_mut().as_sys())
        .vmmemory();
    // SAFETY: the definition lives in an instance of `store`, which the caller keeps together
    // with the result; host functions and the room use it only while guest code is stopped.
    Ok(unsafe { RawMemory::new(definition) })
}

fn raw_global(store: &mut Store, instance: &Instance, name: &str) -> Result<RawGlobal, String> {
    let global = instance
        .exports
        .get_global(name)
        .map_err(|error| error.to_string())?;
    let wasmer_vm::VMExtern::Global(handle) =
        Extern::Global(global.clone()).to_vm_extern().unwrap_sys()
    else {
        return Err("not a global".into());
    };
    let definition = handle
        .get(store.as_store_mut().objects_mut().as_sys())
        .vmglobal();
    // SAFETY: as for `raw_memory`.
    Ok(unsafe { RawGlobal::new(definition) })
}

fn raw_function(
    store: &mut Store,
    instance: &Instance,
    name: &str,
) -> Result<wasmer_vm::VMFuncRef, String> {
    let function = instance
        .exports
        .get_function(name)
        .map_err(|error| error.to_string())?;
    let wasmer_vm::VMExtern::Function(handle) = Extern::Function(function.clone())
        .to_vm_extern()
        .unwrap_sys()
    else {
        return Err("not a function".into());
    };
    let mut store = store.as_store_mut();
    let function = handle.get(store.objects_mut().as_sys());
    Ok(wasmer_vm::VMFuncRef(function.anyfunc.as_ptr()))
}

fn describe(error: RuntimeError, depth_exhausted: bool) -> Trap {
    let backtrace = error
        .trace()
        .iter()
        .take(TRAP_FRAMES_MAX)
        .map(|frame| TrapFrame {
            function: frame.func_index(),
            name: frame.function_name().map(str::to_owned),
        })
        .collect();
    let message = error.message();
    let kind = if depth_exhausted {
        TrapKind::CallDepth
    } else {
        match error.to_trap() {
            Some(TrapCode::StackOverflow) => TrapKind::CallDepth,
            Some(TrapCode::HeapAccessOutOfBounds | TrapCode::HeapMisaligned) => {
                TrapKind::MemoryOutOfBounds
            }
            Some(TrapCode::TableAccessOutOfBounds) => TrapKind::TableOutOfBounds,
            Some(TrapCode::IndirectCallToNull) => TrapKind::NullCall,
            Some(TrapCode::BadSignature) => TrapKind::CallType,
            Some(TrapCode::IntegerOverflow) => TrapKind::IntegerOverflow,
            Some(TrapCode::IntegerDivisionByZero) => TrapKind::DivisionByZero,
            Some(TrapCode::BadConversionToInteger) => TrapKind::ConversionToInteger,
            Some(TrapCode::UnreachableCodeReached) => TrapKind::Unreachable,
            Some(_) => TrapKind::Other,
            // Raised by a host function: only the kernel's do.
            None => TrapKind::Kernel,
        }
    };
    Trap {
        kind,
        message,
        backtrace,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a host function panicked".to_owned()
    }
}
