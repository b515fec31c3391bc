//! The first line of `main`.

use std::sync::OnceLock;

use forkyard_worker::Ops;
use forkyard_worker::zygote::{self, Zygote};
use parking_lot::Mutex;

/// What `init` leaves for the rest of the program.
pub(crate) struct Runtime {
    ops: Ops,
    zygote: Mutex<Option<Zygote>>,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Forks the zygote. Call it on the first line of `main`, before any thread is started and before anything
/// large is in memory: every worker will be a copy of the process as it is now.
///
/// # Panics
/// When it is called twice, or when the process has more than one thread.
pub fn init(ops: Ops) {
    let zygote = match zygote::start(&ops) {
        Ok(zygote) => zygote,
        Err(error) => {
            eprintln!("forkyard: the system refuses the process that forks the workers: {error}");
            std::process::exit(70);
        }
    };
    let runtime = Runtime { ops, zygote: Mutex::new(Some(zygote)) };
    assert!(RUNTIME.set(runtime).is_ok(), "forkyard::init is called twice");
}

impl Runtime {
    /// What `init` made.
    pub fn get() -> Result<&'static Runtime, String> {
        RUNTIME.get().ok_or_else(|| "call forkyard::init on the first line of main".into())
    }

    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Ends the zygote if nobody took it.
    pub fn end(&self) {
        if let Some(zygote) = self.zygote.lock().take() {
            zygote.end();
        }
    }

    /// The process of the zygote, if nobody took it.
    pub fn zygote_pid(&self) -> Option<u32> {
        self.zygote.lock().as_ref().map(|zygote| zygote.pid.as_raw() as u32)
    }

    /// The zygote, which serves one pool.
    pub fn take_zygote(&self) -> Result<Zygote, String> {
        self.zygote.lock().take().ok_or_else(|| "this process has had its pool already".into())
    }
}
