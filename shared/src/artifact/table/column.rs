//! A decoded table: columns as they lie in memory, and a row of them as JSON. Made by [`super::write`]; read here and by
//! `worker/src/python/forkyard.py`.
//!
//! ```text
//!  0                                     end - 8 - n        end - 8
//! +-------------------------------------+------------------+------------+
//! | buffers, each at a multiple of 64   | columns, as JSON | n, u64     |
//! +-------------------------------------+------------------+------------+
//! ```
//!
//! Unlike Arrow's own layout each column is in one piece, whatever the batches were, and whether there is a value takes
//! a byte and not a bit: that is what numpy can look at. Arrow's IPC format was tried first: with several batches a column
//! is no array.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::artifact::{Array, ArtifactError, Dtype};

/// One column, or what is inside of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// Where a byte a row lies that is 1 where there is no value; `None` if there is one everywhere.
    pub missing: Option<u64>,
    /// What the values are.
    pub values: Values,
}

/// The values of a column, where they lie in the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    /// Numbers, or lists of numbers that are all as long.
    Array {
        /// Where, and of which type.
        #[serde(flatten)]
        array: Array,
        /// What a number counts, as numpy says it (`datetime64[us]`), if it is a time.
        time: Option<String>,
    },
    /// UTF-8: row i is from the i-th to the next of the 64-bit offsets.
    Text {
        /// Where the offsets lie, one more than rows.
        offsets: u64,
        /// What they count from.
        data: u64,
    },
    /// Bytes likewise.
    Bytes {
        /// Where the offsets lie.
        offsets: u64,
        /// What they count from.
        data: u64,
    },
    /// Lists: row i are rows of `items`, from the i-th to the next offset.
    List {
        /// Where the offsets lie.
        offsets: u64,
        /// What is in the lists, end to end.
        items: Box<Column>,
    },
    /// Few values, and for each row a 32-bit number that says which.
    Coded {
        /// Where the numbers lie.
        codes: u64,
        /// The values.
        values: Box<Column>,
    },
    /// Several values a row, by name.
    Struct(Vec<Column>),
    /// Nothing.
    Nothing,
}

impl Column {
    /// What it is, in a few words.
    pub fn describe(&self) -> String {
        let what = match &self.values {
            Values::Array { array, time } => match (time, &array.shape[1..]) {
                (Some(time), []) => time.clone(),
                (None, []) => array.dtype.name().into(),
                (_, [width, ..]) => format!("{} x {width}", array.dtype.name()),
            },
            Values::Text { .. } => "text".into(),
            Values::Bytes { .. } => "bytes".into(),
            Values::List { items, .. } => format!("lists of {}", items.describe()),
            Values::Coded { values, .. } => format!("{}, {} different ones", values.describe(), values.rows),
            Values::Struct(fields) => {
                let fields = fields.iter().map(|field| format!("{}: {}", field.name, field.describe()));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
            }
            Values::Nothing => "nothing".into(),
        };
        if self.missing.is_some() { format!("{what}, with gaps") } else { what }
    }
}

/// A view of a decoded table.
pub struct Table<'a> {
    bytes: &'a [u8],
    columns: Vec<Column>,
}

impl<'a> Table<'a> {
    /// The table in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Table<'a>, ArtifactError> {
        let columns = || -> Option<Vec<Column>> {
            let (rest, len) = bytes.split_last_chunk::<8>()?;
            let from = rest.len().checked_sub(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            serde_json::from_slice(&rest[from..]).ok()
        };
        Ok(Table { bytes, columns: columns().ok_or(ArtifactError::DamagedTable)? })
    }

