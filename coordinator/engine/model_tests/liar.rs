//! Workers that lie: the double's messages on their way to the engine, changed as the bytes of a fuzz target's input say.
//! Whatever they say, a run ends, its state is whole after each event, no file outside of the store's own is touched, and
//! what is stored has the digest under which it is found.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use forkyard_shared::codec;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{ArtifactId, NodeId, WorkerId};
use forkyard_shared::protocol::{
    Batch, Cause, Completion, Cost, Failure, FromWorker, Private, Task, ToCoordinator,
};
use forkyard_shared::pulse::Pulse;
use forkyard_shared::value::{Body, Kind, Value};

use super::case::Case;
use super::double::Double;
use super::run;
use crate::hands::Hands;
use crate::memory::Machine;
use crate::plan::Plan;
use crate::pool::{Event, Pool};
use crate::run::RunError;
use crate::store::Memory;

/// How often a run may wait for what does not come.
const RESCUES: u32 = 50;

/// What nobody may touch: it lies beside the store.
const CANARY: &[u8] = b"not the pool's";

/// Runs the case that the first byte numbers, with messages that the others change.
pub(crate) fn lie(dir: &Path, bytes: &[u8]) {
    thread_local! {
        /// Plans are never freed.
        static PLANS: RefCell<HashMap<u8, (Case, &'static Plan)>> = RefCell::default();
    }
    let Some((number, script)) = bytes.split_first() else { return };
    super::TOLD.store(std::env::var_os("FORKYARD_FUZZ_INPUT").is_some(), Relaxed);
    let (case, plan) = PLANS.with_borrow_mut(|plans| {
        plans
            .entry(*number)
            .or_insert_with(|| {
                let mut case = Case::of_seed(u64::from(*number));
                (case.weather.signals, case.weather.loss) = (0, false);
                let plan = run::plan(&case).expect("a manifest of the generator's");
                (case, plan)
            })
            .clone()
    });
    let (ended, store, _) = run_lying(dir, (&case, plan), script);
    match ended {
        Ok(()) => {}
        // Nobody knows who has sent it.
        Err(RunError::Internal(why)) if why.starts_with("a message from the pool") => {}
        Err(RunError::Pool(why)) if why.contains("cannot live") => {}
        Err(error) => panic!("the run ended so: {error}"),
    }
    assert!(store.is_sound(), "a value is stored under another one's digest");
}

/// Runs a case whose messages are changed so: how it ended, what it has stored, and how many workers were ended for it.
fn run_lying(
    dir: &Path,
    (case, plan): (&Case, &'static Plan),
    script: &[u8],
) -> (Result<(), RunError>, Memory, u32) {
    let (store_dir, canary) = (dir.join("store"), dir.join("canary"));
    for dir in ["tmp", "blobs"] {
        fs::create_dir_all(store_dir.join(dir)).expect("room for a store");
    }
    fs::write(&canary, CANARY).expect("room for a canary");
    let store = Memory::in_dir(&store_dir);
    let mut liar = Liar {
        honest: Double::new(case, 1, store.clone()),
        script: script.to_vec().into(),
        next: VecDeque::new(),
        tmp: store_dir.join("tmp"),
        canary: canary.clone(),
        pids: HashMap::new(),
        files: 0,
        rescues: 0,
        kills: 0,
    };
    let ended = run::with_hands(case, plan, &store, &mut liar, |engine, result| {
        if super::is_told() {
            engine.print();
        }
        result
    });
    assert_eq!(fs::read(&canary).expect("the canary"), CANARY);
    assert_eq!(fs::read_dir(dir).expect("its directory").count(), 2, "a file came from somewhere");
    fs::remove_dir_all(&store_dir).ok();
    (ended.expect("an engine"), store, liar.kills)
}

struct Liar {
    honest: Double,
    /// What becomes of each message: what to do, and what that needs.
    script: VecDeque<u8>,
    next: VecDeque<Event>,
    tmp: PathBuf,
    canary: PathBuf,
    pids: HashMap<WorkerId, u32>,
    files: u32,
    rescues: u32,
    kills: u32,
}

impl Liar {
    fn byte(&mut self) -> u8 {
        self.script.pop_front().unwrap_or(0)
    }

    /// A number that is small, or odd.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..200 => u64::from(byte),
            byte => u64::MAX >> (4 * (byte - 200)).min(63),
        }
    }

    /// What arrives in the place of this message, one after the other.
    fn change(&mut self, mut message: ToCoordinator) {
        let arrives = |message: &ToCoordinator| codec::decode(&codec::encode(message)).map(Event::Message);
        match self.byte() {
            0..70 => {}
            // Bytes are changed on the way.
            70..120 => {
                let mut bytes = codec::encode(&message);
                let at = usize::from(self.byte()) % bytes.len();
                match self.byte() {
                    0..40 => drop(bytes.remove(at)),
                    byte @ 40..80 => bytes.insert(at, byte),
                    80..90 => bytes.truncate(at),
                    byte => bytes[at] ^= byte,
                }
                return self.hand_in(&bytes);
            }
            120..140 => {
                // Something comes before it.
                let len = usize::from(self.byte()).min(self.script.len());
                let bytes: Vec<u8> = self.script.drain(..len).collect();
                self.hand_in(&bytes);
            }
            140..150 => self.next.extend(arrives(&message)),
            150..160 => {
                let worker = WorkerId((self.byte() % 4).into());
                if self.honest.has(worker) {
                    let (node, since) = (self.number() as u32, self.number());
                    self.honest.pulse(worker).begin(NodeId(node), since);
                }
            }
            160..170 => {
                let worker = WorkerId(self.number() as u32);
                match &mut message {
                    ToCoordinator::Born(of, _)
                    | ToCoordinator::Python(of, _)
                    | ToCoordinator::LastWords(of, _) => {
                        *of = worker;
                    }
                    ToCoordinator::Worker(message) => message.worker = worker,
                    ToCoordinator::Zygote(_) | ToCoordinator::Wake => {}
                }
            }
            170..175 => {
                let pid = self.number() as u32;
                let worker = WorkerId((self.byte() % 4).into());
                self.next.push_back(Event::Message(ToCoordinator::Python(worker, pid)));
            }
            175..180 => {
                let words = vec![b'x'; self.number().min(1 << 20) as usize];
                let worker = WorkerId((self.byte() % 4).into());
                self.next.push_back(Event::Message(ToCoordinator::LastWords(worker, words)));
            }
            _ => {
                if let ToCoordinator::Worker(message) = &mut message {
                    self.change_report(message);
                }
            }
        }
        self.next.extend(arrives(&message));
    }

    /// Bytes as the pool hears them; what only the zygote says is believed, and is not said here.
    fn hand_in(&mut self, bytes: &[u8]) {
        match codec::decode(bytes) {
            Ok(ToCoordinator::Zygote(_)) => {}
            Ok(message) => self.next.push_back(Event::Message(message)),
            Err(why) => self.next.push_back(Event::Garbled(ToCoordinator::worker_in(bytes), why)),
        }
    }

    fn change_report(&mut self, message: &mut FromWorker) {
        let which = self.byte();
        match self.byte() % 6 {
            0 if which < 60 => message.batch = Some(self.number() as u32),
            1 if which < 60 => message.batch = None,
            2 if which < 60 => message.returned = self.number() as u16,
            3 if which < 60 => message.read = self.number() as u16,
            4 if which < 60 => message.done.reverse(),
            5 if which < 60 => {
                let twice = message.done.iter().map(|done| codec::decode(&codec::encode(done)));
                message.done = twice
                    .chain(message.done.iter().map(|done| codec::decode(&codec::encode(done))))
                    .flatten()
                    .collect();
            }
            at => {
                let len = message.done.len();
                if let Some(mut completion) = message
                    .done
                    .get_mut(usize::from(at) % len.max(1))
                    .map(|c| codec::decode::<Completion>(&codec::encode(c)).expect("it was encoded"))
                {
                    self.change_completion(message.worker, &mut completion);
                    message.done[usize::from(at) % len] = completion;
                }
            }
        }
    }

    fn change_completion(&mut self, worker: WorkerId, completion: &mut Completion) {
        let failed = |cause| Err(Failure { message: "so it says".into(), cause });
        let digest = match &completion.outcome {
            Ok(value) => value.digest,
            Err(_) => Digest::of(b"7"),
        };
        match self.byte() % 24 {
            0 => completion.node = NodeId(self.number() as u32),
            1 => (completion.started_ns, completion.duration_ns) = (self.number(), self.number()),
            2 => completion.generates = true,
            3 => completion.log = vec![b'l'; self.number().min(1 << 20) as usize],
            4 => {
                let (peak, rest) = (self.number(), self.number());
                let (cpu_ns, delayed_ns) = (self.number(), self.number());
                completion.cost = Some(Cost { cpu_ns, delayed_ns, private: Some(Private { peak, rest }) });
            }
            5 => {
                let json = (self.byte() < 128).then(|| vec![b'1'; self.number().min(1 << 20) as usize]);
                completion.writes.push((format!("v{}", self.byte() % 4), json));
            }
            6 => completion.writes.push(("v0".into(), Some(b"{no json".to_vec()))),
            7 => completion.outcome = failed(Cause::Artifact(ArtifactId(self.number() as u32))),
            8 => completion.outcome = failed(Cause::Blob(digest)),
            9 => {
                // Soon, or never: what would come in a month does not come for the double.
                let ms = self.number();
                completion.outcome = failed(Cause::Later(if ms > u64::MAX >> 8 { ms } else { ms % 1000 }));
            }
            10 => completion.outcome = failed(Cause::Suspect),
            11 => completion.outcome = failed(Cause::Cancelled),
            12 => {
                let message = "e".repeat(self.number().min(1 << 20) as usize);
                completion.outcome = Err(Failure { message, cause: Cause::Task });
            }
            13 => {
                if let Ok(value) = &mut completion.outcome {
                    let at = usize::from(self.byte()) % 32;
                    value.digest.0[at] ^= 1;
                }
            }
            14 => {
                let kinds = [Kind::Json, Kind::Bytes, Kind::Text, Kind::Array];
                if let Ok(value) = &mut completion.outcome {
                    value.kind = kinds[usize::from(self.byte() % 4)];
                }
            }
            15 => {
                let bytes = vec![b'1'; self.number().min(1 << 20) as usize];
                completion.outcome = Ok(Value::inline(Kind::Json, bytes));
            }
            16 => {
                // What the script says, as a value, or as nodes.
                let len = usize::from(self.byte()).min(self.script.len());
                let bytes: Vec<u8> = self.script.drain(..len).collect();
                completion.outcome = Ok(Value::inline(Kind::Json, bytes));
                completion.generates = self.byte() < 128;
            }
            _ => completion.outcome = Ok(self.file(worker)),
        }
    }

    /// A result in a file: a good one, or something else.
    fn file(&mut self, worker: WorkerId) -> Value {
        self.files += 1;
        // Long by its items and not by their number: one may be made into nodes that read it.
        let bytes = format!("[\"{}\",{}]", "1".repeat(40_000), self.files).into_bytes();
        let mut value =
            Value { kind: Kind::Json, digest: Digest::of(&bytes), body: Body::Inline(Vec::new()) };
        let pid = self.pids.get(&worker).copied().unwrap_or(1);
        let mut name = format!("{pid}-{}", self.files);
        let path = self.tmp.join(&name);
        let (mut len, mut packed) = (bytes.len() as u64, false);
        let write = || fs::write(&path, &bytes).expect("room for a result");
        match self.byte() % 16 {
            0 => name = "../../canary".into(),
            1 => name = self.canary.display().to_string(),
            2 => name = format!("{pid}-/../../../canary"),
            3 => symlink(&self.canary, &path).expect("room for a link"),
            4 => fs::create_dir(&path).expect("room for a directory"),
            5 => {}
            6 => name = String::new(),
            7 => {
                write();
                len = self.number();
            }
            8 => {
                write();
                value.digest.0[0] ^= 1;
            }
            9 => {
                write();
                packed = true;
            }
            10 => fs::write(&path, b"").expect("room for nothing"),
            11 => {
                write();
                value.kind = Kind::Array;
            }
            12 => {
                fs::write(&path, zstd::encode_all(&bytes[..], 1).expect("it can be packed"))
                    .expect("room for a result");
                (packed, len) = (true, self.number());
            }
            _ => write(),
        }
        value.body = Body::File { name, len, packed };
        value
    }
}

