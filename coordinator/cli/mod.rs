//! The command line: what was typed, what it means, what comes out and the exit code.

mod args;
mod artifact;
mod context;
mod control;
mod doctor;
mod exit;
mod failed;
mod import;
mod logs;
mod map;
mod plan;
mod results;
mod run;
mod runs;
mod store;
mod stress;
mod tune;
mod why;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::importer::{Arrangement, Existing};
use crate::init::Runtime;
use args::{Args, ArtifactCommand, Command, ContextCommand, ResultsCommand};
use control::Request;
use exit::Exit;

/// Runs the `forkyard` command with this process's arguments. [`crate::init`] must have been called.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            error.print().ok();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    args.color.apply();
    let runtime = match Runtime::get() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("forkyard: {error}");
            return Exit::Bug.into();
        }
    };
    let store = args.store.as_path();
    let exit = match args.command {
        Command::Run(run) => run::run(&run, store, runtime),
        Command::Map(map) => map::map(&map, store, runtime),
        Command::Plan(plan) => plan::plan(&plan, store, runtime),
        Command::Tune(tune) => tune::tune(&tune, store, runtime),
        Command::Why { manifest, node, json } => why::why(&manifest, &node, store, json, runtime),
        Command::Stress(args) => stress::run(&args, store, runtime),
        Command::Runs { json } => runs::list(store, json),
        Command::Status { run, json } => runs::status(store, run, json),
        Command::Cancel { run } => control::control(store, run, Request::Cancel),
        Command::Pause { run } => control::control(store, run, Request::Pause),
        Command::Resume { run } => control::control(store, run, Request::Resume),
        Command::Logs { run_or_node, node } => logs::logs(store, &run_or_node, node.as_deref()),
        Command::Results { command } => match command {
            ResultsCommand::Ls { run, json } => results::ls(store, run, json),
            ResultsCommand::Cat { node, run } => results::cat(store, &node, run),
            ResultsCommand::Export { format, run, file } => results::export(store, run, format, &file),
        },
        Command::Store { command } => store::store(store, command),
        Command::Context { command: ContextCommand::Export { of } } => {
            context::export(store, of.as_deref(), runtime)
        }
        Command::Artifact { command: ArtifactCommand::Info { file, format, json } } => {
            artifact::info(&file, format.as_deref(), json)
        }
        Command::Artifact { command: ArtifactCommand::Import { from, to, apart, force, python } } => {
            let arrangement = if apart { Arrangement::Apart } else { Arrangement::Together };
            let existing = if force { Existing::Replaced } else { Existing::Kept };
            artifact::import(&from, &to, &python, arrangement, existing)
        }
        Command::Import { command } => import::import(&command),
        Command::Doctor { json } => doctor::doctor(store, json),
        Command::PythonModule => {
            exit::printed(std::io::stdout().write_all(forkyard_worker::PYTHON_MODULE.as_bytes()))
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "forkyard", &mut std::io::stdout());
            Ok(Exit::Ok)
        }
        Command::Man => exit::printed(clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout())),
    };
    runtime.end();
    match exit {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("forkyard: {}", failure.message);
            failure.exit.into()
        }
    }
}
