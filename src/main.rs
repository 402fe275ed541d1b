//! The `vllm-responses` program; everything is in the library.

use std::process::ExitCode;

use vllm_responses_actors::memory::allocator::Allocator;

/// For small blocks a tenth less CPU than the system's; large ones are given back at once.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    // Before any thread exists: this binary is also its children's guardian, and a container's init.
    if let Some(code) = vllm_responses_actors::process::entry(std::env::args_os()) {
        return code;
    }
    vllm_responses::cli::main()
}
