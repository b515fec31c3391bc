//! What a pool consists of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use forkyard_shared::spin::SPIN;
use parking_lot::Mutex;
use serde::Serialize;

use super::error::StartError;
use super::handle::{Pool, Shared};
use super::session::{self, Wanted};
use crate::cost::BATCH_MAX_TASKS;
use crate::init::Runtime;
use crate::manifest::ArtifactEntry;
use crate::threads;

/// Nodes under way at the most, if nobody says otherwise.
const BOUND: usize = 100_000;

/// How many workers a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// One a core at first, and more while the others only wait, as memory allows.
    #[default]
    Auto,
    /// So many.
    Fixed(usize),
}

/// What a pool is to consist of: [`Pool::builder`] begins, [`Builder::start`] ends.
#[derive(Debug)]
pub struct Builder {
    artifacts: Vec<ArtifactEntry>,
    vars: BTreeMap<String, String>,
    workers: Workers,
    store: Option<PathBuf>,
    bound: usize,
    batch: usize,
    spin: Duration,
    mistake: Option<String>,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            artifacts: Vec::new(),
            vars: BTreeMap::new(),
            workers: Workers::Auto,
            store: None,
            bound: BOUND,
            batch: BATCH_MAX_TASKS,
            spin: SPIN,
            mistake: None,
        }
    }

    /// A file that is mapped once for all workers. What it is, its suffix says: `.npy` a matrix, `.jsonl` records, and
    /// anything else bytes.
    pub fn artifact(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Builder {
        self.add(ArtifactEntry::of(&name.into(), path.into()))
    }

    /// The same for a file that somebody may change while the pool lives: a sealed copy in memory is mapped.
    pub fn pinned(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Builder {
        self.add(ArtifactEntry { pin: true, ..ArtifactEntry::of(&name.into(), path.into()) })
    }

    fn add(mut self, entry: ArtifactEntry) -> Builder {
        if self.artifacts.iter().any(|known| known.name == entry.name) {
            self.mistake = Some(format!("there are two artifacts `{}`", entry.name));
        }
        self.artifacts.push(entry);
        self
    }

    /// A variable, the same for all nodes that read it ([`crate::Node::reads`]).
    pub fn var(mut self, name: impl Into<String>, value: impl Serialize) -> Builder {
        let name = name.into();
        match serde_json::to_value(value) {
            Ok(value) => drop(self.vars.insert(name, value.to_string())),
            Err(error) => self.mistake = Some(format!("variable {name} cannot be JSON: {error}")),
        }
        self
    }

    /// How many workers there are. [`Workers::Auto`] if not said.
    pub fn workers(mut self, workers: Workers) -> Builder {
        self.workers = workers;
        self
    }

    /// The directory of a store, which is made if it is not there: results are kept there, and a node whose result is
    /// there does not run again. Without one, results are only in their tickets; large ones go through a directory of
    /// their own in the system's directory for temporary files, which is removed in the end.
    pub fn store(mut self, dir: impl Into<PathBuf>) -> Builder {
        self.store = Some(dir.into());
        self
    }

    /// How many nodes may be under way, from submission to answer: then [`Pool::submit`] waits. 100,000 if not said.
    pub fn bound(mut self, nodes: usize) -> Builder {
        self.bound = nodes.max(1);
        self
    }

    /// How many nodes a worker is sent at once at the most. Less than the 256 that there may be if not said makes
    /// sense only to see what a message costs.
    pub fn batch(mut self, nodes: usize) -> Builder {
        self.batch = nodes.clamp(1, BATCH_MAX_TASKS);
        self
    }

    /// How long workers, and whoever waits for them, look for what comes next before they sleep: 30 us if not said. To
    /// look costs a core, to be woken 15 to 60 us. More pays where results must be there at once and cores have nothing
    /// else to do, and none where they do.
    pub fn spin(mut self, limit: Duration) -> Builder {
        self.spin = limit;
        self
    }

    /// Opens the store, maps the artifacts and starts the engine. Workers are forked as there is work for them.
    ///
    /// # Errors
    /// When any of that cannot be done.
    pub fn start(self) -> Result<Pool, StartError> {
        if let Some(mistake) = self.mistake {
            return Err(StartError::Settings(mistake));
        }
        let runtime = Runtime::get().map_err(StartError::NoZygote)?;
        let names = self.artifacts.iter().map(|entry| entry.name.clone()).collect();
        let shared = Arc::new(Shared::new(runtime.ops(), names, self.bound, self.spin));
        let wanted = Wanted {
            artifacts: self.artifacts,
            vars: self.vars,
            workers: match self.workers {
                Workers::Auto => None,
                Workers::Fixed(count) => Some(count.max(1)),
            },
            store: self.store,
            batch: self.batch,
            spin: self.spin,
        };
        let (started, start) = mpsc::sync_channel(1);
        let engine = {
            let shared = shared.clone();
            threads::start("engine", move || session::run(wanted, runtime, &shared, &started))
        };
        let engine = engine.map_err(|error| StartError::System(format!("start a thread: {error}")))?;
        match start.recv() {
            Ok(Ok(())) => Ok(Pool { shared, engine: Mutex::new(Some(engine)) }),
            Ok(Err(error)) => {
                engine.join().ok();
                Err(error)
            }
            Err(_) => Err(StartError::System("a bug in forkyard: the engine's thread panicked".into())),
        }
    }
}
