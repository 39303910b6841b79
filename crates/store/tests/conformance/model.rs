//! A reference model of what moves commands, slow and obvious, and random writes to compare a store
//! with it. Many writes are put at once, so that they share commits and meet each other's rows.

use fleet::{
    command::CommandEvent,
    model::{CommandStatus, Host, NewCommand},
    ports::{Store, StoreError, Write, Written},
};
use proptest::prelude::*;
use session::frames::Stage;

use super::{commands::futures, fixtures::*};

pub(crate) const HOSTS: usize = 2;
pub(crate) const COMMANDS_PER_HOST: usize = 3;

/// A write, in small numbers.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// `skew` is added to what `allocated_before` should be.
    Seal {
        command: usize,
        skew: u64,
        gap: u64,
    },
    Stage {
        command: usize,
        sequence: u64,
        stage: u8,
    },
    Settle {
        command: usize,
        sequence: u64,
        skew: u64,
        status: CommandStatus,
    },
    End {
        command: usize,
        from: CommandStatus,
        status: CommandStatus,
    },
    Quarantine {
        host: usize,
    },
    Revoke {
        host: usize,
    },
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let command = 0..HOSTS * COMMANDS_PER_HOST;
    let status = prop::sample::select(CommandStatus::ALL.to_vec());
    let skew = prop_oneof![8 => Just(0u64), 1 => Just(1u64)];
    prop_oneof![
        8 => (command.clone(), skew.clone(), 1..3u64).prop_map(|(command, skew, gap)| Step::Seal { command, skew, gap }),
        6 => (command.clone(), 0..8u64, 0..3u8)
            .prop_map(|(command, sequence, stage)| Step::Stage { command, sequence, stage }),
        6 => (command.clone(), 0..8u64, skew, status.clone())
            .prop_map(|(command, sequence, skew, status)| Step::Settle { command, sequence, skew, status }),
        3 => (command, status.clone(), status).prop_map(|(command, from, status)| Step::End { command, from, status }),
        1 => (0..HOSTS).prop_map(|host| Step::Quarantine { host }),
        1 => (0..HOSTS).prop_map(|host| Step::Revoke { host }),
    ]
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct HostModel {
    allocated: u64,
    acknowledged: u64,
    reports: u64,
    quarantined: bool,
    revoked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CommandModel {
    status: CommandStatus,
    seals: Vec<u64>,
}

/// What a store must hold.
pub(crate) struct Model {
    hosts: Vec<(Host, HostModel)>,
    commands: Vec<(NewCommand, CommandModel)>,
}

impl Model {
    pub(crate) async fn begin(store: &dyn Store) -> Self {
        let mut model = Self { hosts: vec![], commands: vec![] };
        for number in 0..HOSTS {
            let host = enrolled(store, &format!("host-{number}")).await;
            for _ in 0..COMMANDS_PER_HOST {
                let command = CommandModel { status: CommandStatus::Queued, seals: vec![] };
                model.commands.push((queued(store, &host).await, command));
            }
            model.hosts.push((host, HostModel::default()));
        }
        model
    }

    /// Puts steps all at once. Each is judged by the model in its order, which is the queue's.
    pub(crate) async fn put(&mut self, store: &dyn Store, steps: &[Step]) {
        let mut writes = Vec::new();
        let mut expected = Vec::new();
        for step in steps {
            let (write, accepted) = self.apply(step);
            writes.push(store.write(write));
            expected.push(accepted);
        }
        let answers = futures(writes).await;
        for ((step, accepted), answer) in steps.iter().zip(expected).zip(answers) {
            match answer {
                Ok(Written::Done) => assert!(accepted, "{step:?} was done"),
                Err(StoreError::Conflict(why)) => assert!(!accepted, "{step:?}: {why}"),
                other => panic!("{step:?}: {other:?}"),
            }
        }
    }

    fn apply(&mut self, step: &Step) -> (Write, bool) {
        use envelope::audit::AuditKind as K;
        match *step {
            Step::Quarantine { host } => {
                let (row, host) = &mut self.hosts[host];
                let accepted = !host.revoked;
                host.quarantined |= accepted;
                let audit = entry(K::Quarantine, "host");
                (Write::HostQuarantine { host: row.id, why: "why".to_owned(), audit }, accepted)
            }
            Step::Revoke { host: number } => {
                let (row, host) = &mut self.hosts[number];
                let accepted = !host.revoked;
                host.revoked = true;
                let own = number * COMMANDS_PER_HOST..(number + 1) * COMMANDS_PER_HOST;
                for (_, command) in &mut self.commands[own] {
                    command.status = command.status.after(CommandEvent::HostRevoked).unwrap_or(command.status);
                }
                (Write::HostRevoke { host: row.id, at: NOW, audit: entry(K::HostRevoked, "host") }, accepted)
            }
            Step::End { command, from, status } => {
                let (new, command) = &mut self.commands[command];
                let event = match status {
                    CommandStatus::Cancelled => Some(CommandEvent::CancelledBeforeSealing),
                    CommandStatus::Rejected => Some(CommandEvent::RefusedBySigner),
                    CommandStatus::Expired => Some(CommandEvent::ExpiredUndelivered),
                    _ => None,
                };
                let next = event.and_then(|event| command.status.after(event).ok());
                let accepted = next.is_some() && command.status == from;
                command.status = next.filter(|_| accepted).unwrap_or(command.status);
                let (message, audit) = ("over".to_owned(), entry(K::CommandSettled, "command"));
                let command = new.order.command;
                (Write::CommandEnd { command, from: vec![from], status, message, at: NOW, audit }, accepted)
            }
            Step::Seal { command, skew, gap } => self.seal(command, skew, gap),
            Step::Stage { command, sequence, stage } => self.stage(command, sequence, stage),
            Step::Settle { command, sequence, skew, status } => self.settle(command, sequence, skew, status),
        }
    }

    fn seal(&mut self, number: usize, skew: u64, gap: u64) -> (Write, bool) {
        let (_, host) = &mut self.hosts[number / COMMANDS_PER_HOST];
        let (new, command) = &mut self.commands[number];
        let before = host.allocated + skew;
        let write = seal_write(new, before, before + gap);
        let event = if command.status == CommandStatus::Queued { CommandEvent::Sealed } else { CommandEvent::Resealed };
        let next = command.status.after(event).ok();
        let accepted = skew == 0 && !host.quarantined && !host.revoked && next.is_some();
        if accepted {
            command.status = next.unwrap();
            host.allocated = before + gap;
            command.seals.push(before + gap);
        }
        (write, accepted)
    }

    fn stage(&mut self, number: usize, sequence: u64, stage: u8) -> (Write, bool) {
        let (_, host) = &mut self.hosts[number / COMMANDS_PER_HOST];
        let (new, command) = &mut self.commands[number];
        let stage = [Stage::Accepted, Stage::Started, Stage::Done][usize::from(stage)];
        let next = command.status.after(stage.into()).ok();
        let sealed = sequence > 0 && command.seals.last().is_some_and(|last| sequence <= *last);
        let accepted = !host.revoked && sealed && next.is_some();
        if accepted {
            command.status = next.unwrap();
            host.acknowledged = host.acknowledged.max(sequence);
        }
        (stage_write(new, sequence, stage), accepted)
    }

    fn settle(&mut self, number: usize, sequence: u64, skew: u64, status: CommandStatus) -> (Write, bool) {
        let (_, host) = &mut self.hosts[number / COMMANDS_PER_HOST];
        let (new, command) = &mut self.commands[number];
        let mut settlement = settlement(new, sequence, host.reports + 1 + skew);
        settlement.status = status;
        let open = !command.status.is_end() && command.status != CommandStatus::Queued;
        let sealed = sequence > 0 && command.seals.last().is_some_and(|last| sequence <= *last);
        let accepted = skew == 0 && !host.revoked && sealed && open && status.is_end();
        if accepted {
            command.status = status;
            host.reports += 1;
            host.acknowledged = host.acknowledged.max(sequence);
        }
        (Write::CommandSettle(Box::new(settlement)), accepted)
    }

    /// Reads everything back.
    pub(crate) async fn compare(&self, store: &dyn Store) {
        for (new, expected) in &self.commands {
            let stored = command(store, new).await;
            let seals: Vec<u64> = stored.seals.iter().map(|seal| seal.sequence.0).collect();
            assert_eq!((stored.status, &seals), (expected.status, &expected.seals));
            assert_eq!(stored.settled_at.is_some(), expected.status.is_end());
        }
        for (host, expected) in &self.hosts {
            let stored = host_now(store, host).await;
            assert_eq!(
                (stored.allocated.0, stored.acknowledged.0, stored.last_report),
                (expected.allocated, expected.acknowledged, position(expected.reports))
            );
            let open = store.commands_open(host.id).await.unwrap();
            assert_eq!(store.host_open(host.id).await, Ok(Some((stored, open.clone()))));
            let expected =
                self.commands.iter().filter(|(new, command)| new.order.host == host.id && !command.status.is_end());
            let expected: Vec<_> = expected.map(|(new, _)| new.order.command).collect();
            assert_eq!(open.iter().map(|command| command.order.command).collect::<Vec<_>>(), expected);
        }
    }
}
