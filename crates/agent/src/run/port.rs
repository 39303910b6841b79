//! The doors of a running action: the engine, the journal's records, the clocks, whoever watches,
//! and the wish to stop.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actions::{
    effect::{Effect, EffectError, EffectErrorKind, Observation},
    mask::Masker,
    port::{ActionPort, LogPiece, LogStart, StreamRecord},
    spec::SecretName,
};
use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use host::{Engine, LogLine, clock};
use ids::{AppName, BootMs, DurationMs, OperationId, UnixMs};
use journal::{Journal, JournalError};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};

use super::{
    executor::{ExecutorEvent, Known},
    output::Output,
    stream::{Lease, Stream},
};
use crate::{failure::words, limits};

/// The output of a running command, shared between the action and the task that hands it on.
#[derive(Default)]
pub(super) struct SharedOutput {
    output: Mutex<Output>,
    pub(super) arrived: Notify,
}

impl SharedOutput {
    /// A panic while it is held leaves whole lines behind at worst.
    pub(super) fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: &str) {
        self.lock().push(text);
        self.arrived.notify_one();
    }
}

/// What one running action sees of the world.
pub(super) struct HostPort {
    pub(super) engine: Engine,
    pub(super) journal: Journal,
    pub(super) events: mpsc::Sender<ExecutorEvent>,
    pub(super) cancelled: watch::Receiver<bool>,
    pub(super) masker: Arc<Masker>,
    pub(super) output: Arc<SharedOutput>,
    /// What is to be masked in a stream; read again for each log that is opened.
    pub(super) known: Known,
    pub(super) stream: Arc<Stream>,
    pub(super) lease: watch::Receiver<Lease>,
    pub(super) logs: SelectAll<BoxStream<'static, LogPiece>>,
}

impl HostPort {
    /// The journal failed: the action must stop, and so must the agent.
    async fn journal_failed(&mut self, error: JournalError) -> EffectError {
        let message = words(&error);
        let _ = self.events.send(ExecutorEvent::JournalFailed(error)).await;
        EffectError { kind: EffectErrorKind::Journal, message }
    }
}

impl ActionPort for HostPort {
    async fn perform(&mut self, effect: Effect) -> Result<Observation, EffectError> {
        let (masker, output) = (self.masker.clone(), self.output.clone());
        let mut progress = move |line: String| output.push(&masker.mask(&line));
        self.engine.perform(effect, &mut progress).await
    }

    async fn logs_open(&mut self, name: &str, id: &str, start: LogStart) -> Result<(), EffectError> {
        // A deploy under way brings values of its own, and its containers may write them.
        self.masker = Arc::new(self.known.masker().await);
        let lines = self.engine.log_follow(name, &start).await?;
        let (container, ended) = (id.to_owned(), LogPiece::Ended { container: id.to_owned(), error: None });
        let pieces = lines.map(move |line| match line {
            Ok(LogLine { time, text, cut }) => LogPiece::Line { container: container.clone(), time, text, cut },
            Err(error) => LogPiece::Ended { container: container.clone(), error: Some(error.message) },
        });
        self.logs.push(pieces.chain(stream::iter([ended])).boxed());
        Ok(())
    }

    async fn logs_next(&mut self, span: DurationMs) -> Vec<LogPiece> {
        let first = tokio::select! {
            Some(piece) = self.logs.next() => Some(piece),
            () = sleep(Duration::from_millis(span.0)) => None,
            _ = self.cancelled.wait_for(|cancelled| *cancelled) => None,
            // Nobody watching any more is a reason to look up at once.
            _ = self.lease.wait_for(|lease| lease.ends_at <= clock::boot_now()) => None,
        };
        let mut pieces = Vec::from_iter(first);
        while !pieces.is_empty() && pieces.len() < limits::LOG_BATCH_MAX {
            let Some(Some(piece)) = self.logs.next().now_or_never() else { break };
            pieces.push(piece);
        }
        pieces
    }

    fn stream(&mut self, record: StreamRecord) -> bool {
        self.stream.push(record, &self.masker)
    }

    fn watched_until(&self) -> BootMs {
        self.lease.borrow().ends_at
    }

    async fn record_write(&mut self, key: &str, record: Option<Vec<u8>>) -> Result<(), EffectError> {
        match self.journal.record_write(key, record).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.journal_failed(error).await),
        }
    }

    async fn record_read(&mut self, key: &str) -> Result<Option<Vec<u8>>, EffectError> {
        match self.journal.record_read(key).await {
            Ok(record) => Ok(record),
            Err(error) => Err(self.journal_failed(error).await),
        }
    }

    fn reseal(
        &mut self,
        app: &AppName,
        version: OperationId,
        name: &SecretName,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, EffectError> {
        self.known.reseal(app, version, name, sealed).map_err(|error| EffectError {
            kind: EffectErrorKind::Refused,
            message: format!("{error}; deploy {app} again, so that its secrets are sealed anew"),
        })
    }

    fn progress(&mut self, text: String) {
        self.output.push(&self.masker.mask(&text));
    }

    async fn wait(&mut self, span: DurationMs) {
        let span = sleep(Duration::from_millis(span.0));
        if *self.cancelled.borrow() {
            return span.await;
        }
        tokio::select! {
            () = span => {}
            cancelled = self.cancelled.wait_for(|cancelled| *cancelled) => {
                // The sender lives as long as the command; were it gone, nobody could cancel any more.
                debug_assert!(cancelled.is_ok(), "the executor holds the other end");
            }
        }
    }

    fn boot_now(&self) -> BootMs {
        clock::boot_now()
    }

    fn now(&self) -> UnixMs {
        clock::wall_now()
    }

    fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }
}
