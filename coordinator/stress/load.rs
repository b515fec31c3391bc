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

/// The longest chain: each expression of a manifest takes some 10 kB.
const CHAIN_MAX: u64 = 20_000;

/// One in so many of the sleeping nodes of `mixed` sleeps for too long.
const LATE: u64 = 20_000;

/// More nodes than there is time for are not worth more than this of the memory, at some bytes each.
const NODE_BYTES: u64 = 100;
const MEMORY_SHARE: u64 = 8;

/// A manifest with what is to become of it.
pub(super) struct Load {
    pub text: String,
    pub families: Vec<Family>,
    pub artifact_bytes: u64,
    /// What nodes take at once.
    pub alloc_bytes: u64,
}

/// Nodes of one kind.
pub(super) struct Family {
    pub id: &'static str,
    pub count: u64,
    /// Whether they are items of a node, which has a result of its own.
    pub is_items: bool,
    rare: Vec<Rare>,
}

/// One in so many of a family ends in another way.
struct Rare {
    one_in: u64,
    /// The first that does.
    first: u64,
    outcome: Outcome,
    attempt: u32,
}

impl Family {
    /// How a node of it is to end, and after how many attempts.
    pub fn ending(&self, index: u64) -> (Outcome, u32) {
        let rare = self.rare.iter().find(|rare| index % rare.one_in == rare.first);
        rare.map_or((Outcome::Ran, 1), |rare| (rare.outcome, rare.attempt))
    }
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
            Profile::Fork => maker.once("crash", tasks(3e3), 1, json!({ "status": 3 }), json!({})),
            Profile::Memory => {
                artifact_bytes = matrix(&site.path("matrix.npy"), &mut seed)?;
                // At most one for two workers, so that others run beside them.
                let at_once = workers.div_ceil(2);
                alloc_bytes = at_once as u64 * ALLOC_BYTES;
                maker.artifact("matrix", &site.path("matrix.npy"));
                let scans = tasks(500.0);
                let params = json!({ "row": "{{ item }}", "k": 5 });
                maker.items("scan", "topk", scans, json!({ "artifact": "matrix", "params": params }));
                let memory = format!("{}MiB", (ALLOC_BYTES >> 20) + 1);
                let params = json!({ "bytes": ALLOC_BYTES, "seconds": 0.005 });
                let more =
                    json!({ "params": params, "memory": memory, "priority": 1, "concurrency": at_once });
                maker.items("alloc", "alloc", scans.div_ceil(5), more);
            }
            Profile::Store => {
                bytes(&site.path("bytes"), BYTES, &mut seed)?;
                artifact_bytes = BYTES;
                maker.artifact("bytes", &site.path("bytes"));
                // 16 bytes to 4 MiB, each size as often as the others, in an order that looks like none.
                let length = format!("{{{{ 16 * 2 ** ((item * 7919 + {}) % 19) }}}}", request.seed % 19);
                let mean = 2 * RESULT_MAX / 19;
                maker.bytes(tasks(3e3).min(DISK_MAX / mean), &length, RESULT_MAX, None, json!({}));
            }
            Profile::Trouble => maker.trouble(tasks(20e3), workers, &mut seed),
            Profile::Mixed => {
                bytes(&site.path("bytes"), BYTES, &mut seed)?;
                artifact_bytes = BYTES;
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
        self.with_rare(id, op, count, Vec::new(), more);
    }

    fn with_rare(&mut self, id: &'static str, op: &str, count: u64, rare: Vec<Rare>, mut more: Value) {
        more["id"] = id.into();
        more["op"] = op.into();
        if more.get("each").is_none() {
            more["foreach"] = format!("{{{{ range(0, {count}) }}}}").into();
        }
        self.line(&more);
        self.families.push(Family { id, count, is_items: true, rare });
    }

    fn one_by_one(&mut self, id: &'static str, count: u64) {
        self.families.push(Family { id, count, is_items: false, rare: Vec::new() });
    }

    /// One node of each op before all others: batches are made of ops of which it is known how long they take.
    fn first_of_each(&mut self) {
        let ops = [
            ("noop", json!({})),
            ("value", json!({ "value": "first" })),
            ("spin", json!({ "seconds": 0 })),
            ("sleep", json!({ "seconds": 0 })),
            ("alloc", json!({ "bytes": 4096 })),
            ("crash", json!({ "status": 3, "times": 0 })),
            ("bytes", json!({ "offset": 0, "length": 7 })),
        ];
        for (at, (op, params)) in ops.iter().enumerate() {
            let mut node = json!({ "id": format!("first_{at}"), "op": op, "params": params, "priority": 10 });
            if *op == "bytes" {
                node["artifact"] = "bytes".into();
            }
            self.line(&node);
        }
        self.one_by_one("first", ops.len() as u64);
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
        self.one_by_one("layer", count);
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
        self.one_by_one("chain", count);
    }

    /// Nodes of which one in so many goes wrong once.
    fn once(&mut self, id: &'static str, count: u64, one_in: u64, mut params: Value, more: Value) {
        params["times"] = format!("{{{{ 1 if item % {one_in} == 0 else 0 }}}}").into();
        let rare = vec![Rare { one_in, first: 0, outcome: Outcome::Ran, attempt: 2 }];
        self.with_rare(id, "crash", count, rare, with(more, "params", params));
    }

