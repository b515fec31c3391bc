//! The header of a numpy file (`numpy.save`), versions 1.0, 2.0 and 3.0. Reads the header alone:
//! knows nothing of the elements but where they are.
//!
//! ```text
//!  0          6       8          8 + n      8 + n + length          end of file
//! +----------+-------+----------+----------+-------------------------+
//! | \x93NUMPY| major | length   | header   | elements, row after row |
//! |          | minor | of header|          |                         |
//! +----------+-------+----------+----------+-------------------------+
//!                      n = 2 bytes in version 1, 4 bytes in 2 and 3, little-endian
//! ```
//!
//! The header is a Python dictionary: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
//! The parser takes what numpy writes, in any order of keys, and refuses the rest: a general parser
//! of Python literals would be a larger thing to trust than the format needs.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{ArtifactError, Dtype, Shape};

const MAGIC: &[u8] = b"\x93NUMPY";
const VERSION_AT: usize = MAGIC.len();
const LENGTH_AT: usize = VERSION_AT + 2;

/// More than version 1 can say; a header of numbers needs some hundred bytes.
const HEADER_MAX_BYTES: u64 = 64 << 10;

/// The shape of the array in `file`, which is `len` bytes long. Reads the header only; that the
/// elements fill the rest of the file exactly is checked by the length.
pub fn read_npy(file: &File, len: u64) -> Result<Shape, ArtifactError> {
    let mut start = [0; LENGTH_AT];
    let got = file.read_at(&mut start, 0)?;
    if len == 0 {
        return Err(ArtifactError::Empty);
    }
    if got < start.len() || !start.starts_with(MAGIC) {
        return Err(ArtifactError::NotNpy);
    }
    let length_bytes = match (start[VERSION_AT], start[VERSION_AT + 1]) {
        (1, 0) => 2,
        (2 | 3, 0) => 4,
        (major, minor) => return Err(ArtifactError::NpyVersion(major, minor)),
    };
    let header_at = (LENGTH_AT + length_bytes) as u64;
    must_end_by(header_at, len)?;
    let mut length = [0; 4];
    file.read_exact_at(&mut length[..length_bytes], LENGTH_AT as u64)?;
    let header_bytes = u64::from(u32::from_le_bytes(length));
    let offset = header_at + header_bytes;
    must_end_by(offset, len)?;
    if header_bytes > HEADER_MAX_BYTES {
        return Err(ArtifactError::NpyHeaderTooLong { header_bytes });
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact_at(&mut header, header_at)?;
    let header = Parser { header: &header, at: 0, header_at }.header()?;
    header.shape(offset, len)
}

fn must_end_by(header_end: u64, file_bytes: u64) -> Result<(), ArtifactError> {
    if header_end > file_bytes {
        return Err(ArtifactError::NpyHeaderCut { header_end, file_bytes });
    }
    Ok(())
}

/// What a header says, not yet judged.
struct Header {
    descr: String,
    fortran_order: bool,
    dimensions: Vec<u64>,
}

impl Header {
    fn shape(&self, offset: u64, file_bytes: u64) -> Result<Shape, ArtifactError> {
        let dtype = dtype(&self.descr)?;
        let (rows, cols) = match self.dimensions[..] {
            [rows] => (rows, 1),
            [rows, cols] => (rows, cols),
            _ => return Err(ArtifactError::Dimensions(self.dimensions.len())),
        };
        if self.fortran_order {
            return Err(ArtifactError::Fortran);
        }
        if rows == 0 || cols == 0 {
            return Err(ArtifactError::NoElements { rows, cols });
        }
        let one_dimensional = self.dimensions.len() == 1;
        let shape = Shape { dtype, rows, cols, one_dimensional, offset };
        let promised_bytes = shape.end().ok_or(ArtifactError::Overflow)?;
        if file_bytes < promised_bytes {
            return Err(ArtifactError::CutShort { promised_bytes, file_bytes });
        }
        if file_bytes > promised_bytes {
            return Err(ArtifactError::TooLong { promised_bytes, file_bytes });
        }
        Ok(shape)
    }
}

/// The type that numpy calls `descr`: a byte order (`|` where there is none), a kind, a size.
fn dtype(descr: &str) -> Result<Dtype, ArtifactError> {
    Ok(match descr {
        "<f2" => Dtype::F16,
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        "|b1" => Dtype::Bool,
        "|i1" => Dtype::I8,
        "<i2" => Dtype::I16,
        "<i4" => Dtype::I32,
        "<i8" => Dtype::I64,
        "|u1" => Dtype::U8,
        "<u2" => Dtype::U16,
        "<u4" => Dtype::U32,
        "<u8" => Dtype::U64,
        "|O" => return Err(ArtifactError::Objects),
        _ => {
            return Err(match descr.strip_prefix('>') {
                Some(native) => ArtifactError::BigEndian(native.to_owned()),
                None => ArtifactError::Dtype(descr.to_owned()),
            });
        }
    })
}

struct Parser<'a> {
    header: &'a [u8],
    at: usize,
    header_at: u64,
}

