//! How many workers there are, presets, and what is measured of each op.

use super::*;

fn cores() -> u64 {
    std::thread::available_parallelism().unwrap().get() as u64
}

/// How many workers a run of `m.toml` had.
fn workers(space: &Space, args: &[&str]) -> u64 {
    let ended = space.run(&[&["run", "m.toml", "--json"], args].concat()).expect(0);
    ended.events_named("worker_started").len() as u64
}

fn many(op: &str, params: &str) -> String {
    format!(
        "[[node]]\nid = \"n\"\nop = \"{op}\"\nforeach = \"{{{{ range(0, 60) }}}}\"\nparams = {{ {params} }}\n"
    )
}

#[test]
fn nodes_that_wait_get_more_workers_than_there_are_cores() {
    for node in [
        many("sleep", "seconds = 0.4"),
        shell("n", "sleep 0.4; echo {{ item }}", "foreach = \"{{ range(0, 60) }}\""),
    ] {
        let space = Space::with(&node);
        let first = workers(&space, &["--workers", "auto"]);
        assert!(first > 2 * cores(), "{first}");
        // The next run knows it from the start.
        let ended = space.run(&["run", "m.toml", "--json", "--refresh", "n"]).expect(0);
        let started = ended.events_named("run_started")[0]["workers"].as_u64().unwrap();
        assert!(started > 2 * cores(), "{started}");
    }
}

#[test]
fn nodes_that_compute_do_not() {
    let spin = many("spin", "seconds = 0.1");
    let command = shell(
        "n",
        "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo {{ item }}",
        "foreach = \"{{ range(0, 60) }}\"",
    );
    for node in [spin, command] {
        let space = Space::with(&node);
        for _ in 0..2 {
            let count = workers(&space, &["--workers", "auto", "--refresh", "n"]);
            assert!(count <= 2 * cores() + 2, "{count} workers on {} cores", cores());
        }
    }
}

#[test]
fn many_fixed_workers_that_want_the_same_cores_teach_nothing_wrong() {
    let space = Space::with(&many("spin", "seconds = 0.05"));
    workers(&space, &["--workers", "16"]);
    let ended = space.run(&["run", "m.toml", "--json", "--refresh", "n"]).expect(0);
    let started = ended.events_named("run_started")[0]["workers"].as_u64().unwrap();
    assert!(started <= cores() + 1, "{started}");
}

// ---- presets ----

const KNOWN: [&str; 4] = ["cpu", "io", "memory", "large-data"];

fn node() -> String {
    many("sleep", "seconds = 0.05")
}

#[test]
fn an_unknown_preset_is_an_error_that_names_those_there_are() {
    let space = Space::with(&node());
    let ended = space.run(&["run", "m.toml", "--preset", "fast"]).expect(2);
    assert!(KNOWN.iter().all(|name| ended.stderr.contains(name)), "{}", ended.stderr);
    space.write("m.toml", format!("[run]\nname = \"x\"\npreset = \"fast\"\n{}", node()));
    let ended = space.run(&["run", "m.toml"]).expect(2).says("m.toml:3:");
    assert!(KNOWN.iter().all(|name| ended.stderr.contains(&format!("\"{name}\""))), "{}", ended.stderr);
    assert!(!space.path(".forkyard").exists(), "nothing ran");
}

fn layout(space: &Space) -> String {
    let stat = space.run(&["store", "stat", "--json"]).expect(0).events().remove(0);
    stat["layout"].as_str().unwrap().into()
}

#[test]
fn presets_say_how_many_workers_there_are_and_how_results_are_kept() {
    for (preset, layout_of, least, most) in
        [("memory", "sqlite", 2, 2), ("large-data", "filesystem", 4, 4), ("cpu", "hybrid", 1, cores())]
    {
        let space = Space::with(&node());
        let count = workers(&space, &["--preset", preset]);
        assert!((least..=most).contains(&count), "{preset}: {count}");
        let of_manifest = Space::with(&format!("[run]\npreset = \"{preset}\"\n{}", node()));
        let count = workers(&of_manifest, &[]);
        assert!((least..=most).contains(&count), "{preset}: {count}");
        assert_eq!(layout(&of_manifest), layout_of);
    }
    let space = Space::with(&many("sleep", "seconds = 0.4"));
    let ended = space.run(&["run", "m.toml", "--json", "--preset", "io"]).expect(0);
    assert_eq!(ended.events_named("run_started")[0]["workers"], 2 * cores());
}

#[test]
fn the_command_line_chooses_the_layout_by_its_preset_too() {
    let space = Space::with(&node());
    space.run(&["run", "m.toml", "--preset", "memory"]).expect(0);
    assert_eq!(layout(&space), "sqlite");
}

#[test]
fn what_is_said_itself_comes_before_a_preset() {
    let space = Space::with(&format!("[run]\npreset = \"memory\"\nlayout = \"filesystem\"\n{}", node()));
    assert_eq!(workers(&space, &["--workers", "3"]), 3);
    assert_eq!(layout(&space), "filesystem");
    // That of the command line before that of the manifest.
    assert_eq!(workers(&space, &["--preset", "large-data", "--refresh", "n"]), 4);
}

