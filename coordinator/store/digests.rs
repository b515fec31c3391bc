//! Digests of files, remembered by what `stat` says of them, so that a matrix of gigabytes is hashed
//! once and not in every run. A digest is remembered only if the file had not been changed for two
//! seconds and was the same before and after hashing: else a second change within the clock's grain
//! could go unseen.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use forkyard_shared::digest::{Digest, Hasher};
use forkyard_shared::private;

/// What identifies the content of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.modified.0.max(self.changed.0) + 2 <= now.as_secs() as i64
    }

    fn key(&self) -> String {
        let Stamp { device, inode, size, modified, changed } = self;
        format!("{device}:{inode}:{size}:{}.{}:{}.{}", modified.0, modified.1, changed.0, changed.1)
    }
}

/// The digests that a store remembers.
pub(crate) struct DigestMemo {
    path: PathBuf,
    known: HashMap<String, String>,
    grown: bool,
    /// Set by somebody who does not want to wait any longer.
    stop: Arc<AtomicBool>,
}

impl DigestMemo {
    /// What `digests.json` of a store says; a damaged one says nothing.
    pub fn open(store: &Path) -> DigestMemo {
        let path = store.join("digests.json");
        let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        DigestMemo { path, known: known.unwrap_or_default(), grown: false, stop: Arc::default() }
    }

    /// Gives up, with an error, when `stop` is set.
    pub fn stop_when(mut self, stop: Arc<AtomicBool>) -> DigestMemo {
        self.stop = stop;
        self
    }

    /// The digest of a file of which this is known, if it is remembered.
    pub fn remembered(&self, metadata: &Metadata) -> Option<Digest> {
        Digest::from_hex(self.known.get(&Stamp::of(metadata).key())?)
    }

    /// The digest of an open file's bytes, read with `pread`.
    pub fn digest(&mut self, file: &File) -> io::Result<Digest> {
        let metadata = file.metadata()?;
        if let Some(digest) = self.remembered(&metadata) {
            return Ok(digest);
        }
        let stamp = Stamp::of(&metadata);
        let digest = self.hash(file)?;
        if stamp.settled() && Stamp::of(&file.metadata()?) == stamp {
            self.known.insert(stamp.key(), digest.to_hex());
            self.grown = true;
        }
        Ok(digest)
    }

    /// Writes down what was learnt. Losing it costs time, not results.
    pub fn save(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.grown) {
            let temporary = self.path.with_extension("json.new");
            private::create(&temporary)?.write_all(&serde_json::to_vec(&self.known)?)?;
            std::fs::rename(&temporary, &self.path)?;
        }
        Ok(())
    }

    fn hash(&self, file: &File) -> io::Result<Digest> {
        let (mut hasher, mut buffer, mut offset) = (Hasher::new(), vec![0; 1 << 20], 0);
        loop {
            if self.stop.load(Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            match file.read_at(&mut buffer, offset) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_at_rest_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        std::fs::write(&path, b"abc").unwrap();
        let file = File::options().write(true).read(true).open(&path).unwrap();
        let mut memo = DigestMemo::open(dir.path());
        assert_eq!(memo.digest(&file).unwrap(), Digest::of(b"abc"));
        assert!(memo.known.is_empty(), "it was written this very second");
        // Its ctime cannot be set back, so that a test cannot make it old; a stamp can.
        let old = Stamp { changed: (1, 0), modified: (1, 0), ..Stamp::of(&file.metadata().unwrap()) };
        assert!(old.settled());
    }
}
