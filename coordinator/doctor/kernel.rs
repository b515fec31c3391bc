//! What the kernel, and whoever confines us, lets us do.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};

use forkyard_shared::mapping::{GrowingFile, sealed_copy};
use serde_json::json;

use super::check::{Check, State};
use crate::text;

const GIB: u64 = 1 << 30;

/// Memory files that nobody can change any more.
pub(super) fn memory_files() -> Check {
    let advice = "nothing runs without: allow memfd_create in the sandbox, and have vm.memfd_noexec below 2";
    let (state, meaning) = match sealed_copy("doctor", &b"forkyard"[..]) {
        Ok(_) => (State::Ok, "they can be made and sealed - nothing in /dev/shm is needed".into()),
        Err(error) => (State::Warn, format!("they cannot be made ({error})")),
    };
    Check::new("memory_files", state, json!(state == State::Ok), meaning, advice)
}

/// The range in which the coordinator tells the workers what they are to do.
pub(super) fn address_space() -> Check {
    let advice = "allow more: ulimit -v unlimited";
    match GrowingFile::new("doctor") {
        Ok(file) => {
            let bytes = file.max_bytes();
            let meaning = format!(
                "{} can be reserved - what a run tells its workers at one time must fit",
                text::bytes(bytes)
            );
            Check::new("address_space", State::of(bytes, GIB, 64 * GIB), json!(bytes), meaning, advice)
        }
        Err(error) => {
            let meaning = format!("nothing can be reserved ({error}) - no run can start");
            Check::new("address_space", State::Warn, json!(0), meaning, advice)
        }
    }
}

/// Whether the kernel tells when memory runs short.
pub(super) fn pressure() -> Check {
    const FILE: &str = "/proc/pressure/memory";
    let watch = || -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(FILE)?;
        // Of windows that are not a multiple of 2 s, only root may watch for any.
        file.write_all(b"some 200000 2000000\0")
    };
    let (state, value, meaning) = match (fs::read_to_string(FILE), watch()) {
        (Ok(_), Ok(())) => (State::Ok, "watch", "the kernel tells when memory runs short".into()),
        (Ok(_), Err(error)) => (
            State::Note,
            "read",
            format!("it can be read and not waited for ({error}) - a shortage is noticed a little later"),
        ),
        (Err(error), _) => (
            State::Note,
            "none",
            format!("{FILE} cannot be read ({error}) - a shortage is noticed by what is free alone"),
        ),
    };
    let advice = "start the kernel with psi=1; older ones let only root watch";
    Check::new("pressure", state, json!(value), meaning, advice)
}

/// Whether the most memory that a process ever had can be measured anew.
pub(super) fn peaks() -> Check {
    // 5: set the peak to what there is now; nothing else changes.
    let reset =
        OpenOptions::new().write(true).open("/proc/self/clear_refs").and_then(|mut f| f.write_all(b"5"));
    let (state, meaning) = match reset {
        Ok(()) => (State::Ok, "they can be measured node by node".into()),
        Err(error) => {
            (State::Note, format!("/proc/PID/clear_refs cannot be written ({error}) - they are sampled"))
        }
    };
    let advice = "a kernel with CONFIG_PROC_PAGE_MONITOR, and a /proc that can be written, measure them";
    Check::new("memory_peaks", state, json!(state == State::Ok), meaning, advice)
}
