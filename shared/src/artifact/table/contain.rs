//! A library that panics on a file that is no good has refused it, no more. (Fuzzing found that `parquet` does.)

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::artifact::error::unreadable;
use crate::artifact::{ArtifactError, Format};

thread_local! {
    /// Whether what panics here is caught here.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// What `read` returns; a refusal if it panics, of which nothing is printed.
pub(super) fn contained<T>(
    format: Format,
    read: impl FnOnce() -> Result<T, ArtifactError>,
) -> Result<T, ArtifactError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !CONTAINED.get() {
                before(panic);
            }
        }));
    });
    CONTAINED.set(true);
    let ended = catch_unwind(AssertUnwindSafe(read));
    CONTAINED.set(false);
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(unreadable(format, format!("its reader gave up: {text}")))
    })
}
