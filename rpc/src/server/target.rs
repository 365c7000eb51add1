//! A reader that escapes what request targets may not hold.
//!
//! The contract's URI calls carry JSON strings, and everybody writes them as CometBFT's documentation does:
//! `curl 'localhost:26657/broadcast_tx_commit?tx="name=value"'`. A quote may not stand in a URI (RFC 3986 section 2), so
//! the HTTP library refuses the request before anything of ours sees it. Clients that escape it mean the same. So this reader,
//! beneath the library, follows the requests of a connection and writes each such byte of a target as `%XX`; everything else
//! passes as it came.
//!
//! It needs to know where requests begin, and for that only how long bodies are. After a body whose length is not told, or an
//! upgrade, it passes on what comes without looking; frames of a WebSocket are counted ([`frames`](super::frames)). A client that
//! confuses it has bytes of its own targets escaped, or not, and takes room that it does not need.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guest::Guest;

/// Bytes of a header line that are looked at: enough for the three headers that matter.
const LINE_BYTES_MAX: usize = 64;

/// The rule, apart from any socket.
#[derive(Debug, Default)]
struct Escaper {
    place: Place,
    /// The header line so far, its beginning only.
    line: Vec<u8>,
    /// How the bytes after this head end.
    then: Then,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Method,
    Target,
    Version,
    Headers,
    Body {
        left: u64,
    },
    /// The frames of a WebSocket.
    Frames,
    /// Never looked at again.
    Rest,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Then {
    #[default]
    NextRequest,
    Body(u64),
    Unknown,
    Frames,
}

impl Escaper {
    /// Escapes what came; how much of it, at its end, are frames of a WebSocket.
    fn take(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> usize {
        while let Some((byte, rest)) = input.split_first() {
            let whole = match self.place {
                Place::Frames => {
                    output.extend_from_slice(input);
                    return input.len();
                }
                Place::Rest => input.len(),
                Place::Body { left } => usize::try_from(left).map_or(input.len(), |left| left.min(input.len())),
                _ => 0,
            };
            if whole > 0 {
                let (body, rest) = input.split_at(whole);
                output.extend_from_slice(body);
                self.pass(whole);
                input = rest;
                continue;
            }
            match self.place {
                Place::Target if is_refused(*byte) => output.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                _ => output.push(*byte),
            }
            self.step(*byte);
            input = rest;
        }
        0
    }

    /// So many bytes of a body went by, not more than it has.
    fn pass(&mut self, bytes: usize) {
        if let Place::Body { left } = self.place {
            let left = left.saturating_sub(bytes as u64);
            self.place = if left == 0 { Place::Method } else { Place::Body { left } };
        }
    }

    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Method, b' ') => Place::Target,
            // A request line that has no version ends here too; what is wrong with it is the library's to say.
            (Place::Target | Place::Version, b'\n') => Place::Headers,
            (Place::Target, b' ') => Place::Version,
            (Place::Headers, b'\n') => return self.end_line(),
            (Place::Headers, _) => {
                if self.line.len() < LINE_BYTES_MAX {
                    self.line.push(byte);
                }
                Place::Headers
            }
            (place, _) => place,
        };
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let line = line.trim_ascii();
        if line.is_empty() {
            self.place = match mem::take(&mut self.then) {
                Then::NextRequest | Then::Body(0) => Place::Method,
                Then::Body(left) => Place::Body { left },
                Then::Unknown => Place::Rest,
                Then::Frames => Place::Frames,
            };
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"upgrade") && value.eq_ignore_ascii_case(b"websocket") {
            self.then = Then::Frames;
        } else if self.then == Then::Frames {
            // A handshake has no body. One that is refused is the last that is looked at.
        } else if name.eq_ignore_ascii_case(b"content-length") && self.then != Then::Unknown {
            let length = str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            self.then = length.map_or(Then::Unknown, Then::Body);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"upgrade") {
            self.then = Then::Unknown;
        }
    }
}

/// What no URI may hold, and people write nevertheless. A control character stays, and is refused.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

/// What becomes of the bytes of a connection, in whatever pieces they come.
pub(super) fn escape<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut escaper = Escaper::default();
    let mut output = Vec::new();
    for piece in pieces {
        escaper.take(piece, &mut output);
    }
    output
}

/// The reader. What is written passes through.
pub(super) struct Lenient<S> {
    inner: S,
    escaper: Escaper,
    guest: Arc<Guest>,
    /// Read and escaped, waiting to be asked for; and how much of it is gone.
    ready: Vec<u8>,
    given: usize,
}

