//! What a set-up tells the one who waits for it.

/// Hears how a set-up goes.
pub trait Progress {
    /// A new step began. Shown once each.
    fn step(&mut self, text: &str);
    /// So many bytes of the step's file are there.
    fn bytes(&mut self, done: u64, total: u64);
    /// The step says something about itself; may be lost.
    fn detail(&mut self, text: &str);
    /// A second went by and nothing else was to be told.
    fn tick(&mut self);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _text: &str) {}
    fn bytes(&mut self, _done: u64, _total: u64) {}
    fn detail(&mut self, _text: &str) {}
    fn tick(&mut self) {}
}
