//! A process that sends every message back. It is forked, so it must be made before any thread is
//! started. Knows nothing of what the messages say.

use std::io;
use std::time::{Duration, Instant};

use forkyard_shared::codec::Frame;
use forkyard_shared::sys;
use ipc_channel::TryRecvError;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

/// The echo and the way to it.
pub struct Echo {
    spin: Duration,
    there: Option<IpcSender<Frame>>,
    back: IpcReceiver<Frame>,
    child: Pid,
}

impl Echo {
    /// Forks the process. Both sides look for a message for so long before they sleep.
    pub fn fork(spin: Duration) -> io::Result<Echo> {
        let (there, inbox) = ipc::channel()?;
        let (outbox, back) = ipc::channel()?;
        match sys::fork()? {
            ForkResult::Parent { child } => Ok(Echo { spin, there: Some(there), back, child }),
            ForkResult::Child => {
                // The other side's end is noticed only when ours is the last copy.
                drop((there, back));
                while let Some(frame) = receive(&inbox, spin) {
                    if outbox.send(frame).is_err() {
                        break;
                    }
                }
                sys::exit_now(0)
            }
        }
    }

    /// Sends a message and waits until it is back.
    ///
    /// # Panics
    /// When the echo has died.
    pub fn round_trip(&self, frame: Frame) -> Frame {
        let there = self.there.as_ref().expect("only drop takes it");
        there.send(frame).expect("the echo takes a frame");
        receive(&self.back, self.spin).expect("the echo answers")
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.there = None;
        waitpid(self.child, None).ok();
    }
}

fn receive(inbox: &IpcReceiver<Frame>, spin: Duration) -> Option<Frame> {
    let start = Instant::now();
    while start.elapsed() < spin {
        match inbox.try_recv() {
            Err(TryRecvError::Empty) => std::hint::spin_loop(),
            other => return other.ok(),
        }
    }
    inbox.recv().ok()
}
