//! What the signer refuses: everything an honest control plane would never ask for.

use std::collections::HashMap;

use envelope::{
    Payload as _, guard,
    limits::SEQUENCE_JUMP_MAX,
    messages::{Command, SessionOpen},
    signer_port::SignError,
};
use ids::{FleetId, HostId, Sequence, UnixMs};

use crate::{
    limits,
    rate::{Rate, Rates},
};

/// The signer's judgement, with what it remembers between requests.
#[derive(Debug)]
pub(crate) struct Judge {
    fleet: FleetId,
    commands: Rates,
    opens: Rates,
}

fn refused<T>(why: String) -> Result<T, SignError> {
    Err(SignError::Refused(why))
}

impl Judge {
    pub(crate) fn new(fleet: FleetId) -> Self {
        let commands =
            Rate { burst: limits::COMMANDS_PER_HOST_BURST, per_second: limits::COMMANDS_PER_HOST_PER_SECOND };
        let opens = Rate { burst: limits::OPENS_PER_HOST_BURST, per_second: limits::OPENS_PER_HOST_PER_SECOND };
        Self { fleet, commands: Rates::new(commands), opens: Rates::new(opens) }
    }

    /// `high` is the highest sequence given to this host so far, this batch included.
    pub(crate) fn command(&mut self, command: &Command, high: Sequence, now: UnixMs) -> Result<(), SignError> {
        let (id, host) = (command.order.command, command.order.host);
        self.check_fleet(command.order.fleet)?;
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
        take(&mut self.commands, host, now, "commands")
    }

    pub(crate) fn open(&mut self, open: &SessionOpen, now: UnixMs) -> Result<(), SignError> {
        self.check_fleet(open.fleet)?;
        if let Err(error) = open.check() {
            return refused(format!("the session-open for host {} is not well-formed: {error}", open.host));
        }
        take(&mut self.opens, open.host, now, "sessions")
    }

    fn check_fleet(&self, fleet: FleetId) -> Result<(), SignError> {
        if fleet == self.fleet {
            Ok(())
        } else {
            refused(format!("fleet {fleet} is not this signer's, {}", self.fleet))
        }
    }
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
