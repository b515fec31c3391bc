//! An index that the library usearch wrote: read and judged once, with `pread` alone, and a view of it in place.
//!
//! The file is the matrix of vectors (its rows and the bytes of one, then the rows), a head of 64 bytes, a head of the graph of
//! 40 bytes, the level of each node, and the nodes one after the other. A node is its key, its level, and for each level from 0 up
//! a list of neighbours, in a place that is as long as the longest may be. Nodes differ in length, so a table says
//! where each starts; it says the nodes' order by key too.
//!
//! Everything that a search follows is judged before anything runs: lengths, levels, neighbours. The
//! file may change later, so a view looks again at each step: what is wrong then is an answer that is thrown away.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{ArtifactError, Dtype, Format, Shape};
use crate::scan::Metric;

const HEAD_BYTES: usize = 64;
const GRAPH_BYTES: usize = 40;
/// A key and a level.
const NODE_HEAD_BYTES: usize = 10;
const SLOT_BYTES: usize = 4;
const MAGIC: &[u8] = b"usearch";
/// The key of what was removed.
const FREE: u64 = u64::MAX;
/// Names of the types of numbers, as the library counts them.
const F32: u8 = 11;
const F16: u8 = 12;
const U64: u8 = 14;
const U32: u8 = 15;

/// What is known of an index, beside its table.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct UsearchLayout {
    /// Its vectors, in the order in which they were added.
    pub vectors: Shape,
    /// How they are compared.
    pub metric: Metric,
    /// How many of them were removed, and are never found.
    pub removed: u64,
    /// Neighbours of a node, at most, on levels above 0.
    pub connectivity: u64,
    /// The same on level 0.
    pub connectivity_base: u64,
    /// The highest level.
    pub max_level: u16,
    /// The node where a search begins.
    pub entry: u32,
    /// The version that wrote it.
    pub version: [u16; 3],
}

impl UsearchLayout {
    fn list_bytes(&self, level: usize) -> usize {
        let longest = if level == 0 { self.connectivity_base } else { self.connectivity };
        (1 + longest as usize) * SLOT_BYTES
    }

    fn node_bytes(&self, level: u16) -> usize {
        NODE_HEAD_BYTES + self.list_bytes(0) + usize::from(level) * self.list_bytes(1)
    }
}

fn wrong(why: impl Into<String>) -> ArtifactError {
    ArtifactError::Unreadable { format: Format::Usearch, reason: why.into() }
}

/// Reads in order, and says what was missing.
struct Source<'a> {
    file: &'a File,
    len: u64,
    at: u64,
}

