//! What every layout must do, and a random life of each beside a map that does the same.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use forkyard_shared::blob;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::sink::{Body, Sink};
use forkyard_shared::value::{INLINE_MAX_BYTES, Kind};
use proptest::prelude::*;

use super::backend::{Backend, NewResult, NewValue};
use super::census::Census;
use super::dir::StoreDir;
use super::format::Layout;
use super::lock::Lock;
use super::reader::Reader;
use super::record::Place;
use super::verify::verify;

/// A store of one layout, held open for changes.
struct Store {
    dir: StoreDir,
    layout: Layout,
    backend: Box<dyn Backend>,
    _lock: Lock,
    _temporary: tempfile::TempDir,
}

impl Store {
    fn new(layout: Layout) -> Store {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StoreDir::new(&temporary.path().join("store"));
        let (lock, made) = dir.prepare(layout).unwrap();
        assert_eq!(made, layout);
        let backend = dir.open(layout).unwrap();
        Store { dir, layout, backend, _lock: lock, _temporary: temporary }
    }

    fn reopen(&mut self) {
        self.backend = self.dir.open(self.layout).unwrap();
    }

    /// A result as a run hands it over: a large value is in a file already.
    fn result(&self, key: u32, bytes: &[u8]) -> NewResult {
        let digest = Digest::of(bytes);
        let value = if bytes.len() > INLINE_MAX_BYTES {
            let may_pack = self.layout != Layout::Sqlite;
            let mut sink = Sink::new(&self.dir.tmp_dir(), "t", INLINE_MAX_BYTES, may_pack);
            sink.write_all(bytes).unwrap();
            let Body::File { name, packed, len, .. } = sink.finish().unwrap() else { panic!("it is large") };
            let blobs = self.dir.worker_blobs_dir(self.layout);
            blob::adopt(&blobs, &self.dir.tmp_dir().join(name), digest, packed).unwrap();
            NewValue::File { len }
        } else {
            NewValue::Bytes(bytes.to_vec())
        };
        let (node, duration) = (NodeId(key), Duration::from_millis(3));
        NewResult {
            node,
            key: key_of(key),
            kind: Kind::Bytes,
            digest,
            value,
            duration,
            artifacts: Vec::new(),
            wanted: false,
            extra: Vec::new(),
        }
    }

    fn put(&mut self, values: &[(u32, Vec<u8>)], run: u64) {
        let results: Vec<NewResult> = values.iter().map(|(key, bytes)| self.result(*key, bytes)).collect();
        let records = self.backend.commit(&results, run).unwrap();
        assert_eq!(records.len(), results.len());
    }

    fn fold(&mut self) {
        while self.backend.fold(&AtomicBool::new(false)).unwrap() {}
    }

    /// What a reader finds under these keys, whether it learns the store or asks for each.
    fn read(&self, keys: impl Iterator<Item = u32> + Clone) -> BTreeMap<u32, Vec<u8>> {
        let found = [0, u64::MAX].map(|most| {
            let reader = Reader::look(&self.dir, most).unwrap();
            let records = keys.clone().filter_map(|key| Some((key, reader.lookup(key_of(key))?)));
            let values = records.map(|(key, record)| {
                let bytes = reader.read(&record).unwrap();
                assert_eq!((record.len, record.digest), (bytes.len() as u64, Digest::of(&bytes)));
                let mut written = Vec::new();
                reader.write_to(&record, &mut written).unwrap();
                assert!(written == bytes);
                (key, bytes)
            });
            values.collect::<BTreeMap<_, _>>()
        });
        assert!(found[0] == found[1], "learning changes what is found");
        let [found, _] = found;
        found
    }

    fn census(&self) -> Census {
        Census::take(&Reader::look(&self.dir, 0).unwrap()).unwrap()
    }

    /// Removes the values that no result names.
    fn sweep(&mut self) {
        let live: Vec<(i64, u64)> = self
            .census()
            .results
            .values()
            .filter_map(
                |record| if let Place::Row(first) = record.place { Some((first, record.len)) } else { None },
            )
            .collect();
        self.backend.sweep(&live).unwrap();
    }
}

fn key_of(key: u32) -> Digest {
    Digest::of(&key.to_le_bytes())
}

/// Bytes that cannot be packed, or can.
fn bytes(seed: u32, len: usize, packs: bool) -> Vec<u8> {
    let block = |n: u32| {
        if packs {
            Digest::of(&seed.to_le_bytes())
        } else {
            Digest::of(&[seed, n].map(u32::to_le_bytes).concat())
        }
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(32) as u32).flat_map(|n| block(n).0).collect();
    bytes.truncate(len);
    bytes
}

