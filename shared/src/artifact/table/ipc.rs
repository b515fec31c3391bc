//! Arrow IPC: a stream of messages, each a length, a description (a flatbuffer) and a body of buffers. A file is such a
//! stream with eight bytes before it and an index behind it, which nobody needs who reads all of it.
//!
//! ```text
//! file:    ARROW1 0 0 | maybe 56 zeros | messages | end | index | ARROW1
//! message: ff ff ff ff | n, u32 | description, n bytes | body
//! ```
//!
//! Messages are taken apart here, so that nothing is read or unpacked before its size is known to be good; what is in
//! them is decoded by the crate `arrow-ipc`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use arrow_array::cast::AsArray;
use arrow_array::{Array as _, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::root_as_message;
use arrow_schema::DataType;

use super::column::{Column, Values};
use super::contain::contained;
use super::write::{Writer, elements, fixed};
use crate::artifact::error::{no_part, unreadable};
use crate::artifact::{Array, ArtifactError, Format, Layout};

const MAGIC: &[u8] = b"ARROW1\0\0";
const CONTINUES: [u8; 4] = [0xff; 4];

/// A batch, and the bytes of its message in memory and in the file.
struct Batch {
    batch: RecordBatch,
    message: Buffer,
    offset: u64,
}

/// The table in `file`, or the column `part` of it, written to `beside`. A column of numbers that lies in the file in one
/// piece stays there.
pub fn read_arrow(
    file: &File,
    len: u64,
    part: Option<&str>,
    limit_bytes: u64,
    beside: &mut dyn Write,
) -> Result<Layout, ArtifactError> {
    contained(Format::Arrow, || batches_of(file, len, part, Writer::new(beside, limit_bytes)))
}

fn batches_of(file: &File, len: u64, part: Option<&str>, mut out: Writer) -> Result<Layout, ArtifactError> {
    let wrong = |error: &dyn std::fmt::Display| unreadable(Format::Arrow, error.to_string());
    let mut start = [0; 8];
    let read = file.read_at(&mut start, 0)?;
    let mut at = match &start[..read] {
        MAGIC => first_message(file)?,
        [b'F', b'E', b'A', b'1', ..] => {
            return Err(wrong(&"it is Feather version 1; write it again as version 2"));
        }
        _ => 0,
    };
    let (mut decoder, mut batches, mut held_bytes) = (StreamDecoder::new(), Vec::new(), 0);
    while let Some((message, body_at)) = message(file, len, at)? {
        held_bytes = decoded_bytes(&message, body_at)?.saturating_add(held_bytes);
        out.must_fit(held_bytes)?;
        let mut rest = message.clone();
        while !rest.is_empty() {
            if let Some(batch) = decoder.decode(&mut rest).map_err(|error| wrong(&error))? {
                batches.push(Batch { batch, message: message.clone(), offset: at });
            }
        }
        at += message.len() as u64;
    }
    // A last batch without rows is decoded only when something follows it.
    let mut end = Buffer::from_slice_ref([CONTINUES, [0; 4]].as_flattened());
    while !end.is_empty() {
        if let Some(batch) = decoder.decode(&mut end).map_err(|error| wrong(&error))? {
            batches.push(Batch { batch, message: Buffer::from([]), offset: at });
        }
    }
    let schema =
        decoder.schema().ok_or_else(|| wrong(&"it has no schema: it does not start as Arrow IPC does"))?;
    let arrays = |at: usize| batches.iter().map(|one| one.batch.column(at).clone()).collect::<Vec<_>>();
    if let Some(part) = part {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let at =
            names.clone().position(|name| name == part).ok_or_else(|| no_part(Format::Arrow, part, names))?;
        if let [only] = &batches[..]
            && let Some(array) = only.in_place(at)
        {
            return Ok(Layout::Tensor(array));
        }
        let column = out.column(part, schema.field(at).data_type(), &arrays(at))?;
        return finish_column(out, column);
    }
    let mut columns = Vec::new();
    for (at, field) in schema.fields().iter().enumerate() {
        columns.push(out.column(field.name(), field.data_type(), &arrays(at))?);
    }
    finish_table(out, &columns)
}

/// A table of all its columns.
pub(super) fn finish_table(out: Writer, columns: &[Column]) -> Result<Layout, ArtifactError> {
    out.finish(columns)?;
    Ok(Layout::Table { rows: columns.first().map_or(0, |column| column.rows), columns: columns.len() as u64 })
}

/// A column that was named: an array.
pub(super) fn finish_column(out: Writer, column: Column) -> Result<Layout, ArtifactError> {
    match &column.values {
        Values::Array { array, .. } if column.missing.is_none() => {
            let array = array.clone();
            out.finish(&[column])?;
            Ok(Layout::Column(array))
        }
        _ => Err(ArtifactError::NoArray { column: column.name }),
    }
}

impl Batch {
    /// Where a column lies in the file, if it is there as it is in memory.
    fn in_place(&self, at: usize) -> Option<Array> {
        let column = self.batch.column(at);
        let (items, width) = match column.data_type() {
            DataType::FixedSizeList(_, width) => {
                let list = column.as_fixed_size_list();
                (list.values().clone(), Some(*width as u64))
            }
            _ => (column.clone(), None),
        };
        let (dtype, _) = fixed(items.data_type()).filter(|_| *items.data_type() != DataType::Boolean)?;
        let rows = column.len() as u64;
        if column.null_count() + items.null_count() > 0 || width == Some(0) || rows == 0 {
            return None;
        }
        let (elements, message) = (elements(&items), self.message.as_ptr().addr());
        let within = elements.as_ptr().addr().checked_sub(message)?;
        if within.checked_add(elements.len()).is_none_or(|end| end > self.message.len()) {
            return None;
        }
        let shape = [rows].into_iter().chain(width).collect();
        let array = Array { dtype, shape, offset: self.offset + within as u64 };
        (array.len_bytes() == Some(elements.len() as u64)).then_some(array)
    }
}

/// Where the first message of a file starts: some writers fill up the eight bytes to 64.
fn first_message(file: &File) -> Result<u64, ArtifactError> {
    let mut start = [0; 72];
    let read = file.read_at(&mut start, 0)?;
    let at = start[..read].iter().skip(8).position(|&byte| byte != 0);
    Ok(at.map_or(8, |at| (8 + at as u64) & !7))
}

/// The message at byte `at`, and where in it its body starts; `None` at the end.
fn message(file: &File, len: u64, at: u64) -> Result<Option<(Buffer, usize)>, ArtifactError> {
    let wrong = |why: String| unreadable(Format::Arrow, format!("the message at byte {at} {why}"));
    let mut prefix = [0; 8];
    let read = file.read_at(&mut prefix, at)?;
    let [continues, size] = [0, 4].map(|from| [0, 1, 2, 3].map(|at| prefix[from + at]));
    if read == 0 || (read >= 4 && continues == [0; 4]) {
        return Ok(None);
    }
    if read < 8 {
        return Err(wrong("is cut short".into()));
    }
    // Before version 0.15 nothing stood before the length.
    let (size, prefix_bytes) = if continues == CONTINUES { (size, 8) } else { (continues, 4) };
    let size = u64::from(u32::from_le_bytes(size));
    if size == 0 {
        return Ok(None);
    }
    let body_at = prefix_bytes + size;
    if at + body_at > len {
        return Err(wrong("goes on past the end of the file, or is none".into()));
    }
    let mut description = vec![0; size as usize];
    file.read_exact_at(&mut description, at + prefix_bytes)?;
    let about = root_as_message(&description).map_err(|error| wrong(format!("is malformed: {error}")))?;
    let end = u64::try_from(about.bodyLength()).ok().and_then(|body| (at + body_at).checked_add(body));
    let Some(end) = end.filter(|end| *end <= len) else {
        return Err(wrong(format!("claims a body of {} bytes, and the file has {len}", about.bodyLength())));
    };
    let mut bytes = vec![0; (end - at) as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(Some((Buffer::from_vec(bytes), body_at as usize)))
}

/// How many bytes a message will be once its buffers are unpacked.
fn decoded_bytes(message: &Buffer, body_at: usize) -> Result<u64, ArtifactError> {
    let wrong = |why: &str| unreadable(Format::Arrow, why);
    let description = &message[if message[..4] == CONTINUES { 8 } else { 4 }..body_at];
    let about = root_as_message(description).map_err(|_| wrong("a message is malformed"))?;
    let batch = about.header_as_record_batch();
    let batch = batch.or_else(|| about.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
    let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else {
        return Ok((message.len() - body_at) as u64);
    };
    let mut sum = 0u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let from = usize::try_from(buffer.offset()).ok().and_then(|offset| offset.checked_add(body_at));
        let unpacked = match (buffer.length(), from.and_then(|from| message.get(from..)?.first_chunk())) {
            (0, _) => 0,
            (_, Some(size)) => u64::try_from(i64::from_le_bytes(*size)).unwrap_or(0),
            (_, None) => return Err(wrong("a buffer lies outside of its message")),
        };
        sum = sum.saturating_add(unpacked);
    }
    Ok(sum.saturating_add((message.len() - body_at) as u64))
}
