//! Validators who come and go: what is asked of the chain, and what must hold of who is let in (I15).
//!
//! The rules are restated here over the transactions of each block, its last commit and its updates, without the registry, the
//! line and the windows of the product: who gains power asked for it lately and was approved by more than two thirds, who loses it
//! asked for that or was absent, power moves slowly, and more than two thirds of what remains is live. What enters the root is
//! computed by the product's own host, on a fresh instance from genesis ([`HostModel`]), beside the naive verifier of the chain.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_app::application::{Misbehaviour, MisbehaviourKind};
use lockstep_app::membership::NodeTx;
use lockstep_app::node_tx::is_node_tx;
use lockstep_app::record::CommittedEvidence;
use lockstep_app::{BlockInput, ChainFacts, Host, Participation, ParticipationFlag, State};
use lockstep_genesis::Genesis;
use lockstep_replica::ChainState;
use lockstep_replica::seam::Outcome;
use lockstep_types::{Address, Block, ChainId, CommitSig, ConsensusParams, Hash, Height, Power, Time, Tx, ValidatorSet};
use serde::{Deserialize, Serialize};

use crate::naive::{Model, Modelled, Next, TwoVotes, TxOutcome};

/// The rules of a chain whose validators come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Windows {
    /// `live_window` of genesis.
    pub(crate) live: u64,
    /// `power_window`.
    pub(crate) power: u64,
    /// `absence_window`.
    pub(crate) absence: u64,
    /// `checkpoint_interval`: of every so many heights each replica makes a snapshot, which is read back. 0 for none.
    #[serde(default)]
    pub(crate) checkpoint: u64,
}

/// What somebody asks of the chain, by a transaction of the node over the newest block that it knows. Nodes by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// To validate with this power.
    Join {
        /// How much.
        power: u64,
    },
    /// To leave.
    Quit,
    /// That another may validate, with the power that it asks for.
    Approve {
        /// Whose key.
        who: usize,
        /// How much.
        power: u64,
    },
    /// To take the place of another.
    Rotate {
        /// Whose.
        old: usize,
    },
    /// That a key which no node has may validate: nobody approves it, and it must never have power.
    Stranger {
        /// Draws the key.
        seed: u64,
        /// How much.
        power: u64,
    },
    /// The same for many keys at once.
    Crowd {
        /// Draws the keys.
        seed: u64,
        /// How many.
        count: u64,
        /// How much, each.
        power: u64,
    },
    /// That a weak key may validate, under which anybody can sign: whoever approves it, it must never have power.
    Weak {
        /// Which of the weak keys that are tried.
        key: usize,
        /// How much.
        power: u64,
    },
    /// Again what somebody asked for before, and the chain granted: everybody can read it there.
    HandOn {
        /// Which of what is still young enough.
        place: u64,
    },
    /// That a weak key may validate, which somebody asked for.
    ApproveWeak {
        /// Which.
        key: usize,
        /// How much.
        power: u64,
    },
}

/// Points of small order, and one that is written in a way that is not canonical: for some of them a signature holds for any message.
pub(crate) const WEAK: [[u8; 32]; 4] = {
    let mut keys = [[0; 32]; 4];
    // y = 1: the neutral element. y = 0: order 4. y = -1: order 2. y = p + 1: the neutral element again.
    keys[0][0] = 1;
    keys[2] = [0xff; 32];
    (keys[2][0], keys[2][31]) = (0xec, 0x7f);
    keys[3] = [0xff; 32];
    (keys[3][0], keys[3][31]) = (0xee, 0x7f);
    keys
};

impl Windows {
    /// `app_state` of genesis with these rules beside what the application begins with.
    pub(crate) fn app_state(&self, app_state: &str) -> String {
        let mut groups: serde_json::Map<String, serde_json::Value> = serde_json::from_str(app_state).unwrap_or_default();
        let group = serde_json::json!({
            "admission": "vote", "live_window": self.live, "power_window": self.power, "absence_window": self.absence,
            "checkpoint_interval": self.checkpoint,
        });
        groups.insert("membership".to_owned(), group);
        serde_json::Value::Object(groups).to_string()
    }
}

