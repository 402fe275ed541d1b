//! See `vllm_responses_oracles::mcp_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vllm_responses_oracles::mcp_messages::check(bytes));
