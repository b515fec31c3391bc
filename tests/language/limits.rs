//! `concurrency`, `group`, `rate`: how many at once, how many in a second.

use super::{noop, shell, value, wait_for};
use crate::util::Space;

/// A line of shell that fails if more than so many of these run at once: each takes one of the places.
fn at_most(places: u32, name: &str) -> String {
    let all: Vec<String> = (0..places).map(|place| place.to_string()).collect();
    format!(
        "for p in {}; do if mkdir {name}.$p 2> /dev/null; then sleep 0.02; rmdir {name}.$p; exit 0; fi; done; exit 1",
        all.join(" ")
    )
}

#[test]
fn never_more_items_at_once_than_concurrency() {
    let manifest = shell(
        "a",
        &at_most(2, "lock"),
        "foreach = \"{{ range(30) }}\"\nconcurrency = 2\nsalt = \"{{ item }}\"",
    );
    let space = Space::with(&manifest);
    space.run_with(&["--workers", "6"], 0);
    // The test of the test: without the limit there are more.
    let space = Space::with(&manifest.replace("concurrency = 2\n", ""));
    space.run_with(&["--workers", "6", "--keep-going"], 1);
}

#[test]
fn items_that_wait_start_in_their_order() {
    let space =
        Space::with(&shell("a", "echo {{ item }} >> log", "foreach = \"{{ range(9) }}\"\nconcurrency = 1"));
    space.run_with(&["--workers", "3"], 0);
    assert_eq!(space.text("log").split_whitespace().collect::<String>(), "012345678");
}

#[test]
fn as_many_items_at_once_as_concurrency() {
    let script = format!("touch up{{{{ item }}}}; {}; {}", wait_for("up0"), wait_for("up1"));
    let space = Space::with(&shell("a", &script, "foreach = [0, 1]\nconcurrency = 2"));
    space.run_with(&["--workers", "3"], 0);
}

#[test]
fn equal_items_take_no_place_that_they_do_not_give_back() {
    // Of the first two one waits for the other and has its result; the last two need both places.
    let script = format!(
        "case {{{{ item }}}} in 0) ;; 1) touch up1; {} ;; *) touch up2; {} ;; esac",
        wait_for("up2"),
        wait_for("up1")
    );
    let space = Space::with(&shell("a", &script, "foreach = [1, 2, 0, 0, 0, 0]\nconcurrency = 2"));
    space.run_with(&["--workers", "3"], 0);
}

#[test]
fn a_group_limits_all_of_its_nodes_together() {
    let one = at_most(1, "api");
    let member = |id: &str, more: &str| {
        shell(id, &one, &format!("group = \"api\"\nsalt = \"{id}{{{{ 1 }}}}\"\n{more}"))
    };
    let space = Space::with(
        &[
            "[groups.api]\nconcurrency = 1\n".to_string(),
            member("a", ""),
            member("b", ""),
            shell(
                "c",
                &one,
                "group = \"api\"\nsalt = \"c{{ item }}\"\nforeach = \"{{ range(8) }}\"\nconcurrency = 3",
            ),
            shell("d", &one, "group = \"api\"\nsalt = \"d{{ item }}\"\nforeach = \"{{ range(8) }}\""),
        ]
        .concat(),
    );
    space.run_with(&["--workers", "5"], 0);
    assert_eq!(space.run_manifest(0).summary()["ran"], 0);
}

#[test]
fn a_group_gives_back_the_places_of_nodes_that_fail_or_are_tried_again() {
    let space = Space::with(
        &[
            "[run]\nmax_crashes = 2\n[groups.one]\nconcurrency = 1\n".to_string(),
            shell(
                "a",
                "exit {{ item }}",
                "foreach = [1, 2]\ngroup = \"one\"\nretry = { attempts = 3, backoff = \"1ms\" }",
            ),
            "[[node]]\nid = \"b\"\nop = \"crash\"\nparams = { signal = 9 }\ngroup = \"one\"\n".into(),
            shell("c", "sleep 100", "group = \"one\"\ntimeout = \"50ms\""),
            noop("d", "group = \"one\""),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--keep-going", "--workers", "3"], 1);
    assert_eq!(ended.outcomes(), "a=failed a[0]=failed a[1]=failed b=failed c=timed_out d=ran");
}

#[test]
fn items_that_are_cancelled_give_back_their_places() {
    // `a` stops amid its items, of which some have passed and not begun; the others come after it.
    let first = "foreach = \"{{ range(300) }}\"\non_item_failure = \"stop\"\ngroup = \"g\"\nconcurrency = 3";
    let manifest = |last: &str| {
        [
            "[groups.g]\nconcurrency = 3\n".to_string(),
            shell("a", "test {{ item }} != 5", first),
            value("b", "\"{{ item }}\"", "each = \"a\"\ngroup = \"g\""),
            noop("c", last),
        ]
        .concat()
    };
    let space = Space::with(&manifest("needs = [\"b\"]\nafter = \"any\"\ngroup = \"g\""));
    assert_eq!(space.run_with(&["--workers", "2", "--keep-going"], 1).node("c")["outcome"], "ran");
    let space = Space::with(&manifest("needs = [\"a\"]\nafter = \"any\"\ngroup = \"g\""));
    assert_eq!(space.run_with(&["--workers", "2"], 1).node("c")["outcome"], "ran");
}

#[test]
fn rate_holds_up_only_what_runs() {
    // One in a day: a second one that waited would never come.
    let item = |list: &str| value("a", "\"{{ item }}\"", &format!("foreach = {list}\nrate = \"1/d\""));
    let space = Space::with(&item("[1]"));
    space.run_manifest(0);
    space.write("m.toml", item("[1, 1, 2]"));
    let ended = space.run_manifest(0);
    assert_eq!(ended.outcomes(), "a=ran a[0]=cached a[1]=cached a[2]=ran");
}

#[test]
fn rate_spreads_what_runs() {
    let space = Space::with(&shell(
        "a",
        "date +%s%N >> starts",
        "foreach = \"{{ range(6) }}\"\nrate = \"10/s\"\nsalt = \"{{ item }}\"",
    ));
    space.run_with(&["--workers", "2"], 0);
    let starts: Vec<u64> = space.text("starts").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(starts.len(), 6);
    let span = starts.iter().max().unwrap() - starts.iter().min().unwrap();
    // Five gaps of 100 ms, but for what a loaded machine holds up the first one.
    assert!(span >= 250_000_000, "{span} ns");
}
