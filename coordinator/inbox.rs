//! Where everything arrives that workers, the zygote and our own threads say. Knows nothing of what it means. One thread
//! listens at a time.

use std::sync::Arc;
use std::time::Duration;

use forkyard_shared::codec::Frame;
use forkyard_shared::mapping::PulseBoard;
use forkyard_shared::spin;
use ipc_channel::TryRecvError;
use ipc_channel::ipc::IpcReceiver;

/// The longest sleep that the kernel is asked for.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

pub(crate) struct Inbox {
    receiver: IpcReceiver<Frame>,
    pulses: Arc<PulseBoard>,
    /// What workers had said when there was nothing here.
    said: u64,
    /// What ended a sleep.
    first: Option<Frame>,
}

impl Inbox {
    pub fn new(receiver: IpcReceiver<Frame>, pulses: Arc<PulseBoard>) -> Inbox {
        Inbox { receiver, pulses, said: 0, first: None }
    }

    /// The next message, if it comes within `limit` and nothing else does. Does not sleep. Of what others than workers
    /// say, only that is heard which was there at once, or before what a worker says.
    pub fn look(
        &mut self,
        limit: Duration,
        something_else: impl Fn() -> bool,
    ) -> Result<Option<Frame>, String> {
        if let Some(frame) = self.take(Duration::ZERO)? {
            return Ok(Some(frame));
        }
        let found = spin::look(limit, || match self.pulses.said() != self.said {
            true => self.take(Duration::ZERO).transpose().map(Some),
            false => something_else().then_some(None),
        });
        found.flatten().transpose()
    }

    /// Sleeps until there is a message, or until `limit` from now. What there is comes with the next look.
    pub fn sleep(&mut self, limit: Duration) -> Result<(), String> {
        if self.first.is_none() {
            // Whole milliseconds are what the kernel is asked to wait; round up, else the last fraction would be spent
            // looking.
            self.first = self.take(limit.min(SLEEP_MAX) + Duration::from_micros(999))?;
        }
        Ok(())
    }

    /// What there is, or comes within `limit`.
    pub fn take(&mut self, limit: Duration) -> Result<Option<Frame>, String> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let said = self.pulses.said();
        // (A look that does not wait by way of `try_recv` would take three system calls.)
        match self.receiver.try_recv_timeout(limit) {
            Ok(frame) => Ok(Some(frame)),
            Err(TryRecvError::Empty) => {
                self.said = said;
                Ok(None)
            }
            Err(TryRecvError::IpcError(error)) => Err(format!("receive from the pool: {error}")),
        }
    }
}