fn value(id: String, value: String) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"value\"\nparams = {{ value = \"{{{{ {value} }}}}\" }}\n")
}

#[test]
fn a_preset_changes_how_many_results_stay_in_memory() {
    // A few tens of kilobytes each; all are read after the last was made.
    let count = 800;
    let lines = |of: fn(u32) -> String| (0..count).map(of).collect::<Vec<String>>();
    let makes = lines(|n| value(format!("m{n}"), format!("range({n}, {})", n + 5000)));
    let reads =
        lines(|n| value(format!("r{n}"), format!("nodes.m{n}.result | length")) + "needs = [\"all\"]\n");
    let made = lines(|n| format!("\"m{n}\"")).join(", ");
    let all = format!("[[node]]\nid = \"all\"\nop = \"noop\"\nneeds = [{made}]\n");
    let nodes = [makes.concat(), all, reads.concat()].concat();
    let misses = |run: &str| {
        let space = Space::with(&format!("[run]\n{run}\nlayout = \"sqlite\"\n{nodes}"));
        let ended = space.run(&["run", "m.toml", "--json", "--workers", "2"]).expect(0);
        let summary = ended.summary();
        assert!(summary["cache_hits"].as_u64() > Some(0), "{summary}");
        summary["cache_misses"].as_u64().unwrap()
    };
    assert_eq!(misses("preset = \"cpu\""), 0);
    assert!(misses("preset = \"memory\"") > 0, "16 MiB do not hold them all");
    assert_eq!(misses("preset = \"memory\"\ncache_bytes = \"256MiB\""), 0, "what is said itself comes first");
}

// ---- figures of each op ----

#[test]
fn what_each_op_took_is_kept_with_the_run() {
    let functions = "import time\ndef hold(mb):\n    held = bytearray(b'x') * (mb * 1_000_000)\n    time.sleep(0.1)\n    return len(held)\n";
    let each = |id: &str, op: &str, count: u32, params: &str| {
        format!(
            "[[node]]\nid = \"{id}\"\nop = \"{op}\"\nforeach = \"{{{{ range(0, {count}) }}}}\"\nparams = {{ {params} }}\n"
        )
    };
    let nodes = [
        each("sleep", "sleep", 5, "seconds = 0.2"),
        each("spin", "spin", 4, "seconds = 0.2"),
        each("alloc", "alloc", 3, "bytes = 100000000, seconds = 0.1"),
        each("noop", "noop", 20, ""),
        "[[node]]\nid = \"exec\"\nop = \"exec\"\nrun = [\"python3\", \"take.py\"]\n".into(),
        call("python", "hold", "args = [100]"),
    ];
    let space = python_space(functions, "", &nodes.concat());
    space.write("take.py", "import time\nheld = bytearray(b'x') * 100_000_000\ntime.sleep(0.5)\n");
    let ended = space.run(&["run", "m.toml", "--json", "--workers", "2"]).expect(0);
    let kept: Value = serde_json::from_str(&space.text(".forkyard/runs/1/summary.json")).unwrap();
    assert_eq!(kept["ops"], ended.summary()["ops"]);
    let ops = &kept["ops"];
    let number = |op: &str, what: &str, word: &str| {
        ops[op][what][word].as_f64().unwrap_or_else(|| panic!("{op} {what}: {}", ops[op]))
    };
    for op in ["sleep", "spin", "alloc", "python3 take.py", "f.py:hold"] {
        for what in ["seconds", "cpu_seconds", "private_bytes"] {
            let [count, mean, median, std, min, max, p95, p99] =
                ["count", "mean", "median", "std", "min", "max", "p95", "p99"]
                    .map(|word| number(op, what, word));
            assert!(count >= 1.0 && std >= 0.0, "{op} {what}");
            assert!(
                min <= mean && mean <= max && min <= median && median <= p95,
                "{op} {what}: {}",
                ops[op][what]
            );
            assert!(p95 <= p99 && p99 <= max, "{op} {what}: {}", ops[op][what]);
        }
        assert!(number(op, "cpu_seconds", "max") <= 2.0 * number(op, "seconds", "max"), "{op}");
    }
    let counts = ["sleep", "spin", "alloc", "noop", "python3 take.py", "f.py:hold"]
        .map(|op| number(op, "seconds", "count"));
    assert_eq!(counts, [5.0, 4.0, 3.0, 20.0, 1.0, 1.0]);
    assert!(number("sleep", "seconds", "min") >= 0.2 && number("spin", "seconds", "min") >= 0.2);
    // Who sleeps wants no core, however busy they are; who spins takes what the others leave it.
    assert!(number("sleep", "cpu_seconds", "max") < 0.05, "{}", ops["sleep"]);
    assert!(
        number("spin", "cpu_seconds", "mean") > 2.0 * number("sleep", "cpu_seconds", "max"),
        "{}",
        ops["spin"]
    );
    // The kernel counts pages in portions.
    for op in ["alloc", "f.py:hold", "python3 take.py"] {
        let most = number(op, "private_bytes", "max");
        assert!((99e6..200e6).contains(&most), "{op}: {most}");
    }
    assert!(number("sleep", "private_bytes", "max") < 5e6);
}
