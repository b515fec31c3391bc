//! The tasks that are in a Python process's hands: handed over, asked about, and taken back as they end. Knows nothing of
//! batches and of what the coordinator is told.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::{Cause, LOG_MAX_BYTES, Param, Task as Message};
use forkyard_shared::value::{INLINE_MAX_BYTES, Kind};
use hashlink::LruCache;

use super::child::{Child, NoChild};
use super::wire::{self, Header, Status};
use crate::attach::Attached;
use crate::log::Log;
use crate::op::{Failed, Output};
use crate::state;
use crate::task::Task;
use crate::work::Attempt;

/// Results of other nodes that were found whole and need not be checked again.
const CHECKED_MAX: usize = 256;

/// The Python process of a worker, once there is one, and what it runs.
pub(crate) struct Flights<'a> {
    attached: &'a Attached,
    child: Option<Child>,
    tasks: Vec<Message>,
    /// What was printed past Python since the last task ended.
    printed: Log,
    checked: LruCache<Digest, PathBuf>,
}

/// A task that has ended.
pub(crate) struct Ended {
    pub node: NodeId,
    pub started_ns: u64,
    pub duration_ns: u64,
    pub attempt: Attempt,
    /// How many tasks of its group are left unrun because of it.
    pub left: usize,
}

/// A task that could not be handed over.
pub(crate) struct Unsent {
    pub message: Message,
    pub failure: Failed,
    /// How many of its group come after it.
    pub after: usize,
}

/// Its process has ended.
pub(crate) struct Gone;

impl<'a> Flights<'a> {
    pub fn new(attached: &'a Attached) -> Flights<'a> {
        let (printed, checked) = (Log::new(LOG_MAX_BYTES / 2), LruCache::new(CHECKED_MAX));
        Flights { attached, child: None, tasks: Vec::new(), printed, checked }
    }

    /// The tasks that are under way.
    pub fn tasks(&self) -> &[Message] {
        &self.tasks
    }

    /// The number of the process, if there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.pid)
    }

    /// Makes sure that there is a process.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start(&mut self) -> Result<(), NoChild> {
        if self.child.is_none() {
            let host = self.attached.python.get().expect("BUG: Python in a run without");
            self.child = Some(Child::ask_for(host)?);
        }
        Ok(())
    }

    /// Hands over tasks that are to be begun beside each other; those that cannot be come back with the reason.
    pub fn hand_over(&mut self, tasks: Vec<Message>) -> Vec<(Message, Failed)> {
        let (mut texts, mut refused) = (Vec::with_capacity(tasks.len()), Vec::new());
        for message in tasks {
            match self.text(&message) {
                Ok(text) => {
                    texts.push(text);
                    self.tasks.push(message);
                }
                Err(failed) => refused.push((message, failed)),
            }
        }
        self.send_tasks(b'S', &texts);
        refused
    }

    /// Hands over tasks that are to be run in their order, up to the first that cannot be.
    pub fn hand_over_in_order(&mut self, group: Vec<Message>) -> Option<Unsent> {
        let (mut texts, mut rest, mut unsent) = (Vec::with_capacity(group.len()), group.into_iter(), None);
        while let Some(message) = rest.next() {
            match self.text(&message) {
                Ok(text) => {
                    texts.push(text);
                    self.tasks.push(message);
                }
                Err(failure) => {
                    unsent = Some(Unsent { message, failure, after: rest.len() });
                    break;
                }
            }
        }
        self.send_tasks(b'G', &texts);
        unsent
    }

    fn text(&mut self, message: &Message) -> Result<Vec<u8>, Failed> {
        let task = Task::new(message, self.attached);
        let checked = &mut self.checked;
        wire::task(&task, message.attempt, |param| path(&task, param, checked))
    }

    fn send_tasks(&mut self, letter: u8, texts: &[Vec<u8>]) {
        if !texts.is_empty() {
            self.send(&wire::tasks(letter, texts));
        }
    }

    /// Has a task given up.
    pub fn cancel(&mut self, node: NodeId) {
        if self.tasks.iter().any(|task| task.node == node) {
            self.send(&wire::cancel(node));
        }
    }

    fn send(&mut self, frame: &[u8]) {
        let child = self.child.as_mut().expect("BUG: tasks before the process");
        // One that has ended is found out by reading.
        child.send(frame).ok();
    }

    /// Waits until a task ends, or something is at `other`: what ended, and whether something is there.
    ///
    /// # Errors
    /// When the process has ended; before that, all that it answered came out of here.
    pub fn wait(&mut self, other: Option<BorrowedFd>) -> Result<(Vec<Ended>, bool), Gone> {
        loop {
            let ended = self.answers()?;
            if !ended.is_empty() {
                return Ok((ended, false));
            }
            let child = self.child.as_mut().ok_or(Gone)?;
            if self.tasks.len() == 1 && other.is_none() {
                child.look_out();
            }
            let ready = child.wait(other, &mut self.printed).map_err(|_| Gone)?;
            if ready.asks {
                self.answer().map_err(|_| Gone)?;
            }
            if ready.answers {
                let child = self.child.as_mut().ok_or(Gone)?;
                if !child.read_more().map_err(|_| Gone)? {
                    return Err(Gone);
                }
            }
            if ready.other {
                return Ok((self.answers()?, true));
            }
        }
    }

    /// What the process wrote to its descriptors before it ended.
    pub fn last_words(&mut self) -> Vec<u8> {
        if let Some(child) = &mut self.child {
            child.drain(&mut self.printed);
        }
        let mut words = std::mem::replace(&mut self.printed, Log::new(LOG_MAX_BYTES / 2)).finish();
        self.attached.secrets.hide(&mut words);
        words
    }

    /// Every answer that has begun to arrive.
    fn answers(&mut self) -> Result<Vec<Ended>, Gone> {
        let mut ended = Vec::new();
        while let Some(header) = self.child.as_mut().and_then(Child::header) {
            ended.push(self.take(header).map_err(|_| Gone)?);
        }
        Ok(ended)
    }

    fn take(&mut self, header: Header) -> io::Result<Ended> {
        let at = self.tasks.iter().position(|task| task.node.0 == header.node);
        let at = at.ok_or(io::ErrorKind::InvalidData)?;
        let child = self.child.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let task = Task::new(&self.tasks[at], self.attached);
        let result = match header.status {
            Status::Done => value(child, &task, &header)?,
            status => Err(failure(status, child.take(header.value_len as usize)?)),
        };
        let writes = wire::writes(&child.take(header.writes_len as usize)?);
        let mut log = child.take(header.log_len as usize)?;
        let printed = std::mem::replace(&mut self.printed, Log::new(LOG_MAX_BYTES / 2));
        log.extend(printed.finish());
        let result = result.and_then(|output| Ok((output, state::within_limits(writes?)?)));
        let result = match result {
            Ok((output, writes)) => Ok((output.with_log(log), writes)),
            Err(failed) => Err(failed.with_log(log)),
        };
        let attempt = Attempt::of(&task, result);
        // Not before: what was cut short by the end of the process has not ended.
        let message = self.tasks.remove(at);
        let left = usize::from(header.left).min(self.tasks.len() - at);
        self.tasks.drain(at..at + left);
        let Header { started_ns, duration_ns, .. } = header;
        Ok(Ended { node: message.node, started_ns, duration_ns, attempt, left })
    }

    /// Answers a question about the state.
    fn answer(&mut self) -> io::Result<()> {
        let child = self.child.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let (what, node, key) = child.question()?;
        let Some(message) = self.tasks.iter().find(|task| task.node.0 == node) else {
            return child.tell(2, b"no node runs here: its function has returned");
        };
        let task = Task::new(message, self.attached);
        let found = match what {
            1 => task.state().json(&key).map(|json| json.map(<[u8]>::to_vec)),
            _ => everything(&task).map(Some),
        };
        match found {
            Ok(Some(json)) => child.tell(0, &json),
            Ok(None) => child.tell(1, b""),
            Err(failed) => child.tell(2, failed.message.as_bytes()),
        }
    }
}

