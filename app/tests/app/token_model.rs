//! The token beside a ledger of a page, over blocks of whatever clients and liars may put into them.

use std::collections::BTreeMap;

use lockstep_app::Proposal;
use lockstep_types::{Address, Tx};
use proptest::prelude::*;

use super::token_bank::{Bank, Draft, PROPOSER, address, genesis};

const MIN_FEE: u64 = 2;
const START: [(u8, u64); 4] = [(1, 200), (2, 90), (3, 40), (4, 1)];
/// Who sends or gets: those of genesis, and some whom the state does not know at first. The last one collects fees, where
/// the proposer does not.
const PEOPLE: u8 = 7;

/// What is wrong with a transaction, beside what its numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    Signature,
    OtherChain,
    Cut,
    Garbage,
}

/// One transaction of a block. Its nonce is the next one of its sender, counted over the block so far as its sender would,
/// and moved by `off`.
#[derive(Debug, Clone)]
struct Ask {
    from: u8,
    off: i8,
    fee: u64,
    payments: Vec<(u8, u64)>,
    flaw: Flaw,
}

#[derive(Debug, Clone)]
enum Item {
    Ask(Ask),
    /// One of all that were made before, again.
    Replay(usize),
}

fn item() -> impl Strategy<Value = Item> {
    let off = prop_oneof![12 => Just(0), 1 => Just(-1), 1 => Just(1), 1 => -3..4i8];
    let fee = prop_oneof![12 => MIN_FEE..8, 1 => 0..MIN_FEE, 1 => 8..300u64];
    let amount = prop_oneof![8 => 1..30u64, 2 => 30..400u64, 1 => Just(u64::MAX)];
    let flaw = prop_oneof![
        20 => Just(Flaw::None), 1 => Just(Flaw::Signature), 1 => Just(Flaw::OtherChain), 1 => Just(Flaw::Cut), 1 => Just(Flaw::Garbage)
    ];
    let ask = (1..=PEOPLE, off, fee, prop::collection::vec((1..=PEOPLE, amount), 1..4), flaw)
        .prop_map(|(from, off, fee, payments, flaw)| Item::Ask(Ask { from, off, fee, payments, flaw }));
    prop_oneof![9 => ask, 1 => (0..1000usize).prop_map(Item::Replay)]
}

/// A transaction as the model knows it: what it says, beside its bytes.
#[derive(Debug, Clone)]
struct Made {
    tx: Tx,
    ask: Ask,
    nonce: u64,
}

fn make(ask: &Ask, nonce: u64) -> Made {
    let draft = ask.payments.iter().fold(Draft::from(ask.from).nonce(nonce).fee(ask.fee), |draft, (to, amount)| draft.pay(*to, *amount));
    let mut tx = if ask.flaw == Flaw::OtherChain { draft.elsewhere().tx() } else { draft.tx() };
    match ask.flaw {
        Flaw::Signature => *tx.0.last_mut().expect("bytes") ^= 1,
        Flaw::Cut => tx.0.truncate(tx.0.len() - 1),
        Flaw::Garbage => tx.0 = b"key=value".to_vec(),
        Flaw::None | Flaw::OtherChain => {}
    }
    Made { tx, ask: ask.clone(), nonce }
}

/// Balance and next nonce of each address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model(BTreeMap<Address, (u64, u64)>);

impl Model {
    fn of(&mut self, who: Address) -> &mut (u64, u64) {
        self.0.entry(who).or_default()
    }

