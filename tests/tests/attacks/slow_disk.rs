//! A replica over a disk that is as slow as a test wants.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lockstep_replica::execution::Executor;
use lockstep_replica::seam::{Mono, Report, Ticket, Timer};
use lockstep_replica::signing::{GuardView, Me};
use lockstep_replica::{Config, Effect, Fence, Input, Now, Replica, Restored};
use lockstep_types::Height;

use crate::support::*;

/// A validator alone, whose disk is as slow as the test wants.
struct Slow {
    replica: Replica,
    fence: Fence,
    executor: Executor,
    now: Mono,
    timers: Vec<(Mono, Timer)>,
    /// Writes that the disk has not finished.
    writing: VecDeque<Ticket>,
    signatures: usize,
    told: u64,
}

impl Slow {
    fn start() -> Self {
        let genesis = genesis(1);
        let (chain, state, changes) = start(&genesis);
        let public_key = key(1).public_key();
        let config = Config {
            genesis_hash: genesis.hash(),
            me: Some(Me { public_key, address: public_key.address() }),
            watches_key: true,
            mempool: lockstep_mempool::Limits::default(),
            flush_keys: 1_000,
            flush_blocks: 1_000,
            planted: Default::default(),
        };
        let restored = Restored {
            chain: Arc::new(chain),
            base: Height::FIRST,
            flushed: Height::ZERO,
            last_commit: None,
            last_body: None,
            bodies: Vec::new(),
            guard: GuardView::default(),
            evidence: Vec::new(),
            names: 0,
            diverged: Default::default(),
            doubt: None,
            roots: Vec::new(),
        };
        let mut slow = Self {
            replica: Replica::new(config, restored),
            fence: Fence::new(),
            executor: Executor::at_genesis(host(), state, changes),
            now: Mono(1_000_000_000),
            timers: Vec::new(),
            writing: VecDeque::new(),
            signatures: 0,
            told: 0,
        };
        let effects = slow.replica.start(slow.clocks());
        slow.perform(effects);
        slow
    }

    fn clocks(&self) -> Now {
        Now { mono: self.now, wall: at(1_767_409_445, 0).saturating_add(Duration::from_nanos(self.now.0)) }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let admitted = effects.into_iter().filter_map(|effect| self.fence.admit(effect)).collect();
        self.perform_admitted(admitted);
    }

    fn perform_admitted(&mut self, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let (host, state) = (self.executor.host(), self.executor.state());
            let answer = match effect {
                Effect::Persist { ticket, .. } => {
                    self.writing.push_back(ticket);
                    continue;
                }
                Effect::SetTimer { at, timer } => {
                    self.timers.push((at, timer));
                    continue;
                }
                Effect::Sign { job, bytes, .. } => {
                    self.signatures += 1;
                    Input::Signed { job, signature: Some(key(1).sign(&bytes)) }
                }
                Effect::Report { report: Report::Committed { block, .. }, .. } => {
                    self.told = block.header.height.get();
                    continue;
                }
                Effect::Build { job, build } => Input::Built { job, built: Box::new(lockstep_replica::check::build(host, state, &build)) },
                Effect::Check { job, check } => Input::Checked { job, verdict: lockstep_replica::check::check(host, state, &check) },
                Effect::Execute { job, execute } => {
                    let outcome = self.executor.execute(&execute).map(Box::new).map_err(|error| error.to_string());
                    Input::Executed { job, outcome }
                }
                Effect::Halt { reason } => panic!("{reason}"),
                _ => continue,
            };
            let effects = self.replica.step(self.clocks(), answer);
            queue.extend(effects.into_iter().filter_map(|effect| self.fence.admit(effect)));
        }
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some(next) = (0..self.timers.len()).filter(|n| self.timers[*n].0 <= end).min_by_key(|n| self.timers[*n].0) {
            let (at, timer) = self.timers.remove(next);
            self.now = self.now.max(at);
            let effects = self.replica.step(self.clocks(), Input::TimedOut(timer));
            self.perform(effects);
        }
        self.now = end;
    }

    /// The disk finishes one write.
    fn write(&mut self) {
        let Some(ticket) = self.writing.pop_front() else { return };
        let released = self.fence.durable(ticket);
        self.perform_admitted(released);
        let effects = self.replica.step(self.clocks(), Input::Durable { ticket });
        self.perform(effects);
    }
}

/// A disk that takes a minute, and then an hour, for a sync: nothing is signed that it does not hold, nothing is told, what
/// waits stays little, and everything goes on when it is done.
#[test]
fn attack_72_a_sync_that_takes_an_hour_holds_back_and_piles_up_nothing() {
    let mut slow = Slow::start();
    for stall in [Duration::from_secs(60), Duration::from_secs(3_600)] {
        let (signatures, told) = (slow.signatures, slow.told);
        slow.pass(stall);
        assert_eq!((slow.signatures, slow.told), (signatures, told), "nothing leaves before it is durable");
        assert!((1..=8).contains(&slow.writing.len()), "{} writes wait", slow.writing.len());
        assert!(slow.timers.len() <= 8, "{} timers are set", slow.timers.len());
        for _ in 0..10_000 {
            slow.write();
            slow.pass(Duration::from_millis(10));
        }
        assert!(slow.told >= told + 5, "it goes on: {} after {told}", slow.told);
        // The next stall finds it in the middle of something.
        while slow.writing.is_empty() {
            slow.pass(Duration::from_millis(1));
        }
    }
}
