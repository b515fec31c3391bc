//! Starting a thread beside the main one. Knows nothing of what it does.
//!
//! A signal goes to any thread that does not block it. What is done about one is the main thread's to say, or the
//! signal thread's, so that every other thread blocks them all, and is born so: it could be hit before its first
//! line.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};

/// Starts a thread that no signal reaches.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    unreached(|| Builder::new().name(name.into()).spawn(body))
}

/// The same for one that ends within a scope.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn start_within<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    unreached(|| Builder::new().name(name.into()).spawn_scoped(scope, body))
}

fn unreached<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_is_born_with_every_signal_blocked_and_its_parent_keeps_its_own() {
        let before = SigSet::thread_get_mask().unwrap();
        let blocked = start("test", || SigSet::thread_get_mask().unwrap()).unwrap().join().unwrap();
        for signal in [nix::sys::signal::SIGINT, nix::sys::signal::SIGTERM, nix::sys::signal::SIGUSR1] {
            assert!(blocked.contains(signal), "{signal}");
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
