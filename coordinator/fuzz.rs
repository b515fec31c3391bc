//! An entry for each thing that others may have written and the coordinator reads: manifests, expressions, what workers say,
//! the files of a store, a context. Whatever the bytes are, none may panic, hang, or take memory without bound; and what is
//! read must come out as it went in. Readers of artifacts have theirs in `forkyard_shared::fuzz`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use forkyard_shared::blob::{blob_path, packed_path};
use forkyard_shared::digest::Digest;
use forkyard_worker::Ops;

use crate::context_file;
use crate::engine::model_tests;
use crate::expr::{self, Expression, Scope};
use crate::fields::KeyFields;
use crate::manifest;
use crate::store::{self, JournalEntry, Layout, Reader, Record, StoreDir};

static OPS: LazyLock<Ops> = LazyLock::new(Ops::standard);

/// A place for the files of one target.
fn place(target: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let dir = dir.join(format!("forkyard-fuzz-{target}-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("room for a directory");
    dir
}

fn file(target: &str, name: &str, bytes: &[u8]) -> PathBuf {
    let path = place(target).join(name);
    fs::write(&path, bytes).expect("room for a file");
    path
}

/// A manifest in TOML.
pub fn toml(bytes: &[u8]) {
    manifest(&file("toml", "m.toml", bytes));
}

/// A manifest of a node a line.
pub fn json_lines(bytes: &[u8]) {
    manifest(&file("json_lines", "m.jsonl", bytes));
}

fn manifest(path: &Path) {
    let loaded = manifest::load(path, None, &OPS, &BTreeMap::new());
    match loaded {
        Ok(plan) => assert!((0..plan.len()).all(|node| !plan.ops.is_empty() && node < plan.ops.len())),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
    Expression::forget_all();
}

/// A text with expressions in it: as a value, as a condition, as a list.
pub fn expression(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let (true, Ok(expression)) = (expr::has_expression(text), Expression::compile(text)) {
        let mut scope = Scope::default();
        for (name, json) in [("k", "3"), ("words", r#"["a","b"]"#), ("deep", r#"{"a":{"b":[1,null]}}"#)] {
            scope.var(name, json.as_bytes()).expect("it is JSON");
        }
        scope.result("a-1", br#"{"ids":[7,8],"scores":[0.5,0.25],"text":"\u00e9x"}"#).expect("it is JSON");
        scope.outcome("a-1", "failed");
        scope.set("item", br#"{"x":1}"#).expect("it is JSON");
        scope.index(5);
        if let Ok(json) = expression.json(&scope) {
            serde_json::from_str::<serde_json::Value>(&json).expect("a value is JSON");
        }
        expression.is_true(&scope).ok();
        if let Ok(items) = expression.items(&scope) {
            (0..items.len().min(3)).for_each(|at| drop(items.get(at)));
        }
    }
    Expression::forget_all();
}

/// What workers say while a run goes on.
pub fn protocol(bytes: &[u8]) {
    model_tests::liar::lie(&place("protocol"), bytes);
}

/// The journal of a run, and what its keys were made of: a file as it is, and its bytes in a sound frame.
pub fn journal(bytes: &[u8]) {
    let framed = {
        let check = &Digest::of(bytes).0[..8];
        [&(bytes.len() as u32).to_le_bytes(), check, bytes].concat()
    };
    for bytes in [bytes, &framed] {
        let path = file("journal", "journal", bytes);
        store::read_journal(&path, |entry: JournalEntry| assert!(entry.node.len() <= bytes.len()))
            .expect("a file");
        store::read_fields(&path, |fields: KeyFields| drop(fields));
    }
}

/// A stored result: as the file of a store, and with a check that it passes.
pub fn result(bytes: &[u8]) {
    let key = Digest::of(b"key");
    let dir = StoreDir::new(&place("result").join("store"));
    if dir.layout().is_err() {
        drop(dir.prepare(Layout::Filesystem).expect("room for a store"));
    }
    let hex = key.to_hex();
    let path = dir.results_dir().join(&hex[..2]).join(&hex);
    fs::create_dir_all(path.parent().expect("it has one")).expect("room for a directory");
    for bytes in [bytes.to_vec(), Record::sealed(key, bytes)] {
        fs::write(&path, &bytes).expect("room for a file");
        if let Some(record) = Record::decode(key, &bytes) {
            assert_eq!(Record::decode(key, &record.encode(key)).as_ref(), Some(&record));
            store::Extra::decode(&record.extra);
        }
        let reader = Reader::look(&dir, 0).expect("a store");
        if let Some(record) = reader.lookup(key) {
            reader.read(&record).ok();
            reader.lend(&record).ok();
        }
    }
}

/// The database of a store.
pub fn database(bytes: &[u8]) {
    let dir = StoreDir::new(&place("database").join("store"));
    fs::remove_dir_all(&dir.path).ok();
    drop(dir.prepare(Layout::Sqlite).expect("room for a store"));
    for beside in ["-wal", "-shm"] {
        fs::remove_file(dir.path.join(format!("store.db{beside}"))).ok();
    }
    fs::write(dir.database_path(), bytes).expect("room for a database");
    if let Ok(reader) = Reader::look(&dir, u64::MAX)
        && let Ok(census) = store::Census::take(&reader)
    {
        for record in census.results.values() {
            reader.read(record).ok();
        }
    }
    if let Ok((_lock, _)) = dir.prepare(Layout::Sqlite) {
        store::verify(&dir).ok();
    }
}

/// A large value, plain and packed.
pub fn blob(bytes: &[u8]) {
    let dir = place("blob");
    let (blobs, tmp, digest) = (dir.join("blobs"), dir.join("tmp"), Digest::of(bytes));
    for path in [blob_path(&blobs, digest), packed_path(&blobs, digest)] {
        for dir in [path.parent().expect("it has one"), &tmp] {
            fs::create_dir_all(dir).expect("room for a directory");
        }
        fs::write(&path, bytes).expect("room for a blob");
        forkyard_shared::blob::check(&blobs, digest).ok();
        let is_plain = path == blob_path(&blobs, digest);
        let read = forkyard_shared::blob::read(&blobs, digest);
        assert_eq!(read.is_ok_and(|read| read == bytes), is_plain);
        assert_eq!(forkyard_shared::blob::plain(&blobs, &tmp, digest).is_ok(), is_plain);
        fs::remove_dir_all(&blobs).expect("it was made");
    }
}

/// A context that another run has exported.
pub fn context(bytes: &[u8]) {
    let Ok(vars) = context_file::read(&file("context", "context.json", bytes)) else { return };
    let vars: context_file::Vars = vars.into_iter().map(|(name, json)| (name, json.into_bytes())).collect();
    let again = context_file::write(&vars).expect("what was read is JSON");
    let again = context_file::read(&file("context", "again.json", &again)).expect("what was written is read");
    let again: context_file::Vars = again.into_iter().map(|(name, json)| (name, json.into_bytes())).collect();
    assert_eq!(again, vars);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use forkyard_shared::fuzz::{corpus, run};

    use super::place;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The examples of the reference in this language.
    fn examples(language: &str) -> Vec<Vec<u8>> {
        let text = fs::read_to_string(root().join("docs/manifest.md")).expect("the reference");
        let fence = format!("```{language}\n");
        let blocks = text.split(fence.as_str()).skip(1);
        let blocks: Vec<_> =
            blocks.filter_map(|rest| Some(rest.split_once("```")?.0.as_bytes().to_vec())).collect();
        assert!(!blocks.is_empty());
        blocks
    }

    /// Files of stores as a version wrote them that every later one reads, by what is in their path.
    fn stored(part: &str) -> Vec<Vec<u8>> {
        let (mut dirs, mut files) = (vec![root().join("tests/fixtures/store-1")], Vec::<PathBuf>::new());
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("a fixture").flatten() {
                if entry.path().is_dir() { &mut dirs } else { &mut files }.push(entry.path());
            }
        }
        files.retain(|file| file.to_string_lossy().contains(part));
        files.sort();
        assert!(!files.is_empty());
        files.iter().map(|file| fs::read(file).expect("a fixture")).collect()
    }

    /// A target and what it leaves.
    fn target(name: &str, corpus: &[Vec<u8>], rounds: u64, target: fn(&[u8])) {
        run(name, corpus, rounds, target);
        fs::remove_dir_all(place(name)).ok();
    }

    #[test]
    fn toml() {
        target("toml", &[corpus("toml"), examples("toml")].concat(), 15, super::toml);
    }

    #[test]
    fn json_lines() {
        target("json_lines", &[corpus("json_lines"), examples("jsonl")].concat(), 100, super::json_lines);
    }

    #[test]
    fn expression() {
        target("expression", &corpus("expression"), 50, super::expression);
    }

    #[test]
    fn protocol() {
        target("protocol", &corpus("protocol"), 4, super::protocol);
    }

    #[test]
    fn journal() {
        let mut journals = stored("/journal");
        // Without their frame, they get one that passes its check.
        journals.extend(journals.clone().iter().map(|journal| journal[12..].to_vec()));
        target("journal", &journals, 50, super::journal);
    }

    #[test]
    fn result() {
        let mut results = stored("/results/");
        results.extend(results.clone().iter().map(|result| result[..result.len() - 8].to_vec()));
        target("result", &results, 50, super::result);
    }

    #[test]
    fn database() {
        target("database", &[stored("store.db"), vec![Vec::new()]].concat(), 1000, super::database);
    }

    #[test]
    fn blob() {
        target("blob", &[stored("/blobs/"), vec![Vec::new()]].concat(), 1000, super::blob);
    }

    #[test]
    fn context() {
        target("context", &corpus("context"), 300, super::context);
    }
}
