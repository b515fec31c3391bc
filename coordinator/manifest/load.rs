//! Loading a manifest: the file itself and what it includes, then the checks across files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forkyard_worker::Ops;

use super::build::{Builder, Outer};
use super::problem::{Fault, ManifestError};
use super::source::{Source, Syntax};
use super::{jsonl, tables};
use crate::plan::Plan;

/// Checks nodes that come into being while a run goes on: JSON, a node a line. `name` says where they come from.
///
/// # Errors
/// With every mistake in them.
pub(crate) fn load_made(
    text: String,
    name: String,
    (plan, dir): (&Plan, &Path),
    ops: &Ops,
    outer: Outer,
) -> Result<Plan, ManifestError> {
    let mut builder = Builder::within(plan, ops, outer);
    let source = Source { name, text, syntax: Syntax::JsonLines };
    builder.enter(dir.into(), 0);
    jsonl::read(&source, &mut builder);
    builder.finish(&[source])
}

/// Reads a manifest and everything it includes; with `text`, that is JSON Lines and stands in the place of the file. The
/// variables in `given` take the place of those in `[vars]`.
///
/// # Errors
/// When a file cannot be read, or with every mistake in them.
pub(crate) fn load(
    path: &Path,
    text: Option<&str>,
    ops: &Ops,
    given: &BTreeMap<String, String>,
) -> Result<Plan, ManifestError> {
    let (source, path) = match text {
        Some(text) => {
            let name = path.display().to_string();
            // Its relative paths start here.
            (Source { name, text: text.into(), syntax: Syntax::JsonLines }, Path::new("-"))
        }
        None => (Source::read(path)?, path),
    };
    let mut builder = Builder::new(path, ops);
    builder.give(given);
    let mut sources = vec![source];
    let mut files = vec![path.to_path_buf()];
    let mut at = 0;
    while let Some(source) = sources.get(at) {
        let dir = Source::dir(&files[at]);
        builder.enter(dir.clone(), at);
        match source.syntax {
            Syntax::Toml => tables::read(source, &mut builder),
            Syntax::JsonLines => jsonl::read(source, &mut builder),
        }
        for (index, include) in builder.take_includes().into_iter().enumerate() {
            let file: PathBuf = dir.join(include);
            if files.contains(&file) {
                continue;
            }
            match Source::read(&file) {
                Ok(source) => {
                    sources.push(source);
                    files.push(file);
                }
                Err(error @ ManifestError::Unreadable { .. }) => {
                    let fault = Fault::new(error.to_string()).in_item(index).inside("include").inside("run");
                    builder.problem(sources[at].header_problem(fault));
                }
                Err(error) => return Err(error),
            }
        }
        at += 1;
    }
    builder.finish(&sources)
}
