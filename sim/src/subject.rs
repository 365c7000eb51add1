//! Your application in the simulator.
//!
//! A [`Subject`] says how to make the application, what clients send, and what must always hold. [`crate::run`] then runs it
//! as it runs the bundled one: in networks that lose frames, on machines that crash and forget, under clocks that jump, with
//! validators that lie, and compares what every node makes of every block.
//!
//! ```
//! use lockstep_app::{
//!     Application, BlockInput, CheckKind, Draft, Executed, GenesisInput, GenesisRefused, Info, Initialized, Query, QueryAnswer, Verdict,
//!     View,
//! };
//! use lockstep_sim::{Options, Subject, run};
//! use lockstep_types::TxResult;
//!
//! /// Counts: a transaction is a number to add.
//! struct Adder;
//!
//! fn total(bytes: Option<&[u8]>) -> u64 {
//!     bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("written below")))
//! }
//!
//! fn number(tx: &[u8]) -> Option<u64> {
//!     std::str::from_utf8(tx).ok()?.parse().ok()
//! }
//!
//! impl Application for Adder {
//!     fn info(&self, _view: &View) -> Info {
//!         Info { data: String::new(), version: "1".into(), app_version: 1 }
//!     }
//!
//!     fn init_chain(&self, _genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
//!         Ok(Initialized::default())
//!     }
//!
//!     fn check_tx(&self, _view: &View, tx: &[u8], _kind: CheckKind) -> Verdict {
//!         if number(tx).is_some() { Verdict::default() } else { Verdict::refused(1, "adder", "not a number") }
//!     }
//!
//!     fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
//!         let mut draft = Draft::new(view);
//!         let mut add = |tx: &[u8]| {
//!             let (before, more) = (total(draft.get(b"total").as_deref()), number(tx)?);
//!             let after = before.checked_add(more)?;
//!             draft.set(*b"total", after.to_le_bytes());
//!             Some(())
//!         };
//!         // A liar can propose what `check_tx` refused, so each transaction has a result, whatever it is.
//!         let result = |done: Option<()>| TxResult { code: u32::from(done.is_none()), ..TxResult::default() };
//!         let tx_results = block.txs.iter().map(|tx| result(add(&tx.0))).collect();
//!         Executed { changes: draft.into_changes(), tx_results, ..Executed::default() }
//!     }
//!
//!     fn query(&self, view: &View, _query: &Query<'_>) -> QueryAnswer {
//!         QueryAnswer { value: view.get(b"total"), ..QueryAnswer::default() }
//!     }
//! }
//!
//! let subject = Subject::new("adder", || Adder)
//!     .transactions(|choice| (choice.below(1_000) + 1).to_string().into_bytes())
//!     .invariant(|height, entries| {
//!         let grown = total(entries.get(&b"total"[..]).map(|value| &value[..])) > 0 || entries.is_empty();
//!         if grown { Ok(()) } else { Err(format!("a total of nothing at height {height}")) }
//!     });
//! let options = Options { seeds: 5, subject, ..Options::default() };
//! let summary = run(&options, &mut std::io::stdout()).expect("it can be printed");
//! assert!(summary.failures.is_empty());
//! ```
//!
//! # What it looks for
//!
//! **The same answer, always.** Each call of `init_chain`, `process_proposal` and `execute` is made a second time on an
//! instance made fresh for it, and everything that the chain knows of the two answers is compared: changes, results, events,
//! validators, parameters. A clock, a counter in `self` or in a static, the order of a `HashMap`: what differs is named with
//! height, transaction and key. (What a whole process has in common, such as a map in a static that is filled once, shows
//! only between processes.) A restart makes a new instance, executes again what was not flushed, and must come to the same
//! root; so must one more execution of the whole chain from genesis, at the end of the run.
//!
//! **No panic, whatever comes.** Beside the transactions of your generator, each block is executed once more with hostile
//! ones in it (cut short, doubled, with a byte changed, empty, in another order), and the outcome is thrown away but for a
//! panic, a wrong number of results, or changes that the node refuses. `check_tx` and `query` get the same.
//!
//! **A proposal that its own maker accepts**: what `prepare_proposal` gave, `process_proposal` takes.
//!
//! **Your invariant**, after each block, over all entries of the state.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use lockstep_app::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Kv, Proposal, ProposalInput, Query,
    QueryAnswer, Verdict, View,
};
use lockstep_genesis::Genesis;
use lockstep_types::{Hash, Height, Tx};

