//! Whom a fork convicts.

use std::collections::BTreeSet;

use lockstep_consensus::{Step, Value};
use lockstep_types::{BlockId, Round};

use super::{State, Tendermint, values};
use crate::world;

impl Tendermint {
    /// How many are convicted by what the honest validators must hold, where those who lie sign as little as they can: votes
    /// for two values in one step, or a prevote against a precommit that no polka in between excuses.
    ///
    /// What must be held: the certificate of each decision, the polka under each precommit for a block, and the polka that each
    /// prevote with a valid round names. Where a quorum needs one of the two who lie, either may have signed.
    pub(super) fn fewest_culprits(&self, state: &State) -> usize {
        let mut quorums: BTreeSet<(Round, Step, Value)> = BTreeSet::new();
        let polkas = |round: Round, block_id: Option<BlockId>| {
            let named = values(round).filter(move |value| value.block_id == block_id);
            named.filter(move |value| self.quorum(state, round, Step::Prevote, *value).is_some())
        };
        for essence in state.essences() {
            for ((round, step), value) in essence.said.iter().filter(|(_, value)| value.block_id.is_some()) {
                match (step, value.valid_round) {
                    (Step::Precommit, _) => {
                        quorums.extend(polkas(*round, value.block_id).map(|value| (*round, Step::Prevote, value)).take(1))
                    }
                    (Step::Prevote, Some(valid_round)) => {
                        quorums.extend(polkas(valid_round, value.block_id).map(|value| (valid_round, Step::Prevote, value)).take(1));
                    }
                    _ => {}
                }
            }
            let rounds = (0..self.scope.rounds).map(world::round);
            let value = Value { block_id: essence.decided, valid_round: None };
            let certified = rounds.filter(|round| value.block_id.is_some() && self.quorum(state, *round, Step::Precommit, value).is_some());
            quorums.extend(certified.map(|round| (round, Step::Precommit, value)).take(1));
        }
        let quorums: Vec<(Round, Step, Value)> = quorums.into_iter().collect();
        let has_polka =
            |round, block_id| quorums.iter().any(|(at, step, value)| (*at, *step, value.block_id) == (round, Step::Prevote, block_id));
        let convicted = |signed: &[(Round, Step, Value)]| {
            signed.iter().any(|(round, step, value)| {
                signed.iter().any(|(later, other_step, other)| {
                    let twice = (round, step) == (later, other_step) && value != other;
                    let is_against =
                        *step == Step::Precommit && *other_step == Step::Prevote && later > round && other.block_id != value.block_id;
                    let is_excused = other.valid_round.is_some_and(|polka| polka >= *round && has_polka(polka, other.block_id));
                    twice || (is_against && !is_excused)
                })
            })
        };
        let honest =
            |at: Round, step: Step, value: Value| state.essences().filter(|essence| essence.said.get(&(at, step)) == Some(&value)).count();
        let liars = self.scope.byzantine.len();
        let choices = 1usize << quorums.len();
        let fewest = (0..choices).map(|choice| {
            let signed_by = |liar: usize| {
                let signs = |(place, (round, step, value)): (usize, &(Round, Step, Value))| {
                    // More than two thirds of four are three.
                    let needed = 3usize.saturating_sub(honest(*round, *step, *value)).min(liars);
                    let chosen = needed == liars || (needed == 1 && (choice >> place) & 1 == liar);
                    chosen.then_some((*round, *step, *value))
                };
                quorums.iter().enumerate().filter_map(signs).collect::<Vec<_>>()
            };
            (0..liars).filter(|liar| convicted(&signed_by(*liar))).count()
        });
        fewest.min().unwrap_or(0)
    }
}
