//! The crate graph. A crate may use those below it; crates side by side never use each other. That is what keeps
//! consensus ignorant of wires and storage ignorant of votes, so it is checked in the manifests and not left to memory.
//!
//! ```text
//!         node
//!   +-------+--------+
//!  rpc   network   sim
//!   +-------+--------+
//!        replica
//!   +---------+--------+-------+--------+
//! consensus  mempool  app    sync    storage
//!   +---------+--------+-------+--------+
//!        genesis
//!         types
//! ```
//!
//! `tests` and `bench` stand above all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Every crate of the workspace by its folder, from the bottom up. Those of one row stand side by side.
const ROWS: [&[&str]; 7] = [
    &["types"],
    &["genesis"],
    &["consensus", "mempool", "app", "sync", "storage"],
    &["replica"],
    &["rpc", "network", "sim"],
    &["node"],
    &["tests", "bench"],
];

/// Dev-dependencies that the graph does not have, each with its reason.
const DEV_EXCEPTIONS: [(&str, &str); 1] = [
    // Its own tests switch on the bugs that are planted to see whether they are found.
    ("consensus", "consensus"),
];

/// Crates that are the same on every node and in every replay. None of them may reach a clock, a socket or chance.
const PURE: [&str; 9] = ["types", "genesis", "consensus", "mempool", "app", "sync", "storage", "replica", "sim"];

/// What a pure crate never uses, tests apart.
const IMPURE: [&str; 12] =
    ["tokio", "async-std", "futures", "libp2p", "libp2p-stream", "axum", "hyper", "jsonrpsee", "rand", "getrandom", "tracing", "log"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is the folder above").to_owned()
}

fn manifest(folder: &Path) -> Table {
    let path = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn table<'a>(of: &'a Table, name: &str) -> Option<&'a Table> {
    of.get(name).map(|value| value.as_table().unwrap_or_else(|| panic!("{name} is a table")))
}

/// A dependency as a manifest writes it: the name of the package it means, and whether only tests use it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Dependency {
    package: String,
    dev: bool,
}

/// Every dependency of a manifest: normal, build and dev, for every target. A renamed one counts as the package it is.
fn dependencies(manifest: &Table, workspace: &Table) -> BTreeSet<Dependency> {
    let mut places = vec![manifest];
    if let Some(targets) = table(manifest, "target") {
        places.extend(targets.values().map(|target| target.as_table().expect("a target is a table")));
    }
    let shared = table(workspace, "workspace").and_then(|workspace| table(workspace, "dependencies")).expect("shared dependencies");
    let mut found = BTreeSet::new();
    for place in places {
        for (section, dev) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)] {
            for (name, written) in table(place, section).into_iter().flatten() {
                let inherited = written.get("workspace").and_then(Value::as_bool) == Some(true);
                let meant = if inherited { shared.get(name).unwrap_or_else(|| panic!("{name} is not shared")) } else { written };
                let package = meant.get("package").and_then(Value::as_str).unwrap_or(name);
                found.insert(Dependency { package: package.to_owned(), dev });
            }
        }
    }
    found
}

fn row(folder: &str) -> usize {
    ROWS.iter().position(|row| row.contains(&folder)).unwrap_or_else(|| panic!("{folder} stands in no row: give it its place"))
}

/// Why `user` may not use `used`, if it may not.
fn refusal(user: &str, used: &str, dev: bool) -> Option<String> {
    if row(user) > row(used) || (dev && DEV_EXCEPTIONS.contains(&(user, used))) {
        return None;
    }
    let place = if row(user) == row(used) { "beside" } else { "above" };
    Some(format!("{user} uses {used}, which stands {place} it"))
}

/// The folders of the workspace, by the names of their packages.
fn folders(workspace: &Table) -> BTreeMap<String, String> {
    let members = table(workspace, "workspace").and_then(|table| table.get("members")).and_then(Value::as_array).expect("members");
    members
        .iter()
        .map(|member| {
            let folder = member.as_str().expect("a member is a folder");
            let manifest = manifest(&root().join(folder));
            let name = table(&manifest, "package").and_then(|package| package.get("name")).and_then(Value::as_str).expect("a name");
            (name.to_owned(), folder.to_owned())
        })
        .collect()
}

#[test]
fn every_crate_has_its_place() {
    let folders: BTreeSet<String> = folders(&manifest(&root())).into_values().collect();
    let placed: BTreeSet<String> = ROWS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(folders, placed);
}

#[test]
fn no_edge_that_the_graph_does_not_have() {
    let workspace = manifest(&root());
    let folders = folders(&workspace);
    let mut edges = 0;
    let mut refusals = Vec::new();
    for user in folders.values() {
        for dependency in dependencies(&manifest(&root().join(user)), &workspace) {
            let Some(used) = folders.get(&dependency.package) else { continue };
            edges += 1;
            refusals.extend(refusal(user, used, dependency.dev));
        }
    }
    assert!(refusals.is_empty(), "{refusals:#?}");
    assert!(edges >= ROWS.len(), "only {edges} edges were found: the manifests are not read");
}

#[test]
fn pure_crates_reach_no_clock_socket_or_chance() {
    let workspace = manifest(&root());
    for user in PURE {
        for dependency in dependencies(&manifest(&root().join(user)), &workspace) {
            let allowed = dependency.dev || !IMPURE.contains(&dependency.package.as_str());
            assert!(allowed, "{user} is pure and may not use {}", dependency.package);
        }
    }
}