use crate::checks::Violation;
use crate::disk::Dice;
use crate::forged;
use crate::forgiving::Forgiving;
use crate::naive::{Entries, Invariant};
use crate::random::Stream;

type Make = dyn Fn() -> Arc<dyn Application> + Send + Sync;
type Generate = dyn Fn(&mut Choice<'_>) -> Vec<u8> + Send + Sync;

/// The application that a run simulates. See the [module](self).
#[derive(Clone)]
pub struct Subject {
    name: String,
    make: Arc<Make>,
    generate: Arc<Generate>,
    pub(crate) app_state: String,
    pub(crate) invariant: Option<Arc<Invariant>>,
    /// Whether blocks may hold transactions that no client sent.
    pub(crate) adds_transactions: bool,
    /// Whether what `check_tx` lets in may wait for what never comes.
    pub(crate) holds_back: bool,
    /// How the keys begin whose values a failing memory may change.
    pub(crate) fragile: Option<Vec<u8>>,
    /// Whether it is the bundled one, of which there is a model.
    pub(crate) is_kv: bool,
    /// What `lockstep sim --app` is told to run it, where it must be told.
    pub(crate) app: Option<&'static str>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.name).finish()
    }
}

impl Default for Subject {
    /// The bundled key-value application.
    fn default() -> Self {
        let generate = |choice: &mut Choice<'_>| {
            let mut tx = format!("key{}={}-{}", choice.below(40), choice.seed(), choice.serial()).into_bytes();
            if choice.serial().is_multiple_of(8) {
                tx.extend(forged::record(1_000_000 + choice.serial()).unwrap_or_default());
            }
            tx
        };
        let prefix = lockstep_app::kv::data_key(&[]);
        Self { is_kv: true, ..Self::new("kv", || Forgiving(Kv)).transactions(generate).fragile(&prefix) }
    }
}

impl Subject {
    /// An application, by how an instance of it is made: once for each start of each node, as a process would, and once for
    /// each call that is repeated. Without [`Subject::transactions`], clients send texts `1`, `2`, `3` and so on.
    pub fn new<A: Application>(name: &str, make: impl Fn() -> A + Send + Sync + 'static) -> Self {
        Self {
            name: name.to_owned(),
            make: Arc::new(move || Arc::new(make())),
            generate: Arc::new(|choice| choice.serial.to_string().into_bytes()),
            app_state: "{}".to_owned(),
            invariant: None,
            adds_transactions: false,
            holds_back: false,
            fragile: None,
            is_kv: false,
            app: None,
        }
    }

    /// It is one of the bundled, and `lockstep sim --app` is to be told so.
    #[must_use]
    pub(crate) fn called_by(mut self, app: &'static str) -> Self {
        self.app = Some(app);
        self
    }

