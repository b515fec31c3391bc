//! Tables of other libraries, and tables that are no good.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{
    ArrayRef, FixedSizeListArray, Int32Array, ListArray, RecordBatch, StringArray, UInt8Array,
};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use super::Table;
use crate::artifact::{ArtifactError, Dtype, Format, Layout, Reading, read};

const PLENTY: u64 = 1 << 30;

fn read_within(
    bytes: &[u8],
    format: Format,
    part: Option<&str>,
    limit_bytes: u64,
) -> Result<(Layout, Vec<u8>), ArtifactError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mut beside = Vec::new();
    let reading = Reading { format, part, key: "id", limit_bytes };
    Ok((read(&file, bytes.len() as u64, &reading, &mut beside)?, beside))
}

fn open(bytes: &[u8], format: Format, part: Option<&str>) -> (Layout, Vec<u8>) {
    read_within(bytes, format, part, PLENTY).unwrap()
}

fn rows(beside: &[u8]) -> Vec<Value> {
    let table = Table::new(beside).unwrap();
    (0..table.rows()).map(|row| table.row(row).unwrap()).collect()
}

fn as_f32(value: &Value) -> Vec<f32> {
    let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    list.iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn format_of(name: &str) -> Format {
    if name.ends_with(".parquet") { Format::Parquet } else { Format::Arrow }
}

#[test]
fn files_of_the_library_hold_what_it_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/formats/arrow");
    let Ok(expected) = std::fs::read_to_string(format!("{folder}/rows.jsonl")) else {
        println!("skipped: ../shared/data/formats/arrow is absent");
        return;
    };
    let expected: Vec<Value> = expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let files = ["table.arrow", "table_lz4.arrow", "table_stream.arrows"].into_iter();
    for name in files.chain(["table_plain.parquet", "table_snappy.parquet", "table_zstd_v2.parquet"]) {
        let bytes = std::fs::read(format!("{folder}/{name}")).unwrap();
        let (layout, beside) = open(&bytes, format_of(name), None);
        assert_eq!(layout, Layout::Table { rows: 1000, columns: 13 }, "{name}");
        for (row, (mut found, mut expected)) in rows(&beside).into_iter().zip(expected.clone()).enumerate() {
            // Given as bits: JSON has no NaN.
            let score = expected["score"].take();
            let score = score.as_str().map(|bits| f64::from_bits(u64::from_str_radix(bits, 16).unwrap()));
            assert_eq!(found["score"].take(), json!(score.filter(|score| score.is_finite())), "{name} {row}");
            // They are f32, and the parser of the test may miss the last bit of what is written as f64.
            for (name, value) in [("weight", found["weight"].take()), ("vec", found["vec"].take())] {
                assert_eq!(as_f32(&value), as_f32(&expected[name].take()), "{name} {row}");
            }
            assert_eq!(found, expected, "{name} {row}");
        }
        let (layout, beside) = open(&bytes, format_of(name), Some("vec"));
        let Layout::Column(array) = layout else { panic!("{name}: {layout:?}") };
        assert_eq!((array.dtype, &array.shape[..]), (Dtype::F32, &[1000, 8][..]), "{name}");
        let last: Vec<f64> = beside[array.offset as usize..][..1000 * 8 * 4]
            .as_chunks()
            .0
            .iter()
            .map(|x| f64::from(f32::from_le_bytes(*x)))
            .collect();
        assert_eq!(as_f32(&json!(last[8 * 999..])), as_f32(&expected[999]["vec"]), "{name}");
    }
}

