//! What the unfinished message of a WebSocket occupies.
//!
//! The library makes room for a whole frame when its head comes, before any of its payload does: a few bytes take a megabyte. So
//! the heads are read here too, beneath the library (RFC 6455, 5.2), and what they claim is taken from the room that the
//! large requests of all connections share. Nothing is changed on its way.

use super::room::{Held, Room};

/// A message up to this size is not counted: connections are bounded, and so are these.
pub(super) const SMALL_BYTES: usize = 16 * 1024;
/// The longest head of a frame.
const HEAD_BYTES_MAX: usize = 14;

/// Why a WebSocket is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A message is larger than any request may be.
    TooLarge,
    /// There is no room for another large message now.
    NoRoom,
}

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    room: Room,
    message_bytes_max: usize,
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    payload_left: u64,
    /// Whether the frame under way is the last of its message.
    ends_message: bool,
    /// What the frames of the message under way claim.
    message_bytes: u64,
    held: Held,
    fault: Option<Fault>,
}

impl Frames {
    pub(super) fn new(room: Room, message_bytes_max: usize) -> Self {
        Self {
            room,
            message_bytes_max,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            payload_left: 0,
            ends_message: false,
            message_bytes: 0,
            held: Held::default(),
            fault: None,
        }
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// These bytes came. After a fault none is looked at.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while self.fault.is_none() && !bytes.is_empty() {
            if self.payload_left > 0 {
                let here = usize::try_from(self.payload_left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload_left -= here as u64;
                bytes = &bytes[here..];
            } else {
                self.head[self.head_bytes] = bytes[0];
                self.head_bytes += 1;
                bytes = &bytes[1..];
                if !self.head_ends() {
                    continue;
                }
            }
            if self.payload_left == 0 && self.ends_message {
                // From here the message is the handler's.
                self.ends_message = false;
                self.message_bytes = 0;
                self.held = Held::default();
            }
        }
    }

    /// Whether the head of a frame is whole; then its claim is taken.
    fn head_ends(&mut self) -> bool {
        const FIN: u8 = 0x80;
        const CONTROL: u8 = 0x08;
        const MASKED: u8 = 0x80;
        const LENGTH: u8 = 0x7f;
        const MASK_BYTES: usize = 4;
        let [first, second, ..] = self.head;
        let length_bytes = match second & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & MASKED == 0 { 0 } else { MASK_BYTES };
        if self.head_bytes < 2 + length_bytes + mask_bytes {
            return false;
        }
        self.head_bytes = 0;
        self.payload_left = match length_bytes {
            0 => u64::from(second & LENGTH),
            _ => self.head[2..2 + length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        // Pings and farewells stand between the frames of a message. The library refuses any longer than 125 bytes.
        if first & CONTROL != 0 {
            return true;
        }
        self.ends_message = first & FIN != 0;
        self.message_bytes = self.message_bytes.saturating_add(self.payload_left);
        match usize::try_from(self.message_bytes) {
            Ok(bytes) if bytes <= SMALL_BYTES => {}
            Ok(bytes) if bytes <= self.message_bytes_max => {
                if !self.room.grow(&mut self.held, bytes) {
                    self.fault = Some(Fault::NoRoom);
                }
            }
            _ => self.fault = Some(Fault::TooLarge),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    /// A frame as a client sends it: opcode and flags, what it claims, what of it is there.
    fn frame(first: u8, claim: u64, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match claim {
            0..126 => bytes.push(0x80 | u8::try_from(claim).expect("small")),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&u16::try_from(claim).expect("two bytes").to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&claim.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes.resize(bytes.len() + payload, b'x');
        bytes
    }

    fn whole(first: u8, bytes: usize) -> Vec<u8> {
        frame(first, bytes as u64, bytes)
    }

    /// What is left of a room of 100 KiB after these bytes, and the fault, however they are cut.
    fn left(bytes: &[u8]) -> (usize, Option<Fault>) {
        let after = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let room = Room::new(100 * KIB);
            let mut frames = Frames::new(room.clone(), 200 * KIB);
            pieces.for_each(|piece| frames.take(piece));
            let free = (0..=100).rev().find(|kib| room.hold(kib * KIB).is_some()).expect("nothing is always free");
            (free, frames.fault())
        };
        let at_once = after(&mut std::iter::once(bytes));
        assert_eq!(after(&mut bytes.chunks(1)), at_once, "byte by byte");
        assert_eq!(after(&mut bytes.chunks(7)), at_once, "by sevens");
        at_once
    }

    #[test]
    fn a_claim_takes_room_until_its_message_is_whole() {
        assert_eq!(left(&frame(0x81, 60 * 1024, 0)), (40, None), "a head is enough");
        assert_eq!(left(&frame(0x81, 60 * 1024, 60 * KIB - 1)), (40, None));
        assert_eq!(left(&whole(0x81, 60 * KIB)), (100, None), "and the message is handed over");
        assert_eq!(left(&frame(0x82, 16 * 1024, 0)), (100, None), "small ones are not counted");
    }

    #[test]
    fn pieces_of_a_message_add_up() {
        let pieces = [whole(0x01, 10 * KIB), whole(0x89, 5), whole(0x00, 20 * KIB)].concat();
        assert_eq!(left(&pieces), (70, None), "with a ping between them");
        assert_eq!(left(&[pieces.clone(), whole(0x80, 0)].concat()), (100, None), "the last one is empty");
        assert_eq!(left(&[pieces, whole(0x80, 3), frame(0x81, 90 * 1024, 1)].concat()), (10, None), "and the next begins anew");
    }

    #[test]
    fn what_does_not_fit_is_a_fault() {
        assert_eq!(left(&frame(0x81, 150 * 1024, 0)), (100, Some(Fault::NoRoom)));
        assert_eq!(left(&frame(0x81, 200 * 1024 + 1, 0)), (100, Some(Fault::TooLarge)));
        assert_eq!(left(&frame(0x81, u64::MAX, 9)), (100, Some(Fault::TooLarge)));
        let many = [whole(0x01, 90 * KIB), frame(0x00, u64::MAX, 0)].concat();
        assert_eq!(left(&many), (10, Some(Fault::TooLarge)), "together");
    }
}