    /// Parts of the artifact, none of which is like another; one in so many lies beyond its end.
    fn bytes(&mut self, count: u64, length: &str, longest: u64, beyond: Option<u64>, more: Value) {
        let step = ((BYTES - longest) / count.max(1)).max(1);
        let mut offset = format!("item * {step} % {}", BYTES - longest);
        let mut rare = Vec::new();
        if let Some(one_in) = beyond {
            offset = format!("{BYTES} + item if item % {one_in} == 1 else {offset}");
            rare.push(Rare { one_in, first: 1, outcome: Outcome::Failed, attempt: 3 });
        }
        let params = json!({ "offset": format!("{{{{ {offset} }}}}"), "length": length });
        self.with_rare(
            "bytes",
            "bytes",
            count,
            rare,
            with(with(more, "artifact", "bytes".into()), "params", params),
        );
    }

    /// Of all nodes one in a hundred ends its worker once, one in a hundred runs into its time limit once, and five in a hundred
    /// fail once. Those that hang take half of the workers; the others begin at such a rate that all last as long.
    fn trouble(&mut self, tasks: u64, workers: usize, seed: &mut Seed) {
        let layered = (tasks / 10).min(LAYERED_MAX);
        let quarter = (tasks / 4).max(1);
        let late = (tasks / 100).max(1);
        let noops = tasks.saturating_sub(layered + 2 * quarter + late).max(1);
        let hang_at_once = workers.div_ceil(2);
        let seconds = late.div_ceil(hang_at_once as u64);
        let steady = |count: u64| json!({ "rate": format!("{}/s", count.div_ceil(seconds)) });
        let twice = |more: Value| with(more, "retry", json!({ "attempts": 2 }));
        self.layers(layered, seed);
        self.once("kill", quarter, 25, json!({ "signal": 9 }), steady(quarter));
        self.once("fail", quarter, 5, json!({ "panic": "on purpose" }), twice(steady(quarter)));
        let hangs = json!({ "concurrency": hang_at_once, "priority": 1, "timeout": "1s" });
        self.once("hang", late, 1, json!({ "hang": 3600 }), twice(hangs));
        self.items("noop", "noop", noops, steady(noops));
    }

    /// All of it: families of one size, of which a few nodes each are under way, so that they keep pace; what is rare is
    /// spread over them. In all one node in a hundred ends its worker.
    fn mixed(&mut self, tasks: u64, workers: usize, seed: &mut Seed) {
        let layered = (tasks / 50).min(LAYERED_MAX);
        let each = ((tasks - layered) / 9).max(1);
        let salt = seed.below(1 << 40);
        // The slowest first: a batch has as many nodes as its slowest op allows.
        let some = |priority: i32| json!({ "concurrency": 8 * workers, "priority": priority });
        self.first_of_each();
        self.layers(layered, seed);
        self.once("crash", each, 21, json!({ "status": 3 }), some(3));
        self.once("kill", each, 21, json!({ "signal": 9 }), some(3));
        let sleep = json!({ "seconds": format!("{{{{ 60 if item % {LATE} == 11 else 0.001 if item % 25 == 0 else 0 }}}}") });
        let late = vec![Rare { one_in: LATE, first: 11, outcome: Outcome::TimedOut, attempt: 1 }];
        let sleeps = with(with(some(7), "timeout", "1s".into()), "on_item_failure", "null".into());
        self.with_rare("sleep", "sleep", each, late, with(sleeps, "params", sleep));
        let tries = with(some(4), "retry", json!({ "attempts": 3, "backoff": "1ms" }));
        let tries = with(tries, "on_item_failure", "null".into());
        let length = "{{ 1048576 if item % 4096 == 4095 else 16 * 4 ** (item % 7) if item % 16 == 0 else 16 + item % 100 }}";
        self.bytes(each, length, RESULT_MAX, Some(100), tries);
        let alloc = json!({ "bytes": format!("{{{{ {SMALL_ALLOC_BYTES} if item % 125 == 0 else 4096 }}}}") });
        let memory = with(some(6), "memory", format!("{}MiB", (SMALL_ALLOC_BYTES >> 20) + 1).into());
        self.items("alloc", "alloc", each, with(memory, "params", alloc));
        let spin = json!({ "seconds": "{{ 0.00005 if item % 4 == 0 else 0 }}" });
        self.items("spin", "spin", each, with(some(5), "params", spin));
        let value = json!({ "value": format!("{{{{ item * 1000003 + {salt} }}}}") });
        self.items("value", "value", each, with(some(2), "params", value));
        let follows = json!({ "each": "value", "priority": 1, "params": { "value": "{{ item + 1 }}" } });
        self.items("follow", "value", each, follows);
        self.items("noop", "noop", (tasks - layered).saturating_sub(8 * each).max(1), json!({}));
    }
}

/// The same with one more word.
fn with(mut more: Value, word: &str, value: Value) -> Value {
    more[word] = value;
    more
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
    // The pages count, and not what is in them.
    let number = |_| ((seed.next() >> 40) as f32 / (1u64 << 24) as f32).to_le_bytes();
    let some: Vec<u8> = (0..(1 << 18)).flat_map(number).collect();
    for _ in 0..MATRIX_BYTES / some.len() as u64 {
        out.write_all(&some)?;
    }
    out.flush()?;
    Ok(MATRIX_BYTES + 10 + text.len() as u64)
}
