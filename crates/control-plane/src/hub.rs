//! Who is connected, and who wants to know. Everything here is memory and may be lost: state is in
//! the store, and a session that opens reads it there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fleet::{
    dispatch::SignedHead,
    ports::{Event, HostChange, Notifier, StreamLease},
};
use ids::{CommandId, HostId, RootVersion, UnixMs};
use tokio::sync::{Notify, broadcast, watch};
use web::Streams;

use crate::limits;

/// The registry of open sessions and the stream of events.
pub(crate) struct Hub {
    sessions: Mutex<Sessions>,
    streams: Arc<Streams>,
    events: broadcast::Sender<Event>,
    /// The latest signed audit head. Sessions look here when they have something to do; to wake all of them for
    /// each head would cost more than the orders do.
    audit_head: watch::Sender<Option<SignedHead>>,
}

#[derive(Default)]
struct Sessions {
    open: HashMap<HostId, Open>,
    /// Numbers registrations, so that an old one never removes a newer.
    last: u64,
    shutting_down: bool,
    /// Version of the root metadata that came into force last, while this process runs.
    root: Option<RootVersion>,
}

struct Open {
    number: u64,
    since: UnixMs,
    mailbox: Arc<Mailbox>,
}

/// What a session is told. Flags, not a queue: nothing is lost, nothing piles up.
#[derive(Default)]
pub(crate) struct Mailbox {
    news: Mutex<News>,
    arrived: Notify,
}

/// What has come since the session last looked.
#[derive(Default)]
pub(crate) struct News {
    pub(crate) queue_changed: bool,
    pub(crate) revoked: bool,
    pub(crate) superseded: bool,
    pub(crate) root_changed: bool,
    pub(crate) shutting_down: bool,
    /// The latest for each stream: older ones say nothing that it does not.
    pub(crate) leases: BTreeMap<CommandId, StreamLease>,
}

impl Mailbox {
    /// Waits for news. Cancel-safe: what is not taken stays.
    pub(crate) async fn take(&self) -> News {
        loop {
            let arrived = self.arrived.notified();
            let news = std::mem::take(&mut *lock(&self.news));
            if news.any() {
                return news;
            }
            arrived.await;
        }
    }

    fn put(&self, change: impl FnOnce(&mut News)) {
        change(&mut lock(&self.news));
        self.arrived.notify_one();
    }
}

impl News {
    fn any(&self) -> bool {
        self.queue_changed
            || self.revoked
            || self.superseded
            || self.root_changed
            || self.shutting_down
            || !self.leases.is_empty()
    }
}

/// A panic elsewhere leaves these maps whole: each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open session's entry; dropping it takes the entry away.
pub(crate) struct Registration {
    hub: Arc<Hub>,
    host: HostId,
    number: u64,
    pub(crate) mailbox: Arc<Mailbox>,
    audit_head: watch::Receiver<Option<SignedHead>>,
}

impl Registration {
    /// The audit log's latest head, when it is newer than what this answered before; at first, whatever it is.
    pub(crate) fn newer_audit_head(&mut self) -> Option<SignedHead> {
        let is_newer = self.audit_head.has_changed().unwrap_or(false);
        if is_newer { self.audit_head.borrow_and_update().clone() } else { None }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sessions = lock(&self.hub.sessions);
        if sessions.open.get(&self.host).is_some_and(|open| open.number == self.number) {
            sessions.open.remove(&self.host);
            drop(sessions);
            self.hub.publish(Event::Host { host: self.host });
        }
    }
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::default(),
            streams: Arc::default(),
            events: broadcast::channel(limits::EVENTS_MAX).0,
            audit_head: watch::Sender::new(None),
        })
    }

    /// A host has proved who it is, by that root metadata: its session takes over from an older one.
    pub(crate) fn register(self: &Arc<Self>, host: HostId, root: RootVersion, now: UnixMs) -> Registration {
        let mailbox = Arc::new(Mailbox::default());
        let mut sessions = lock(&self.sessions);
        sessions.last += 1;
        let number = sessions.last;
        if sessions.shutting_down {
            mailbox.put(|news| news.shutting_down = true);
        }
        if sessions.root.is_some_and(|newest| newest > root) {
            // It came into force during the handshake, when this session was not there to be told.
            mailbox.put(|news| news.root_changed = true);
        }
        let open = Open { number, since: now, mailbox: mailbox.clone() };
        if let Some(older) = sessions.open.insert(host, open) {
            older.mailbox.put(|news| news.superseded = true);
        }
        drop(sessions);
        self.publish(Event::Host { host });
        let mut audit_head = self.audit_head.subscribe();
        // The host is shown one before its first order, new or not.
        audit_head.mark_changed();
        Registration { hub: self.clone(), host, number, mailbox, audit_head }
    }

    /// A newer audit head is signed and stored.
    pub(crate) fn audit_head(&self, head: SignedHead) {
        self.audit_head.send_replace(Some(head));
    }

    /// Newer root metadata is in force.
    pub(crate) fn root_changed(&self, version: RootVersion) {
        lock(&self.sessions).root = Some(version);
        self.tell_all(|news| news.root_changed = true);
    }

    /// Every session should end and be dialled anew: something that all of them rest on has changed.
    pub(crate) fn begin_anew(&self) {
        self.tell_all(|news| news.root_changed = true);
    }

    /// Every session, and every one that still comes, should end.
    pub(crate) fn shut_down(&self) {
        lock(&self.sessions).shutting_down = true;
        self.tell_all(|news| news.shutting_down = true);
    }

    /// Sessions open now.
    pub(crate) fn open_count(&self) -> usize {
        lock(&self.sessions).open.len()
    }

    /// Streams of commands, for the people's side.
    pub(crate) fn streams(&self) -> Arc<Streams> {
        self.streams.clone()
    }

    /// The stream of events, for the people's side.
    pub(crate) fn events(&self) -> broadcast::Sender<Event> {
        self.events.clone()
    }

    fn tell_all(&self, change: impl Fn(&mut News)) {
        for open in lock(&self.sessions).open.values() {
            open.mailbox.put(&change);
        }
    }
}

