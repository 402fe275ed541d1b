//! See `vllm_responses_oracles::guard`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vllm_responses_oracles::guard::check(bytes));
