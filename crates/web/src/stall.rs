//! A connection whose other end takes nothing any more.
//!
//! Requests have deadlines; answers have none of their own, because an event stream may last an hour.
//! Whoever asks and never reads would keep a connection, and what it holds, for ever: so each write
//! must make headway.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::io::{self, IoSlice};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::limits;

/// A stream whose writes fail once they have made no headway for [`limits::WRITE_TIME_MAX`].
pub(crate) struct Stalling<S> {
    stream: S,
    /// Running while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, waiting: None }
    }

    fn timed<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limits::WRITE_TIME_MAX)));
        waiting.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timed(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.timed(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_in_time() {
        let (near, _far) = duplex(64);
        let mut near = Stalling::new(near);
        let begin = Instant::now();
        let written = timeout(2 * limits::WRITE_TIME_MAX, near.write_all(&[0; 1000])).await.expect("an end");
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= limits::WRITE_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_none_that_takes_nothing() {
        let (near, mut far) = duplex(64);
        let mut near = Stalling::new(near);
        let reader = tokio::spawn(async move {
            let mut taken = 0;
            while taken < 640 {
                // Virtual time: each piece comes just before the limit.
                sleep(limits::WRITE_TIME_MAX - core::time::Duration::from_secs(1)).await;
                taken += far.read(&mut [0; 64]).await.unwrap();
            }
        });
        near.write_all(&[0; 640]).await.unwrap();
        reader.await.unwrap();
    }
}
