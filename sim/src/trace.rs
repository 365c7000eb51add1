//! What happened in a run, for people and for programs.
//!
//! A [`Line`] is one thing that happened, with what the node it happened to then was. It is printed as text, as JSON, a
//! line each, or drawn: one column for each node, time downwards, on a terminal as text and in a file as a picture.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::plan::MS;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// The plan of the run.
    Plan,
    /// A node starts from its disk.
    Start,
    /// A machine loses power.
    Crash,
    /// Something else goes wrong, or stops going wrong.
    Fault,
    /// The faults end.
    Heal,
    /// A node enters a step of a round.
    Step,
    /// A node signs.
    Sign,
    /// A frame arrives.
    Frame,
    /// A node tells its readers of a block.
    Commit,
    /// A node says something else.
    Note,
}

/// What a node was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct State {
    /// The height that it decides.
    pub(crate) height: u64,
    /// Its round there.
    pub(crate) round: u32,
    /// Its step there.
    pub(crate) step: String,
    /// Round of its lock.
    pub(crate) locked_round: Option<u32>,
    /// Round of its valid value.
    pub(crate) valid_round: Option<u32>,
    /// The last height that it executed.
    pub(crate) committed: u64,
    /// The first bytes of the root after it.
    pub(crate) app_hash: String,
    /// Writes to its log that are not durable.
    pub(crate) unsynced: usize,
    /// Operations of its disk so far.
    pub(crate) disk_operations: u64,
    /// Who it is connected with.
    pub(crate) peers: Vec<usize>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    /// Nanoseconds from the beginning of the run.
    pub(crate) t_ns: u64,
    /// To which node; to none in particular.
    pub(crate) node: Option<usize>,
    /// What kind of thing.
    pub(crate) event: Told,
    /// In words.
    pub(crate) text: String,
    /// Who sent the frame.
    pub(crate) from: Option<usize>,
    /// When it was sent.
    pub(crate) sent_ns: Option<u64>,
    /// What the node then was; none where it is down.
    pub(crate) state: Option<State>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} ms  ", self.t_ns as f64 / MS as f64)?;
        if let Some(node) = self.node {
            write!(f, "node {node} ")?;
        }
        write!(f, "{}", self.text)?;
        self.from.map_or(Ok(()), |from| write!(f, " from node {from}"))
    }
}

impl Line {
    /// As one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it has no map")
    }

    /// The sign that stands for it in a drawing.
    fn sign(&self) -> char {
        match self.event {
            Told::Plan | Told::Note => '·',
            Told::Start => '●',
            Told::Crash => '✖',
            Told::Fault => '!',
            Told::Heal => '♥',
            Told::Step => '▷',
            Told::Sign => '✎',
            Told::Frame => '◂',
            Told::Commit => '■',
        }
    }
}

/// Width of a node's column, in characters.
const COLUMN: usize = 26;

/// A drawing for a terminal: a column for each node, a line for each thing that happened, time downwards. A node that is up
/// has a line through its column.
pub(crate) fn diagram(lines: &[Line]) -> String {
    let nodes = nodes(lines);
    let mut up = vec![false; nodes];
    let mut drawing = String::from("      t ms  ");
    (0..nodes).for_each(|node| drawing.push_str(&fitted(&format!("node {node}"), COLUMN)));
    drawing.truncate(drawing.trim_end().len());
    drawing.push('\n');
    let mut last = None;
    for line in lines.iter().filter(|line| line.event != Told::Plan) {
        if let Some(node) = line.node {
            match line.event {
                Told::Start => up[node] = true,
                Told::Crash => up[node] = false,
                // What one saw of it says that it was up, where the beginning is cut off.
                _ => up[node] |= line.state.is_some(),
            }
        }
        let moment = format!("{:>10.3}", line.t_ns as f64 / MS as f64);
        drawing.push_str(if last.as_ref() == Some(&moment) { "          " } else { &moment });
        last = Some(moment);
        drawing.push_str("  ");
        match line.node {
            None => {
                let _ = write!(drawing, "---- {} {} ", line.sign(), line.text);
                drawing.push_str(&"-".repeat((nodes * COLUMN).saturating_sub(line.text.chars().count() + 8)));
            }
            Some(node) => {
                let from = line.from.map_or_else(String::new, |from| format!(" <{from}"));
                let words = format!("{} {}{from}", line.sign(), line.text);
                for (place, up) in up.iter().enumerate() {
                    let cell = if place == node {
                        &words[..]
                    } else if *up {
                        "│"
                    } else {
                        ""
                    };
                    // The last word of a line may be as long as it is.
                    let is_last = place == node && node + 1 == nodes;
                    drawing.push_str(&if is_last { cell.to_owned() } else { fitted(cell, COLUMN) });
                }
            }
        }
        while drawing.ends_with(' ') {
            drawing.pop();
        }
        drawing.push('\n');
    }
    drawing
}

