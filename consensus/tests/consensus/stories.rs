//! Golden stories: `tests/stories/*.txt`. A block of lines, `----`, and one line with what consensus did.
//!
//! A story begins with `powers 1,1,1,1` where they are not those, and `we are 3` or `we are 0,1,2,3`: with several cores each
//! line goes to all of them, or to one as in `2: timeout propose`, and what they say is told by number. `exchange` brings
//! every own message and every lock's polka to all others, until all is quiet. With `BLESS` set the answers are written
//! instead of compared.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use lockstep_consensus::Input;
use lockstep_consensus::planted::Planted;

use crate::desk::Desk;
use crate::world::Settle;

/// The cores of a story.
struct Cast {
    desks: Vec<(usize, Desk)>,
}

impl Cast {
    fn new(powers: &[u64], us: &[usize]) -> Self {
        Self { desks: us.iter().map(|me| (*me, Desk::new(powers, Some(*me), Planted::default()).0)).collect() }
    }

    /// Tells a line to whom it concerns and returns what each said.
    fn tell(&mut self, line: &str) -> Vec<(usize, String)> {
        if line == "exchange" {
            return self.exchange();
        }
        let (to, line) = match line.split_once(':') {
            Some((to, line)) => (Some(to.parse::<usize>().expect("a number")), line.trim()),
            None => (None, line),
        };
        self.desks.iter_mut().filter(|(me, _)| to.is_none_or(|to| to == *me)).map(|(me, desk)| (*me, desk.tell(line))).collect()
    }

    fn exchange(&mut self) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        loop {
            let mut said = Vec::new();
            let messages: Vec<(usize, Vec<Input>)> = self
                .desks
                .iter()
                .map(|(me, desk)| {
                    let polka = desk.core.locked().map(|polka| Input::Polka((**polka).clone().settle(&desk.set)));
                    (*me, desk.said_before().into_iter().chain(polka).collect())
                })
                .collect();
            for (me, desk) in &mut self.desks {
                let others = messages.iter().filter(|(from, _)| from != me).flat_map(|(_, inputs)| inputs.clone());
                let what = desk.speak(|desk| others.into_iter().flat_map(|input| desk.feed(input)).collect());
                if what != "nothing" {
                    said.push((*me, what));
                }
            }
            if said.is_empty() {
                return all;
            }
            all.extend(said);
        }
    }
}

/// Runs a story and returns it with its answers as they came.
fn run(story: &str) -> String {
    let (mut powers, mut us) = (vec![1; 4], vec![3]);
    let mut cast: Option<Cast> = None;
    let (mut told, mut said) = (String::new(), Vec::new());
    let mut lines = story.lines();
    while let Some(line) = lines.next() {
        writeln!(told, "{line}").expect("a string");
        let numbers = |list: &str| list.split(',').map(|number| number.parse::<u64>().expect("a number")).collect::<Vec<_>>();
        if line.is_empty() || line.starts_with('#') {
        } else if let Some(list) = line.strip_prefix("powers ") {
            powers = numbers(list);
        } else if let Some(list) = line.strip_prefix("we are ") {
            us = numbers(list).into_iter().map(|me| usize::try_from(me).expect("small")).collect();
        } else if line == "----" {
            lines.next();
            let cores = cast.as_ref().map_or(0, |cast| cast.desks.len());
            writeln!(told, "{}", answer(cores, std::mem::take(&mut said))).expect("a string");
        } else {
            said.extend(cast.get_or_insert_with(|| Cast::new(&powers, &us)).tell(line));
        }
    }
    assert!(said.is_empty(), "a story ends with an answer");
    told
}

/// What was said, in one line; by whom, where there are several.
fn answer(cores: usize, said: Vec<(usize, String)>) -> String {
    let said: Vec<String> = said
        .into_iter()
        .filter(|(_, what)| what != "nothing")
        .map(|(me, what)| if cores > 1 { format!("{me}: {what}") } else { what })
        .collect();
    if said.is_empty() { "nothing".to_owned() } else { said.join(if cores > 1 { " | " } else { "; " }) }
}

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).expect("the stories").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
#[expect(clippy::disallowed_methods, reason = "whoever changes a rule tells the stories anew with BLESS=1")]
fn every_story_goes_as_it_is_told() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for path in stories() {
        let story = fs::read_to_string(&path).expect("a story");
        let told = run(&story);
        if bless {
            fs::write(&path, &told).expect("written");
        } else if let Some((line, (expected, found))) =
            story.lines().zip(told.lines()).enumerate().find(|(_, (expected, found))| expected != found)
        {
            let name = path.file_name().expect("a file").to_string_lossy();
            wrong.push(format!("{name}:{}\n  told:  {expected}\n  found: {found}", line + 1));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(stories().len() >= 12, "the stories are there");
}
