//! Manifests that are refused, and exactly what is said of each: place, cause, way out. All of them are in
//! `broken.txt`, one after the other; a new mistake belongs there.

use crate::util::Space;

const CASES: &str = include_str!("broken.txt");

/// One manifest.
struct Case {
    title: &'static str,
    text: &'static str,
    expected: &'static str,
}

fn cases() -> Vec<Case> {
    let all = CASES.split("\n=== ").skip(1).map(|case| {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (text, expected) = rest.split_once(">>>\n").expect("what is said");
        // A heading may follow.
        let expected = expected.split("\n#####").next().unwrap_or_default().trim_end();
        Case { title, text, expected }
    });
    all.collect()
}

#[test]
fn every_mistake_is_told_with_its_place_its_cause_and_the_way_out() {
    let cases = cases();
    assert!(cases.len() >= 150, "only {} are left", cases.len());
    let mut wrong = Vec::new();
    for Case { title, text, expected } in cases {
        let space = Space::new();
        let name = if text.starts_with('{') { "m.jsonl" } else { "m.toml" };
        space.write(name, text);
        let ended = space.run(&["run", name]);
        let said = ended.stderr.trim_end();
        let nothing_done = ended.stdout.is_empty() && !space.path(".forkyard").exists();
        if said != expected || ended.code() != Some(2) || !nothing_done {
            wrong.push(format!(
                "=== {title}\n{text}--- expected\n{expected}\n--- but, with {:?}\n{said}",
                ended.code()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of these are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
