//! A socket that gives up on a peer who does not read.
//!
//! A reply waits in memory until its reader takes it. Whoever asks for large blocks and never reads would hold that memory
//! as long as the connection lives, so a write that makes no progress for a while ends the connection.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::guest::Guest;

pub(super) struct Steady {
    /// None once it is dropped.
    stream: Option<TcpStream>,
    guest: Arc<Guest>,
    patience: Duration,
    /// When the write that is waiting now gives up.
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Steady {
    pub(super) fn new(stream: TcpStream, guest: Arc<Guest>, patience: Duration) -> Self {
        Self { stream: Some(stream), guest, patience, deadline: Box::pin(tokio::time::sleep(patience)), waiting: false }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("taken where it is dropped, and nowhere else"))
    }

    /// Passes on what the socket said of a write, unless it has said "not yet" for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.waiting = false;
            return said;
        }
        if !self.waiting {
            self.waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Says that nothing follows, and hears the client out for a moment.
pub(super) async fn hear_out(mut stream: TcpStream) {
    const WAIT: Duration = Duration::from_secs(1);
    let farewell = async {
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(WAIT, farewell).await;
}

impl Drop for Steady {
    /// Closing with unread bytes resets the connection, and takes with it what the client has not read yet. Who is dismissed
    /// keeps its place for that moment.
    fn drop(&mut self) {
        if !self.guest.is_dismissed() {
            return;
        }
        if let (Some(stream), Ok(runtime)) = (self.stream.take(), tokio::runtime::Handle::try_current()) {
            let guest = Arc::clone(&self.guest);
            runtime.spawn(async move {
                hear_out(stream).await;
                drop(guest);
            });
        }
    }
}

impl AsyncRead for Steady {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Steady {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let said = self.stream().poll_write(cx, buf);
        self.watch(cx, said)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let said = self.stream().poll_write_vectored(cx, bufs);
        self.watch(cx, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
