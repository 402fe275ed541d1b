//! The real program, run in a directory and an environment of its own.

mod bad;
mod bad_files;
mod db;
mod effective;
mod lifecycle;
mod others;
mod setup;
mod spawn;
mod start;
mod status;

use std::process::{Command, Output};

use tempfile::TempDir;

/// A clean directory; the environment holds only what a test gives.
pub(crate) struct Place(pub(crate) TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .envs(env.iter().copied())
            .output()
            .unwrap()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
