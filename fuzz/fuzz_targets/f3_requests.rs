//! See `vllm_responses_oracles::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vllm_responses_oracles::requests::check(bytes));
