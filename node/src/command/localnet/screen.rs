//! What is shown: a table that is drawn again and again on a terminal, lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::Node;
use super::validators::State;
use super::watch::{Rates, Snapshot};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// A terminal that does not tell its size.
const SIZE_DEFAULT: (usize, usize) = (100, 30);
/// Lines of the table that are no validators, and one for the cursor.
const FRAME_LINES: usize = 5;

/// What there is to show.
pub(super) struct View<'a> {
    pub(super) chain: &'a str,
    pub(super) nodes: &'a [Node],
    pub(super) states: &'a [State],
    pub(super) snapshots: Vec<Option<Snapshot>>,
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
        format!("{:<8} {:>8}  {:<26} {:>9} {:>6} {:>6} {:>8}  state", "", "pid", "clients at", "height", "round", "peers", "mempool"),
    ];
    let room = rows.saturating_sub(FRAME_LINES).max(1);
    for (index, node) in view.nodes.iter().enumerate().take(room) {
        let pid = view.states[index].pid().map_or("-".to_owned(), |pid| pid.to_string());
        let mut line = format!("{:<8} {pid:>8}  {:<26} ", node.name, node.url());
        let _ = match view.snapshots[index] {
            Some(Snapshot { height, round, peers, mempool, .. }) => write!(line, "{height:>9} {round:>6} {peers:>6} {mempool:>8}"),
            None => write!(line, "{:>9} {:>6} {:>6} {:>8}", "-", "-", "-", "-"),
        };
        let _ = write!(line, "  {}", state(view, index));
        lines.push(line);
    }
    if view.nodes.len() > room {
        lines.push(format!("and {} more", view.nodes.len() - room));
    }
    lines.push(format!("chain {}   {}", view.chain, figures(view)));
    lines
}

fn state(view: &View<'_>, index: usize) -> String {
    let word = match (&view.states[index], view.snapshots[index]) {
        (State::Down, _) => "DOWN",
        (_, None) => "silent",
        (_, Some(Snapshot { held_back: Some(why), .. })) => return format!("HOLDS ITS VOTES BACK: {}", why.short()),
        (_, Some(Snapshot { catching_up: true, .. })) => "catching up",
        (State::Foreign(_), _) => "up, started by hand",
        (State::Ours(_), _) => "up",
    };
    word.to_owned()
}

fn figures(view: &View<'_>) -> String {
    let mut text = format!("{:.1} blocks/s   {:.1} tx/s   up {} s", view.rates.blocks, view.rates.txs, view.running.as_secs());
    if let Some((rate, accepted, failed)) = view.load {
        let _ = write!(text, "   load {rate}/s: {accepted} accepted, {failed} not");
    }
    text
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
            let _ = write!(line, "   {} HOLDS ITS VOTES BACK: {}", node.name, why.short());
        }
    }
    line
}
