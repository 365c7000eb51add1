//! Frames: `u32 length (little-endian) | u8 kind | payload`, where length counts the kind and the payload.

use bytes::Bytes;

use crate::limits::{FRAME_LENGTH_MAX, FRAME_PAYLOAD_BYTES_MAX, READ_BUFFER_BYTES};

const KIND_HEARTBEAT: u8 = 0;
const KIND_PAYLOAD: u8 = 1;

/// Sent on an idle votes lane. It carries nothing and says that the link lives.
pub(crate) const HEARTBEAT: [u8; 5] = [1, 0, 0, 0, KIND_HEARTBEAT];

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Heartbeat,
    Payload(Bytes),
}

/// Bytes that are no frame. The stream cannot be trusted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is zero.
    #[error("a frame of no bytes")]
    Zero,
    /// The length field exceeds the largest frame. Nothing was allocated for it.
    #[error("a frame that says it has {0} bytes")]
    TooLong(u32),
    /// The kind byte is unknown.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// A heartbeat with a body, or a payload without one.
    #[error("a heartbeat with a body, or a payload without one")]
    Body,
}

/// Appends the frame of `payload`, which was measured when it was queued.
pub(crate) fn put_frame(payload: &[u8], out: &mut Vec<u8>) {
    assert!(!payload.is_empty() && payload.len() <= FRAME_PAYLOAD_BYTES_MAX, "queues take only what fits a frame");
    let length = u32::try_from(payload.len() + 1).expect("a frame is short");
    out.extend_from_slice(&length.to_le_bytes());
    out.push(KIND_PAYLOAD);
    out.extend_from_slice(payload);
}

/// Turns what a stream yields into frames. One buffer of fixed size for the life of the lane: a length field never allocates.
pub(crate) struct FrameBuffer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Where the next bytes go. Never empty once `next_frame` has answered `None`: what remains is less than one frame, and two fit.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end > READ_BUFFER_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were put into `space`.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= READ_BUFFER_BYTES, "a stream yields no more than it is given room for");
    }

    /// The next whole frame, if there is one. The payload is copied out, so a kept vote does not keep its neighbours.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let bytes = &self.buffer[self.start..self.end];
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let announced = u32::from_le_bytes(*length);
        let length = usize::try_from(announced).map_err(|_| FrameError::TooLong(announced))?;
        if length == 0 {
            return Err(FrameError::Zero);
        }
        if length > FRAME_LENGTH_MAX {
            return Err(FrameError::TooLong(announced));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (kind, payload) = body.split_first().expect("length is not zero");
        let frame = match (*kind, payload.is_empty()) {
            (KIND_HEARTBEAT, true) => Frame::Heartbeat,
            (KIND_PAYLOAD, false) => Frame::Payload(Bytes::copy_from_slice(payload)),
            (KIND_HEARTBEAT | KIND_PAYLOAD, _) => return Err(FrameError::Body),
            (unknown, _) => return Err(FrameError::Kind(unknown)),
        };
        self.start += 4 + length;
        Ok(Some(frame))
    }
}
