//! The yardstick: a guest on wasmer with as little around it as it can run with.

use wasmer::sys::{Cranelift, EngineBuilder};
use wasmer::{
    AsStoreMut, Engine, Extern, Function, FunctionEnv, FunctionEnvMut, Instance, Memory, Module,
    Store, TypedFunction,
};

/// A kernel in wasm: a bump allocator, payload access without checks of its own.
const KERNEL: &str = r#"(module
  (memory (export "memory") 16)
  (global $top (mut i64) (i64.const 77))
  (global $length (mut i64) (i64.const 0))
  (func (export "begin") (param $length i64) (result i64)
    (global.set $top (i64.add (i64.const 89) (local.get $length)))
    (global.set $length (local.get $length))
    (i64.const 77))
  (func (export "alloc") (param $n i64) (result i64) (local $at i64)
    (local.set $at (global.get $top))
    (global.set $top (i64.add (i64.add (local.get $at) (local.get $n)) (i64.const 12)))
    (local.get $at))
  (func (export "free") (param i64))
  (func (export "length") (param i64) (result i64) (i64.const 0))
  (func (export "load_u8") (param $at i64) (result i32)
    (i32.load8_u (i32.wrap_i64 (local.get $at))))
  (func (export "load_u64") (param $at i64) (result i64)
    (i64.load (i32.wrap_i64 (local.get $at))))
  (func (export "store_u8") (param $at i64) (param $v i32)
    (i32.store8 (i32.wrap_i64 (local.get $at)) (local.get $v)))
  (func (export "store_u64") (param $at i64) (param $v i64)
    (i64.store (i32.wrap_i64 (local.get $at)) (local.get $v)))
  (func (export "input_length") (result i64) (global.get $length))
  (func (export "input_load_u8") (param $at i64) (result i32)
    (i32.load8_u (i32.wrap_i64 (i64.add (i64.const 77) (local.get $at)))))
  (func (export "input_load_u64") (param $at i64) (result i64)
    (i64.load (i32.wrap_i64 (i64.add (i64.const 77) (local.get $at)))))
  (func (export "output_set") (param i64 i64)))"#;

type Failure = Box<dyn std::error::Error>;

/// A compiled guest and its kernel.
pub struct Bare {
    engine: Engine,
    guest: Module,
    kernel: Module,
}

/// An instance of it.
pub struct BareRoom {
    store: Store,
    instance: Instance,
    kernel: Memory,
    begin: TypedFunction<i64, i64>,
    initialised: bool,
}

impl Bare {
    pub fn compile(wasm: &[u8]) -> Result<Self, Failure> {
        let engine: Engine = EngineBuilder::new(Cranelift::new()).engine().into();
        Ok(Self {
            guest: Module::new(&engine, wasm)?,
            kernel: Module::new(&engine, wat::parse_str(KERNEL)?)?,
            engine,
        })
    }

    pub fn instantiate(&self) -> Result<BareRoom, Failure> {
        let mut store = Store::new(self.engine.clone());
        let env = FunctionEnv::new(&mut store, ());
        let kernel = Instance::new_by_index(&mut store, &self.kernel, &[])?;
        let mut externs: Vec<Extern> = Vec::new();
        for import in self.guest.imports().functions() {
            let from_kernel = (import.module() == "extism:host/env")
                .then(|| kernel.exports.get_extern(import.name()).cloned())
                .flatten();
            externs.push(match from_kernel {
                Some(function) => function,
                None => native(&mut store, &env, import.name()).into(),
            });
        }
        let instance = Instance::new_by_index(&mut store, &self.guest, &externs)?;
        let begin = kernel.exports.get_typed_function(&store, "begin")?;
        Ok(BareRoom {
            kernel: kernel.exports.get_memory("memory")?.clone(),
            begin,
            instance,
            store,
            initialised: false,
        })
    }
}

impl BareRoom {
    pub fn call(&mut self, export: &str, payload: &[u8]) -> Result<(), Failure> {
        if !self.initialised {
            self.initialised = true;
            if let Ok(initialize) = self
                .instance
                .exports
                .get_typed_function::<(), ()>(&self.store, "_initialize")
            {
                initialize.call(&mut self.store)?;
            }
        }
        let at = self.begin.call(&mut self.store, payload.len() as i64)?;
        self.kernel.view(&self.store).write(at as u64, payload)?;
        let function: TypedFunction<(), i32> = self
            .instance
            .exports
            .get_typed_function(&self.store, export)?;
        match function.call(&mut self.store)? {
            0 => Ok(()),
            code => Err(format!("{export} returned {code}").into()),
        }
    }
}

/// A host function that answers 0 and does nothing.
fn native(store: &mut impl AsStoreMut, env: &FunctionEnv<()>, name: &str) -> Function {
    type E<'a> = FunctionEnvMut<'a, ()>;
    match name {
        "send" | "kv_get" => {
            Function::new_typed_with_env(store, env, |_: E<'_>, _: i64, _: i64| -> i64 { 0 })
        }
        "identical" | "config_get" => {
            Function::new_typed_with_env(store, env, |_: E<'_>, _: i64| -> i64 { 0 })
        }
        "end" | "post" | "set_input_context" => {
            Function::new_typed_with_env(store, env, |_: E<'_>, _: i64| {})
        }
        "log" | "kv_delete" => {
            Function::new_typed_with_env(store, env, |_: E<'_>, _: i64, _: i64| {})
        }
        "kv_set" => {
            Function::new_typed_with_env(store, env, |_: E<'_>, _: i64, _: i64, _: i64, _: i64| {})
        }
        "proc_exit" => Function::new_typed_with_env(store, env, |_: E<'_>, _: i32| {}),
        "clock_time_get" => {
            Function::new_typed_with_env(store, env, |_: E<'_>, _: i32, _: i64, _: i32| -> i32 {
                0
            })
        }
        "fd_write" => Function::new_typed_with_env(
            store,
            env,
            |_: E<'_>, _: i32, _: i32, _: i32, _: i32| -> i32 { 0 },
        ),
        // The rest of what the reference's artifacts import takes two numbers.
        _ => Function::new_typed_with_env(store, env, |_: E<'_>, _: i32, _: i32| -> i32 { 0 }),
    }
}