/// Whether a chain that begins with this `app_state` has membership.
pub(crate) fn has_rules(app_state: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(app_state).is_ok_and(|groups| groups.get("membership").is_some())
}

/// Powers by address.
pub(crate) type Powers = BTreeMap<Address, u64>;

fn total(set: &Powers) -> u64 {
    set.values().sum()
}

/// A JOIN that was taken.
#[derive(Debug, Clone, Copy)]
struct Asked {
    power: u64,
    /// The block that it named.
    proven: u64,
    replaces: Option<Address>,
}

/// I15: who is let in, restated.
#[derive(Debug)]
pub(crate) struct Rules {
    windows: Windows,
    /// The newest set, which acts two heights later.
    set: Powers,
    /// When power moved: height, total before, how much.
    moved: Vec<(u64, u64, u64)>,
    asked: BTreeMap<Address, Asked>,
    /// Who approved a key with a power.
    approved: BTreeMap<(Address, u64), BTreeSet<Address>>,
    /// Who was asked for and approved by enough at one time, since it was last let in.
    admitted: BTreeSet<Address>,
    quits: BTreeSet<Address>,
    /// Who was proven to have lied.
    barred: BTreeSet<Address>,
    /// Who was so by this block.
    culprits: BTreeSet<Address>,
    /// Who lost its power by absence, and how much it had.
    suspended: Powers,
    /// The last commit that each signed, or the height at which it entered.
    signed: BTreeMap<Address, u64>,
    /// When each lost its power last, or took back that it asked for some.
    left: BTreeMap<Address, u64>,
    /// What was asked for and granted, with the height, while anybody could ask for it again.
    granted: VecDeque<(u64, Vec<u8>)>,
}

impl Rules {
    pub(crate) fn new(windows: Windows, set: Powers) -> Self {
        Self {
            windows,
            signed: set.keys().map(|address| (*address, 0)).collect(),
            set,
            moved: Vec::new(),
            asked: BTreeMap::new(),
            approved: BTreeMap::new(),
            admitted: BTreeSet::new(),
            quits: BTreeSet::new(),
            barred: BTreeSet::new(),
            culprits: BTreeSet::new(),
            suspended: Powers::new(),
            left: BTreeMap::new(),
            granted: VecDeque::new(),
        }
    }

    /// The next block, in order.
    pub(crate) fn block(&mut self, block: &Block, outcome: &Outcome) -> Result<(), String> {
        let height = block.header.height.get();
        let slots = block.last_commit.iter().flat_map(|commit| &commit.signatures).filter_map(CommitSig::slot);
        for slot in slots {
            if let Some(signed) = self.signed.get_mut(&slot.address) {
                *signed = (*signed).max(height - 1);
            }
        }
        self.culprits = block.evidence.iter().flat_map(lockstep_types::Evidence::accused).map(|(address, _)| address).collect();
        for culprit in &self.culprits {
            self.barred.insert(*culprit);
            self.asked.remove(culprit);
            self.admitted.remove(culprit);
            self.suspended.remove(culprit);
        }
        let done = block.txs.iter().zip(outcome.results.iter()).filter(|(tx, result)| is_node_tx(&tx.0) && result.code == 0);
        self.granted.retain(|(at, _)| at + self.windows.live >= height);
        for (tx, _) in done {
            let request = NodeTx::decode(&tx.0).map_err(|error| format!("a transaction that cannot be read had an effect: {error}"))?;
            self.is_meant(&request)?;
            self.take(height, &request);
            self.admit();
            self.granted.push_back((height, tx.0.clone()));
        }
        let before = self.set.clone();
        for update in &outcome.validator_updates {
            let address = update.public_key.address();
            match update.power.get() {
                0 => drop(self.set.remove(&address).ok_or_else(|| format!("{address} is removed, and is not there"))?),
                power => drop(self.set.insert(address, power)),
            }
        }
        let changed = outcome.validator_updates.iter().map(|update| update.public_key.address());
        if changed.collect::<BTreeSet<_>>().len() != outcome.validator_updates.len() {
            return Err("two updates of one key".into());
        }
        // Of a set of one, the one stays, whatever it did.
        if let Some(stays) = self.culprits.iter().find(|culprit| before.contains_key(*culprit) && self.set.contains_key(*culprit))
            && self.set.len() > 1
        {
            return Err(format!("{stays} is proven to have lied, and stays"));
        }
        if before == self.set { Ok(()) } else { self.changed(height, &before) }
    }

