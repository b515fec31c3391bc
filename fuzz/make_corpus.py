"""Writes the corpus of the readers of artifacts, a few small files for each, with the formats' own libraries:

    pip install numpy safetensors pyarrow faiss-cpu ml_dtypes usearch; python make_corpus.py

The other targets have what was written by hand, the examples of docs/manifest.md and the stores in tests/fixtures.
"""

import json
import os
from pathlib import Path

import faiss
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from usearch.index import Index

os.chdir(Path(__file__).parent / "corpus")
for name in ["npy", "jsonl", "json", "safetensors", "faiss", "arrow", "parquet", "usearch"]:
    Path(name).mkdir(exist_ok=True)

x = np.arange(12, dtype="f4").reshape(4, 3)
np.save("npy/f32.npy", x)
np.save("npy/bool.npy", x[:, 0] > 5)
with open("npy/i16-v3.npy", "wb") as file:
    np.lib.format.write_array(file, x.astype("<i2"), version=(3, 0))

records = [{"id": "a", "x": [1, {"id": "no"}]}, {"id": 7, "y": "\n\u00e9\""}, {"z": None}]
Path("jsonl/records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
Path("json/list.json").write_text(json.dumps(records, indent=1))
Path("json/wrapped.json").write_text(json.dumps({"version": 1, "x": records}))
Path("json/object.json").write_text(json.dumps({"x": {"a": "}"}, "k\\\"": 1, "\u00e9": []}, ensure_ascii=False))

save_file({"x": x, "bits": x.astype(ml_dtypes.bfloat16), "none": x[:0]}, "safetensors/three.safetensors", {"by": "us"})
save_file({"x": x}, "safetensors/one.safetensors")

for name, index in [("ip", faiss.IndexFlatIP(3)), ("l2", faiss.IndexFlatL2(3))]:
    index.add(x)
    faiss.write_index(index, f"faiss/{name}.faiss")

table = pa.table({
    "x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 3),
    "text": pa.array(["a", None, "", "\u00e9"]),
    "coded": pa.array(["a", "b", "a", None]).dictionary_encode(),
    "lists": pa.array([[1, 2], None, [], [3]], pa.list_(pa.int16())),
    "point": pa.array([{"x": 1, "y": "b"}, None, {"x": 2, "y": None}, {"x": 3, "y": ""}]),
    "flag": pa.array([True, None, False, True]),
    "when": pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC")),
})
for name, codec in [("plain", None), ("lz4", "lz4"), ("zstd", "zstd")]:
    with pa.ipc.new_file(f"arrow/{name}.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        for batch in table.to_batches(max_chunksize=3):
            writer.write_batch(batch)
with pa.ipc.new_stream("arrow/stream.arrows", table.schema) as writer:
    writer.write_table(table)
pq.write_table(table, "parquet/plain.parquet", compression="none", use_dictionary=False, store_schema=False)
pq.write_table(table, "parquet/snappy.parquet", row_group_size=3)
pq.write_table(table, "parquet/zstd-v2.parquet", compression="zstd", data_page_version="2.0", write_statistics=False)

for name, metric in [("f16", "cos"), ("f32", "l2sq")]:
    index = Index(ndim=4, metric=metric, dtype=name, connectivity=4)
    index.add(np.arange(20, dtype="u8"), np.random.default_rng(7).standard_normal((20, 4)).astype("f4"))
    index.save(f"usearch/{name}.usearch")
