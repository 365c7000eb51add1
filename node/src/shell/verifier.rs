//! Signature checks: a few at once where the replica runs, many on a thread of their own.
//!
//! One check takes 20 to 60 µs, less in a batch; a hop to another thread and back costs about as much as one, and far more when
//! that thread must be woken on a busy machine. So the votes of a round are checked where they arrive, and what would hold up
//! votes for a millisecond, the certificate of a large set or a burst of votes, is not.

use std::sync::mpsc::{Receiver, Sender, channel};

use lockstep_replica::Input;
use lockstep_replica::seam::JobId;
use lockstep_types::crypto::{SignatureCheck, verify_batch};

use super::Threads;
use super::inbox::Inbox;

/// Checks that are done at once between two looks at the timers: half a millisecond at most.
pub(crate) const INLINE_MAX: usize = 8;
/// Checks verified as one batch. More gains nothing, and one that does not hold has the whole batch checked one by one.
const BATCH_MAX: usize = 256;

/// A job of the replica, and its checks.
pub(crate) type VerifyJob = (JobId, Vec<SignatureCheck>);

/// Where many checks go.
#[derive(Clone)]
pub(crate) struct Verifier {
    jobs: Sender<VerifyJob>,
}

impl Verifier {
    /// Starts the thread; its answers go to the inbox. There are never more jobs than the replica lets be out.
    pub(crate) fn new(threads: &mut Threads, inbox: Inbox) -> Self {
        let (jobs, receiver) = channel();
        threads.spawn("verify", move || run(&receiver, |answer| inbox.answer(answer)));
        Self { jobs }
    }

    /// Verifies what one step asked for. What is done at once is given back, as long as `inline_left` lasts; the rest comes to
    /// the inbox. A thread that is gone answers nothing: the node is stopping.
    pub(crate) fn verify(&self, jobs: Vec<VerifyJob>, inline_left: &mut usize) -> Vec<Input> {
        let count = jobs.iter().map(|(_, checks)| checks.len()).sum::<usize>();
        if let Some(left) = inline_left.checked_sub(count) {
            *inline_left = left;
            return verified(jobs);
        }
        jobs.into_iter().for_each(|job| drop(self.jobs.send(job)));
        Vec::new()
    }
}

/// The thread: what waits is verified together, up to a batch.
fn run(receiver: &Receiver<VerifyJob>, mut answer: impl FnMut(Input)) {
    while let Ok(first) = receiver.recv() {
        let mut count = first.1.len();
        let mut jobs = vec![first];
        while count < BATCH_MAX {
            let Ok(next) = receiver.try_recv() else { break };
            count += next.1.len();
            jobs.push(next);
        }
        verified(jobs).into_iter().for_each(&mut answer);
    }
}

/// The answers to these jobs, verified as one batch.
fn verified(mut jobs: Vec<VerifyJob>) -> Vec<Input> {
    if jobs.is_empty() {
        return Vec::new();
    }
    if let [(job, checks)] = &jobs[..] {
        return vec![Input::Verified { job: *job, verdicts: verify_batch(checks) }];
    }
    let lengths: Vec<usize> = jobs.iter().map(|(_, checks)| checks.len()).collect();
    let all: Vec<SignatureCheck> = jobs.iter_mut().flat_map(|(_, checks)| std::mem::take(checks)).collect();
    let mut verdicts = verify_batch(&all).into_iter();
    let answer = |((job, _), length)| Input::Verified { job, verdicts: verdicts.by_ref().take(length).collect() };
    jobs.into_iter().zip(lengths).map(answer).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use lockstep_types::PrivateKey;

    use super::super::inbox::Mail;
    use super::*;

    /// Signatures over their own numbers; those in `wrong` are over others.
    fn checks(numbers: std::ops::Range<usize>, wrong: &[usize]) -> Vec<SignatureCheck> {
        let key = PrivateKey::from_seed(&[7; 32]);
        let check = |n: usize| {
            let signed = if wrong.contains(&n) { n + 1 } else { n };
            SignatureCheck { public_key: key.public_key(), message: n.to_le_bytes().to_vec(), signature: key.sign(&signed.to_le_bytes()) }
        };
        numbers.map(check).collect()
    }

    fn answers(inputs: Vec<Input>) -> BTreeMap<JobId, Vec<bool>> {
        let verdicts = |input| match input {
            Input::Verified { job, verdicts } => (job, verdicts),
            other => panic!("{other:?}"),
        };
        inputs.into_iter().map(verdicts).collect()
    }

    #[test]
    fn each_job_gets_its_own_verdicts() {
        let jobs =
            vec![(JobId(1), checks(0..3, &[])), (JobId(2), Vec::new()), (JobId(3), checks(3..5, &[4])), (JobId(4), checks(5..6, &[]))];
        let expected =
            BTreeMap::from([(JobId(1), vec![true; 3]), (JobId(2), Vec::new()), (JobId(3), vec![true, false]), (JobId(4), vec![true])]);
        assert_eq!(answers(verified(jobs)), expected);
    }

    #[test]
    fn few_are_done_at_once_and_many_elsewhere() {
        let (inbox, inputs) = Inbox::new();
        let mut threads = Threads::default();
        let verifier = Verifier::new(&mut threads, inbox);
        let mut left = INLINE_MAX;
        for n in 0..INLINE_MAX as u64 {
            let one = verifier.verify(vec![(JobId(n), checks(0..1, &[]))], &mut left);
            assert_eq!(answers(one), BTreeMap::from([(JobId(n), vec![true])]));
        }
        assert!(inputs.mail.try_recv().is_err());
        assert!(verifier.verify(vec![(JobId(1), checks(0..1, &[]))], &mut left).is_empty(), "enough was done here");
        // One certificate, and a burst of votes with a wrong one among them.
        assert!(verifier.verify(vec![(JobId(2), checks(0..INLINE_MAX + 1, &[]))], &mut { INLINE_MAX }).is_empty());
        let votes = (0..600).map(|n| (JobId(10 + n as u64), checks(n..n + 1, &[17]))).collect();
        assert!(verifier.verify(votes, &mut { INLINE_MAX }).is_empty());
        let mut came = BTreeMap::new();
        while came.len() < 602 {
            match inputs.mail.recv_timeout(Duration::from_secs(60)).expect("every job is answered") {
                (Mail::Own(input), _) => came.extend(answers(vec![input])),
                _ => panic!("an answer is of our own"),
            }
        }
        assert_eq!(came.remove(&JobId(2)), Some(vec![true; INLINE_MAX + 1]));
        for (job, verdicts) in came {
            assert_eq!(verdicts, [job != JobId(27)]);
        }
        drop(verifier);
        threads.join();
    }
}