    /// What was signed before its key left is of no use after.
    fn is_meant(&self, tx: &NodeTx) -> Result<(), String> {
        let about = match tx {
            NodeTx::Join(join) => vec![join.public_key.address()].into_iter().chain(join.replaces.map(|key| key.address())).collect(),
            NodeTx::Approve(approve) => vec![approve.public_key.address()],
            NodeTx::Quit(quit) => vec![quit.public_key.address()],
            NodeTx::Checkpoint(_) => Vec::new(),
        };
        let named = tx.recent().height.get();
        match about.iter().find_map(|address| self.left.get(address).filter(|left| named < **left).map(|left| (address, left))) {
            Some((address, left)) => Err(format!("{address} left at {left}, and what was signed over block {named} counts")),
            None => Ok(()),
        }
    }

    /// Something that was granted lately.
    pub(crate) fn granted(&self, place: u64) -> Option<&[u8]> {
        let count = u64::try_from(self.granted.len()).ok().filter(|count| *count > 0)?;
        self.granted.get(usize::try_from(place % count).ok()?).map(|(_, tx)| &tx[..])
    }

    fn take(&mut self, height: u64, tx: &NodeTx) {
        match tx {
            NodeTx::Join(join) => {
                let address = join.public_key.address();
                let replaces = join.replaces.map(|key| key.address());
                self.asked.insert(address, Asked { power: join.power.get(), proven: join.recent.height.get(), replaces });
            }
            NodeTx::Approve(approve) => {
                let about = (approve.public_key.address(), approve.power.get());
                self.approved.entry(about).or_default().insert(approve.signer.address());
            }
            NodeTx::Quit(quit) => {
                let address = quit.public_key.address();
                if self.set.contains_key(&address) {
                    self.quits.insert(address);
                } else {
                    self.left.insert(address, height);
                    self.asked.remove(&address);
                    self.admitted.remove(&address);
                    self.approved.retain(|(about, _), _| *about != address);
                }
            }
            NodeTx::Checkpoint(_) => {}
        }
    }

    /// Who has more than two thirds of the power behind it now.
    fn admit(&mut self) {
        for (address, asked) in &self.asked {
            let given = self.approved.get(&(*address, asked.power)).into_iter().flatten();
            let power: u64 = given.filter_map(|signer| self.set.get(signer)).sum();
            if 3 * power > 2 * total(&self.set) {
                self.admitted.insert(*address);
            }
        }
    }

