//! The one writer of a store: a thread that gathers results and commits them in groups.
//!
//! A group is committed when it has `every` results, when its oldest has waited `within`, soon after a
//! result that was long in the making, and whenever the run waits for it. Before each commit the
//! artifacts that the group names are looked at; after it the journal speaks of it.

use std::collections::HashSet;
use std::fs::File;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use forkyard_shared::ids::{ArtifactId, NodeId};
use parking_lot::Mutex;

use super::backend::{Backend, NewResult, NewValue};
use super::dir::StoreDir;
use super::error::StoreError;
use super::fields::FieldsFile;
use super::format::Layout;
use super::journal::{self, JournalEntry};
use super::record::Record;
use super::runs::RunDir;
use crate::fields::KeyFields;
use crate::names::NameRef;
use crate::threads;

/// A result that took longer than this to compute is committed within [`SOON`].
const DEAR: Duration = Duration::from_millis(10);
const SOON: Duration = Duration::from_millis(5);

/// Chunks that may wait for the writer before the run waits for it.
const QUEUE_CHUNKS: usize = 16;

/// A group with more bytes of values than this is committed at once.
const GROUP_MAX_BYTES: usize = 16 << 20;

/// Entries of the journal that are kept back: nodes may end by the ten thousand at once, when a run ends ...
const JOURNAL_MAX: usize = 1000;

/// ... unless they are long ...
const JOURNAL_MAX_BYTES: usize = 64 << 10;

/// ... and those of a group, of which there are fewer if all its nodes have results.
const GROUP_JOURNAL_MAX_BYTES: usize = 512 << 10;

/// The store is folded after this long without a result ...
const FOLD_AFTER: Duration = Duration::from_millis(500);

/// ... or after this long, if that is due: a run that never waits would only be slowed down, for a fold gives way to it.
const FOLD_SOON: Duration = Duration::from_millis(50);

/// What a writer needs to know.
pub(crate) struct WriterSettings {
    pub commit_every: usize,
    pub commit_within: Duration,
    /// Says whether an artifact is still as it was.
    pub unchanged: Box<dyn Fn(ArtifactId) -> bool + Send>,
    /// Called when there is something new in [`Progress`] that the run must see.
    pub wake: Box<dyn Fn() + Send>,
}

/// What the writer tells the run.
#[derive(Default)]
pub(crate) struct Progress {
    /// Results made durable.
    pub durable: AtomicU64,
    news: Mutex<News>,
}

#[derive(Default)]
struct News {
    failed: Option<String>,
    discarded: Vec<(NodeId, ArtifactId)>,
    /// Results that other nodes may read again, by where they are now.
    placed: Vec<(NodeId, Record)>,
}

/// What became of a node of the run.
type Entry = JournalEntry<NameRef>;

enum ToWriter {
    /// Results, then entries for the journal, then encoded ones of fields.
    Chunk(Vec<NewResult>, Vec<Entry>, Vec<u8>),
    Flush(Sender<()>),
}

/// The run's side of the writer.
pub(crate) struct Writer {
    queue: Option<Sender<ToWriter>>,
    thread: Option<JoinHandle<()>>,
    progress: Arc<Progress>,
    /// Set when there is something to do for the thread: a fold gives way.
    hurry: Arc<AtomicBool>,
    results: Vec<NewResult>,
    journal: Vec<Entry>,
    /// What these entries say of errors and logs, in bytes.
    journal_bytes: usize,
    fields: Vec<u8>,
    /// Does the thread's work in its place, in tests that need the same order each time.
    #[cfg(any(test, fuzzing))]
    here: Option<Box<Work>>,
}

impl Writer {
    /// Starts the writer of a run. The caller holds the store's lock, for as long as the writer lives.
    pub fn start(
        dir: &StoreDir,
        layout: Layout,
        run: &RunDir,
        settings: WriterSettings,
    ) -> Result<Writer, StoreError> {
        let backend = dir.open(layout)?;
        let journal_path = run.journal_path();
        let journal = run
            .create_journal()
            .map_err(|error| StoreError::Io(format!("make {}", journal_path.display()), error))?;
        let work = Work::new(backend, run, journal, settings);
        let (progress, hurry) = (work.progress.clone(), work.hurry.clone());
        let (queue, requests) = channel::bounded(QUEUE_CHUNKS);
        let thread = threads::start("store", move || work.serve(&requests));
        let thread = thread.map_err(|error| StoreError::Io("start the store's thread".into(), error))?;
        let mut writer = Writer::of_nothing();
        (writer.queue, writer.thread) = (Some(queue), Some(thread));
        (writer.progress, writer.hurry) = (progress, hurry);
        Ok(writer)
    }

