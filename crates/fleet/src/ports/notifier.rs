//! The door to whoever watches, in this process.

use ids::{CommandId, HostId, OperationId, UnixMs, UserId};

use crate::model::CommandStatus;

/// Tells whoever watches, in this process, that something changed. Lossy; state is in the store.
pub trait Notifier: Send + Sync {
    /// A host has something new in its queue (or was revoked): its session, if any, should look.
    fn host_changed(&self, host: HostId, change: HostChange);
    /// Something to show to people who watch.
    fn publish(&self, event: Event);

    /// Whoever watches a stream of that host says so. Lost when the host is away.
    fn stream_lease(&self, host: HostId, lease: StreamLease);
    /// Whether a session of this host is open now, and since when.
    fn connected(&self, host: HostId) -> Option<UnixMs>;
}

/// Why a session should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// New or cancelled commands.
    Queue,
    /// Close now.
    Revoked,
    /// Another name: begin anew, so that what is recorded from now on has it.
    Renamed,
}

/// A piece of a command's stream, as its host sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPiece {
    pub host: HostId,
    pub command: CommandId,
    /// Bytes of the stream before it.
    pub offset: u64,
    pub text: String,
}

/// Somebody watches a command's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLease {
    pub command: CommandId,
    /// The stream may be sent up to this offset.
    pub until: u64,
    /// Nobody watches any more.
    pub over: bool,
}

/// Something that happened, for server-sent events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Command {
        command: CommandId,
        operation: OperationId,
        host: HostId,
        status: CommandStatus,
        message: String,
    },
    Progress {
        command: CommandId,
        operation: OperationId,
        host: HostId,
        text: String,
    },
    Host {
        host: HostId,
    },
    /// Credentials of an account ended, or its rights changed: whoever is let in by them is asked again.
    Account {
        user: UserId,
    },
}
