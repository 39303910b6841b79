//! What the signer refuses: everything an honest control plane would never ask for.

use std::collections::HashMap;

use envelope::{
    Payload as _, approval, guard,
    limits::{REVISION_JUMP_MAX, SEQUENCE_JUMP_MAX},
    messages::{Command, GuardReset, Order, SessionOpen, StandingOrder},
    root::TrustedRoot,
    signer_port::SignError,
};
use ids::{Class, Epoch, FleetId, HostId, Sequence, UnixMs};

use crate::{
    limits,
    rate::{Rate, Rates},
};

/// The class of what is ordered. A command does not say it itself: it names an action and the hash of its schema, and agents
/// look the class up in what they were built with. So does whoever starts a signer. An action that is not known counts as
/// destructive.
pub type ClassOf = fn(&Order) -> Option<Class>;

/// The signer's judgement, with what it remembers between requests.
#[derive(Debug)]
pub(crate) struct Judge {
    class_of: ClassOf,
    commands: Rates,
    opens: Rates,
}

fn refused<T>(why: String) -> Result<T, SignError> {
    Err(SignError::Refused(why))
}

impl Judge {
    pub(crate) fn new(class_of: ClassOf) -> Self {
        let commands =
            Rate { burst: limits::COMMANDS_PER_HOST_BURST, per_second: limits::COMMANDS_PER_HOST_PER_SECOND };
        let opens = Rate { burst: limits::OPENS_PER_HOST_BURST, per_second: limits::OPENS_PER_HOST_PER_SECOND };
        Self { class_of, commands: Rates::new(commands), opens: Rates::new(opens) }
    }

    /// `high` is the highest sequence given to this host so far, this batch included.
    pub(crate) fn command(
        &mut self,
        command: &Command,
        approvals: &[Vec<u8>],
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
        self.check_approvals(command, approvals, now, root)?;
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

    /// It orders nothing by itself: the command that brings it is judged as any other, approvals among it. Whether it is
    /// the renewal of one that stands, hosts judge.
    pub(crate) fn standing(
        &mut self,
        order: &StandingOrder,
        highest: Sequence,
        now: UnixMs,
        root: &TrustedRoot,
    ) -> Result<(), SignError> {
        let (host, revision) = (order.standing.host, order.revision.0);
        check_fleet(order.standing.fleet, root)?;
        if let Err(error) = order.check() {
            return refused(format!("the standing order for host {host} is not well-formed: {error}"));
        }
        if revision <= highest.0 {
            return Err(SignError::SequenceTaken { high: highest });
        }
        if revision - highest.0 > REVISION_JUMP_MAX {
            return refused(format!("revision {revision} of host {host} is too far above {highest}"));
        }
        check_epoch(order.epoch, root)?;
        if root.is_expired(now.max(root.issued_floor())) {
            let root = root.version();
            return refused(format!(
                "root metadata version {root} has expired; issue newer root metadata, and standing orders are signed again"
            ));
        }
        take(&mut self.commands, host, now, "commands")
    }

    fn check_expiry(&self, command: &Command, now: UnixMs, root: &TrustedRoot) -> Result<(), SignError> {
        let action = &command.order.action;
        if !root.is_expired(now.max(root.issued_floor())) || self.class(command) == Class::Read {
            return Ok(());
        }
        let root = root.version();
        refused(format!(
            "root metadata version {root} has expired, and {action} does more than read; issue newer root metadata and order it again"
        ))
    }

    fn class(&self, command: &Command) -> Class {
        (self.class_of)(&command.order).unwrap_or(Class::Destructive)
    }

    /// As hosts judge it, from root metadata alone: a host's owner may ask for more. Nothing of it can be mended by
    /// waiting, so it is a refusal.
    fn check_approvals(
        &self,
        command: &Command,
        approvals: &[Vec<u8>],
        now: UnixMs,
        root: &TrustedRoot,
    ) -> Result<(), SignError> {
        let thresholds = root.current().approvals;
        let needed = match self.class(command) {
            Class::Read => 0,
            Class::Change => thresholds.change,
            Class::Destructive => thresholds.destructive,
        };
        if needed == 0 || command.order.dry_run {
            return Ok(());
        }
        let now = now.max(root.issued_floor());
        let terms = approval::Terms { keys: root.approver_keys(), host_epoch: command.host_epoch, now: Some(now) };
        match approval::judge(approvals, needed, &command.order, terms) {
            Ok(_) => Ok(()),
            Err(error) => refused(format!("command {}: approvals: {error}", command.order.command)),
        }
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
