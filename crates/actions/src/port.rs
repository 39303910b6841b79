//! What an action sees of the world while it runs. The agent gives it a real one; tests and the
//! simulation give it a seeded one, and kill it between any two calls.

use std::collections::BTreeMap;

use ids::{AppName, BootMs, CommandId, DurationMs, FleetId, HostId, OperationId, UnixMs};
use zeroize::Zeroizing;

use crate::{
    effect::{Effect, EffectError, Observation},
    policy::Policy,
    spec::SecretName,
};

/// The doors of a running action. One call at a time, in the order the action makes them.
pub trait ActionPort: Send {
    /// Performs one effect. Awaiting its result is the only proof that it happened; after a crash
    /// it may or may not have.
    fn perform(&mut self, effect: Effect) -> impl Future<Output = Result<Observation, EffectError>> + Send;

    /// Opens the log of one of the app's containers, to be read by [`ActionPort::logs_next`] until the
    /// container ends. What it gives is what [`Effect::ContainerLogs`] gives, while it is written.
    fn logs_open(
        &mut self,
        name: &str,
        id: &str,
        start: LogStart,
    ) -> impl Future<Output = Result<(), EffectError>> + Send;

    /// What the opened logs have brought: some pieces, or none after `span`. Ends early when the
    /// action is cancelled.
    fn logs_next(&mut self, span: DurationMs) -> impl Future<Output = Vec<LogPiece>> + Send;

    /// Puts a record on the stream to whoever watches this command. Masked before it leaves. Answers
    /// whether records had to be left out since the last call, because they are taken too slowly.
    fn stream(&mut self, record: StreamRecord) -> bool;

    /// Until when somebody watches, by the boot-time clock; in the past when nobody does.
    fn watched_until(&self) -> BootMs;

    /// Replaces the durable record under `key` (`None` removes it); returns after fsync. Fails only
    /// with [`crate::effect::EffectErrorKind::Journal`].
    fn record_write(
        &mut self,
        key: &str,
        record: Option<Vec<u8>>,
    ) -> impl Future<Output = Result<(), EffectError>> + Send;

    /// Reads the durable record under `key`.
    fn record_read(&mut self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, EffectError>> + Send;

    /// Seals a stored value to the host's newest sealing key, bound to the same app, name and operation; `None` when it
    /// is sealed to that one already. Nothing is stored by this.
    ///
    /// # Errors
    /// When no key of this host opens it.
    fn reseal(
        &mut self,
        app: &AppName,
        version: OperationId,
        name: &SecretName,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, EffectError>;

    /// Tells whoever watches. Masked before it leaves; may be lost; never waited for.
    fn progress(&mut self, text: String);

    /// Waits. Ends early at the moment the action is cancelled; a wait begun after that moment lasts
    /// its whole span, because putting things back needs to wait too.
    fn wait(&mut self, span: DurationMs) -> impl Future<Output = ()> + Send;

    /// Boot-time clock, for deadlines.
    fn boot_now(&self) -> BootMs;

    /// Calendar time, for records.
    fn now(&self) -> UnixMs;

    /// Whether someone asked to stop. An action looks at safe points and puts things back.
    fn is_cancelled(&self) -> bool;
}

/// Where reading a log begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// So many lines from its end; absent means all.
    pub tail: Option<u32>,
    /// Nothing from before, to the second.
    pub since: Option<UnixMs>,
    /// Only lines later than this one's time, as the engine printed it.
    pub after: Option<String>,
}

/// What an opened log has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPiece {
    /// A line, lossily decoded, not yet masked.
    Line {
        /// Id of the container.
        container: String,
        /// When it was written, as the engine prints it.
        time: String,
        /// Its text, without the end of the line.
        text: String,
        /// Whether the rest of it was left out, because it is too long.
        cut: bool,
    },
    /// There is nothing more: the container has ended, or the engine has.
    Ended {
        /// Id of the container.
        container: String,
        /// Why its log cannot be read at all, if that is so.
        error: Option<String>,
    },
}

/// One record of a command's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamRecord {
    /// A line of a container's log.
    Line {
        /// Its service.
        service: String,
        /// Its name.
        container: String,
        /// When it was written, as the engine prints it.
        time: String,
        /// Its text.
        text: String,
        /// Whether the rest of it was left out.
        cut: bool,
    },
    /// Something else that a reader should know.
    Note(String),
}

/// What an action knows besides its parameters.
pub struct ActionContext {
    /// The fleet, for labels.
    pub fleet: FleetId,
    /// This host, for labels.
    pub host: HostId,
    /// The order being carried out.
    pub command: CommandId,
    /// What it is part of; also the id of the release a deploy makes.
    pub operation: OperationId,
    /// The opened values the parameters refer to.
    pub secrets: BTreeMap<SecretName, Zeroizing<String>>,
    /// Values of the app's present releases, which its containers may write: they are masked in
    /// whatever is recorded.
    pub remembered: Vec<Zeroizing<String>>,
    /// The sealed form of the same values, for the release record.
    pub sealed: BTreeMap<SecretName, Vec<u8>>,
    /// Key of the HMAC by which values are compared; never leaves the host.
    pub fingerprint_key: Zeroizing<[u8; 32]>,
    /// True when an earlier run of the same order may have done part of it.
    pub resumed: bool,
    /// True when the order's key or epoch has become void since: only put back, never go on.
    pub backwards_only: bool,
    /// True when only the plan is asked for: no effect that changes anything, no record.
    pub dry_run: bool,
    /// What this host's owner allows, for what is known only once images are resolved.
    pub policy: Policy,
}
