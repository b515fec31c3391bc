//! `exec`: a command, with a declared environment and a scratch directory of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forkyard_shared::protocol::{LOG_MAX_BYTES, Param};
use forkyard_shared::sink::{Body, too_long, unwritable};
use forkyard_shared::value::Kind;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::command::{self, Command, Stdin};
use crate::log::last_lines;
use crate::op::{Failed, Op, Output};
use crate::params::{ParamKind, ParamSpec, Signature};
use crate::reap;
use crate::secrets::Guarded;
use crate::task::Task;

/// How much of an output file is copied at a time.
const COPY_BYTES: usize = 256 << 10;

#[derive(Default)]
pub(super) struct Exec {
    /// The scratch directory of the command before.
    scratch: Mutex<Option<Scratch>>,
}

impl Op for Exec {
    fn signature(&self) -> Signature {
        const BESIDE: &[ParamSpec] = &[
            ParamSpec::optional("cwd", ParamKind::Text),
            ParamSpec::optional("env", ParamKind::TextTable),
            ParamSpec::optional("files", ParamKind::Texts),
            ParamSpec::optional("inputs", ParamKind::Results),
            ParamSpec::optional("output", ParamKind::Output),
            ParamSpec::required("run", ParamKind::Command),
            ParamSpec::optional("shell", ParamKind::Flag),
            ParamSpec::optional("stdin", ParamKind::Stream),
        ];
        Signature { params: Some(&[]), beside: BESIDE, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let kept = self.kept().take();
        let path = || task.tmp_dir().join(format!("{}.d", task.tmp_name()));
        let scratch = kept.map_or_else(|| Scratch::make(path()), Ok)?;
        let result = run_in(task, &scratch.path);
        // Before the scratch directory is looked at, so that nothing writes into it any more.
        reap::kill_children();
        *self.kept() = Some(scratch).filter(Scratch::is_as_made);
        result
    }
}

impl Exec {
    fn kept(&self) -> MutexGuard<'_, Option<Scratch>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run_in(task: &Task, scratch: &Path) -> Result<Output, Failed> {
    let argv = argv(task)?;
    let cwd: PathBuf = task.param("cwd")?;
    let env = environment(task, scratch)?;
    let command = Command { argv: &argv, cwd: &cwd, env: &env, stdin: stdin(task)? };
    let output = task.optional::<String>("output")?.unwrap_or_else(|| "text".into());

    // JSON is read again here; all else is the result itself.
    let mut stdout = if output == "json" { task.plain_sink() } else { task.sink() };
    let is_file = !matches!(output.as_str(), "text" | "bytes" | "json");
    let finished = {
        let _limit = is_file.then(|| FileLimit::of(task.max_result())).transpose()?;
        command::run(command, &mut stdout, LOG_MAX_BYTES)?
    };
    let result = if finished.status.success() {
        collect(task, &output, stdout, scratch)
    } else if is_file && was_cut(finished.status) {
        Err(Failed::new(format!("{}: {}", argv[0], too_long(task.max_result()))))
    } else {
        let said = last_lines(&finished.log, 5);
        let said = if said.is_empty() { "it wrote nothing to stderr".into() } else { said };
        Err(Failed::new(format!("{} ended with {}: {said}", argv[0], finished.status)))
    };
    match result {
        Ok(output) => Ok(output.with_log(finished.log)),
        Err(failed) => Err(failed.with_log(finished.log)),
    }
}

/// While it is there, no process that is started can make a file longer than this: who tries is ended by a signal.
struct FileLimit {
    before: (u64, u64),
}

impl FileLimit {
    fn of(most: u64) -> Result<FileLimit, Failed> {
        let before = getrlimit(Resource::RLIMIT_FSIZE)?;
        setrlimit(Resource::RLIMIT_FSIZE, most.min(before.1), before.1)?;
        Ok(FileLimit { before })
    }
}

impl Drop for FileLimit {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_FSIZE, self.before.0, self.before.1).ok();
    }
}

