//! Streams of commands, from the host's session to whoever watches: bounded buffers in memory, and
//! the answer that empties them. Nothing of a stream is ever stored.
//!
//! Whoever watches holds a lease on the stream, renewed every few seconds and as the text is taken,
//! and says with it how far the host may send: a slow reader slows the host's sending down, and what
//! is too much is left out there. When the reader goes away, the lease is given back.

use core::convert::Infallible;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::Event as Shown;
use axum::response::{
    IntoResponse as _, Response,
    sse::{Event as Frame, KeepAlive, Sse},
};
use fleet::{
    model::{Command, Credential, Principal},
    operation::streams,
    ports::{Event, StoreError, StreamLease, StreamPiece},
};
use futures_util::stream;
use ids::{CommandId, HostId, HostName, OperationId};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{Instant, sleep_until},
};

use crate::{
    access,
    events::Place,
    limits,
    problem::{ApiError, Kind},
    state::{Shared, asked_to_end},
    view,
};

/// The streams that somebody watches, by command.
#[derive(Default)]
pub struct Streams {
    feeds: Mutex<HashMap<CommandId, Arc<Feed>>>,
}

/// One stream on its way to its reader.
struct Feed {
    host: HostId,
    buffer: Mutex<Buffer>,
    /// Shared by all streams of one reader.
    arrived: Arc<Notify>,
}

#[derive(Default)]
struct Buffer {
    /// Offset of the first byte of `text`.
    offset: u64,
    text: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the value whole, so a panic elsewhere does not matter.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// Takes a piece of a stream from its host's session. Without a reader it is dropped, as is what
    /// comes from another host than the command's, or beyond what was allowed.
    pub fn put(&self, piece: StreamPiece) {
        let feed = lock(&self.feeds).get(&piece.command).cloned();
        if let Some(feed) = feed.filter(|feed| feed.host == piece.host) {
            lock(&feed.buffer).put(piece.offset, &piece.text);
            feed.arrived.notify_one();
        }
    }

    fn open(&self, command: CommandId, feed: Arc<Feed>) -> bool {
        let mut feeds = lock(&self.feeds);
        let is_free = !feeds.contains_key(&command);
        if is_free {
            feeds.insert(command, feed);
        }
        is_free
    }

    fn close(&self, command: CommandId) {
        lock(&self.feeds).remove(&command);
    }
}

impl Buffer {
    fn put(&mut self, offset: u64, text: &str) {
        let end = self.offset + self.text.len() as u64;
        if offset != end {
            if offset < end {
                return;
            }
            // Pieces were lost on the way: what waits goes too, or the reader could not tell where.
            self.text.clear();
            self.offset = offset;
        }
        if self.text.len() + text.len() <= 2 * limits::STREAM_WINDOW_BYTES {
            self.text.push_str(text);
        }
    }

    /// What waits, and where it begins.
    fn take(&mut self) -> Option<(u64, String)> {
        if self.text.is_empty() {
            return None;
        }
        let (offset, text) = (self.offset, core::mem::take(&mut self.text));
        self.offset += text.len() as u64;
        Some((offset, text))
    }

    /// Offset behind which everything was taken.
    fn taken(&self) -> u64 {
        self.offset
    }
}

/// One command of what is watched.
struct Watched {
    command: CommandId,
    host: HostName,
    feed: Arc<Feed>,
    /// Allowed up to there.
    allowed: u64,
    has_ended: bool,
    /// Bytes of the whole stream, once its report says so.
    total: Option<u64>,
}

struct Reader {
    shared: Arc<Shared>,
    operation: OperationId,
    credential: Credential,
    announcements: broadcast::Receiver<Event>,
    closing: watch::Receiver<bool>,
    arrived: Arc<Notify>,
    watched: Vec<Watched>,
    end_by: Instant,
    renew_at: Instant,
    reread_at: Instant,
    /// Everything has ended: what is still on its way is waited for until then.
    last_by: Option<Instant>,
    is_over: bool,
    place: Place,
}

impl Drop for Reader {
    fn drop(&mut self) {
        for watched in &self.watched {
            self.shared.streams.close(watched.command);
            if !watched.has_ended {
                let lease = StreamLease { command: watched.command, until: watched.allowed, over: true };
                self.shared.notifier.stream_lease(watched.feed.host, lease);
            }
        }
    }
}