    /// The code of one transaction. The documentation of the module, line by line.
    fn transact(&mut self, made: &Made, fees: &mut u64) -> u32 {
        let (ask, from) = (&made.ask, address(made.ask.from));
        if matches!(ask.flaw, Flaw::Cut | Flaw::Garbage) {
            return 1;
        }
        if ask.fee < MIN_FEE {
            return 3;
        }
        if ask.flaw != Flaw::None {
            return 2;
        }
        let (balance, next) = *self.of(from);
        if made.nonce < next {
            return 4;
        }
        if made.nonce > next {
            return 5;
        }
        if ask.fee > balance {
            return 6;
        }
        *fees += ask.fee;
        *self.of(from) = (balance - ask.fee, next + 1);
        let total: u128 = ask.payments.iter().map(|(_, amount)| u128::from(*amount)).sum();
        if total > u128::from(balance - ask.fee) {
            return 7;
        }
        for (to, amount) in &ask.payments {
            self.of(from).0 -= amount;
            self.of(address(*to)).0 += amount;
        }
        0
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn blocks_do_what_the_model_says(
        blocks in prop::collection::vec(prop::collection::vec(item(), 0..14), 1..8),
        collected in any::<bool>(),
    ) {
        let collector = if collected { address(PEOPLE) } else { PROPOSER };
        let mut bank = Bank::new(&genesis(&START, MIN_FEE, collected.then_some(PEOPLE)));
        let mut model = Model(START.iter().map(|(seed, balance)| (address(*seed), (*balance, 0))).collect());
        let supply: u64 = START.iter().map(|(_, balance)| balance).sum();
        let mut past: Vec<Made> = Vec::new();
        let mut turns: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        for items in &blocks {
            // Clients write: each counts its own nonces on from the state.
            let mut next: BTreeMap<u8, u64> = (1..=PEOPLE).map(|who| (who, bank.account(who).1)).collect();
            let mut list: Vec<Made> = Vec::new();
            for item in items {
                list.push(match item {
                    Item::Replay(at) if past.is_empty() && list.is_empty() => make(&Ask { from: 1, off: 0, fee: 2, payments: vec![(2, 1)], flaw: Flaw::None }, *at as u64),
                    Item::Replay(at) => {
                        let all: Vec<&Made> = past.iter().chain(&list).collect();
                        all[at % all.len()].clone()
                    }
                    Item::Ask(ask) => {
                        let counted = next.get_mut(&ask.from).expect("one of the people");
                        let nonce = counted.saturating_add_signed(i64::from(ask.off));
                        if ask.off == 0 && ask.flaw == Flaw::None {
                            *counted += 1;
                        }
                        make(ask, nonce)
                    }
                });
            }
            let txs: Vec<Tx> = list.iter().map(|made| made.tx.clone()).collect();
            // Some were seen on arrival, some come with the block.
            for tx in txs.iter().step_by(2) {
                let _advice = bank.check(tx);
            }
            // The model's answer.
            let mut fees = 0;
            let mut after = model.clone();
            let codes: Vec<u32> = list.iter().map(|made| after.transact(made, &mut fees)).collect();
            let charged = codes.iter().all(|code| matches!(code, 0 | 7));
            after.of(collector).0 += fees;
            // The application's: as a proposal, executed, and executed on a node that has just started.
            let proposal = bank.process(&txs);
            prop_assert_eq!(matches!(proposal, Proposal::Accept), charged, "{:?} {:?}", proposal, codes);
            let fresh = bank.restarted();
            prop_assert_eq!(fresh.process(&txs), proposal);
            let again = fresh.execute(&txs);
            let executed = bank.execute(&txs);
            prop_assert_eq!(executed.tx_results.iter().map(|result| result.code).collect::<Vec<_>>(), &codes[..]);
            prop_assert_eq!(&executed.changes, &again.changes);
            prop_assert_eq!(&executed.tx_results, &again.tx_results);
            prop_assert_eq!(executed.state.root(), again.state.root());
            // What a proposer makes of them is accepted, and every one of it is charged.
            let chosen = bank.prepare(&txs, 1 << 20);
            prop_assert_eq!(bank.process(&chosen), Proposal::Accept);
            prop_assert!(!charged || chosen == txs);
            prop_assert!(bank.execute(&chosen).tx_results.iter().all(|result| matches!(result.code, 0 | 7)));
            // The chain goes on with the block as it is, or, where it would not be decided, with what a proposer makes of it
            // or with the block all the same: more than two thirds may be liars for once.
            if !charged && items.len() % 2 == 0 {
                let kept: Vec<Made> = chosen.iter().map(|tx| list.iter().find(|made| made.tx == *tx).expect("one of them").clone()).collect();
                fees = 0;
                after = model.clone();
                for made in &kept {
                    let code = after.transact(made, &mut fees);
                    prop_assert!(matches!(code, 0 | 7));
                    turns.entry(made.ask.from).or_default().push(made.nonce);
                }
                after.of(collector).0 += fees;
                bank.block(&chosen);
            } else {
                for (made, code) in list.iter().zip(&codes) {
                    if matches!(code, 0 | 7) {
                        turns.entry(made.ask.from).or_default().push(made.nonce);
                    }
                }
                bank.block(&txs);
            }
            model = after;
            for (who, account) in &model.0 {
                prop_assert_eq!(bank.account_at(*who), *account);
            }
            prop_assert_eq!(bank.sum(), supply);
            past.extend(list);
        }
        // Every account's turns: each nonce once, in order, without a gap.
        for (who, nonces) in &turns {
            prop_assert_eq!(nonces, &(0..nonces.len() as u64).collect::<Vec<_>>(), "account {}", who);
        }
        // And nothing that took its turn takes it again.
        for made in &past {
            if made.ask.flaw == Flaw::None && made.ask.fee >= MIN_FEE && made.nonce < bank.account(made.ask.from).1 {
                prop_assert_eq!(bank.check(&made.tx).code, 4);
            }
        }
    }
}
