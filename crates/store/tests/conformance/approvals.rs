//! What people must approve first, and whose key is whose.

use envelope::{audit::AuditKind, messages::PublicKeyBytes};
use fleet::{
    list::CommandListFilter,
    model::*,
    ports::{Approved, AuditEntry, AuditRecord, Endorsed, Store, Write},
};
use ids::{DurationMs, KeyId};

use super::{fixtures::*, people::user};

const HELD: &str = "0 of 2 approvals";

fn approve(commands: &[(&NewCommand, usize)], key: u8, message: Option<&str>) -> Write {
    let envelope = |command: &NewCommand| format!("approval {key} of {}", command.order.command).into_bytes();
    let endorsed = |(command, stored_before): &(&NewCommand, usize)| Endorsed {
        command: command.order.command,
        envelope: envelope(command),
        stored_before: *stored_before,
        message: message.map(str::to_owned),
    };
    let leaf = |(command, _): &(&NewCommand, usize)| AuditEntry {
        record: AuditRecord::Envelope(envelope(command)),
        ..entry(AuditKind::Approval, "an operation")
    };
    Write::CommandsApprove(Box::new(Approved {
        key: KeyId::from_bytes([key; 16]),
        commands: commands.iter().map(endorsed).collect(),
        at: NOW,
        audit: commands.iter().map(leaf).collect(),
    }))
}

fn deny(commands: &[&NewCommand]) -> Write {
    Write::CommandsDeny {
        commands: commands.iter().map(|command| command.order.command).collect(),
        message: "denied by bob".to_owned(),
        at: NOW,
        audit: entry(AuditKind::ApprovalDenied, "an operation"),
    }
}

/// An operation with held commands on two hosts.
async fn held(store: &dyn Store) -> (Operation, NewCommand, NewCommand) {
    let (a, b) = (enrolled(store, "web-1").await, enrolled(store, "web-2").await);
    let requester = Some(KeyId::from_bytes([4; 16]));
    let operation = Operation { approvals: 2, requester, ..operation(OperationKind::Single) };
    let new = |host| NewCommand { held: Some(HELD.to_owned()), ..new_command(&operation, host, "app.remove") };
    let (first, second) = (new(&a), new(&b));
    done(store, propose_write(&operation, &[first.clone(), second.clone()])).await;
    (operation, first, second)
}

pub(crate) async fn held_commands_are_queued_when_they_have_enough(store: &dyn Store) {
    let (operation, first, second) = held(store).await;
    assert_eq!(store.operation(operation.id).await, Ok(Some(operation)));
    let now = command(store, &first).await;
    assert_eq!((now.status, now.message.as_str(), now.approvals.len()), (CommandStatus::Held, HELD, 0));
    conflicts(store, seal_write(&first, 0, 1), "").await;
    done(store, approve(&[(&first, 0), (&second, 0)], 1, Some("1 of 2 approvals"))).await;
    let now = command(store, &first).await;
    assert_eq!((now.status, now.message.as_str()), (CommandStatus::Held, "1 of 2 approvals"));
    assert_eq!(now.approvals, [format!("approval 1 of {}", first.order.command).into_bytes()]);
    done(store, approve(&[(&first, 1)], 2, None)).await;
    let now = command(store, &first).await;
    assert_eq!((now.status, now.message.as_str(), now.approvals.len()), (CommandStatus::Queued, "", 2));
    assert_eq!(store.commands_open(first.order.host).await.unwrap()[0].approvals.len(), 2);
    assert_eq!(command(store, &second).await.status, CommandStatus::Held);
    done(store, seal_write(&first, 0, 1)).await;
    let leaves = store.audit(0, 1_000).await.unwrap();
    let records = leaves.into_iter().filter(|row| row.kind == AuditKind::Approval).filter_map(|row| row.record);
    assert_eq!(records.count(), 3);
}

/// Of several commands all are approved or none, and what was judged must still be so.
pub(crate) async fn an_approval_is_stored_only_as_it_was_judged(store: &dyn Store) {
    let (_, first, second) = held(store).await;
    let leaves = audit_kinds(store).await.len();
    conflicts(store, approve(&[(&second, 0), (&first, 1)], 1, None), "approved command").await;
    assert_eq!(command(store, &second).await.approvals.len(), 0);
    done(store, approve(&[(&first, 0)], 1, Some("1 of 2 approvals"))).await;
    conflicts(store, approve(&[(&first, 0)], 2, None), "meanwhile").await;
    conflicts(store, approve(&[(&first, 1)], 1, None), "already").await;
    done(store, deny(&[&second])).await;
    conflicts(store, approve(&[(&second, 0)], 1, None), "its end is final").await;
    conflicts(store, deny(&[&first, &second]), "its end is final").await;
    assert_eq!(command(store, &first).await.status, CommandStatus::Held);
    let denied = command(store, &second).await;
    assert_eq!((denied.status, denied.message.as_str()), (CommandStatus::Cancelled, "denied by bob"));
    assert_eq!(denied.settled_at, Some(NOW));
    assert_eq!(audit_kinds(store).await.len(), leaves + 2, "one approval, one denial");
}

pub(crate) async fn what_is_held_too_long_is_overdue(store: &dyn Store) {
    let (_, first, _) = held(store).await;
    let later = NOW.plus(DurationMs::from_days(40));
    let overdue = store.commands_overdue(later, 10).await.unwrap();
    assert_eq!(overdue.len(), 2);
    assert_eq!(overdue[0].order.command, first.order.command);
    let filter = CommandListFilter { status: Some(CommandStatus::Held), ..CommandListFilter::default() };
    let page = fleet::list::ListPage { descending: true, after: None, limit: 10 };
    assert_eq!(store.commands_list(filter, page).await.unwrap().items.len(), 2);
}

pub(crate) async fn an_account_has_one_approver_key_and_a_key_one_account(store: &dyn Store) {
    let root = Write::Initialise {
        root: b"root".to_vec(),
        admin: user("ada", UserRole::Owner),
        audit: vec![entry(AuditKind::FleetCreated, "the fleet")],
    };
    done(store, root).await;
    let bob = user("bob", UserRole::Viewer);
    done(store, Write::UserCreate { user: bob.clone(), audit: entry(AuditKind::AccountChange, "bob") }).await;
    let ada = store.user_by_name("ada".parse().unwrap()).await.unwrap().unwrap();
    let key = |n: u8| PublicKeyBytes([n; 32]);
    let register = |was: &User, n: u8| Write::UserChange {
        was: was.clone(),
        change: UserChange::Approver(key(n), NOW),
        audit: entry(AuditKind::AccountChange, "a key"),
    };
    assert_eq!(bob.approver, None);
    done(store, register(&bob, 1)).await;
    assert_eq!(store.user_by_name(bob.name.clone()).await.unwrap().unwrap().approver, Some((key(1), NOW)));
    conflicts(store, register(&ada, 1), "is registered to another account").await;
    done(store, register(&bob, 2)).await;
    assert_eq!(store.user_by_name(bob.name.clone()).await.unwrap().unwrap().approver, Some((key(2), NOW)));
    done(store, register(&ada, 1)).await;
    let gone = UserChange::Delete(NOW);
    done(store, Write::UserChange { was: bob, change: gone, audit: entry(AuditKind::AccountChange, "bob") }).await;
    done(store, register(&ada, 2)).await;
}
