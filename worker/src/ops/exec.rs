//! `exec`: a command, with a declared environment and a scratch directory of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use forkyard_shared::protocol::{LOG_MAX_BYTES, Param};
use forkyard_shared::sink::{Body, Sink};
use forkyard_shared::value::Kind;

use crate::command::{self, Command, Stdin};
use crate::log::last_lines;
use crate::op::{Failed, Op, Output};
use crate::params::{ParamKind, ParamSpec, Signature};
use crate::reap;
use crate::task::Task;

pub(super) struct Exec;

impl Op for Exec {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[
            ParamSpec::optional("cwd", ParamKind::Text),
            ParamSpec::optional("env", ParamKind::TextTable),
            ParamSpec::optional("files", ParamKind::Texts),
            ParamSpec::optional("inputs", ParamKind::Results),
            ParamSpec::optional("output", ParamKind::Text),
            ParamSpec::required("run", ParamKind::Command),
            ParamSpec::optional("shell", ParamKind::Flag),
            ParamSpec::optional("stdin", ParamKind::Stream),
        ];
        Signature { params: Some(PARAMS), beside: true, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let scratch = Scratch::make(task)?;
        let result = run_in(task, &scratch.0);
        // Before the scratch directory goes, so that nothing writes into it any more.
        reap::kill_children_except(&[]);
        result
    }
}

fn run_in(task: &Task, scratch: &Path) -> Result<Output, Failed> {
    let argv = argv(task)?;
    let cwd: PathBuf = task.param("cwd")?;
    let env = environment(task, scratch)?;
    let command = Command { argv: &argv, cwd: &cwd, env: &env, stdin: stdin(task)? };
    let output = task.optional::<String>("output")?.unwrap_or_else(|| "text".into());

    let mut stdout = task.sink();
    let finished = command::run(command, &mut stdout, LOG_MAX_BYTES)?;
    let result = if finished.status.success() {
        collect(task, &output, stdout, scratch)
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
    for name in ["PATH", "HOME", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            env.insert(name.into(), value);
        }
    }
    for (name, value) in task.optional::<BTreeMap<String, String>>("env")?.unwrap_or_default() {
        env.insert(name.into(), value.into());
    }
    for artifact in task.artifacts() {
        env.insert(variable("FORKYARD_ARTIFACT_", &artifact.setup.name), artifact.path().into());
    }
    for (name, param) in task.with_prefix("inputs.") {
        let path = match param {
            Param::Blob { digest, .. } => task.verified_blob(*digest)?,
            small => {
                let path = scratch.join(variable("FORKYARD_INPUT_", name));
                let mut file = File::options().write(true).create_new(true).mode(0o400).open(&path)?;
                file.write_all(&task.read(small)?)?;
                path
            }
        };
        env.insert(variable("FORKYARD_INPUT_", name), path.into());
    }
    env.insert("FORKYARD_SCRATCH".into(), scratch.into());
    env.insert("FORKYARD_RUN".into(), task.run_token().into());
    Ok(env.into_iter().collect())
}

/// `FORKYARD_INPUT_` and `near-000` make `FORKYARD_INPUT_NEAR_000`.
fn variable(prefix: &str, name: &str) -> OsString {
    let name = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    format!("{prefix}{}", name.collect::<String>()).into()
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
fn collect(task: &Task, output: &str, stdout: Sink, scratch: &Path) -> Result<Output, Failed> {
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
            let path = scratch.join(name);
            let mut file = File::open(&path).map_err(|error| {
                Failed::new(format!(
                    "output = \"{name}\", but the command left no such file in $FORKYARD_SCRATCH: {error}"
                ))
            })?;
            let mut sink = task.sink();
            std::io::copy(&mut file, &mut sink)?;
            Ok(Output::written(Kind::Bytes, sink.finish()?))
        }
    }
}

/// A directory in the store's `tmp/` that is gone when the attempt is over. (If the worker is killed
/// first, the next run clears it.)
struct Scratch(PathBuf);

impl Scratch {
    fn make(task: &Task) -> Result<Scratch, Failed> {
        let path = task.tmp_dir().join(format!("{}.d", task.tmp_name()));
        fs::create_dir(&path)
            .map_err(|error| Failed::new(format!("make scratch directory {}: {error}", path.display())))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
