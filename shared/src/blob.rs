//! Large values as files: `blobs/ab/<digest>`, by the first byte of the digest of their bytes, or
//! `<digest>.zst` where they are packed. Nothing is handed out whose bytes do not match the digest.
//!
//! Both forms may be there at the same time; the plain one is preferred.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::private;
use crate::sink::TempFile;

/// How much is read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// The path of a blob below a store's `blobs/`.
pub fn blob_path(blobs_dir: &Path, digest: Digest) -> PathBuf {
    let hex = digest.to_hex();
    blobs_dir.join(&hex[..2]).join(hex)
}

/// The path of its packed form.
pub fn packed_path(blobs_dir: &Path, digest: Digest) -> PathBuf {
    blob_path(blobs_dir, digest).with_extension("zst")
}

/// The digest that a file below `blobs/` is named after.
pub fn digest_of_name(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_suffix(".zst").unwrap_or(name))
}

/// Why a blob cannot be handed out.
#[derive(Debug)]
pub enum BlobError {
    /// It is not there, or the system does not let us read it.
    Unreadable {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its bytes do not match its name.
    Damaged {
        /// Its file.
        path: PathBuf,
    },
    /// What it is unpacked or copied into does not take it.
    Write(io::Error),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            BlobError::Unreadable { path, error } => write!(f, "read blob {}: {error}", path.display()),
            BlobError::Damaged { path } => {
                write!(f, "blob {} is damaged: its bytes do not match its name", path.display())
            }
            BlobError::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BlobError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BlobError::Unreadable { error, .. } | BlobError::Write(error) => Some(error),
            BlobError::Damaged { .. } => None,
        }
    }
}

/// Whether a blob of this length is there: a packed one is believed to have it.
pub fn is_there(blobs_dir: &Path, digest: Digest, len: u64) -> bool {
    fs::metadata(blob_path(blobs_dir, digest)).is_ok_and(|metadata| metadata.len() == len)
        || packed_path(blobs_dir, digest).exists()
}

/// A blob's bytes, checked.
///
/// # Errors
/// When it is not there, or damaged.
pub fn read(blobs_dir: &Path, digest: Digest) -> Result<Vec<u8>, BlobError> {
    let mut blob = open(blobs_dir, digest)?;
    let damaged = || BlobError::Damaged { path: blob.path.clone() };
    let (mut bytes, mut hasher) = (Vec::new(), Hasher::new());
    if let Bytes::Plain(file) = &blob.bytes {
        let len = file.metadata().map_err(|error| unreadable(&blob.path, error))?.len();
        bytes.reserve_exact(len as usize);
    }
    // Hashed while it is still near, and copied only once.
    loop {
        let start = bytes.len();
        let read = match &mut blob.bytes {
            Bytes::Plain(file) => file
                .take(BUFFER_BYTES as u64)
                .read_to_end(&mut bytes)
                .map_err(|error| unreadable(&blob.path, error)),
            Bytes::Packed(decoder) => {
                let read = decoder.take(BUFFER_BYTES as u64).read_to_end(&mut bytes);
                read.map_err(|error| unpacking(&blob.path, error))
            }
        };
        if read? == 0 {
            break;
        }
        hasher.update(&bytes[start..]);
    }
    if hasher.finish() == digest { Ok(bytes) } else { Err(damaged()) }
}

/// Checks a blob, without keeping any of it.
///
/// # Errors
/// When it is not there, or damaged.
pub fn check(blobs_dir: &Path, digest: Digest) -> Result<(), BlobError> {
    copy(&mut open(blobs_dir, digest)?, digest, &mut io::sink())
}

/// Writes a blob, after having checked it: it is read twice, and held in memory never.
///
/// # Errors
/// When it is not there, or damaged, or `out` does not take it.
pub fn write_to(blobs_dir: &Path, digest: Digest, out: &mut impl Write) -> Result<(), BlobError> {
    check(blobs_dir, digest)?;
    copy(&mut open(blobs_dir, digest)?, digest, out)
}

/// The file that holds a blob as it is, checked; one that is only there packed is unpacked for good.
///
/// # Errors
/// When it is not there, or damaged, or there is no room for the unpacked one.
pub fn plain(blobs_dir: &Path, tmp_dir: &Path, digest: Digest) -> Result<PathBuf, BlobError> {
    let path = blob_path(blobs_dir, digest);
    let mut blob = open(blobs_dir, digest)?;
    if let Bytes::Plain(_) = blob.bytes {
        copy(&mut blob, digest, &mut io::sink())?;
        return Ok(path);
    }
    let mut temp =
        TempFile::create(tmp_dir, &format!("{}-unpacked", std::process::id())).map_err(BlobError::Write)?;
    copy(&mut blob, digest, &mut temp)?;
    let name = temp.finish().map_err(BlobError::Write)?;
    fs::rename(tmp_dir.join(name), &path).map_err(BlobError::Write)?;
    fs::remove_file(blob.path).ok();
    Ok(path)
}

