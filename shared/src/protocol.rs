//! Every message between the three kinds of process, top to bottom.
//!
//! ```text
//!   coordinator --ToZygote + descriptors--> zygote        one socket pair
//!   coordinator --WorkerEnds--------------> zygote        ipc-channel, one for each Fork
//!   coordinator --ToWorker----------------> worker        ipc-channel, one a worker
//!   workers, zygote --ToCoordinator-------> coordinator   ipc-channel, one inbox for all
//! ```
//!
//! One inbox has two virtues. The coordinator waits in one place; and what a worker sent before it died
//! is read before the news of its death, because the zygote sends that later into the same queue.
//! Every frame to the inbox fits one packet (see [`FLUSH_BYTES`]), so a sender that dies never
//! leaves half a message.

use bincode::{Decode, Encode};
use ipc_channel::ipc::IpcReceiver;
use serde::{Deserialize, Serialize};

use crate::artifact::Layout;
use crate::codec::{self, Frame};
use crate::digest::Digest;
use crate::ids::{ArtifactId, NodeId, OpId, WorkerId};
use crate::value::{Kind, Value};

/// A worker sends what it has as soon as that is more than this many bytes. With one more completion
/// of at most [`crate::value::INLINE_MAX_BYTES`], [`LOG_MAX_BYTES`] and [`STATE_MAX_BYTES`] a frame stays below the
/// 212,992 bytes of a packet.
pub const FLUSH_BYTES: usize = 64 << 10;

/// What is kept of a command's stderr.
pub const LOG_MAX_BYTES: usize = 32 << 10;

/// What one task may write to the state.
pub const STATE_MAX_BYTES: usize = 60 << 10;

/// What is kept of an error message.
pub const ERROR_MAX_BYTES: usize = 8 << 10;

/// Coordinator to zygote. Descriptors travel beside it, in the order given.
#[derive(Debug, Encode, Decode)]
pub enum ToZygote {
    /// What every worker of this run is to know. Descriptors: the store's lock, the pulse board, the arena.
    Setup(Setup),
    /// One artifact. Descriptors: its file, then its offset table if it has one.
    Artifact(ArtifactSetup),
    /// All artifacts are sent: map them, then answer [`FromZygote::Ready`].
    Attach,
    /// Start the interpreter that the run's Python nodes share, show it the artifacts, then answer
    /// [`FromZygote::PythonReady`].
    Python(PythonSetup),
    /// Fork a worker; its [`WorkerEnds`] are already in the ipc-channel. Descriptor: its
    /// doorbell, an eventfd that is written to after [`ToWorker::Begin`] and [`ToWorker::Cancel`].
    Fork(WorkerId),
    /// Kill this worker and everything below it.
    Kill(WorkerId),
    /// Kill all workers. (One message for each would wait for the zygote, which may wait for us.)
    KillAll,
}

/// What every worker of a run knows.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Setup {
    /// Random; in the environment of every command, so that what was left over can be recognised.
    pub token: String,
    /// The store's `tmp/`, absolute.
    pub tmp_dir: String,
    /// The store's `blobs/`, absolute.
    pub blobs_dir: String,
    /// Environment variables that commands and Python functions get and that nobody else is to see.
    pub secrets: Vec<String>,
    /// The most bytes that a result may have.
    pub max_result: u64,
    /// How long a worker looks for its next batch before it sleeps, in nanoseconds.
    pub spin_ns: u64,
}

/// How the Python of a run is started. It serializes to what `worker/src/python/forkyard.py` reads.
#[derive(Clone, Debug, Serialize, Encode, Decode)]
pub struct PythonSetup {
    /// The program.
    #[serde(skip)]
    pub interpreter: String,
    /// Where it starts: the manifest's directory, absolute.
    #[serde(skip)]
    pub dir: String,
    /// Its environment, beside what every interpreter gets.
    #[serde(skip)]
    pub env: Vec<(String, String)>,
    /// Folders in which modules are looked for first, absolute.
    pub path: Vec<String>,
    /// Modules that are imported before the first fork; that one cannot be is an error.
    pub preload: Vec<String>,
    /// Modules that are imported likewise if they can be: those that nodes call.
    pub modules: Vec<String>,
    /// Whether some function is asynchronous.
    pub concurrent: bool,
}

