//! `forkyard map`: one line in place of a manifest. It makes a manifest of one node with an item each, runs that, and
//! writes the results in the items' order.

use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};

use forkyard_worker::params::ParamKind;
use serde_json::{Map as Fields, Value, json};

use super::args::Map;
use super::exit::{Exit, Failure, printed};
use super::run::{exit, summary};
use super::runs::{find, outcomes};
use crate::export::{self, Format, Row};
use crate::init::Runtime;
use crate::manifest::ManifestError;
use crate::only::Only;
use crate::report::{EventsWanted, ReportOptions};
use crate::run::{RunError, RunOptions};
use crate::store::{Reader, StoreDir};
use crate::text;

/// The id of the node.
const ID: &str = "map";

pub(super) fn map(args: &Map, store: &Path, runtime: &Runtime) -> Result<Exit, Failure> {
    let usage = |why: String| Failure::new(Exit::Usage, why);
    let is_function = ParamKind::Call.check(&Value::from(args.call.as_str())).is_ok();
    let items = items(args, is_function).map_err(usage)?;
    let count = items.len();
    let manifest = manifest(args, is_function, items).map_err(usage)?;
    let options = RunOptions {
        manifest: PathBuf::from(format!("map {}", args.call)),
        text: Some(manifest),
        given: Default::default(),
        store: store.into(),
        workers: args.workers.0,
        preset: None,
        sample: None,
        only: Only::named(&[]),
        refresh: Vec::new(),
        keep_going: true,
        max_failures: None,
        ends_after: None,
        report: ReportOptions { json: false, events: EventsWanted::None, quiet: args.quiet, trace: None },
    };
    if !is_function && args.call.ends_with(".py") && Path::new(&args.call).is_file() {
        return Err(usage(format!(
            "{0} is a file: {0}:FUNCTION names a function in it, and `python3 {0}` runs it",
            args.call
        )));
    }
    let result = crate::run::run(&options, runtime).map_err(|error| match error {
        // Nobody wrote the manifest: places in it say nothing.
        RunError::Manifest(ManifestError::Mistakes(mistakes)) => {
            usage(mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>().join("\n"))
        }
        other => other.into(),
    })?;
    if !args.quiet {
        eprintln!("{}", summary(&result, store));
    }
    if result.error.is_some() {
        return exit(result);
    }
    let written = write(store, result.run, count, (is_function, args.json))?;
    match exit(result)? {
        Exit::NodesFailed if args.quiet => {
            eprintln!(
                "forkyard: some items failed; without --quiet it is said why, and `forkyard status` tells"
            );
            Ok(Exit::NodesFailed)
        }
        Exit::Ok => Ok(written),
        other => Ok(other),
    }
}

/// The items: what stands in a file or comes from stdin, a line each, or the words themselves.
fn items(args: &Map, is_function: bool) -> Result<Vec<Value>, String> {
    let is_list = |word: &str| [".jsonl", ".ndjson", ".txt"].iter().any(|ending| word.ends_with(ending));
    let file = match (&args.items_from, args.items.as_slice()) {
        (Some(_), [_, ..]) => {
            return Err("items come from --items-from or from the words, not from both".into());
        }
        (Some(file), []) => Some(file.clone()),
        (None, [word]) if word == "-" || is_function && is_list(word) => Some(word.into()),
        (None, []) => {
            return Err(
                "there are no items: name a file of them (one a line), `-` for standard input, or words"
                    .into(),
            );
        }
        (None, _) => None,
    };
    let Some(file) = file else { return Ok(args.items.iter().map(|word| word.as_str().into()).collect()) };
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    let read = match name.as_str() {
        "-" => std::io::stdin().read_to_end(&mut bytes),
        _ => std::fs::File::open(&file).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| format!("read items from {name}: {error}"))?;
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(..3);
    }
    let as_text = args.lines || !is_function || name.ends_with(".txt");
    let mut items = Vec::new();
    for (number, line) in bytes.lines().enumerate() {
        let at = number + 1;
        let line = line.map_err(|_| format!("{name}:{at}: this is not UTF-8 text"))?;
        if as_text {
            items.push(line.into());
        } else if !line.trim().is_empty() {
            if let Some(number) = text::long_integer(&line) {
                return Err(format!(
                    "{name}:{at}: the number {number} does not fit 64 bits; write it as a string"
                ));
            }
            let item = serde_json::from_str(&line);
            items.push(item.map_err(|error| {
                format!("{name}:{at}: this is no JSON value ({error}); for plain lines say --lines")
            })?);
        }
    }
    Ok(items)
}

