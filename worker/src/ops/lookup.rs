//! `lookup`: one record of an artifact, by key or by row.

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Lookup;

impl Op for Lookup {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] =
            &[ParamSpec::optional("key", ParamKind::Any), ParamSpec::optional("row", ParamKind::Count)];
        Signature { params: Some(PARAMS), artifacts: Artifacts::One, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let (key, row) = (task.optional::<serde_json::Value>("key")?, task.optional::<u64>("row")?);
        if let Some(table) = task.table()? {
            let (None, Some(row)) = (key, row) else {
                return Err(Failed::new("lookup in a table takes a row"));
            };
            let found = table.row(row).ok_or_else(|| no_row(row, table.rows(), "rows"))?;
            return Output::json(&found);
        }
        let records = task.records()?;
        let record = match (key, row) {
            (Some(key), None) => {
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                records.by_key(&key).ok_or_else(|| Failed::new(format!("no record has the key \"{key}\"")))?
            }
            (None, Some(row)) => records.row(row).ok_or_else(|| no_row(row, records.len(), "records"))?,
            _ => return Err(Failed::new("lookup takes either key or row")),
        };
        let record: serde_json::Value = serde_json::from_slice(record)?;
        Output::json(&record)
    }
}

fn no_row(row: u64, count: u64, noun: &str) -> Failed {
    Failed::new(format!("there is no row {row}: the artifact has {count} {noun}"))
}
