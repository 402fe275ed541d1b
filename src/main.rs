//! The `vllm-responses` program; everything is in the library.

use std::process::ExitCode;

/// Responses are made of many short-lived buffers, which the system's allocator serves slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any thread exists: this binary is also its children's guardian, and a container's init.
    if let Some(code) = vllm_responses_actors::process::entry(std::env::args_os()) {
        return code;
    }
    vllm_responses::cli::main()
}
