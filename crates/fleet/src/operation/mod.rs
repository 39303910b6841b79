//! What a person may ask for, and what becomes of it: an operation and its commands.
//!
//! [`operation_propose`] judges a request once, when it is made: who asks, which hosts, which version
//! of the action each host's agent has, whether the parameters decode and the sealed values
//! are those they name. What it returns is stored in one transaction. [`operation_next`] makes the
//! commands of a later stage from the verified report of the stage before; it is called inside the
//! dispatch machine, so no client drives an operation. [`command_cancel`] ends a command that was
//! never sealed, or orders its host to stop it. [`app_targets`] says on which hosts an app's verbs act.

mod cancel;
mod next;
mod propose;
mod standing;
#[cfg(test)]
mod tests;
mod timing;

use actions::{Class, DecodeError};
use envelope::{
    messages::{ApprovalThresholds, SealedValue},
    recovery::RecoveryCopy,
};
use ids::{ActionName, AppName, CommandId, DurationMs, HostId, KeyId, OperationId};

pub(crate) use self::next::may_have_next;
pub use self::{
    cancel::{CancelDecision, CancelError, CancelOrigin, command_cancel},
    next::{app_change, operation_next},
    propose::{authorise, operation_propose},
    standing::{
        StandingRequest, standing_drop, standing_install, standing_judge, standing_order, standing_renew,
        standing_request_sha256,
    },
    timing::DeployTiming,
};
use crate::{
    model::{AppInstance, CommandStatus, NewCommand, Operation, UserRole},
    ports::AuditEntry,
};

/// What a request is judged by besides its own content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    /// How many approvals each class of action needs in this fleet.
    pub approvals: ApprovalThresholds,
    /// The approver key registered to whoever asks.
    pub requester: Option<KeyId>,
}

impl Grounds {
    /// How many people must approve an action of that class.
    pub(crate) const fn needed(&self, class: Class) -> u32 {
        match class {
            Class::Read => 0,
            Class::Change => self.approvals.change,
            Class::Destructive => self.approvals.destructive,
        }
    }
}

/// A request for work on some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRequest {
    /// Chosen by the client, so that the same request sent twice is one operation.
    pub id: OperationId,
    /// What to do.
    pub work: Work,
    /// Where, each host once, with the values sealed to it. At least one.
    pub targets: Vec<Target>,
    /// How long a host may take to come and get it; absent means ten minutes. At most 30 days.
    pub queue_for: Option<DurationMs>,
    /// Only the plan: nothing may change.
    pub dry_run: bool,
    /// What the targets were selected by, if they were not named: recorded, not judged.
    pub selector: Option<String>,
    /// The values once more, sealed to the owner: of a deploy that is no dry run. Exactly those the targets get.
    pub recovery: Option<RecoveryCopy>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// One registered action.
    Action {
        /// Its name, such as `app.remove`.
        action: ActionName,
        /// Its version; absent means for each host the newest that it and this control plane have.
        version: Option<u32>,
        /// Its parameters: UTF-8 JSON by the action's schema.
        parameters: Vec<u8>,
    },
    /// `app.plan`, then `app.deploy` with the images the plan pinned.
    Deploy {
        /// UTF-8 JSON of `actions::spec::AppSpec`.
        spec: Vec<u8>,
        /// How long its health may take.
        timing: DeployTiming,
    },
}

/// One host of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: HostId,
    /// Values sealed to this host, in any order: exactly those the parameters name.
    pub sealed: Vec<SealedValue>,
}

/// What is stored, in one transaction, for a request that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The operation.
    pub operation: Operation,
    /// Its first commands, one for each host.
    pub commands: Vec<NewCommand>,
    /// Its values, sealed to the owner.
    pub recovery: Option<RecoveryCopy>,
    /// Its leaf in the audit log.
    pub audit: AuditEntry,
}

impl Proposed {
    /// The transaction that stores it.
    #[must_use]
    pub fn into_write(self) -> crate::ports::Write {
        let Self { operation, commands, recovery, audit } = self;
        crate::ports::Write::OperationPropose { operation, commands, recovery, audit }
    }
}