    /// One that has no thread: what is full is committed when it is handed over, the rest when it is flushed.
    #[cfg(any(test, fuzzing))]
    pub fn here(backend: Box<dyn Backend>, run: &RunDir, journal: File, settings: WriterSettings) -> Writer {
        let work = Work::new(backend, run, journal, settings);
        let mut writer = Writer::of_nothing();
        (writer.progress, writer.here) = (work.progress.clone(), Some(Box::new(work)));
        writer
    }

    /// One that keeps nothing.
    pub fn of_nothing() -> Writer {
        Writer {
            queue: None,
            thread: None,
            progress: Arc::default(),
            hurry: Arc::default(),
            results: Vec::new(),
            journal: Vec::new(),
            journal_bytes: 0,
            fields: Vec::new(),
            #[cfg(any(test, fuzzing))]
            here: None,
        }
    }

    /// Takes a result; it goes to the thread with the next [`Writer::hand_over`].
    pub fn put(&mut self, result: NewResult) {
        if self.keeps() {
            self.results.push(result);
        }
    }

    /// Whether anything is kept.
    pub fn keeps(&self) -> bool {
        #[cfg(any(test, fuzzing))]
        if self.here.is_some() {
            return true;
        }
        self.queue.is_some()
    }

    /// Takes an entry for the journal, likewise.
    pub fn note(&mut self, entry: Entry) {
        self.journal_bytes += entry.log.len() + entry.error.as_ref().map_or(0, String::len);
        self.journal.push(entry);
        if self.journal.len() >= JOURNAL_MAX || self.journal_bytes > JOURNAL_MAX_BYTES {
            self.hand_over();
        }
    }

    /// Takes what a key was made of, likewise.
    pub fn explain(&mut self, fields: &KeyFields) {
        journal::encode(fields, &mut self.fields);
    }

    /// Hands everything taken so far to the thread. Waits when the thread is far behind.
    pub fn hand_over(&mut self) {
        if !self.results.is_empty() || !self.journal.is_empty() {
            let (results, journal) = (std::mem::take(&mut self.results), std::mem::take(&mut self.journal));
            self.journal_bytes = 0;
            let fields = std::mem::take(&mut self.fields);
            self.send(ToWriter::Chunk(results, journal, fields));
        }
    }

    /// Returns when everything taken so far is durable, or has failed to become so.
    pub fn flush(&mut self) {
        self.hand_over();
        let (done, wait) = channel::bounded(1);
        self.send(ToWriter::Flush(done));
        // An error means that the thread is gone, which `failed` will have said why.
        wait.recv().ok();
    }

    fn send(&mut self, request: ToWriter) {
        #[cfg(any(test, fuzzing))]
        if let Some(work) = &mut self.here {
            return work.answer(request);
        }
        if let Some(queue) = &self.queue {
            self.hurry.store(true, Relaxed);
            queue.send(request).ok();
        }
    }

    /// How many results are durable.
    pub fn durable(&self) -> u64 {
        self.progress.durable.load(Relaxed)
    }

    /// Why nothing more can be stored.
    pub fn failed(&self) -> Option<String> {
        self.progress.news.lock().failed.clone()
    }

    /// Results that were `wanted` and are durable now, since the last call.
    pub fn placed(&self) -> Vec<(NodeId, Record)> {
        std::mem::take(&mut self.progress.news.lock().placed)
    }