impl Hands for Liar {
    fn next(&mut self, limit: Option<Duration>) -> Result<Option<Event>, String> {
        if let Some(event) = self.next.pop_front() {
            return Ok(Some(event));
        }
        let event = match self.honest.next(limit) {
            // What was lost for a lie about its sender does not come; whoever waits for it is killed, as by a timeout.
            Err(_) if self.rescues < RESCUES => {
                self.rescues += 1;
                self.honest.kill_workers();
                return Ok(None);
            }
            event => event?,
        };
        match event {
            Some(Event::Message(ToCoordinator::Zygote(message))) => {
                Ok(Some(Event::Message(ToCoordinator::Zygote(message))))
            }
            Some(Event::Message(message)) => {
                if let ToCoordinator::Born(worker, pid) = &message {
                    self.pids.insert(*worker, *pid);
                }
                self.change(message);
                Ok(self.next.pop_front())
            }
            other => Ok(other),
        }
    }

    fn now(&self) -> Instant {
        self.honest.now()
    }

    fn now_ns(&self) -> u64 {
        self.honest.now_ns()
    }

    fn attach(&mut self, how: &mut dyn FnMut(&Pool) -> Result<(), RunError>) -> Result<(), RunError> {
        self.honest.attach(how)
    }

    fn fork(&mut self, worker: WorkerId) -> io::Result<()> {
        self.honest.fork(worker)
    }

