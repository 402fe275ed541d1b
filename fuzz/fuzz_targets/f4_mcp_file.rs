//! See `vllm_responses_oracles::mcp_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vllm_responses_oracles::mcp_file::check(bytes));