    /// The set that the rules allow at this height.
    fn changed(&mut self, height: u64, before: &Powers) -> Result<(), String> {
        let after = self.set.clone();
        if after.is_empty() {
            return Err("nobody is left".into());
        }
        let gained: Vec<Address> = after.keys().filter(|address| before.get(*address) != after.get(*address)).copied().collect();
        let lost: Vec<Address> = before.keys().filter(|address| !after.contains_key(*address)).copied().collect();
        let mut replaced = BTreeSet::new();
        for address in &gained {
            if self.barred.contains(address) {
                return Err(format!("{address} gains power, and was proven to have lied"));
            }
            if WEAK.iter().any(|key| Address::of_key_bytes(key) == *address) {
                return Err(format!("{address}, a weak key, gains power"));
            }
            let Some(asked) = self.asked.get(address).copied() else { return Err(format!("{address} gains power and never asked")) };
            if after[address] != asked.power || before.contains_key(address) {
                return Err(format!("{address} asked for power {} and has {}", asked.power, after[address]));
            }
            if asked.proven + self.windows.live < height {
                return Err(format!("{address} is let in at {height}, and named block {}", asked.proven));
            }
            let returns = self.suspended.get(address) == Some(&asked.power);
            match asked.replaces {
                Some(old) if before.get(&old) == Some(&asked.power) && lost.contains(&old) => drop(replaced.insert(old)),
                Some(old) => return Err(format!("{address} takes the place of {old}, which had another power, or stays")),
                None if returns || self.admitted.contains(address) => {}
                None => return Err(format!("{address} gains power, and two thirds never approved")),
            }
        }
        for address in &lost {
            let absent = self.windows.absence != 0 && self.signed.get(address).is_none_or(|signed| signed + self.windows.absence < height);
            if self.culprits.contains(address) {
                continue;
            }
            if !self.quits.contains(address) && !replaced.contains(address) && !absent {
                return Err(format!("{address} loses its power, and neither quit nor was absent"));
            }
            if !self.quits.contains(address) && !replaced.contains(address) {
                self.suspended.insert(*address, before[address]);
            }
        }
        // What is taken from who lied is bounded by nothing, and counts for what else may move.
        let is_removal_alone = gained.is_empty() && lost.iter().all(|address| self.culprits.contains(address));
        self.check_moved(height, before, &after, (!is_removal_alone).then_some(gained.len() + lost.len() - replaced.len()))?;
        for address in &gained {
            self.signed.insert(*address, height + 2);
        }
        for address in &lost {
            self.signed.remove(address);
            self.left.insert(*address, height);
        }
        let window = self.windows.live.min(20);
        let live = |address: &Address| self.signed.get(address).is_some_and(|signed| signed + window >= height);
        let power: u64 = after.iter().filter(|(address, _)| live(address)).map(|(_, power)| power).sum();
        if !is_removal_alone && 3 * power <= 2 * total(&after) {
            return Err(format!("of power {} only {power} is live", total(&after)));
        }
        for address in gained.iter().chain(&lost) {
            self.asked.remove(address);
            self.admitted.remove(address);
            self.quits.remove(address);
            self.approved.retain(|(about, _), _| about != address);
        }
        self.suspended.retain(|address, _| !gained.contains(address));
        Ok(())
    }

    /// Over any window at most a third of the power at its start moves, or one change that is not above the largest power.
    fn check_moved(&mut self, height: u64, before: &Powers, after: &Powers, changes: Option<usize>) -> Result<(), String> {
        let more = |from: &Powers, to: &Powers| -> u64 {
            to.iter().map(|(address, power)| power.saturating_sub(from.get(address).copied().unwrap_or(0))).sum()
        };
        let moved = more(before, after).max(more(after, before));
        self.moved.retain(|(at, ..)| at + self.windows.power > height);
        let earlier: u64 = self.moved.iter().map(|(.., moved)| moved).sum();
        let start = self.moved.first().map_or(total(before), |(_, total, _)| *total);
        let alone = earlier == 0 && changes == Some(1) && Some(&moved) <= before.values().max();
        self.moved.push((height, total(before), moved));
        if alone || changes.is_none() || 3 * (earlier + moved) <= start {
            return Ok(());
        }
        Err(format!("power {moved} moves after {earlier} of {start} within {} heights", self.windows.power))
    }
}

/// The whole of a chain with membership, executed from genesis on an instance of its own.
pub(crate) struct HostModel {
    host: Host,
    chain_id: ChainId,
    params: ConsensusParams,
    version: u64,
    state: State,
    /// Of the last height, the next, and the one after it.
    sets: [ValidatorSet; 3],
}

impl HostModel {
    pub(crate) fn new(host: Host, genesis: &Genesis) -> Result<Self, String> {
        let (chain, state, _): (ChainState, State, _) =
            lockstep_replica::recovery::genesis_state(&host, genesis).map_err(|error| error.to_string())?;
        let sets = [&chain.last_validators, &chain.validators, &chain.next_validators].map(|set| (**set).clone());
        Ok(Self { host, chain_id: chain.chain_id, params: (*chain.params).clone(), version: chain.app_version, state, sets })
    }
}

