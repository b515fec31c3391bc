//! Python nodes: what functions get and return, what becomes of those that misbehave, and when they run again.

mod code; // which code a node calls, when it runs again, who imports it
mod coroutines; // many at once in one process
mod functions; // those that do more than compute: print, fork, hang, raise
mod map; // one line in place of a manifest, and from Python
mod processes; // killed from outside
mod secrets;
mod values; // what goes in and comes out

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::util::{Ended, RUN, Running, Space, eventually, lives, matrix, python, send};

/// A node that calls a function of `f.py`.
fn call(id: &str, function: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"python\"\ncall = \"f.py:{function}\"\n{more}\n")
}

/// A space with these functions and nodes, and the interpreter that has numpy.
fn space(functions: &str, more: &str, nodes: &[String]) -> Space {
    space_with(functions, &format!("[python]\ninterpreter = \"{}\"\n{more}", python().display()), nodes)
}

fn space_with(functions: &str, header: &str, nodes: &[String]) -> Space {
    let space = Space::with(&format!("{header}\n{}", nodes.concat()));
    space.write("f.py", functions);
    space
}

fn error(ended: &Ended, node: &str) -> String {
    ended.node(node)["error"].as_str().unwrap_or_default().into()
}

impl Space {
    fn json(&self, node: &str) -> Value {
        serde_json::from_slice(&self.result(node)).unwrap()
    }
}

const NUMPY: &str = "import numpy as np\nimport forkyard\n";
