//! `forkyard artifact import`: the arrays of a pickle as a file that can be mapped, without running what is in it.
//!
//! Python reads pickles best, so a program in Python (`importer.py`, a part of this executable) does the work, in the
//! user's interpreter, cut off from its packages, and within limits of its own. Here is only what it is told and what
//! its end means: whatever a file does to it, that file is refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use forkyard_shared::protocol::End;
use forkyard_shared::{mapping, sys};

const PROGRAM: &str = include_str!("importer.py");

/// What becomes of vectors of one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrangement {
    /// One matrix, with the keys of its rows in a file beside it.
    Together,
    /// A tensor each.
    Apart,
}

/// What becomes of a file that has the name of the new one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Existing {
    /// It stays, and nothing is imported.
    Kept,
    /// The new one takes its place.
    Replaced,
}

/// What an import has to say.
#[derive(Debug)]
pub(crate) struct Imported {
    /// The files that were made, and what is in them.
    pub made: String,
    /// What is not in them.
    pub left_out: String,
}

/// Why nothing was imported.
#[derive(Debug)]
pub(crate) enum ImportError {
    /// What was asked for cannot be.
    Usage(String),
    /// The file is missing, or none that can be imported.
    Refused(String),
    /// What came out could not be written.
    Write(String),
    /// The program itself failed.
    Internal(String),
}

/// Whether a file of this name may hold arrays that an import would find.
pub(crate) fn may_import(file: &Path) -> bool {
    let suffix = file.extension().and_then(|suffix| suffix.to_str());
    suffix.is_some_and(|suffix| ["pkl", "pickle", "pt", "pth"].contains(&suffix))
}

/// Makes `to`, and its keys beside it, of the arrays in `from`.
pub(crate) fn import(
    from: &Path,
    to: &Path,
    python: &str,
    arrangement: Arrangement,
    existing: Existing,
) -> Result<Imported, ImportError> {
    check(from, to, existing)?;
    let started = mapping::sealed_copy("forkyard-importer", PROGRAM.as_bytes()).and_then(|program| {
        let mut command = Command::new(python);
        // Isolated: no package of the user and no folder of theirs has a say in what is read.
        command.args(["-I", "/dev/fd/3"]).args([from, to]);
        command.arg(if arrangement == Arrangement::Apart { "apart" } else { "together" });
        command.arg(if existing == Existing::Replaced { "replace" } else { "keep" });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::spawn_with(command, &[program.as_fd()])
    });
    let next = "name another interpreter with --python";
    let child = started.map_err(|error| ImportError::Usage(format!("start {python}: {error}; {next}")))?;
    let ended = child.wait_with_output();
    let ended =
        ended.map_err(|error| ImportError::Internal(format!("read what {python} writes: {error}")))?;
    let said: BTreeMap<String, String> = serde_json::from_slice(&ended.stdout).unwrap_or_default();
    let said = |word: &str| said.get(word).cloned().unwrap_or_default();
    match ended.status.code() {
        Some(0) => Ok(Imported { made: said("made"), left_out: said("left_out") }),
        Some(2) => Err(ImportError::Usage(said("why"))),
        Some(3) => Err(ImportError::Refused(said("why"))),
        Some(5) => Err(ImportError::Write(said("why"))),
        Some(status) => {
            let why = String::from_utf8_lossy(&ended.stderr);
            Err(ImportError::Internal(format!("{python} {}: {}", End::Exit(status), why.trim_end())))
        }
        None => Err(ImportError::Refused(format!(
            "{}: {python} {} while it read the file, which is damaged or was made to do that",
            from.display(),
            End::Signal(ended.status.signal().unwrap_or_default())
        ))),
    }
}

fn check(from: &Path, to: &Path, existing: Existing) -> Result<(), ImportError> {
    let refused = |why: &str| Err(ImportError::Refused(format!("{}: {why}", from.display())));
    match File::open(from).and_then(|file| file.metadata()) {
        Err(error) => return refused(&error.to_string()),
        Ok(about) if !about.is_file() => return refused("it is not a regular file"),
        Ok(_) => {}
    }
    let mistaken = |why: &str| Err(ImportError::Usage(format!("{}: {why}", to.display())));
    if !to.extension().is_some_and(|suffix| suffix == "safetensors" || suffix == "npy") {
        return mistaken("name a file that ends in .safetensors, or in .npy for a single array");
    }
    match fs::symlink_metadata(to) {
        Ok(about) if !about.is_file() => mistaken("it exists and is not a regular file; name another"),
        Ok(_) if existing == Existing::Kept => {
            mistaken("it exists; name another file, or say --force to replace it")
        }
        _ => Ok(()),
    }
}