impl Model for HostModel {
    fn root(&self) -> crate::naive::Hash {
        self.state.root().0
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn execute(&mut self, next: &Next<'_>) -> Result<Modelled, String> {
        let body = next.body;
        let txs: Vec<Tx> = body.txs.iter().cloned().map(Tx).collect();
        let flag = |place: usize| match body.last_commit.as_ref().and_then(|commit| commit.slots.get(place)) {
            Some(Some(slot)) if slot.for_block => ParticipationFlag::Signed,
            Some(Some(_)) => ParticipationFlag::Nil,
            _ => ParticipationFlag::Absent,
        };
        let part = |(place, (address, power)): (usize, &([u8; 20], u64))| Participation {
            address: Address(*address),
            power: Power::new(*power).expect("a power of a set"),
            flag: flag(place),
        };
        let told = |piece: &TwoVotes| -> Option<Misbehaviour> {
            Some(Misbehaviour {
                kind: MisbehaviourKind::DuplicateVote,
                address: Address(piece.address),
                power: Power::new(piece.power)?,
                height: Height::new(piece.height())?,
                time: Time::new(piece.time.seconds, piece.time.nanos)?,
                total_power: Power::new(piece.total)?,
            })
        };
        let misbehaviour: Option<Vec<Misbehaviour>> = body.evidence.iter().map(told).collect();
        let misbehaviour = misbehaviour.ok_or("evidence with a number that is none")?;
        let evidence: Vec<CommittedEvidence> = body
            .evidence
            .iter()
            .zip(&misbehaviour)
            .map(|(piece, told)| CommittedEvidence { hash: Hash(piece.hash()), height: told.height, time: told.time })
            .collect();
        let input = BlockInput {
            chain_id: &self.chain_id,
            height: Height::new(body.header.height).expect("a height of a chain"),
            time: Time::new(body.header.time.seconds, body.header.time.nanos).ok_or("no time")?,
            block_hash: Hash(next.hash),
            proposer: Address(body.header.proposer),
            txs: &txs,
            last_commit: next.last_members.iter().enumerate().map(part).collect(),
            misbehaviour,
            parameters: &self.params,
        };
        let [last, now, after] = &self.sets;
        let facts = ChainFacts { last_validators: last, validators: now, next_validators: after, evidence: &evidence };
        let executed = self.host.execute(self.state.clone(), &input, facts).map_err(|error| error.to_string())?;
        let mut newest = after.clone();
        newest.update(&executed.validator_updates).map_err(|error| error.to_string())?;
        newest.increment(1);
        self.sets = [now.clone(), after.clone(), newest];
        self.state = executed.state;
        let params = executed.parameter_updates.map(|params| {
            let named = (params.block.max_bytes, params.block.max_gas);
            self.params = params;
            named
        });
        let results = executed.tx_results.into_iter();
        Ok(Modelled {
            results: results
                .map(|result| TxOutcome { code: result.code, data: result.data, gas_wanted: result.gas_wanted, gas_used: result.gas_used })
                .collect(),
            updates: executed.validator_updates.iter().map(|one| (one.public_key.0, one.power.get())).collect(),
            params,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lockstep_app::membership::{Approve, Join, RecentBlock};
    use lockstep_types::{PrivateKey, PublicKey, Signature, TxResult, ValidatorUpdate};

    use super::*;
    use crate::plan::Plan;

    const NOTHING: Signature = Signature([0; 64]);

    fn key(seed: u8) -> PublicKey {
        PrivateKey::from_seed(&[seed; 32]).public_key()
    }

    fn join(who: u8, asks: u64, named: u64) -> NodeTx {
        NodeTx::Join(Box::new(Join {
            public_key: key(who),
            power: Power::new(asks).expect("a power"),
            moniker: String::new(),
            addresses: Vec::new(),
            replaces: None,
            recent: RecentBlock { height: Height::new(named).expect("a height"), hash: Hash::EMPTY_LIST },
            signature: NOTHING,
            replaced_signature: None,
        }))
    }

    fn approve(who: u8, asks: u64, by: u8) -> NodeTx {
        let recent = RecentBlock { height: Height::FIRST, hash: Hash::EMPTY_LIST };
        let power = Power::new(asks).expect("a power");
        NodeTx::Approve(Approve { public_key: key(who), power, signer: key(by), recent, signature: NOTHING })
    }

    /// What the rules say of a block of this height with these transactions, all of which succeeded, and these updates. Four
    /// validators of power 10, keys 1 to 4.
    fn judged(height: u64, txs: &[NodeTx], updates: &[(u8, u64)]) -> Result<(), String> {
        let windows = Windows { live: 20, power: 5, absence: 0, checkpoint: 0 };
        let mut rules = Rules::new(windows, (1..=4).map(|seed| (key(seed).address(), 10)).collect());
        let (genesis, _) = crate::keys::genesis(&Plan::quiet(), "{}");
        let (chain, ..) = lockstep_replica::recovery::genesis_state(&Host::new(Arc::new(lockstep_app::Kv)), &genesis).expect("a genesis");
        let mut header = chain.next_header(chain.last_time, key(1).address());
        header.height = Height::new(height).expect("a height");
        let update = |(who, power): &(u8, u64)| ValidatorUpdate { public_key: key(*who), power: Power::new(*power).expect("a power") };
        let block = Block { header, txs: txs.iter().map(|tx| Tx(tx.encode())).collect(), evidence: Vec::new(), last_commit: None };
        let outcome = Outcome {
            height: block.header.height,
            app_hash: lockstep_types::AppHash::default(),
            results_hash: Hash::EMPTY_LIST,
            results: Arc::new(txs.iter().map(|_| TxResult::default()).collect()),
            events: Vec::new(),
            validator_updates: updates.iter().map(update).collect(),
            params: None,
            standing: Arc::default(),
            unflushed_keys: 0,
            checkpoint: false,
        };
        rules.block(&block, &outcome)
    }

    #[test]
    fn each_rule_can_be_broken() {
        let three = [approve(9, 10, 1), approve(9, 10, 2), approve(9, 10, 3)];
        let asked = |asks: u64, named: u64| [&[join(9, asks, named)][..], &three].concat();
        assert_eq!(judged(5, &asked(10, 4), &[(9, 10)]), Ok(()));
        let wrong = |height: u64, txs: &[NodeTx], updates: &[(u8, u64)], says: &str| {
            let what = judged(height, txs, updates).expect_err(says);
            assert!(what.contains(says), "{what}");
        };
        wrong(5, &three, &[(9, 10)], "never asked");
        wrong(5, &asked(11, 4), &[(9, 10)], "asked for power 11");
        wrong(30, &asked(10, 4), &[(9, 10)], "named block 4");
        wrong(5, &[join(9, 10, 4), approve(9, 10, 1), approve(9, 10, 2)], &[(9, 10)], "two thirds never approved");
        wrong(5, &[join(9, 10, 4), approve(9, 9, 1), approve(9, 10, 2), approve(9, 10, 3)], &[(9, 10)], "two thirds never approved");
        wrong(5, &[], &[(1, 0)], "neither quit nor was absent");
        wrong(5, &[], &[(9, 0)], "is not there");
        wrong(5, &asked(10, 4), &[(9, 10), (9, 10)], "two updates of one key");
        let quit = |seed: u8| {
            let recent = RecentBlock { height: Height::FIRST, hash: Hash::EMPTY_LIST };
            NodeTx::Quit(lockstep_app::membership::Quit { public_key: key(seed), signer: key(seed), recent, signature: NOTHING })
        };
        let taken_back = |named: u64| [asked(10, 4), vec![quit(9), join(9, 10, named)]].concat();
        assert_eq!(judged(5, &taken_back(5), &[]), Ok(()), "it asks again over a newer block");
        wrong(5, &taken_back(4), &[], "left at 5");
        wrong(5, &[taken_back(5), vec![approve(9, 10, 1)]].concat(), &[], "over block 1 counts");
        let quits: Vec<NodeTx> = [1, 2].map(quit).into();
        assert_eq!(judged(5, &quits, &[(1, 0)]), Ok(()));
        wrong(5, &quits, &[(1, 0), (2, 0)], "power 20 moves");
        // Nobody has signed anything by height 30, and who is not live is no part of what must remain.
        wrong(30, &quits, &[(1, 0)], "only 0 is live");
    }
}
