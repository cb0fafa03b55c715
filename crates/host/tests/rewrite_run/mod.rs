//! Runs a module on wasmer at both optimisation levels; shared by the tests that execute rewrites.

use cabinet_host::rewrite::{DEPTH_EXPORT, FUEL_EXPORT, ModuleLimits, rewrite};
use wasmer::sys::{Cranelift, CraneliftOptLevel, EngineBuilder, Features};
use wasmer::{Engine, Instance, Module, Store, Value, imports};
use wasmer_types::TrapCode;

pub const LEVELS: [CraneliftOptLevel; 2] = [CraneliftOptLevel::None, CraneliftOptLevel::Speed];
pub const PLENTY: i64 = i64::MAX / 2;

/// A guest with `tail`, whose memory has two pages. Its function 0 is a callback.
pub fn guest(tail: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 2 64) (func $callback (result i32) i32.const 0)
           (export "shellcade_abi" (func $callback)) (export "meta" (func $callback))
           (export "start" (func $callback)) (export "join" (func $callback))
           (export "leave" (func $callback)) (export "input" (func $callback))
           (export "wake" (func $callback)) (export "close" (func $callback)) {tail})"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub fn rewritten(tail: &str) -> Vec<u8> {
    rewrite(&guest(tail), &ModuleLimits::default())
        .unwrap()
        .wasm
}

pub struct Running {
    pub store: Store,
    pub instance: Instance,
}

impl Running {
    pub fn new(wasm: &[u8], level: &CraneliftOptLevel) -> Self {
        let mut compiler = Cranelift::new();
        compiler.opt_level(level.clone()).canonicalize_nans(true);
        let mut features = Features::none();
        features
            .bulk_memory(true)
            .multi_value(true)
            .reference_types(true)
            .simd(true);
        let engine: Engine = EngineBuilder::new(compiler)
            .set_features(Some(features))
            .engine()
            .into();
        let mut store = Store::new(engine);
        let module = Module::new(&store, wasm).unwrap();
        let instance = Instance::new(&mut store, &module, &imports! {}).unwrap();
        let mut running = Self { store, instance };
        if running.instance.exports.get_global(FUEL_EXPORT).is_ok() {
            running.set(FUEL_EXPORT, Value::I64(PLENTY));
        }
        running
    }

    pub fn set(&mut self, name: &str, value: Value) {
        let global = self.instance.exports.get_global(name).unwrap().clone();
        global.set(&mut self.store, value).unwrap();
    }

    pub fn get(&mut self, name: &str) -> Value {
        let global = self.instance.exports.get_global(name).unwrap().clone();
        global.get(&mut self.store)
    }

    pub fn fuel(&mut self) -> i64 {
        self.get(FUEL_EXPORT).unwrap_i64()
    }

    pub fn depth(&mut self) -> i32 {
        self.get(DEPTH_EXPORT).unwrap_i32()
    }

    /// Results as text (a NaN is its bits), or the trap.
    pub fn call(&mut self, name: &str, arguments: &[Value]) -> Result<String, TrapCode> {
        let function = self.instance.exports.get_function(name).unwrap().clone();
        match function.call(&mut self.store, arguments) {
            Ok(values) => Ok(values
                .iter()
                .map(|value| match value {
                    Value::F32(float) => format!("f32:{:x} ", float.to_bits()),
                    Value::F64(float) => format!("f64:{:x} ", float.to_bits()),
                    other => format!("{other:?} "),
                })
                .collect()),
            Err(error) => Err(error.to_trap().expect("a wasm trap")),
        }
    }

    pub fn memory(&self) -> Vec<u8> {
        let memory = self.instance.exports.get_memory("memory").unwrap();
        memory.view(&self.store).copy_to_vec().unwrap()
    }
}

pub fn i(value: i32) -> Value {
    Value::I32(value)
}
