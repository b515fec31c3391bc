//! Where results go, and what other programs there are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use serde_json::json;

use super::check::{Check, State};
use crate::store::network_file_system;
use crate::text;

const GIB: u64 = 1 << 30;

/// The store, or the nearest directory above it that there is.
fn nearest(store: &Path) -> PathBuf {
    let store = std::path::absolute(store).unwrap_or_else(|_| store.into());
    store.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).into()
}

pub(super) fn store(store: &Path) -> Check {
    let dir = nearest(store);
    let shown = dir.display();
    let network = network_file_system(&dir);
    let (state, meaning, advice) = match (access(&dir, AccessFlags::W_OK), network) {
        (Err(error), _) => (
            State::Warn,
            format!("{shown} cannot be written ({error}) - no result can be kept"),
            "give another place with --store",
        ),
        (Ok(()), Some(name)) => (
            State::Warn,
            format!("{shown} lies on a network file system ({name}) - two machines can damage it"),
            "put it on a local disk with --store, or use it from one machine only",
        ),
        (Ok(()), None) => (State::Ok, format!("{shown} is on a local file system and can be written"), ""),
    };
    let value = json!({ "dir": dir, "network": network });
    Check::new("store", state, value, meaning, advice)
}

pub(super) fn disk(store: &Path) -> Check {
    let dir = nearest(store);
    let advice = "make room (forkyard store gc), or give a place on another disk with --store";
    match statvfs(&dir) {
        Ok(stat) => {
            let bytes = stat.blocks_available() * stat.fragment_size();
            // A file system that makes inodes as they are needed counts none.
            let few_files = stat.files() > 0 && stat.files_available() < 10_000;
            let state = if few_files { State::Warn } else { State::of(bytes, GIB, 10 * GIB) };
            let files = if few_files {
                format!(", for {} files", text::count(stat.files_available()))
            } else {
                String::new()
            };
            let meaning =
                format!("{} left{files} - a full disk ends a run, and loses nothing", text::bytes(bytes));
            Check::new("disk", state, json!(bytes), meaning, advice)
        }
        Err(error) => {
            let meaning = format!("what is left of {} is not known ({error})", dir.display());
            Check::new("disk", State::Note, json!(null), meaning, advice)
        }
    }
}

pub(super) fn python() -> Check {
    let advice = "install Python 3.9 or later, or name one: `interpreter` in [python], `map --python`";
    let version = Command::new("python3")
        .args(["-c", "import sys; print(*sys.version_info[:3], sep='.')"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())
        .and_then(|output| match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        });
    let (state, value, meaning) = match version {
        Ok(version) => {
            let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
            let is_new = (numbers.next(), numbers.next()) >= (Some(3), Some(9));
            let state = if is_new { State::Ok } else { State::Note };
            let meaning =
                format!("python3 is {version} - only `python` nodes and `map FILE.py:FUNCTION` need it");
            (state, json!(version), meaning)
        }
        Err(why) => {
            let meaning = format!(
                "python3 does not start ({why}) - only `python` nodes and `map FILE.py:FUNCTION` need it"
            );
            (State::Note, json!(null), meaning)
        }
    };
    Check::new("python", state, value, meaning, advice)
}
