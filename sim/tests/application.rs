//! Applications that break their contract, each in one way, and the words in which the simulator says so; and one that keeps
//! it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_app::{
    Application, BlockInput, CheckKind, Draft, Executed, GenesisInput, GenesisRefused, Info, Initialized, Proposal, ProposalInput, Query,
    QueryAnswer, Verdict, View,
};
use lockstep_sim::{Options, Subject, run};
use lockstep_types::{Tx, TxResult};

/// How an [`Ledger`] goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Not at all.
    None,
    /// Writes the order in which a `HashMap` lists names.
    HashOrder,
    /// Counts in `self`.
    CounterInSelf,
    /// Counts in a static.
    CounterInStatic,
    /// Writes the time of the machine.
    Clock,
    /// Gives another log, which clients see and nobody hashes.
    Log,
    /// Panics over text that is none.
    Utf8,
    /// Panics over an empty transaction.
    Empty,
    /// Says nothing about the second of two equal transactions.
    TooFewResults,
    /// Writes under a key that is the node's.
    ReservedKey,
    /// Proposes what it then refuses.
    Quarrel,
    /// Loses a coin now and then.
    LosesCoins,
    /// Panics while it is asked.
    CheckPanics,
}

/// Coins move between accounts: a transaction is `from>to`, and moves one. Each account begins with 100.
struct Ledger {
    fault: Fault,
    calls: AtomicU64,
}

static CALLS: AtomicU64 = AtomicU64::new(0);
const ACCOUNTS: [&str; 4] = ["ada", "bob", "cyd", "dan"];

fn coins(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("written below")))
}

fn parse(tx: &[u8]) -> Option<(&str, &str)> {
    let (from, to) = std::str::from_utf8(tx).ok()?.split_once('>')?;
    (ACCOUNTS.contains(&from) && ACCOUNTS.contains(&to)).then_some((from, to))
}

impl Ledger {
    fn transfer(&self, draft: &mut Draft<'_>, height: u64, tx: &[u8]) -> u32 {
        match self.fault {
            Fault::Utf8 => drop(std::str::from_utf8(tx).expect("transactions are text")),
            Fault::Empty => assert!(!tx.is_empty(), "an empty transaction"),
            _ => {}
        }
        let Some((from, to)) = parse(tx) else { return 1 };
        let left = coins(draft.get(from.as_bytes()).as_deref());
        let Some(less) = left.checked_sub(1) else { return 2 };
        draft.set(from.as_bytes(), less.to_le_bytes());
        let more = coins(draft.get(to.as_bytes()).as_deref()) + 1;
        if self.fault != Fault::LosesCoins || !height.is_multiple_of(5) {
            draft.set(to.as_bytes(), more.to_le_bytes());
        }
        0
    }
}

impl Application for Ledger {
    fn info(&self, _view: &View) -> Info {
        Info { data: String::new(), version: "1".into(), app_version: 7 }
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        assert_eq!(genesis.app_state, r#"{"coins":100}"#);
        let mut initialized = Initialized::default();
        ACCOUNTS.iter().for_each(|account| initialized.changes.set(account.as_bytes(), 100u64.to_le_bytes()));
        Ok(initialized)
    }

    fn check_tx(&self, _view: &View, tx: &[u8], _kind: CheckKind) -> Verdict {
        assert!(self.fault != Fault::CheckPanics || tx.len() == 7, "a transaction of {} bytes", tx.len());
        if parse(tx).is_some() { Verdict::default() } else { Verdict::refused(1, "ledger", "a transaction is from>to") }
    }

    fn prepare_proposal(&self, _view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        proposal.candidates.to_vec()
    }

    fn process_proposal(&self, _view: &View, block: &BlockInput<'_>) -> Proposal {
        if self.fault == Fault::Quarrel && block.txs.len() % 2 == 1 {
            return Proposal::Reject("an odd number of transactions".into());
        }
        if block.txs.iter().all(|tx| parse(&tx.0).is_some()) { Proposal::Accept } else { Proposal::Reject("no transfer".into()) }
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        let mut draft = Draft::new(view);
        let height = block.height.get();
        let mut tx_results: Vec<TxResult> = Vec::new();
        for tx in block.txs {
            let code = self.transfer(&mut draft, height, &tx.0);
            let mut result = TxResult { code, gas_used: 1, ..TxResult::default() };
            if self.fault == Fault::Log {
                let _ = write!(result.log, "call {}", CALLS.fetch_add(1, Ordering::Relaxed));
            }
            tx_results.push(result);
        }
        if self.fault == Fault::TooFewResults && block.txs.windows(2).any(|two| two[0] == two[1]) {
            tx_results.pop();
        }
        if !block.txs.is_empty() {
            match self.fault {
                Fault::HashOrder => {
                    let names: HashMap<&str, u32> = ACCOUNTS.iter().chain(&["eve", "fay", "gus", "hal"]).map(|name| (*name, 1)).collect();
                    draft.set(*b"names", names.into_keys().collect::<String>().into_bytes());
                }
                Fault::CounterInSelf => draft.set(*b"calls", self.calls.fetch_add(1, Ordering::Relaxed).to_le_bytes()),
                Fault::CounterInStatic => draft.set(*b"calls", CALLS.fetch_add(1, Ordering::Relaxed).to_le_bytes()),
                Fault::Clock => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                    draft.set(*b"now", now.as_nanos().to_le_bytes());
                }
                Fault::ReservedKey if block.txs.iter().any(|tx| parse(&tx.0).is_none()) => draft.set(*b"\0mine", *b"1"),
                _ => {}
            }
        }
        Executed { changes: draft.into_changes(), tx_results, ..Executed::default() }
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        QueryAnswer { value: view.get(query.data).filter(|_| !query.data.is_empty()), ..QueryAnswer::default() }
    }
}

