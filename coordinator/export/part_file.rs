//! A file that is there whole or not at all: it is written as `FILE.part` and renamed when it is complete.
//! Who is killed leaves that, and the next one writes over it. Knows nothing of what is written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A file that is being written. Dropped before it is complete, it is removed.
pub(crate) struct PartFile {
    file: File,
    part: PathBuf,
    wanted: PathBuf,
}

impl PartFile {
    /// Begins a file that will have this name.
    ///
    /// # Errors
    /// When it cannot be made, or when there is something of this name that is no regular file: a rename would
    /// put a file in the place of a link or a device.
    pub fn create(wanted: &Path) -> io::Result<PartFile> {
        if fs::symlink_metadata(wanted).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::other(
                "it exists and is not a regular file; name another, or `-` for stdout",
            ));
        }
        let mut part = wanted.as_os_str().to_owned();
        part.push(".part");
        Ok(PartFile { file: File::create(&part)?, part: part.into(), wanted: wanted.into() })
    }

    /// To write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in the place of a file that had it.
    pub fn complete(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.part, &self.wanted)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // After the rename there is none.
        fs::remove_file(&self.part).ok();
    }
}