/// One artifact, as the coordinator found it.
#[derive(Clone, Debug, Encode, Decode)]
pub struct ArtifactSetup {
    /// Its name in the manifest.
    pub name: String,
    /// Its absolute path.
    pub path: String,
    /// Whether the descriptor is a sealed copy and not the file at `path`.
    pub pinned: bool,
    /// What its bytes mean.
    pub layout: Layout,
}

/// The worker's end of its channel.
#[derive(Serialize, Deserialize)]
pub struct WorkerEnds {
    /// Where [`ToWorker`] frames arrive.
    pub inbox: IpcReceiver<Frame>,
}

/// Coordinator to worker. (A worker is not told to stop: it ends when the zygote ends it.)
#[derive(Debug, Encode, Decode)]
pub enum ToWorker {
    /// Tasks to be run in order.
    Batch(Batch),
    /// Asynchronous tasks to be begun at once, beside those that run.
    Begin(Vec<Task>),
    /// Give up one of those; its completion comes nevertheless.
    Cancel(NodeId),
}

/// A batch of tasks, to be run in order, each claimed in the pulse first.
#[derive(Debug, Encode, Decode)]
pub struct Batch {
    /// Its number; grows.
    pub number: u32,
    /// Which of the pulse's claim words counts it.
    pub slot: u8,
    /// At most `u16::MAX` tasks. One that depends on an earlier one comes after it, and is not run
    /// when that one fails.
    pub tasks: Vec<Task>,
}

/// One attempt to run a node.
#[derive(Debug, Encode, Decode)]
pub struct Task {
    /// The node.
    pub node: NodeId,
    /// Its op.
    pub op: OpId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Parameters by name, sorted.
    pub params: Vec<(String, Param)>,
    /// The artifacts it names.
    pub artifacts: Vec<ArtifactId>,
    /// Results of other nodes that it takes as artifacts, by the nodes' names.
    pub artifact_results: Vec<(String, Param)>,
    /// The state that it sees: a [`crate::context::Context`].
    pub context: u64,
    /// What of that it may read.
    pub reads: Reads,
    /// Whether somebody needs a large result as a file, so that it must not be packed.
    pub plain: bool,
    /// Whether it must not share a Python process with other tasks: it has a time limit, or may be what ended one.
    pub alone: bool,
}

/// Which keys of the state a task may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Reads {
    /// None.
    #[default]
    Nothing,
    /// These.
    Keys(Vec<String>),
    /// All of them.
    All,
}

/// What a task wrote to the state: JSON text by key, or nothing where it removed one. By key.
pub type Writes = Vec<(String, Option<Vec<u8>>)>;

/// A parameter of a task.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Param {
    /// JSON text.
    Json(String),
    /// Another node's result, in this message.
    Inline(Kind, Vec<u8>),
    /// Another node's result, in the store's `blobs/`.
    Blob {
        /// How to read it.
        kind: Kind,
        /// Its name and checksum.
        digest: Digest,
    },
    /// The results of a node's items one by one, for a Python function: as one list they would have to be JSON.
    List(Vec<Param>),
}

impl Param {
    /// Its bytes in a message, about.
    pub fn len(&self) -> usize {
        match self {
            Param::Json(text) => text.len(),
            Param::Inline(_, bytes) => bytes.len(),
            Param::Blob { .. } => 48,
            Param::List(items) => items.iter().map(|item| item.len() + 8).sum(),
        }
    }

