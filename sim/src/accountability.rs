//! Who forked the chain.
//!
//! Where more than a third of the power lies, two blocks can be decided at one height. What is promised then is that the
//! signed messages that honest nodes sent and were sent name the culprits: more than a third of the power, and nobody who
//! followed the rules. This judges that, from statements read with code of its own ([`Signed::read`]): it shares with the
//! node neither how votes are counted nor how they are verified. That a signature is genuine it knows because it saw it made.
//!
//! The rules are those of an accountable Tendermint, which the signed valid round of a prevote makes possible:
//!
//! 1. *Equivocation*: two proposals, two prevotes or two precommits of one round that say different things.
//! 2. *Amnesia*: a precommit for a block, and in a later round a prevote for another one that names no valid round, or one
//!    before that precommit. The lock forbade it (L23, L29).
//! 3. *A polka that never was*: a prevote in the name of a valid round without a polka, or a precommit without one. Only
//!    whoever has every message can say that, as this does.
//!
//! Why they name more than a third. Let v be decided in round r, and another block in round r' ≥ r. In one round, both quorums
//! of precommits share more than a third, by rule 1. Else take the first round after r that has a polka for another block
//! v'. It shares more than a third of the power with the precommits for v, and each of these prevoted v' against its lock:
//! by rule 2, or in the name of a polka for v' in round r or after it and before this one. In round r, that polka and
//! the one that some honest precommit for v stands on share more than a third, by rule 1; after r there is none before
//! this one, so no honest validator would have prevoted in its name, and these would be two thirds of the power.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replica::wire::Message;
use lockstep_types::{PublicKey, Signature};

use crate::checks::{PRECOMMIT, PREVOTE, Signed};

/// What somebody signed: who, and what it says.
pub(crate) type Statement = (usize, Signed);

/// By the first height of each set: the power of each node.
pub(crate) type Powers = BTreeMap<u64, Vec<u64>>;

fn powers_at(powers: &Powers, height: u64) -> &[u64] {
    powers.range(..=height).next_back().map_or(&[], |(_, powers)| powers)
}

/// Every signature that was made in a run, and who could show which.
#[derive(Debug, Default)]
pub(crate) struct Accountability {
    /// Validators by key; twins share one.
    validators: BTreeMap<PublicKey, usize>,
    /// By the first height of each set: the power of each node.
    powers: Powers,
    /// What each signature says.
    made: BTreeMap<[u8; 64], (usize, Vec<u8>)>,
    /// Those that an honest node sent or was sent.
    shown: BTreeSet<[u8; 64]>,
}

impl Accountability {
    /// Of validators with these keys and powers.
    pub(crate) fn new(keys: &[PublicKey], powers: &[u64]) -> Self {
        let validators = keys.iter().enumerate().map(|(node, key)| (*key, node)).collect();
        Self { validators, powers: Powers::from([(0, powers.to_vec())]), ..Self::default() }
    }

    /// From this height on nodes have these powers.
    pub(crate) fn changed(&mut self, from: u64, powers: Vec<u64>) {
        self.powers.insert(from, powers);
    }

    /// A key signs. What is signed for another purpose than a vote or a proposal says nothing.
    pub(crate) fn signed(&mut self, key: &PublicKey, bytes: &[u8], signature: &Signature) {
        if let Some(node) = self.validators.get(key) {
            self.made.insert(signature.0, (*node, bytes.to_vec()));
        }
    }

    /// An honest node sends a message, or is sent one.
    pub(crate) fn show(&mut self, message: &Message) {
        match message {
            Message::Vote(vote) => self.show_signature(&vote.signature),
            Message::Votes(batch) => batch.0.iter().for_each(|vote| self.show_signature(&vote.signature)),
            Message::Proposal { proposal, .. } => self.show_signature(&proposal.signature),
            Message::Polka(polka) => polka.signatures.iter().for_each(|sig| self.show_signature(&sig.signature)),
            Message::Commit(commit) => self.show_commit(commit),
            _ => {}
        }
    }

    /// A certificate in an answer or in a log.
    pub(crate) fn show_commit(&mut self, commit: &lockstep_types::Commit) {
        commit.signatures.iter().filter_map(lockstep_types::CommitSig::slot).for_each(|slot| self.show_signature(&slot.signature));
    }

