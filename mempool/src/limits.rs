//! The bounds of a pool. They are local: two nodes with different ones agree on every block.

/// How much may wait. The defaults hold a second or two of what a network of this kind commits: a pool that holds minutes
/// of work only hides from clients that they are too fast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most transactions in the pool.
    pub max_txs: usize,
    /// Most bytes of these together.
    pub max_bytes: usize,
    /// Most bytes of one transaction. At most what a block of the chain can hold, see [`crate::Mempool::set_block_bounds`].
    pub max_tx_bytes: usize,
    /// Most gas of one transaction: that of a block. -1 for no bound.
    pub max_tx_gas: i64,
    /// Most transactions of one sender in the pool.
    pub max_sender_txs: usize,
    /// Most bytes of one sender in the pool.
    pub max_sender_bytes: usize,
    /// Most transactions whose check is outstanding.
    pub max_checking_txs: usize,
    /// Most bytes of these together.
    pub max_checking_bytes: usize,
    /// How many committed hashes are remembered, to refuse them as repeats.
    pub cache_size: usize,
    /// Whether a newcomer of higher priority displaces a waiting transaction when the pool is full. Its priority is known
    /// only after its check, so such a pool checks even when it is full. Where an application gives all the same priority,
    /// set this to `false`: the newcomer is then told at once that the pool is full.
    pub evict: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_txs: 50_000,
            max_bytes: 64 << 20,
            max_tx_bytes: 1 << 20,
            max_tx_gas: -1,
            max_sender_txs: 1_024,
            max_sender_bytes: 4 << 20,
            max_checking_txs: 10_000,
            max_checking_bytes: 16 << 20,
            cache_size: 100_000,
            evict: true,
        }
    }
}

impl Limits {
    /// Whether the bounds fit each other.
    ///
    /// # Errors
    /// The field, its value and the rule it breaks.
    pub fn check(&self) -> Result<(), String> {
        let at_least = |name: &str, value: usize, least: usize, what: &str| {
            if value >= least { Ok(()) } else { Err(format!("{name} is {value}, and must be at least {least}: {what}")) }
        };
        at_least("max_txs", self.max_txs, 1, "a pool holds something")?;
        at_least("max_tx_bytes", self.max_tx_bytes, 1, "a transaction has bytes")?;
        at_least("max_bytes", self.max_bytes, self.max_tx_bytes, "the largest transaction must fit")?;
        at_least("max_sender_txs", self.max_sender_txs, 1, "a share holds something")?;
        at_least("max_sender_bytes", self.max_sender_bytes, self.max_tx_bytes, "the largest transaction must fit a share")?;
        at_least("max_checking_txs", self.max_checking_txs, 1, "nothing enters unchecked")?;
        at_least("max_checking_bytes", self.max_checking_bytes, self.max_tx_bytes, "the largest transaction must be checked")
    }
}
