//! What was found: what this node has after a height, and what more than two thirds say instead.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::audit::{SignedStatement, Statement};
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{Commit, Hash, Header, Height, codec};

use crate::chain::ChainState;

/// What proves that this node is wrong. It was verified before it became one.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Proof {
    /// The header of the next height was decided.
    Header {
        /// It.
        header: Header,
        /// The certificate for it.
        commit: Commit,
    } = 1,
    /// More than two thirds of the set of the next height say the same of this one.
    Statements(Vec<SignedStatement>) = 2,
}

impl BorshDeserialize for Proof {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        match u8::deserialize_reader(reader)? {
            1 => Ok(Self::Header { header: Header::deserialize_reader(reader)?, commit: Commit::deserialize_reader(reader)? }),
            2 => Ok(Self::Statements(codec::read_list(reader, VALIDATORS_MAX)?)),
            other => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no proof has tag {other}"))),
        }
    }
}

/// A divergence.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Finding {
    /// What this node had.
    pub ours: Statement,
    /// Who says otherwise.
    pub proof: Proof,
}

impl Finding {
    /// The height after which the states differ.
    pub fn height(&self) -> Height {
        self.ours.height
    }

    /// What differs, in a few words.
    pub fn what(&self) -> String {
        let ours = &self.ours;
        let (root, results, who) = match &self.proof {
            Proof::Header { header, .. } => {
                (&header.app_hash, header.last_results_hash, format!("the decided header of height {}", header.height))
            }
            Proof::Statements(said) => match said.first() {
                Some(first) => (
                    &first.statement.root,
                    first.statement.results,
                    format!("{} validators with more than two thirds of the power", said.len()),
                ),
                None => (&ours.root, ours.results, "nobody".to_owned()),
            },
        };
        if *root != ours.root {
            format!("{who} has root {root}, ours is {}", ours.root)
        } else if results != ours.results {
            format!("{who} has results {results}, ours are {}", ours.results)
        } else {
            format!("{who} has other validators, parameters or membership than we")
        }
    }

    /// What a chain after this height has that is not what more than two thirds say; none where it is the same.
    ///
    /// # Panics
    /// When the chain is after another height.
    pub fn difference(&self, chain: &ChainState) -> Option<String> {
        assert_eq!(chain.height, self.height(), "what is compared is of one height");
        match &self.proof {
            Proof::Header { header, .. } => state_fields(header, chain).into_iter().find_map(|(what, theirs, ours)| {
                (theirs != ours).then(|| format!("the decided header of height {} has {what} {theirs}, ours is {ours}", header.height))
            }),
            Proof::Statements(statements) => {
                let (theirs, ours) = (&statements.first()?.statement, chain.statement());
                let fields = [
                    ("root", theirs.root.to_string(), ours.root.to_string()),
                    ("results", theirs.results.to_string(), ours.results.to_string()),
                    ("validators, parameters or membership, in digest,", theirs.rest.to_string(), ours.rest.to_string()),
                ];
                fields.into_iter().find_map(|(what, theirs, ours)| {
                    let who = statements.len();
                    (theirs != ours)
                        .then(|| format!("{who} validators with more than two thirds of the power have {what} {theirs}, ours is {ours}"))
                })
            }
        }
    }
}

/// What a header says of the state before it, and what a chain has: the fields that follow from executing blocks.
pub(crate) fn state_fields(header: &Header, chain: &ChainState) -> [(&'static str, String, String); 5] {
    let text = |theirs: &Hash, ours: Hash| (theirs.to_string(), ours.to_string());
    let field = |what, (theirs, ours)| (what, theirs, ours);
    [
        ("app_hash", header.app_hash.to_string(), chain.app_hash.to_string()),
        field("last_results_hash", text(&header.last_results_hash, chain.results_hash)),
        field("validators_hash", text(&header.validators_hash, chain.validators.hash())),
        field("next_validators_hash", text(&header.next_validators_hash, chain.next_validators.hash())),
        field("consensus_hash", text(&header.consensus_hash, chain.params.hash())),
    ]
}
