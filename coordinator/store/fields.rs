//! `runs/<id>/fields`: what the keys of the nodes were made of that ran, but for those that are only an op and
//! their needs. Written after the results it speaks of, in frames as the journal's. It explains; nothing depends on
//! it, so that what is torn or damaged is left out without a word.

use std::fs::File;
use std::io;
use std::path::Path;

use super::journal;
use super::runs::RunDir;
use crate::fields::KeyFields;
use forkyard_shared::private;

/// A file of fields, made when there is something to write.
pub(super) struct FieldsFile {
    run: RunDir,
    file: Option<File>,
}

impl FieldsFile {
    pub fn of(run: &RunDir) -> FieldsFile {
        FieldsFile { run: RunDir { id: run.id, path: run.path.clone() }, file: None }
    }

    /// Appends encoded entries.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            let path = self.run.fields_path();
            self.file = Some(private::options().create_new(true).append(true).open(path)?);
        }
        let file = self.file.as_mut().expect("made above");
        journal::append(file, payload)
    }
}

/// Hands the entries of a run to `each`, oldest first. A run may have none.
pub(crate) fn read_fields(path: &Path, each: impl FnMut(KeyFields)) {
    journal::read_entries(path, each).ok();
}