fn batch(from: i32) -> RecordBatch {
    let vectors: Vec<Option<Vec<Option<f32>>>> =
        (from..from + 3).map(|i| Some(vec![Some(i as f32), Some(0.5)])).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("n", Arc::new(Int32Array::from_iter_values(from..from + 3))),
        ("gaps", Arc::new(UInt8Array::from(vec![Some(1), None, Some(3)]))),
        ("text", Arc::new(StringArray::from(vec!["a", "", "\u{e9}"]))),
        ("vec", Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors.clone(), 2))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn arrow(batches: &[RecordBatch], compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new_with_options(&mut bytes, &batches[0].schema(), options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn parquet(batches: &[RecordBatch]) -> Vec<u8> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(19).unwrap());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn batches_become_one_column() {
    let batches = [batch(0), batch(3)];
    let expected = |n: i32| {
        let (gap, text) = [(json!(1), "a"), (Value::Null, ""), (json!(3), "\u{e9}")][n as usize % 3].clone();
        json!({ "n": n, "gaps": gap, "text": text, "vec": [n as f32, 0.5], "list": [n as f32, 0.5] })
    };
    for (bytes, format) in [
        (arrow(&batches, None), Format::Arrow),
        (arrow(&batches, Some(CompressionType::LZ4_FRAME)), Format::Arrow),
        (arrow(&batches, Some(CompressionType::ZSTD)), Format::Arrow),
        (stream(&batches), Format::Arrow),
        (parquet(&batches), Format::Parquet),
    ] {
        let (layout, beside) = open(&bytes, format, None);
        assert_eq!(layout, Layout::Table { rows: 6, columns: 5 });
        assert_eq!(rows(&beside), (0..6).map(expected).collect::<Vec<_>>());
        for part in ["vec", "list"] {
            let Layout::Column(array) = open(&bytes, format, Some(part)).0 else { panic!("{part}") };
            assert_eq!(array.matrix().map(|shape| (shape.rows, shape.cols)), Some((6, 2)));
        }
        let refusal = |part| read_within(&bytes, format, Some(part), PLENTY).unwrap_err().to_string();
        assert!(refusal("gaps").starts_with("column \"gaps\" is not made of numbers"));
        assert!(refusal("text").starts_with("column \"text\" is not made of numbers"));
        assert!(refusal("no").starts_with("it has no column \"no\"; it has \"n\", \"gaps\""));
    }
}

#[test]
fn a_column_in_one_piece_stays_in_the_file() {
    let batches = [batch(0)];
    for bytes in [arrow(&batches, None), stream(&batches)] {
        let (layout, beside) = open(&bytes, Format::Arrow, Some("vec"));
        let Layout::Tensor(array) = layout else { panic!("{layout:?}") };
        assert!(beside.is_empty());
        assert_eq!(array.shape, [3, 2]);
        let elements = &bytes[array.offset as usize..][..24];
        let expected = batches[0].column(3).as_fixed_size_list().values().to_data();
        assert_eq!(elements, expected.buffers()[0].as_slice());
    }
}

#[test]
fn a_table_that_grows_beyond_the_limit_is_refused() {
    const ROWS: usize = 1 << 20;
    let nothing: ArrayRef = Arc::new(Int32Array::from(vec![0; ROWS]));
    let same: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n("x".repeat(64), ROWS)));
    for column in [nothing, same] {
        let batches = [RecordBatch::try_from_iter([("x", column)]).unwrap()];
        for (bytes, format) in [
            (arrow(&batches, Some(CompressionType::ZSTD)), Format::Arrow),
            (parquet(&batches), Format::Parquet),
        ] {
            assert!(bytes.len() < 3 << 20, "a small file: {}", bytes.len());
            let refused = read_within(&bytes, format, None, 3 << 20);
            assert!(matches!(refused, Err(ArtifactError::TooLarge { .. })), "{refused:?}");
            assert!(read_within(&bytes, format, None, PLENTY).is_ok());
        }
    }
}

#[test]
fn what_is_no_table_is_refused() {
    let refusal = |bytes: &[u8], format| read_within(bytes, format, None, PLENTY).unwrap_err().to_string();
    for bytes in [&b"PAR1"[..], b"PAR1\0\0\0\0PAR1", b"\0", &[0xff; 100]] {
        let why = refusal(bytes, Format::Parquet);
        assert!(why.starts_with("not usable as parquet: "), "{why}");
    }
    for bytes in [&b"ARROW1\0\0"[..], b"\0", b"PK\x03\x04----------", &[0xff; 100], b"FEA1----"] {
        let why = refusal(bytes, Format::Arrow);
        assert!(why.starts_with("not usable as arrow: "), "{why}");
    }
    let whole = arrow(&[batch(0)], None);
    assert!(
        refusal(&whole[..whole.len() / 2], Format::Arrow).starts_with("not usable as arrow: the message")
    );
    let whole = parquet(&[batch(0)]);
    assert!(refusal(&whole[..whole.len() - 1], Format::Parquet).starts_with("not usable as parquet: "));
    let directory = File::open(std::env::temp_dir()).unwrap();
    let reading = Reading { format: Format::Arrow, part: None, key: "", limit_bytes: PLENTY };
    assert!(matches!(read(&directory, 9, &reading, &mut Vec::new()), Err(ArtifactError::Directory)));
}
