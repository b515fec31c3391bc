//! The zygote's side of Python: starts the interpreter, shows it the artifacts, and knows whose child is whose.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use forkyard_shared::artifact::{Array, Layout, Shape};
use forkyard_shared::mapping;
use forkyard_shared::protocol::{End, NoPython, PythonSetup};
use forkyard_shared::sys;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nix::unistd::Pid;
use serde::Deserialize;

use super::MODULE;
use crate::attach::Artifact;

/// What the interpreter runs first: the module, from the descriptor after its socket.
const BOOT: &str = "\
import sys
sys.path[:] = [folder for folder in sys.path if folder]
if sys.version_info < (3, 9):
    sys.exit('forkyard needs Python 3.9 or later, and this is ' + sys.version.split()[0])
import types
module = sys.modules['forkyard'] = types.ModuleType('forkyard')
with open(4, encoding='utf-8') as file:
    file.seek(0)
    source = file.read()
exec(compile(source, '<forkyard>', 'exec'), module.__dict__)
module._zygote(3)
";

/// Variables of our environment that an interpreter gets: where things are, not what comes out.
const INHERITED: [&str; 13] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "USER",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Variables with such endings too: how many threads, and which way to the network.
const INHERITED_ENDINGS: [&str; 3] = ["_NUM_THREADS", "_proxy", "_PROXY"];

/// Libraries that would start a thread for each core in each worker: the workers are the cores' work.
const ONE_THREAD: [&str; 3] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"];

/// The Python zygote.
pub(crate) struct Host {
    pid: Pid,
    /// Its end of file is its end.
    control: OwnedFd,
    setup: PythonSetup,
}

/// What the interpreter tells.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum News {
    Ready(Vec<String>),
    Error(String),
    #[serde(untagged)]
    Forked {
        child: i32,
        worker: i32,
    },
}

impl Host {
    /// Starts the interpreter.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn start(setup: PythonSetup, token: &str, secrets: &[String]) -> Result<Host, NoPython> {
        let failed = |error: io::Error| NoPython::Refused(format!("start {}: {error}", setup.interpreter));
        let (control, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|error| failed(error.into()))?;
        let module = mapping::sealed_copy("forkyard-module", MODULE.as_bytes()).map_err(failed)?;
        let mut command = Command::new(&setup.interpreter);
        command.args(["-c", BOOT]).current_dir(&setup.dir).env_clear();
        command.envs(environment(&setup.env, secrets));
        command.env("FORKYARD_RUN", token).stdin(Stdio::null());
        let child = sys::spawn_with(command, &[theirs.as_fd(), module.as_fd()]).map_err(failed)?;
        Ok(Host { pid: Pid::from_raw(child.id() as i32), control, setup })
    }

    /// Shows it the artifacts, and waits until it has imported everything. Its warnings.
    ///
    /// # Errors
    /// What it could not do.
    pub fn prepare(&self, artifacts: &[Artifact], secrets: &[String]) -> Result<Vec<String>, NoPython> {
        let send = |message: serde_json::Value, fds: &[BorrowedFd]| {
            sys::send_packet(&self.control, message.to_string().as_bytes(), fds)
        };
        let shown = artifacts.iter().try_for_each(|artifact| {
            let (about, files) = (about(artifact), artifact.files());
            send(serde_json::json!({ "artifact": about }), &files)
        });
        let mut setup =
            serde_json::to_value(&self.setup).map_err(|error| NoPython::Refused(error.to_string()))?;
        setup["secrets"] = secrets.into();
        // One that has ended cannot be told, and has said why on stderr.
        let told = shown.and_then(|()| send(setup, &[]));
        match told.and_then(|()| self.news()) {
            Ok(Some(News::Ready(warnings))) => Ok(warnings),
            Ok(Some(News::Error(why))) => Err(NoPython::Refused(why)),
            Ok(_) | Err(_) => Err(match sys::wait_for(self.pid) {
                Some(end @ End::Signal(_)) => NoPython::Gone(end),
                end => {
                    let end = end.map_or("is gone".into(), |end| end.to_string());
                    NoPython::Refused(format!("{} {end} before it was ready", self.setup.interpreter))
                }
            }),
        }
    }

    /// Where a worker asks for a child.
    pub fn control(&self) -> &OwnedFd {
        &self.control
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    fn news(&self) -> io::Result<Option<News>> {
        self.receive(MsgFlags::empty())
    }

    fn receive(&self, flags: MsgFlags) -> io::Result<Option<News>> {
        use std::os::fd::AsRawFd;
        let mut bytes = vec![0; 64 << 10];
        match recv(self.control.as_raw_fd(), &mut bytes, flags)? {
            0 => Ok(None),
            len => Ok(Some(serde_json::from_slice(&bytes[..len])?)),
        }
    }
}

