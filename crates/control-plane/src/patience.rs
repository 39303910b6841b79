//! How long a connection may stay open while nobody on it has proved who they are.
//!
//! TLS here asks no client for a certificate, so whoever reaches the port may connect. Streams have a
//! deadline of their own, but a connection without a stream, or with one refused after the other,
//! would hold its place for ever, and all places together are bounded: strangers must not be able
//! to sit on them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep};

use crate::limits;

/// Counts the sessions of one connection whose host has proved itself. Its clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proved(Arc<AtomicUsize>);

/// A session that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct ProvedSession(Proved);

impl Proved {
    /// A host has proved itself on this connection.
    pub(crate) fn session(&self) -> ProvedSession {
        self.0.fetch_add(1, Ordering::Relaxed);
        ProvedSession(self.clone())
    }

    fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for ProvedSession {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks every [`limits::UNPROVED_MAX`] whether a connection has a proved session.
pub(crate) struct Patience {
    proved: Proved,
    look: Pin<Box<Sleep>>,
    /// Whether it had none when last looked at.
    was_idle: bool,
}

impl Patience {
    /// For a connection that has just been made.
    pub(crate) fn new(proved: Proved) -> Self {
        Self { proved, look: Box::pin(sleep(limits::UNPROVED_MAX)), was_idle: true }
    }

    /// Ready when the connection is to be cut. A session that ended leaves time for its last frames
    /// and for another: only two looks in a row without one are the end.
    pub(crate) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.look.as_mut().poll(context).is_ready() {
            let is_idle = !self.proved.is_any();
            if is_idle && self.was_idle {
                return Poll::Ready(());
            }
            self.was_idle = is_idle;
            self.look.as_mut().reset(Instant::now() + limits::UNPROVED_MAX);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::time::timeout;

    use super::*;

    async fn is_over_within(patience: &mut Patience, span: Duration) -> bool {
        timeout(span, poll_fn(|context| patience.poll_over(context))).await.is_ok()
    }

    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nobody_proves_anything_ends() {
        let mut patience = Patience::new(Proved::default());
        assert!(!is_over_within(&mut patience, limits::UNPROVED_MAX - MOMENT).await);
        assert!(is_over_within(&mut patience, 2 * MOMENT).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_keeps_its_connection_and_its_end_leaves_time_for_another() {
        let proved = Proved::default();
        let mut patience = Patience::new(proved.clone());
        let session = proved.session();
        assert!(!is_over_within(&mut patience, 100 * limits::UNPROVED_MAX).await);
        drop(session);
        assert!(!is_over_within(&mut patience, limits::UNPROVED_MAX - MOMENT).await);
        let session = proved.session();
        assert!(!is_over_within(&mut patience, 3 * limits::UNPROVED_MAX).await);
        drop(session);
        assert!(is_over_within(&mut patience, 2 * limits::UNPROVED_MAX + MOMENT).await);
    }
}