impl Source<'_> {
    fn take<const BYTES: usize>(&mut self, what: &str) -> Result<[u8; BYTES], ArtifactError> {
        let mut bytes = [0; BYTES];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<(), ArtifactError> {
        if (self.len - self.at) < bytes.len() as u64 {
            return Err(wrong(format!(
                "the file is cut short: {what} should be at byte {}, but it has {} bytes; copy or save it again",
                self.at, self.len
            )));
        }
        self.file.read_exact_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// The layout of the index in `file`, which is `len` bytes long, and its table: where each node starts, then the
/// nodes by key.
pub fn read_usearch(file: &File, len: u64) -> Result<(Vec<u8>, UsearchLayout), ArtifactError> {
    if len == 0 {
        return Err(ArtifactError::Empty);
    }
    let mut source = Source { file, len, at: 0 };
    let matrix: [u8; 8] = source.take("the size of the matrix")?;
    let (rows, row_bytes) = (u64::from(u32_at(&matrix, 0)), u64::from(u32_at(&matrix, 4)));
    let not_usearch = || {
        wrong(
            "not a usearch index with its vectors in it (no head follows a matrix at its start); write it with index.save(path)",
        )
    };
    let head_at = (rows * row_bytes).checked_add(8).filter(|at| *at + HEAD_BYTES as u64 <= len);
    source.at = head_at.ok_or_else(not_usearch)?;
    let head: [u8; HEAD_BYTES] = source.take("the head")?;
    if !head.starts_with(MAGIC) {
        return Err(not_usearch());
    }
    let version = [u16_at(&head, 7), u16_at(&head, 9), u16_at(&head, 11)];
    if version[0] != 2 {
        return Err(wrong(format!(
            "usearch version {} is unknown; files of version 2 can be read",
            version[0]
        )));
    }
    let metric = match head[13] {
        b'c' => Metric::Cosine,
        b'i' => Metric::Dot,
        b'e' => Metric::L2,
        other => {
            return Err(wrong(format!(
                "it is of the metric {:?}; only cos, ip and l2sq can be searched",
                char::from(other)
            )));
        }
    };
    let dtype = match head[14] {
        F32 => Dtype::F32,
        F16 => Dtype::F16,
        other => {
            return Err(wrong(format!(
                "its vectors are of the type {other} of usearch; only f32 and f16 can be searched: build it with dtype='f16'"
            )));
        }
    };
    if head[15] != U64 || head[16] != U32 {
        return Err(wrong(
            "its keys are not numbers of 64 bits, or its nodes not of 32; save it with usearch's index.Index",
        ));
    }
    let (removed, cols) = (u64_at(&head, 25), u64_at(&head, 33));
    if rows == 0 || cols == 0 {
        return Err(wrong("the index is empty"));
    }
    if cols.checked_mul(dtype.size_bytes()) != Some(row_bytes) {
        return Err(wrong(format!(
            "its head contradicts itself: vectors of {cols} dimensions of {} do not take {row_bytes} bytes",
            dtype.name()
        )));
    }
    let graph: [u8; GRAPH_BYTES] = source.take("the head of the graph")?;
    let [nodes, connectivity, connectivity_base, max_level, entry] =
        [0, 8, 16, 24, 32].map(|at| u64_at(&graph, at));
    if nodes != rows {
        return Err(wrong(format!("its graph has {nodes} nodes, but it has {rows} vectors")));
    }
    let limits =
        [(connectivity, 1 << 16), (connectivity_base, 1 << 17), (max_level, 1 << 15), (entry, nodes)];
    if limits.iter().any(|(value, limit)| value >= limit) {
        return Err(wrong(format!(
            "the head of its graph is damaged: connectivity {connectivity} and {connectivity_base}, level {max_level}, entry {entry}"
        )));
    }
    let vectors = Shape { dtype, rows, cols, one_dimensional: false, offset: 8 };
    let (max_level, entry) = (max_level as u16, entry as u32);
    let layout = UsearchLayout {
        vectors,
        metric,
        removed,
        connectivity,
        connectivity_base,
        max_level,
        entry,
        version,
    };
    let table = read_nodes(&mut source, &layout)?;
    if source.at != len {
        return Err(wrong(format!("the file is longer than its graph: {} bytes, not {}", len, source.at)));
    }
    Ok((table, layout))
}

/// The table of the nodes, each of which is judged.
fn read_nodes(source: &mut Source, layout: &UsearchLayout) -> Result<Vec<u8>, ArtifactError> {
    let count = layout.vectors.rows;
    if (source.len - source.at) / 2 < count {
        return Err(wrong("the file is cut short within the levels of its nodes; copy or save it again"));
    }
    let mut levels = vec![0; count as usize * 2];
    source.fill(&mut levels, "the levels of the nodes")?;
    let level_of = |node: u64| u16_at(&levels, node as usize * 2);
    if level_of(layout.entry.into()) < layout.max_level {
        return Err(wrong(format!(
            "the search would begin at node {}, which is not on level {}",
            layout.entry, layout.max_level
        )));
    }
    let (mut starts, mut keys) = (Vec::with_capacity(count as usize), Vec::with_capacity(count as usize));
    let mut node = Vec::new();
    for number in 0..count {
        let damaged = |what: String| wrong(format!("node {number} is damaged: {what}; save it again"));
        let level = level_of(number);
        if level > layout.max_level {
            return Err(damaged(format!("it is on level {level} of {}", layout.max_level)));
        }
        starts.push(source.at);
        node.resize(layout.node_bytes(level), 0);
        source.fill(&mut node, &format!("node {number}"))?;
        if u16_at(&node, 8) != level {
            return Err(damaged(format!(
                "its level is {} here and {level} in the list of levels",
                u16_at(&node, 8)
            )));
        }
        for on in 0..=usize::from(level) {
            for neighbour in
                neighbours(layout, &node, on).ok_or_else(|| damaged("it has too many neighbours".into()))?
            {
                if u64::from(neighbour) >= count || usize::from(level_of(neighbour.into())) < on {
                    return Err(damaged(format!("its neighbour {neighbour} is not on level {on}")));
                }
            }
        }
        keys.push((u64_at(&node, 0), number));
    }
    keys.sort_unstable();
    let numbers = starts.into_iter().chain(keys.into_iter().map(|(_, number)| number));
    Ok(numbers.flat_map(u64::to_le_bytes).collect())
}

/// The neighbours of a node on a level; `None` where there is no such list.
fn neighbours<'a>(
    layout: &UsearchLayout,
    node: &'a [u8],
    level: usize,
) -> Option<impl Iterator<Item = u32> + use<'a>> {
    let longest = if level == 0 { layout.connectivity_base } else { layout.connectivity };
    let from = NODE_HEAD_BYTES
        + if level == 0 { 0 } else { layout.list_bytes(0) + (level - 1) * layout.list_bytes(1) };
    let list = node.get(from..from + layout.list_bytes(level))?;
    let count = u32_at(list, 0);
    if u64::from(count) > longest {
        return None;
    }
    let (slots, _) = list[SLOT_BYTES..][..count as usize * SLOT_BYTES].as_chunks();
    Some(slots.iter().map(|slot| u32::from_le_bytes(*slot)))
}