/// Answers with the streams of an operation's commands.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    operation: OperationId,
    actor: &Principal,
) -> Result<Response, ApiError> {
    let place = Place::take(shared, actor.user)?;
    let announcements = shared.events.subscribe();
    let commands = view::operation_commands(&*shared.store, operation).await?;
    if !commands.iter().all(streams) {
        let detail = format!("operation {operation} has no stream; its end is at /api/v1/operations/{operation}");
        return Err(ApiError::new(Kind::Invalid, detail));
    }
    let now = Instant::now();
    let mut reader = Reader {
        shared: shared.clone(),
        operation,
        credential: actor.credential,
        announcements,
        closing: shared.closing.clone(),
        arrived: Arc::default(),
        watched: Vec::new(),
        end_by: now + limits::EVENT_STREAM_AGE_MAX,
        renew_at: now,
        reread_at: now + limits::EVENT_REREAD,
        last_by: None,
        is_over: false,
        place,
    };
    reader.watch(&commands)?;
    reader.look(&commands);
    let frames = stream::unfold(reader, |mut reader| async move {
        let shown = reader.next().await?;
        Some((Ok::<_, Infallible>(frame(&shown)), reader))
    });
    let heartbeat = KeepAlive::new().interval(limits::EVENT_HEARTBEAT).text("still here");
    Ok(Sse::new(frames).keep_alive(heartbeat).into_response())
}

fn frame(shown: &Shown) -> Frame {
    let name = if matches!(shown, Shown::Output { .. }) { "output" } else { "operation" };
    Frame::default().event(name).data(view::value(shown).to_string())
}

impl Reader {
    fn watch(&mut self, commands: &[Command]) -> Result<(), ApiError> {
        for command in commands {
            let (id, host) = (command.order.command, command.order.host);
            let feed = Arc::new(Feed { host, buffer: Mutex::default(), arrived: self.arrived.clone() });
            if !self.shared.streams.open(id, feed.clone()) {
                let detail = format!("the stream of command {id} is watched already; order one of your own");
                return Err(ApiError::new(Kind::OperationConflict, detail));
            }
            self.watched.push(Watched {
                command: id,
                host: command.host_name.clone(),
                feed,
                allowed: 0,
                has_ended: false,
                total: None,
            });
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<Shown> {
        loop {
            if let Some(shown) = self.take() {
                return Some(shown);
            }
            if self.is_over {
                return None;
            }
            if self.has_all() {
                self.is_over = true;
                return self.last_word().await;
            }
            if !self.wait().await {
                return None;
            }
        }
    }

    /// Text that waits; the host may send as much again.
    fn take(&mut self) -> Option<Shown> {
        for watched in &mut self.watched {
            let Some((offset, text)) = lock(&watched.feed.buffer).take() else { continue };
            let (command_id, host) = (watched.command, watched.host.clone());
            let window = limits::STREAM_WINDOW_BYTES as u64;
            if !watched.has_ended && offset + text.len() as u64 + window >= watched.allowed + window / 4 {
                watched.renew(&self.shared);
            }
            return Some(Shown::Output { command_id, host, offset, text });
        }
        None
    }

    /// Whether everything has ended, and everything of it is here or given up.
    fn has_all(&self) -> bool {
        let Some(last_by) = self.last_by else { return false };
        let is_whole = |watched: &Watched| {
            let taken = lock(&watched.feed.buffer).taken();
            watched.total.is_none_or(|total| taken >= total)
        };
        self.watched.iter().all(is_whole) || Instant::now() >= last_by
    }

    async fn last_word(&mut self) -> Option<Shown> {
        let store = &*self.shared.store;
        let operation = view::operation_read(store, self.operation).await;
        match operation {
            Ok(operation) => Some(Shown::Operation { operation }),
            Err(error) => {
                tracing::warn!(%error, "a stream ends without its last word because the store did not answer");
                None
            }
        }
    }

    /// Waits for text or for a reason to look up; false when the stream is to end without a last word.
    async fn wait(&mut self) -> bool {
        let last_by = self.last_by.unwrap_or(self.end_by);
        let announced = tokio::select! {
            () = self.arrived.notified() => return true,
            () = asked_to_end(&mut self.closing) => return false,
            () = sleep_until(self.end_by) => return false,
            () = sleep_until(last_by) => return true,
            () = sleep_until(self.renew_at) => {
                self.renew();
                return true;
            }
            () = sleep_until(self.reread_at) => None,
            announced = self.announcements.recv() => Some(announced),
        };
        match announced {
            None => {
                self.reread_at = Instant::now() + limits::EVENT_REREAD;
                self.still_signed_in().await && self.reread().await
            }
            Some(Ok(Event::Command { operation, status, .. })) if operation == self.operation => {
                if status.is_end() {
                    return self.reread().await;
                }
                // It may have started just now: its host hears at once that somebody watches.
                self.renew();
                true
            }
            Some(Ok(Event::Account { user })) if user == self.place.user => self.still_signed_in().await,
            Some(Ok(_)) => true,
            Some(Err(broadcast::error::RecvError::Lagged(_))) => self.still_signed_in().await && self.reread().await,
            Some(Err(broadcast::error::RecvError::Closed)) => false,
        }
    }

    fn renew(&mut self) {
        self.renew_at = Instant::now() + limits::STREAM_RENEW;
        for watched in self.watched.iter_mut().filter(|watched| !watched.has_ended) {
            watched.renew(&self.shared);
        }
    }

    async fn still_signed_in(&self) -> bool {
        access::is_still_good(&self.shared, self.credential).await
    }

    async fn reread(&mut self) -> bool {
        match self.read().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a stream ends because the store did not answer");
                false
            }
        }
    }

