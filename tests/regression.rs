//! Bugs that were fixed, one test each, with a sentence about what broke.

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::util::{RUN, Space, send};

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
