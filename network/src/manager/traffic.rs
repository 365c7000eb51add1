//! Batches and requests, between the swarm and the node.

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId, PublishError};
use libp2p::request_response::{self, InboundRequestId, OutboundFailure, ResponseChannel};
use libp2p::swarm::Swarm;

use super::{Early, Manager, Reply};
use crate::events::{GossipId, ReplyTo, RequestError, Verdict};
use crate::limits::{EARLY_MAX, FRAME_COST_BYTES, REQUEST_COST_BYTES, REQUESTS_PER_PEER_MAX};
use crate::score::POINTS_GOSSIP_REJECTED;
use crate::shared::count;
use crate::swarm::Behaviours;

/// Batches handed to gossipsub between two looks at everything else.
const PUBLISH_RUN: usize = 16;

impl Manager {
    pub(super) fn publish_some(&mut self, swarm: &mut Swarm<Behaviours>) {
        for _ in 0..PUBLISH_RUN {
            let Some(batch) = self.shared.publishes.pop() else { return };
            match swarm.behaviour_mut().gossip.publish(self.topic.clone(), batch) {
                Ok(_) => {}
                Err(PublishError::Duplicate) => count(&self.shared.counters.gossip_duplicates),
                // Nobody is there, or everybody's queue is full: gossip is lossy, and the caller knows.
                Err(_) => count(&self.shared.counters.gossip_dropped),
            }
        }
        self.shared.publishes.look_again();
    }

    pub(super) fn on_gossip(&mut self, source: PeerId, id: MessageId, bytes: Bytes, swarm: &mut Swarm<Behaviours>) {
        let delivered = match self.active.get(&source).filter(|active| active.announced) {
            Some(active) => match <[u8; 32]>::try_from(id.0.as_slice()) {
                Ok(message) => {
                    let peer = active.link.peer;
                    active.link.charge(FRAME_COST_BYTES);
                    self.inlets.try_gossip(&active.link, GossipId { message, source: peer }, bytes)
                }
                Err(_) => false,
            },
            None => self.keep_early(source, Early::Gossip(id.clone(), bytes)),
        };
        if !delivered {
            count(&self.shared.counters.gossip_dropped);
            swarm.behaviour_mut().gossip.report_message_validation_result(&id, &source, MessageAcceptance::Ignore);
        }
    }

    pub(super) fn keep_early(&mut self, peer: PeerId, early: Early) -> bool {
        if !self.connections.values().any(|connection| connection.peer == peer) {
            return false;
        }
        let kept = self.early.entry(peer).or_default();
        let room = kept.len() < EARLY_MAX;
        if room {
            kept.push(early);
        }
        room
    }

    pub(super) fn report(&mut self, id: GossipId, verdict: Verdict, swarm: &mut Swarm<Behaviours>) {
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        let source = self.active.iter().find(|(_, active)| active.link.peer == id.source);
        if let (Verdict::Reject, Some((_, active))) = (verdict, source) {
            self.shared.penalise(active.link.info.node_id, POINTS_GOSSIP_REJECTED, "gossip that was rejected");
        }
        // The source is told nothing twice; if it left, there is nobody to leave out.
        let source = source.map_or(*swarm.local_peer_id(), |(peer, _)| *peer);
        swarm.behaviour_mut().gossip.report_message_validation_result(&MessageId::new(&id.message), &source, acceptance);
    }

    pub(super) fn on_exchange(&mut self, event: request_response::Event<Bytes, Bytes>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                if self.active.get(&peer).is_some_and(|active| active.announced) {
                    self.on_request(peer, request_id, channel, request);
                } else if !self.keep_early(peer, Early::Request(request_id, channel, request)) {
                    count(&self.shared.counters.requests_refused);
                }
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(request) = self.asked.remove(&request_id) {
                    request.finish(Ok(response));
                }
            }
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some(request) = self.asked.remove(&request_id) {
                    request.finish(Err(match error {
                        OutboundFailure::Timeout => RequestError::Timeout,
                        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => RequestError::NotConnected,
                        error => RequestError::BrokenOff(error.to_string()),
                    }));
                }
            }
            Event::InboundFailure { request_id, .. } => {
                self.responding.remove(&request_id);
                self.replies.retain(|_, reply| reply.request != request_id);
            }
            Event::ResponseSent { request_id, .. } => {
                self.responding.remove(&request_id);
            }
        }
    }

    pub(super) fn on_request(&mut self, peer: PeerId, request: InboundRequestId, channel: ResponseChannel<Bytes>, bytes: Bytes) {
        let Some(active) = self.active.get(&peer) else { return };
        active.link.charge(REQUEST_COST_BYTES);
        let open = self.replies.values().filter(|reply| reply.peer == peer).count();
        let reply_to = self.next_reply;
        if open < REQUESTS_PER_PEER_MAX && self.inlets.try_request(&active.link, ReplyTo(reply_to), bytes) {
            self.next_reply += 1;
            self.replies.insert(reply_to, Reply { request, channel, peer });
        } else {
            // Dropping the channel tells the requester.
            count(&self.shared.counters.requests_refused);
        }
    }
}
