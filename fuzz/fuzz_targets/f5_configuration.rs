//! See `vllm_responses_oracles::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vllm_responses_oracles::configuration::check(bytes));