/// Gives a finished file of `tmp_dir` its name among the blobs. The directory is not synced.
///
/// # Errors
/// When the system refuses.
pub fn adopt(blobs_dir: &Path, temporary: &Path, digest: Digest, packed: bool) -> io::Result<()> {
    let (plain, packed_form) = (blob_path(blobs_dir, digest), packed_path(blobs_dir, digest));
    private::make_dirs(plain.parent().expect("a blob lies in a directory"))?;
    if !packed {
        fs::rename(temporary, plain)?;
        fs::remove_file(packed_form).ok();
        Ok(())
    } else if check(blobs_dir, digest).is_ok() && plain.exists() {
        // Somebody may be using its path.
        fs::remove_file(temporary)
    } else {
        fs::rename(temporary, packed_form)?;
        // It is not there, or damaged.
        fs::remove_file(plain).ok();
        Ok(())
    }
}

/// A blob being read.
struct Blob {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Plain(File),
    Packed(Box<zstd::stream::read::Decoder<'static, io::BufReader<File>>>),
}

fn open(blobs_dir: &Path, digest: Digest) -> Result<Blob, BlobError> {
    let (plain, packed) = (blob_path(blobs_dir, digest), packed_path(blobs_dir, digest));
    // Plain once more at the end: somebody may just have unpacked it.
    for (path, is_packed) in [(&plain, false), (&packed, true)] {
        if let Ok(file) = File::open(path) {
            let bytes = if is_packed {
                let decoder = zstd::stream::read::Decoder::new(file);
                Bytes::Packed(Box::new(decoder.map_err(|error| unreadable(path, error))?))
            } else {
                Bytes::Plain(file)
            };
            return Ok(Blob { path: path.clone(), bytes });
        }
    }
    let file = File::open(&plain).map_err(|error| unreadable(&plain, error))?;
    Ok(Blob { path: plain, bytes: Bytes::Plain(file) })
}

fn unreadable(path: &Path, error: io::Error) -> BlobError {
    BlobError::Unreadable { path: path.into(), error }
}

/// What cannot be unpacked is not what was packed, unless the system says why.
fn unpacking(path: &Path, error: io::Error) -> BlobError {
    match error.raw_os_error() {
        Some(_) => unreadable(path, error),
        None => BlobError::Damaged { path: path.into() },
    }
}

fn copy(blob: &mut Blob, digest: Digest, out: &mut impl Write) -> Result<(), BlobError> {
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; BUFFER_BYTES]);
    loop {
        let read = match &mut blob.bytes {
            Bytes::Plain(file) => file.read(&mut buffer).map_err(|error| unreadable(&blob.path, error))?,
            Bytes::Packed(decoder) => {
                decoder.read(&mut buffer).map_err(|error| unpacking(&blob.path, error))?
            }
        };
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        out.write_all(&buffer[..read]).map_err(BlobError::Write)?;
    }
    if hasher.finish() == digest { Ok(()) } else { Err(BlobError::Damaged { path: blob.path.clone() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Body, Sink};

    /// A directory for blobs and one for unfinished ones.
    struct Dirs(tempfile::TempDir);

    impl Dirs {
        fn new() -> Dirs {
            let dirs = Dirs(tempfile::tempdir().unwrap());
            fs::create_dir(dirs.tmp()).unwrap();
            dirs
        }

        fn blobs(&self) -> PathBuf {
            self.0.path().join("blobs")
        }

        fn tmp(&self) -> PathBuf {
            self.0.path().join("tmp")
        }

        fn put(&self, bytes: &[u8], may_pack: bool) -> Digest {
            let mut sink = Sink::new(&self.tmp(), "t", 0, may_pack);
            sink.write_all(bytes).unwrap();
            let Body::File { name, digest, packed, .. } = sink.finish().unwrap() else { panic!("no file") };
            adopt(&self.blobs(), &self.tmp().join(name), digest, packed).unwrap();
            digest
        }
    }

    fn text() -> Vec<u8> {
        "a line\n".repeat(100_000).into_bytes()
    }

    #[test]
    fn both_forms_give_the_same_bytes() {
        let dirs = Dirs::new();
        let digest = dirs.put(&text(), true);
        let packed = packed_path(&dirs.blobs(), digest);
        assert!(fs::metadata(&packed).unwrap().len() < 10_000);
        assert!(is_there(&dirs.blobs(), digest, 700_000) && read(&dirs.blobs(), digest).unwrap() == text());
        // Somebody needs it as a file.
        let path = plain(&dirs.blobs(), &dirs.tmp(), digest).unwrap();
        assert!(fs::read(&path).unwrap() == text() && !packed.exists());
        assert!(read(&dirs.blobs(), digest).unwrap() == text());
        // It stays plain, whoever makes it again.
        assert_eq!(dirs.put(&text(), true), digest);
        assert!(path.exists() && !packed.exists());
        assert_eq!(fs::read_dir(dirs.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn damage_is_found_in_both_forms() {
        for may_pack in [false, true] {
            let dirs = Dirs::new();
            let digest = dirs.put(&text(), may_pack);
            let path = if may_pack { packed_path } else { blob_path }(&dirs.blobs(), digest);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            let damaged = |result: Result<(), BlobError>| matches!(result, Err(BlobError::Damaged { .. }));
            assert!(damaged(check(&dirs.blobs(), digest)));
            assert!(damaged(plain(&dirs.blobs(), &dirs.tmp(), digest).map(drop)));
            let mut out = Vec::new();
            assert!(damaged(write_to(&dirs.blobs(), digest, &mut out)));
            assert!(out.is_empty(), "damaged bytes were handed out");
            assert_eq!(fs::read_dir(dirs.tmp()).unwrap().count(), 0);
        }
    }
}
