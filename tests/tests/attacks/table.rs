//! The table of `docs/security.md` is true: every attack has its row, every test that it names is there, and every test that
//! is here is named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Attacks are numbered from 1 to this.
const ATTACKS: usize = 80;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is the folder above").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A row: what stands in its four columns.
struct Row {
    number: usize,
    attack: String,
    defence: String,
    shown_by: String,
}

fn rows(text: &str) -> Vec<Row> {
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::trim).collect();
            let number = cells[0].parse().ok()?;
            assert_eq!(cells.len(), 4, "a row has four columns: {line}");
            Some(Row { number, attack: cells[1].to_owned(), defence: cells[2].to_owned(), shown_by: cells[3].to_owned() })
        })
        .collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests of this binary, with the module that each is in.
fn attacks() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of this test") {
        let path = entry.expect("an entry").path();
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(rest) = line.trim_start().strip_prefix("async ").unwrap_or(line).strip_prefix("fn attack_") else { continue };
            let name = format!("attack_{}", rest.split('(').next().expect("split gives one"));
            let is_test =
                lines[..at].iter().rev().take(2).any(|before| before.starts_with("#[test]") || before.starts_with("#[tokio::test"));
            assert!(is_test, "{name} runs");
            let module = path.file_name().expect("a file").to_string_lossy().into_owned();
            assert_eq!(found.insert(name.clone(), module), None, "{name} is there once");
        }
    }
    found
}

#[test]
fn the_table_of_attacks_is_true() {
    let text = read(&root().join("docs/security.md"));
    let rows = rows(&text);
    let numbers: Vec<usize> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=ATTACKS).collect::<Vec<_>>(), "every attack has one row, in order");

    let attacks = attacks();
    let mut named = BTreeSet::new();
    for Row { number, attack, defence, shown_by } in &rows {
        assert!(!attack.is_empty() && !defence.is_empty(), "row {number} says what and how");
        let (status, tests) = shown_by.split_once(':').unwrap_or((shown_by, ""));
        let tests: Vec<&str> = quoted(tests).collect();
        match status {
            "tested" => assert!(!tests.is_empty(), "row {number} names its test"),
            "open" | "feature not there yet" => {}
            other => panic!("row {number}: {other} is no status"),
        }
        for test in tests {
            match test.split_once("::") {
                None => {
                    assert!(attacks.contains_key(test), "row {number}: there is no {test} here");
                    let (_, of) = test.split_at("attack_".len());
                    assert!(named.insert(test) && of.starts_with(&format!("{number:02}_")), "row {number}: {test} belongs to another");
                }
                Some((path, name)) => {
                    let source = read(&root().join(path));
                    assert!(source.contains(&format!("fn {name}(")), "row {number}: there is no {name} in {path}");
                }
            }
        }
    }
    let unnamed: Vec<&String> = attacks.keys().filter(|name| !named.contains(name.as_str())).collect();
    assert!(unnamed.is_empty(), "the table does not know {unnamed:?}");

    let count = |status: &str| rows.iter().filter(|row| row.shown_by.split(':').next() == Some(status)).count();
    let says = format!(
        "Of {ATTACKS} attacks: tested {}, open {}, against features that are not there yet {}.",
        count("tested"),
        count("open"),
        count("feature not there yet")
    );
    assert!(text.contains(&says), "the text above the table is to say: {says}");
}
