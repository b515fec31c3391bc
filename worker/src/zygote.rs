//! The zygote: the single-threaded process that holds the mappings and forks workers.
//!
//! It waits in one place for three things: a command from the coordinator (or its end, which is the end
//! of everything below), and the death of a child. It is the parent of all workers, so it alone learns
//! how they end; it reports a death only after all that the dead worker had started is gone too.
//!
//! It never starts a thread and never grows: everything it does allocate is there before the first
//! fork, apart from a few dozen bytes a worker.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use forkyard_shared::arena::ArenaReader;
use forkyard_shared::codec::{self, Frame};
use forkyard_shared::ids::{ArtifactId, WorkerId};
use forkyard_shared::protocol::{
    ArtifactSetup, End, FromZygote, NoPython, PythonSetup, Setup, ToCoordinator, ToZygote, WorkerEnds,
};
use forkyard_shared::sys;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stdout, getppid, setsid};

use crate::attach::{Artifact, Attached};
use crate::python::{CHILD_ENDED, Host, Kin};
use crate::reap;
use crate::registry::Ops;
use crate::secrets::Secrets;
use crate::work::{Served, Worker};

/// The coordinator's side of a zygote.
pub struct Zygote {
    /// Its process.
    pub pid: Pid,
    /// Where commands go, with descriptors.
    pub control: OwnedFd,
    /// Where a worker's end of its channel goes, before the command to fork it.
    pub ends: IpcSender<WorkerEnds>,
    /// Where everything from below arrives.
    pub inbox: IpcReceiver<Frame>,
    /// A way into the inbox for the coordinator's own threads.
    pub wake: IpcSender<Frame>,
}

impl Zygote {
    /// Ends the zygote and everything below it, and waits for that.
    pub fn end(self) {
        drop(self.control);
        waitpid(self.pid, None).ok();
    }
}

/// Forks the zygote. Must be called while the process has one thread.
///
/// # Errors
/// When the system refuses a descriptor or a process.
pub fn start(ops: &Ops) -> std::io::Result<Zygote> {
    let (control, below) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    ask_how_much_fits()?;
    let (ends, ends_below) = ipc::channel()?;
    let (wake, inbox) = ipc::channel()?;
    let parent = std::process::id();
    match sys::fork()? {
        ForkResult::Parent { child } => Ok(Zygote { pid: child, control, ends, inbox, wake }),
        ForkResult::Child => {
            // The coordinator's ends, closed here so that its death is seen here.
            drop((control, ends, inbox));
            let status = match Loop::new(parent, ops, below, ends_below, wake) {
                Ok(zygote) => zygote.serve(),
                Err(error) => {
                    eprintln!("forkyard: the zygote cannot start: {error}");
                    70
                }
            };
            sys::exit_now(status)
        }
    }
}

/// At the first message of a process ipc-channel opens two descriptors to ask how much fits one, and panics if there are none.
/// Here this is an error, and whoever is forked need not ask.
fn ask_how_much_fits() -> std::io::Result<()> {
    let (sender, _receiver) = ipc::channel()?;
    drop(ipc::channel::<()>()?);
    sender.send(()).map_err(|error| std::io::Error::other(error.to_string()))
}

/// Should the kernel have to kill somebody for want of memory, it is to be a worker, and what that has started: a task
/// can be run again.
fn offer_to_the_kernel() {
    let path = "/proc/self/oom_score_adj";
    let own = std::fs::read_to_string(path).ok().and_then(|score| score.trim().parse::<i32>().ok());
    // Where it cannot be said, the kernel chooses by itself.
    std::fs::write(path, (own.unwrap_or(0) + 500).min(1000).to_string()).ok();
}

/// What a worker is born with.
struct Birth {
    zygote: u32,
    worker: WorkerId,
    ends: WorkerEnds,
    /// Readable when the coordinator has sent something to a worker that waits for more than that.
    doorbell: OwnedFd,
}

struct Loop<'a> {
    ops: &'a Ops,
    control: OwnedFd,
    ends: IpcReceiver<WorkerEnds>,
    outbox: IpcSender<Frame>,
    signals: SignalFd,
    inherited_mask: SigSet,
    workers: HashMap<Pid, WorkerId>,
    setup: Option<(Setup, [OwnedFd; 3])>,
    artifacts: Vec<(ArtifactSetup, OwnedFd, Option<OwnedFd>)>,
    attached: Option<&'static Attached>,
    python: Option<Host>,
    /// The Python processes of workers.
    kin: Kin,
}

