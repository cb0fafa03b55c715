//! Connecting a guest's imports: the kernel's wasm functions directly, everything else natively.

use wasmer::{
    AsStoreMut, Exports, Extern, Function, FunctionEnv, FunctionEnvMut, Module, RuntimeError, Value,
};

use crate::rewrite::imports::{ENV, USER, WASI};
use crate::room::shared::Shared;
use crate::room::{user, wasi};

/// One import of a guest, in the order the module lists them.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    space: Space,
    name: String,
    ty: wasmer::FunctionType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Kernel,
    User,
    Wasi,
}

impl Import {
    /// The imports of a module that passed the rewrite: functions of three known modules.
    pub(crate) fn of(module: &Module) -> Vec<Self> {
        module
            .imports()
            .functions()
            .map(|import| Self {
                space: match import.module() {
                    ENV => Space::Kernel,
                    WASI => Space::Wasi,
                    _ => Space::User,
                },
                name: import.name().to_owned(),
                ty: import.ty().clone(),
            })
            .collect()
    }

    /// The host's side of the import; `None` for a name this host does not have, which the
    /// rewrite refuses.
    pub(crate) fn link(
        &self,
        store: &mut impl AsStoreMut,
        env: &FunctionEnv<Shared>,
        kernel: &Exports,
    ) -> Option<Extern> {
        let function = match self.space {
            Space::User => user_function(store, env, &self.name)?,
            Space::Wasi => wasi_function(store, env, &self.name, &self.ty)?,
            Space::Kernel => {
                let export = match self.name.as_str() {
                    "load_u8" | "load_u64" | "store_u8" | "store_u64" | "input_load_u8"
                    | "input_load_u64" => Some(self.name.as_str()),
                    "input_length" => Some("get_input_length"),
                    _ => None,
                };
                match export {
                    Some(name) => return kernel.get_extern(name).cloned(),
                    None => kernel_function(store, env, &self.name)?,
                }
            }
        };
        debug_assert!(function.ty(store) == self.ty, "{} {}", USER, self.name);
        Some(function.into())
    }
}

fn user_function(
    store: &mut impl AsStoreMut,
    env: &FunctionEnv<Shared>,
    name: &str,
) -> Option<Function> {
    Some(match name {
        "send" => Function::new_typed_with_env(store, env, user::send),
        "identical" => Function::new_typed_with_env(store, env, user::identical),
        "set_input_context" => Function::new_typed_with_env(store, env, user::set_input_context),
        "end" => Function::new_typed_with_env(store, env, user::end),
        "post" => Function::new_typed_with_env(store, env, user::post),
        "log" => Function::new_typed_with_env(store, env, user::log),
        "kv_get" => Function::new_typed_with_env(store, env, user::kv_get),
        "kv_set" => Function::new_typed_with_env(store, env, user::kv_set),
        "kv_delete" => Function::new_typed_with_env(store, env, user::kv_delete),
        "config_get" => Function::new_typed_with_env(store, env, user::config_get),
        _ => return None,
    })
}

type Env<'a> = FunctionEnvMut<'a, Shared>;