/// Lengths around every limit of every layout.
const LENGTHS: [usize; 12] = [
    0,
    1,
    256,
    257,
    3 << 10,
    (3 << 10) + 1,
    20_000,
    INLINE_MAX_BYTES,
    INLINE_MAX_BYTES + 1,
    200_000,
    1 << 20,
    (2 << 20) + 12_345,
];

#[test]
fn values_of_every_size_come_back_after_everything() {
    for layout in Layout::ALL {
        let mut store = Store::new(layout);
        let sizes = LENGTHS.iter().enumerate();
        let values: Vec<(u32, Vec<u8>)> = sizes
            .flat_map(|(n, len)| {
                [false, true].map(|packs| (2 * n as u32 + u32::from(packs), bytes(n as u32, *len, packs)))
            })
            .collect();
        let expected: BTreeMap<u32, Vec<u8>> = values.iter().cloned().collect();
        store.put(&values, 1);
        assert!(store.read(0..30) == expected, "{layout:?}");
        store.fold();
        assert!(store.read(0..30) == expected, "{layout:?}, folded");
        store.sweep();
        store.reopen();
        assert!(store.read(0..30) == expected, "{layout:?}, swept and opened again");
        let verified = verify(&store.dir).unwrap();
        assert_eq!((verified.results, verified.damaged.len()), (24, 0), "{layout:?}");
    }
}

#[test]
fn the_last_result_of_a_key_counts() {
    for layout in Layout::ALL {
        let mut store = Store::new(layout);
        for (run, len) in [(1, 10), (2, 5_000), (3, 100_000), (4, 20)] {
            store.put(&[(7, bytes(run, len, false))], u64::from(run));
            if run == 2 {
                store.fold();
            }
            assert!(store.read(7..8)[&7] == bytes(run, len, false), "{layout:?}, run {run}");
            assert_eq!(store.census().results[&key_of(7)].run, u64::from(run), "{layout:?}");
        }
        store.fold();
        assert!(store.read(7..8)[&7] == bytes(4, 20, false), "{layout:?}");
    }
}

#[test]
fn equal_values_are_stored_once() {
    for layout in Layout::ALL {
        let mut store = Store::new(layout);
        let disk = |store: &Store| {
            let mut sizes = vec![store.dir.path.clone()];
            let mut total = 0;
            while let Some(path) = sizes.pop() {
                match std::fs::read_dir(&path) {
                    Ok(entries) => sizes.extend(entries.map(|entry| entry.unwrap().path())),
                    Err(_) => total += path.metadata().unwrap().len(),
                }
            }
            total
        };
        let value = bytes(1, 300_000, false);
        store.put(&[(0, value.clone())], 1);
        let one = disk(&store);
        store.fold();
        store.reopen();
        store.put(&(1..20).map(|key| (key, value.clone())).collect::<Vec<_>>(), 2);
        assert!(disk(&store) < one + 300_000, "{layout:?}: {one}, then {}", disk(&store));
        assert_eq!(store.read(0..20).len(), 20);
    }
}

#[test]
fn a_fold_that_is_stopped_changes_nothing_and_can_be_finished() {
    for layout in Layout::ALL {
        let mut store = Store::new(layout);
        let values: Vec<(u32, Vec<u8>)> = (0..3000).map(|key| (key, bytes(key, 300, false))).collect();
        store.put(&values, 1);
        let stop = AtomicBool::new(true);
        for _ in 0..3 {
            if store.backend.fold(&stop).is_err() {
                assert!(stop.load(Relaxed));
            }
            assert_eq!(store.census().results.len(), 3000, "{layout:?}");
        }
        store.reopen();
        store.fold();
        assert!(store.read(0..3000) == values.into_iter().collect(), "{layout:?}");
    }
}

#[test]
fn what_is_forgotten_is_gone_and_its_rows_with_it() {
    for layout in Layout::ALL {
        let mut store = Store::new(layout);
        for run in 0..4u32 {
            let values: Vec<(u32, Vec<u8>)> =
                (0..50).map(|n| (50 * run + n, bytes(50 * run + n, 2_000, false))).collect();
            store.put(&values, u64::from(run));
            if run == 1 {
                store.fold();
            }
        }
        let gone: Vec<Digest> = (0..150).map(key_of).collect();
        store.backend.forget(&gone).unwrap();
        store.sweep();
        let left = store.read(0..200);
        assert_eq!(left.keys().copied().collect::<Vec<_>>(), (150..200).collect::<Vec<_>>(), "{layout:?}");
        // Room that was given back is used again.
        store.put(&[(0, bytes(0, 2_000, false))], 9);
        store.fold();
        assert!(store.read(0..1)[&0] == bytes(0, 2_000, false), "{layout:?}");
    }
}

