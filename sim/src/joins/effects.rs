//! What the node that joins has done: its jobs, its questions, and what it reports.

use bytes::Bytes;
use lockstep_replica::results::keep;
use lockstep_replica::seam::{JobId, Peer as Connection, Report, Write};
use lockstep_replica::wire::Question;
use lockstep_replica::{Effect, Input};

use super::peers::Reply;
use super::{Broken, Event, INSTALL_OPERATIONS, Join, Joined, MS, REQUEST_MS, broken};
use crate::node::{Running, Unwritten};

impl Join {
    pub(super) fn admit(&mut self, effect: Effect, joined: &mut Joined) -> Result<(), Broken> {
        let Some(running) = &mut self.machine.running else { return Ok(()) };
        match running.fence.admit(effect) {
            Some(effect) => self.perform(effect, joined),
            None => Ok(()),
        }
    }

    /// The disk failed: the machine lost power, or the program is wrong.
    pub(super) fn failed(&mut self, reason: &str, joined: &mut Joined) -> Result<(), Broken> {
        if self.machine.disk.is_stopped() {
            self.crash(joined);
            return Ok(());
        }
        broken("I18", format!("a sound disk fails: {reason}"))
    }

    pub(super) fn perform(&mut self, effect: Effect, joined: &mut Joined) -> Result<(), Broken> {
        if self.machine.running.is_none() {
            return Ok(());
        }
        let delay = self.dice.between(1, 3_000) * MS / 1_000;
        match effect {
            Effect::Verify { job, checks } => {
                let verdicts = self.crypto.verify(&checks);
                self.input_after(delay, Input::Verified { job, verdicts });
            }
            Effect::Persist { ticket, write: Write::Log(records), .. } => {
                let running = self.machine.running.as_mut().expect("it runs");
                if let Err(reason) = running.append(ticket, records) {
                    return self.failed(&reason, joined);
                }
                let life = self.machine.life;
                self.after(delay, Event::Sync { life });
            }
            effect @ (Effect::Check { .. }
            | Effect::Execute { .. }
            | Effect::Flush { .. }
            | Effect::Stage { .. }
            | Effect::Read { .. }
            | Effect::Judge { .. }
            | Effect::CheckTxs { .. }) => {
                let life = self.machine.life;
                self.after(delay, Event::Job { life, effect: Box::new(effect) });
            }
            Effect::Request { job, peer, bytes } => return self.ask(job, peer, &bytes, joined),
            Effect::SetTimer { at, timer } => {
                let delay = at.0.saturating_sub(self.now);
                self.input_after(delay, Input::TimedOut(timer));
            }
            Effect::Disconnect { peer, reason } => {
                let Some(number) = self.connected.remove(&peer.0) else { return Ok(()) };
                if self.peers[number].is_honest() {
                    return broken("I13", format!("an honest peer is left: {reason}"));
                }
                joined.left += 1;
                self.input_after(delay, Input::PeerDown { peer });
                // It tries again, as liars do; the shell would not let it in for a while.
                self.after(20_000 * MS, Event::Connect { peer: number });
            }
            Effect::Report { report, .. } => return self.report(&report, joined),
            Effect::Reopen { .. } => {
                let staging = self.staging.as_ref().expect("it has gathered something");
                if let Err(error) = staging.mark() {
                    return self.failed(&error.to_string(), joined);
                }
                self.machine.life += 1;
                self.machine.running = None;
                self.staging = None;
                self.machine.disk.kill();
                self.connected.clear();
                // What was gathered is installed now: a moment that a cut drawn long before seldom meets.
                if self.crashes_left > 0 && self.dice.chance(500) {
                    self.crashes_left -= 1;
                    self.cut_within(INSTALL_OPERATIONS);
                }
                self.after(MS, Event::Start);
            }
            Effect::Heal { finding } => return broken("I17", format!("it finds its state wrong after height {}", finding.height())),
            Effect::Halt { reason } => {
                if self.machine.disk.is_stopped() {
                    self.crash(joined);
                    return Ok(());
                }
                return broken("I18", format!("it halts: {reason}"));
            }
            Effect::Persist { .. }
            | Effect::Sign { .. }
            | Effect::Build { .. }
            | Effect::Send { .. }
            | Effect::Respond { .. }
            | Effect::Reply { .. } => {}
        }
        Ok(())
    }

