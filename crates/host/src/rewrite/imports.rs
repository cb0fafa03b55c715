//! The functions a guest may import, with their exact types.
//!
//! Source: docs/ABI.md: the ten game functions, the kernel, and all 46 functions of WASI
//! preview 1. Whatever is not in this table does not link.

use super::refusal::{Refusal, quote};
use super::shape::{Signature, ValueType};

/// The game functions.
pub const USER: &str = "extism:host/user";
/// The kernel, which moves payloads.
pub const ENV: &str = "extism:host/env";
/// WASI preview 1.
pub const WASI: &str = "wasi_snapshot_preview1";

/// One function of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFunction {
    /// [`USER`], [`ENV`] or [`WASI`].
    pub module: &'static str,
    /// Name within the module.
    pub name: &'static str,
    params: &'static str,
    result: &'static str,
}

impl HostFunction {
    /// The type a guest must import it with.
    pub fn signature(&self) -> Signature {
        Signature {
            params: self.params.chars().map(value_type).collect(),
            results: self.result.chars().map(value_type).collect(),
        }
    }
}

/// Every function a guest may import, by module and in the order of the specification.
pub fn host_functions() -> impl Iterator<Item = &'static HostFunction> {
    USER_FUNCTIONS
        .iter()
        .chain(ENV_FUNCTIONS)
        .chain(WASI_FUNCTIONS)
}

/// The host's function behind an import, if module, name and type all agree.
pub(super) fn resolve(
    module: &str,
    name: &str,
    found: &Signature,
) -> Result<&'static HostFunction, Refusal> {
    let functions = match module {
        USER => USER_FUNCTIONS,
        ENV => ENV_FUNCTIONS,
        WASI => WASI_FUNCTIONS,
        _ => {
            return Err(Refusal::ImportModule {
                module: quote(module),
                name: quote(name),
            });
        }
    };
    let Some(function) = functions.iter().find(|function| function.name == name) else {
        return Err(Refusal::ImportName {
            module: quote(module),
            name: quote(name),
        });
    };
    let expected = function.signature();
    if expected != *found {
        return Err(Refusal::ImportType {
            module: quote(module),
            name: quote(name),
            expected: expected.to_string(),
            found: quote(&found.to_string()),
        });
    }
    Ok(function)
}

/// `i` is i32 and `I` is i64, as in docs/ABI.md; no host function has a float.
fn value_type(letter: char) -> ValueType {
    if letter == 'I' {
        ValueType::I64
    } else {
        ValueType::I32
    }
}

const fn user(name: &'static str, params: &'static str, result: &'static str) -> HostFunction {
    HostFunction {
        module: USER,
        name,
        params,
        result,
    }
}

const fn env(name: &'static str, params: &'static str, result: &'static str) -> HostFunction {
    HostFunction {
        module: ENV,
        name,
        params,
        result,
    }
}

const fn wasi(name: &'static str, params: &'static str, result: &'static str) -> HostFunction {
    HostFunction {
        module: WASI,
        name,
        params,
        result,
    }
}

const USER_FUNCTIONS: &[HostFunction] = &[
    user("send", "II", "I"),
    user("identical", "I", "I"),
    user("set_input_context", "I", ""),
    user("end", "I", ""),
    user("post", "I", ""),
    user("log", "II", ""),
    user("kv_get", "II", "I"),
    user("kv_set", "IIII", ""),
    user("kv_delete", "II", ""),
    user("config_get", "I", "I"),
];

const ENV_FUNCTIONS: &[HostFunction] = &[
    env("alloc", "I", "I"),
    env("free", "I", ""),
    env("length", "I", "I"),
    env("length_unsafe", "I", "I"),
    env("load_u8", "I", "i"),
    env("load_u64", "I", "I"),
    env("store_u8", "Ii", ""),
    env("store_u64", "II", ""),
    env("input_length", "", "I"),
    env("input_load_u8", "I", "i"),
    env("input_load_u64", "I", "I"),
    env("output_set", "II", ""),
    env("input_set", "II", ""),
    env("input_offset", "", "I"),
    env("output_length", "", "I"),
    env("output_offset", "", "I"),
    env("reset", "", ""),
    env("error_get", "", "I"),
    env("error_set", "I", ""),
    env("memory_bytes", "", "I"),
    env("config_get", "I", "I"),
    env("var_get", "I", "I"),
    env("var_set", "II", ""),
    env("http_request", "II", "I"),
    env("http_status_code", "", "i"),
    env("http_headers", "", "I"),
    env("get_log_level", "", "i"),
    env("log_trace", "I", ""),
    env("log_debug", "I", ""),
    env("log_info", "I", ""),
    env("log_warn", "I", ""),
    env("log_error", "I", ""),
];

const WASI_FUNCTIONS: &[HostFunction] = &[
    wasi("args_get", "ii", "i"),
    wasi("args_sizes_get", "ii", "i"),
    wasi("clock_res_get", "ii", "i"),
    wasi("clock_time_get", "iIi", "i"),
    wasi("environ_get", "ii", "i"),
    wasi("environ_sizes_get", "ii", "i"),
    wasi("fd_advise", "iIIi", "i"),
    wasi("fd_allocate", "iII", "i"),
    wasi("fd_close", "i", "i"),
    wasi("fd_datasync", "i", "i"),
    wasi("fd_fdstat_get", "ii", "i"),
    wasi("fd_fdstat_set_flags", "ii", "i"),
    wasi("fd_fdstat_set_rights", "iII", "i"),
    wasi("fd_filestat_get", "ii", "i"),
    wasi("fd_filestat_set_size", "iI", "i"),
    wasi("fd_filestat_set_times", "iIIi", "i"),
    wasi("fd_pread", "iiiIi", "i"),
    wasi("fd_prestat_dir_name", "iii", "i"),
    wasi("fd_prestat_get", "ii", "i"),
    wasi("fd_pwrite", "iiiIi", "i"),
    wasi("fd_read", "iiii", "i"),
    wasi("fd_readdir", "iiiIi", "i"),
    wasi("fd_renumber", "ii", "i"),
    wasi("fd_seek", "iIii", "i"),
    wasi("fd_sync", "i", "i"),
    wasi("fd_tell", "ii", "i"),
    wasi("fd_write", "iiii", "i"),
    wasi("path_create_directory", "iii", "i"),
    wasi("path_filestat_get", "iiiii", "i"),
    wasi("path_filestat_set_times", "iiiiIIi", "i"),
    wasi("path_link", "iiiiiii", "i"),
    wasi("path_open", "iiiiiIIii", "i"),
    wasi("path_readlink", "iiiiii", "i"),
    wasi("path_remove_directory", "iii", "i"),
    wasi("path_rename", "iiiiii", "i"),
    wasi("path_symlink", "iiiii", "i"),
    wasi("path_unlink_file", "iii", "i"),
    wasi("poll_oneoff", "iiii", "i"),
    wasi("proc_exit", "i", ""),
    wasi("proc_raise", "i", "i"),
    wasi("random_get", "ii", "i"),
    wasi("sched_yield", "", "i"),
    wasi("sock_accept", "iii", "i"),
    wasi("sock_recv", "iiiiii", "i"),
    wasi("sock_send", "iiiii", "i"),
    wasi("sock_shutdown", "ii", "i"),
];