    /// A signature that stands somewhere. One that nobody made says nothing, whatever surrounds it.
    pub(crate) fn show_signature(&mut self, signature: &Signature) {
        if self.made.contains_key(&signature.0) {
            self.shown.insert(signature.0);
        }
    }

    /// What a signature says, and who says it.
    pub(crate) fn statement(&self, signature: &Signature) -> Option<Statement> {
        let (node, bytes) = self.made.get(&signature.0)?;
        Some((*node, Signed::read(bytes)?))
    }

    fn read<'a>(&'a self, signatures: impl Iterator<Item = &'a [u8; 64]>) -> Vec<Statement> {
        signatures.filter_map(|signature| self.statement(&Signature(*signature))).collect()
    }

    /// What honest nodes sent and were sent.
    pub(crate) fn shown(&self) -> Vec<Statement> {
        self.read(self.shown.iter())
    }

    /// Everything that was ever signed, also what reached nobody.
    pub(crate) fn made(&self) -> Vec<Statement> {
        self.read(self.made.keys())
    }

    /// Power of these, and of all, at a height.
    pub(crate) fn power(&self, height: u64, nodes: impl IntoIterator<Item = usize>) -> (u64, u64) {
        let powers = powers_at(&self.powers, height);
        (nodes.into_iter().filter_map(|node| powers.get(node)).sum(), powers.iter().sum())
    }

    /// Who broke the rules by these statements, and how. `is_complete` where no message is missing from them.
    pub(crate) fn culprits(&self, statements: &[Statement], is_complete: bool) -> BTreeMap<usize, String> {
        culprits(&self.powers, statements, is_complete)
    }
}

/// A block and the valid round, as statements have them.
type Value = (Option<Vec<u8>>, Option<u64>);

