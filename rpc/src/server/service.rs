//! From requests to replies: writes start at once and in order, reads go to the pool.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::Limits;
use super::envelope::{ErrorObject, Refusal, Request, Transport, failure, success};
use super::methods::{self, Context, Outcome, Run};
use super::params::Args;

/// Executes calls. One for a whole server.
pub(super) struct Service {
    context: Arc<Context>,
    /// One permit for each read that may run at a time: a flood of expensive reads queues here, not in the node.
    readers: Arc<Semaphore>,
    limits: Limits,
}

type Reader = fn(&Context, &Args) -> Outcome;

/// A call on its way.
enum Step {
    Done(Outcome),
    Read(Reader, Args),
    Write(crate::backend::BoxFuture<Outcome>),
}

impl Service {
    pub(super) fn new(context: Context, limits: Limits) -> Self {
        let readers = Arc::new(Semaphore::new(limits.readers));
        Self { context: Arc::new(context), readers, limits }
    }

    /// The replies to requests, in their order; notifications have none and are not executed.
    pub(super) async fn answer(&self, transport: Transport, requests: Vec<Request>) -> Vec<String> {
        let mut ids = Vec::with_capacity(requests.len());
        let mut steps = Vec::with_capacity(requests.len());
        for request in requests {
            let Some(id) = request.id else { continue };
            ids.push(id);
            steps.push(match methods::find(&request.method) {
                None => Step::Done(Err(Refusal::UnknownMethod)),
                Some(method) => self.start(method.run, Args::from_json(method.params, request.params.as_deref())),
            });
        }
        let outcomes = self.finish(steps).await;
        ids.iter().zip(outcomes).map(|(id, outcome)| write(id, outcome, transport)).collect()
    }

    /// One call whose arguments are known already.
    pub(super) async fn call(&self, run: Run, args: Args) -> Outcome {
        let outcomes = self.finish(vec![self.start(run, Ok(args))]).await;
        outcomes.into_iter().next().expect("one step has one outcome")
    }

    fn start(&self, run: Run, args: Result<Args, Refusal>) -> Step {
        let started = args.and_then(|args| match run {
            Run::Read(read) => Ok(Step::Read(read, args)),
            Run::Write(write) => write(&self.context, &args).map(Step::Write),
        });
        started.unwrap_or_else(|refusal| Step::Done(Err(refusal)))
    }

    /// Waits for the writes together, then makes the reads in one visit to the pool.
    async fn finish(&self, steps: Vec<Step>) -> Vec<Outcome> {
        let (mut outcomes, mut reads, mut writes) = (Vec::with_capacity(steps.len()), Vec::new(), Vec::new());
        for (place, step) in steps.into_iter().enumerate() {
            // Every place is filled below: a step is done, read or written.
            outcomes.push(Err(Refusal::failed("the node failed to answer")));
            match step {
                Step::Done(outcome) => outcomes[place] = outcome,
                Step::Read(read, args) => reads.push((place, read, args)),
                Step::Write(write) => writes.push(async move { (place, write.await) }),
            }
        }
        for (place, outcome) in join_all(writes).await {
            outcomes[place] = outcome;
        }
        if !reads.is_empty() {
            let places: Vec<usize> = reads.iter().map(|(place, ..)| *place).collect();
            match self.read(reads).await {
                Ok(answers) => answers.into_iter().for_each(|(place, outcome)| outcomes[place] = outcome),
                Err(refusal) => places.into_iter().for_each(|place| outcomes[place] = Err(refusal.clone())),
            }
        }
        outcomes
    }

    /// Makes reads on a blocking thread, one after the other, until their answers fill a reply.
    async fn read(&self, reads: Vec<(usize, Reader, Args)>) -> Result<Vec<(usize, Outcome)>, Refusal> {
        let permit = tokio::time::timeout(self.limits.read_wait, Arc::clone(&self.readers).acquire_owned());
        let permit = permit.await.map_err(|_| Refusal::failed("the node is overloaded: too many reads are waiting, try again later"))?;
        let context = Arc::clone(&self.context);
        let room = self.limits.reply_bytes;
        let visit = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut used = 0;
            let mut answers = Vec::with_capacity(reads.len());
            for (place, read, args) in reads {
                let outcome = if used < room {
                    read(&context, &args)
                } else {
                    Err(Refusal::Failed(format!("the answers of this batch exceed {room} bytes, ask for less at a time")))
                };
                used += outcome.as_ref().map_or(0, |answer| answer.get().len());
                answers.push((place, outcome));
            }
            answers
        });
        // A read that panics is a fault of the node, not of the server: it costs this answer alone.
        visit.await.map_err(|_| Refusal::failed("the node failed to answer"))
    }
}

fn write(id: &str, outcome: Outcome, transport: Transport) -> String {
    match outcome {
        Ok(result) => success(id, &result),
        Err(refusal) => failure(Some(id), &ErrorObject::of(refusal, transport)),
    }
}