impl Notifier for Hub {
    fn host_changed(&self, host: HostId, change: HostChange) {
        if let Some(open) = lock(&self.sessions).open.get(&host) {
            open.mailbox.put(|news| match change {
                HostChange::Queue => news.queue_changed = true,
                HostChange::Revoked => news.revoked = true,
                // A session that begins anew reads its host again, which is all that both need.
                HostChange::Renamed => news.root_changed = true,
            });
        }
    }

    fn publish(&self, event: Event) {
        // Nobody watching is fine.
        let _ = self.events.send(event);
    }

    fn stream_lease(&self, host: HostId, lease: StreamLease) {
        if let Some(open) = lock(&self.sessions).open.get(&host) {
            open.mailbox.put(|news| {
                news.leases.insert(lease.command, lease);
            });
        }
    }

    fn connected(&self, host: HostId) -> Option<UnixMs> {
        lock(&self.sessions).open.get(&host).map(|open| open.since)
    }
}

#[cfg(test)]
mod tests {
    use envelope::messages::LogPosition;
    use ids::{AuditLogId, Sha256};

    use super::*;

    fn host() -> HostId {
        HostId::from_bytes([1; 16])
    }

    #[tokio::test]
    async fn a_newer_session_supersedes_and_an_older_one_takes_nothing_away() {
        let hub = Hub::new();
        let first = hub.register(host(), RootVersion(1), UnixMs(1));
        let second = hub.register(host(), RootVersion(1), UnixMs(2));
        assert!(first.mailbox.take().await.superseded);
        drop(first);
        assert_eq!(hub.connected(host()), Some(UnixMs(2)));
        drop(second);
        assert_eq!(hub.connected(host()), None);
    }

    #[tokio::test]
    async fn a_session_finds_the_latest_head_once_and_the_one_from_before_it() {
        let head = |size: u64| {
            let position = LogPosition { log: AuditLogId::from_bytes([1; 16]), size, root: Sha256([1; 32]) };
            SignedHead { position, envelope: [1].into() }
        };
        let hub = Hub::new();
        assert_eq!(hub.register(host(), RootVersion(1), UnixMs(1)).newer_audit_head(), None);
        hub.audit_head(head(1));
        let mut session = hub.register(host(), RootVersion(1), UnixMs(1));
        assert_eq!(session.newer_audit_head(), Some(head(1)));
        assert_eq!(session.newer_audit_head(), None);
        hub.audit_head(head(2));
        hub.audit_head(head(3));
        assert_eq!(session.newer_audit_head(), Some(head(3)));
        assert_eq!(session.newer_audit_head(), None);
    }

    #[tokio::test]
    async fn news_is_kept_until_taken() {
        let hub = Hub::new();
        let session = hub.register(host(), RootVersion(1), UnixMs(1));
        hub.host_changed(host(), HostChange::Queue);
        hub.host_changed(host(), HostChange::Revoked);
        let news = session.mailbox.take().await;
        assert!(news.queue_changed && news.revoked && !news.superseded);
        hub.shut_down();
        assert!(session.mailbox.take().await.shutting_down);
        let late = hub.register(HostId::from_bytes([2; 16]), RootVersion(1), UnixMs(2));
        assert!(late.mailbox.take().await.shutting_down);
    }

    #[tokio::test]
    async fn root_metadata_that_comes_during_a_handshake_is_news() {
        let hub = Hub::new();
        hub.root_changed(RootVersion(2));
        let before = hub.register(HostId::from_bytes([1; 16]), RootVersion(1), UnixMs(1));
        assert!(before.mailbox.take().await.root_changed, "its handshake went by the one before");
        let after = hub.register(HostId::from_bytes([2; 16]), RootVersion(2), UnixMs(1));
        hub.host_changed(HostId::from_bytes([2; 16]), HostChange::Queue);
        assert!(!after.mailbox.take().await.root_changed);
    }
}