impl<'a> Loop<'a> {
    fn new(
        parent: u32,
        ops: &'a Ops,
        control: OwnedFd,
        ends: IpcReceiver<WorkerEnds>,
        outbox: IpcSender<Frame>,
    ) -> std::io::Result<Loop<'a>> {
        prctl::set_name(c"forkyard-zygote")?;
        // A session of its own: Ctrl-C at the terminal is the coordinator's to interpret, and whoever stays in the session can be
        // told from others when the zygote is dead.
        setsid()?;
        prctl::set_child_subreaper(true)?;
        // stdout is the coordinator's data: what an op prints goes to stderr.
        dup2_stdout(std::io::stderr())?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        let mut inherited_mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut inherited_mask))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // The coordinator's death arrives as a signal besides the end of file, because the latter
        // comes late if anybody else holds the socket. Asked for after the mask is set; a parent that
        // died before is found by its number.
        prctl::set_pdeathsig(Signal::SIGTERM)?;
        if getppid().as_raw() as u32 != parent {
            sys::exit_now(0);
        }
        Ok(Loop {
            ops,
            control,
            ends,
            outbox,
            signals,
            inherited_mask,
            workers: HashMap::new(),
            setup: None,
            artifacts: Vec::new(),
            attached: None,
            python: None,
            kin: Kin::default(),
        })
    }

    /// Serves until the coordinator is gone; then nothing below is left.
    fn serve(mut self) -> i32 {
        loop {
            let mut fds = vec![
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(
                self.python.iter().map(|python| PollFd::new(python.control().as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return self.end(&format!("poll: {error}")),
            }
            let commanded = fds[0].any().unwrap_or(true);
            let forked =
                fds.get(2).and_then(|fd| fd.revents()).is_some_and(|there| there.contains(PollFlags::POLLIN));
            drop(fds);
            if forked {
                self.learn_of_kin();
            }
            while let Ok(Some(signal)) = self.signals.read_signal() {
                if signal.ssi_signo == Signal::SIGTERM as u32 {
                    return self.end("");
                }
            }
            self.bury();
            if commanded {
                match sys::receive_packet(&self.control) {
                    Ok(None) => return self.end(""),
                    Ok(Some((bytes, fds))) => match self.obey(&bytes, fds) {
                        Ok(None) => {}
                        Ok(Some(birth)) => return self.live(birth),
                        Err(error) => return self.end(&error),
                    },
                    Err(error) => return self.end(&error.to_string()),
                }
            }
        }
    }

    /// Kills everything below and says why, if that is news to anybody.
    fn end(&mut self, why: &str) -> i32 {
        reap::kill_children();
        if why.is_empty() {
            return 0;
        }
        eprintln!("forkyard: the zygote stops: {why}");
        70
    }

    /// Carries out a command. In a worker that was forked by it, what it is born with.
    fn obey(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Option<Birth>, String> {
        let mut fds = fds.into_iter();
        match codec::decode(bytes)? {
            ToZygote::Setup(setup) => {
                let fds = <[OwnedFd; 3]>::try_from(fds.collect::<Vec<_>>());
                self.setup = Some((setup, fds.map_err(|_| "setup without its descriptors")?));
            }
            ToZygote::Artifact(setup) => {
                let file = fds.next().ok_or("an artifact without a descriptor")?;
                self.artifacts.push((setup, file, fds.next()));
            }
            ToZygote::Attach => {
                let ready = self.while_endable(Loop::map_all);
                self.tell(FromZygote::Ready(ready))?;
            }
            ToZygote::Python(setup) => {
                let ready = self.while_endable(|zygote| zygote.start_python(setup));
                self.tell(FromZygote::PythonReady(ready))?;
            }
            ToZygote::Fork(worker) => {
                // Without a descriptor for it, what is received would be no channel, which ipc-channel takes for granted.
                self.control.try_clone().map_err(|error| format!("take over a worker's channel: {error}"))?;
                let ends = self.ends.recv().map_err(|error| error.to_string())?;
                return self.fork(worker, ends, fds.next().ok_or("a worker without its doorbell")?);
            }
            ToZygote::Kill(worker) => {
                let pid = self.workers.iter().find(|(_, id)| **id == worker).map(|(pid, _)| *pid);
                if let Some(pid) = pid {
                    kill(pid, Signal::SIGKILL).ok();
                }
            }
            ToZygote::KillAll => self.workers.keys().for_each(|pid| {
                // One that has just ended is waited for later.
                kill(*pid, Signal::SIGKILL).ok();
            }),
        }
        Ok(None)
    }

    /// Does something long, while a signal may end us: there is nothing below yet that would have to be ended first, but an
    /// interpreter, which the kernel ends.
    fn while_endable<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let end = SigSet::from(Signal::SIGTERM);
        end.thread_unblock().ok();
        let done = act(self);
        end.thread_block().ok();
        done
    }

    /// Maps the artifacts: whole files are read.
    fn map_all(&mut self) -> Result<(), (ArtifactId, String)> {
        let (setup, [lock, pulses, arena]) = self.setup.take().expect("BUG: attach before setup");
        let artifacts = std::mem::take(&mut self.artifacts).into_iter().enumerate();
        let artifacts = artifacts.map(|(index, (setup, file, table))| {
            Artifact::map(setup, file, table).map_err(|e| (ArtifactId::new(index), e.to_string()))
        });
        let artifacts = artifacts.collect::<Result<_, _>>()?;
        let arena =
            ArenaReader::read_only(&arena).map_err(|error| (ArtifactId::new(0), error.to_string()))?;
        let (secrets, python) = (Secrets::of(&setup.secrets), OnceCell::new());
        let attached = Attached { setup, _lock: lock, pulses, arena, artifacts, secrets, python };
        // Every worker refers to it for as long as it lives, which is as long as the process.
        self.attached = Some(Box::leak(Box::new(attached)));
        Ok(())
    }

    /// Starts Python, and waits until it has imported everything.
    fn start_python(&mut self, setup: PythonSetup) -> Result<Vec<String>, NoPython> {
        let attached = self.attached.expect("BUG: Python before attach");
        let python = Host::start(setup, &attached.setup.token, &attached.setup.secrets)?;
        let warnings = python.prepare(&attached.artifacts, &attached.setup.secrets)?;
        let control = python.control().try_clone().map_err(|error| NoPython::Refused(error.to_string()))?;
        attached.python.set(control).expect("BUG: Python started twice");
        self.python = Some(python);
        Ok(warnings)
    }

    fn fork(
        &mut self,
        worker: WorkerId,
        ends: WorkerEnds,
        doorbell: OwnedFd,
    ) -> Result<Option<Birth>, String> {
        let zygote = std::process::id();
        match sys::fork() {
            Ok(ForkResult::Parent { child }) => {
                self.workers.insert(child, worker);
                // `ends` and `doorbell` are closed here: only the worker holds them now.
                Ok(None)
            }
            Ok(ForkResult::Child) => Ok(Some(Birth { zygote, worker, ends, doorbell })),
            Err(error) => {
                self.tell(FromZygote::ForkFailed(worker, error.to_string()))?;
                Ok(None)
            }
        }
    }

    /// The life of a worker, in the worker. Closes what is the zygote's.
    fn live(self, birth: Birth) -> i32 {
        let Loop { ops, outbox, inherited_mask, attached, .. } = self;
        let attached = attached.expect("BUG: fork before attach");
        // An op's panic is its task's error, and is reported as that.
        std::panic::set_hook(Box::new(|_| {}));
        let run = || -> Result<Served, Box<dyn std::error::Error>> {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid().as_raw() as u32 != birth.zygote {
                return Ok(Served::Enough);
            }
            let born = ToCoordinator::Born(birth.worker, std::process::id());
            outbox.send(Frame(codec::encode(&born)))?;
            prctl::set_name(c"forkyard-worker")?;
            prctl::set_child_subreaper(true)?;
            prctl::set_no_new_privs()?;
            offer_to_the_kernel();
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&inherited_mask), None)?;
            attached.guard()?;
            Ok(Worker::new(birth.worker, ops, attached, &outbox, birth.doorbell)?.serve(birth.ends)?)
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(Ok(Served::Enough)) => 0,
            Ok(Ok(Served::PythonEnded)) => CHILD_ENDED,
            Ok(Err(error)) => {
                eprintln!("forkyard: worker stops: {error}");
                70
            }
            Err(_) => 70,
        }
    }

    /// Waits for every child that has ended, kills what they left behind, and reports the workers
    /// among them.
    fn bury(&mut self) {
        let (mut dead, mut news, mut lost_kin) = (Vec::new(), Vec::new(), false);
        while let Some((pid, end)) = sys::wait_any() {
            if let Some(worker) = self.workers.remove(&pid) {
                dead.push((worker, pid, end));
            } else if self.python.as_ref().is_some_and(|python| python.pid() == pid) {
                news.push(FromZygote::PythonGone(end));
            } else {
                self.learn_of_kin();
                lost_kin |= self.kin.note_end(pid, end);
            }
        }
        if dead.is_empty() && news.is_empty() && !lost_kin {
            return;
        }
        self.learn_of_kin();
        for (worker, pid, end) in dead {
            let of_python = self.kin.bury(pid);
            let python = of_python.filter(|_| end == End::Exit(CHILD_ENDED));
            let (pid, end) = (pid.as_raw() as u32, python.unwrap_or(end));
            news.push(FromZygote::Died { worker, pid, end, python: python.is_some() });
        }
        reap::kill_strangers(|| {
            // A Python process that was forked meanwhile is told of before it becomes our child.
            self.learn_of_kin();
            let python = self.python.as_ref().map(Host::pid);
            self.workers.keys().copied().chain(self.kin.living()).chain(python).collect()
        });
        for death in news {
            // A coordinator that cannot hear it is gone, which the next poll tells.
            self.tell(death).ok();
        }
    }

    fn learn_of_kin(&mut self) {
        if let Some(python) = &self.python {
            self.kin.learn(python);
        }
    }

    fn tell(&self, news: FromZygote) -> Result<(), String> {
        let frame = Frame(codec::encode(&ToCoordinator::Zygote(news)));
        self.outbox.send(frame).map_err(|error| error.to_string())
    }
}
