//! A keep-alive HTTP/1.1 connection that costs little: one write and, mostly, one read per request.
//!
//! For whatever asks often: the load of `bench`, the table of `localnet`. It shares cores with the network it looks at.

use std::io::{self, Write as _};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::metrics::{CutOff, HeldBack, Metrics};

/// Largest answer that is read: the largest block, in base64, and what surrounds it.
const ANSWER_BYTES_MAX: usize = 160 << 20;
/// Most headers of an answer, and most bytes of them.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Room that is made before each read.
const READ_BYTES: usize = 32 << 10;
/// How long connecting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// Where a node answers: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host_port: String,
}

impl Endpoint {
    /// From `http://host:port`, `tcp://host:port` or `host:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("tcp://")).unwrap_or(text).trim_end_matches('/');
        let port = rest.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>())).and_then(Result::ok);
        let plain = !rest.contains(['/', '@', ' ', '?', '#']) && rest.is_ascii();
        match port {
            Some(1..) if plain => Ok(Self { host_port: rest.to_owned() }),
            _ => Err(format!("{text:?} is not an RPC endpoint: one looks like http://127.0.0.1:26657")),
        }
    }

    /// As a URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host_port)
    }
}

/// Why there is no answer. After one the connection is of no more use.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed before the answer was whole")]
    Closed,
    #[error("the answer is not HTTP/1.1: {0}")]
    Malformed(&'static str),
    #[error("the answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

impl HttpError {
    /// What failed, without what differs from time to time: to count by.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Io(error) => format!("connection: {}", error.kind()),
            other => format!("connection: {other}"),
        }
    }
}

/// A connection, for one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    endpoint: Endpoint,
    request: Vec<u8>,
    received: Vec<u8>,
    /// The body of a chunked answer, put together.
    joined: Vec<u8>,
}