/// An index in place. What does not hold what the layout says reads as nothing.
#[derive(Clone, Copy)]
pub struct Usearch<'a> {
    layout: &'a UsearchLayout,
    bytes: &'a [u8],
    starts: &'a [[u8; 8]],
    by_key: &'a [[u8; 8]],
}

impl<'a> Usearch<'a> {
    /// The index of `layout` in `bytes`, the whole file, with the table that was made of it.
    pub fn new(
        layout: &'a UsearchLayout,
        bytes: &'a [u8],
        table: &'a [u8],
    ) -> Result<Usearch<'a>, ArtifactError> {
        let (numbers, _) = table.as_chunks();
        if numbers.len() as u64 != 2 * layout.vectors.rows {
            return Err(ArtifactError::DamagedTable);
        }
        let (starts, by_key) = numbers.split_at(numbers.len() / 2);
        Ok(Usearch { layout, bytes, starts, by_key })
    }

    /// The layout it was made with.
    pub fn layout(&self) -> &'a UsearchLayout {
        self.layout
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.starts.len()
    }

    fn node(&self, node: u32) -> Option<&'a [u8]> {
        let start = u64::from_le_bytes(*self.starts.get(node as usize)?);
        self.bytes.get(usize::try_from(start).ok()?..)
    }

    /// The key of a node that was not removed.
    pub(crate) fn key(&self, node: u32) -> Option<u64> {
        let key = u64::from_le_bytes(*self.node(node)?.first_chunk()?);
        (key != FREE).then_some(key)
    }

    /// The vector of a node.
    pub(crate) fn vector(&self, node: u32) -> Option<&'a [u8]> {
        let row_bytes = (self.layout.vectors.cols * self.layout.vectors.dtype.size_bytes()) as usize;
        let from = self.layout.vectors.offset as usize + node as usize * row_bytes;
        self.bytes.get(from..from + row_bytes)
    }

    /// The neighbours of a node on a level.
    pub(crate) fn neighbours(&self, node: u32, level: u16) -> impl Iterator<Item = u32> + use<'a> {
        let node = self.node(node).unwrap_or_default();
        neighbours(self.layout, node, level.into()).into_iter().flatten()
    }

    /// The node of a key, the first of several.
    pub(crate) fn find(&self, key: u64) -> Option<u32> {
        let number = |at: usize| u64::from_le_bytes(self.by_key[at]) as u32;
        let key_of = |node| self.node(node).and_then(|node| Some(u64::from_le_bytes(*node.first_chunk()?)));
        let (mut from, mut to) = (0, self.by_key.len());
        while from < to {
            let middle = from.midpoint(to);
            if key_of(number(middle)) < Some(key) { from = middle + 1 } else { to = middle }
        }
        let node = number(Some(from).filter(|at| *at < self.by_key.len())?);
        (key != FREE && key_of(node) == Some(key)).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::ann::{AnnError, Walk, vector_of};
    use crate::artifact::{Matrix, read_npy};
    use crate::mapping::sealed_copy;
    use crate::scan::{Search, row_as_f32};

    fn data(name: &str) -> Option<PathBuf> {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/formats/usearch").join(name);
        if !path.exists() {
            println!("skipped: {} is absent", path.display());
        }
        path.exists().then_some(path)
    }

    fn read(bytes: &[u8]) -> Result<(Vec<u8>, UsearchLayout), ArtifactError> {
        read_usearch(&sealed_copy("test", bytes).unwrap(), bytes.len() as u64)
    }

    /// Keys and distances that the library found.
    fn expected(found: &Value) -> (Vec<u64>, Vec<f64>) {
        let list = |name: &str| found[name].as_array().unwrap().clone();
        let keys = list("keys").iter().map(|key| key.as_u64().unwrap()).collect();
        (keys, list("distances").iter().map(|distance| distance.as_f64().unwrap()).collect())
    }

    #[test]
    fn what_is_found_is_what_the_library_found() {
        let (Some(path), Some(queries)) = (data("expected.json"), data("queries.npy")) else { return };
        let all: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let query_bytes = fs::read(&queries).unwrap();
        let shape = read_npy(&fs::File::open(&queries).unwrap(), query_bytes.len() as u64).unwrap();
        let queries = Matrix::new(&shape, &query_bytes).unwrap();
        let mut walk = Walk::default();
        for (name, about) in all["files"].as_object().unwrap() {
            let bytes = fs::read(data(name).unwrap()).unwrap();
            let (table, layout) = read(&bytes).unwrap();
            assert_eq!(
                [about["size"].as_u64(), about["ndim"].as_u64()],
                [Some(1000), Some(layout.vectors.cols)]
            );
            assert_eq!(about["connectivity"].as_u64(), Some(layout.connectivity));
            assert_eq!(about["nlevels"].as_u64(), Some(u64::from(layout.max_level) + 1));
            let index = Usearch::new(&layout, &bytes, &table).unwrap();
            let exactly = Matrix::new(&layout.vectors, &bytes).unwrap();
            for query in 0..shape.rows {
                let vector = row_as_f32(&queries, query).unwrap();
                let found = walk.nearest(&index, &vector, 10, 12).unwrap();
                let (keys, distances) = expected(&about["search"][query as usize]);
                let tolerance = 1e-5;
                for (at, (&ours, &theirs)) in found.distances.iter().zip(&distances).enumerate() {
                    assert!(
                        (f64::from(ours) - theirs).abs() < tolerance * theirs.abs().max(1.0),
                        "{name} {query}: {ours} {theirs}"
                    );
                    let tie =
                        distances.iter().filter(|other| (*other - theirs).abs() < tolerance).count() > 1;
                    assert!(tie || found.keys[at] == keys[at], "{name} {query}: {found:?} {keys:?}");
                }
                assert_eq!(found.keys.len(), 10);
                // With all of them kept, the graph finds what a look at every vector finds.
                let found = walk.nearest(&index, &vector, 10, 1000).unwrap();
                let best = Search::new(10, layout.metric).nearest(&exactly, &vector).unwrap();
                let same = found.keys.iter().filter(|key| best.ids.contains(&((*key - 10000) / 7))).count();
                assert!(same >= 9, "{name} {query}: {found:?} {best:?}");
            }
            assert_eq!(vector_of(&index, 10007).unwrap(), row_as_f32(&exactly, 1).unwrap());
            assert_eq!(vector_of(&index, 10001), Err(AnnError::Key(10001)));
            assert_eq!(vector_of(&index, u64::MAX), Err(AnnError::Key(u64::MAX)));
            let error = walk.nearest(&index, &[0.0; 3], 1, 1).unwrap_err();
            assert_eq!(error.to_string(), "the vector has 3 values, the index has 64 dimensions");
        }
    }

    #[test]
    fn damage_is_refused_or_harmless_and_never_followed() {
        let Some(path) = data("f16_cos.usearch") else { return };
        let good = fs::read(path).unwrap();
        let (table, layout) = read(&good).unwrap();
        let graph_at = 8 + layout.vectors.rows as usize * 128;
        let (mut walk, mut refused) = (Walk::default(), 0);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for round in 0..300 {
            let mut bad = good.clone();
            match round % 3 {
                // The heads, the rest of the graph, the end.
                0 => bad[graph_at + random(104)] = random(256) as u8,
                1 => bad[graph_at + random(good.len() - graph_at)] = random(256) as u8,
                _ => bad.truncate(random(good.len())),
            }
            let judged = read(&bad);
            refused += u32::from(judged.is_err());
            // A file that is damaged after it was judged is searched with the table of before.
            for (table, layout) in [judged.ok(), Some((table.clone(), layout.clone()))].into_iter().flatten()
            {
                let index = Usearch::new(&layout, &bad, &table).unwrap();
                let vector = vec![0.5; layout.vectors.cols as usize];
                let found = walk.nearest(&index, &vector, 10, 20).unwrap();
                assert!(found.keys.len() <= 10);
            }
        }
        assert!(refused > 120, "{refused} of 300 were refused");
    }

    #[test]
    fn what_is_refused_says_why() {
        let Some(path) = data("f32_cos.usearch") else { return };
        let good = fs::read(path).unwrap();
        let head = 8 + 1000 * 256;
        let why = |bytes: &[u8]| {
            let error = read(bytes).unwrap_err().to_string();
            error.strip_prefix("not usable as usearch: ").expect("the format").to_string()
        };
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            why(&bad)
        };
        assert_eq!(read(&[]).unwrap_err().to_string(), "the file is empty");
        assert!(why(&good[..5]).starts_with("the file is cut short: the size of the matrix"));
        assert!(with(head, b'U').starts_with("not a usearch index"));
        assert_eq!(with(head + 7, 3), "usearch version 3 is unknown; files of version 2 can be read");
        assert!(with(head + 13, b'h').starts_with("it is of the metric 'h'"));
        assert!(with(head + 14, 23).starts_with("its vectors are of the type 23"));
        assert!(with(head + 33, 65).starts_with("its head contradicts itself"));
        assert!(with(head + 64, 0).starts_with("its graph has 768 nodes"));
        assert!(with(head + 64 + 33, 200).starts_with("the head of its graph is damaged"));
        // The first neighbour of the first node.
        assert!(with(head + 104 + 2000 + 17, 255).starts_with("node 0 is damaged: its neighbour"));
        assert!(why(&good[..good.len() - 1]).contains("cut short"));
        assert!(why(&[&good[..], &[0]].concat()).starts_with("the file is longer"));
    }
}