/// Who broke the rules, and how: the first way that is found.
pub(crate) fn culprits(powers: &Powers, statements: &[Statement], is_complete: bool) -> BTreeMap<usize, String> {
    let mut said: BTreeMap<(u64, u64, u64), BTreeMap<usize, BTreeSet<Value>>> = BTreeMap::new();
    for (node, Signed { kind, height, round, block, valid_round, .. }) in statements {
        let value = (block.clone(), *valid_round);
        said.entry((*height, *round, *kind)).or_default().entry(*node).or_default().insert(value);
    }
    let mut culprits: BTreeMap<usize, String> = BTreeMap::new();
    let polka = |height: u64, round: u64, block: &[u8]| {
        let powers = powers_at(powers, height);
        let total: u64 = powers.iter().sum();
        let mut tags: BTreeMap<Option<u64>, u64> = BTreeMap::new();
        for (node, values) in said.get(&(height, round, PREVOTE)).into_iter().flatten() {
            for (_, tag) in values.iter().filter(|(voted, _)| voted.as_deref() == Some(block)) {
                *tags.entry(*tag).or_default() += powers.get(*node).copied().unwrap_or(0);
            }
        }
        tags.values().any(|power| 3 * power > 2 * total)
    };
    for ((height, round, kind), by_node) in &said {
        for (node, values) in by_node {
            let mut blame = |what: String| {
                culprits.entry(*node).or_insert(what);
            };
            if values.len() > 1 {
                blame(format!("{} messages of type {kind} in height {height}, round {round}", values.len()));
            }
            for (block, valid_round) in values.iter().filter_map(|(block, tag)| Some((block.as_ref()?, tag))) {
                if *kind == PREVOTE {
                    let precommits = said.range((*height, 0, 0)..(*height, *round, 0)).filter(|((.., kind), _)| *kind == PRECOMMIT);
                    for ((_, locked, _), by_node) in precommits {
                        let held = by_node.get(node).into_iter().flatten().filter_map(|(held, _)| held.as_ref());
                        if held.clone().any(|held| held != block) && valid_round.is_none_or(|valid_round| valid_round < *locked) {
                            blame(format!("precommit in height {height}, round {locked}, and another block prevoted in round {round}"));
                        }
                    }
                }
                let needs = match *kind {
                    PREVOTE => *valid_round,
                    PRECOMMIT => Some(*round),
                    _ => None,
                };
                if is_complete && needs.is_some_and(|needed| !polka(*height, needed, block)) {
                    blame(format!("a vote of type {kind} in height {height}, round {round} on a polka that never was"));
                }
            }
        }
    }
    culprits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::PROPOSAL;

    const A: Option<u8> = Some(1);
    const B: Option<u8> = Some(2);

    fn say(node: usize, kind: u64, round: u64, block: Option<u8>, valid_round: Option<u64>) -> Statement {
        (node, Signed { kind, height: 5, round, block: block.map(|byte| vec![byte; 32]), valid_round, time: 0 })
    }

    fn four() -> Powers {
        Powers::from([(0, vec![10; 4])])
    }

    fn named(statements: &[Statement]) -> Vec<usize> {
        culprits(&four(), statements, true).into_keys().collect()
    }

    fn polka(round: u64, block: Option<u8>, nodes: [usize; 3]) -> impl Iterator<Item = Statement> {
        nodes.into_iter().map(move |node| say(node, PREVOTE, round, block, None))
    }

    #[test]
    fn who_follows_the_rules_is_not_named() {
        // A lock of round 0 on A; round 2 brings a polka for B, under which the lock moves.
        let story: Vec<Statement> = polka(0, A, [0, 1, 2])
            .chain([say(0, PRECOMMIT, 0, A, None), say(3, PREVOTE, 0, None, None), say(3, PRECOMMIT, 0, None, None)])
            .chain(polka(1, B, [1, 2, 3]))
            .chain([
                say(0, PREVOTE, 1, None, None),
                say(1, PRECOMMIT, 1, B, None),
                say(0, PREVOTE, 2, B, Some(1)),
                say(0, PROPOSAL, 2, B, Some(1)),
            ])
            .collect();
        assert_eq!(named(&story), [0_usize; 0]);
    }

    #[test]
    fn two_of_one_place_are_equivocation() {
        assert_eq!(named(&[say(2, PREVOTE, 0, A, None), say(2, PREVOTE, 0, None, None)]), [2]);
        assert_eq!(named(&[say(1, PROPOSAL, 0, A, None), say(1, PROPOSAL, 0, B, None)]), [1]);
        let twice: Vec<Statement> = polka(0, A, [0, 1, 2]).chain([say(0, PRECOMMIT, 0, A, None), say(0, PRECOMMIT, 0, A, None)]).collect();
        assert_eq!(named(&twice), [0_usize; 0], "the same words again are nothing");
        let tags: Vec<Statement> = polka(0, A, [0, 1, 2]).chain([say(3, PREVOTE, 1, A, Some(0)), say(3, PREVOTE, 1, A, None)]).collect();
        assert_eq!(named(&tags), [3], "a block under two valid rounds is two values");
    }

    #[test]
    fn a_lock_that_is_left_without_a_newer_polka_is_amnesia() {
        let lock = || polka(2, A, [0, 1, 2]).chain([say(0, PRECOMMIT, 2, A, None)]);
        let left =
            |valid_round| named(&lock().chain(polka(1, B, [1, 2, 3])).chain([say(0, PREVOTE, 3, B, valid_round)]).collect::<Vec<_>>());
        assert_eq!(left(None), [0]);
        assert_eq!(left(Some(1)), [0], "a polka from before the lock does not free from it");
        let again: Vec<Statement> = lock().chain([say(0, PREVOTE, 3, A, None)]).collect();
        assert_eq!(named(&again), [0_usize; 0], "its own block may be prevoted under any round");
        let earlier: Vec<Statement> = lock().chain([say(0, PREVOTE, 1, B, None)]).collect();
        assert_eq!(named(&earlier), [0_usize; 0], "the lock came later");
    }

    #[test]
    fn a_polka_that_never_was_names_who_acts_on_it() {
        assert_eq!(named(&[say(3, PRECOMMIT, 0, A, None)]), [3]);
        assert_eq!(named(&[say(3, PREVOTE, 1, A, Some(0))]), [3]);
        // Three prevotes for one block, but under two valid rounds.
        let mixed =
            [say(0, PREVOTE, 1, A, None), say(1, PREVOTE, 1, A, None), say(2, PREVOTE, 1, A, Some(0)), say(3, PRECOMMIT, 1, A, None)];
        assert_eq!(named(&mixed), [2, 3]);
        assert_eq!(culprits(&four(), &mixed, false).len(), 0, "whoever misses messages cannot know");
    }
}