    fn send(&mut self, worker: WorkerId, batch: Batch) {
        self.honest.send(worker, batch);
    }

    fn begin(&mut self, worker: WorkerId, tasks: Vec<Task>) {
        self.honest.begin(worker, tasks);
    }

    fn cancel(&mut self, worker: WorkerId, node: NodeId) {
        self.honest.cancel(worker, node);
    }

    fn pulse(&self, worker: WorkerId) -> &Pulse {
        self.honest.pulse(worker)
    }

    fn kill(&mut self, worker: WorkerId) {
        self.kills += 1;
        self.honest.kill(worker);
    }

    fn kill_workers(&mut self) {
        self.honest.kill_workers();
    }

    fn kill_all(&mut self) {
        self.honest.kill_all();
    }

    fn end(&mut self) {}

    fn note_worker(&mut self, _: u32) {}

    fn forget_worker(&mut self, _: u32) {}

    fn zygote(&self) -> u32 {
        self.honest.zygote()
    }

    fn token(&self) -> &str {
        self.honest.token()
    }

    fn watch_memory(&mut self, machine: Machine) -> io::Result<()> {
        self.honest.watch_memory(machine)
    }

    fn is_interrupted(&self) -> bool {
        self.honest.is_interrupted()
    }

    fn is_paused(&self) -> bool {
        self.honest.is_paused()
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::Parts;
    use super::*;

    /// A case of one node that only returns something.
    fn plain() -> Case {
        let is_plain = |case: &Case| {
            let [node] = case.nodes.as_slice() else { return false };
            let acts = node.scripts.iter().any(|script| script.never || !script.acts.is_empty());
            matches!(node.parts, Parts::One)
                && !acts
                && node.when.is_none()
                && node.makes.is_empty()
                && node.writes.is_none()
                && node.reads.is_none()
                && !node.uncached
        };
        let mut case = (0..).map(Case::of_seed).find(is_plain).expect("some seed makes one");
        (case.max_crashes, case.weather.workers) = (3, 1);
        (case.weather.deaths, case.weather.refusals, case.weather.pauses) = (false, false, false);
        (case.weather.signals, case.weather.loss, case.weather.budget) = (0, false, None);
        case
    }

    #[test]
    fn who_says_what_cannot_be_true_is_ended_and_its_node_runs_again() {
        let case = plain();
        let plan = run::plan(&case).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let lie = |how: &[u8]| {
            // The birth as it is; then the report of the node is changed, in its first completion.
            let script = [&[0, 200, 200, 0], how].concat();
            let (ended, store, kills) = run_lying(dir.path(), (&case, plan), &script);
            ended.unwrap();
            let values: Vec<_> = store.keys().into_iter().map(|key| (key, store.value(key))).collect();
            (values, kills)
        };
        let (ended, store, kills) = run_lying(dir.path(), (&case, plan), &[]);
        ended.unwrap();
        let honest: Vec<_> = store.keys().into_iter().map(|key| (key, store.value(key))).collect();
        assert_eq!((honest.len(), kills), (1, 0));
        for (what, how) in [
            ("another node", &[0, 7][..]),
            ("no node at all", &[0, 200]),
            ("a log that is too long", &[3, 205]),
            ("variables that its op cannot set", &[5, 0, 1, 0]),
            ("what is no JSON in a variable", &[6]),
            ("an artifact that it does not name", &[7, 0]),
            ("an error that is too long", &[12, 205]),
            ("a wait for ever", &[9, 200]),
            ("another digest", &[13, 0]),
            ("a value that is too long", &[15, 205]),
            ("a file above the store", &[17, 0]),
            ("a file by its path", &[17, 1]),
            ("a file beside tmp, from below", &[17, 2]),
            ("a link", &[17, 3]),
            ("a directory", &[17, 4]),
            ("a file that is not there", &[17, 5]),
            ("a file without a name", &[17, 6]),
            ("a file of another length", &[17, 7, 5]),
        ] {
            let (values, kills) = lie(how);
            assert_eq!(kills, 1, "{what}");
            assert_eq!(values, honest, "{what}");
        }
    }
}
