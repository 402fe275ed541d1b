//! The `vllm-responses` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vllm_responses::cli::main()
}