#[test]
fn damage_is_found_named_and_taken_out_of_use() {
    for layout in Layout::ALL {
        for len in [100, 10_000, 100_000] {
            let mut store = Store::new(layout);
            let values: Vec<(u32, Vec<u8>)> = (0..5).map(|key| (key, bytes(key, len, false))).collect();
            store.put(&values, 1);
            store.fold();
            damage(&store, len);
            let verified = verify(&store.dir).unwrap();
            assert_eq!(verified.damaged.len(), 1, "{layout:?}, {len}: {:?}", verified.damaged);
            store.reopen();
            assert_eq!(store.read(0..5).len(), 4, "{layout:?}, {len}");
            assert_eq!(verify(&store.dir).unwrap().damaged.len(), 0);
            store.put(&values, 2);
            assert!(store.read(0..5) == values.into_iter().collect(), "{layout:?}, {len}: computed again");
        }
    }
}

/// Flips a bit of one value, wherever it is.
fn damage(store: &Store, len: usize) {
    let record = store.census().results[&key_of(3)].clone();
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    };
    let in_file = |path: std::path::PathBuf| {
        let mut bytes = std::fs::read(&path).unwrap();
        flip(&mut bytes);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    };
    let database = || rusqlite::Connection::open(store.dir.database_path()).unwrap();
    let in_database = |table: &str, column: &str, key: &dyn rusqlite::ToSql, by: &str| {
        let database = database();
        let select = format!("SELECT {column} FROM {table} WHERE {by} = ?1");
        let mut bytes: Vec<u8> = database.query_row(&select, [key], |row| row.get(0)).unwrap();
        flip(&mut bytes);
        let update = format!("UPDATE {table} SET {column} = ?1 WHERE {by} = ?2");
        assert_eq!(database.execute(&update, rusqlite::params![bytes, key]).unwrap(), 1);
    };
    match (&record.place, store.layout) {
        (Place::File, _) => in_file(blob::blob_path(&store.dir.blobs_dir(), record.digest)),
        (Place::Row(row), _) => in_database("blobs", "bytes", row, "id"),
        (Place::Inline(_), Layout::Filesystem) => {
            assert_eq!(record.len, len as u64);
            let hex = key_of(3).to_hex();
            in_file(store.dir.results_dir().join(&hex[..2]).join(hex));
        }
        (Place::Inline(_), _) => in_database("results", "record", &key_of(3).0, "key"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(u32, u32, usize, bool)>),
    Fold,
    StoppedFold,
    Reopen,
    Forget(Vec<u32>),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 0..400usize, 2 => 400..9_000usize, 1 => 30_000..60_000usize];
    prop_oneof![
        4 => prop::collection::vec((0..12u32, 0..6u32, length, any::<bool>()), 1..6).prop_map(Step::Put),
        1 => Just(Step::Fold),
        1 => Just(Step::StoppedFold),
        1 => Just(Step::Reopen),
        1 => prop::collection::vec(0..12u32, 0..4).prop_map(Step::Forget),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_store_is_a_map(
        layout in prop::sample::select(Layout::ALL.to_vec()),
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let mut store = Store::new(layout);
        let mut map: HashMap<u32, Vec<u8>> = HashMap::new();
        for (run, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(values) => {
                    let values: Vec<(u32, Vec<u8>)> = values
                        .into_iter()
                        .map(|(key, seed, len, packs)| (key, bytes(seed, len, packs)))
                        .collect();
                    store.put(&values, run as u64);
                    map.extend(values);
                }
                Step::Fold => store.fold(),
                Step::StoppedFold => drop(store.backend.fold(&AtomicBool::new(true))),
                Step::Reopen => store.reopen(),
                Step::Forget(keys) => {
                    let digests: Vec<Digest> = keys.iter().copied().map(key_of).collect();
                    store.backend.forget(&digests).unwrap();
                    keys.iter().for_each(|key| drop(map.remove(key)));
                }
                Step::Sweep => store.sweep(),
            }
            let found: HashMap<u32, Vec<u8>> = store.read(0..12).into_iter().collect();
            prop_assert!(found == map, "{layout:?}");
        }
        prop_assert!(verify(&store.dir).unwrap().damaged.is_empty());
    }
}