    /// What clients send: one transaction at a time, from choices that the seed makes. `check_tx` may refuse some.
    #[must_use]
    pub fn transactions(mut self, generate: impl Fn(&mut Choice<'_>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.generate = Arc::new(generate);
        self
    }

    /// `app_state` of genesis, as JSON; `{}` where nothing is said.
    #[must_use]
    pub fn app_state(mut self, json: &str) -> Self {
        json.clone_into(&mut self.app_state);
        self
    }

    /// What must hold after genesis (height 0) and after each block, given all entries of the state; otherwise why it does
    /// not. It is asked once for each height of the chain, when the run is over.
    #[must_use]
    pub fn invariant(mut self, holds: impl Fn(u64, &Entries) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.invariant = Some(Arc::new(holds));
        self
    }

    /// Its `prepare_proposal` adds transactions that no client sent. Where that is not said, one is a violation (I3).
    #[must_use]
    pub fn adds_transactions(mut self) -> Self {
        self.adds_transactions = true;
        self
    }

    /// Its `check_tx` lets in what has to wait for other transactions, which may be lost. Where that is not said, what the whole network took
    /// in must soon be in a block (I8).
    #[must_use]
    pub fn holds_back(mut self) -> Self {
        self.holds_back = true;
        self
    }

    /// Memories may fail in entries whose keys begin so: a bit of a value turns over on one node, or the entry is gone, and that node must
    /// find it and heal (I17). The application reads what is left, and must not panic over it.
    #[must_use]
    pub fn fragile(mut self, prefix: &[u8]) -> Self {
        self.fragile = Some(prefix.to_vec());
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A fresh instance.
    pub(crate) fn fresh(&self) -> Arc<dyn Application> {
        (self.make)()
    }

    pub(crate) fn transaction(&self, stream: &mut Stream, seed: u64, serial: u64, genesis: &Genesis) -> Vec<u8> {
        (self.generate)(&mut Choice { stream, seed, serial, genesis })
    }
}

/// What a generator of transactions chooses by.
pub struct Choice<'a> {
    stream: &'a mut Stream,
    seed: u64,
    serial: u64,
    genesis: &'a Genesis,
}

impl Choice<'_> {
    /// A number below `bound`; zero for a bound of zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.stream.below(bound)
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.stream.chance(per_mille)
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'b, T>(&mut self, list: &'b [T]) -> &'b T {
        self.stream.pick(list)
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number that no other transaction of the run has, from 1.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The genesis of the run's chain, whose name and hash signatures hold for.
    pub fn genesis(&self) -> &Genesis {
        self.genesis
    }
}

/// What all nodes of a run saw of their application.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    found: Option<Violation>,
    /// Blocks that were executed with hostile transactions.
    tried: BTreeSet<Hash>,
    /// Transactions that were bent before `check_tx`.
    bent: BTreeSet<Hash>,
    /// Proposals as they were made.
    prepared: BTreeSet<Hash>,
    /// A memory failed: what is proposed may rest on a state that others do not have.
    is_memory_wrong: bool,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no holder panics")
    }

    /// The first thing that was wrong.
    pub(crate) fn verdict(&self) -> Result<(), Violation> {
        self.seen().found.clone().map_or(Ok(()), Err)
    }

    /// A memory fails. From now on nobody is held to accept what somebody proposed.
    pub(crate) fn memory_fails(&self) {
        let mut seen = self.seen();
        seen.is_memory_wrong = true;
        seen.prepared.clear();
    }

    /// The application of one node, from its start to its end.
    pub(crate) fn over(&self, subject: &Subject) -> Arc<dyn Application> {
        Arc::new(Watched { subject: subject.clone(), app: subject.fresh(), watch: self.clone() })
    }
}

/// An application whose every answer is judged.
struct Watched {
    subject: Subject,
    app: Arc<dyn Application>,
    watch: Watch,
}

impl Watched {
    fn found(&self, invariant: &'static str, what: String) {
        let mut seen = self.watch.seen();
        if seen.found.is_none() {
            seen.found = Some(Violation { invariant, what: format!("application {}: {what}", self.subject.name) });
        }
    }

    /// A call, and a word about its panic. The node goes on as it would without us.
    fn call<T>(&self, height: Height, what: impl Fn() -> String, call: impl Fn(&dyn Application) -> T) -> T {
        match catch_unwind(AssertUnwindSafe(|| call(&*self.app))) {
            Ok(answer) => answer,
            Err(panic) => {
                self.found("I18", format!("height {height}: {} panics: {}", what(), crate::panic_text(&*panic)));
                std::panic::resume_unwind(panic)
            }
        }
    }

