//! Doors for `benches/`, which can only use what is public: each calls one private part and decides
//! nothing. Not an interface; it changes with the parts behind it.

use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use forkyard_shared::blob;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::sink::{Body, Sink};
use forkyard_shared::value::{INLINE_MAX_BYTES, Kind};

use crate::graph::{Graph, GraphBuilder};
pub use crate::queue::{Queue, Taken};
use crate::schedule::{Scheduler, Urgency};
pub use crate::state::{State, StateError, Ticket};
use crate::store::{
    Layout, Lock, NewResult, NewValue, Outcome, Reader, RunDir, RunHeader, StoreDir, StoreError, Writer,
    WriterSettings,
};

/// The graph of a run.
pub struct Dag(Graph);

impl Dag {
    /// The graph of nodes that each need those of its list.
    ///
    /// # Panics
    /// When they run in a circle.
    pub fn build(needs: &[Vec<u32>]) -> Dag {
        let mut builder = GraphBuilder::new();
        needs.iter().for_each(|needs| builder.push(needs.iter().copied().map(NodeId)));
        Dag(builder.build().expect("no node needs itself"))
    }

    /// Takes every node through the scheduler, one at a time; how many there were.
    pub fn drain(&self) -> usize {
        let remaining = self.0.remaining(|_| 1.0).into_iter();
        let urgency = remaining.map(|remaining| Urgency { priority: 0, remaining }).collect();
        let mut scheduler = Scheduler::new(&self.0, urgency, |_| true);
        while !scheduler.is_drained() {
            while let Some(node) = scheduler.next_fresh() {
                scheduler.must_run(node);
            }
            if let Some(node) = scheduler.take() {
                scheduler.done(node, Outcome::Ran);
            }
        }
        scheduler.counts().ran
    }
}

/// The writer of an empty store, and the lock that it needs.
pub struct Log {
    dir: StoreDir,
    layout: Layout,
    writer: Writer,
    _lock: Lock,
}

impl Log {
    /// Makes the store, with the layout of this name.
    ///
    /// # Errors
    /// When the store cannot be made.
    ///
    /// # Panics
    /// When there is no such layout.
    pub fn create(dir: &Path, layout: &str) -> Result<Log, StoreError> {
        let dir = StoreDir::new(dir);
        let wanted = Layout::from_name(layout).expect("a layout");
        let (lock, layout) = dir.prepare(wanted)?;
        let header = RunHeader {
            given: std::collections::BTreeMap::new(),
            path: PathBuf::new(),
            manifest: String::new(),
            name: None,
            nodes: 0,
            workers: 0,
            pid: 0,
            started: 0,
            is_sample: false,
            commit: String::new(),
        };
        let run = RunDir::create(&dir.path, &header)
            .map_err(|error| StoreError::Io("make the run's directory".into(), error))?;
        let settings = WriterSettings {
            commit_every: usize::MAX,
            commit_within: Duration::from_secs(3600),
            unchanged: Box::new(|_| true),
            wake: Box::new(|| {}),
        };
        Ok(Log { writer: Writer::start(&dir, layout, &run, settings)?, dir, layout, _lock: lock })
    }

    /// Appends results, as a worker and the coordinator do together; they are durable when it returns. How long the
    /// writer took of that time.
    ///
    /// # Panics
    /// When there is no room.
    pub fn append(&mut self, results: &[(Digest, Vec<u8>)]) -> Duration {
        for (node, (key, bytes)) in results.iter().enumerate() {
            let mut sink = Sink::new(&self.dir.tmp_dir(), "bench", INLINE_MAX_BYTES, true);
            let (value, digest) = if bytes.len() > INLINE_MAX_BYTES {
                sink.write_all(bytes).expect("there is room");
                match sink.finish().expect("there is room") {
                    Body::File { name, len, digest, packed } => {
                        let blobs = self.dir.worker_blobs_dir(self.layout);
                        blob::adopt(&blobs, &self.dir.tmp_dir().join(name), digest, packed).expect("a blob");
                        (NewValue::File { len }, digest)
                    }
                    Body::Inline { bytes, digest } => (NewValue::Bytes(bytes), digest),
                }
            } else {
                (NewValue::Bytes(bytes.clone()), Digest::of(bytes))
            };
            self.writer.put(NewResult {
                node: NodeId::new(node),
                key: *key,
                kind: Kind::Bytes,
                digest,
                value,
                duration: Duration::ZERO,
                artifacts: Vec::new(),
                wanted: false,
                extra: Vec::new(),
            });
        }
        let start = Instant::now();
        self.writer.flush();
        start.elapsed()
    }

    /// How many of them are.
    pub fn durable(&self) -> u64 {
        self.writer.durable()
    }
}

/// A store as a run finds it.
pub struct Lookup(Reader);

impl Lookup {
    /// Opens a store in which so many keys will be looked up.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(dir: &Path, expected: usize) -> Result<Lookup, StoreError> {
        let dir = StoreDir::new(dir);
        Reader::for_run(&dir, dir.layout()?, expected, None).map(Lookup)
    }

    /// Looks up every key; how many there were.
    pub fn count<'a>(&self, keys: impl Iterator<Item = &'a Digest>) -> usize {
        keys.filter_map(|key| black_box(self.0.lookup(*key))).count()
    }

    /// The value of a key, checked.
    ///
    /// # Errors
    /// When it cannot be read.
    ///
    /// # Panics
    /// When there is none.
    pub fn read(&self, key: Digest) -> Result<Vec<u8>, StoreError> {
        self.0.read(&self.0.lookup(key).expect("the key is stored"))
    }

    /// Calls `work`, which reads a lot, on one moment of the store.
    pub fn at_one_moment<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.at_one_moment(work)
    }
}

/// Folds all that can be folded, and calls `between` after each part.
///
/// # Errors
/// When the store cannot be written.
pub fn fold(dir: &Path, mut between: impl FnMut()) -> Result<(), StoreError> {
    let dir = StoreDir::new(dir);
    let mut backend = dir.open(dir.layout()?)?;
    while backend.fold(&AtomicBool::new(false))? {
        between();
    }
    between();
    Ok(())
}
