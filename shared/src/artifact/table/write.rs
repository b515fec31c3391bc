//! Writes arrays of Arrow as the columns of a decoded table. Knows nothing of the files that they come from.

use std::io::Write;

use arrow_array::cast::AsArray;
use arrow_array::{Array as _, ArrayRef, OffsetSizeTrait};
use arrow_schema::{DataType, TimeUnit};

use super::column::{Column, Values};
use crate::artifact::{Array, ArtifactError, Dtype};

/// A decoded table that is being written.
pub(super) struct Writer<'a> {
    to: &'a mut dyn Write,
    at: u64,
    limit_bytes: u64,
}

impl<'a> Writer<'a> {
    pub fn new(to: &'a mut dyn Write, limit_bytes: u64) -> Writer<'a> {
        Writer { to, at: 0, limit_bytes }
    }

    /// Writes what says what the columns are.
    pub fn finish(mut self, columns: &[Column]) -> Result<(), ArtifactError> {
        let about = serde_json::to_vec(columns).expect("names and numbers are JSON");
        self.put(&about)?;
        self.put(&(about.len() as u64).to_le_bytes())
    }

    /// Whether so many bytes more would be too many.
    pub fn must_fit(&self, more_bytes: u64) -> Result<(), ArtifactError> {
        if self.at.saturating_add(more_bytes) > self.limit_bytes {
            return Err(ArtifactError::TooLarge { limit_bytes: self.limit_bytes });
        }
        Ok(())
    }

    /// Writes a column that is these arrays, end to end.
    pub fn column(
        &mut self,
        name: &str,
        kind: &DataType,
        arrays: &[ArrayRef],
    ) -> Result<Column, ArtifactError> {
        let rows = arrays.iter().map(|array| array.len() as u64).sum();
        let missing = self.missing(arrays)?;
        let values = self.values(name, kind, arrays)?;
        Ok(Column { name: name.into(), rows, missing, values })
    }

    fn missing(&mut self, arrays: &[ArrayRef]) -> Result<Option<u64>, ArtifactError> {
        if arrays.iter().all(|array| array.null_count() == 0) {
            return Ok(None);
        }
        let at = self.align()?;
        for array in arrays {
            let bytes: Vec<u8> = (0..array.len()).map(|row| u8::from(array.is_null(row))).collect();
            self.put(&bytes)?;
        }
        Ok(Some(at))
    }

    fn values(&mut self, name: &str, kind: &DataType, arrays: &[ArrayRef]) -> Result<Values, ArtifactError> {
        if let Some((dtype, time)) = fixed(kind) {
            let rows: usize = arrays.iter().map(|array| array.len()).sum();
            return Ok(Values::Array { array: self.numbers(dtype, vec![rows as u64], arrays)?, time });
        }
        match kind {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let (offsets, data) = self.pieces(kind, arrays)?;
                Ok(Values::Text { offsets, data })
            }
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => {
                let (offsets, data) = self.pieces(kind, arrays)?;
                Ok(Values::Bytes { offsets, data })
            }
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                let lists = arrays.iter().map(|array| lists(array, kind)).collect::<Vec<_>>();
                self.list(item.data_type(), arrays, &lists)
            }
            DataType::Dictionary(_, value) => self.coded(value, arrays),
            DataType::Struct(fields) => {
                let columns = fields.iter().enumerate().map(|(at, field)| {
                    let inner: Vec<ArrayRef> =
                        arrays.iter().map(|array| array.as_struct().column(at).clone()).collect();
                    self.column(field.name(), field.data_type(), &inner)
                });
                columns.collect::<Result<_, _>>().map(Values::Struct)
            }
            DataType::Null => Ok(Values::Nothing),
            other => Err(ArtifactError::ColumnType { column: name.into(), kind: other.to_string() }),
        }
    }

    /// Elements of a fixed size, end to end.
    fn numbers(
        &mut self,
        dtype: Dtype,
        shape: Vec<u64>,
        arrays: &[ArrayRef],
    ) -> Result<Array, ArtifactError> {
        let offset = self.align()?;
        for array in arrays {
            if dtype == Dtype::Bool {
                let bits = array.as_boolean().values();
                let bytes: Vec<u8> = bits.iter().map(u8::from).collect();
                self.put(&bytes)?;
            } else {
                self.put(elements(array))?;
            }
        }
        Ok(Array { dtype, shape, offset })
    }

    /// Texts or bytes, end to end, and then their offsets.
    fn pieces(&mut self, kind: &DataType, arrays: &[ArrayRef]) -> Result<(u64, u64), ArtifactError> {
        let data = self.align()?;
        let mut offsets = vec![0];
        for array in arrays {
            for row in 0..array.len() {
                if array.is_valid(row) {
                    self.put(piece(array, kind, row))?;
                }
                offsets.push(self.at - data);
            }
        }
        Ok((self.offsets(&offsets)?, data))
    }

    fn list(
        &mut self,
        item: &DataType,
        arrays: &[ArrayRef],
        lists: &[(Vec<u64>, ArrayRef)],
    ) -> Result<Values, ArtifactError> {
        let items: Vec<ArrayRef> = lists
            .iter()
            .map(|(ends, items)| {
                let (from, to) = (ends[0] as usize, ends[ends.len() - 1] as usize);
                items.slice(from, to - from)
            })
            .collect();
        let mut lengths = lists.iter().flat_map(|(ends, _)| ends.windows(2).map(|ends| ends[1] - ends[0]));
        let width = lengths.next();
        // Numbers, and as many in each list: a matrix, whether its type says so or not (Parquet's never does).
        if let (Some((dtype, time)), Some(width)) = (fixed(item), width)
            && width > 0
            && lengths.all(|length| length == width)
            && items.iter().all(|items| items.null_count() == 0)
            && arrays.iter().all(|array| array.null_count() == 0)
        {
            let rows: usize = arrays.iter().map(|array| array.len()).sum();
            return Ok(Values::Array { array: self.numbers(dtype, vec![rows as u64, width], &items)?, time });
        }
        let mut offsets = vec![0];
        for (ends, _) in lists {
            let before = offsets[offsets.len() - 1];
            offsets.extend(ends[1..].iter().map(|end| before + end - ends[0]));
        }
        let offsets = self.offsets(&offsets)?;
        Ok(Values::List { offsets, items: Box::new(self.column("item", item, &items)?) })
    }

    /// Each dictionary once, and codes that count through all of them.
    fn coded(&mut self, value: &DataType, arrays: &[ArrayRef]) -> Result<Values, ArtifactError> {
        let (mut dictionaries, mut before): (Vec<ArrayRef>, u64) = (Vec::new(), 0);
        let codes = self.align()?;
        for array in arrays {
            let dictionary = array.as_any_dictionary();
            let known =
                dictionaries.last().is_some_and(|last| last.to_data().ptr_eq(&dictionary.values().to_data()));
            if !known {
                before += dictionaries.last().map_or(0, |last| last.len() as u64);
                dictionaries.push(dictionary.values().clone());
            }
            let keys = dictionary.normalized_keys();
            let bytes: Vec<u8> =
                keys.iter().flat_map(|key| ((before + *key as u64) as u32).to_le_bytes()).collect();
            self.put(&bytes)?;
        }
        let values = Box::new(self.column("value", value, &dictionaries)?);
        Ok(Values::Coded { codes, values })
    }

    fn offsets(&mut self, offsets: &[u64]) -> Result<u64, ArtifactError> {
        let at = self.align()?;
        let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        self.put(&bytes)?;
        Ok(at)
    }

    fn align(&mut self) -> Result<u64, ArtifactError> {
        let gap = self.at.next_multiple_of(64) - self.at;
        self.put(&[0; 64][..gap as usize])?;
        Ok(self.at)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.must_fit(bytes.len() as u64)?;
        self.to.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// The bytes of an array of elements of a fixed size, but for bool, whose elements are bits.
pub(super) fn elements(array: &dyn arrow_array::Array) -> &[u8] {
    macro_rules! values {
        ($($kind:ty),*) => {
            $(if let Some(array) = array.as_primitive_opt::<$kind>() {
                return array.values().inner().as_slice();
            })*
        };
    }
    use arrow_array::types::*;
    values!(
        Int8Type,
        Int16Type,
        Int32Type,
        Int64Type,
        UInt8Type,
        UInt16Type,
        UInt32Type,
        UInt64Type,
        Float16Type,
        Float32Type,
        Float64Type,
        Date32Type,
        Date64Type,
        Time32SecondType,
        Time32MillisecondType,
        Time64MicrosecondType,
        Time64NanosecondType,
        TimestampSecondType,
        TimestampMillisecondType,
        TimestampMicrosecondType,
        TimestampNanosecondType,
        DurationSecondType,
        DurationMillisecondType,
        DurationMicrosecondType,
        DurationNanosecondType
    );
    panic!("BUG: {} is of no fixed size", array.data_type())
}

/// The element type of what is of a fixed size, and what it counts if it is a time.
pub(super) fn fixed(kind: &DataType) -> Option<(Dtype, Option<String>)> {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    let plain = |dtype| Some((dtype, None));
    match kind {
        DataType::Boolean => plain(Dtype::Bool),
        DataType::Int8 => plain(Dtype::I8),
        DataType::Int16 => plain(Dtype::I16),
        DataType::Int32 => plain(Dtype::I32),
        DataType::Int64 => plain(Dtype::I64),
        DataType::UInt8 => plain(Dtype::U8),
        DataType::UInt16 => plain(Dtype::U16),
        DataType::UInt32 => plain(Dtype::U32),
        DataType::UInt64 => plain(Dtype::U64),
        DataType::Float16 => plain(Dtype::F16),
        DataType::Float32 => plain(Dtype::F32),
        DataType::Float64 => plain(Dtype::F64),
        // numpy's times have 64 bits: those of 32 stay numbers.
        DataType::Date32 | DataType::Time32(_) => plain(Dtype::I32),
        DataType::Date64 => Some((Dtype::I64, Some("datetime64[ms]".into()))),
        DataType::Timestamp(of, _) => Some((Dtype::I64, Some(format!("datetime64[{}]", unit(of))))),
        DataType::Time64(of) | DataType::Duration(of) => {
            Some((Dtype::I64, Some(format!("timedelta64[{}]", unit(of)))))
        }
        _ => None,
    }
}

fn piece<'a>(array: &'a ArrayRef, kind: &DataType, row: usize) -> &'a [u8] {
    match kind {
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).as_bytes(),
        DataType::Utf8View => array.as_string_view().value(row).as_bytes(),
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        _ => array.as_fixed_size_binary().value(row),
    }
}

/// Where each list starts and the last one ends, in what is in all of them.
fn lists(array: &ArrayRef, kind: &DataType) -> (Vec<u64>, ArrayRef) {
    fn of<O: OffsetSizeTrait>(array: &ArrayRef) -> (Vec<u64>, ArrayRef) {
        let list = array.as_list::<O>();
        (list.value_offsets().iter().map(|offset| offset.as_usize() as u64).collect(), list.values().clone())
    }
    match kind {
        DataType::List(_) => of::<i32>(array),
        DataType::LargeList(_) => of::<i64>(array),
        _ => {
            let list = array.as_fixed_size_list();
            let width = list.value_length() as u64;
            let first = if list.is_empty() { 0 } else { list.value_offset_at(0) as u64 };
            ((0..=list.len() as u64).map(|row| first + row * width).collect(), list.values().clone())
        }
    }
}
