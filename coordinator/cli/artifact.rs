//! `forkyard artifact`.

use std::io::Write;
use std::path::Path;

use forkyard_shared::artifact::Format;

use super::exit::{Exit, Failure, printed};
use crate::artifacts::OpenArtifact;
use crate::importer::{self, Arrangement, Existing, ImportError};
use crate::manifest::ArtifactEntry;
use crate::store::DigestMemo;

pub(super) fn info(file: &Path, format: Option<&str>, json: bool) -> Result<Exit, Failure> {
    let (whole, _) = Format::split_part(file);
    let name = whole.file_stem().and_then(|stem| stem.to_str()).unwrap_or("artifact");
    let mut entry = ArtifactEntry::of(name, file.into());
    if let Some(word) = format {
        entry.format = Format::from_name(word).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("`{word}` is no format; known are {}", Format::names()))
        })?;
    }
    let problem = |error| Failure::new(Exit::Artifact, error);
    let artifact = OpenArtifact::open(&entry).map_err(problem)?;
    // Hashed for this once: there may be no store to remember it in.
    let digest = artifact.digest(&mut DigestMemo::open(Path::new(""))).map_err(problem)?;
    let parts = artifact.parts().map_err(|error| Failure::new(Exit::Artifact, error))?;
    if entry.format == Format::Raw && importer::may_import(file) {
        let (file, made) = (file.display(), file.with_extension("safetensors"));
        eprintln!(
            "bytes, as far as forkyard knows; for the arrays in it: forkyard artifact import {file} {}",
            made.display()
        );
    }
    let mut out = std::io::stdout().lock();
    printed(if json {
        let mut fields = artifact.event(digest);
        fields["v"] = 1.into();
        if !parts.is_empty() {
            fields["parts"] = parts.into();
        }
        writeln!(out, "{fields}")
    } else {
        let parts: String = parts.iter().map(|part| format!("\n  {part}")).collect();
        writeln!(out, "{}: {}\nsha256 {digest}{parts}", file.display(), artifact.describe())
    })
}

pub(super) fn import(
    from: &Path,
    to: &Path,
    python: &str,
    arrangement: Arrangement,
    existing: Existing,
) -> Result<Exit, Failure> {
    let imported =
        importer::import(from, to, python, arrangement, existing).map_err(|error| match error {
            ImportError::Usage(why) => Failure::new(Exit::Usage, why),
            ImportError::Refused(why) => Failure::new(Exit::Artifact, why),
            ImportError::Write(why) => Failure::new(Exit::Resources, why),
            ImportError::Internal(why) => Failure::new(Exit::Bug, why),
        })?;
    if !imported.left_out.is_empty() {
        eprintln!("{}", imported.left_out);
    }
    printed(writeln!(std::io::stdout().lock(), "{}", imported.made))
}