fn subject(fault: Fault) -> Subject {
    Subject::new("ledger", move || Ledger { fault, calls: AtomicU64::new(0) })
        .app_state(r#"{"coins":100}"#)
        .transactions(|choice| format!("{}>{}", choice.pick(&ACCOUNTS), choice.pick(&ACCOUNTS)).into_bytes())
        .invariant(|height, entries| {
            let sum: u64 = ACCOUNTS.iter().map(|account| coins(entries.get(account.as_bytes()).map(|value| &value[..]))).sum();
            if sum == 400 { Ok(()) } else { Err(format!("{sum} coins after height {height}, there were 400")) }
        })
}

/// The line of the first failure of a few seeds.
fn line(fault: Fault) -> Option<String> {
    let options = Options { seeds: 12, fail_fast: true, subject: subject(fault), ..Options::default() };
    let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
    assert!(summary.blocks > 0 || !summary.failures.is_empty(), "a world in which nothing happens proves nothing");
    summary.failures.into_iter().map(|failure| failure.line).next()
}

fn says(fault: Fault, words: &[&str]) {
    let line = line(fault).unwrap_or_else(|| panic!("{fault:?} was not seen"));
    assert!(words.iter().all(|words| line.contains(words)), "{fault:?}: {line}");
}

#[test]
fn one_that_keeps_its_contract_passes() {
    assert_eq!(line(Fault::None), None);
}

#[test]
fn what_differs_from_call_to_call_is_named_by_key_or_transaction() {
    says(Fault::HashOrder, &["FAIL I6", "height ", "execute, called twice, gives key \"names\""]);
    says(Fault::CounterInStatic, &["FAIL I6", "execute, called twice, gives key \"calls\""]);
    says(Fault::Clock, &["FAIL I6", "execute, called twice, gives key \"now\""]);
    says(Fault::Log, &["FAIL I6", "execute, called twice, gives transaction 0, \"", "log: \"call "]);
    // The first call of an instance answers like the first of another: the second does not.
    says(Fault::CounterInSelf, &["FAIL I6", "execute, called twice, gives key \"calls\""]);
}

#[test]
fn a_liars_block_is_survived() {
    says(Fault::Utf8, &["FAIL I18", "execute of a liar's block panics: transactions are text", "(transaction \""]);
    says(Fault::Empty, &["FAIL I18", "execute of a liar's block panics: an empty transaction", "(transaction \"\")"]);
    says(Fault::TooFewResults, &["FAIL I18", "results for"]);
    says(Fault::ReservedKey, &["FAIL I18", "a liar's block gives changes that are refused: key [00"]);
    says(Fault::CheckPanics, &["FAIL I18", "check_tx of \"", "panics: a transaction of"]);
}

#[test]
fn a_proposal_is_accepted_by_its_maker() {
    says(Fault::Quarrel, &["FAIL I7", "process_proposal refuses what prepare_proposal made: an odd number"]);
}

#[test]
fn an_invariant_is_asked_of_every_height() {
    says(Fault::LosesCoins, &["FAIL I3", "coins after height"]);
}
