//! The genesis document, checked and cut once, since it never changes.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::envelope::Refusal;
use super::methods::Outcome;
use crate::json::{Base64, Dec, GenesisChunk};

/// Largest genesis answered whole, and size of the pieces of a larger one.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;

/// The document as JSON text.
pub(super) struct Genesis {
    text: Arc<str>,
}

impl Genesis {
    /// # Errors
    /// When the text is not JSON.
    pub(super) fn new(text: Arc<str>) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(&text)?;
        Ok(Self { text })
    }

    pub(super) fn whole(&self) -> Outcome {
        if self.text.len() > CHUNK_BYTES {
            return Err(Refusal::failed("genesis response is large, please use the genesis_chunked API instead"));
        }
        RawValue::from_string(format!(r#"{{"genesis":{}}}"#, self.text)).map_err(Refusal::failed)
    }

    pub(super) fn chunk(&self, asked: Option<i64>) -> Result<GenesisChunk, Refusal> {
        let asked = asked.unwrap_or(0);
        let total = self.text.len().div_ceil(CHUNK_BYTES);
        let chunk = usize::try_from(asked).ok().and_then(|place| self.text.as_bytes().chunks(CHUNK_BYTES).nth(place));
        // The number in this sentence is that of the last piece: so it is in CometBFT.
        let chunk = chunk.ok_or_else(|| Refusal::Failed(format!("there are {} chunks, {asked} is invalid", total - 1)))?;
        Ok(GenesisChunk { chunk: Dec(asked.unsigned_abs()), total: Dec(total as u64), data: Base64::from(chunk) })
    }
}
