//! Makes a schedule for `sim/regressions` of a bug of the bank: the first seed that sees it, made small.
//!
//! ```text
//! cargo run --release -p lockstep-sim --features planted --example regression -- LeavesInSilence ...
//! ```
//!
//! A bug that was found and mended is planted again in the bank, so that whoever changes the streams of the dice, and with
//! them the meaning of every seed, can still show that the simulator sees it.

use std::path::Path;

use lockstep_sim::bank::{SEEDS_MAX, bank};
use lockstep_sim::{Options, run};

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let scratch = std::env::temp_dir().join(format!("lockstep-regressions-{}", std::process::id()));
    for entry in bank().into_iter().filter(|entry| names.contains(&entry.name)) {
        let options = Options {
            seeds: SEEDS_MAX,
            planted: entry.planted,
            members: entry.members,
            fail_fast: true,
            shrink_to: Some(scratch.clone()),
            ..Options::default()
        };
        let summary = run(&options, &mut std::io::stdout()).expect("it can be printed");
        let Some(mut regression) = summary.failures.into_iter().find_map(|failure| failure.regression) else {
            println!("{}: {SEEDS_MAX} seeds saw nothing", entry.name);
            continue;
        };
        entry.what.clone_into(&mut regression.about);
        regression.planted = Some(entry.name.clone());
        let path = folder.join(format!("{}-{}.json", regression.invariant.replace(' ', "-"), entry.name));
        std::fs::write(&path, regression.to_json()).expect("the folder takes a file");
        println!("{}: {} faults in {}", entry.name, regression.schedule.faults.len(), path.display());
    }
    // What a search left behind is in the file.
    let _ = std::fs::remove_dir_all(scratch);
}
