//! The fence, beside a model that looks at every waiting effect each time.

use lockstep_replica::seam::{Effect, JobId, Reply, RequestId, Ticket, Write};
use lockstep_replica::{Fence, seam::Report};
use lockstep_types::{Hash, Height};
use proptest::prelude::*;

/// What an effect is known by: a number that it carries.
fn name(effect: &Effect) -> u64 {
    match effect {
        Effect::Persist { ticket, .. } => ticket.0,
        Effect::Sign { job, .. } => job.0,
        Effect::Reply { request, .. } => request.0,
        Effect::Report { report: Report::Note(text), .. } => text.parse().unwrap(),
        Effect::Flush { .. } | Effect::Halt { .. } => u64::MAX,
        other => unreachable!("not made here: {other:?}"),
    }
}

fn effect(kind: u8, number: u64, after: Vec<Ticket>) -> Effect {
    match kind {
        0 => Effect::Persist { ticket: Ticket(number), after, write: Write::GuardFloor(Height::FIRST) },
        1 => Effect::Sign { job: JobId(number), after, bytes: Vec::new() },
        2 => Effect::Reply { request: RequestId(number), after, reply: Reply::Checked { hash: Hash([0; 32]), verdict: None } },
        _ => Effect::Report { after, report: Report::Note(number.to_string()) },
    }
}

/// Everything that was admitted and not yet released, in that order, and what is not durable.
#[derive(Default)]
struct Model {
    waiting: Vec<(u64, Vec<Ticket>)>,
    open: Vec<Ticket>,
}

impl Model {
    fn release(&mut self) -> Vec<u64> {
        let open = self.open.clone();
        let (ready, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, after)| !after.iter().any(|t| open.contains(t)));
        self.waiting = waiting;
        let ready: Vec<(u64, Vec<Ticket>)> = ready;
        ready.into_iter().map(|(number, _)| number).collect()
    }
}

/// One thing that happens: an effect that waits for some of the tickets before it, or a ticket becomes durable.
#[derive(Debug, Clone)]
enum Event {
    Admit { kind: u8, after: Vec<u64> },
    Durable { which: usize },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0u8..4, prop::collection::vec(0u64..40, 0..4)).prop_map(|(kind, after)| Event::Admit { kind, after }),
        2 => (0usize..40).prop_map(|which| Event::Durable { which }),
    ]
}

proptest! {
    /// An effect starts exactly when the last of its tickets is durable, and those that start together in the order they
    /// were asked for. Tickets become durable in any order.
    #[test]
    fn effects_start_when_all_they_wait_for_is_durable(events in prop::collection::vec(event(), 0..80)) {
        let mut fence = Fence::new();
        let mut model = Model::default();
        let mut issued = 0;
        let mut started: Vec<Ticket> = Vec::new();
        for event in events {
            let (released, expected) = match event {
                Event::Admit { kind, after } => {
                    issued += 1;
                    // Tickets of the past, durable or not, now and then one twice.
                    let after: Vec<Ticket> = after.into_iter().map(|n| Ticket(n % issued)).collect();
                    if kind == 0 {
                        model.open.push(Ticket(issued));
                    }
                    model.waiting.push((issued, after.clone()));
                    let released: Vec<Effect> = fence.admit(effect(kind, issued, after)).into_iter().collect();
                    (released, model.release())
                }
                Event::Durable { which } => {
                    // Only a write that started can become durable.
                    let candidates: Vec<Ticket> = started.iter().filter(|t| model.open.contains(t)).copied().collect();
                    let Some(ticket) = candidates.get(which % candidates.len().max(1)).copied() else { continue };
                    model.open.retain(|open| *open != ticket);
                    (fence.durable(ticket), model.release())
                }
            };
            started.extend(released.iter().filter(|e| matches!(e, Effect::Persist { .. })).map(|e| Ticket(name(e))));
            prop_assert_eq!(released.iter().map(name).collect::<Vec<_>>(), expected);
            prop_assert_eq!(fence.len(), model.waiting.len());
            prop_assert_eq!(fence.is_empty(), model.waiting.is_empty());
        }
        // Whatever happened, all starts in the end.
        while let Some(ticket) = started.iter().find(|t| model.open.contains(t)).copied() {
            model.open.retain(|open| *open != ticket);
            let released = fence.durable(ticket);
            prop_assert_eq!(released.iter().map(name).collect::<Vec<_>>(), model.release());
            started.extend(released.iter().filter(|e| matches!(e, Effect::Persist { .. })).map(|e| Ticket(name(e))));
        }
        prop_assert!(fence.is_empty() && model.waiting.is_empty());
    }
}

#[test]
fn what_waits_for_a_write_that_waits_waits_too() {
    let mut fence = Fence::new();
    assert!(fence.admit(effect(0, 1, vec![])).is_some(), "the decision");
    assert!(fence.admit(effect(0, 2, vec![Ticket(1)])).is_none(), "the guard record of the next height");
    assert!(fence.admit(effect(1, 3, vec![Ticket(2)])).is_none(), "its message");
    let released = fence.durable(Ticket(1));
    assert_eq!(released.iter().map(name).collect::<Vec<_>>(), [2], "the message waits on");
    assert_eq!(fence.durable(Ticket(2)).iter().map(name).collect::<Vec<_>>(), [3]);
}

#[test]
fn who_waits_for_nothing_open_starts_at_once() {
    let mut fence = Fence::new();
    assert!(fence.admit(effect(1, 1, vec![Ticket(77)])).is_some(), "a ticket from before the start is durable");
    assert!(fence.admit(Effect::Halt { reason: String::new() }).is_some());
    assert!(fence.durable(Ticket(77)).is_empty());
}
