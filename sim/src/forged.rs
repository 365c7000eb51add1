//! What a client sends who wants its bytes taken for a node's own: a transaction with a record of the block log in it.
//!
//! A body lies in the log as its proposer made it, so whoever goes through a torn tail in search of records meets what clients
//! wrote. A log is salted with what only its node knows; this record is right but for that: its salt is all zeros.

use lockstep_types::Hash;

/// A mark that says it is the record of this number, and that what comes before it is durable (`docs/format-storage.md`). None
/// for the numbers whose bytes a transaction of the key-value application cannot hold.
pub(crate) fn record(sequence: u64) -> Option<Vec<u8>> {
    const SALT: [u8; 32] = [0; 32];
    const MARK: u8 = 5;
    let mut bytes = b"LSRC".to_vec();
    bytes.extend_from_slice(&[1, MARK, 0, 0]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(sequence - 1).to_le_bytes());
    // Height, round, length and block hash: none.
    bytes.extend_from_slice(&[0; 48]);
    let crc = crc32(&[&SALT[..], &bytes].concat());
    bytes.extend_from_slice(&crc.to_le_bytes());
    let digest = Hash::of_parts(&[&SALT, &bytes]);
    bytes.extend_from_slice(&digest.0);
    (!bytes.iter().any(|byte| matches!(byte, b'=' | b':'))).then_some(bytes)
}

/// The usual CRC-32 (reflected, polynomial 04C11DB7), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_record_has_a_headers_length() {
        let records: Vec<Vec<u8>> = (1_000_000..1_000_008).filter_map(record).collect();
        assert!(records.len() > 3 && records.iter().all(|record| record.len() == 108));
    }
}
