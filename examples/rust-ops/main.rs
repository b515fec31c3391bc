//! A program with a pool in it, and an op of its own: how unusual was the weather at each station?
//!
//! `cargo run` here prints the three most unusual stations; the second time nothing is computed.

use std::error::Error;

use forkyard::{Failed, Node, Ops, Output, Pool, Task};
use serde::{Deserialize, Serialize};

/// A record of the artifact.
#[derive(Deserialize)]
struct Station {
    id: String,
    /// Degrees Celsius, one a day.
    temperatures: Vec<f64>,
}

/// What the op returns.
#[derive(Serialize, Deserialize)]
struct Score {
    station: String,
    /// How far the mean is from the baseline, in degrees Celsius.
    deviation: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    // The first line: from here on every worker is a copy of this process. Raise the version when the op's results
    // change; without one (`op` in place of `versioned`) every build of the program computes everything anew.
    forkyard::init(Ops::standard().versioned("unusual", 1, unusual));

    let baseline = std::env::args().nth(1).map_or(Ok(12.0), |degrees| degrees.parse::<f64>())?;
    let pool = Pool::builder()
        .artifact("stations", "stations.jsonl")
        .var("baseline", baseline)
        .store(".forkyard")
        .start()?;

    let row = |row: u64| Node::new("unusual").artifact("stations").param("row", row).reads("baseline");
    let tickets = pool.submit_many((0..6).map(row))?;
    let mut scores = Vec::new();
    for ticket in &tickets {
        let value = ticket.wait()?;
        // Who has computed it says so; a stored result brings that along.
        assert!(value.written().any(|(key, _)| key == "days"));
        scores.push(value.json::<Score>()?);
    }
    scores.sort_by(|a, b| b.deviation.total_cmp(&a.deviation));
    for Score { station, deviation } in scores.iter().take(3) {
        println!("{station:10} {deviation:+.1}");
    }

    // What goes wrong is an error of this ticket, and the pool goes on.
    let missing = pool.submit(row(99))?.wait().expect_err("there is no such station");
    println!("station 99: {missing}");
    pool.close()?;
    Ok(())
}

/// Parameter `row`: which record of the artifact. Reads the variable `baseline`, sets `days`.
fn unusual(task: &Task) -> Result<Output, Failed> {
    let (row, baseline) = (task.param::<u64>("row")?, task.state().get::<f64>("baseline")?);
    let baseline = baseline.ok_or_else(|| Failed::new("the pool has no variable `baseline`"))?;
    let records = task.records()?;
    let record = records
        .row(row)
        .ok_or_else(|| Failed::new(format!("there is no record {row}: there are {}", records.len())))?;
    let Station { id, temperatures } = serde_json::from_slice(record)?;
    let days = temperatures.len();
    eprintln!("computing {id}");
    task.state().set("days", &days)?;
    let mean = temperatures.iter().sum::<f64>() / days as f64;
    Output::json(&Score { station: id, deviation: mean - baseline })
}