/// A manifest of one node.
fn manifest(args: &Map, is_function: bool, items: Vec<Value>) -> Result<String, String> {
    let mut header = json!({ "forkyard": 1, "run": { "name": args.call } });
    let mut artifacts = Fields::new();
    for pair in &args.artifacts {
        let wrong = || format!("`{pair}`: an artifact is NAME=FILE, as -a emb=emb.npy");
        let (name, path) = pair.split_once('=').ok_or_else(wrong)?;
        artifacts.insert(name.into(), json!({ "path": path }));
    }
    let names: Vec<&String> = artifacts.keys().collect();
    let mut node = json!({ "id": ID, "artifacts": names, "foreach": { "list": items } });
    if is_function {
        node["op"] = "python".into();
        node["call"] = args.call.as_str().into();
        node["args"] = json!(["{{ item }}"]);
        if !args.code.is_empty() {
            node["code"] = args.code.as_slice().into();
        }
        header["python"] = python(args);
    } else {
        node["op"] = "exec".into();
        node["run"] = command(&args.call, args.shell)?;
        if args.shell {
            node["shell"] = true.into();
        }
    }
    let words = [("timeout", &args.timeout), ("rate", &args.rate), ("salt", &args.salt)];
    for (word, value) in words.into_iter().filter_map(|(word, value)| Some((word, value.as_ref()?))) {
        node[word] = value.as_str().into();
    }
    if let Some(attempts) = args.attempts {
        node["retry"] = json!({ "attempts": attempts, "backoff": "100ms" });
    }
    if !args.secrets.is_empty() {
        header["secrets"] = json!({ "env": args.secrets });
    }
    header["artifacts"] = artifacts.into();
    Ok(format!("{header}\n{node}\n"))
}

fn python(args: &Map) -> Value {
    let mut python = Fields::new();
    if let Some(interpreter) = &args.python {
        python.insert("interpreter".into(), interpreter.as_str().into());
    }
    if let Some(count) = args.concurrency {
        python.insert("concurrency".into(), count.into());
    }
    for (word, list) in [("path", &args.path), ("preload", &args.preload)] {
        if !list.is_empty() {
            python.insert(word.into(), list.as_slice().into());
        }
    }
    python.into()
}

/// The words of a command in which `{}` stands for the item; without any, the item is the last word.
fn command(line: &str, shell: bool) -> Result<Value, String> {
    const ITEM: &str = "{{ item }}";
    if shell {
        // The shell gets the item as a parameter, so that nothing in it is taken for shell.
        let script =
            if line.contains("{}") { line.replace("{}", "\"$1\"") } else { format!("{line} \"$1\"") };
        return Ok(json!([literal(&script), "forkyard-map", ITEM]));
    }
    let words = shlex::split(line).ok_or_else(|| format!("`{line}`: a quote is not closed"))?;
    if words.is_empty() {
        return Err("the command is empty".into());
    }
    let with_item = |word: &String| word.split("{}").map(literal).collect::<Vec<_>>().join(ITEM);
    let mut run: Vec<String> = words.iter().map(with_item).collect();
    if !line.contains("{}") {
        run.push(ITEM.into());
    }
    Ok(run.into())
}

/// Text in which nothing is an expression, whatever it looks like.
fn literal(text: &str) -> String {
    text.replace('{', "{{ '{' }}")
}

/// Writes the results in the items' order: of a function a JSON value a line, of a command what it wrote.
fn write(
    store: &Path,
    run: u64,
    count: usize,
    (is_function, as_rows): (bool, bool),
) -> Result<Exit, Failure> {
    let mut entries = outcomes(&find(store, Some(run))?);
    let reader = Reader::look(&StoreDir::new(store), 0)?;
    if as_rows {
        let entries = (0..count).filter_map(|index| entries.remove(&format!("{ID}[{index}]")));
        let rows = entries.map(|entry| Row::of(entry, &reader, Format::Jsonl));
        return printed(export::write(rows, Format::Jsonl, std::io::stdout()));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut lost = None;
    for index in 0..count {
        let entry = entries.remove(&format!("{ID}[{index}]"));
        let row = entry.map(|entry| Row::of(entry, &reader, Format::Jsonl));
        if let Some(row) = row.as_ref().filter(|row| row.lack.is_some()) {
            lost.get_or_insert_with(|| format!("{}: {}", row.node, row.error.as_deref().unwrap_or_default()));
        }
        let value = row.as_ref().and_then(|row| row.value.as_ref());
        let written = match value {
            Some(value) if is_function => export::write_json(value, &mut out),
            Some(value) => value.write_to(&mut out),
            None if is_function => out.write_all(b"null"),
            None => Ok(()),
        };
        let written = written.and_then(|()| if is_function { out.write_all(b"\n") } else { Ok(()) });
        if written.is_err() {
            return printed(written);
        }
    }
    match (printed(out.flush())?, lost) {
        (_, Some(lost)) => Err(Failure::new(Exit::Store, format!("a result could not be read: {lost}"))),
        (exit, None) => Ok(exit),
    }
}
