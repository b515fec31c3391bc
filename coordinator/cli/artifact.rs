//! `forkyard artifact`.

use std::io::Write;
use std::path::Path;

use forkyard_shared::artifact::Format;

use super::exit::{Exit, Failure, printed};
use crate::artifacts::OpenArtifact;
use crate::manifest::ArtifactEntry;
use crate::store::DigestMemo;

pub(super) fn info(file: &Path, format: Option<&str>, json: bool) -> Result<Exit, Failure> {
    let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("artifact");
    let mut entry = ArtifactEntry::of(name, file.into());
    if let Some(word) = format {
        entry.format = Format::from_name(word).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("`{word}` is no format; known are raw, npy, jsonl and usearch"))
        })?;
    }
    let problem = |error| Failure::new(Exit::Artifact, error);
    let artifact = OpenArtifact::open(&entry).map_err(problem)?;
    // Hashed for this once: there may be no store to remember it in.
    let digest = artifact.digest(&mut DigestMemo::open(Path::new(""))).map_err(problem)?;
    let mut out = std::io::stdout().lock();
    printed(if json {
        let mut fields = artifact.event(digest);
        fields["v"] = 1.into();
        writeln!(out, "{fields}")
    } else {
        writeln!(out, "{}: {}\nsha256 {digest}", file.display(), artifact.describe())
    })
}
