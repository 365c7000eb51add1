//! Scratch.
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let o = lockstep_sim::Options {
        seeds: a[1].parse().unwrap(),
        first: a[2].parse().unwrap(),
        sweep: a.get(3).is_some(),
        ..Default::default()
    };
    if std::env::var("PLAN").is_ok() { println!("{}", lockstep_sim::plan_text(o.first)); }
    lockstep_sim::run(&o, &mut std::io::stdout()).unwrap();
}