/// The children of workers.
#[derive(Default)]
pub(crate) struct Kin {
    /// Children that may live, by their workers.
    children: HashMap<Pid, Pid>,
    /// How children of workers that may live have ended.
    ended: HashMap<Pid, End>,
}

impl Kin {
    /// Learns of children that were forked since. Each is told of before it becomes ours, so that after this nobody
    /// else's child is a stranger.
    pub fn learn(&mut self, host: &Host) {
        while let Ok(Some(news)) = host.receive(MsgFlags::MSG_DONTWAIT) {
            if let News::Forked { child, worker } = news {
                self.children.insert(Pid::from_raw(worker), Pid::from_raw(child));
            }
        }
    }

    /// A process has ended that is no worker; whether it was one of these.
    pub fn note_end(&mut self, pid: Pid, end: End) -> bool {
        let worker = self.children.iter().find(|(_, child)| **child == pid).map(|(worker, _)| *worker);
        if let Some(worker) = worker {
            self.children.remove(&worker);
            self.ended.insert(worker, end);
        }
        worker.is_some()
    }

    /// Ends the child of a worker that has ended. How that child ended.
    pub fn bury(&mut self, worker: Pid) -> Option<End> {
        let ended = self.ended.remove(&worker);
        let Some(child) = self.children.remove(&worker) else { return ended };
        // It keeps its number until it is waited for.
        kill(child, Signal::SIGKILL).ok();
        sys::wait_for(child).or(ended)
    }

    /// Children that may live.
    pub fn living(&self) -> impl Iterator<Item = Pid> {
        self.children.values().copied()
    }
}

/// The environment of an interpreter: what it inherits of ours, and what was declared.
pub fn environment(declared: &[(String, String)], secrets: &[String]) -> Vec<(OsString, OsString)> {
    let inherited = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            INHERITED.contains(&name)
                || INHERITED_ENDINGS.iter().any(|ending| name.ends_with(ending))
                || secrets.iter().any(|secret| secret == name)
        })
    };
    let mut env: Vec<(OsString, OsString)> = ONE_THREAD.map(|name| (name.into(), "1".into())).to_vec();
    env.extend(std::env::vars_os().filter(|(name, _)| inherited(name)));
    env.extend(declared.iter().map(|(name, value)| (name.into(), value.into())));
    env
}

/// What an interpreter is to know of an artifact. What its second descriptor holds, it reads there.
fn about(artifact: &Artifact) -> serde_json::Value {
    let array = |form: &str, array: &Array| serde_json::json!({ "format": form, "array": array });
    let matrix = |shape: &Shape| {
        let lengths = if shape.one_dimensional { vec![shape.rows] } else { vec![shape.rows, shape.cols] };
        array("array", &Array { dtype: shape.dtype, shape: lengths, offset: shape.offset })
    };
    let mut about = match &artifact.setup.layout {
        // An index is its bytes, which the library itself can view.
        Layout::Raw | Layout::Usearch(_) => serde_json::json!({ "format": "raw" }),
        Layout::Jsonl(_) | Layout::Json(_) => serde_json::json!({ "format": "records" }),
        Layout::Npy(shape) | Layout::Faiss(shape, _) => matrix(shape),
        Layout::Tensor(tensor) => array("array", tensor),
        Layout::Safetensors(_) => serde_json::json!({ "format": "arrays" }),
        Layout::Column(column) => array("column", column),
        Layout::Table { .. } => serde_json::json!({ "format": "table" }),
    };
    about["name"] = artifact.setup.name.as_str().into();
    about
}
