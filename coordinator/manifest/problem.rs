//! What is wrong with a manifest, and where.

use std::fmt;
use std::path::PathBuf;

use super::used::Used;

/// A manifest that cannot be run.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file that cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Mistakes in the text, at most [`PROBLEMS_MAX`] of them.
    Mistakes(Vec<Problem>),
}

/// More mistakes than this are not listed.
pub(super) const PROBLEMS_MAX: usize = 20;

/// One mistake.
#[derive(Debug, PartialEq)]
pub struct Problem {
    /// The file, as the user would name it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ManifestError::Unreadable { path, error } => write!(f, "read {}: {error}", path.display()),
            ManifestError::Mistakes(problems) => {
                for (index, problem) in problems.iter().enumerate() {
                    let newline = if index == 0 { "" } else { "\n" };
                    write!(f, "{newline}{problem}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ManifestError {}

/// A mistake inside one node or table, before anybody has asked where in the file that is.
#[derive(Debug)]
pub(super) struct Fault {
    /// The way from the node to the value at fault.
    pub path: Vec<Step>,
    pub message: String,
    /// What it is about, if the way is yet to be found.
    pub used: Option<Used>,
}

/// One step into a table or a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Fault {
        Fault { path: Vec::new(), message: message.into(), used: None }
    }

    /// Wherever the node names this.
    pub fn using(used: Used, message: impl Into<String>) -> Fault {
        Fault { used: Some(used), ..Fault::new(message) }
    }

    /// At the value of this key.
    pub fn at(key: &str, message: impl Into<String>) -> Fault {
        Fault::new(message).inside(key)
    }

    /// The same fault, seen from one table further out.
    pub fn inside(mut self, key: &str) -> Fault {
        self.path.insert(0, Step::Key(key.into()));
        self
    }

    /// The same fault, seen from further out: a table's key, or a list's position.
    pub fn inside_any(self, step: &str) -> Fault {
        match step.parse() {
            Ok(index) => self.in_item(index),
            Err(_) => self.inside(step),
        }
    }

    /// The same fault, seen from one list further out.
    pub fn in_item(mut self, index: usize) -> Fault {
        self.path.insert(0, Step::Index(index));
        self
    }
}