    /// A call whose answer nobody needs.
    fn probe<T>(&self, height: Height, what: &str, call: impl Fn(&dyn Application) -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| call(&*self.subject.fresh())))
            .map_err(|panic| self.found("I18", format!("height {height}: {what} panics: {}", crate::panic_text(&*panic))))
            .ok()
    }

    fn differs(&self, height: Height, call: &str, what: Option<String>) {
        if let Some(what) = what {
            self.found("I6", format!("height {height}: {call}, called twice, gives {what}"));
        }
    }

    /// The block with transactions that only a liar proposes.
    fn hostile(&self, view: &View, block: &BlockInput<'_>) {
        if !self.watch.seen().tried.insert(block.block_hash) {
            return;
        }
        let mut dice = Dice::new(u64::from_le_bytes(block.block_hash.0[..8].try_into().expect("eight of 32")));
        let mut txs: Vec<Tx> = block.txs.iter().flat_map(|tx| [tx.clone(), Tx(bend(&tx.0, &mut dice))]).collect();
        txs.extend([Tx(Vec::new()), Tx(vec![0xff; 64]), Tx(b"\xf0\x9f".to_vec())]);
        txs.extend(block.txs.first().cloned());
        for place in (1..txs.len()).rev() {
            txs.swap(place, usize::try_from(dice.below(place as u64 + 1)).expect("below a length"));
        }
        let hostile = BlockInput { txs: &txs, ..block.clone() };
        let height = block.height;
        let _ = self.probe(height, "process_proposal of a liar's block", |app| app.process_proposal(view, &hostile));
        let Some(executed) = self.probe(height, "execute of a liar's block", |app| app.execute(view, &hostile)) else {
            // Which one it is.
            for tx in &txs {
                let one = BlockInput { txs: std::slice::from_ref(tx), ..block.clone() };
                if catch_unwind(AssertUnwindSafe(|| self.subject.fresh().execute(view, &one))).is_err() {
                    let mut seen = self.watch.seen();
                    let found = seen.found.as_mut().expect("the panic was noted");
                    found.what.push_str(&format!(" (transaction {})", text(&tx.0)));
                    return;
                }
            }
            return;
        };
        if executed.tx_results.len() != txs.len() {
            let counts = format!("{} results for {} transactions", executed.tx_results.len(), txs.len());
            self.found("I18", format!("height {height}: execute of a liar's block gives {counts}"));
        }
        if let Err(error) = executed.changes.check() {
            self.found("I18", format!("height {height}: execute of a liar's block gives changes that are refused: {error}"));
        }
    }
}

/// A transaction as it should not be.
fn bend(tx: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bent = tx.to_vec();
    let place = usize::try_from(dice.below(bent.len().max(1) as u64)).expect("below a length");
    match dice.below(4) {
        0 => bent.truncate(place),
        1 => bent.extend_from_slice(tx),
        2 => bent.insert(place, u8::try_from(dice.below(256)).expect("a byte")),
        _ => bent.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 0x80),
    }
    bent
}

