//! The WebSocket: one request per frame, several under way at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message as Frame, WebSocket};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::envelope::{self, ErrorObject, Message, Transport, failure};
use super::service::Service;
use super::{Limits, stopped};

/// How long a client that says farewell may take to hear ours.
const FAREWELL: Duration = Duration::from_secs(1);

/// Talks to one client until it leaves, falls silent, stops reading, or the server stops.
///
/// Memory per client is bounded: no frame is read while [`Limits::websocket_calls`] are under way, nor while the client does
/// not take the replies; a write that makes no progress ends the connection (see [`steady`](super::steady)).
pub(super) async fn talk(mut socket: WebSocket, service: Arc<Service>, limits: Limits, mut stop: watch::Receiver<bool>) {
    let mut calls = FuturesUnordered::new();
    let mut heard = Instant::now();
    let mut ping = interval_at(heard + limits.websocket_ping, limits.websocket_ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let may_read = calls.len() < limits.websocket_calls;
        let reply = tokio::select! {
            Some(reply) = calls.next() => reply,
            frame = socket.recv(), if may_read => {
                heard = Instant::now();
                match frame {
                    Some(Ok(Frame::Text(text))) => {
                        calls.push(answer(Arc::clone(&service), text.as_bytes().to_vec()));
                        continue;
                    }
                    Some(Ok(Frame::Binary(bytes))) => {
                        calls.push(answer(Arc::clone(&service), bytes.to_vec()));
                        continue;
                    }
                    // Pings are answered below us.
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                    // The answer to a farewell is written when the next frame is asked for (RFC 6455, 5.5.1).
                    Some(Ok(Frame::Close(_))) => {
                        let _ = timeout(FAREWELL, socket.recv()).await;
                        return;
                    }
                    Some(Err(_)) | None => return,
                }
            }
            _ = ping.tick() => {
                if socket.send(Frame::Ping(Vec::new().into())).await.is_err() {
                    return;
                }
                continue;
            }
            // Silence is the client's only while we are reading.
            () = sleep_until(heard + limits.websocket_silence), if may_read => return,
            () = stopped(&mut stop) => {
                // The client may be gone already; either way the connection ends here.
                let _ = socket.send(Frame::Close(None)).await;
                return;
            }
        };
        heard = if may_read { heard } else { Instant::now() };
        if let Some(reply) = reply
            && socket.send(Frame::Text(reply.into())).await.is_err()
        {
            return;
        }
    }
}

/// The reply to a frame; none to a notification.
async fn answer(service: Arc<Service>, frame: Vec<u8>) -> Option<String> {
    let parsed = envelope::parse(&frame).and_then(|message| match message {
        Message::One(request) => Ok(request),
        Message::Batch(_) => Err("a batch is not taken on a WebSocket".to_owned()),
    });
    match parsed {
        Ok(request) => service.answer(Transport::WebSocket, vec![request]).await.pop(),
        Err(reason) => Some(failure(None, &ErrorObject::parse(reason))),
    }
}
