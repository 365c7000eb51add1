//! What is shown: a table that is drawn again and again on a terminal, lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::Node;
use super::validators::{State, number};
use super::watch::{Powers, Rates, Snapshot};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// A terminal that does not tell its size.
const SIZE_DEFAULT: (usize, usize) = (100, 30);
/// Lines of the table that are no validators, and one for the cursor.
const FRAME_LINES: usize = 6;

/// What there is to show.
pub(super) struct View<'a> {
    pub(super) chain: &'a str,
    pub(super) nodes: &'a [Node],
    pub(super) states: &'a [State],
    pub(super) snapshots: Vec<Option<Snapshot>>,
    /// Who decides the next block; empty where nobody has said so far.
    pub(super) validators: Powers,
    pub(super) rates: Rates,
    pub(super) running: Duration,
    /// Rate asked for, accepted, not accepted.
    pub(super) load: Option<(u32, u64, u64)>,
}

/// Where it is shown.
pub(super) struct Screen {
    is_terminal: bool,
    /// Lines of the table that stand on the terminal.
    drawn: usize,
    last_line: Option<Instant>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), drawn: 0, last_line: None }
    }

    /// A line that stays, above the table.
    pub(super) fn line(&mut self, line: &str) {
        self.clear();
        write_out(&format!("{line}\n"));
    }

    /// Takes the table away.
    pub(super) fn clear(&mut self) {
        if self.drawn > 0 {
            write_out(&format!("\x1b[{}A\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    /// Shows how things are.
    pub(super) fn draw(&mut self, view: &View<'_>) {
        if self.is_terminal {
            let (columns, rows) = terminal_size();
            let lines = table(view, rows);
            let mut text = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
            for line in &lines {
                // A line that wraps would be two, and the table would wander.
                text.extend(line.chars().take(columns.saturating_sub(1)));
                text.push('\n');
            }
            self.drawn = lines.len();
            write_out(&text);
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            write_out(&format!("{}\n", one_line(view)));
        }
    }
}

/// Whoever reads our output may be gone; the network goes on until it is stopped.
fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE_DEFAULT,
    }
}

fn table(view: &View<'_>, rows: usize) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        // Narrow enough for a terminal of 80 columns, the state included.
        format!("{:<7}{:>8}  {:<16}{:>9}{:>6}{:>6}{:>8}  state", "", "pid", "clients at", "height", "round", "peers", "mempool"),
    ];
    let room = rows.saturating_sub(FRAME_LINES).max(1);
    for (index, node) in view.nodes.iter().enumerate().take(room) {
        let pid = view.states[index].pid().map_or("-".to_owned(), |pid| pid.to_string());
        let mut line = format!("{:<7}{pid:>8}  {:<16}", node.name, node.rpc.to_string());
        let _ = match view.snapshots[index] {
            Some(Snapshot { height, round, peers, mempool, .. }) => write!(line, "{height:>9}{round:>6}{peers:>6}{mempool:>8}"),
            None => write!(line, "{:>9}{:>6}{:>6}{:>8}", "-", "-", "-", "-"),
        };
        let _ = write!(line, "  {}", state(view, index));
        lines.push(line);
    }
    if view.nodes.len() > room {
        lines.push(format!("and {} more", view.nodes.len() - room));
    }
    lines.push(format!("chain {}   {}", view.chain, figures(view)));
    lines.extend(remarks(view));
    lines
}

fn state(view: &View<'_>, index: usize) -> String {
    let word = match (&view.states[index], view.snapshots[index]) {
        (State::Down, _) => "DOWN",
        (_, None) => "silent",
        (_, Some(Snapshot { held_back: Some(why), .. })) => return format!("holds votes: {}", why.short()),
        (_, Some(Snapshot { catching_up: true, .. })) => "catching up",
        (State::Foreign(_), _) => "up, by hand",
        (State::Ours(_), _) => "up",
    };
    word.to_owned()
}

fn figures(view: &View<'_>) -> String {
    format!("{:.1} blocks/s   {:.1} tx/s   up {} s", view.rates.blocks, view.rates.txs, view.running.as_secs())
}

/// The load, and why the chain stands still, where there is something to say.
fn remarks(view: &View<'_>) -> Vec<String> {
    let load = view.load.map(|(rate, accepted, failed)| format!("load {rate}/s: {accepted} accepted, {failed} not"));
    load.into_iter().chain(stands_still(view)).collect()
}