#[test]
fn shared_dependencies_are_pinned() {
    let workspace = manifest(&root());
    let shared = table(&workspace, "workspace").and_then(|table| table.get("dependencies")).and_then(Value::as_table).expect("shared");
    for (name, written) in shared {
        if written.get("path").is_some() {
            continue;
        }
        let version = written.as_str().or_else(|| written.get("version").and_then(Value::as_str));
        assert!(version.is_some_and(|version| version.starts_with('=')), "{name} is not pinned to one version: {version:?}");
    }
}

/// The feature that plants bugs, wherever a manifest switches it on.
const PLANTED: &str = "planted";

/// Where a manifest switches planted bugs on: as a feature that another one or the default has, or of a dependency.
fn plantings(manifest: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (feature, implied) in table(manifest, "features").into_iter().flatten() {
        let implied = implied.as_array().expect("a feature is a list");
        let plants = implied.iter().filter_map(Value::as_str).any(|one| one.rsplit(['/', ':']).next() == Some(PLANTED));
        if plants && feature != PLANTED {
            found.push(format!("the feature {feature}"));
        }
    }
    let mut places = vec![manifest];
    places.extend(table(manifest, "target").into_iter().flat_map(|targets| targets.values().filter_map(Value::as_table)));
    places.extend(table(manifest, "workspace"));
    for place in places {
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (name, written) in table(place, section).into_iter().flatten() {
                let features = written.get("features").and_then(Value::as_array).into_iter().flatten();
                if features.filter_map(Value::as_str).any(|feature| feature == PLANTED) {
                    found.push(format!("{section}: {name}"));
                }
            }
        }
    }
    found
}

/// Bugs are planted by whoever asks for them on the command line, and in the tests of the consensus core. What the program is
/// built from never has them: `node/src/lib.rs` says so to the compiler, and this to whoever edits a manifest.
#[test]
fn no_bug_is_planted_in_the_program() {
    let workspace = manifest(&root());
    assert_eq!(plantings(&workspace), Vec::<String>::new());
    let mut able = 0;
    for folder in folders(&workspace).into_values() {
        let manifest = manifest(&root().join(&folder));
        able += usize::from(table(&manifest, "features").is_some_and(|features| features.contains_key(PLANTED)));
        let allowed: &[&str] = if folder == "consensus" { &["dev-dependencies: lockstep-consensus"] } else { &[] };
        assert_eq!(plantings(&manifest), allowed, "{folder}");
    }
    assert!(able >= 5, "only {able} crates have the feature: the manifests are not read");
    let program = manifest(&root().join("node"));
    assert!(!table(&program, "features").is_some_and(|features| features.contains_key(PLANTED)), "the program has no such feature");
}

#[test]
fn planted_plantings_are_found() {
    for text in [
        "[features]\ndefault = [\"planted\"]",
        "[features]\nfast = [\"lockstep-replica/planted\"]",
        "[features]\nfast = [\"dep:x\", \"lockstep-replica?/planted\"]",
        "[dependencies]\nlockstep-types = { workspace = true, features = [\"planted\"] }",
        "[dev-dependencies.lockstep-types]\npath = \"../types\"\nfeatures = [\"planted\"]",
        "[target.'cfg(unix)'.dependencies]\nlockstep-types = { workspace = true, features = [\"planted\"] }",
        "[workspace.dependencies]\nlockstep-types = { path = \"types\", features = [\"planted\"] }",
    ] {
        assert_eq!(plantings(&text.parse().expect("valid")).len(), 1, "{text}");
    }
    assert!(plantings(&"[features]\nplanted = [\"lockstep-types/planted\"]".parse().expect("valid")).is_empty());
}

/// The rule itself: an edge is seen in every section, under every spelling, and judged by the rows.
#[test]
fn planted_edges_are_found() {
    let workspace: Table = r#"
        [workspace.dependencies]
        lockstep-storage = { path = "storage" }
        disguised = { path = "rpc", package = "lockstep-rpc" }
    "#
    .parse()
    .expect("valid");
    for (manifest, package, dev) in [
        ("[dependencies]\nlockstep-storage.workspace = true", "lockstep-storage", false),
        ("[dependencies]\nlockstep-storage = { path = \"../storage\" }", "lockstep-storage", false),
        ("[dependencies]\nother = { path = \"../storage\", package = \"lockstep-storage\" }", "lockstep-storage", false),
        ("[dependencies]\ndisguised.workspace = true", "lockstep-rpc", false),
        ("[build-dependencies]\nlockstep-storage.workspace = true", "lockstep-storage", false),
        ("[dev-dependencies]\nlockstep-storage.workspace = true", "lockstep-storage", true),
        ("[target.'cfg(unix)'.dependencies]\nlockstep-storage.workspace = true", "lockstep-storage", false),
        ("[dependencies]\ntokio = \"1\"", "tokio", false),
    ] {
        let found = dependencies(&manifest.parse().expect("valid"), &workspace);
        assert_eq!(found, BTreeSet::from([Dependency { package: package.to_owned(), dev }]), "{manifest}");
    }
    for (user, used) in
        [("consensus", "storage"), ("types", "genesis"), ("app", "replica"), ("rpc", "network"), ("sim", "node"), ("types", "types")]
    {
        assert!(refusal(user, used, false).is_some() && refusal(user, used, true).is_some(), "{user} may not use {used}");
    }
    for (user, used) in
        [("genesis", "types"), ("consensus", "genesis"), ("replica", "sync"), ("node", "types"), ("bench", "node"), ("sim", "app")]
    {
        assert_eq!(refusal(user, used, false), None);
    }
    assert!(refusal("consensus", "consensus", false).is_some(), "the exception is for tests alone");
    assert_eq!(refusal("consensus", "consensus", true), None);
}
