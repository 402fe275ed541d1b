//! The command line of a spawned vLLM.
