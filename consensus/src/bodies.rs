//! What is known of the blocks that a height's messages name. Their contents are the shell's.

use std::collections::BTreeMap;

use lockstep_types::{BlockId, Round};

use crate::seam::{Effect, Effects};

/// The blocks of one height. Bounded by what is tracked: the first proposal of each round kept, and the one value of each
/// quorum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bodies(BTreeMap<BlockId, Body>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Body {
    asked: bool,
    wanted: bool,
    valid: Option<bool>,
    durable: bool,
}

impl Bodies {
    /// Asks valid(v), once.
    pub(crate) fn check(&mut self, block_id: BlockId, fx: &mut Effects) {
        let body = self.0.entry(block_id).or_default();
        if !body.asked && body.valid.is_none() {
            body.asked = true;
            fx.emit(Effect::Check { block_id });
        }
    }

    /// A quorum of a round names this block: what we do not have must be fetched, once. A body on our disk is here.
    pub(crate) fn want(&mut self, block_id: BlockId, round: Round, fx: &mut Effects) {
        self.check(block_id, fx);
        let body = self.0.entry(block_id).or_default();
        if !body.wanted && body.valid.is_none() && !body.durable {
            body.wanted = true;
            fx.emit(Effect::WantBody { block_id, round });
        }
    }

    /// The answer to a check. valid(v) is a property of the block, so the first answer stands. Where more than two thirds certify what
    /// was refused, the shell judges it again without its application, and that answer stands: see
    /// [`crate::Effect::CertifiedInvalid`].
    pub(crate) fn checked(&mut self, block_id: BlockId, valid: bool, is_certified: bool) {
        let known = self.0.entry(block_id).or_default().valid.get_or_insert(valid);
        *known |= valid && is_certified;
    }

    /// The body is on our disk.
    pub(crate) fn durable(&mut self, block_id: BlockId) {
        self.0.entry(block_id).or_default().durable = true;
    }

    /// valid(v), once it is known.
    pub(crate) fn valid(&self, block_id: &BlockId) -> Option<bool> {
        self.0.get(block_id)?.valid
    }

    pub(crate) fn is_valid(&self, block_id: &BlockId) -> bool {
        self.valid(block_id) == Some(true)
    }

    pub(crate) fn is_durable(&self, block_id: &BlockId) -> bool {
        self.0.get(block_id).is_some_and(|body| body.durable)
    }
}
