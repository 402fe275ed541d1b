//! The code interpreter: Python written by a model, run in single-use processes behind three walls.
//!
//! ```text
//! TurnActor ──Execute──▶ CodeInterpreterActor ──▶ worker ──frames──▶ Deno + Pyodide (one session)
//!      or   ──Execute──▶ RemoteInterpreterActor ──HTTP──▶ `vllm-responses code-interpreter`
//! ```
//!
//! - [`messages`] is what can be asked.
//! - [`actor`] owns the pool and the sessions; [`pool`] and [`sessions`] are its rules, without I/O.
//! - [`backend`] is what a kind of interpreter must be able to do; [`worker`] is the one there is.
//! - [`remote`] takes the same messages and passes them on to a service; [`wire`] is what the two say.
//! - [`frames`] is the protocol with a worker, who is never trusted; [`limits`] has every number.
//! - [`bundle`] is the folder that workers run from; [`setup`] makes it.
//! - [`settings`] is what the configuration says about all of this.
//!
//! The walls: Python sees next to no JavaScript and no text becomes code (`harness.mjs`); Deno has no
//! permission left when model code begins; and the kernel lets the process read its bundle and nothing
//! else (`process::sandbox`).

pub mod actor;
pub mod backend;
pub mod bundle;
pub mod frames;
pub mod limits;
pub mod messages;
pub mod pool;
pub mod remote;
pub mod sessions;
pub mod settings;
pub mod setup;
pub mod start;
pub mod tool;
pub mod wire;
pub mod worker;
