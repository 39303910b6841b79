//! A second person's word: who may approve what is held, or deny it, and what comes of it.
//!
//! The signature is the person's, made elsewhere, and hosts judge it by themselves. What is judged here keeps people
//! from waiting for something that no host would take: the key must stand in root metadata, be registered to whoever
//! brings its signature, and that must not be whoever asked.

use std::collections::BTreeMap;

use actions::{
    Class,
    policy::{CANCEL_ACTION, RENEW_ACTION},
};
use envelope::{
    VerifyError, VerifyingKey,
    approval::{ApprovalError, NotCounted, Terms, counts, judge},
    keys::role,
    messages::{Approval, Order},
    root::TrustedRoot,
    verify,
};
use ids::{HostId, HostName, KeyId, OperationId, UnixMs, UserName};

use crate::{
    limits,
    model::{Command, CommandStatus, Host, Operation, Principal, User},
    ports::{Approved, Endorsed, Write},
    record,
};

/// What somebody's word is about, as it was just read.
#[derive(Clone, Copy, Debug)]
pub struct Matter<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// Its commands.
    pub commands: &'a [Command],
    /// At least the hosts of those that are held.
    pub hosts: &'a BTreeMap<HostId, Host>,
    /// Root metadata in force.
    pub root: &'a TrustedRoot,
    /// When.
    pub now: UnixMs,
}

/// Why somebody's word is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// The account has no key.
    #[error("{0} has no approver key; make one with `serverflow approver init`, on the machine you approve from")]
    NoKey(UserName),
    /// The key has no power.
    #[error(
        "approver key {key} of {user} is not in the fleet's root metadata; whoever keeps the root key adds it with `serverflow root propose --add-approver {public}`"
    )]
    NotListed {
        /// Whose it is.
        user: UserName,
        /// The key.
        key: KeyId,
        /// Its public half.
        public: String,
    },
    /// It is the own operation.
    #[error("{user} asked for operation {operation}, and whoever asks cannot approve it; another approver has to")]
    Own {
        /// Who asked.
        user: UserName,
        /// For what.
        operation: OperationId,
    },
    /// Nothing waits.
    #[error("nothing of operation {0} waits for approval; see `serverflow operation show {0}`")]
    NothingHeld(OperationId),
    /// No command of that host waits.
    #[error("approval {number}: no command of operation {operation} for that host waits for approval")]
    NotHeld {
        /// Which one, from 1.
        number: usize,
        /// Of which operation.
        operation: OperationId,
    },
    /// Two for one host.
    #[error("approval {number}: there is one for host {host} already")]
    HostTwice {
        /// Which one, from 1.
        number: usize,
        /// The host.
        host: HostName,
    },
    /// It is not signed by the account's key.
    #[error("approval {number} does not verify under your approver key: {source}")]
    Signature {
        /// Which one, from 1.
        number: usize,
        /// Why not.
        source: VerifyError,
    },
    /// It would not count.
    #[error("the approval for host {host} would not count: {why}")]
    NotCounted {
        /// The host.
        host: HostName,
        /// Why not.
        why: NotCounted,
    },
    /// It was given.
    #[error("you have approved this for host {0} already")]
    Already(HostName),
    /// It spoils those that are there.
    #[error("the approval for host {host} does not go with those that are there: {why}")]
    Spoils {
        /// The host.
        host: HostName,
        /// Why not.
        why: ApprovalError,
    },
    /// There would be too much of it.
    #[error("the approvals for host {host} come to {bytes} bytes together; at most {max} are possible", max = limits::APPROVALS_BYTES_MAX)]
    TooLarge {
        /// The host.
        host: HostName,
        /// How much.
        bytes: usize,
    },
    /// A text breaks its rule.
    #[error("because: at most {max} characters, none of them a control character", max = limits::BECAUSE_CHARS_MAX)]
    Because,
}

/// What is said of a command while it is held.
#[must_use]
pub fn held_words(operation: OperationId, counted: usize, needed: u32) -> String {
    format!("{counted} of {needed} approvals; ask an approver to run `serverflow approval approve {operation}`")
}

/// How many people must approve an order: what was found when it was proposed, and what root metadata asks for now.
#[must_use]
pub fn needed(operation: &Operation, order: &Order, root: &TrustedRoot) -> u32 {
    if order.dry_run || [CANCEL_ACTION, RENEW_ACTION].contains(&order.action.as_str()) {
        return 0;
    }
    let thresholds = root.current().approvals;
    let class = actions::class_for_people(&order.action, order.action_version, &order.parameters);
    let now = match class.unwrap_or(Class::Destructive) {
        Class::Read => 0,
        Class::Change => thresholds.change,
        Class::Destructive => thresholds.destructive,
    };
    now.max(operation.approvals)
}

/// The commands of an operation that wait for approval.
pub fn held(commands: &[Command]) -> impl Iterator<Item = &Command> {
    commands.iter().filter(|command| command.status == CommandStatus::Held)
}