/// Who is known not to vote, and that too few are left. A node that only follows counts for nothing, and a validator with a home elsewhere may vote.
fn stands_still(view: &View<'_>) -> Option<String> {
    let votes = |snapshot: &Option<Snapshot>| snapshot.is_some_and(|snapshot| snapshot.held_back.is_none());
    let power_of = |node: &Node| view.validators.get(&node.address).copied().unwrap_or(0);
    let silent: Vec<&Node> =
        view.nodes.iter().zip(&view.snapshots).filter(|(_, snapshot)| !votes(snapshot)).map(|(node, _)| node).collect();
    let silent: Vec<u64> = silent.into_iter().map(power_of).filter(|power| *power > 0).collect();
    let sum = |powers: &mut dyn Iterator<Item = u64>| powers.fold(0, u64::saturating_add);
    let total = sum(&mut view.validators.values().copied());
    let voting = total - sum(&mut silent.iter().copied());
    let (all, count) = (view.validators.len(), view.validators.len() - silent.len());
    let is_enough = view.validators.is_empty() || u128::from(voting) * 3 > u128::from(total) * 2;
    (!is_enough).then(|| format!("STANDS STILL: {count} of {} vote, with power {voting} of {total}; more than 2/3 must", number(all)))
}

fn one_line(view: &View<'_>) -> String {
    let column = |show: fn(&Snapshot) -> String| {
        let cells: Vec<String> = view.snapshots.iter().map(|snapshot| snapshot.as_ref().map_or("-".to_owned(), show)).collect();
        cells.join(",")
    };
    let mut line = format!(
        "height {}   round {}   peers {}   mempool {}   {}",
        column(|snapshot| snapshot.height.to_string()),
        column(|snapshot| snapshot.round.to_string()),
        column(|snapshot| snapshot.peers.to_string()),
        column(|snapshot| snapshot.mempool.to_string()),
        figures(view)
    );
    for (node, snapshot) in view.nodes.iter().zip(&view.snapshots) {
        if let Some(why) = snapshot.and_then(|snapshot| snapshot.held_back) {
            let _ = write!(line, "   {} holds votes: {}", node.name, why.short());
        }
    }
    for remark in remarks(view) {
        let _ = write!(line, "   {remark}");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockstep_types::Address;

    use super::{View, one_line, remarks, table};
    use crate::command::localnet::Node;
    use crate::command::localnet::validators::State;
    use crate::command::localnet::watch::{Rates, Snapshot};
    use crate::home::Home;
    use crate::metrics::HeldBack;

    /// What a terminal has when nobody makes it wider.
    const COLUMNS: usize = 80;

    #[test]
    fn the_table_says_who_votes_within_eighty_columns() {
        let address = |index: u16| Address([u8::try_from(index).expect("few"); 20]);
        let node = |index: u16| Node {
            name: format!("node{index}"),
            address: address(index),
            home: Home::new("net"),
            rpc: ([127, 0, 0, 1], 26_657 + index).into(),
            p2p: ([127, 0, 0, 1], 26_757 + index).into(),
        };
        let nodes: Vec<Node> = (0..4).map(node).collect();
        let up = Snapshot { height: 123_456_789, round: 0, peers: 3, mempool: 50_000, catching_up: false, held_back: None };
        let states = [State::Foreign(4_194_304), State::Foreign(1), State::Foreign(2), State::Down];
        let view = |held_back: Option<HeldBack>| View {
            chain: "lockstep-12345678",
            nodes: &nodes,
            states: &states,
            snapshots: vec![Some(up), Some(up), Some(Snapshot { held_back, ..up }), None],
            validators: (0..4).map(|index| (address(index), 10)).collect(),
            rates: Rates::default(),
            running: Duration::from_secs(5),
            load: Some((500, 1_000_000, 0)),
        };
        let lines = table(&view(None), 24);
        assert!(lines.iter().all(|line| line.len() < COLUMNS), "{lines:#?}");
        assert!(lines[2].ends_with("  up, by hand") && lines[5].ends_with("  DOWN"), "{lines:#?}");
        assert!(lines.last().is_some_and(|line| line.starts_with("load 500/s")), "three of four are enough: {lines:#?}");

        // Two of four are not.
        let held = view(Some(HeldBack::GuardLost));
        assert_eq!(
            table(&held, 24).last().map(String::as_str),
            Some("STANDS STILL: 2 of 4 validators vote, with power 20 of 40; more than 2/3 must")
        );
        assert!(table(&held, 24).last().is_some_and(|line| line.len() < COLUMNS));
        let line = one_line(&held);
        assert!(line.contains("node2 holds votes: guard lost") && line.ends_with("2/3 must"), "{line}");

        // One of the four only follows, or has little power: it is not needed. One whose home is elsewhere may vote.
        let among = |powers: &[(u16, u64)]| {
            let validators = powers.iter().map(|(index, power)| (address(*index), *power)).collect();
            remarks(&View { validators, ..view(Some(HeldBack::GuardLost)) }).len() == 1
        };
        assert!(among(&[(0, 10), (1, 10)]), "two observers are silent");
        assert!(among(&[(0, 10), (1, 10), (2, 4), (3, 5)]));
        assert!(!among(&[(0, 10), (1, 10), (2, 5), (3, 5)]), "just two thirds");
        assert!(among(&[(0, 10), (1, 10), (2, 10), (7, 10), (8, 10)]));
        assert!(!among(&[(0, 10), (1, 10), (2, 10), (3, 10), (7, 10)]));
        assert!(table(&held, 5).contains(&"and 3 more".to_owned()), "a low terminal shows those that fit");
    }
}