    /// Whether it is an empty text or no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Into the coordinator's inbox.
#[derive(Debug, Encode, Decode)]
pub enum ToCoordinator {
    /// A worker's first word: its place and its process id. From the worker, so that it comes before anything it
    /// did.
    Born(WorkerId, u32),
    /// A worker has a Python process now, with this id.
    Python(WorkerId, u32),
    /// What the Python process of a worker wrote to its descriptors before it ended; the worker ends next.
    LastWords(WorkerId, Vec<u8>),
    /// From a worker.
    Worker(FromWorker),
    /// From the zygote.
    Zygote(FromZygote),
    /// From the coordinator's own threads: look at what they left.
    Wake,
}

impl ToCoordinator {
    /// The worker that has sent these bytes, of which only the beginning may be sound.
    pub fn worker_in(bytes: &[u8]) -> Option<WorkerId> {
        let (variant, worker) = codec::decode_first::<(u32, WorkerId)>(bytes)?;
        // Those that start with one.
        (variant < 4).then_some(worker)
    }
}

/// Worker to coordinator.
#[derive(Debug, Encode, Decode)]
pub struct FromWorker {
    /// The sender's place in the pool.
    pub worker: WorkerId,
    /// The batch that these belong to; none if they were begun beside others.
    pub batch: Option<u32>,
    /// Tasks that ended, in the order in which they ran.
    pub done: Vec<Completion>,
    /// How many tasks from the end of the batch the worker gives back unrun, after a failure.
    pub returned: u16,
    /// How many messages about tasks beside others it has read since it said so last.
    pub read: u16,
}

/// A task that ended.
#[derive(Debug, Encode, Decode)]
pub struct Completion {
    /// Its node.
    pub node: NodeId,
    /// When it started: nanoseconds of CLOCK_MONOTONIC.
    pub started_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// What it returned, or the error's text.
    pub outcome: Result<Value, Failure>,
    /// What it wrote to the state.
    pub writes: Writes,
    /// Whether what it returned is nodes: a JSON object that starts with `$nodes`.
    pub generates: bool,
    /// What a command wrote to stderr.
    pub log: Vec<u8>,
    /// What it cost, if it took long enough to be asked.
    pub cost: Option<Cost>,
}

/// What a task took of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct Cost {
    /// Nanoseconds of processor time, of commands that ended too.
    pub cpu_ns: u64,
    /// Nanoseconds in which its process wanted a core that others had. Of a command nobody knows.
    pub delayed_ns: u64,
    /// The private memory of its process. Of a command nobody knows.
    pub private: Option<Private>,
}

/// Private memory with page tables, in bytes, beyond what the process was born with.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct Private {
    /// The most that it held during the task.
    pub peak: u64,
    /// What it held after it.
    pub rest: u64,
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Failure {
    /// For the person who wrote the manifest.
    pub message: String,
    /// What is behind it, where that concerns more than this one task.
    pub cause: Cause,
}

/// What is behind a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
pub enum Cause {
    /// The task itself.
    #[default]
    Task,
    /// An artifact cannot be read any more.
    Artifact(ArtifactId),
    /// The bytes of this blob do not match its digest, or it is gone.
    Blob(Digest),
    /// The store cannot be written.
    Store,
    /// The process in which it ran ended, and others ran there too: nobody knows whose fault that is.
    Suspect,
    /// It asks to be run again after so many milliseconds.
    Later(u64),
    /// It was given up because the coordinator said so.
    Cancelled,
}

/// Zygote to coordinator.
#[derive(Debug, Encode, Decode)]
pub enum FromZygote {
    /// Every artifact is mapped, or the first that could not be, with the reason.
    Ready(Result<(), (ArtifactId, String)>),
    /// Python is there, with its warnings.
    PythonReady(Result<Vec<String>, NoPython>),
    /// The process that forks Python processes ended.
    PythonGone(End),
    /// The system refused to fork.
    ForkFailed(WorkerId, String),
    /// A worker ended, and everything below it is gone.
    Died {
        /// Its place in the pool.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// How it ended.
        end: End,
        /// Whether it was its Python process that ended so, which takes the worker along.
        python: bool,
    },
}

/// Why there is no Python.
#[derive(Debug, Encode, Decode)]
pub enum NoPython {
    /// It cannot be started, or a module not be imported.
    Refused(String),
    /// It was killed before it was ready.
    Gone(End),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum End {
    /// It exited with this status.
    Exit(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            End::Exit(status) => write!(f, "exited with status {status}"),
            End::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
        }
    }
}
