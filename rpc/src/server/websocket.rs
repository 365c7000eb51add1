//! The WebSocket: one request per frame, several under way at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::envelope::{self, ErrorObject, Message, Transport, failure};
use super::frames::{Fault, SMALL_BYTES};
use super::guest::Guest;
use super::room::{Held, Room};
use super::service::Service;
use super::{Lease, Limits, stopped};

/// How long a client that says farewell may take to hear ours.
const FAREWELL: Duration = Duration::from_secs(1);

/// Talks to one client until it leaves, falls silent, stops reading, or the server stops.
///
/// Memory is bounded: large messages share one room with those of all other clients, from the head of their first frame
/// until their calls are done; no frame is read while [`Limits::websocket_calls`] are under way, nor while the client does
/// not take the replies; a write that makes no progress ends the connection (see [`steady`](super::steady)).
pub(super) async fn talk(
    mut socket: WebSocket,
    service: Arc<Service>,
    limits: Limits,
    requests: Room,
    guest: Lease,
    mut stop: watch::Receiver<bool>,
) {
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
                    Some(Ok(frame @ (Frame::Text(_) | Frame::Binary(_)))) => {
                        let frame = frame.into_data();
                        let Some(held) = hold(&requests, frame.len()) else {
                            return dismiss(&mut socket, &guest, Fault::NoRoom).await;
                        };
                        calls.push(answer(Arc::clone(&service), frame, held));
                        continue;
                    }
                    // Pings are answered below us.
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                    // The answer to a farewell is written when the next frame is asked for (RFC 6455, 5.5.1).
                    Some(Ok(Frame::Close(_))) => {
                        let _ = timeout(FAREWELL, socket.recv()).await;
                        return;
                    }
                    Some(Err(_)) | None => {
                        if let Some(fault) = guest.fault() {
                            dismiss(&mut socket, &guest, fault).await;
                        }
                        return;
                    }
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

/// Room for a message while its call is under way; none when there is none now.
fn hold(requests: &Room, bytes: usize) -> Option<Held> {
    if bytes <= SMALL_BYTES { Some(Held::default()) } else { requests.hold(bytes) }
}

/// Says why the connection ends, with the code for it (RFC 6455, 7.4.1).
async fn dismiss(socket: &mut WebSocket, guest: &Guest, fault: Fault) {
    let (code, reason) = match fault {
        Fault::TooLarge => (close_code::SIZE, "the message is too large"),
        Fault::NoRoom => (close_code::AGAIN, "too many large requests are under way, try again later"),
    };
    guest.dismiss();
    let farewell = Frame::Close(Some(CloseFrame { code, reason: reason.into() }));
    // Who does not hear it is gone already.
    let _ = timeout(FAREWELL, socket.send(farewell)).await;
}

/// The reply to a frame; none to a notification. Its room is held until the call is done.
async fn answer(service: Arc<Service>, frame: Bytes, _held: Held) -> Option<String> {
    let parsed = envelope::parse(&frame).and_then(|message| match message {
        Message::One(request) => Ok(request),
        Message::Batch(_) => Err("a batch is not taken on a WebSocket".to_owned()),
    });
    match parsed {
        Ok(request) => service.answer(Transport::WebSocket, vec![request]).await.pop(),
        Err(reason) => Some(failure(None, &ErrorObject::parse(reason))),
    }
}
