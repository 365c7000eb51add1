//! What clients saw, judged as one history (I12).
//!
//! What a node promises to its clients, exactly:
//!
//! 1. **Every answer names a height, and is the state after that height**: the value that the blocks up to there wrote, with
//!    nothing of later ones.
//! 2. **A client that asks one node never goes back**: heights of answers of one node do not fall, through crashes too,
//!    unless its files rotted.
//! 3. **What a node acknowledged, it serves**: after "committed at H", its answers name H or more.
//! 4. **Writes take effect between their call and their answer**: what was called for after another write was acknowledged,
//!    by whichever node, stands in a later block.
//!
//! Writes are therefore linearizable. Reads are not, by themselves: another node may be behind, and answers with the height
//! that it is at; whoever wants more asks again until the height is enough. Heights are the witness of the order, so nothing
//! has to be searched for: each promise is a comparison.

use std::collections::BTreeMap;

use lockstep_types::Hash;

use crate::checks::Violation;

type Outcome = Result<(), Violation>;

fn broken(what: String) -> Outcome {
    Err(Violation { invariant: "I12", what })
}

/// Blocks that a transaction waits for at most, where nothing goes wrong: it is checked, told to all, and whoever proposes next
/// takes it. Twice that, and one for a proposer that does not answer.
const WAITS_MAX: u64 = 6;

/// A history.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Every value that a key had, with the height that wrote it, in order.
    values: BTreeMap<Vec<u8>, Vec<(u64, Vec<u8>)>>,
    /// The highest height that was acknowledged to anybody.
    acknowledged: u64,
    /// By transaction: that height when it was first called for.
    called: BTreeMap<Hash, u64>,
    /// By node: the least height that its next answer may name.
    least: BTreeMap<usize, u64>,
    /// Transactions that a whole node of a whole network took in: the node, the height of the chain by then, and when.
    held: BTreeMap<Hash, (usize, u64, u64)>,
    /// Blocks so far.
    height: u64,
    reads: u64,
}

impl History {
    /// A client calls for a transaction.
    pub(crate) fn called(&mut self, tx: Hash) {
        let floor = self.acknowledged;
        self.called.entry(tx).or_insert(floor);
    }

    /// A node says "committed at this height".
    pub(crate) fn acknowledged(&mut self, node: usize, tx: &Hash, height: u64) -> Outcome {
        let least = self.least.entry(node).or_default();
        *least = (*least).max(height);
        if let Some(floor) = self.called.get(tx)
            && height <= *floor
        {
            return broken(format!("{tx:?} is acknowledged at height {height}, and was called for when {floor} had been acknowledged"));
        }
        self.acknowledged = self.acknowledged.max(height);
        Ok(())
    }

    /// A node of a network in which nothing goes wrong any more takes a transaction in, perhaps while it catches up: blocks
    /// that the chain has already are not what the transaction waits for.
    pub(crate) fn held(&mut self, node: usize, tx: Hash, now: u64) {
        self.held.entry(tx).or_insert((node, self.height, now));
    }

    /// A node stops, and its pool with it: what it had taken in may have been with nobody else yet.
    pub(crate) fn stopped(&mut self, node: usize) {
        self.held.retain(|_, (holder, ..)| *holder != node);
    }

    /// It is in a block, or was refused to the client's face.
    pub(crate) fn let_go(&mut self, tx: &Hash) {
        self.held.remove(tx);
    }

    /// I8: what a whole network took in long before its last block, and before a time by which everybody has heard of it, is in a block.
    pub(crate) fn nobody_starves(&self, last: u64, heard_by: u64) -> Outcome {
        match self.held.iter().find(|(_, (_, at, when))| *at + WAITS_MAX <= last && *when < heard_by) {
            None => Ok(()),
            Some((tx, (_, at, _))) => {
                let what = format!("{tx:?}, taken in at height {at} when nothing went wrong any more, is in no block up to {last}");
                Err(Violation { invariant: "I8", what })
            }
        }
    }

    /// Whether this height is the next that nobody told of yet.
    pub(crate) fn is_next(&self, height: u64) -> bool {
        height == self.height + 1
    }

