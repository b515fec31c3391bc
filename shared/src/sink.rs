//! A place to write a result of any size: memory while it is small, a temporary file beyond.
//!
//! It hashes while it writes, so that nothing is read again, and a result of gigabytes is never in
//! memory. A file is packed if its beginning says that it pays; the digest is of the plain bytes. Ignorant of
//! values, of the store's layout and of who renames the finished file into place. It does not gather small
//! writes: whoever makes them puts a `BufWriter` in front.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zstd::stream::write::Encoder;

use crate::digest::{Digest, Hasher};
use crate::pack;
use crate::private;

/// A result in the making. Dropped unfinished, it leaves nothing behind.
pub struct Sink {
    dir: PathBuf,
    prefix: String,
    inline_limit: usize,
    may_pack: bool,
    most: u64,
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
        /// Whether the file holds them packed.
        packed: bool,
    },
}

enum Place {
    Memory(Vec<u8>),
    File(TempFile),
    Packed(Box<Encoder<'static, TempFile>>),
}

impl Sink {
    /// A sink whose result is in memory up to `inline_limit` bytes, and for more in a file in `dir`, whose
    /// name starts with `prefix`. `may_pack` says whether nobody needs the file as it is.
    pub fn new(dir: &Path, prefix: &str, inline_limit: usize, may_pack: bool) -> Sink {
        Sink {
            dir: dir.into(),
            prefix: prefix.into(),
            inline_limit,
            may_pack,
            most: u64::MAX,
            len: 0,
            hasher: Hasher::new(),
            place: Place::Memory(Vec::new()),
        }
    }

    /// The same, which takes so many bytes and no more.
    pub fn at_most(self, most: u64) -> Sink {
        Sink { most, ..self }
    }

    /// The result. A file is synced and read-only from here on.
    ///
    /// # Errors
    /// When the file cannot be synced or made read-only; then it is gone.
    pub fn finish(mut self) -> io::Result<Body> {
        if let Place::Memory(held) = &self.place
            && held.len() > self.inline_limit
        {
            self.move_to_file()?;
        }
        let (len, digest) = (self.len, self.hasher.finish());
        let (temp, packed) = match self.place {
            Place::Memory(bytes) => return Ok(Body::Inline { bytes, digest }),
            Place::File(temp) => (temp, false),
            Place::Packed(encoder) => (encoder.finish()?, true),
        };
        Ok(Body::File { name: temp.finish()?, len, digest, packed })
    }

    /// What is held goes to a file, in the form that pays.
    fn move_to_file(&mut self) -> io::Result<()> {
        let Place::Memory(held) = std::mem::replace(&mut self.place, Place::Memory(Vec::new())) else {
            return Ok(());
        };
        let mut temp = TempFile::create(&self.dir, &self.prefix)?;
        self.place = if self.may_pack && pack::pays(&held) {
            let mut encoder = Encoder::new(temp, pack::LEVEL)?;
            encoder.write_all(&held)?;
            Place::Packed(Box::new(encoder))
        } else {
            temp.write_all(&held)?;
            Place::File(temp)
        };
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.most - self.len {
            return Err(io::Error::other(too_long(self.most)));
        }
        // Held until there is enough of it to tell whether packing pays.
        let hold = self.inline_limit.max(if self.may_pack { pack::SAMPLE_BYTES } else { 0 });
        if matches!(&self.place, Place::Memory(held) if held.len() == hold && !bytes.is_empty()) {
            self.move_to_file()?;
        }
        let written = match &mut self.place {
            Place::Memory(held) => {
                let room = bytes.len().min(hold - held.len());
                held.extend_from_slice(&bytes[..room]);
                room
            }
            Place::File(temp) => temp.write(bytes)?,
            Place::Packed(encoder) => encoder.write(bytes)?,
        };
        self.hasher.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is said of a result that is longer than this.
pub fn too_long(most: u64) -> String {
    let most = most >> 20;
    format!(
        "its result is longer than {most} MiB, the most that one may be; max_result in [run] allows more, if it is meant to be so long"
    )
}

/// A file that is removed when dropped before it is finished.
pub(crate) struct TempFile {
    file: File,
    path: PathBuf,
    name: String,
    finished: bool,
}

impl TempFile {
    pub fn create(dir: &Path, prefix: &str) -> io::Result<TempFile> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{prefix}.{}-{}", std::process::id(), COUNTER.fetch_add(1, Relaxed));
            let path = dir.join(&name);
            // The standard library adds O_CLOEXEC: no command inherits it.
            match private::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok(TempFile { file, path, name, finished: false });
                }
                // Left by a killed process that had our number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unwritable("create", &path, &error)),
            }
        }
    }

    /// Its name, when it is on the disk and read-only.
    pub fn finish(mut self) -> io::Result<String> {
        self.file.sync_data().map_err(|error| unwritable("sync", &self.path, &error))?;
        let protected = self.file.set_permissions(Permissions::from_mode(0o400));
        protected.map_err(|error| unwritable("make read-only", &self.path, &error))?;
        self.finished = true;
        Ok(std::mem::take(&mut self.name))
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| unwritable("write", &self.path, &error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

/// A file of the store cannot be written, which is nobody's fault who wants to.
#[derive(Debug)]
struct Unwritable(String);

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unwritable {}

/// Whether an error says that a file of the store cannot be written, or that a disk is full.
pub fn is_unwritable(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Unwritable>())
        || matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The error of a file in the store's `tmp/`, with what was to be done to it.
pub fn unwritable(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritable(format!("{verb} {}: {error}", path.display())))
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
        let mut sink = Sink::new(dir.path(), "t", 6, false);
        sink.write_all(b"abc").unwrap();
        sink.write_all(b"def").unwrap();
        let digest = Digest::of(b"abcdef");
        assert_eq!(sink.finish().unwrap(), Body::Inline { bytes: b"abcdef".into(), digest });
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn past_the_limit_it_is_a_read_only_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::new(dir.path(), "7-1", 6, false);
        for part in ["abc", "defg", "", "h"] {
            sink.write_all(part.as_bytes()).unwrap();
        }
        let Body::File { name, len, digest, packed: false } = sink.finish().unwrap() else {
            panic!("eight bytes were kept in six");
        };
        assert!(name.starts_with("7-1"), "{name}");
        let path = dir.path().join(name);
        assert_eq!(fs::read(&path).unwrap(), b"abcdefgh");
        assert_eq!((len, digest), (8, Digest::of(b"abcdefgh")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
    }

    #[test]
    fn an_unfinished_file_is_private_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::new(dir.path(), "t", 0, false);
        sink.write_all(b"x").unwrap();
        let path = dir.path().join(&names(dir.path())[0]);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
        drop(sink);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn two_sinks_of_one_prefix_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let mut sinks = [0, 1].map(|_| Sink::new(dir.path(), "t", 0, false));
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
        let error = Sink::new(&missing, "t", 0, false).write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let start = format!("create {}/t.", missing.display());
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}
