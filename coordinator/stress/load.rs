//! What each profile loads the pool with: a manifest, and what is to become of its nodes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::seed::Seed;
use super::site::Site;
use super::{Profile, Request};
use crate::memory::Machine;
use crate::store::Outcome;

/// The matrix of `memory`: rows of 64 numbers of four bytes.
pub(super) const MATRIX_BYTES: u64 = 256 << 20;
const MATRIX_WIDTH: u64 = 64;

/// Bytes that `store` and `mixed` take their results from.
const BYTES: u64 = 32 << 20;

/// The largest result.
const RESULT_MAX: u64 = 4 << 20;

/// What a node of `memory` takes, and one of `mixed`.
const ALLOC_BYTES: u64 = 64 << 20;
const SMALL_ALLOC_BYTES: u64 = 4 << 20;

/// What results may take on the disk.
const DISK_MAX: u64 = 2 << 30;

/// Nodes that the manifest declares one by one, with needs.
const LAYERED_MAX: u64 = 100_000;
const LAYER: u64 = 100;

/// The longest chain.
const CHAIN_MAX: u64 = 200_000;

/// More nodes than there is time for are not worth more than this of the memory, at some bytes each.
const NODE_BYTES: u64 = 100;
const MEMORY_SHARE: u64 = 8;

/// A manifest with what is to become of it.
pub(super) struct Load {
    pub text: String,
    pub families: Vec<Family>,
    pub artifact_bytes: u64,
    /// What one node takes.
    pub alloc_bytes: u64,
}

/// Nodes that are to end alike.
pub(super) struct Family {
    pub id: &'static str,
    pub count: u64,
    /// Whether they are items of a node, which has a result of its own.
    pub is_items: bool,
    pub outcome: Outcome,
    pub attempt: u32,
}

impl Load {
    /// Makes what a profile needs.
    pub fn make(request: &Request, workers: usize, site: &Site) -> io::Result<Load> {
        let seconds = request.limit.map_or(10.0, |limit| limit.as_secs_f64());
        let most = Machine::here().look().map_or(1 << 22, |rooms| {
            (rooms.available() / MEMORY_SHARE / NODE_BYTES).min(crate::room::NODES_MAX as u64)
        });
        // More than there is time for, if nobody says how many.
        let tasks = |a_second: f64| request.tasks.unwrap_or((seconds * a_second) as u64).clamp(1, most);
        let mut maker = Maker { header: json!({ "forkyard": 1 }), text: String::new(), families: Vec::new() };
        let mut seed = Seed(request.seed);
        let (mut artifact_bytes, mut alloc_bytes) = (0, 0);
        match request.profile {
            Profile::Throughput => {
                let tasks = tasks(1e6);
                let layered = (tasks / 10).min(LAYERED_MAX);
                maker.layers(layered, &mut seed);
                maker.items("noop", "noop", tasks - layered, json!({}));
            }
            Profile::Latency => maker.chain(tasks(20e3).min(CHAIN_MAX)),
            Profile::Fork => maker.crashes("crash", tasks(3e3), json!({ "status": 3 })),
            Profile::Memory => {
                artifact_bytes = matrix(&site.path("matrix.npy"), &mut seed)?;
                alloc_bytes = ALLOC_BYTES;
                maker.artifact("matrix", &site.path("matrix.npy"));
                let scans = tasks(500.0);
                let params = json!({ "row": "{{ item }}", "k": 5 });
                maker.items("scan", "topk", scans, json!({ "artifact": "matrix", "params": params }));
                maker.allocs(scans.div_ceil(5), ALLOC_BYTES, workers.div_ceil(2));
            }
            Profile::Store => {
                bytes(&site.path("bytes"), BYTES, &mut seed)?;
                artifact_bytes = BYTES;
                maker.artifact("bytes", &site.path("bytes"));
                // 16 bytes to 4 MiB, each size as often as the others, in an order that looks like none.
                let length = format!("{{{{ 16 * 2 ** ((item * 7919 + {}) % 19) }}}}", request.seed % 19);
                let mean = 2 * RESULT_MAX / 19;
                maker.bytes(tasks(3e3).min(DISK_MAX / mean), &length, RESULT_MAX);
            }
            Profile::Mixed => {
                bytes(&site.path("bytes"), BYTES, &mut seed)?;
                artifact_bytes = BYTES;
                alloc_bytes = SMALL_ALLOC_BYTES;
                maker.artifact("bytes", &site.path("bytes"));
                maker.mixed(tasks(60e3), workers, &mut seed);
            }
        }
        let Maker { header, text, families } = maker;
        Ok(Load { text: format!("{header}\n{text}"), families, artifact_bytes, alloc_bytes })
    }
}

