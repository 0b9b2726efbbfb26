//! A connection whose answers must be taken in time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Fails when what is being written was not taken whole within a time. Progress does not prolong it: a client
/// that takes a byte now and then would hold its connection for ever.
pub struct Bounded {
    stream: TcpStream,
    /// What was read of it before, and is read first.
    before: Vec<u8>,
    longest: Duration,
    /// Ends the connection; `None` while nothing waits to be taken.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    /// Bounds writes to this connection.
    pub fn new(stream: TcpStream, longest: Duration) -> Bounded {
        Bounded::resumed(stream, longest, Vec::new())
    }

    /// The same of a connection of which these bytes were read before.
    pub fn resumed(stream: TcpStream, longest: Duration, before: Vec<u8>) -> Bounded {
        Bounded { stream, before, longest, deadline: None }
    }

    /// Passes on how a write went; one that has to wait starts the clock.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if write.is_pending() {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(self.longest)));
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        write
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let taken = self.before.len().min(buffer.remaining());
            buffer.put_slice(&self.before[..taken]);
            self.before.drain(..taken);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when all that was to be written has been taken.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