impl Parser<'_> {
    fn header(mut self) -> Result<Header, ArtifactError> {
        let (mut descr, mut fortran_order, mut dimensions) = (None, None, None);
        self.expect(b'{', "'{'")?;
        while !self.take(b'}') {
            let key_at = self.at;
            let key = self.string("a key in quotes")?;
            self.expect(b':', "':'")?;
            let is_new = match &key[..] {
                "descr" => descr.replace(self.descr()?).is_none(),
                "fortran_order" => fortran_order.replace(self.boolean()?).is_none(),
                "shape" => dimensions.replace(self.tuple()?).is_none(),
                _ => false,
            };
            if !is_new {
                self.at = key_at;
                return Err(self.wrong("one each of 'descr', 'fortran_order' and 'shape'"));
            }
            if !self.take(b',') {
                self.expect(b'}', "',' or '}'")?;
                break;
            }
        }
        if self.peek().is_some() {
            return Err(self.wrong("nothing but blanks after the '}'"));
        }
        match (descr, fortran_order, dimensions) {
            (Some(descr), Some(fortran_order), Some(dimensions)) => {
                Ok(Header { descr, fortran_order, dimensions })
            }
            _ => Err(self.wrong("the keys 'descr', 'fortran_order' and 'shape' before the end")),
        }
    }

    fn descr(&mut self) -> Result<String, ArtifactError> {
        match self.peek() {
            Some(b'[' | b'(') => Err(ArtifactError::Structured),
            _ => self.string("a type in quotes"),
        }
    }

    fn string(&mut self, expected: &'static str) -> Result<String, ArtifactError> {
        let Some(quote @ (b'\'' | b'"')) = self.peek() else {
            return Err(self.wrong(expected));
        };
        let rest = &self.header[self.at + 1..];
        match rest.iter().position(|&byte| byte == quote || byte == b'\\') {
            Some(end) if rest[end] == quote => {
                self.at += end + 2;
                Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
            }
            _ => Err(self.wrong(expected)),
        }
    }

    fn boolean(&mut self) -> Result<bool, ArtifactError> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if self.header[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<u64>, ArtifactError> {
        let mut numbers = Vec::new();
        self.expect(b'(', "'('")?;
        while !self.take(b')') {
            numbers.push(self.number()?);
            if !self.take(b',') {
                self.expect(b')', "',' or ')'")?;
                break;
            }
        }
        Ok(numbers)
    }

    fn number(&mut self) -> Result<u64, ArtifactError> {
        self.peek();
        let rest = &self.header[self.at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Err(self.wrong("a whole number"));
        }
        self.at += digits;
        rest[..digits]
            .iter()
            .try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .ok_or(ArtifactError::Overflow)
    }

    /// The next byte that is not blank, without taking it.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.header[self.at..];
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.header.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), ArtifactError> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong(expected)) }
    }

    fn wrong(&self, expected: &'static str) -> ArtifactError {
        ArtifactError::NpyHeader { at: self.header_at + self.at as u64, expected }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;

    const GOOD: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";

    fn npy(version: u8, header: &str, data_bytes: usize) -> Vec<u8> {
        let mut bytes = [MAGIC, &[version, 0]].concat();
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Shape, ArtifactError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read_npy(&file, bytes.len() as u64)
    }

    fn refusal(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[track_caller]
    fn refused(header: &str, data_bytes: usize, why: &str) {
        let message = refusal(&npy(1, header, data_bytes));
        assert!(message.contains(why), "{message:?} does not say {why:?}");
    }

    #[test]
    fn every_version_is_read() {
        for (version, offset) in [(1, 10), (2, 12), (3, 12)] {
            let shape = read(&npy(version, GOOD, 24)).unwrap();
            let offset = offset + GOOD.len() as u64;
            let dtype = Dtype::F32;
            assert_eq!(shape, Shape { dtype, rows: 2, cols: 3, one_dimensional: false, offset });
        }
        assert!(refusal(&npy(4, GOOD, 24)).contains("version 4.0 is unknown"));
    }

    #[test]
    fn keys_come_in_any_order_and_either_quotes() {
        let header = "{\"shape\":(5,),\"descr\":\"<i8\",\"fortran_order\":False}  \n";
        let shape = read(&npy(1, header, 40)).unwrap();
        assert_eq!((shape.dtype, shape.rows, shape.cols), (Dtype::I64, 5, 1));
        assert!(shape.one_dimensional);
    }

    #[test]
    fn what_is_not_a_little_endian_matrix_of_numbers_is_refused_by_name() {
        refused(&GOOD.replace("False", "True"), 24, "Fortran order");
        refused(&GOOD.replace("<f4", ">f4"), 24, "big-endian (>f4)");
        refused(&GOOD.replace("<f4", "<c8"), 48, "\"<c8\"");
        refused(&GOOD.replace("<f4", "|O"), 24, "Python objects");
        refused(&GOOD.replace("'<f4'", "[('a', '<f4')]"), 24, "structured dtype");
        refused(&GOOD.replace("(2, 3)", "()"), 4, "0 dimensions");
        refused(&GOOD.replace("(2, 3)", "(1, 2, 3)"), 24, "3 dimensions");
        refused(&GOOD.replace("(2, 3)", "(0, 3)"), 0, "no rows");
        refused(&GOOD.replace("(2, 3)", "(2, 0)"), 0, "2 rows, but no columns");
    }

    #[test]
    fn a_header_that_lies_about_the_size_is_refused() {
        let end = 10 + GOOD.len();
        refused(GOOD, 23, &format!("should have {} bytes, but it has {}", end + 24, end + 23));
        refused(GOOD, 25, &format!("should have {} bytes, but it has {}", end + 24, end + 25));
        refused(&GOOD.replace("2, 3", "4611686018427387904, 4"), 24, "larger than any file");
        refused(&GOOD.replace("2, 3", "18446744073709551615, 1"), 24, "larger than any file");
        refused(&GOOD.replace("2, 3", "18446744073709551616, 1"), 24, "larger than any file");
    }

    #[test]
    fn a_malformed_header_names_the_byte() {
        refused("", 0, "at byte 10 of the file there should be '{'");
        refused("{'descr': '<f4'", 0, "at byte 25 of the file there should be ',' or '}'");
        refused("{'descr': '<f4'}", 0, "the keys 'descr', 'fortran_order' and 'shape'");
        refused("{'descr': '<f4', 'descr': '<f4'}", 0, "at byte 27 of the file");
        refused("{'descr': '<f4', 'colour': 1}", 0, "one each of");
        refused(&format!("{GOOD} x"), 24, "nothing but blanks");
        refused(&GOOD.replace("2, 3", "2, -3"), 24, "a whole number");
        refused(&GOOD.replace("False", "false"), 24, "True or False");
        refused(&GOOD.replace("'<f4'", "'<f4\\''"), 24, "a type in quotes");
    }

    #[test]
    fn files_that_end_in_or_before_the_header_are_refused() {
        let whole = npy(2, GOOD, 24);
        assert_eq!(refusal(b""), "the file is empty");
        assert!(refusal(b"PK\x03\x04 and so on").contains("not an npy file"));
        assert!(refusal(&whole[..7]).contains("not an npy file"));
        assert!(refusal(&whole[..9]).contains("should end at byte 12, but the file has 9 bytes"));
        assert!(refusal(&whole[..40]).contains(&format!("end at byte {}", 12 + GOOD.len())));
        let long = " ".repeat(HEADER_MAX_BYTES as usize + 1);
        assert!(refusal(&npy(2, &long, 0)).contains("far more than"));
    }

    #[test]
    fn a_directory_and_a_file_that_shrinks_are_named() {
        let directory = File::open(std::env::temp_dir()).unwrap();
        assert!(matches!(read_npy(&directory, 4096), Err(ArtifactError::Directory)));
        assert!(matches!(read_npy(&directory, 0), Err(ArtifactError::Directory)));
        let whole = npy(1, GOOD, 24);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&whole[..20]).unwrap();
        assert!(matches!(read_npy(&file, whole.len() as u64), Err(ArtifactError::Shrank)));
    }

    #[test]
    fn files_written_by_numpy_are_read_or_refused_for_what_they_are() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/formats/npy");
        let Ok(expected) = std::fs::read(format!("{folder}/expected.json")) else {
            println!("skipped: ../shared/data/formats/npy is absent");
            return;
        };
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        for (name, expected) in expected["files"].as_object().unwrap() {
            let bytes = std::fs::read(format!("{folder}/{name}")).unwrap();
            let dimensions: Vec<u64> = serde_json::from_value(expected["shape"].clone()).unwrap();
            let descr = expected["descr"].as_str().unwrap();
            match (read(&bytes), &dimensions[..]) {
                (Ok(shape), &[rows, ref cols @ ..]) => {
                    let cols = cols.first().copied().unwrap_or(1);
                    assert_eq!((shape.rows, shape.cols), (rows, cols), "{name}");
                    assert_eq!(shape.one_dimensional, dimensions.len() == 1, "{name}");
                    assert_eq!(super::dtype(descr).unwrap(), shape.dtype, "{name}");
                    let elements = &bytes[shape.offset as usize..];
                    let digest = Digest::of(elements).to_hex();
                    assert_eq!(expected["c_order_le_sha256"], digest, "{name}");
                }
                (Err(ArtifactError::Dimensions(n)), _) => {
                    assert!(n == dimensions.len() && !(1..=2).contains(&n), "{name}");
                }
                (Err(ArtifactError::Fortran), _) => {
                    assert_eq!(expected["fortran_order"], true, "{name}");
                }
                (Err(ArtifactError::NoElements { .. }), _) => {
                    assert!(dimensions.contains(&0), "{name}");
                }
                (Err(ArtifactError::BigEndian(_)), _) => assert!(descr.starts_with('>'), "{name}"),
                (other, _) => panic!("{name}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes).ok();
            read(&[MAGIC, &[1, 0, 60, 0], &bytes].concat()).ok();
        }

        #[test]
        fn no_change_of_a_good_header_makes_it_panic(
            version in 1u8..=3,
            changes in prop::collection::vec((0usize..80, any::<u8>()), 1..4),
            cut in 0usize..100,
        ) {
            let mut bytes = npy(version, GOOD, 24);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            read(&bytes).ok();
            bytes.truncate(cut);
            read(&bytes).ok();
        }
    }
}
