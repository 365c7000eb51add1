//! Requests and responses: bytes until the end of the stream, never more than allowed.

use std::io;

use bytes::Bytes;
use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::swarm::StreamProtocol;

use crate::limits::{Pace, REQUEST_BYTES_MAX, REQUESTS_PER_PEER_MAX, RESPONSE_BYTES_MAX};

const EXCHANGE_PROTOCOL: StreamProtocol = StreamProtocol::new("/lockstep/exchange/1");

/// Reads to the end. One byte beyond the bound is an error, whatever the peer meant to send after it.
async fn read_bounded<T: AsyncRead + Unpin + Send>(io: &mut T, bytes_max: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    let one_more = u64::try_from(bytes_max).expect("a bound fits a u64") + 1;
    io.take(one_more).read_to_end(&mut bytes).await?;
    if bytes.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than its kind may be"));
    }
    Ok(bytes.into())
}

async fn write_whole<T: AsyncWrite + Unpin + Send>(io: &mut T, bytes: &[u8]) -> io::Result<()> {
    io.write_all(bytes).await?;
    io.close().await
}

#[derive(Clone, Default)]
pub(crate) struct ExchangeCodec;

impl Codec for ExchangeCodec {
    type Protocol = StreamProtocol;
    type Request = Bytes;
    type Response = Bytes;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes> {
        read_bounded(io, REQUEST_BYTES_MAX).await
    }

    /// A responder that drops the request closes the stream: no bytes at all. So an empty response is a failure, and
    /// `Network::respond` refuses to send one.
    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes> {
        let bytes = read_bounded(io, RESPONSE_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "not answered"));
        }
        Ok(bytes)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T, request: Bytes) -> io::Result<()> {
        write_whole(io, &request).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T, response: Bytes) -> io::Result<()> {
        write_whole(io, &response).await
    }
}

pub(crate) fn behaviour(pace: &Pace) -> request_response::Behaviour<ExchangeCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(pace.request_within)
        .with_max_concurrent_streams(2 * REQUESTS_PER_PEER_MAX);
    request_response::Behaviour::with_codec(ExchangeCodec, [(EXCHANGE_PROTOCOL, ProtocolSupport::Full)], config)
}
