//! `store.json`: which format a store has, and which layout it was made with. It is written when everything
//! else of a new store is there, and never changed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use forkyard_shared::private;
use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// The format of stores of all layouts. A newer one is refused by name.
pub(crate) const FORMAT: u64 = 1;

/// Where results and their values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// Everything in one database.
    Sqlite,
    /// Results and small values in a database, large values in files.
    #[default]
    Hybrid,
    /// No database: a file for each result, and one for each large value.
    Filesystem,
}

impl Layout {
    /// All of them.
    pub const ALL: [Layout; 3] = [Layout::Sqlite, Layout::Hybrid, Layout::Filesystem];

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Sqlite => "sqlite",
            Layout::Hybrid => "hybrid",
            Layout::Filesystem => "filesystem",
        }
    }

    /// The layout of this name.
    pub fn from_name(name: &str) -> Option<Layout> {
        Layout::ALL.into_iter().find(|layout| layout.name() == name)
    }
}

#[derive(Serialize, Deserialize)]
struct StoreJson {
    format: u64,
    layout: Layout,
}

/// What a newer forkyard will have written too.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
}

/// The layout of the store in `dir`; `None` if there is no store yet.
pub(super) fn read(dir: &Path) -> Result<Option<Layout>, StoreError> {
    let path = dir.join("store.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::Io(format!("read {}", path.display()), error)),
    };
    let damaged = |error| {
        StoreError::Damaged(format!(
            "{} is damaged: {error}; the store cannot be read without it",
            path.display()
        ))
    };
    let AnyFormat { format } = serde_json::from_slice(&text).map_err(damaged)?;
    if format > FORMAT {
        return Err(StoreError::Newer(dir.into(), format));
    }
    if format < FORMAT {
        return Err(StoreError::Damaged(format!(
            "{} is damaged: there is no format {format}",
            path.display()
        )));
    }
    let known: StoreJson = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(Some(known.layout))
}

/// Declares a store complete.
pub(super) fn write(dir: &Path, layout: Layout) -> Result<(), StoreError> {
    let path = dir.join("store.json");
    let temporary = dir.join("store.json.new");
    let text = serde_json::to_string(&StoreJson { format: FORMAT, layout }).expect("it is plain data");
    let write = || {
        let mut file = private::create(&temporary)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| StoreError::Io(format!("write {}", path.display()), error))
}