/// Where the body of an answer ends.
enum Body {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, HttpError> {
        let connecting = TcpStream::connect(&endpoint.host_port);
        let stream = timeout(CONNECT_WAIT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, endpoint: endpoint.clone(), request: Vec::new(), received: Vec::new(), joined: Vec::new() })
    }

    /// Posts a JSON-RPC request; the body of the answer, whatever its status.
    pub(crate) async fn post(&mut self, body: &[u8]) -> Result<&[u8], HttpError> {
        self.request.clear();
        write!(
            self.request,
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.endpoint.host_port,
            body.len()
        )?;
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.answer().await
    }

    /// Gets a page; the body of the answer, whatever its status.
    pub(crate) async fn get(&mut self, path: &str) -> Result<&[u8], HttpError> {
        self.request.clear();
        write!(self.request, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.endpoint.host_port)?;
        self.stream.write_all(&self.request).await?;
        self.answer().await
    }

    /// What a node says of its votes: none when it does not say.
    pub(crate) async fn held_back(&mut self) -> Option<Option<HeldBack>> {
        HeldBack::read(std::str::from_utf8(self.get("/metrics").await.ok()?).ok()?)
    }

    /// What a node lacks that blocks do not bring further: none when they do, or when it does not say.
    pub(crate) async fn cut_off(&mut self) -> Option<CutOff> {
        CutOff::read(std::str::from_utf8(self.get("/metrics").await.ok()?).ok()?)
    }

    /// How many peers refuse a node for another process with its node key: none when it does not say.
    pub(crate) async fn kept_out(&mut self) -> Option<u64> {
        Metrics::read_kept_out(std::str::from_utf8(self.get("/metrics").await.ok()?).ok()?)
    }

    /// A number of a URI call's answer, by its place in it: none when it is not there.
    pub(crate) async fn decimal(&mut self, path: &str, place: &str) -> Option<u64> {
        let answer: serde_json::Value = serde_json::from_slice(self.get(path).await.ok()?).ok()?;
        answer.pointer(place)?.as_str()?.parse().ok()
    }

    async fn answer(&mut self) -> Result<&[u8], HttpError> {
        self.received.clear();
        let (begin, body) = loop {
            if let Some(head) = parse_head(&self.received)? {
                break head;
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(HttpError::Malformed("its headers do not end"));
            }
            self.read_more().await?;
        };
        match body {
            Body::Length(length) if length > ANSWER_BYTES_MAX => Err(HttpError::TooLarge),
            Body::Length(length) => {
                let end = begin + length;
                self.received.reserve(end.saturating_sub(self.received.len()));
                self.read_to(end).await?;
                Ok(&self.received[begin..end])
            }
            Body::Chunked => {
                self.join_chunks(begin).await?;
                Ok(&self.joined)
            }
        }
    }

    async fn join_chunks(&mut self, begin: usize) -> Result<(), HttpError> {
        const LINE_END: usize = 2;
        self.joined.clear();
        let mut at = begin;
        loop {
            let parsed = httparse::parse_chunk_size(&self.received[at..]).map_err(|_| HttpError::Malformed("a chunk has no size"))?;
            let httparse::Status::Complete((used, size)) = parsed else {
                if self.received.len() - at > HEAD_BYTES_MAX {
                    return Err(HttpError::Malformed("a chunk has no size"));
                }
                self.read_more().await?;
                continue;
            };
            let size = usize::try_from(size).ok().filter(|size| self.joined.len() + size <= ANSWER_BYTES_MAX).ok_or(HttpError::TooLarge)?;
            let (from, end) = (at + used, at + used + size);
            self.read_to(end + LINE_END).await?;
            self.joined.extend_from_slice(&self.received[from..end]);
            at = end + LINE_END;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn read_to(&mut self, length: usize) -> Result<(), HttpError> {
        while self.received.len() < length {
            self.read_more().await?;
        }
        Ok(())
    }

    async fn read_more(&mut self) -> Result<(), HttpError> {
        if self.received.capacity() == self.received.len() {
            self.received.reserve(READ_BYTES);
        }
        if self.stream.read_buf(&mut self.received).await? == 0 { Err(HttpError::Closed) } else { Ok(()) }
    }
}

/// Where the body begins and how it ends; none while the head is not whole.
fn parse_head(received: &[u8]) -> Result<Option<(usize, Body)>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(received).map_err(|_| HttpError::Malformed("its head does not parse"))?;
    let httparse::Status::Complete(begin) = parsed else { return Ok(None) };
    let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Ok(Some((begin, Body::Chunked)));
    }
    let length = header("content-length").and_then(|value| std::str::from_utf8(value).ok()).and_then(|value| value.parse().ok());
    length.map(|length| Some((begin, Body::Length(length)))).ok_or(HttpError::Malformed("it does not say how long it is"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{Connection, Endpoint, HttpError};

    /// A server that reads one request and answers with these pieces, each in a write of its own, then closes.
    async fn asked(pieces: &'static [&'static str]) -> Result<Vec<u8>, HttpError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = Endpoint::parse(&listener.local_addr().expect("bound").to_string()).expect("an endpoint");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("a socket");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.expect("a request");
            assert!(request[..length].starts_with(b"POST / HTTP/1.1\r\n"));
            assert!(request[..length].ends_with(b"\r\n\r\n{}"));
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.expect("a client that reads");
                stream.flush().await.expect("a client that reads");
                tokio::task::yield_now().await;
            }
        };
        let client = async { Ok(Connection::open(&endpoint).await?.post(b"{}").await?.to_vec()) };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn answers_of_every_form_are_read() {
        let whole = asked(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"]).await;
        assert_eq!(whole.expect("whole"), b"hello");
        let pieces = asked(&["HTTP/1.1 500 No\r\ncontent-le", "ngth: 5\r\n\r", "\nhe", "llo"]).await;
        assert_eq!(pieces.expect("whole"), b"hello", "the status does not matter, nor where it is cut");
        let chunked = asked(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r", "\nhe\r\n3", "\r\nllo\r\n0\r\n\r\n"]).await;
        assert_eq!(chunked.expect("whole"), b"hello");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        assert!(matches!(asked(&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"]).await, Err(HttpError::Closed)));
        assert!(matches!(asked(&["SSH-2.0-OpenSSH\r\n\r\n"]).await, Err(HttpError::Malformed(_))));
        assert!(matches!(asked(&["HTTP/1.1 200 OK\r\n\r\n"]).await, Err(HttpError::Malformed(_))));
        let long = asked(&["HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"]).await;
        assert!(matches!(long, Err(HttpError::TooLarge)));
        let long = asked(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n"]).await;
        assert!(matches!(long, Err(HttpError::TooLarge)));
    }

    #[test]
    fn an_endpoint_names_host_and_port() {
        for good in ["http://127.0.0.1:26657", "tcp://127.0.0.1:26657/", "127.0.0.1:26657"] {
            assert_eq!(Endpoint::parse(good).expect("good").url(), "http://127.0.0.1:26657");
        }
        for bad in ["", "http://", "127.0.0.1", "https://a:1", "a:0", "a:65536", ":1", "http://a:1/path", "u@a:1"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