/// A text in a column, cut where it is too long, and one blank at least behind it.
fn fitted(text: &str, width: usize) -> String {
    let mut cell: String =
        if text.chars().count() < width { text.to_owned() } else { text.chars().take(width - 2).chain(['…']).collect() };
    while cell.chars().count() < width {
        cell.push(' ');
    }
    cell
}

fn nodes(lines: &[Line]) -> usize {
    let named = lines.iter().flat_map(|line| [line.node, line.from]);
    named.flatten().max().map_or(0, |most| most + 1)
}

/// Things that a picture shows at most: the last ones. More is no picture any more.
const PICTURE_MAX: usize = 6_000;
/// Between two columns of a picture, in pixels.
const APART: usize = 190;
const LEFT: usize = 110;
const TOP: f64 = 40.0;

/// A picture: a page that a browser shows, with nothing outside it. A line down for each node, broken while it is down; an
/// arrow for each frame that arrived; a word for everything else, with what the node was where the mouse rests on it. Time
/// goes down, long waits made short.
pub(crate) fn picture(title: &str, lines: &[Line]) -> String {
    let lines = &lines[lines.len().saturating_sub(PICTURE_MAX)..];
    let nodes = nodes(lines);
    let x = |node: usize| LEFT + node * APART;
    let mut times: Vec<u64> = lines.iter().flat_map(|line| [Some(line.t_ns), line.sent_ns]).flatten().collect();
    times.sort_unstable();
    times.dedup();
    let mut heights = Vec::with_capacity(times.len());
    let mut at = TOP;
    for (place, time) in times.iter().enumerate() {
        if place > 0 {
            let waited_ms = (time - times[place - 1]) as f64 / MS as f64;
            at += (waited_ms * 6.0).clamp(5.0, 40.0);
        }
        heights.push(at);
    }
    let y = |time: u64| times.binary_search(&time).map_or(TOP, |place| heights[place]);
    let (width, height) = (LEFT + nodes.max(1) * APART, at + 40.0);
    let mut page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{0}</title>\n<style>\nbody{{margin:0;font:12px sans-serif;background:#fff;color:#222}}\n\
         h1{{font-size:14px;margin:8px}}\ntext{{font:10px monospace}}\n.life{{stroke:#bbb;stroke-width:2}}\n.frame{{stroke:#7a9cc6;stroke-width:1}}\n\
         .proposal{{stroke:#2b7a3d}}\n.precommit,.commitframe{{stroke:#a0522d}}\n.crash{{fill:#c00;font-weight:bold}}\n.commit{{fill:#2b7a3d;font-weight:bold}}\n\
         .fault{{fill:#b36b00}}\n.heal{{fill:#2b7a3d}}\n.time{{fill:#888}}\n</style>\n<h1>{0}</h1>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height:.0}\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"6\" markerHeight=\"6\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#7a9cc6\"/></marker></defs>\n",
        escaped(title)
    );
    lives(
        lines,
        nodes,
        at,
        |node, from, to| {
            let _ = writeln!(page, "<line class=\"life\" x1=\"{0}\" x2=\"{0}\" y1=\"{from:.1}\" y2=\"{to:.1}\"/>", x(node));
        },
        y,
    );
    for node in 0..nodes {
        let _ = writeln!(page, "<text x=\"{}\" y=\"20\" font-weight=\"bold\">node {node}</text>", x(node));
    }
    for line in lines {
        let (bottom, words) = (y(line.t_ns), escaped(&line.text));
        let state = line.state.as_ref().map_or_else(String::new, |state| format!("\n{state:?}"));
        let tip = format!("<title>{:.3} ms {words}{}</title>", line.t_ns as f64 / MS as f64, escaped(&state));
        match (line.node, line.from, line.event) {
            (Some(node), Some(from), Told::Frame) => {
                let kind = match line.text.split(' ').next() {
                    Some("proposal" | "part") => "proposal",
                    Some("precommit") => "precommit",
                    Some("commit") => "commitframe",
                    _ => "vote",
                };
                let top = y(line.sent_ns.unwrap_or(line.t_ns));
                let _ = writeln!(
                    page,
                    "<line class=\"frame {kind}\" marker-end=\"url(#tip)\" x1=\"{}\" y1=\"{top:.1}\" x2=\"{}\" y2=\"{bottom:.1}\">{tip}</line>",
                    x(from),
                    x(node)
                );
            }
            (_, _, Told::Plan) => {}
            (node, ..) => {
                let class = match line.event {
                    Told::Crash => "crash",
                    Told::Commit => "commit",
                    Told::Fault => "fault",
                    Told::Heal => "heal",
                    _ => "",
                };
                let left = node.map_or(LEFT, |node| x(node) + 4);
                let _ =
                    writeln!(page, "<text class=\"{class}\" x=\"{left}\" y=\"{:.1}\">{} {words}{tip}</text>", bottom + 3.0, line.sign());
                let _ = writeln!(page, "<text class=\"time\" x=\"4\" y=\"{:.1}\">{:.3}</text>", bottom + 3.0, line.t_ns as f64 / MS as f64);
            }
        }
    }
    page.push_str("</svg>\n");
    page
}

/// The spans in which each node is up.
fn lives(lines: &[Line], nodes: usize, end: f64, mut draw: impl FnMut(usize, f64, f64), y: impl Fn(u64) -> f64) {
    for node in 0..nodes {
        let mut since: Option<f64> = None;
        let mut is_known = false;
        for line in lines.iter().filter(|line| line.node == Some(node)) {
            match line.event {
                Told::Start => since = since.or_else(|| Some(y(line.t_ns))),
                Told::Crash => {
                    // Before the first thing that is shown it was up, if the first thing is its end.
                    let from = since.take().or_else(|| (!is_known).then_some(TOP));
                    from.into_iter().for_each(|from| draw(node, from, y(line.t_ns)));
                }
                _ if !is_known && line.state.is_some() => since = Some(TOP),
                _ => {}
            }
            is_known = true;
        }
        since.into_iter().for_each(|from| draw(node, from, end));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(t_ms: u64, node: Option<usize>, event: Told, text: &str) -> Line {
        Line { t_ns: t_ms * MS, node, event, text: text.into(), from: None, sent_ns: None, state: None }
    }

    fn story() -> Vec<Line> {
        vec![
            line(0, Some(0), Told::Start, "starts at height 0"),
            line(1, Some(1), Told::Start, "starts at height 0"),
            line(5, Some(0), Told::Sign, "signs proposal 1/0 ABCD"),
            Line { from: Some(0), sent_ns: Some(5 * MS), ..line(7, Some(1), Told::Frame, "proposal 1/0 <ABCD>") },
            line(9, Some(0), Told::Crash, "crashes"),
            line(9, None, Told::Heal, "the faults stop"),
            line(11, Some(1), Told::Commit, "commits 1"),
        ]
    }

    #[test]
    fn a_diagram_has_a_column_for_each_node_and_a_gap_while_it_is_down() {
        let drawing = diagram(&story());
        let rows: Vec<&str> = drawing.lines().collect();
        assert_eq!(rows[0], "      t ms  node 0                    node 1");
        assert_eq!(rows[4], "     7.000  │                         ◂ proposal 1/0 <ABCD> <0");
        assert_eq!(rows[5], "     9.000  ✖ crashes                 │");
        assert!(rows[6].starts_with("            ---- ♥ the faults stop ---"), "{}", rows[6]);
        assert_eq!(rows[7], "    11.000                            ■ commits 1");
    }

    #[test]
    fn a_picture_stands_alone() {
        let page = picture("seed 0x2a & more", &story());
        assert!(page.contains("seed 0x2a &amp; more") && page.ends_with("</svg>\n"));
        assert_eq!(page.matches("class=\"frame proposal\"").count(), 1);
        assert_eq!(page.matches("class=\"life\"").count(), 2);
        assert!(page.contains("&lt;ABCD&gt;") && !page.contains("<ABCD>"), "what nodes say is no markup");
        assert!(!page.contains("http://") || page.matches("http://").count() == 1, "nothing is fetched");
    }

    #[test]
    fn a_line_of_json_has_every_field() {
        let json: serde_json::Value = serde_json::from_str(&story()[3].to_json()).expect("JSON");
        assert_eq!(json["t_ns"], 7_000_000);
        assert_eq!(json["event"], "frame");
        assert_eq!(json["node"], 1);
        assert_eq!(json["from"], 0);
        assert!(json["state"].is_null());
    }
}
