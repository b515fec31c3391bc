//! Why a matrix cannot be searched as asked.

use std::fmt;

use crate::artifact::Dtype;

/// Why a matrix cannot be searched as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanError {
    /// The elements are of none of the types that are searched.
    Dtype(Dtype),
    /// A vector has another length than the rows.
    Length {
        /// Which of the vectors, from 0.
        at: usize,
        /// How many vectors there are.
        of: usize,
        /// The length of the vector.
        vector: u64,
        /// The length of a row.
        columns: u64,
    },
    /// There is no such row.
    Row {
        /// The row asked for.
        row: u64,
        /// How many there are.
        rows: u64,
    },
    /// The range of rows that count is not one of the matrix.
    Range {
        /// Its first row.
        from: u64,
        /// The row after its last one.
        to: u64,
        /// How many rows there are.
        rows: u64,
    },
    /// The mask has another length than the matrix has rows.
    Mask {
        /// The length of the mask.
        bytes: u64,
        /// How many rows there are.
        rows: u64,
    },
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ScanError::Dtype(dtype) => {
                write!(f, "topk needs float16, bfloat16, float32 or int8; this is {}", dtype.name())
            }
            ScanError::Length { of: 1, vector, columns, .. } => {
                write!(f, "the vector has {vector} values, the matrix has {columns} columns")
            }
            ScanError::Length { at, vector, columns, .. } => {
                write!(f, "vector {at} (from 0) has {vector} values, the matrix has {columns} columns")
            }
            ScanError::Row { row, rows } => {
                write!(f, "there is no row {row}: the matrix has {rows} rows, counted from 0")
            }
            ScanError::Range { from, to, rows } => {
                write!(
                    f,
                    "the filter takes the rows from {from} up to {to}, but the matrix has {rows} rows, counted from 0"
                )
            }
            ScanError::Mask { bytes, rows } => {
                write!(f, "the filter has {bytes} bytes, the matrix has {rows} rows; it needs a byte a row")
            }
        }
    }
}

impl std::error::Error for ScanError {}