/// A manifest that is being made.
struct Maker {
    header: Value,
    text: String,
    families: Vec<Family>,
}

impl Maker {
    fn artifact(&mut self, name: &str, path: &Path) {
        self.header["artifacts"] = json!({ name: { "path": path } });
    }

    fn line(&mut self, node: &Value) {
        writeln!(self.text, "{node}").expect("a string takes everything");
    }

    /// A node with so many items that all run at the first attempt.
    fn items(&mut self, id: &'static str, op: &str, count: u64, more: Value) {
        self.endings(id, op, (count, Outcome::Ran, 1), more);
    }

    fn endings(&mut self, id: &'static str, op: &str, ending: (u64, Outcome, u32), mut more: Value) {
        let (count, outcome, attempt) = ending;
        if count == 0 {
            return;
        }
        more["id"] = id.into();
        more["op"] = op.into();
        if more.get("each").is_none() {
            more["foreach"] = format!("{{{{ range(0, {count}) }}}}").into();
        }
        self.line(&more);
        self.families.push(Family { id, count, is_items: true, outcome, attempt });
    }

    /// No-op nodes that need some of the layer before.
    fn layers(&mut self, count: u64, seed: &mut Seed) {
        if count == 0 {
            return;
        }
        for node in 0..count {
            let layer = node / LAYER;
            let needs: Vec<String> = match layer.checked_sub(1) {
                None => Vec::new(),
                Some(before) => (0..1 + seed.below(3))
                    .map(|_| format!("\"layer_{}\"", before * LAYER + seed.below(LAYER)))
                    .collect(),
            };
            let needs = needs.join(",");
            writeln!(self.text, r#"{{"id":"layer_{node}","op":"noop","needs":[{needs}]}}"#)
                .expect("a string takes everything");
        }
        let (outcome, attempt) = (Outcome::Ran, 1);
        self.families.push(Family { id: "layer", count, is_items: false, outcome, attempt });
    }

    /// Nodes of which each reads the result of the one before.
    fn chain(&mut self, count: u64) {
        for node in 0..count {
            let value = match node.checked_sub(1) {
                None => "{{ 0 }}".into(),
                Some(before) => format!("{{{{ nodes.chain_{before}.result + 1 }}}}"),
            };
            self.line(&json!({ "id": format!("chain_{node}"), "op": "value", "params": { "value": value } }));
        }
        let (outcome, attempt) = (Outcome::Ran, 1);
        self.families.push(Family { id: "chain", count, is_items: false, outcome, attempt });
    }

    /// Nodes of which each ends its worker once.
    fn crashes(&mut self, id: &'static str, count: u64, mut how: Value) {
        how["times"] = 1.into();
        self.endings(
            id,
            "crash",
            (count, Outcome::Ran, 2),
            json!({ "params": how, "priority": 9, "concurrency": 2 }),
        );
    }

    fn allocs(&mut self, count: u64, bytes: u64, at_once: usize) {
        let params = json!({ "bytes": bytes, "seconds": 0.005 });
        let memory = format!("{}MiB", (bytes >> 20) + 1);
        let more = json!({ "params": params, "memory": memory, "priority": 5, "concurrency": at_once });
        self.items("alloc", "alloc", count, more);
    }

    /// Parts of the artifact, none of which is like another.
    fn bytes(&mut self, count: u64, length: &str, longest: u64) {
        let step = ((BYTES - longest) / count.max(1)).max(1);
        let offset = format!("{{{{ item * {step} % {} }}}}", BYTES - longest);
        let params = json!({ "offset": offset, "length": length });
        self.items("bytes", "bytes", count, json!({ "artifact": "bytes", "params": params, "priority": 4 }));
    }

    /// All of it. What is rare goes first and a few at a time, so that it is spread over the run.
    fn mixed(&mut self, tasks: u64, workers: usize, seed: &mut Seed) {
        let part = |of: u64| tasks.div_ceil(of);
        let salt = seed.below(1 << 40);
        let few = |priority: i32, at_once: usize| json!({ "priority": priority, "concurrency": at_once });
        let with = |mut more: Value, word: &str, value: Value| {
            more[word] = value;
            more
        };
        self.layers(part(50).min(LAYERED_MAX), seed);
        self.crashes("crash", part(200), json!({ "status": 3 }));
        self.crashes("kill", part(200), json!({ "signal": 9 }));
        let beyond = json!({ "offset": BYTES, "length": 1 });
        let fails = with(few(8, 4), "params", beyond);
        let fails = with(fails, "retry", json!({ "attempts": 3, "backoff": "1ms" }));
        let fails = with(with(fails, "on_item_failure", "null".into()), "artifact", "bytes".into());
        self.endings(
            "fail",
            "bytes",
            (part(500), Outcome::Failed, 3),
            with(fails, "salt", "{{ item }}".into()),
        );
        let late = with(few(7, 1), "params", json!({ "seconds": 60 }));
        let late = with(with(late, "timeout", "20ms".into()), "on_item_failure", "null".into());
        self.endings("late", "sleep", (part(5000), Outcome::TimedOut, 1), late);
        self.allocs(part(1000), SMALL_ALLOC_BYTES, workers);
        let length = "{{ 1048576 if item % 512 == 511 else 16 * 4 ** (item % 7) }}";
        self.bytes(part(100), length, RESULT_MAX);
        self.items("sleep", "sleep", part(200), with(few(3, workers), "params", json!({ "seconds": 0.001 })));
        let spin = json!({ "seconds": 0.00002 });
        self.items("spin", "spin", part(20), with(few(2, 64 * workers), "params", spin));
        let value = format!("{{{{ item * 1000003 + {salt} }}}}");
        self.items("value", "value", part(10), json!({ "params": { "value": value } }));
        let follows = json!({ "each": "value", "params": { "value": "{{ item + 1 }}" } });
        self.items("follow", "value", part(10), follows);
        let so_far: u64 = self.families.iter().map(|family| family.count).sum();
        self.items("noop", "noop", tasks.saturating_sub(so_far), json!({}));
    }
}

/// A file of bytes that no packer makes smaller.
fn bytes(path: &Path, count: u64, seed: &mut Seed) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for _ in 0..count / 8 {
        out.write_all(&seed.next().to_le_bytes())?;
    }
    out.flush()
}

/// A matrix of numbers from 0 to 1; how many bytes it has.
fn matrix(path: &Path, seed: &mut Seed) -> io::Result<u64> {
    let rows = MATRIX_BYTES / 4 / MATRIX_WIDTH;
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {MATRIX_WIDTH}), }}");
    // Magic, version, length; then text that ends at a multiple of 64.
    let text = format!("{shape:<117}\n");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(text.len() as u16).to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    for _ in 0..MATRIX_BYTES / 4 {
        out.write_all(&((seed.next() >> 40) as f32 / (1u64 << 24) as f32).to_le_bytes())?;
    }
    out.flush()?;
    Ok(MATRIX_BYTES + 10 + text.len() as u64)
}