/// The kernel functions that need the host's block table, or that nobody calls often.
fn kernel_function(
    store: &mut impl AsStoreMut,
    env: &FunctionEnv<Shared>,
    name: &str,
) -> Option<Function> {
    Some(match name {
        "alloc" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>, len: i64| -> Result<i64, RuntimeError> {
                let (shared, mut store) = env.data_and_store_mut();
                let at = shared.kernel.alloc(&mut store, len as u64);
                // What is allocated is cleared later.
                charge(shared, if at == 0 { 0 } else { len as u64 })?;
                Ok(at as i64)
            },
        ),
        "free" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>, at: i64| -> Result<(), RuntimeError> {
                charged(&mut env)?.kernel.free(at as u64);
                Ok(())
            },
        ),
        "length" | "length_unsafe" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>, at: i64| -> Result<i64, RuntimeError> {
                Ok(charged(&mut env)?.kernel.length(at as u64) as i64)
            },
        ),
        "output_set" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>, at: i64, len: i64| -> Result<(), RuntimeError> {
                charged(&mut env)?.kernel.set_output(at as u64, len as u64);
                Ok(())
            },
        ),
        "output_offset" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>| -> Result<i64, RuntimeError> {
                Ok(charged(&mut env)?.kernel.output_range().0 as i64)
            },
        ),
        "output_length" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>| -> Result<i64, RuntimeError> {
                Ok(charged(&mut env)?.kernel.output_range().1 as i64)
            },
        ),
        "input_set" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>, at: i64, len: i64| -> Result<(), RuntimeError> {
                charged(&mut env)?.kernel.set_input(at as u64, len as u64);
                Ok(())
            },
        ),
        "input_offset" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>| -> Result<i64, RuntimeError> {
                Ok(charged(&mut env)?.kernel.input_offset() as i64)
            },
        ),
        "reset" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>| -> Result<(), RuntimeError> {
                let (shared, mut store) = env.data_and_store_mut();
                charge(shared, shared.kernel.dirty_bytes())?;
                shared.kernel.reset(&mut store);
                Ok(())
            },
        ),
        "error_set" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>, at: i64| -> Result<(), RuntimeError> {
                charged(&mut env)?.kernel.set_error(at as u64);
                Ok(())
            },
        ),
        "error_get" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>| -> Result<i64, RuntimeError> {
                Ok(charged(&mut env)?.kernel.error() as i64)
            },
        ),
        "memory_bytes" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>| -> Result<i64, RuntimeError> {
                Ok(charged(&mut env)?.kernel.memory_bytes() as i64)
            },
        ),
        // The manifest configuration is empty and there are no variables; the key's block is
        // freed, as the reference does for variables.
        "config_get" => Function::new_typed_with_env(store, env, |_: Env<'_>, _: i64| -> i64 { 0 }),
        "var_get" => Function::new_typed_with_env(
            store,
            env,
            |mut env: Env<'_>, key: i64| -> Result<i64, RuntimeError> {
                charged(&mut env)?.kernel.free(key as u64);
                Ok(0)
            },
        ),
        "var_set" => Function::new_typed_with_env(
            store,
            env,
            |_: Env<'_>, _: i64, _: i64| -> Result<(), RuntimeError> {
                Err(RuntimeError::new("kernel variables are disabled"))
            },
        ),
        "http_request" => Function::new_typed_with_env(
            store,
            env,
            |_: Env<'_>, _: i64, _: i64| -> Result<i64, RuntimeError> {
                Err(RuntimeError::new("network requests are not allowed"))
            },
        ),
        "http_status_code" => Function::new_typed_with_env(store, env, |_: Env<'_>| -> i32 { 0 }),
        "http_headers" => Function::new_typed_with_env(store, env, |_: Env<'_>| -> i64 { 0 }),
        // Off: above every level.
        "get_log_level" => {
            Function::new_typed_with_env(store, env, |_: Env<'_>| -> i32 { i32::MAX })
        }
        "log_trace" | "log_debug" | "log_info" | "log_warn" | "log_error" => {
            Function::new_typed_with_env(
                store,
                env,
                |mut env: Env<'_>, at: i64| -> Result<(), RuntimeError> {
                    charged(&mut env)?.kernel.free(at as u64);
                    Ok(())
                },
            )
        }
        _ => return None,
    })
}

/// The room's state, once a kernel call that moves nothing is charged.
fn charged<'a>(env: &'a mut Env<'_>) -> Result<&'a mut Shared, RuntimeError> {
    let shared = env.data_mut();
    charge(shared, 0)?;
    Ok(shared)
}

/// Charges a kernel call that moves `bytes`; see [`Shared::charge`].
fn charge(shared: &mut Shared, bytes: u64) -> Result<(), RuntimeError> {
    shared
        .charge(bytes)
        .map_err(|reason| RuntimeError::user(Box::new(reason)))
}

fn wasi_function(
    store: &mut impl AsStoreMut,
    env: &FunctionEnv<Shared>,
    name: &str,
    ty: &wasmer::FunctionType,
) -> Option<Function> {
    let name = crate::rewrite::imports::host_functions()
        .find(|function| function.module == WASI && function.name == name)?
        .name;
    // The three that guests call in play are typed: a typed call costs a third and allocates
    // nothing.
    Some(match name {
        "clock_time_get" => Function::new_typed_with_env(
            store,
            env,
            move |env: Env<'_>, id: i32, precision: i64, at: i32| {
                wasi::call(env, name, &[i64::from(id), precision, i64::from(at as u32)])
            },
        ),
        "random_get" => {
            Function::new_typed_with_env(store, env, move |env: Env<'_>, at: i32, len: i32| {
                wasi::call(env, name, &[i64::from(at as u32), i64::from(len as u32)])
            })
        }
        "fd_write" => Function::new_typed_with_env(
            store,
            env,
            move |env: Env<'_>, fd: i32, list: i32, count: i32, written: i32| {
                let args = [fd, list, count, written].map(|arg| i64::from(arg as u32));
                wasi::call(env, name, &args)
            },
        ),
        _ => Function::new_with_env(store, env, ty.clone(), move |env: Env<'_>, args| {
            let mut words = [0; 9];
            for (word, value) in words.iter_mut().zip(args) {
                *word = match value {
                    Value::I32(value) => i64::from(*value as u32),
                    Value::I64(value) => *value,
                    // No WASI function takes another type.
                    _ => 0,
                };
            }
            let count = args.len().min(words.len());
            let errno = wasi::call(env, name, &words[..count])?;
            Ok(vec![Value::I32(errno)])
        }),
    })
}