    async fn read(&mut self) -> Result<(), StoreError> {
        let commands = view::operation_commands(&*self.shared.store, self.operation).await?;
        let hosts = view::reporters_of(&*self.shared.store, &commands).await?;
        let shown = view::operation(self.operation, None, &commands, &hosts);
        for (watched, command) in self.watched.iter_mut().filter_map(|watched| {
            let command = shown.commands.iter().find(|command| command.command_id == watched.command);
            command.map(|command| (watched, command))
        }) {
            let result = command.result.as_ref();
            watched.total = result.and_then(|result| result["output_bytes"].as_u64());
        }
        self.look(&commands);
        Ok(())
    }

    fn look(&mut self, commands: &[Command]) {
        for watched in &mut self.watched {
            let command = commands.iter().find(|command| command.order.command == watched.command);
            watched.has_ended |= command.is_some_and(|command| command.status.is_end());
        }
        if self.watched.iter().all(|watched| watched.has_ended) && self.last_by.is_none() {
            self.last_by = Some(Instant::now() + limits::STREAM_LAST_WAIT);
        }
    }
}

impl Watched {
    /// Says to the host that somebody watches, and how far it may send.
    fn renew(&mut self, shared: &Shared) {
        self.allowed = lock(&self.feed.buffer).taken() + limits::STREAM_WINDOW_BYTES as u64;
        let lease = StreamLease { command: self.command, until: self.allowed, over: false };
        shared.notifier.stream_lease(self.feed.host, lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_in_order_and_what_was_lost_shows_in_the_offset() {
        let mut buffer = Buffer::default();
        buffer.put(0, "one\n");
        buffer.put(4, "two\n");
        buffer.put(0, "one\n");
        assert_eq!(buffer.take(), Some((0, "one\ntwo\n".to_owned())));
        assert_eq!(buffer.take(), None);
        buffer.put(8, "");
        assert_eq!((buffer.take(), buffer.taken()), (None, 8));
        buffer.put(20, "six\n");
        assert_eq!(buffer.take(), Some((20, "six\n".to_owned())));
        buffer.put(30, "");
        assert_eq!(buffer.taken(), 30, "an empty piece says that something was lost");
    }

    #[test]
    fn more_than_was_allowed_is_not_kept() {
        let mut buffer = Buffer::default();
        let text = "x".repeat(limits::STREAM_WINDOW_BYTES);
        for n in 0..10 {
            buffer.put(n * text.len() as u64, &text);
            assert!(buffer.text.len() <= 2 * limits::STREAM_WINDOW_BYTES, "{n}");
        }
        assert!(buffer.text.len() <= 2 * limits::STREAM_WINDOW_BYTES, "{}", buffer.text.len());
    }

    #[test]
    fn a_stream_has_one_reader_and_takes_nothing_from_another_host() {
        let streams = Streams::default();
        let (command, host) = (CommandId::from_bytes([1; 16]), HostId::from_bytes([2; 16]));
        let feed = Arc::new(Feed { host, buffer: Mutex::default(), arrived: Arc::default() });
        assert!(streams.open(command, feed.clone()));
        assert!(!streams.open(command, feed.clone()));
        let piece = |host: HostId| StreamPiece { host, command, offset: 0, text: "a".to_owned() };
        streams.put(piece(HostId::from_bytes([3; 16])));
        assert_eq!(lock(&feed.buffer).take(), None);
        streams.put(piece(host));
        assert_eq!(lock(&feed.buffer).take(), Some((0, "a".to_owned())));
        streams.close(command);
        streams.put(piece(host));
        assert!(streams.open(command, feed));
    }
}
