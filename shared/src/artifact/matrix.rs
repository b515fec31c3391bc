//! A numpy array over the bytes of its file: rows, without a copy. Knows where rows are and nothing of
//! what is done with them.

use std::ops::Range;

use super::{ArtifactError, Shape};

/// A view of an npy file. Rows are bytes, not numbers, because a file may put its elements at any
/// address: alignment is never needed.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    shape: &'a Shape,
    elements: &'a [u8],
    row_bytes: usize,
}

impl<'a> Matrix<'a> {
    /// The matrix of `shape` in `bytes`, the whole file. Refused unless the bytes hold all of it.
    pub fn new(shape: &'a Shape, bytes: &'a [u8]) -> Result<Matrix<'a>, ArtifactError> {
        let Shape { rows, cols, offset, .. } = *shape;
        if rows == 0 || cols == 0 {
            return Err(ArtifactError::NoElements { rows, cols });
        }
        let end = shape.end().ok_or(ArtifactError::Overflow)?;
        let file_bytes = bytes.len() as u64;
        if end > file_bytes {
            return Err(ArtifactError::CutShort { promised_bytes: end, file_bytes });
        }
        // From here on every number of the shape is at most a length in memory.
        let elements = &bytes[offset as usize..end as usize];
        let row_bytes = elements.len() / rows as usize;
        Ok(Matrix { shape, elements, row_bytes })
    }

    /// The shape it was made with.
    pub fn shape(&self) -> &'a Shape {
        self.shape
    }

    /// The bytes of one row; `None` past the last.
    pub fn row_bytes(&self, row: u64) -> Option<&'a [u8]> {
        self.elements.chunks_exact(self.row_bytes).nth(usize::try_from(row).ok()?)
    }

    /// The bytes of rows that follow each other.
    ///
    /// # Panics
    /// When there are not so many rows.
    pub fn rows_bytes(&self, rows: Range<u64>) -> &'a [u8] {
        &self.elements[rows.start as usize * self.row_bytes..rows.end as usize * self.row_bytes]
    }

    /// The bytes of up to `rows` whole rows at a time, first to last.
    pub fn blocks(&self, rows: usize) -> std::slice::Chunks<'a, u8> {
        self.elements.chunks(self.row_bytes.saturating_mul(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Dtype;

    const SHAPE: Shape = Shape { dtype: Dtype::U16, rows: 3, cols: 2, one_dimensional: false, offset: 1 };

    #[test]
    fn rows_are_where_the_shape_says() {
        let bytes: Vec<u8> = (0..13).collect();
        let matrix = Matrix::new(&SHAPE, &bytes).unwrap();
        assert_eq!(matrix.row_bytes(0), Some(&[1, 2, 3, 4][..]));
        assert_eq!(matrix.row_bytes(2), Some(&[9, 10, 11, 12][..]));
        assert_eq!(matrix.row_bytes(3), None);
        assert_eq!(matrix.row_bytes(u64::MAX), None);
        assert_eq!(matrix.blocks(2).map(<[u8]>::len).collect::<Vec<_>>(), [8, 4]);
        assert_eq!(matrix.rows_bytes(1..3), &bytes[5..13]);
        assert_eq!(matrix.rows_bytes(3..3), &[] as &[u8]);
    }

    #[test]
    fn a_shape_that_the_bytes_do_not_hold_is_refused() {
        assert!(matches!(Matrix::new(&SHAPE, &[0; 12]), Err(ArtifactError::CutShort { .. })));
        let huge = Shape { rows: u64::MAX, ..SHAPE };
        assert!(matches!(Matrix::new(&huge, &[0; 13]), Err(ArtifactError::Overflow)));
        let none = Shape { rows: 0, ..SHAPE };
        assert!(matches!(Matrix::new(&none, &[]), Err(ArtifactError::NoElements { .. })));
    }
}
