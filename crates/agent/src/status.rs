//! What the agent says of itself while it runs: a small file, replaced whole on each change, so that
//! `status` and `doctor` work whether or not the agent answers anything.

use std::{fs, path::PathBuf};

use ids::{
    ActionName, BootId, BootMs, CommandId, FleetId, HostId, HostName, QuarantineId, Revision, RootVersion, Sha256,
    StandingOrderId, UnixMs,
};
use serde::{Deserialize, Serialize};
use session::agent::StandingShown;

use crate::state_dir::{self, Durability, StateDir, StateError};

/// The status file. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) agent_version: String,
    pub(crate) fleet: FleetId,
    pub(crate) host: HostId,
    pub(crate) name: HostName,
    /// The process, and when it began by its system's count: a pid alone may be someone else's by now.
    pub(crate) pid: u32,
    pub(crate) process_start: Option<u64>,
    pub(crate) started_at: UnixMs,
    pub(crate) updated_at: UnixMs,
    pub(crate) connection: ConnectionStatus,
    /// The control plane's time, as of a boot-time clock reading.
    pub(crate) clock: Option<ClockStatus>,
    pub(crate) quarantine: Option<QuarantineId>,
    /// What this host has seen of the fleet's audit log.
    #[serde(default)]
    pub(crate) audit: AuditStatus,
    pub(crate) commands: CommandsStatus,
    /// Signed reports that the control plane has not acknowledged.
    pub(crate) reports_waiting: usize,
    pub(crate) root: Option<RootStatus>,
    /// Where it dials and which keys it accepts there, by the root metadata in force.
    pub(crate) directions: Option<DirectionsStatus>,
    pub(crate) policy: PolicyStatus,
    /// What this host is to run by itself.
    #[serde(default)]
    pub(crate) standing: Vec<StandingStatus>,
}

/// A standing order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StandingStatus {
    pub(crate) standing_order: StandingOrderId,
    pub(crate) action: ActionName,
    pub(crate) action_version: u32,
    pub(crate) revision: Revision,
    pub(crate) schedule: String,
    pub(crate) zone: String,
    pub(crate) valid_until: UnixMs,
    /// Why it does not run now, if it does not.
    pub(crate) hindrance: Option<String>,
}

impl From<StandingShown> for StandingStatus {
    fn from(shown: StandingShown) -> Self {
        let StandingShown { order, action, action_version, revision, schedule, zone, valid_until, hindrance } = shown;
        Self { standing_order: order, action, action_version, revision, schedule, zone, valid_until, hindrance }
    }
}

/// Where the connection stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum ConnectionStatus {
    /// Dialling for the first time.
    Connecting,
    /// TLS is up, both sides prove who they are.
    Authenticating { address: String },
    /// Orders may come.
    Connected { address: String, since: UnixMs },
    /// The last connection ended, or none came about.
    Disconnected {
        since: UnixMs,
        error: String,
        next_attempt_at: Option<UnixMs>,
        /// The control plane said that this host is unknown there or was revoked.
        #[serde(default)]
        is_refused: bool,
    },
    /// The agent ended in order.
    Stopped { since: UnixMs },
    /// This host has left its fleet, and its agent is at its end.
    Retired { since: UnixMs },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockStatus {
    pub(crate) boot: BootId,
    pub(crate) time: UnixMs,
    pub(crate) at: BootMs,
}

/// How the control plane's audit log stands to what this host has seen of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditStatus {
    /// Entries of the log that this host has seen the head of.
    pub(crate) seen: Option<u64>,
    /// The log shown last does not continue them: since when, and how that was found.
    pub(crate) refused: Option<AuditRefusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditRefusal {
    pub(crate) since: UnixMs,
    pub(crate) why: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandsStatus {
    /// Accepted and without an end, running ones among them.
    pub(crate) open: usize,
    pub(crate) running: Vec<CommandId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootStatus {
    pub(crate) version: RootVersion,
    pub(crate) expires: UnixMs,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectionsStatus {
    pub(crate) addresses: Vec<String>,
    pub(crate) tls_pins: Vec<Sha256>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyStatus {
    pub(crate) path: PathBuf,
    /// Why it refuses everything, if it does.
    pub(crate) error: Option<String>,
}

impl Status {
    pub(crate) fn read(state: &StateDir) -> Result<Option<Self>, StateError> {
        state_dir::read_json(&state.status())
    }

    pub(crate) fn write(&self, state: &StateDir) -> Result<(), StateError> {
        state_dir::write_json(&state.status(), self, Durability::Lax)
    }

    /// Whether the process that wrote it is still there.
    pub(crate) fn is_alive(&self) -> bool {
        if matches!(self.connection, ConnectionStatus::Stopped { .. } | ConnectionStatus::Retired { .. }) {
            return false;
        }
        let found = process_start(self.pid);
        found.is_some() && found == self.process_start
    }
}

/// When a process that has not ended began, in ticks since boot: field 22 of `/proc/<pid>/stat` (proc(5)).
pub(crate) fn process_start(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let mut after_name = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    // One that has ended stays in the table until its parent asks, which not every init of a container does.
    if matches!(after_name.next()?, "Z" | "X") {
        return None;
    }
    after_name.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_and_no_process_has_none() {
        assert!(process_start(std::process::id()).is_some());
        assert_eq!(process_start(u32::MAX), None);
    }
}
