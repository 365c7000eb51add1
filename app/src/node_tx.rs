//! Transactions that are the node's and not the application's: membership and checkpoints.
//!
//! A transaction that begins with [`NODE_TX_PREFIX`] never reaches an application. The byte after the prefix says which it
//! is; [`crate::membership`] says what it does. On a chain whose genesis has no membership the mempool refuses them, a block
//! that carries one is not accepted, and executing one (in a block that was decided against that rule) changes nothing and
//! gives [`NODE_TX_UNAVAILABLE`].

use lockstep_types::TxResult;

use crate::application::Verdict;

/// How every transaction of the node begins: a zero byte, `=` and `:`. With both separators in it, it is no transaction of
/// the key-value application, whatever follows; and text begins otherwise.
pub const NODE_TX_PREFIX: [u8; 3] = [0x00, b'=', b':'];

/// Namespace of the codes that the node itself gives.
pub const NODE_CODESPACE: &str = "lockstep";

/// Code: this chain does not enable transactions of the node.
pub const NODE_TX_UNAVAILABLE: u32 = 1;

/// Code: the application panicked while it judged; see the node's log.
pub const APPLICATION_PANICKED: u32 = 2;

/// Code: the state of the height asked for is not kept.
pub const STATE_UNAVAILABLE: u32 = 3;

/// Code: what was asked for cannot be a key of the state.
pub const KEY_INVALID: u32 = 4;

/// Code: it cannot be read, or a field breaks a rule.
pub const NODE_TX_MALFORMED: u32 = 5;

/// Code: a signature does not hold.
pub const NODE_TX_SIGNATURE: u32 = 6;

/// Code: the block that it names is too old, or not one of this chain.
pub const NODE_TX_STALE: u32 = 7;

/// Code: who signed it may not ask for that.
pub const NODE_TX_NOT_ALLOWED: u32 = 8;

/// Code: a rule of membership refuses it as things stand.
pub const NODE_TX_REFUSED: u32 = 9;

/// Most transactions of the node in a block: each may cost two signatures.
pub const NODE_TXS_MAX: usize = 64;

/// Which transaction of the node: the byte after the prefix. Values are frozen; a number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum NodeTxTag {
    /// Asks that a consensus key be admitted.
    Join = 1,
    /// Asks that a validator leave.
    Quit = 2,
    /// Approves a JOIN.
    Approve = 3,
    /// Asks that every replica snapshot one height.
    Checkpoint = 4,
}

impl NodeTxTag {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Join),
            2 => Some(Self::Quit),
            3 => Some(Self::Approve),
            4 => Some(Self::Checkpoint),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Join => "JOIN",
            Self::Quit => "QUIT",
            Self::Approve => "APPROVE",
            Self::Checkpoint => "CHECKPOINT",
        }
    }
}

/// Whether a transaction is the node's.
pub fn is_node_tx(tx: &[u8]) -> bool {
    tx.starts_with(&NODE_TX_PREFIX)
}

fn log(tx: &[u8]) -> String {
    match tx.get(NODE_TX_PREFIX.len()).copied().and_then(NodeTxTag::from_byte) {
        Some(tag) => format!("this chain does not enable {} transactions", tag.name()),
        None => "transactions that begin with 00 3D 3A are reserved for the node, and this one is of no known kind".to_owned(),
    }
}

/// The verdict on a transaction of the node where there is no membership.
pub(crate) fn unavailable_verdict(tx: &[u8]) -> Verdict {
    Verdict::refused(NODE_TX_UNAVAILABLE, NODE_CODESPACE, log(tx))
}

/// The result of a transaction of the node where there is no membership.
pub(crate) fn unavailable_result(tx: &[u8]) -> TxResult {
    TxResult { code: NODE_TX_UNAVAILABLE, codespace: NODE_CODESPACE.to_owned(), log: log(tx), ..TxResult::default() }
}
