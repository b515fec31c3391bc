//! Bugs that were fixed, one test each, with a sentence about what broke.

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::util::{RUN, Space, eventually, send, text};

/// A zygote that was killed before it had been asked for anything was taken for a system without room for
/// processes: exit 5.
#[test]
fn a_zygote_killed_before_its_first_command_is_told_as_that() {
    let space = Space::new();
    nix::unistd::mkfifo(&space.path("m.toml"), Mode::S_IRWXU).unwrap();
    // The coordinator waits for its manifest.
    let run = space.start(&RUN);
    send(run.zygote(), Signal::SIGKILL);
    space.write("m.toml", "[[node]]\nid = \"a\"\nop = \"noop\"\n");
    run.end().expect(70).says("the zygote, the process that forks the workers, was killed");
    space.expect_nothing_left();
}

/// With layout sqlite, the copy of a large result that commands open was removed as soon as an equal result that
/// nobody reads was stored.
#[test]
fn an_equal_result_that_nobody_reads_does_not_take_away_the_copy_that_is_read() {
    let space = Space::new();
    let (begun, journal) = (space.path("begun"), space.path(".forkyard/runs/1/journal"));
    let (begun, journal) = (text(&begun), text(&journal));
    space.write(
        "m.toml",
        format!(
            r#"
            run = {{ layout = "sqlite", commit = {{ every = 1, within = "1ms" }} }}
            [[node]]
            id = "read"
            op = "exec"
            shell = true
            run = "yes | head -c 40000"
            [[node]]
            id = "the-equal-one"
            needs = ["read"]
            op = "exec"
            shell = true
            run = "until [ -e {begun} ]; do sleep 0.01; done; yes | head -c 40000"
            [[node]]
            id = "reader"
            inputs = {{ it = "{{{{ nodes.read.result }}}}" }}
            op = "exec"
            shell = true
            run = """touch {begun}
            until grep -q the-equal-one {journal}; do sleep 0.01; done
            wc -c < "$FORKYARD_INPUT_IT" """
            "#
        ),
    );
    space.run(&[&RUN[..], &["--workers", "2"]].concat()).expect(0);
    assert_eq!(space.result_text("reader").trim(), "40000");
}

/// A gc that was to keep no run and was killed when it had removed the last one left all results for ever: the next
/// gc took them for those of a run to come.
#[test]
fn a_gc_that_was_killed_after_the_last_run_was_gone_can_be_repeated() {
    let space = Space::with("[[node]]\nid = \"a\"\nop = \"noop\"\n");
    space.run_manifest(0);
    std::fs::remove_dir_all(space.path(".forkyard/runs/1")).unwrap();
    space.run(&["store", "gc", "--keep-runs", "0"]).expect(0).says("1 result");
    assert!(space.run(&["store", "ls", "--json"]).expect(0).stdout.is_empty());
}

/// What left the gate in the end of a run let others in that were settled already: a panic, exit 101.
#[test]
fn a_zygote_that_dies_while_nodes_wait_at_a_gate_is_no_panic() {
    let space = Space::with(
        "[groups.g]\nconcurrency = 1\n[[node]]\nid = \"a\"\nop = \"exec\"\nshell = true\nrun = ['touch up; sleep 1000']\n\
         foreach = \"{{ range(4) }}\"\nsalt = \"{{ index }}\"\ngroup = \"g\"\n",
    );
    let run = space.start(&RUN);
    eventually("one runs", || space.path("up").exists());
    send(run.zygote(), Signal::SIGKILL);
    run.end().expect(70);
    space.expect_nothing_left();
}

/// The coordinator asked for the death of 700 workers one by one, and the zygote told of their deaths, both without
/// reading: neither ended.
#[test]
fn the_death_of_very_many_workers_keeps_nobody() {
    let space = Space::with(
        "[[node]]\nid = \"a\"\nop = \"sleep\"\nforeach = \"{{ range(0, 700) }}\"\nparams = { seconds = 1000 }\n",
    );
    let mut run = space.start(&["run", "m.toml", "--workers", "700", "--json"]);
    run.event("worker_started", |event| event["worker"] == 699);
    run.signal(Signal::SIGTERM);
    run.says("interrupted: waiting");
    run.signal(Signal::SIGTERM);
    run.end().expect(143);
    space.expect_nothing_left();
}
