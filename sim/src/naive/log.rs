//! The chain that the files of a block log hold, read from the tables of `docs/format-storage.md`.

use std::collections::BTreeMap;

use super::bytes::Hash;
use super::hashes::sha;

const SEGMENT_HEAD: usize = 80;
const RECORD_HEAD: usize = 108;
const BODY: u8 = 1;
const DECISION: u8 = 4;

/// A decided height, as its bytes stand in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its height.
    pub height: u64,
    /// The body.
    pub body: Vec<u8>,
    /// The certificate.
    pub commit: Vec<u8>,
}

impl Kept {
    /// The round in which it was decided.
    pub fn round(&self) -> Option<u32> {
        super::bytes::commit(&self.commit).ok().map(|commit| commit.round)
    }
}

/// The chain in a log's segments, given in the order of their names, from whichever height it begins with on and without a gap. A record
/// that does not verify ends its segment: what that means is the log's business.
///
/// # Errors
/// When a segment is none, a decision stands twice or has no body.
pub fn read_log(segments: &[Vec<u8>]) -> Result<Vec<Kept>, String> {
    let mut bodies: BTreeMap<Hash, Vec<u8>> = BTreeMap::new();
    let mut chain: Vec<Kept> = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        let head = segment.get(..SEGMENT_HEAD).filter(|head| head.starts_with(b"LSSG\x01") && head[48..] == sha(&[&head[..48]]));
        let salt = &head.ok_or_else(|| format!("segment {number} has no header"))?[16..48];
        let mut rest = &segment[SEGMENT_HEAD..];
        while let Some((head, tail)) = rest.split_at_checked(RECORD_HEAD).filter(|(head, _)| head.starts_with(b"LSRC\x01")) {
            let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight"));
            let length = u32::from_le_bytes(head[36..40].try_into().expect("four")) as usize;
            let Some((payload, tail)) = tail.split_at_checked(length) else { break };
            if head[76..] != sha(&[salt, &head[..76], payload]) {
                break;
            }
            let hash: Hash = head[40..72].try_into().expect("32");
            match head[5] {
                BODY => drop(bodies.insert(hash, payload.to_vec())),
                DECISION => {
                    let height = number(24);
                    let expected = chain.last().map_or(height, |last| last.height + 1);
                    if height != expected {
                        return Err(format!("a decision of height {height} where {expected} comes next"));
                    }
                    let body = bodies.get(&hash).cloned().ok_or_else(|| format!("the decision of height {height} has no body"))?;
                    chain.push(Kept { height, body, commit: payload.to_vec() });
                }
                _ => {}
            }
            rest = tail;
        }
    }
    Ok(chain)
}
