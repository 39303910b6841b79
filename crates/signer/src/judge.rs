//! What the signer refuses: everything an honest control plane would never ask for.

use std::collections::HashMap;

use envelope::{
    Payload as _, guard,
    limits::SEQUENCE_JUMP_MAX,
    messages::{Command, GuardReset, SessionOpen},
    root::TrustedRoot,
    signer_port::SignError,
};
use ids::{ActionName, Epoch, FleetId, HostId, Sequence, UnixMs};

use crate::{
    limits,
    rate::{Rate, Rates},
};

/// Whether an action, in that version, does no more than read. A command does not say so itself: it names an action and
/// the hash of its schema, and agents look the class up in what they were built with. So does whoever starts a signer.
pub type IsRead = fn(&ActionName, u32) -> bool;

/// The signer's judgement, with what it remembers between requests.
#[derive(Debug)]
pub(crate) struct Judge {
    is_read: IsRead,
    commands: Rates,
    opens: Rates,
}

fn refused<T>(why: String) -> Result<T, SignError> {
    Err(SignError::Refused(why))
}

impl Judge {
    pub(crate) fn new(is_read: IsRead) -> Self {
        let commands =
            Rate { burst: limits::COMMANDS_PER_HOST_BURST, per_second: limits::COMMANDS_PER_HOST_PER_SECOND };
        let opens = Rate { burst: limits::OPENS_PER_HOST_BURST, per_second: limits::OPENS_PER_HOST_PER_SECOND };
        Self { is_read, commands: Rates::new(commands), opens: Rates::new(opens) }
    }

    /// `high` is the highest sequence given to this host so far, this batch included.
    pub(crate) fn command(
        &mut self,
        command: &Command,
        high: Sequence,
        now: UnixMs,
        root: &TrustedRoot,
    ) -> Result<(), SignError> {
        let (id, host) = (command.order.command, command.order.host);
        check_fleet(command.order.fleet, root)?;
        if let Err(error) = command.check() {
            return refused(format!("command {id} is not well-formed: {error}"));
        }
        let skew = command.issued.distance(now);
        if skew > limits::ISSUED_SKEW_MAX {
            return Err(SignError::Unavailable(format!(
                "command {id} says that it was issued at {}, which is {skew} from the signer's clock; at most {} are allowed. Set the clocks right",
                command.issued.0,
                limits::ISSUED_SKEW_MAX
            )));
        }
        // Both times are the asker's, new with every request: waiting helps.
        if let Err(error) = guard::check_time(command, now) {
            return Err(SignError::Unavailable(format!("command {id}: {error}")));
        }
        if command.sequence <= high {
            return Err(SignError::SequenceTaken { high });
        }
        if command.sequence.0 - high.0 > SEQUENCE_JUMP_MAX {
            return refused(format!("sequence {} of host {host} is too far above {high}", command.sequence));
        }
        check_epoch(command.epoch, root)?;
        self.check_expiry(command, now, root)?;
        take(&mut self.commands, host, now, "commands")
    }

    /// Sessions go on under expired root metadata: only so can a host take newer.
    pub(crate) fn open(&mut self, open: &SessionOpen, now: UnixMs, root: &TrustedRoot) -> Result<(), SignError> {
        check_fleet(open.fleet, root)?;
        if let Err(error) = open.check() {
            return refused(format!("the session-open for host {} is not well-formed: {error}", open.host));
        }
        check_epoch(open.epoch, root)?;
        take(&mut self.opens, open.host, now, "sessions")
    }

    /// It uses up sequences as a command does, and does more than read.
    pub(crate) fn reset(
        &mut self,
        reset: &GuardReset,
        high: Sequence,
        now: UnixMs,
        root: &TrustedRoot,
    ) -> Result<(), SignError> {
        let host = reset.host;
        check_fleet(reset.fleet, root)?;
        if let Err(error) = reset.check() {
            return refused(format!("the guard reset for host {host} is not well-formed: {error}"));
        }
        if reset.high < high {
            return Err(SignError::SequenceTaken { high });
        }
        if reset.high.0 - high.0 > SEQUENCE_JUMP_MAX {
            return refused(format!("sequence {} of host {host} is too far above {high}", reset.high));
        }
        check_epoch(reset.epoch, root)?;
        if root.is_expired(now.max(root.issued_floor())) {
            let root = root.version();
            return refused(format!(
                "root metadata version {root} has expired; issue newer root metadata and release the host again"
            ));
        }
        take(&mut self.commands, host, now, "commands")
    }

    fn check_expiry(&self, command: &Command, now: UnixMs, root: &TrustedRoot) -> Result<(), SignError> {
        let (action, version) = (&command.order.action, command.order.action_version);
        if !root.is_expired(now.max(root.issued_floor())) || (self.is_read)(action, version) {
            return Ok(());
        }
        let root = root.version();
        refused(format!(
            "root metadata version {root} has expired, and {action} does more than read; issue newer root metadata and order it again"
        ))
    }
}

fn check_fleet(fleet: FleetId, root: &TrustedRoot) -> Result<(), SignError> {
    let own = root.current().fleet;
    if fleet == own { Ok(()) } else { refused(format!("fleet {fleet} is not this signer's, {own}")) }
}

/// Whoever asks may be about to take newer root metadata, or to hand it over: waiting helps.
fn check_epoch(epoch: Epoch, root: &TrustedRoot) -> Result<(), SignError> {
    let own = root.current().epoch;
    if epoch == own {
        return Ok(());
    }
    let version = root.version();
    Err(SignError::Unavailable(format!("epoch {epoch} was asked for, and root metadata version {version} has {own}")))
}

/// Waiting helps here, so it is not a refusal for good.
fn take(rates: &mut Rates, host: HostId, now: UnixMs, what: &str) -> Result<(), SignError> {
    if rates.take(host, now) {
        return Ok(());
    }
    Err(SignError::Unavailable(format!("host {host} got too many {what} at once; wait a few seconds")))
}

/// New highest sequences of one batch.
pub(crate) type Raised = HashMap<HostId, Sequence>;
