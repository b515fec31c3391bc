//! Manifests in files that cannot be read, or that name files that cannot be; and the command line. What is wrong
//! inside of one is in `broken`.

use crate::util::Space;

/// A file with this text is refused with exactly this message, and no store is made.
fn refused(file: &str, text: &[u8], message: &str) {
    let space = Space::new();
    space.write(file, text);
    let ended = space.run(&["run", file]).expect(2);
    assert_eq!(ended.stderr, format!("forkyard: {message}\n"), "{}", String::from_utf8_lossy(text));
    assert!(ended.stdout.is_empty());
    assert!(!space.path(".forkyard").exists(), "a store was made for nothing");
}

#[test]
fn text_that_is_no_manifest() {
    let utf8 = "2:1: this is not UTF-8 text";
    refused("m.toml", b"[[node]]\nid = \"\xff\"\n", &format!("m.toml:{utf8}"));
    refused("m.jsonl", b"{\"id\":\"a\",\"op\":\"noop\"}\n{\"id\":\"\xff\"}\n", &format!("m.jsonl:{utf8}"));
    refused("m.jsonl.gz", b"\x1f\x8bxxxx", "read m.jsonl.gz: unexpected end of file");
}

#[test]
fn a_mistake_in_an_included_file_is_found_there() {
    let space = Space::with("[run]\ninclude = [\"more.jsonl\"]\n");
    space.write(
        "more.jsonl",
        "{\"id\":\"a\",\"op\":\"noop\"}\n{\"id\":\"b\",\"op\":\"noop\",\"needs\":[\"c\"]}\n",
    );
    space.run(&["run", "m.toml"]).expect(2).says("more.jsonl:2:32: there is no node `c`");
}

#[test]
fn an_included_file_that_is_missing_is_found_where_it_is_named() {
    refused(
        "m.toml",
        b"[run]\nname = \"x\"\ninclude = [\"no.jsonl\"]\n",
        "m.toml:3:12: read ./no.jsonl: No such file or directory (os error 2)",
    );
}

#[test]
fn the_command_line_is_checked_too() {
    let space = Space::with("[[node]]\nid = \"apple\"\nop = \"noop\"\n");
    space.run(&["run", "no.toml"]).expect(2).says("read no.toml: No such file or directory");
    let ended = space.run(&["run", "m.toml", "--only", "appel"]).expect(2);
    assert_eq!(ended.stderr, "forkyard: m.toml has no node `appel`; did you mean `apple`?\n");
    space.run(&["run", "m.toml", "--workers", "0"]).expect(2).says("expected auto or a number");
    space.run(&["run", "m.toml", "--max-failures", "101%"]).expect(2).says("a percentage like 5%");
    space.run(&["rnu", "m.toml"]).expect(2).says("run");
    assert!(!space.path(".forkyard").exists(), "a store was made for nothing");
    assert_eq!(space.run(&["status"]).expect(4).stdout, b"");
}
