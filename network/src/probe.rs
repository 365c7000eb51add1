//! The decoders of this crate by themselves, for those who attack them without a connection: fuzzing, and measuring what
//! they allocate. A node uses none of it.

use bytes::Bytes;

use crate::handshake::{Opening, Refusal};
use crate::wire::{Frame, FrameBuffer, FrameError};

/// Reads an opening message, as the first bytes on a stream are read, and writes it again.
///
/// # Errors
/// Why the connection would be refused.
pub fn opening(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    Opening::decode(bytes).map(|opening| opening.encode())
}

/// The stream of one lane, from its first byte.
pub struct Stream(FrameBuffer);

impl Default for Stream {
    fn default() -> Self {
        Self(FrameBuffer::new())
    }
}

impl Stream {
    /// Takes bytes as they come, and hands every payload that they complete to `each`; nothing for a heartbeat.
    ///
    /// # Errors
    /// What is no frame. Nothing after it is read.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Option<Bytes>)) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            let space = self.0.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.0.filled(count);
            bytes = &bytes[count..];
            while let Some(frame) = self.0.next_frame()? {
                each(match frame {
                    Frame::Heartbeat => None,
                    Frame::Payload(payload) => Some(payload),
                });
            }
        }
        Ok(())
    }
}
