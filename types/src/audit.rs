//! What a validator says of its state: the signed roots and results by which replicas find the one that diverged.
//!
//! A header carries the root and the results of the height before it, so a decided header is a statement of more than two
//! thirds already. A [`Statement`] says it as soon as the block is executed, and says more: [`Statement::rest`] sums up what
//! no header carries, such as priorities, attendance and requests that wait.
//!
//! A statement is no vote. It locks nothing, nobody is punished for one, and a validator that was wrong says another one once
//! it has healed. So the vote guard does not know it, and signing it waits for nothing.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Signature, SignatureCheck};
use crate::domain::{self, Tag};
use crate::primitives::{Address, AppHash, ChainId, Hash, Height};
use crate::validators::ValidatorSet;
use crate::vote::{Claim, Rejected};

/// What a node has after a height. The same on every correct one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Statement {
    /// The height that was executed.
    pub height: Height,
    /// Root of the state after it.
    pub root: AppHash,
    /// Root over its results.
    pub results: Hash,
    /// Digest of everything else that the chain determines: the block, the sets that follow with their priorities, parameters,
    /// what membership knows.
    pub rest: Hash,
}

impl Statement {
    /// The bytes that a validator signs: domain, height, root behind its length, results, rest.
    pub fn sign_bytes(&self, chain_id: &ChainId, genesis_hash: &Hash) -> Vec<u8> {
        let mut bytes = domain::begin(Tag::Audit, chain_id, genesis_hash);
        bytes.extend(self.height.get().to_le_bytes());
        bytes.push(u8::try_from(self.root.as_bytes().len()).expect("an application hash has at most 64 bytes"));
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(&self.results.0);
        bytes.extend_from_slice(&self.rest.0);
        bytes
    }
}

/// A statement and who makes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct SignedStatement {
    /// What is said.
    pub statement: Statement,
    /// By whom.
    pub validator: Address,
    /// Over [`Statement::sign_bytes`].
    pub signature: Signature,
}

impl SignedStatement {
    /// Claims that it was signed by one of these validators.
    ///
    /// # Errors
    /// [`Rejected::Other`] when it is by none of them.
    pub fn claim(self, chain_id: &ChainId, genesis_hash: &Hash, validators: &ValidatorSet) -> Result<Claim<Self>, Rejected> {
        let validator = validators.index_of(&self.validator).and_then(|index| validators.get(index));
        let Some(validator) = validator else {
            return Err(Rejected::Other(format!("a statement by {}, who is no validator of that height", self.validator)));
        };
        let message = self.statement.sign_bytes(chain_id, genesis_hash);
        let check = SignatureCheck { public_key: validator.public_key, message, signature: self.signature };
        Ok(Claim::new(self, vec![check]))
    }
}