    fn report(&mut self, report: &Report, joined: &mut Joined) -> Result<(), Broken> {
        use lockstep_sync::state::Told;
        match report {
            Report::Refused { peer, reason, .. } => match self.connected.get(&peer.0) {
                Some(number) if self.peers[*number].is_honest() => broken("I13", format!("an honest peer is refused: {reason}")),
                _ => Ok(()),
            },
            Report::Committed { block, outcome, chain, .. } => {
                let ours = self.chain.after(outcome.height);
                if ours.app_hash != outcome.app_hash {
                    return broken(
                        "I6",
                        format!("height {} has root {}, and should have {}", outcome.height, outcome.app_hash, ours.app_hash),
                    );
                }
                let running = self.machine.running.as_mut().expect("it reports");
                let segment = running.reader.segment_of(outcome.height.get()).expect("its decision is durable");
                let kept = running.results.as_mut().map(|results| results.append(segment, &keep(block, outcome, chain)));
                match kept {
                    Some(Err(error)) => self.failed(&error.to_string(), joined),
                    _ => Ok(()),
                }
            }
            Report::StateSync(Told::FallsBack { .. }) => {
                joined.fell_back += 1;
                Ok(())
            }
            Report::StateSync(Told::Fails { reason }) => broken("I14", format!("it gives up: {reason}")),
            Report::StateSync(Told::Progress { chunks, .. }) => {
                // What is here when the manifest comes was here before.
                let is_first = !std::mem::replace(&mut self.has_manifest, true);
                joined.resumed += u64::from(is_first && self.has_crashed && *chunks > 0);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ask(&mut self, job: JobId, peer: Connection, bytes: &Bytes, joined: &mut Joined) -> Result<(), Broken> {
        let Some(number) = self.connected.get(&peer.0).copied() else {
            self.input_after(MS, Input::Response { job, bytes: None });
            return Ok(());
        };
        let Ok(question) = Question::decode(bytes) else { return broken("I13", "it asks what is no question".into()) };
        joined.differences += u64::from(matches!(question, Question::Chunk { outline: Some(_), .. }));
        let chain = self.chain.clone();
        let (from, crypto) = (&mut self.peers[number], &mut self.crypto);
        let delay = from.delay_ms * MS;
        match from.answer(&chain, &question, &mut self.dice, crypto) {
            Reply::Bytes(bytes) => self.input_after(delay, Input::Response { job, bytes: Some(bytes) }),
            Reply::Silence => self.input_after(REQUEST_MS * MS, Input::Response { job, bytes: None }),
            Reply::Gone => {
                self.connected.remove(&peer.0);
                self.input_after(delay, Input::PeerDown { peer });
                self.input_after(delay, Input::Response { job, bytes: None });
                self.after(5_000 * MS, Event::Connect { peer: number });
            }
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, joined: &mut Joined) -> Result<(), Broken> {
        let Some(running) = &mut self.machine.running else { return Ok(()) };
        match running.sync() {
            Ok(tickets) => tickets.into_iter().try_for_each(|ticket| self.input(Input::Durable { ticket }, joined)),
            Err(reason) => self.failed(&reason, joined),
        }
    }

    pub(super) fn job(&mut self, effect: Effect, joined: &mut Joined) -> Result<(), Broken> {
        let disk = self.machine.disk.clone();
        let Some(running) = &mut self.machine.running else { return Ok(()) };
        let Running { executor, .. } = running;
        let input = match effect {
            Effect::Check { job, check } => {
                let crypto = &mut self.crypto;
                Input::Checked { job, verdict: executor.check(&check, &mut |checks| crypto.verify(checks)) }
            }
            Effect::Execute { job, execute } => {
                let outcome = executor.execute(&execute).map(Box::new).map_err(|error| error.to_string());
                Input::Executed { job, outcome }
            }
            Effect::Flush { height, chain, .. } => match running.flush(height, &chain.encode()) {
                Ok(()) => Input::Flushed { height },
                Err(Unwritten::Disk(reason) | Unwritten::Damaged(reason)) => return self.failed(&reason, joined),
            },
            Effect::Read { job, what } => Input::ReadDone { job, answer: running.read(&disk, self.now / MS, what) },
            Effect::Stage { job, task } => {
                let own = executor.state().clone();
                match self.staging.as_mut().expect("it runs").perform(task, own.tree()) {
                    Ok(found) => Input::Staged { job, found },
                    Err(error) => return self.failed(&error.to_string(), joined),
                }
            }
            _ => return Ok(()),
        };
        self.input(input, joined)
    }
}