/// Whether a command was ended for a file that was too long, or is a shell whose last command was.
fn was_cut(status: ExitStatus) -> bool {
    const SIGNAL: i32 = Signal::SIGXFSZ as i32;
    status.signal() == Some(SIGNAL) || status.code() == Some(128 + SIGNAL)
}

fn argv(task: &Task) -> Result<Vec<String>, Failed> {
    let words = match task.param::<serde_json::Value>("run")? {
        serde_json::Value::String(line) => vec![line],
        words => serde_json::from_value(words)?,
    };
    if task.optional("shell")?.unwrap_or(false) {
        let shell = ["/bin/sh", "-c"].map(String::from);
        // What follows the first word are the script's $0, $1, ...
        return Ok(shell.into_iter().chain(words).collect());
    }
    Ok(words)
}

/// The whole environment of the command: what `docs/manifest.md` promises and nothing else.
fn environment(task: &Task, scratch: &Path) -> Result<Vec<(OsString, OsString)>, Failed> {
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    let secrets = task.secret_names().iter().map(String::as_str);
    for name in ["PATH", "HOME", "LANG"].into_iter().chain(secrets) {
        if let Some(value) = std::env::var_os(name) {
            env.insert(name.into(), value);
        }
    }
    for (name, value) in task.optional::<BTreeMap<String, String>>("env")?.unwrap_or_default() {
        env.insert(name.into(), value.into());
    }
    for artifact in task.artifacts() {
        let variable = declare(&mut env, "FORKYARD_ARTIFACT_", &artifact.setup.name)?;
        let link = scratch.join(&variable).with_extension(artifact.suffix());
        symlink(artifact.path(), &link).map_err(|error| unwritable("make", &link, &error))?;
        env.insert(variable, link.into());
    }
    for (name, param) in task.with_prefix("inputs.") {
        let variable = declare(&mut env, "FORKYARD_INPUT_", name)?;
        let path = match param {
            Param::Blob { digest, .. } => task.verified_blob(*digest)?,
            small => {
                let path = scratch.join(&variable);
                let bytes = task.read(small)?;
                let file = File::options().write(true).create_new(true).mode(0o400).open(&path);
                let written = file.and_then(|mut file| file.write_all(&bytes));
                written.map_err(|error| unwritable("write", &path, &error))?;
                path
            }
        };
        env.insert(variable, path.into());
    }
    env.insert("FORKYARD_SCRATCH".into(), scratch.into());
    env.insert("FORKYARD_RUN".into(), task.run_token().into());
    Ok(env.into_iter().collect())
}

/// The variable that no other name may have: `FORKYARD_INPUT_` and `near-000` make `FORKYARD_INPUT_NEAR_000`.
fn declare(env: &mut BTreeMap<OsString, OsString>, prefix: &str, name: &str) -> Result<OsString, Failed> {
    let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let variable = format!("{prefix}{}", upper.collect::<String>());
    match env.insert(variable.clone().into(), OsString::new()) {
        None => Ok(variable.into()),
        Some(_) => Err(Failed::new(format!(
            "two things would be called {variable} in the command's environment; rename `{name}`"
        ))),
    }
}

fn stdin(task: &Task) -> Result<Stdin, Failed> {
    Ok(match task.raw("stdin") {
        None => Stdin::Empty,
        Some(Param::Json(text)) => Stdin::Bytes(serde_json::from_str::<String>(text)?.into_bytes()),
        Some(Param::Blob { digest, .. }) => Stdin::File(File::open(task.verified_blob(*digest)?)?),
        Some(small) => Stdin::Bytes(task.read(small)?),
    })
}

