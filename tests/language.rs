//! The workflow language: what every word makes a run do. What is wrong with a manifest is in `broken`.
//!
//! What happens at the same time, or before something else, is shown by files that nodes make and wait for:
//! nothing here measures time.

mod conditions; // when, after, route: which nodes run at all
mod expressions; // what stands in braces, and what it is worth
mod items; // foreach, each, chunk: one node, many results
mod limits; // concurrency, groups, rate
mod races; // the first of many
mod repeats; // again until it will do
mod resumed;
mod reviewed; // where words meet // stopped and started again, or in part

use crate::util::{Ended, RUN, Space};

/// A node of `exec` for a shell.
fn shell(id: &str, script: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['''{script}''']\n{more}\n")
}

fn noop(id: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"noop\"\n{more}\n")
}

/// A node whose result is this value, in TOML.
fn value(id: &str, value: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"value\"\nparams = {{ value = {value} }}\n{more}\n")
}

/// A line of shell that waits until a file is there.
fn wait_for(file: &str) -> String {
    format!("while [ ! -e {file} ]; do sleep 0.01; done")
}

impl Space {
    /// Runs `m.toml` with more arguments; it must end with this code.
    fn run_with(&self, args: &[&str], code: i32) -> Ended {
        self.run(&[&RUN[..], args].concat()).expect(code)
    }

    /// How many lines there are in a file.
    fn lines(&self, file: &str) -> usize {
        self.text(file).lines().count()
    }
}

/// Why a node has no result.
fn error(ended: &Ended, node: &str) -> String {
    ended.node(node)["error"].as_str().unwrap_or_default().into()
}
