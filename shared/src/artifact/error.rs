//! Why an artifact cannot be used, in words for the person who made the file. Knows neither the name
//! nor the path of the artifact: the caller puts them in front.

use std::{fmt, io};

/// Why an artifact cannot be used. The message continues `artifact "m" (m.npy): `.
#[derive(Debug)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The system would not let us read it.
    Io(io::Error),
    /// It is a directory.
    Directory,
    /// It has no bytes at all.
    Empty,
    /// Somebody made it shorter while it was read.
    Shrank,
    /// It does not start as npy files do.
    NotNpy,
    /// Its npy version, major and minor, is none that we know.
    NpyVersion(u8, u8),
    /// Its header is not finished where the file is.
    NpyHeaderCut {
        /// Where the header ends, by its own account.
        header_end: u64,
        /// How long the file is.
        file_bytes: u64,
    },
    /// Its header is longer than any that describes an array of numbers.
    NpyHeaderTooLong {
        /// The length of the header.
        header_bytes: u64,
    },
    /// Its header is not the dictionary that it must be.
    NpyHeader {
        /// Where in the file.
        at: u64,
        /// What should have been there.
        expected: &'static str,
    },
    /// Its elements have several fields.
    Structured,
    /// Its elements are pickled Python objects.
    Objects,
    /// Its numbers, of this type, have their bytes in the other order.
    BigEndian(String),
    /// Its elements are of this type, which we do not read.
    Dtype(String),
    /// It is stored column by column.
    Fortran,
    /// It has so many dimensions: it is neither a vector nor a matrix.
    Dimensions(usize),
    /// One of its dimensions is zero.
    NoElements {
        /// How many rows.
        rows: u64,
        /// How many columns.
        cols: u64,
    },
    /// No file can be as large as its header says.
    Overflow,
    /// It ends before its last element.
    CutShort {
        /// How long the header says that the file is.
        promised_bytes: u64,
        /// How long the file is.
        file_bytes: u64,
    },
    /// It goes on after its last element.
    TooLong {
        /// How long the header says that the file is.
        promised_bytes: u64,
        /// How long the file is.
        file_bytes: u64,
    },
    /// A line is not one JSON object.
    Json {
        /// Which line, from 1.
        line: u64,
        /// Which byte of the line, from 1.
        column: u64,
        /// What the parser said.
        reason: String,
    },
    /// A line is longer than a record may be.
    LineTooLong {
        /// Which line, from 1.
        line: u64,
        /// How long a record may be.
        max_bytes: u64,
    },
    /// It has lines, all of them blank.
    NoRecords,
    /// Two records have the same key.
    DuplicateKey {
        /// The key.
        key: String,
        /// The field that it is in.
        field: String,
        /// The line of the first, from 1.
        first_line: u64,
        /// The line of the second.
        second_line: u64,
    },
    /// It is no index of usearch that can be searched, for this reason.
    Usearch(String),
    /// An offset table is not one that [`crate::artifact::index_jsonl`] made.
    DamagedTable,
}

impl fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        use ArtifactError::*;
        match self {
            Io(error) => write!(f, "cannot read it: {error}"),
            Directory => write!(f, "is a directory, not a file"),
            Empty => write!(f, "the file is empty"),
            Shrank => {
                write!(f, "the file became shorter while it was being read; leave it alone during a run")
            }
            NotNpy => write!(
                f,
                "not an npy file (it does not start with \"\\x93NUMPY\"); write it with numpy.save, \
                 or declare its format in the manifest"
            ),
            NpyVersion(major, minor) => {
                write!(f, "npy version {major}.{minor} is unknown; versions 1.0, 2.0 and 3.0 can be read")
            }
            NpyHeaderCut { header_end, file_bytes } => write!(
                f,
                "the npy header is cut short: it should end at byte {header_end}, but the file has \
                 {file_bytes} bytes; copy or write the file again"
            ),
            NpyHeaderTooLong { header_bytes } => write!(
                f,
                "the npy header claims to be {header_bytes} bytes long, far more than an array of \
                 numbers needs; write the file again with numpy.save"
            ),
            NpyHeader { at, expected } => write!(
                f,
                "the npy header is malformed: at byte {at} of the file there should be {expected}; \
                 write the file again with numpy.save"
            ),
            Structured => write!(
                f,
                "its elements have several fields (a structured dtype); save one field: \
                 numpy.save(path, a['field'])"
            ),
            Objects => write!(
                f,
                "it holds Python objects (dtype object), not numbers; convert them first: \
                 numpy.save(path, a.astype('float32'))"
            ),
            BigEndian(dtype) => write!(
                f,
                "its numbers are big-endian (>{dtype}); save them as little-endian: \
                 numpy.save(path, a.astype('<{dtype}'))"
            ),
            Dtype(descr) => write!(
                f,
                "its elements have the numpy type {descr:?}, but only integers of 8 to 64 bits, \
                 float16, float32 and float64 can be read; convert them with a.astype(...)"
            ),
            Fortran => write!(
                f,
                "the array is stored column by column (Fortran order); save it row by row: \
                 numpy.save(path, numpy.ascontiguousarray(a))"
            ),
            Dimensions(count) => write!(
                f,
                "the array has {count} dimensions, but only 1 or 2 can be read; bring it into \
                 rows and columns with a.reshape(...)"
            ),
            NoElements { rows: 0, .. } => write!(f, "the array has no rows"),
            NoElements { rows, .. } => write!(f, "the array has {rows} rows, but no columns"),
            Overflow => write!(
                f,
                "the npy header describes an array larger than any file can be; write the file \
                 again with numpy.save"
            ),
            CutShort { promised_bytes, file_bytes } => write!(
                f,
                "the file is cut short: by its header it should have {promised_bytes} bytes, but it \
                 has {file_bytes}; copy or write it again"
            ),
            TooLong { promised_bytes, file_bytes } => write!(
                f,
                "the file is longer than its header says: it should have {promised_bytes} bytes, \
                 but it has {file_bytes}; write it again with numpy.save"
            ),
            Json { line, column, reason } => {
                write!(f, "line {line}, column {column}: {reason}; each line must be one JSON object")
            }
            LineTooLong { line, max_bytes } => write!(
                f,
                "line {line} is longer than {max_bytes} bytes; each line must be one JSON object \
                 (is the file one large JSON document?)"
            ),
            NoRecords => write!(f, "the file has no records, only blank lines"),
            DuplicateKey { key, field, first_line, second_line } => write!(
                f,
                "lines {first_line} and {second_line} have the same {field:?}, {key:?}; each key \
                 may occur only once"
            ),
            Usearch(why) => write!(f, "{why}"),
            DamagedTable => write!(f, "the table of its records is damaged; this is a bug in forkyard"),
        }
    }
}

impl std::error::Error for ArtifactError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ArtifactError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ArtifactError {
    fn from(error: io::Error) -> ArtifactError {
        match error.kind() {
            io::ErrorKind::IsADirectory => ArtifactError::Directory,
            io::ErrorKind::UnexpectedEof => ArtifactError::Shrank,
            _ => ArtifactError::Io(error),
        }
    }
}
