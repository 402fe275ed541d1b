//! What an interpreter must be able to do, whatever it is made of.

use std::fmt;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;

use super::frames::Gathered;
use super::limits::CallLimits;

/// A kind of interpreter. Another one (Python on WASI, a native one in a stricter wall) needs this
/// and nothing else.
pub trait InterpreterBackend: fmt::Debug {
    /// Starts one that can take calls, or says why it cannot, in words for the log.
    fn start(&self) -> LocalBoxFuture<'static, Result<Box<dyn Session>, String>>;

    /// Modules worth importing while an interpreter waits for its first call.
    fn imports(&self) -> &[String];
}

/// One interpreter: one session, never used for another. Dropping it ends it.
pub trait Session: fmt::Debug {
    /// Imports modules ahead of the first call. An error means that it has ended.
    fn warm<'a>(&'a mut self, modules: &'a [String]) -> LocalBoxFuture<'a, Result<(), String>>;

    /// Runs one call in the state that the calls before it left. Unless it completed
    /// and rests, the session is over and must be dropped.
    fn run<'a>(&'a mut self, call: Call<'a>) -> LocalBoxFuture<'a, Ran>;

    /// Processor time that it has used in all; `None` where that cannot be known.
    fn cpu(&self) -> Option<Duration>;

    /// Resolves when it has ended by itself or was ended, and nothing of it is left.
    fn gone(&self) -> LocalBoxFuture<'static, ()>;
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Python.
    pub code: &'a str,
    /// How long it may run.
    pub limits: CallLimits,
    /// Ends it at once, and the session with it.
    pub cancel: &'a CancellationToken,
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it printed and showed, up to its end, whatever that was.
    pub gathered: Gathered,
    /// How it ended.
    pub end: End,
    /// Whether the session has come to rest after a call that completed; else it must be dropped.
    pub rests: bool,
}

impl Default for Ran {
    /// Of a call that was cut off before it brought anything.
    fn default() -> Self {
        Self {
            gathered: Gathered::default(),
            end: End::Died("stopped".to_owned()),
            rests: false,
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself; the traceback if it failed. The only end that the session may outlive.
    Completed(Option<String>),
    /// It ran longer than allowed.
    TimedOut,
    /// The interpreter was gone before it had the code: the call can be made in another.
    NotBegun(String),
    /// Its caller gave it up.
    Cancelled,
    /// The interpreter ended or could not be understood any more.
    Died(String),
}
