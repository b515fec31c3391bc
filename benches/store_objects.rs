//! The store beside others of its kind, on the objects of one file: how many become durable a second, and
//! how many are read again. `scripts/figures/store_peers.py` runs it and prints one JSON object as a row.
//!
//! Not a Criterion bench: a store is filled once, and what is measured is all of that.

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use forkyard::bench::{Log, Lookup, fold};
use forkyard_shared::digest::Digest;
use nix::unistd::syncfs;
use serde_json::{Value, json};

const USAGE: &str = "usage: store_objects hybrid|sqlite|filesystem|files|cacache OBJECTS BYTES DIR | tiny COUNT DIR (DIR must be empty)";

/// Objects made durable together.
const GROUP: usize = 4096;

type Object = (Digest, Vec<u8>);
type Figure<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match measure(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("store_objects: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &[&str]) -> Figure<Value> {
    if let ["tiny", count, dir] = args {
        return tiny(count.parse()?, Path::new(dir));
    }
    let [store, objects, bytes, dir] = args else { return Err(USAGE.into()) };
    let all = fs::read(objects).map_err(|error| format!("read {objects}: {error}"))?;
    let objects: Vec<Object> =
        all.chunks_exact(bytes.parse()?).map(|object| (Digest::of(object), object.to_vec())).collect();
    let dir = Path::new(dir);
    match *store {
        "hybrid" | "sqlite" | "filesystem" => ours(store, &objects, dir),
        "files" => {
            (0..=255u8).try_for_each(|byte| fs::create_dir(dir.join(format!("{byte:02x}"))))?;
            let write = |(key, bytes): &Object| Ok(fs::write(path(dir, *key), bytes)?);
            in_files(&objects, dir, write, |key| Ok(fs::read(path(dir, key))?))
        }
        "cacache" => {
            let write = |(key, bytes): &Object| Ok(cacache::write_sync(dir, key.to_hex(), bytes).map(drop)?);
            in_files(&objects, dir, write, |key| Ok(cacache::read_sync(dir, key.to_hex())?))
        }
        _ => Err(USAGE.into()),
    }
}

/// A store of this layout. Each write and read takes a digest of the bytes.
fn ours(layout: &str, objects: &[Object], dir: &Path) -> Figure<Value> {
    let mut log = Log::create(dir, layout)?;
    let writes_per_s = per_second(objects.len(), || {
        for group in objects.chunks(GROUP) {
            log.append(group);
        }
        Ok(())
    })?;
    if log.durable() != objects.len() as u64 {
        return Err(format!("{} of {} objects are durable", log.durable(), objects.len()).into());
    }
    drop(log);
    let start = Instant::now();
    let lookup = Lookup::open(dir, objects.len())?;
    let open_s = start.elapsed().as_secs_f64();
    let reads_per_s = lookup.at_one_moment(|| read_all(objects, |key| Ok(lookup.read(key)?)))?;
    Ok(json!({ "writes_per_s": writes_per_s, "reads_per_s": reads_per_s, "open_s": open_s }))
}

/// Results of 64 bytes: made durable, folded, and looked up one by one.
fn tiny(count: u64, dir: &Path) -> Figure<Value> {
    const LOOK_UPS: usize = 10_000;
    let objects: Vec<Object> = (0..count)
        .map(|n| {
            let digest = Digest::of(&n.to_le_bytes());
            (digest, [digest.0, Digest::of(&digest.0).0].concat())
        })
        .collect();
    let mut log = Log::create(dir, "hybrid")?;
    let durable_s = objects.chunks(GROUP).map(|group| log.append(group).as_secs_f64()).sum::<f64>();
    drop(log);
    let appended_bytes = disk_bytes(dir)?;
    let cold = |folded: bool| -> Figure<f64> {
        // Nothing is expected, so that little is learnt.
        let lookup = Lookup::open(dir, if folded { 0 } else { objects.len() })?;
        median_us(&lookup, &objects, LOOK_UPS)
    };
    let unfolded_us = cold(false)?;
    let (mut peak_bytes, start) = (appended_bytes, Instant::now());
    let mut measuring = std::time::Duration::ZERO;
    fold(dir, || {
        let pause = Instant::now();
        peak_bytes = peak_bytes.max(disk_bytes(dir).unwrap_or(0));
        measuring += pause.elapsed();
    })?;
    let fold_s = (start.elapsed() - measuring).as_secs_f64();
    let learnt = Lookup::open(dir, objects.len())?;
    Ok(json!({
        "durable_s": durable_s, "fold_s": fold_s, "peak_disk_bytes": peak_bytes, "disk_bytes": disk_bytes(dir)?,
        "unfolded_us": unfolded_us, "cold_us": cold(true)?, "warm_us": median_us(&learnt, &objects, LOOK_UPS)?,
    }))
}

/// The median of single look-ups, spread over all keys.
fn median_us(lookup: &Lookup, objects: &[Object], count: usize) -> Figure<f64> {
    let step = (objects.len() / count).max(1);
    let mut times: Vec<f64> = Vec::with_capacity(count);
    for (key, _) in objects.iter().step_by(step) {
        let start = Instant::now();
        if lookup.count(std::iter::once(key)) != 1 {
            return Err(format!("key {key} is not found").into());
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn disk_bytes(dir: &Path) -> Figure<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let metadata = entry?.metadata()?;
        total += if metadata.is_file() { metadata.blocks() * 512 } else { 0 };
    }
    Ok(total)
}

/// Something that writes files and syncs none: the file system is synced after each group.
fn in_files(
    objects: &[Object],
    dir: &Path,
    write: impl Fn(&Object) -> Figure<()>,
    read: impl Fn(Digest) -> Figure<Vec<u8>>,
) -> Figure<Value> {
    let root = File::open(dir)?;
    let writes_per_s = per_second(objects.len(), || {
        objects.chunks(GROUP).try_for_each(|group| {
            group.iter().try_for_each(&write)?;
            Ok(syncfs(&root)?)
        })
    })?;
    Ok(json!({ "writes_per_s": writes_per_s, "reads_per_s": read_all(objects, read)? }))
}

fn path(dir: &Path, key: Digest) -> PathBuf {
    let hex = key.to_hex();
    dir.join(&hex[..2]).join(hex)
}

/// Reads everything twice, once to check it and once to measure, in an order that is not that of writing.
fn read_all(objects: &[Object], read: impl Fn(Digest) -> Figure<Vec<u8>>) -> Figure<f64> {
    for (key, bytes) in objects {
        if read(*key)? != *bytes {
            return Err(format!("object {key} comes back as other bytes").into());
        }
    }
    let mut keys: Vec<Digest> = objects.iter().map(|(key, _)| *key).collect();
    keys.sort();
    per_second(keys.len(), || keys.iter().try_for_each(|key| read(*key).map(black_box).map(drop)))
}

fn per_second(count: usize, work: impl FnOnce() -> Figure<()>) -> Figure<f64> {
    let start = Instant::now();
    work()?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