/// The account's key, which must have power, and may not be the one of whoever asked.
fn approver(matter: &Matter<'_>, user: &User) -> Result<VerifyingKey<role::Approver>, ApproveError> {
    let (public, _) = user.approver.ok_or_else(|| ApproveError::NoKey(user.name.clone()))?;
    let key = envelope::key_id(&public);
    let listed = matter.root.approver_keys().iter().find(|listed| listed.key_id() == key);
    let not_listed = || ApproveError::NotListed { user: user.name.clone(), key, public: public.to_string() };
    let listed = listed.copied().ok_or_else(not_listed)?;
    if matter.operation.requested_by == user.name {
        return Err(ApproveError::Own { user: user.name.clone(), operation: matter.operation.id });
    }
    Ok(listed)
}

/// Judges somebody's approvals, each for one host's held command; all are taken, or none.
///
/// # Errors
/// The first reason why not.
pub fn approve(
    matter: &Matter<'_>,
    actor: &Principal,
    user: &User,
    envelopes: Vec<Vec<u8>>,
) -> Result<Write, ApproveError> {
    let key = approver(matter, user)?;
    if envelopes.is_empty() || held(matter.commands).next().is_none() {
        return Err(ApproveError::NothingHeld(matter.operation.id));
    }
    let mut commands: Vec<Endorsed> = Vec::with_capacity(envelopes.len());
    let mut audit = Vec::with_capacity(envelopes.len());
    for (number, envelope) in (1..).zip(envelopes) {
        let approval = verify::<Approval>(&envelope, core::slice::from_ref(&key))
            .map_err(|source| ApproveError::Signature { number, source })?;
        let found = held(matter.commands).find(|command| command.order.host == approval.host);
        let not_held = || ApproveError::NotHeld { number, operation: matter.operation.id };
        let command = found.ok_or_else(not_held)?;
        if commands.iter().any(|endorsed| endorsed.command == command.order.command) {
            return Err(ApproveError::HostTwice { number, host: command.host_name.clone() });
        }
        audit.push(record::approval(command, actor.audit_name(), envelope.clone(), matter.now));
        commands.push(endorse(matter, command, &key, envelope)?);
    }
    Ok(Write::CommandsApprove(Box::new(Approved { key: key.key_id(), commands, at: matter.now, audit })))
}

fn endorse(
    matter: &Matter<'_>,
    command: &Command,
    key: &VerifyingKey<role::Approver>,
    envelope: Vec<u8>,
) -> Result<Endorsed, ApproveError> {
    let (order, host) = (&command.order, &command.host_name);
    let known = matter.hosts.get(&order.host);
    let known = known.ok_or(ApproveError::NotHeld { number: 1, operation: matter.operation.id })?;
    let now = matter.now.max(matter.root.issued_floor());
    let terms = Terms { keys: matter.root.approver_keys(), host_epoch: known.host_epoch, now: Some(now) };
    counts(&envelope, order, terms).map_err(|why| ApproveError::NotCounted { host: host.clone(), why })?;
    if command.approvals.iter().any(|stored| verify::<Approval>(stored, core::slice::from_ref(key)).is_ok()) {
        return Err(ApproveError::Already(host.clone()));
    }
    let mut all = command.approvals.clone();
    all.push(envelope.clone());
    let bytes = all.iter().map(Vec::len).sum();
    if bytes > limits::APPROVALS_BYTES_MAX {
        return Err(ApproveError::TooLarge { host: host.clone(), bytes });
    }
    let needed = needed(matter.operation, order, matter.root);
    let message = match judge(&all, needed, order, terms) {
        Ok(_) => None,
        Err(ApprovalError::TooFew { counted, .. }) => Some(held_words(order.operation, counted, needed)),
        Err(why) => return Err(ApproveError::Spoils { host: host.clone(), why }),
    };
    Ok(Endorsed { command: order.command, envelope, stored_before: command.approvals.len(), message })
}

/// An approver says no: everything of the operation that is held ends.
///
/// # Errors
/// When the word is not taken.
pub fn deny(matter: &Matter<'_>, actor: &Principal, user: &User, because: &str) -> Result<Write, ApproveError> {
    approver(matter, user)?;
    let because = because.trim();
    if because.chars().count() > limits::BECAUSE_CHARS_MAX || because.chars().any(char::is_control) {
        return Err(ApproveError::Because);
    }
    let held: Vec<&Command> = held(matter.commands).collect();
    if held.is_empty() {
        return Err(ApproveError::NothingHeld(matter.operation.id));
    }
    let message = match because {
        "" => format!("denied by {}", user.name),
        because => format!("denied by {}: {because}", user.name),
    };
    let audit = record::approval_denied(matter.operation, &held, actor.audit_name(), because, matter.now);
    let commands = held.iter().map(|command| command.order.command).collect();
    Ok(Write::CommandsDeny { commands, message, at: matter.now, audit })
}

#[cfg(test)]
mod tests;