    /// The next block.
    pub(crate) fn block(&mut self, height: u64) {
        self.height = height;
    }

    /// A block wrote a value.
    pub(crate) fn wrote(&mut self, height: u64, key: &[u8], value: &[u8]) {
        self.values.entry(key.to_vec()).or_default().push((height, value.to_vec()));
    }

    /// A node answers a client who asked for a key.
    pub(crate) fn answered(&mut self, node: usize, key: &[u8], height: u64, value: Option<&[u8]>) -> Outcome {
        self.reads += 1;
        let least = self.least.entry(node).or_default();
        if height < *least {
            return broken(format!("node {node} answers from height {height}, after it had told of {least}"));
        }
        *least = height;
        let written = self.values.get(key).and_then(|values| values.iter().rev().find(|(at, _)| *at <= height));
        let written = written.map(|(_, value)| &value[..]);
        if value == written {
            return Ok(());
        }
        let show = |value: Option<&[u8]>| value.map_or("nothing".into(), |value| value.escape_ascii().to_string());
        broken(format!(
            "node {node} says that key {} is {} at height {height}, and the chain wrote {}",
            key.escape_ascii(),
            show(value),
            show(written)
        ))
    }

    /// A node has lost files at rest, and may begin again lower.
    pub(crate) fn rotted(&mut self, node: usize) {
        self.least.remove(&node);
    }

    /// Answers so far.
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let mut history = History::default();
        history.wrote(2, b"a", b"1");
        history.wrote(5, b"a", b"2");
        history
    }

    fn says(outcome: Outcome, words: &str) {
        let violation = outcome.expect_err("it is broken");
        assert!(violation.invariant == "I12" && violation.what.contains(words), "{violation:?}");
    }

    #[test]
    fn an_answer_is_the_state_after_its_height() {
        let mut history = history();
        for (height, value) in [(1, None), (2, Some(&b"1"[..])), (4, Some(b"1")), (5, Some(b"2")), (9, Some(b"2"))] {
            history.answered(0, b"a", height, value).expect("so it is");
        }
        says(history.answered(1, b"a", 4, Some(b"2")), "the chain wrote 1");
        says(history.answered(1, b"b", 4, Some(b"2")), "the chain wrote nothing");
        says(history.answered(1, b"a", 5, None), "is nothing at height 5");
    }

    #[test]
    fn one_node_does_not_go_back() {
        let mut history = history();
        history.answered(0, b"a", 5, Some(b"2")).expect("so it is");
        history.answered(1, b"a", 2, Some(b"1")).expect("another node may be behind");
        says(history.answered(0, b"a", 4, Some(b"1")), "after it had told of 5");
        history.rotted(0);
        history.answered(0, b"a", 4, Some(b"1")).expect("it lost files");
    }

    #[test]
    fn what_was_taken_in_comes_into_a_block() {
        let mut history = history();
        let (first, second) = (Hash::of("first"), Hash::of("second"));
        history.block(3);
        for (node, tx) in [(0, first), (0, second), (1, Hash::of("lost with its node"))] {
            history.held(node, tx, 70);
        }
        history.stopped(1);
        history.nobody_starves(8, 100).expect("there is time");
        history.let_go(&first);
        history.nobody_starves(9, 70).expect("nobody had time to hear of it");
        let violation = history.nobody_starves(9, 71).expect_err("one still waits");
        assert!(violation.invariant == "I8" && violation.what.contains(&format!("{second:?}")), "{violation:?}");
        history.let_go(&second);
        history.nobody_starves(90, 100).expect("nobody waits");
    }

    #[test]
    fn a_write_is_read_where_it_was_acknowledged_and_later_ones_come_later() {
        let mut history = history();
        let (first, second) = (Hash::of("first"), Hash::of("second"));
        history.called(first);
        history.acknowledged(0, &first, 5).expect("it was called for before");
        says(history.answered(0, b"a", 4, Some(b"1")), "after it had told of 5");
        history.called(second);
        says(history.acknowledged(1, &second, 5), "when 5 had been acknowledged");
    }
}
