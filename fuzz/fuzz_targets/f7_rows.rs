//! See `vllm_responses_oracles::rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vllm_responses_oracles::rows::check(bytes));