impl Application for Watched {
    fn info(&self, view: &View) -> Info {
        self.app.info(view)
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        let height = genesis.initial_height.previous();
        let answer = self.call(height, || "init_chain".to_owned(), |app| app.init_chain(genesis));
        let again = self.probe(height, "init_chain", |app| app.init_chain(genesis));
        if let (Ok(first), Some(Ok(second))) = (&answer, again) {
            self.differs(height, "init_chain", changes_differ(&first.changes, &second.changes));
            let other = (first != &second).then(|| "other validators or parameters".to_owned());
            self.differs(height, "init_chain", other);
        }
        answer
    }

    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict {
        let height = view.height();
        let is_new = self.watch.seen().bent.insert(Hash::of(tx));
        if is_new {
            let mut dice = Dice::new(tx.iter().fold(1, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())));
            let bent = bend(tx, &mut dice);
            let what = format!("check_tx of {}", text(&bent));
            let _ = self.probe(height, &what, |app| app.check_tx(view, &bent, kind));
        }
        self.call(height, || format!("check_tx of {}", text(tx)), |app| app.check_tx(view, tx, kind))
    }

    fn prepare_proposal(&self, view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        let txs = self.call(proposal.height, || "prepare_proposal".to_owned(), |app| app.prepare_proposal(view, proposal));
        let mut seen = self.watch.seen();
        if !seen.is_memory_wrong {
            seen.prepared.insert(made(proposal.height, &txs));
        }
        drop(seen);
        txs
    }

    fn process_proposal(&self, view: &View, block: &BlockInput<'_>) -> Proposal {
        let height = block.height;
        let answer = self.call(height, || "process_proposal".to_owned(), |app| app.process_proposal(view, block));
        let again = self.probe(height, "process_proposal", |app| app.process_proposal(view, block));
        let accepts = |proposal: &Proposal| matches!(proposal, Proposal::Accept);
        if again.is_some_and(|again| accepts(&again) != accepts(&answer)) {
            self.differs(height, "process_proposal", Some("two answers".to_owned()));
        }
        if let Proposal::Reject(reason) = &answer
            && self.watch.seen().prepared.contains(&made(height, block.txs))
        {
            self.found("I7", format!("height {height}: process_proposal refuses what prepare_proposal made: {reason}"));
        }
        answer
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        let executed = self.call(block.height, || "execute".to_owned(), |app| app.execute(view, block));
        if let Some(again) = self.probe(block.height, "execute", |app| app.execute(view, block)) {
            self.differs(block.height, "execute", executed_differ(block, &executed, &again));
        }
        self.hostile(view, block);
        executed
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        self.call(view.height(), || format!("query {:?} of {}", query.path, text(query.data)), |app| app.query(view, query))
    }
}

/// A proposal's name: height and transactions, behind their lengths.
fn made(height: Height, txs: &[Tx]) -> Hash {
    let mut bytes = height.get().to_le_bytes().to_vec();
    for tx in txs {
        bytes.extend((tx.0.len() as u64).to_le_bytes());
        bytes.extend(&tx.0);
    }
    Hash::of(bytes)
}

/// As much of some bytes as a person reads.
fn text(bytes: &[u8]) -> String {
    const SHOWN: usize = 48;
    let more = if bytes.len() > SHOWN { format!("... ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}

fn changes_differ(first: &lockstep_app::Changes, second: &lockstep_app::Changes) -> Option<String> {
    let show = |value: Option<Option<&Arc<[u8]>>>| match value {
        None => "nothing".to_owned(),
        Some(None) => "a deletion".to_owned(),
        Some(Some(value)) => text(value),
    };
    let keys: BTreeSet<&Arc<[u8]>> = first.iter().chain(second.iter()).map(|(key, _)| key).collect();
    let key = keys.into_iter().find(|key| first.get(key) != second.get(key))?;
    Some(format!("key {} {} and then {}", text(key), show(first.get(key)), show(second.get(key))))
}

fn executed_differ(block: &BlockInput<'_>, first: &Executed, second: &Executed) -> Option<String> {
    // A result belongs to one transaction, so it says most.
    let of_tx = block.txs.iter().zip(&first.tx_results).zip(&second.tx_results).enumerate();
    let differing = of_tx.map(|(at, ((tx, one), two))| (at, tx, one, two)).find(|(_, _, one, two)| one != two);
    if let Some((at, tx, one, two)) = differing {
        return Some(format!("transaction {at}, {}, the result {one:?} and then {two:?}", text(&tx.0)));
    }
    if first.tx_results.len() != second.tx_results.len() {
        return Some(format!("{} results and then {}", first.tx_results.len(), second.tx_results.len()));
    }
    if let Some(what) = changes_differ(&first.changes, &second.changes) {
        return Some(what);
    }
    if first.events != second.events {
        return Some(format!("the events {:?} and then {:?}", first.events, second.events));
    }
    if first.validator_updates != second.validator_updates {
        return Some(format!("the validators {:?} and then {:?}", first.validator_updates, second.validator_updates));
    }
    (first.parameter_updates != second.parameter_updates).then(|| "other parameters".to_owned())
}
