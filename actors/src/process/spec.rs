//! What a caller says about a child before it is started, and hears when it has ended.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{PipeReader, PipeWriter};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Child;
use super::sandbox::Sandbox;
use super::socket::Listener;
use super::sys::Limit;
use crate::mask::Mask;

/// A child to be started.
#[derive(Clone)]
pub struct ChildSpec {
    /// Short name, used as the prefix of its output and in messages.
    pub name: String,
    /// Program, found on the child's own `PATH` when it holds no slash.
    pub program: OsString,
    /// Its arguments. Never a secret: every user of the machine can read them.
    pub args: Vec<OsString>,
    /// Working directory; ours when `None`.
    pub directory: Option<PathBuf>,
    /// Its environment.
    pub env: EnvPolicy,
    /// Its standard input.
    pub stdin: Stdin,
    /// Where its output goes.
    pub output: Output,
    /// Time between SIGTERM and SIGKILL when it is stopped.
    pub grace: Duration,
    /// Texts that are taken out of what it writes: values that it was given and that are secrets.
    pub secrets: Mask,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// The wall around it, as far as this machine's kernel can build one; none for trusted programs.
    pub sandbox: Option<Sandbox>,
}

/// Arguments and secrets are told as numbers.
impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("env", &self.env)
            .field("args", &self.args.len())
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

/// A child's environment (decision 14). Children never see `VR_*` unless it is set for them.
#[derive(Clone)]
pub enum EnvPolicy {
    /// Ours, without `VR_*` and `hidden`, plus `set`.
    InheritWithoutOurs {
        /// Names of further secrets of ours.
        hidden: Vec<OsString>,
        /// Variables added or replaced, kept even when they begin with `VR_`.
        set: Vec<(OsString, OsString)>,
    },
    /// These variables and no others.
    Only(Vec<(OsString, OsString)>),
}

/// Names only: a value may be a secret.
impl fmt::Debug for EnvPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, set) = match self {
            Self::InheritWithoutOurs { set, .. } => ("InheritWithoutOurs", set),
            Self::Only(set) => ("Only", set),
        };
        f.write_str(kind)?;
        f.debug_list()
            .entries(set.iter().map(|(name, _)| name))
            .finish()
    }
}

impl EnvPolicy {
    /// The variables a child gets, given ours.
    pub(super) fn resolve(
        &self,
        ours: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        match self {
            Self::Only(variables) => variables.clone(),
            Self::InheritWithoutOurs { hidden, set } => ours
                .filter(|(name, _)| !is_ours(name) && !hidden.contains(name))
                .chain(set.iter().cloned())
                .collect(),
        }
    }
}

fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"VR_")
}

/// A child's standard input.
#[derive(Clone, Debug)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    /// A pipe that stays open and silent until the child is stopped.
    Held,
    /// A pipe for the caller, who closes it before stopping the child.
    Piped,
    /// A listening socket, which the child serves.
    Listener(Listener),
}

/// Where a child's output goes. The last lines are kept in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Both streams, line by line, as `name| line` to the launcher's sink.
    Prefixed,
    /// The same, without lines that hold one of these texts: what a child says of our own probes, for
    /// ever, would be all there is to see.
    PrefixedWithout(&'static [&'static str]),
    /// Both streams are only kept.
    Captured,
    /// Standard output is a pipe for the caller, standard error goes to the sink.
    Protocol,
    /// Standard output is a pipe for the caller, standard error is only kept: what a program writes
    /// that runs code of strangers has no place in our log.
    Exchange,
}

/// A started child with the caller's ends of its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// The handle.
    pub child: Child,
    /// With [`Stdin::Piped`].
    pub stdin: Option<PipeWriter>,
    /// With [`Output::Protocol`].
    pub stdout: Option<PipeReader>,
}

/// Why a child could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// The program does not exist.
    #[error("program `{program}` of {name} not found; install it or give its full path")]
    NotFound {
        /// The child's name.
        name: String,
        /// What was to be started.
        program: String,
    },
    /// The system refused, e.g. no permission or too many processes.
    #[error("cannot start {name}: {reason}")]
    Refused {
        /// The child's name.
        name: String,
        /// The system's own words.
        reason: String,
    },
    /// The launcher's thread is gone: the gateway is ending.
    #[error("cannot start {name}: the launcher has stopped")]
    Stopped {
        /// The child's name.
        name: String,
    },
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// By itself, with this code. 0 is no success: a server has no reason to end.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Its guardian was killed, and it was killed with it.
    GuardianLost,
}

impl ExitKind {
    /// The code with which a program ends because this child ended: never 0.
    pub fn exit_code(self) -> u8 {
        let number = match self {
            Self::Code(0) => 1,
            Self::Code(code) => code,
            Self::Signal(number) => 128 + number,
            Self::GuardianLost => 128 + 9,
        };
        u8::try_from(number).unwrap_or(1)
    }
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
            Self::GuardianLost => f.write_str("killed because its guardian was killed"),
        }
    }
}

/// What is known of a child that has ended; by then its whole tree is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitReport {
    /// How it ended.
    pub kind: ExitKind,
    /// Its last lines, oldest first, at most [`super::LAST_LINES`].
    pub last_lines: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(names: &[&str]) -> Vec<(OsString, OsString)> {
        names.iter().map(|name| (name.into(), "v".into())).collect()
    }

    #[test]
    fn p8_children_inherit_nothing_of_ours() {
        let ours = pairs(&[
            "PATH",
            "VR_DB_PATH",
            "VR_OPENAI_API_KEY",
            "HF_TOKEN",
            "EXA_API_KEY",
        ]);
        let policy = EnvPolicy::InheritWithoutOurs {
            hidden: vec!["EXA_API_KEY".into()],
            set: pairs(&["VR_CHILD_TOKEN"]),
        };
        let expected = pairs(&["PATH", "HF_TOKEN", "VR_CHILD_TOKEN"]);
        assert_eq!(policy.resolve(ours.clone().into_iter()), expected);
        let only = EnvPolicy::Only(pairs(&["HOME"]));
        assert_eq!(only.resolve(ours.into_iter()), pairs(&["HOME"]));
    }

    #[test]
    fn debug_shows_no_value() {
        let policy = EnvPolicy::Only(vec![("TOKEN".into(), "hush".into())]);
        assert_eq!(format!("{policy:?}"), "Only[\"TOKEN\"]");
    }

    #[test]
    fn an_exit_is_never_success() {
        let codes = [
            (ExitKind::Code(0), 1),
            (ExitKind::Code(3), 3),
            (ExitKind::Signal(15), 143),
            (ExitKind::GuardianLost, 137),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.exit_code(), code, "{kind}");
        }
    }
}
