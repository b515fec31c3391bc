//! A place to write a result of any size: memory while it is small, a temporary file beyond.
//!
//! It hashes while it writes, so that nothing is read again, and a result of gigabytes is never in
//! memory. Ignorant of values, of the store's layout and of who renames the finished file into place.
//! It does not gather small writes: whoever makes them puts a `BufWriter` in front.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::digest::{Digest, Hasher};

/// A result in the making. Dropped unfinished, it leaves nothing behind.
pub struct Sink {
    dir: PathBuf,
    prefix: String,
    inline_limit: usize,
    len: u64,
    hasher: Hasher,
    place: Place,
}

/// A finished result.
#[derive(Debug, PartialEq)]
pub enum Body {
    /// It was small.
    Inline {
        /// What was written.
        bytes: Vec<u8>,
        /// SHA-256 of it.
        digest: Digest,
    },
    /// It is in a read-only file, whose bytes are on the disk but whose name need not be: syncing the
    /// directory is left to whoever gives the file its last name.
    File {
        /// The file's name in the sink's directory.
        name: String,
        /// Its length in bytes.
        len: u64,
        /// SHA-256 of its bytes.
        digest: Digest,
    },
}

enum Place {
    Memory(Vec<u8>),
    File(TempFile),
}

impl Sink {
    /// A sink that holds up to `inline_limit` bytes in memory, and moves to a file in `dir`, whose
    /// name starts with `prefix`, for more.
    pub fn new(dir: &Path, prefix: &str, inline_limit: usize) -> Sink {
        Sink {
            dir: dir.into(),
            prefix: prefix.into(),
            inline_limit,
            len: 0,
            hasher: Hasher::new(),
            place: Place::Memory(Vec::new()),
        }
    }

    /// The result. A file is synced and read-only from here on.
    ///
    /// # Errors
    /// When the file cannot be synced or made read-only; then it is gone.
    pub fn finish(self) -> io::Result<Body> {
        let digest = self.hasher.finish();
        match self.place {
            Place::Memory(bytes) => Ok(Body::Inline { bytes, digest }),
            Place::File(temp) => Ok(Body::File { name: temp.finish()?, len: self.len, digest }),
        }
    }

    /// Where the next `more` bytes go; moves to a file when memory is not for them.
    fn place_for(&mut self, more: usize) -> io::Result<&mut Place> {
        if let Place::Memory(held) = &self.place
            && held.len() + more > self.inline_limit
        {
            let mut temp = TempFile::create(&self.dir, &self.prefix)?;
            temp.file.write_all(held).map_err(|error| during("write", &temp.path, &error))?;
            self.place = Place::File(temp);
        }
        Ok(&mut self.place)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.place_for(bytes.len())? {
            Place::Memory(held) => {
                held.extend_from_slice(bytes);
                bytes.len()
            }
            Place::File(temp) => {
                temp.file.write(bytes).map_err(|error| during("write", &temp.path, &error))?
            }
        };
        self.hasher.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is removed when dropped before it is finished.
struct TempFile {
    file: File,
    path: PathBuf,
    name: String,
    finished: bool,
}

impl TempFile {
    fn create(dir: &Path, prefix: &str) -> io::Result<TempFile> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{prefix}.{}-{}", std::process::id(), COUNTER.fetch_add(1, Relaxed));
            let path = dir.join(&name);
            // The standard library adds O_CLOEXEC: no command inherits it.
            match File::options().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    return Ok(TempFile { file, path, name, finished: false });
                }
                // Left by a killed process that had our number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(during("create", &path, &error)),
            }
        }
    }

    fn finish(mut self) -> io::Result<String> {
        self.file.sync_data().map_err(|error| during("sync", &self.path, &error))?;
        let read_only = Permissions::from_mode(0o444);
        let protected = self.file.set_permissions(read_only);
        protected.map_err(|error| during("make read-only", &self.path, &error))?;
        self.finished = true;
        Ok(std::mem::take(&mut self.name))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever is left of it, the store's next start clears.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// The same kind of error (a full disk stays one), with the verb and the path.
fn during(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn up_to_the_limit_it_stays_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::new(dir.path(), "t", 6);
        sink.write_all(b"abc").unwrap();
        sink.write_all(b"def").unwrap();
        let digest = Digest::of(b"abcdef");
        assert_eq!(sink.finish().unwrap(), Body::Inline { bytes: b"abcdef".into(), digest });
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn past_the_limit_it_is_a_read_only_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::new(dir.path(), "7-1", 6);
        for part in ["abc", "defg", "", "h"] {
            sink.write_all(part.as_bytes()).unwrap();
        }
        let Body::File { name, len, digest } = sink.finish().unwrap() else {
            panic!("eight bytes were kept in six");
        };
        assert!(name.starts_with("7-1"), "{name}");
        let path = dir.path().join(name);
        assert_eq!(fs::read(&path).unwrap(), b"abcdefgh");
        assert_eq!((len, digest), (8, Digest::of(b"abcdefgh")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
    }

    #[test]
    fn an_unfinished_file_is_private_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::new(dir.path(), "t", 0);
        sink.write_all(b"x").unwrap();
        let path = dir.path().join(&names(dir.path())[0]);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
        drop(sink);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn two_sinks_of_one_prefix_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let mut sinks = [0, 1].map(|_| Sink::new(dir.path(), "t", 0));
        for (sink, text) in sinks.iter_mut().zip(["one", "two"]) {
            sink.write_all(text.as_bytes()).unwrap();
        }
        for (sink, text) in sinks.into_iter().zip(["one", "two"]) {
            let Body::File { name, .. } = sink.finish().unwrap() else { panic!("not a file") };
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), text);
        }
    }

    #[test]
    fn an_error_names_the_verb_and_the_path_and_keeps_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = Sink::new(&missing, "t", 0).write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let start = format!("create {}/t.", missing.display());
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}
