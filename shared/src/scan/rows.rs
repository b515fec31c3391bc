//! The rows that count: a range, a mask, or both.

use std::ops::Range;

use super::ScanError;

/// The rows of a matrix that are looked at.
#[derive(Clone, Default)]
pub struct Rows<'a> {
    /// Those from the first number up to, and without, the second.
    pub range: Option<[u64; 2]>,
    /// Those whose byte is not 0.
    pub mask: Option<&'a [u8]>,
}

impl<'a> Rows<'a> {
    /// All of them.
    pub fn all() -> Rows<'static> {
        Rows::default()
    }

    pub(super) fn check(&self, rows: u64) -> Result<(), ScanError> {
        if let Some([from, to]) = self.range
            && (from > to || to > rows)
        {
            return Err(ScanError::Range { from, to, rows });
        }
        match self.mask {
            Some(mask) if mask.len() as u64 != rows => {
                Err(ScanError::Mask { bytes: mask.len() as u64, rows })
            }
            _ => Ok(()),
        }
    }

    /// Rows in a row, first to last, of a matrix of so many.
    pub(super) fn runs(&self, rows: u64) -> impl Iterator<Item = Range<u64>> + use<'a> {
        let [mut from, to] = self.range.unwrap_or([0, rows]);
        let mask = self.mask;
        std::iter::from_fn(move || {
            let mut run = from..to;
            if let Some(mask) = mask {
                let left = &mask[from as usize..to as usize];
                let skipped = left.iter().take_while(|byte| **byte == 0).count();
                let taken = left[skipped..].iter().take_while(|byte| **byte != 0).count();
                run.start += skipped as u64;
                run.end = run.start + taken as u64;
            }
            from = run.end;
            (!run.is_empty()).then_some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(range: Option<[u64; 2]>, mask: Option<&[u8]>) -> Vec<Range<u64>> {
        Rows { range, mask }.runs(6).collect()
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]
    fn runs_are_what_range_and_mask_leave() {
        assert_eq!(runs(None, None), [0..6]);
        assert_eq!(runs(Some([2, 5]), None), [2..5]);
        assert_eq!(runs(Some([2, 2]), None), []);
        assert_eq!(runs(None, Some(&[0, 1, 255, 0, 0, 1])), [1..3, 5..6]);
        assert_eq!(runs(None, Some(&[1, 1, 1, 1, 1, 1])), [0..6]);
        assert_eq!(runs(None, Some(&[0; 6])), []);
        assert_eq!(runs(Some([2, 5]), Some(&[0, 1, 1, 0, 1, 1])), [2..3, 4..5]);
    }

    #[test]
    fn what_is_not_of_the_matrix_is_refused_with_the_numbers() {
        let refused = |range, mask| Rows { range, mask }.check(6).unwrap_err().to_string();
        assert_eq!(
            refused(Some([2, 7]), None),
            "the filter takes the rows from 2 up to 7, but the matrix has 6 rows, counted from 0"
        );
        assert_eq!(
            refused(None, Some(&[1; 5])),
            "the filter has 5 bytes, the matrix has 6 rows; it needs a byte a row"
        );
        assert!(Rows { range: Some([6, 6]), mask: Some(&[1; 6]) }.check(6).is_ok());
    }
}