/// The result: stdout, or the file that `output` names in the scratch directory.
fn collect(task: &Task, output: &str, stdout: Guarded, scratch: &Path) -> Result<Output, Failed> {
    match output {
        "text" | "bytes" => {
            let kind = if output == "text" { Kind::Text } else { Kind::Bytes };
            Ok(Output::written(kind, stdout.finish()?))
        }
        "json" => {
            let value: serde_json::Value = match stdout.finish()? {
                Body::Inline { bytes, .. } => serde_json::from_slice(&bytes),
                Body::File { name, .. } => {
                    let path = task.tmp_dir().join(name);
                    let parsed = serde_json::from_slice(&fs::read(&path)?);
                    fs::remove_file(&path)?;
                    parsed
                }
            }
            .map_err(|error| {
                Failed::new(format!("output = \"json\", but stdout is not one JSON value: {error}"))
            })?;
            Output::json(&value)
        }
        name => {
            let mut file = open_inside(scratch, name).map_err(|why| {
                Failed::new(format!("output = \"{name}\" names a file in $FORKYARD_SCRATCH, but {why}"))
            })?;
            let mut sink = BufWriter::with_capacity(COPY_BYTES, task.sink());
            io::copy(&mut file, &mut sink)?;
            let sink = sink.into_inner().map_err(|error| error.into_error())?;
            Ok(Output::written(Kind::Bytes, sink.finish()?))
        }
    }
}

/// Opens a file that a command left, and nothing outside of `dir`.
fn open_inside(dir: &Path, name: &str) -> Result<File, String> {
    let path = fs::canonicalize(dir.join(name)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "the command left no such file there".into(),
        _ => error.to_string(),
    })?;
    if !fs::canonicalize(dir).is_ok_and(|dir| path.starts_with(dir)) {
        return Err(format!("it leads to {}", path.display()));
    }
    // A pipe without a writer would keep us waiting.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags.bits()).open(&path);
    let file = file.map_err(|error| error.to_string())?;
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(found) if found.is_dir() => Err("it is a directory".into()),
        _ => Err("it is not a regular file".into()),
    }
}

/// A directory in the store's `tmp/`, empty when a command starts. Most commands leave it alone: then the next one gets
/// it too, for making and removing one costs a tenth of what a small program takes. (When the worker has ended, the
/// coordinator clears it away.)
struct Scratch {
    path: PathBuf,
    made: Seen,
}

/// What tells whether a directory was touched: device, inode, permissions, and the time of the last change.
type Seen = (u64, u64, u32, (i64, i64));

impl Scratch {
    fn make(path: PathBuf) -> Result<Scratch, Failed> {
        let made = DirBuilder::new().mode(0o700).create(&path).and_then(|()| seen(&path));
        let made = made.map_err(|error| unwritable("make scratch directory", &path, &error))?;
        Ok(Scratch { path, made })
    }

    /// Whether nobody could tell it from a new one. The clock of a file system may stand still for some milliseconds, so
    /// that the time alone does not say that nothing was put into it.
    fn is_as_made(&self) -> bool {
        let is_empty = || fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none());
        seen(&self.path).is_ok_and(|seen| seen == self.made) && is_empty()
    }
}

fn seen(dir: &Path) -> io::Result<Seen> {
    let of = fs::symlink_metadata(dir)?;
    Ok((of.dev(), of.ino(), of.mode(), (of.ctime(), of.ctime_nsec())))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_scratch_directory_serves_again_only_if_nobody_touched_it() {
        let dir = tempfile::tempdir().unwrap();
        let make = || Scratch::make(dir.path().join("scratch")).unwrap();
        let scratch = make();
        assert!(scratch.is_as_made());
        fs::write(scratch.path.join("left"), "").unwrap();
        assert!(!scratch.is_as_made(), "there is something in it");
        drop(scratch);
        let scratch = make();
        fs::set_permissions(&scratch.path, Permissions::from_mode(0o500)).unwrap();
        assert!(!scratch.is_as_made(), "nobody may write into it");
        drop(scratch);
        let scratch = make();
        fs::remove_dir(&scratch.path).unwrap();
        assert!(!scratch.is_as_made(), "it is gone");
        symlink("/", &scratch.path).unwrap();
        assert!(!scratch.is_as_made(), "it leads elsewhere");
        fs::remove_file(&scratch.path).unwrap();
    }
}