/// Why a request was not granted. Each says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The person's role does not allow it.
    #[error("{action} needs the role {needs}, and this account is {has}; ask an admin to do it or to change the role")]
    NotAllowed {
        /// The action asked for.
        action: String,
        /// Least role that may.
        needs: UserRole,
        /// Role of the account.
        has: UserRole,
    },
    /// Something in the request breaks a rule.
    #[error("{field}: {message}")]
    Invalid {
        /// Which part of the request.
        field: String,
        /// What is wrong there, and what would be right.
        message: String,
    },
    /// The parameters are not what the action takes, or there is no such action.
    #[error(transparent)]
    Parameters(#[from] DecodeError),
    /// No such host.
    #[error("there is no host {0}; see `serverflow host list`")]
    HostNotFound(HostId),
    /// The host gets no orders.
    #[error("host {name} {why}")]
    HostNotActive {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        why: String,
    },
    /// The host's agent lacks the action in every version that could carry the parameters.
    #[error(
        "host {host} runs agent {agent}, which cannot do this: {}, then order it again",
        missing_words(host, action, *version, *has)
    )]
    ActionMissing {
        /// Name of the host.
        host: String,
        /// Version of its agent.
        agent: String,
        /// The action.
        action: String,
        /// Least version that could carry the parameters; the newest one, when the agent has only newer ones.
        version: u32,
        /// Newest version the agent has, if it has the action at all.
        has: Option<u32>,
    },
    /// The host's agent has the action of that version with another parameter schema.
    #[error(
        "the agent on host {host} has {action} v{version} with another schema; update the agent or the control plane so that both are of one release"
    )]
    SchemaDiffers {
        /// Name of the host.
        host: String,
        /// The action.
        action: String,
        /// Its version.
        version: u32,
    },
}

/// What an agent lacks, and which side to upgrade.
fn missing_words(host: &str, action: &str, version: u32, has: Option<u32>) -> String {
    let upgrade = format!("upgrade its agent with the lines of `serverflow host upgrade {host}`");
    match has {
        None => format!("it needs {action} version {version}, and that agent does not have {action}; {upgrade}"),
        Some(has) if has > version => format!(
            "that agent has {action} in later versions only (up to {has}), and this control plane goes up to version \
             {version}; upgrade the control plane"
        ),
        Some(has) => {
            format!("it needs {action} version {version}, and that agent goes up to version {has}; {upgrade}")
        }
    }
}

impl ProposeError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

/// Why no host was found for an app's verb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppTargetError {
    /// No host has it.
    #[error("no app {0} is deployed; see `serverflow app list`")]
    NotDeployed(AppName),
    /// Not on that host.
    #[error("app {app} is not deployed on host {host}; it is on {}", on.join(", "))]
    NotOnHost {
        /// The app.
        app: AppName,
        /// Host asked for.
        host: String,
        /// Names of the hosts that have it.
        on: Vec<String>,
    },
}

/// The action whose output is a stream.
pub(crate) const FOLLOW: &str = "app.logs.follow";

/// Whether a command's output is a stream that somebody may watch.
#[must_use]
pub fn streams(command: &crate::model::Command) -> bool {
    command.order.action.as_str() == FOLLOW && !command.order.dry_run
}

/// The hosts an app's verb acts on: every instance, or the one on `host` (a name). App names are
/// unique in the fleet; an app has at most one instance per host.
///
/// # Errors
/// When there is no such instance.
pub fn app_targets(
    app: &AppName,
    host: Option<&str>,
    instances: &[AppInstance],
) -> Result<Vec<HostId>, AppTargetError> {
    let of_app: Vec<&AppInstance> = instances.iter().filter(|instance| instance.app == *app).collect();
    if of_app.is_empty() {
        return Err(AppTargetError::NotDeployed(app.clone()));
    }
    let wanted = |instance: &&&AppInstance| host.is_none_or(|host| instance.host_name.as_str() == host);
    let hosts: Vec<HostId> = of_app.iter().filter(wanted).map(|instance| instance.host).collect();
    match host {
        Some(host) if hosts.is_empty() => Err(AppTargetError::NotOnHost {
            app: app.clone(),
            host: host.to_owned(),
            on: of_app.iter().map(|instance| instance.host_name.to_string()).collect(),
        }),
        _ => Ok(hosts),
    }
}

/// How an operation stands as a whole, from its commands. Follow-up commands are stored in the
/// transaction that ends the command before, so an operation whose commands have all ended is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationProgress {
    /// A command has no end yet.
    Going,
    /// Every command succeeded.
    Succeeded,
    /// Every command has ended, one of them otherwise than well.
    EndedOtherwise,
}

/// How an operation stands, from the statuses of all its commands.
#[must_use]
pub fn operation_progress(commands: impl IntoIterator<Item = CommandStatus>) -> OperationProgress {
    let mut progress = OperationProgress::Succeeded;
    for status in commands {
        match status {
            open if !open.is_end() => return OperationProgress::Going,
            CommandStatus::Succeeded => {}
            _ => progress = OperationProgress::EndedOtherwise,
        }
    }
    progress
}

/// A source of fresh ids for a decision.
pub trait CommandIds {
    /// An id never used before.
    fn command_id(&mut self) -> CommandId;
}

impl<F: FnMut() -> CommandId> CommandIds for F {
    fn command_id(&mut self) -> CommandId {
        self()
    }
}
