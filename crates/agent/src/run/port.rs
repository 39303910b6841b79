//! The doors of a running action: the engine, the journal's records, the clocks, whoever watches,
//! and the wish to stop.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actions::{
    effect::{Effect, EffectError, EffectErrorKind, Observation},
    mask::Masker,
    port::ActionPort,
};
use host::{Engine, clock};
use ids::{BootMs, DurationMs, UnixMs};
use journal::{Journal, JournalError};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};

use super::{executor::ExecutorEvent, output::Output};
use crate::failure::words;

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
}

impl HostPort {
    /// The journal failed: the action must stop, and so must the agent.
    async fn journal_failed(&self, error: JournalError) -> EffectError {
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
