//! Replies that wait for their readers.
//!
//! A reply is in memory until its client took it, and a batch of large blocks is megabytes. Each connection has one reply at a
//! time; what all large ones together may hold is bounded here. Who comes when there is no room is told to try again.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::room::{Held, Room};

/// Below this a reply is not counted: connections are bounded, and so are these.
const SMALL_BYTES: usize = 256 * 1024;
/// What is handed over at a time: the rest, and with it the room that it takes, stays here until the socket wants more.
const SLICE_BYTES: usize = 64 * 1024;

/// The body of a reply; none when there is no room for it now.
pub(super) fn keep(room: &Room, reply: String) -> Option<Body> {
    if reply.len() <= SMALL_BYTES {
        return Some(Body::from(reply));
    }
    let held = room.hold(reply.len())?;
    Some(Body::new(Kept { left: Bytes::from(reply), _held: held }))
}

/// What is left of a large reply.
struct Kept {
    left: Bytes,
    _held: Held,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.left.len().min(SLICE_BYTES);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn large_replies_share_one_room_and_give_it_back_when_they_are_read() {
        let room = Room::new(1 << 20);
        let large = || "x".repeat(600 * 1024);
        let first = keep(&room, large()).expect("there is room");
        assert!(keep(&room, large()).is_none(), "two are more than the room");
        assert!(keep(&room, "small".to_owned()).is_some(), "small ones are not counted");
        assert_eq!(first.size_hint().exact(), Some(600 * 1024));
        let read = first.collect().await.expect("it is whole").to_bytes();
        assert_eq!(read, large().as_bytes());
        drop(keep(&room, large()).expect("it was given back"));
        assert!(keep(&room, large()).is_some(), "and by one that was not read, too");
    }
}