/// All of the state, as an object.
fn everything(task: &Task) -> Result<Vec<u8>, Failed> {
    let mut json = Vec::new();
    task.state().each(|key, value| {
        json.push(if json.is_empty() { b'{' } else { b',' });
        serde_json::to_writer(&mut json, key).expect("text is JSON");
        json.push(b':');
        json.extend(value);
    })?;
    if json.is_empty() {
        json.push(b'{');
    }
    json.push(b'}');
    Ok(json)
}

/// The file of a large result, which is checked the first time.
fn path(
    task: &Task,
    param: &Param,
    checked: &mut LruCache<Digest, PathBuf>,
) -> Result<Option<String>, Failed> {
    let Param::Blob { digest, .. } = param else { return Ok(None) };
    let path = match checked.get(digest).filter(|path| path.exists()) {
        Some(path) => path.clone(),
        None => {
            let path = task.verified_blob(*digest)?;
            checked.insert(*digest, path.clone());
            path
        }
    };
    Ok(Some(path.to_string_lossy().into_owned()))
}

/// What a function returned: in memory if it is short, else into a file as it comes.
fn value(child: &mut Child, task: &Task, header: &Header) -> io::Result<Result<Output, Failed>> {
    if header.value_len <= INLINE_MAX_BYTES as u64 {
        let bytes = child.take(header.value_len as usize)?;
        return Ok(Ok(Output::raw(header.kind, bytes)));
    }
    // What is read again as it is, by name or by a mapping, must not be packed.
    let mut sink = if header.kind == Kind::Array { task.plain_sink() } else { task.sink() };
    let mut written = Ok(());
    child.pass(header.value_len, |part| {
        if written.is_ok() {
            written = sink.write_all(part);
        }
    })?;
    let body = written.map_err(Failed::from).and_then(|()| sink.finish());
    Ok(body.map(|body| Output::written(header.kind, body)))
}

fn failure(status: Status, text: Vec<u8>) -> Failed {
    let text = String::from_utf8_lossy(&text).into_owned();
    match status {
        Status::Later => {
            let (seconds, why) = text.split_once('\n').unwrap_or((&text, ""));
            let ms = seconds.parse::<f64>().map_or(0, |seconds| (seconds * 1e3) as u64);
            Failed::new(why).because(Cause::Later(ms))
        }
        Status::Cancelled => Failed::new(text).because(Cause::Cancelled),
        Status::Done | Status::Failed | Status::Broken => Failed::new(text),
    }
}
