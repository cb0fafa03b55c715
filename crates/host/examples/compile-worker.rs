//! A compile worker: what an embedder who wants hard limits on compilation ships beside their
//! program and names in `WorkerOptions`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cabinet_host::compile_worker()
}
