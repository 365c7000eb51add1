//! Makes a schedule for `sim/regressions` of a bug of the bank: the first seed that sees it, made small.
//!
//! ```text
//! cargo run --release -p lockstep-sim --features planted --example regression -- LeavesInSilence ...
//! ```
//!
//! A bug that was found and mended is planted again in the bank, so that whoever changes the streams of the dice, and with
//! them the meaning of every seed, can still show that the simulator sees it.
//!
//! ```text
//! cargo run --release -p lockstep-sim --features planted --example regression -- --again sim/regressions/FILE.json ...
//! ```
//!
//! A kept schedule that no longer sees its bug, since what happens when has changed: the same faults in the same network, with the first
//! other seed of the delays under which it does.

use std::path::Path;

use lockstep_sim::bank::{Entry, SEEDS_MAX, bank, candidates};
use lockstep_sim::{Options, Regression, run};

/// Seeds that are tried of a kept schedule's delays, and for a bug that is a candidate of the bank.
const AGAIN_MAX: u64 = 20_000;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--again", files)) = names.split_first().map(|(first, files)| (first.as_str(), files)) {
        return files.iter().for_each(|file| again(Path::new(file)));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let scratch = std::env::temp_dir().join(format!("lockstep-regressions-{}", std::process::id()));
    let wanted = |seeds: u64| move |entry: Entry| (seeds, entry);
    let entries = bank().into_iter().map(wanted(SEEDS_MAX)).chain(candidates().into_iter().map(wanted(AGAIN_MAX)));
    for (seeds, entry) in entries.filter(|(_, entry)| names.contains(&entry.name)) {
        let options = Options {
            seeds,
            planted: entry.planted,
            members: entry.members,
            fail_fast: true,
            shrink_to: Some(scratch.clone()),
            ..Options::default()
        };
        let summary = run(&options, &mut std::io::stdout()).expect("it can be printed");
        let Some(mut regression) = summary.failures.into_iter().find_map(|failure| failure.regression) else {
            println!("{}: {seeds} seeds saw nothing", entry.name);
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

fn again(path: &Path) {
    let kept = Regression::from_json(&std::fs::read_to_string(path).expect("a file")).expect("a regression");
    let name = kept.planted.as_deref().expect("it names its bug");
    let bug = bank().into_iter().chain(candidates()).find(|entry| entry.name == name).expect("a bug of the bank, or a candidate");
    for seed in 0..AGAIN_MAX {
        let mut regression = kept.clone();
        regression.schedule.seed = seed;
        let broken = |planted: bool| {
            let planted = if planted { bug.planted } else { Default::default() };
            let options = Options { schedule: Some(regression.schedule.clone()), planted, threads: 1, ..Options::default() };
            run(&options, &mut std::io::sink()).expect("nothing is printed").failures.first().map(|failure| failure.violation.invariant)
        };
        if broken(true) == Some(kept.invariant.as_str()) && broken(false).is_none() {
            std::fs::write(path, regression.to_json()).expect("the folder takes a file");
            return println!("{}: seed {seed}", path.display());
        }
    }
    println!("{}: {AGAIN_MAX} seeds of its delays saw nothing", path.display());
}