    /// Nodes whose results were thrown away because an artifact had changed, since the last call.
    pub fn discarded(&self) -> Vec<(NodeId, ArtifactId)> {
        std::mem::take(&mut self.progress.news.lock().discarded)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        // A fold must not hold up the exit: stopped, it leaves the log as it was.
        self.hurry.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Work {
    backend: Box<dyn Backend>,
    run: u64,
    journal: File,
    fields: FieldsFile,
    settings: WriterSettings,
    progress: Arc<Progress>,
    hurry: Arc<AtomicBool>,
    group: Vec<NewResult>,
    group_bytes: usize,
    group_journal: Vec<u8>,
    group_fields: Vec<u8>,
    due: Option<Instant>,
    more_to_fold: bool,
}

impl Work {
    fn new(backend: Box<dyn Backend>, run: &RunDir, journal: File, settings: WriterSettings) -> Work {
        Work {
            backend,
            run: run.id,
            journal,
            fields: FieldsFile::of(run),
            settings,
            progress: Arc::default(),
            hurry: Arc::default(),
            group: Vec::new(),
            group_bytes: 0,
            group_journal: Vec::new(),
            group_fields: Vec::new(),
            due: None,
            more_to_fold: true,
        }
    }

    /// Works until the run is over. A panic must not leave the run waiting: it is told, and whatever is asked
    /// afterwards is dropped, which answers it.
    fn serve(self, requests: &Receiver<ToWriter>) {
        let progress = self.progress.clone();
        if catch_unwind(AssertUnwindSafe(|| self.run(requests))).is_err() {
            progress.news.lock().failed = Some("a bug in forkyard: the store's thread panicked".into());
            requests.iter().for_each(drop);
        }
    }

    fn run(mut self, requests: &Receiver<ToWriter>) {
        let mut fold_early = self.backend.fold_is_due();
        loop {
            let wait = match self.due {
                Some(due) => due.saturating_duration_since(Instant::now()),
                None if fold_early => FOLD_SOON,
                None if self.more_to_fold => FOLD_AFTER,
                None => Duration::from_secs(3600),
            };
            match requests.recv_timeout(wait) {
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) if self.due.is_some() => self.commit(),
                Err(RecvTimeoutError::Timeout) => {
                    if self.more_to_fold {
                        self.fold();
                        fold_early &= self.more_to_fold;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return self.commit(),
            }
        }
    }

    fn answer(&mut self, request: ToWriter) {
        match request {
            ToWriter::Chunk(results, journal, fields) => self.take(results, &journal, &fields),
            ToWriter::Flush(done) => {
                self.commit_now();
                done.send(()).ok();
            }
        }
    }

    fn take(&mut self, results: Vec<NewResult>, journal: &[Entry], fields: &[u8]) {
        let dear = results.iter().any(|result| result.duration > DEAR);
        let within = if dear { SOON.min(self.settings.commit_within) } else { self.settings.commit_within };
        let due = Instant::now() + within;
        for result in results {
            self.group_bytes += match &result.value {
                NewValue::Bytes(bytes) => bytes.len(),
                NewValue::File { .. } => 0,
            };
            self.group.push(result);
            if self.group.len() >= self.settings.commit_every || self.group_bytes > GROUP_MAX_BYTES {
                self.commit();
            }
        }
        // Only now: the journal must not speak of what is not committed.
        black_box(journal.iter().fold(0, |seen, entry| seen ^ entry.node.fetch()));
        journal.iter().for_each(|entry| journal::encode(entry, &mut self.group_journal));
        self.group_fields.extend(fields);
        if self.group_journal.len() > GROUP_JOURNAL_MAX_BYTES {
            return self.commit();
        }
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// Commits the group, unless a commit has failed before: then the group grows until the run has stopped and
    /// [`Writer::flush`] tries for the last time.
    fn commit(&mut self) {
        self.due = None;
        if self.progress.news.lock().failed.is_none() {
            self.commit_now();
        }
    }

    fn commit_now(&mut self) {
        let group = std::mem::take(&mut self.group);
        self.group = self.without_changed(group);
        if let Err(error) = self.store_group() {
            self.progress.news.lock().failed = Some(error);
            (self.settings.wake)();
            return;
        }
        self.progress.durable.fetch_add(self.group.len() as u64, Relaxed);
        self.more_to_fold |= !self.group.is_empty();
        self.group.clear();
        self.group_bytes = 0;
        self.group_journal.clear();
        self.group_fields.clear();
    }

    /// In this order: results are on the disk before the journal says so.
    fn store_group(&mut self) -> Result<(), String> {
        if !self.group.is_empty() {
            let records = self.backend.commit(&self.group, self.run).map_err(|error| error.ends_run())?;
            let placed = self.group.iter().zip(records).filter(|(result, _)| result.wanted);
            let placed = placed.map(|(result, record)| (result.node, record));
            self.progress.news.lock().placed.extend(placed);
        }
        if self.group_journal.is_empty() {
            return Ok(());
        }
        journal::append(&mut self.journal, &self.group_journal)
            .map_err(|error| StoreError::Io("write the journal".into(), error).ends_run())?;
        // Without them `why` can say less, which is no reason to end a run.
        self.fields.append(&self.group_fields).ok();
        Ok(())
    }

    /// The group without the results of artifacts that are no longer what they were.
    fn without_changed(&self, group: Vec<NewResult>) -> Vec<NewResult> {
        let named: HashSet<ArtifactId> =
            group.iter().flat_map(|result| result.artifacts.iter().copied()).collect();
        let changed: HashSet<ArtifactId> =
            named.into_iter().filter(|id| !(self.settings.unchanged)(*id)).collect();
        if changed.is_empty() {
            return group;
        }
        let mut kept = Vec::new();
        let mut news = self.progress.news.lock();
        for result in group {
            match result.artifacts.iter().find(|id| changed.contains(id)) {
                Some(artifact) => news.discarded.push((result.node, *artifact)),
                None => kept.push(result),
            }
        }
        drop(news);
        (self.settings.wake)();
        kept
    }

    fn fold(&mut self) {
        self.hurry.store(false, Relaxed);
        // Short of room, unless it gave way to a commit: the log serves as it is, a later run folds it.
        self.more_to_fold = self.backend.fold(&self.hurry).unwrap_or_else(|_| self.hurry.load(Relaxed));
    }
}
