//! Loading a manifest: the file itself and what it includes, then the checks across files.

use std::path::{Path, PathBuf};

use forkyard_worker::Ops;

use super::build::Builder;
use super::problem::ManifestError;
use super::source::{Source, Syntax};
use super::{jsonl, tables};
use crate::plan::Plan;

/// Reads a manifest and everything it includes.
///
/// # Errors
/// When a file cannot be read, or with every mistake in them.
pub(crate) fn load(path: &Path, ops: &Ops) -> Result<Plan, ManifestError> {
    let mut builder = Builder::new(path, ops);
    let mut files = vec![path.to_path_buf()];
    let mut sources = Vec::new();
    while let Some(file) = files.get(sources.len()).cloned() {
        let source = Source::read(&file)?;
        builder.enter(Source::dir(&file), sources.len());
        match source.syntax {
            Syntax::Toml => tables::read(&source, &mut builder),
            Syntax::JsonLines => jsonl::read(&source, &mut builder),
        }
        sources.push(source);
        for include in builder.take_includes() {
            let include: PathBuf = Source::dir(&file).join(include);
            if !files.contains(&include) {
                files.push(include);
            }
        }
    }
    builder.finish(&sources)
}