    /// Its columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.columns.first().map_or(0, |column| column.rows)
    }

    /// A row as a JSON object; `None` past the last. Times are numbers in their unit, bytes are hexadecimal text, and of
    /// numbers that JSON does not know (NaN, infinities) the value is null.
    pub fn row(&self, row: u64) -> Option<Value> {
        (row < self.rows()).then(|| self.object(&self.columns, row)).flatten()
    }

    fn object(&self, columns: &[Column], row: u64) -> Option<Value> {
        let fields = columns.iter().map(|column| Some((column.name.clone(), self.value(column, row)?)));
        Some(Value::Object(fields.collect::<Option<Map<_, _>>>()?))
    }

    fn value(&self, column: &Column, row: u64) -> Option<Value> {
        if let Some(missing) = column.missing
            && self.at::<1>(missing, row)? != [0]
        {
            return Some(Value::Null);
        }
        Some(match &column.values {
            Values::Array { array, .. } => {
                let each = array.shape.get(1).copied();
                let width = each.unwrap_or(1);
                let element = |at: u64| {
                    let size = array.dtype.size_bytes();
                    let from = array
                        .offset
                        .checked_add(row.checked_mul(width)?.checked_add(at)?.checked_mul(size)?)?;
                    Some(number(array.dtype, self.slice(from, size)?))
                };
                match each {
                    None => element(0)?,
                    Some(width) => (0..width).map(element).collect::<Option<Vec<Value>>>()?.into(),
                }
            }
            Values::Text { offsets, data } => {
                String::from_utf8_lossy(self.piece(*offsets, *data, row)?).into()
            }
            Values::Bytes { offsets, data } => {
                let bytes = self.piece(*offsets, *data, row)?;
                bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
            }
            Values::List { offsets, items } => {
                let [from, to] = self.span(*offsets, row)?;
                (from..to).map(|item| self.value(items, item)).collect::<Option<Vec<Value>>>()?.into()
            }
            Values::Coded { codes, values } => {
                self.value(values, u64::from(u32::from_le_bytes(self.at(*codes, row)?)))?
            }
            Values::Struct(fields) => self.object(fields, row)?,
            Values::Nothing => Value::Null,
        })
    }

    fn piece(&self, offsets: u64, data: u64, row: u64) -> Option<&'a [u8]> {
        let [from, to] = self.span(offsets, row)?;
        self.slice(data.checked_add(from)?, to.checked_sub(from)?)
    }

    fn span(&self, offsets: u64, row: u64) -> Option<[u64; 2]> {
        Some([u64::from_le_bytes(self.at(offsets, row)?), u64::from_le_bytes(self.at(offsets, row + 1)?)])
    }

    /// The `index`-th piece of `N` bytes from `base`.
    fn at<const N: usize>(&self, base: u64, index: u64) -> Option<[u8; N]> {
        self.slice(base.checked_add(index.checked_mul(N as u64)?)?, N as u64)?.try_into().ok()
    }

    fn slice(&self, from: u64, len: u64) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(from).ok()?..usize::try_from(from.checked_add(len)?).ok()?)
    }
}

fn number(dtype: Dtype, bytes: &[u8]) -> Value {
    let wide = |signed: bool| {
        let fill = if signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        wide
    };
    match dtype {
        Dtype::Bool => (bytes != [0]).into(),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => i64::from_le_bytes(wide(true)).into(),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => u64::from_le_bytes(wide(false)).into(),
        Dtype::F16 => half::f16::from_bits(u64::from_le_bytes(wide(false)) as u16).to_f64().into(),
        Dtype::F32 => f64::from(f32::from_bits(u64::from_le_bytes(wide(false)) as u32)).into(),
        Dtype::F64 => f64::from_bits(u64::from_le_bytes(wide(false))).into(),
        // Tables have none of these.
        Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::BF16 | Dtype::C64 => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_table_is_no_panic() {
        for bytes in [&b""[..], &[0; 8], &[0xff; 40], b"[]\x02\0\0\0\0\0\0\0"] {
            assert!(Table::new(bytes).is_ok_and(|table| table.rows() == 0) == bytes.starts_with(b"[]"));
        }
        let far = Array { dtype: Dtype::F32, shape: vec![3], offset: u64::MAX - 2 };
        let values = Values::Array { array: far, time: None };
        let columns = vec![Column { name: "x".into(), rows: 3, missing: None, values }];
        assert_eq!(Table { bytes: &[0; 16], columns }.row(2), None);
    }
}
