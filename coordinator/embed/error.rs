//! What can go wrong with a pool, step by step: nobody has to match what cannot happen to them.

use std::fmt;

use crate::run::RunError;

/// Why a pool does not start. Nothing has run.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// [`crate::init`] was not called, or this process has had its pool already: there is one a process.
    NoZygote(String),
    /// An artifact is missing, or is not what its name says.
    Artifact(String),
    /// The store cannot be used: it is in use, damaged, or there is no room.
    Store(String),
    /// Not even one worker fits in memory; the arithmetic.
    Memory(String),
    /// A variable cannot be JSON, or something is named twice.
    Settings(String),
    /// The system refuses processes, threads or descriptors.
    System(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (StartError::NoZygote(why)
        | StartError::Artifact(why)
        | StartError::Store(why)
        | StartError::Memory(why)
        | StartError::Settings(why)
        | StartError::System(why)) = self;
        write!(f, "start the pool: {why}")
    }
}

impl std::error::Error for StartError {}

impl From<RunError> for StartError {
    fn from(error: RunError) -> StartError {
        let why = error.to_string();
        match error {
            RunError::Usage(why) => StartError::NoZygote(why),
            RunError::Artifact(_) => StartError::Artifact(why),
            RunError::Open(_) | RunError::Store(_) => StartError::Store(why),
            RunError::Memory(_) => StartError::Memory(why),
            _ => StartError::System(why),
        }
    }
}

/// Why a node is not taken. It has not run and will not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError {
    /// The pool is closed, or has ended; why.
    Closed(String),
    /// As many nodes as the pool's bound allows are under way ([`crate::Pool::try_submit`] only).
    Full,
    /// The node cannot run: no such op or artifact, or a parameter that the op does not take.
    Wrong(String),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            SubmitError::Closed(why) => write!(f, "the pool takes no more nodes: {why}"),
            SubmitError::Full => f.write_str("as many nodes are under way as the pool's bound allows"),
            SubmitError::Wrong(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SubmitError {}

/// Why a node that was submitted has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// The op returned this error, or panicked, as often as the node may be tried.
    Failed(String),
    /// It killed its worker, again and again.
    Crashed(String),
    /// It took longer than its time limit, as often as it may be tried.
    TimedOut(String),
    /// Somebody cancelled it.
    Cancelled,
    /// An artifact was changed while it was mapped: nobody knows what was read.
    ArtifactChanged(String),
    /// The pool ended before the node did; why.
    PoolEnded(String),
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            TaskError::Failed(why)
            | TaskError::Crashed(why)
            | TaskError::TimedOut(why)
            | TaskError::ArtifactChanged(why) => f.write_str(why),
            TaskError::Cancelled => f.write_str("cancelled"),
            TaskError::PoolEnded(why) => write!(f, "the pool has ended: {why}"),
        }
    }
}

impl std::error::Error for TaskError {}

/// Why a result is not what was asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum ValueError {
    /// It is no such type: bytes, or other JSON.
    Type(String),
    /// It cannot be read from the store.
    Read(String),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (ValueError::Type(why) | ValueError::Read(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for ValueError {}
