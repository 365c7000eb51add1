//! Versions that a peer can crash from afar are not linked.

fn version(text: &str) -> (u64, u64, u64) {
    let mut numbers = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

/// Why this package must not be in the lock file.
fn refused(name: &str, version_text: &str) -> Option<&'static str> {
    let version = version(version_text);
    match name {
        "libp2p-gossipsub" if version < (0, 50, 1) => Some("a PRUNE with a huge backoff panics it"),
        "yamux" if version < (0, 13, 10) => Some("an oversized SYN frame panics it; 0.12 has no repair"),
        "libp2p-quic" if version < (0, 13, 1) => Some("a failing certificate panics it"),
        _ => None,
    }
}

#[test]
fn no_version_with_a_known_remote_crash_is_locked() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock: toml::Table = std::fs::read_to_string(path).expect("the workspace has a lock file").parse().expect("TOML");
    let packages = lock["package"].as_array().expect("an array of packages");
    let mut judged = Vec::new();
    for package in packages {
        let (name, version) = (package["name"].as_str().expect("a name"), package["version"].as_str().expect("a version"));
        assert_eq!(refused(name, version), None, "{name} {version}");
        if ["libp2p-gossipsub", "yamux"].contains(&name) {
            judged.push(name);
        }
    }
    judged.dedup();
    assert_eq!(judged, ["libp2p-gossipsub", "yamux"], "the test looks at the packages it is about");
}

#[test]
fn the_versions_with_crashes_would_be_refused() {
    for (name, version) in [
        ("libp2p-gossipsub", "0.50.0"),
        ("libp2p-gossipsub", "0.49.5"),
        ("yamux", "0.12.1"),
        ("yamux", "0.13.9"),
        ("libp2p-quic", "0.13.0"),
    ] {
        assert!(refused(name, version).is_some(), "{name} {version}");
    }
    for (name, version) in [("libp2p-gossipsub", "0.50.1"), ("yamux", "0.13.10"), ("yamux", "0.14.1"), ("libp2p-quic", "0.14.0")] {
        assert!(refused(name, version).is_none(), "{name} {version}");
    }
}