impl<S> Lenient<S> {
    pub(super) fn new(inner: S, guest: Arc<Guest>) -> Self {
        Self { inner, escaper: Escaper::default(), guest, ready: Vec::new(), given: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        /// Read at a time where bytes are looked at.
        const LOOK_BYTES: usize = 8 * 1024;
        let this = &mut *self;
        if this.given == this.ready.len() {
            match this.escaper.place {
                Place::Rest => return Pin::new(&mut this.inner).poll_read(cx, buf),
                Place::Frames => {
                    if this.guest.fault().is_some() {
                        return Poll::Ready(Err(io::Error::other("no further frame of this client is read")));
                    }
                    let before = buf.filled().len();
                    ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                    this.guest.came(&buf.filled()[before..]);
                    return Poll::Ready(Ok(()));
                }
                _ => {}
            }
            let mut look = [0; LOOK_BYTES];
            let mut look = ReadBuf::new(&mut look);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut look))?;
            this.ready.clear();
            this.given = 0;
            let frames = this.escaper.take(look.filled(), &mut this.ready);
            this.guest.came(&look.filled()[look.filled().len() - frames..]);
        }
        let waiting = &this.ready[this.given..];
        let part = &waiting[..waiting.len().min(buf.remaining())];
        buf.put_slice(part);
        this.given += part.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(chunks: &[&[u8]]) -> String {
        String::from_utf8(escape(chunks.iter().copied())).expect("text")
    }

    /// What comes, and what it becomes, however the network cuts it.
    fn becomes(input: &str, expected: &str) {
        assert_eq!(escaped(&[input.as_bytes()]), expected);
        for at in 0..=input.len() {
            let (before, after) = input.as_bytes().split_at(at);
            assert_eq!(escaped(&[before, after]), expected, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(escaped(&bytes), expected, "byte by byte");
    }

    #[test]
    fn quotes_of_a_target_are_escaped_and_nothing_else() {
        becomes(
            "GET /tx?tx=\"a=b\"&q=<{|}>\u{e9} HTTP/1.1\r\nHost: \"x\"\r\n\r\n",
            "GET /tx?tx=%22a=b%22&q=%3C%7B%7C%7D%3E%C3%A9 HTTP/1.1\r\nHost: \"x\"\r\n\r\n",
        );
        becomes("GET /tx?tx=%22a%22 HTTP/1.1\n\n", "GET /tx?tx=%22a%22 HTTP/1.1\n\n");
    }

    #[test]
    fn each_request_of_a_connection_is_looked_at_and_no_body_is() {
        becomes(
            "\r\nPOST /\"1\" HTTP/1.1\r\ncontent-Length:  12\r\n\r\nGET /\"2\" H\n\nGET /\"3\" HTTP/1.1\r\n\r\nGET /\"4\" HTTP/1.1\r\n\r\n",
            "\r\nPOST /%221%22 HTTP/1.1\r\ncontent-Length:  12\r\n\r\nGET /\"2\" H\n\nGET /%223%22 HTTP/1.1\r\n\r\nGET /%224%22 HTTP/1.1\r\n\r\n",
        );
        becomes(
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET /\"5\" HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET /%225%22 HTTP/1.1\r\n\r\n",
        );
    }

    #[test]
    fn bytes_of_unknown_extent_pass() {
        for header in ["Transfer-Encoding: chunked", "Upgrade: websocket", "Content-Length: many", "content-length: 99999999999999999999"] {
            let stream = format!("POST /\"1\" HTTP/1.1\r\n{header}\r\ncontent-length: 0\r\n\r\nGET /\"2\" HTTP/1.1\r\n\r\n");
            becomes(&stream, &stream.replace("/\"1\"", "/%221%22"));
        }
    }

    #[test]
    fn frames_of_a_websocket_are_told_from_what_is_before_them() {
        let head = b"GET /websocket HTTP/1.1\r\nUpgrade: WebSocket\r\ncontent-length: 0\r\n\r\n";
        let mut escaper = Escaper::default();
        assert_eq!(escaper.take(head, &mut Vec::new()), 0);
        assert_eq!(escaper.take(b"abc", &mut Vec::new()), 3);
        assert_eq!(Escaper::default().take(&[&head[..], b"abc"].concat(), &mut Vec::new()), 3, "in one piece");
        assert_eq!(Escaper::default().take(b"POST / H\r\nUpgrade: h2c\r\n\r\nabc", &mut Vec::new()), 0);
    }

    #[test]
    fn a_long_header_line_is_not_kept() {
        let mut escaper = Escaper::default();
        escaper.take(b"GET / HTTP/1.1\r\nx: ", &mut Vec::new());
        escaper.take(&[b'y'; 10_000], &mut Vec::new());
        assert!(escaper.line.len() <= LINE_BYTES_MAX);
    }
}
