//! What an action sees of the world while it runs. The agent gives it a real one; tests and the
//! simulation give it a seeded one, and kill it between any two calls.

use std::collections::BTreeMap;

use ids::{BootMs, CommandId, DurationMs, FleetId, HostId, OperationId, UnixMs};
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

    /// Replaces the durable record under `key` (`None` removes it); returns after fsync. Fails only
    /// with [`crate::effect::EffectErrorKind::Journal`].
    fn record_write(
        &mut self,
        key: &str,
        record: Option<Vec<u8>>,
    ) -> impl Future<Output = Result<(), EffectError>> + Send;

    /// Reads the durable record under `key`.
    fn record_read(&mut self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, EffectError>> + Send;

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
