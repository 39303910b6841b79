//! From the proposal to the end.

use envelope::{
    audit::AuditKind,
    messages::{LogPosition, ReportPosition, SealedValue, SealingKeyBytes},
    recovery::{RecoveryCopy, WrappedKey},
};
use fleet::{
    model::*,
    ports::{AppChange, AuditEntry, AuditRecord, KeptReport, Settlement, Store, Write, Written},
};
use ids::{AuditLogId, CommandId, HostId, OperationId, Sequence, UnixMs, sha256};
use session::frames::Stage;

use super::fixtures::*;

fn settle(settlement: Settlement) -> Write {
    Write::CommandSettle(Box::new(settlement))
}

fn end(command: &NewCommand, from: &[CommandStatus], status: CommandStatus) -> Write {
    Write::CommandEnd {
        command: command.order.command,
        from: from.to_vec(),
        status,
        message: "it took too long".to_owned(),
        at: NOW,
        audit: entry(AuditKind::CommandSettled, "a command"),
    }
}

pub(crate) async fn a_proposal_is_read_back_whole(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let operation = operation(OperationKind::Deploy);
    let mut second = new_command(&operation, &host, "host.facts");
    (second.app, second.sealed, second.order.sealed, second.order.requester) = (None, vec![], vec![], None);
    second.order.parameters = b"{}".to_vec();
    let commands = [new_command(&operation, &host, "app.plan"), second];
    done(store, propose_write(&operation, &commands)).await;
    assert_eq!(store.operation(operation.id).await, Ok(Some(operation.clone())));
    let stored = store.commands_open(host.id).await.unwrap();
    assert_eq!(stored.len(), 2);
    for (stored, new) in stored.iter().zip(&commands) {
        let expected = Command {
            order: new.order.clone(),
            host_name: host.name.clone(),
            app: new.app.clone(),
            sealed: new.sealed.clone(),
            approvals: Vec::new(),
            status: CommandStatus::Queued,
            message: String::new(),
            requested_by: operation.requested_by.clone(),
            seals: vec![],
            report: None,
            delivered_at: None,
            accepted_at: None,
            started_at: None,
            settled_at: None,
        };
        assert_eq!(*stored, expected);
        assert_eq!(command(store, new).await, expected);
    }
    assert_eq!(store.command(CommandId::from_bytes(fresh())).await, Ok(None));
    assert_eq!(store.operation(OperationId::from_bytes(fresh())).await, Ok(None));
}

pub(crate) async fn a_proposal_is_idempotent_by_its_request(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let operation = operation(OperationKind::Single);
    let first = new_command(&operation, &host, "host.facts");
    done(store, propose_write(&operation, core::slice::from_ref(&first))).await;
    let leaves = audit_kinds(store).await.len();
    // A retried request makes new command ids; the first ones stand.
    let retried = new_command(&operation, &host, "host.facts");
    let again = store.write(propose_write(&operation, &[retried])).await;
    assert_eq!(again, Ok(Written::AlreadyProposed));
    assert_eq!(store.commands_open(host.id).await.unwrap().len(), 1);
    assert_eq!(audit_kinds(store).await.len(), leaves);
    let other = Operation { request_sha256: sha256(b"another request"), ..operation };
    conflicts(store, propose_write(&other, &[]), "asks for something else").await;
}

pub(crate) async fn a_refused_proposal_leaves_nothing(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let known = queued(store, &host).await;
    let leaves = audit_kinds(store).await.len();
    let operation = operation(OperationKind::Single);
    let good = new_command(&operation, &host, "host.facts");
    let mut stranger = new_command(&operation, &host, "host.facts");
    stranger.order.host = HostId::from_bytes(fresh());
    let mut stray = new_command(&operation, &host, "host.facts");
    stray.order.operation = OperationId::from_bytes(fresh());
    let mut twice = new_command(&operation, &host, "host.facts");
    twice.order.command = known.order.command;
    for (bad, why) in [(stranger, "is not known"), (stray, "belongs to operation"), (twice, "")] {
        conflicts(store, propose_write(&operation, &[good.clone(), bad]), why).await;
        assert_eq!(store.operation(operation.id).await, Ok(None));
        assert_eq!(store.command(good.order.command).await, Ok(None));
    }
    assert_eq!(audit_kinds(store).await.len(), leaves);
    done(store, propose_write(&operation, &[good])).await;
}

pub(crate) async fn a_recovery_copy_comes_with_its_operation_and_may_be_wrapped_anew(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let operation = operation(OperationKind::Deploy);
    let deploy = new_command(&operation, &host, "app.plan");
    let wrapped =
        |number: u8, bytes: u8| WrappedKey { recovery_key: SealingKeyBytes([number; 32]), bytes: vec![bytes; 80] };
    let value = |name: &str| SealedValue { name: name.to_owned(), bytes: vec![7; 60] };
    let copy =
        RecoveryCopy { keys: vec![wrapped(9, 1)], values: vec![value("db/environment/A"), value("web/environment/B")] };
    let Write::OperationPropose { operation: proposed, commands, audit, .. } = propose_write(&operation, &[deploy])
    else {
        unreachable!()
    };
    let (plain, plain_id) = (queued(store, &host).await, operation.id);
    done(store, Write::OperationPropose { operation: proposed, commands, recovery: Some(copy.clone()), audit }).await;
    assert_eq!(store.recovery_copy(plain_id).await.unwrap(), Some(copy.clone()));
    assert_eq!(store.recovery_copy(plain.order.operation).await.unwrap(), None);
    let rewrap = |id, keys| Write::RecoveryRewrap {
        operation: id,
        keys,
        audit: entry(AuditKind::SecretsRewrapped, "rewrapped"),
    };
    let keys = vec![wrapped(9, 2), wrapped(8, 3)];
    done(store, rewrap(plain_id, keys.clone())).await;
    assert_eq!(store.recovery_copy(plain_id).await.unwrap(), Some(RecoveryCopy { keys: keys.clone(), ..copy }));
    assert_eq!(audit_kinds(store).await.last(), Some(&AuditKind::SecretsRewrapped));
    conflicts(store, rewrap(plain.order.operation, keys), "is not known").await;
}

/// A host that is away does not gather orders without end; only a cancellation still passes.
pub(crate) async fn open_commands_of_a_host_are_bounded(store: &dyn Store) {
    let host = enrolled(store, "crowded").await;
    let crowd = operation(OperationKind::Single);
    let most = fleet::limits::OPEN_PER_HOST_MAX as usize;
    let commands: Vec<_> = (0..most).map(|_| new_command(&crowd, &host, "host.facts")).collect();
    done(store, propose_write(&crowd, &commands)).await;
    let next = operation(OperationKind::Single);
    let one_more = new_command(&next, &host, "host.facts");
    conflicts(store, propose_write(&next, &[one_more]), "1000 commands that have not ended").await;
    let cancel = new_command(&next, &host, "command.cancel");
    done(store, propose_write(&next, &[cancel])).await;
    let elsewhere = operation(OperationKind::Single);
    let quiet = enrolled(store, "quiet").await;
    done(store, propose_write(&elsewhere, &[new_command(&elsewhere, &quiet, "host.facts")])).await;
}

pub(crate) async fn sealing_compares_and_sets(store: &dyn Store) {
    let (host, other) = (enrolled(store, "web-1").await, enrolled(store, "web-2").await);
    let (first, second) = (queued(store, &host).await, queued(store, &host).await);
    done(store, seal_write(&first, 0, 1)).await;
    conflicts(store, seal_write(&second, 0, 1), "does not follow").await;
    conflicts(store, seal_write(&second, 1, 1), "does not follow").await;
    conflicts(store, seal_write(&second, 2, 3), "does not follow").await;
    let mut foreign = second.clone();
    foreign.order.host = other.id;
    conflicts(store, seal_write(&foreign, 0, 1), "has no command").await;
    // Gaps are legal; a lost delivery is sealed again.
    done(store, seal_write(&second, 1, 5)).await;
    done(store, seal_write(&first, 5, 6)).await;
    let now = command(store, &first).await;
    assert_eq!(now.status, CommandStatus::Delivered);
    assert_eq!(now.seals, [seal(&first, 1), seal(&first, 6)]);
    assert_eq!(now.delivered_at, Some(NOW));
    assert_eq!(host_now(store, &host).await.allocated, Sequence(6));
    assert_eq!(host_now(store, &other).await.allocated, Sequence(0));
    done(store, stage_write(&first, 6, Stage::Accepted)).await;
    conflicts(store, seal_write(&first, 6, 7), "cannot be sealed again").await;
}

pub(crate) async fn stages_move_forward_only(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let (first, waiting) = (queued(store, &host).await, queued(store, &host).await);
    conflicts(store, stage_write(&first, 1, Stage::Accepted), "never sealed").await;
    done(store, seal_write(&first, 0, 1)).await;
    for never in [0, 2] {
        conflicts(store, stage_write(&first, never, Stage::Accepted), "never sealed").await;
    }
    let stages = [
        (Stage::Done, CommandStatus::Accepted),
        (Stage::Started, CommandStatus::Running),
        (Stage::Accepted, CommandStatus::Running),
    ];
    for (stage, expected) in stages {
        done(store, stage_write(&first, 1, stage)).await;
        assert_eq!(command(store, &first).await.status, expected);
    }
    let now = command(store, &first).await;
    assert_eq!((now.accepted_at, now.started_at, now.settled_at), (Some(NOW), Some(NOW), None));
    assert_eq!(host_now(store, &host).await.acknowledged, Sequence(1));
    assert_eq!(command(store, &waiting).await.status, CommandStatus::Queued);
}

pub(crate) async fn a_report_settles_and_its_position_is_compared(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let (first, second) = (queued(store, &host).await, queued(store, &host).await);
    done(store, seal_write(&first, 0, 1)).await;
    done(store, seal_write(&second, 1, 2)).await;
    conflicts(store, settle(settlement(&first, 1, 2)), "last report of host").await;
    let mut forked = settlement(&first, 1, 1);
    forked.expected_last = ReportPosition { sha256: sha256(b"fork"), ..ReportPosition::START };
    conflicts(store, settle(forked), "last report of host").await;
    let mut forked = settlement(&first, 1, 1);
    forked.position = ReportPosition { sha256: sha256(b"fork"), ..ReportPosition::START };
    conflicts(store, settle(forked), "does not follow").await;
    let mut no_end = settlement(&first, 1, 1);
    no_end.status = CommandStatus::Running;
    conflicts(store, settle(no_end), "cannot leave").await;
    conflicts(store, settle(settlement(&first, 9, 1)), "never sealed").await;

    let head = LogPosition { log: AuditLogId::from_bytes([3; 16]), size: 4, root: sha256(b"root") };
    done(store, settle(Settlement { audit_head: Some(head), ..settlement(&first, 1, 1) })).await;
    let now = command(store, &first).await;
    assert_eq!((now.status, now.message.as_str()), (CommandStatus::Succeeded, "all is well"));
    assert_eq!(now.report, Some(settlement(&first, 1, 1).envelope));
    assert_eq!(now.settled_at, Some(NOW));
    let host_row = host_now(store, &host).await;
    assert_eq!((host_row.last_report, host_row.audit_head), (position(1), Some(head)));
    assert_eq!(host_row.acknowledged, Sequence(1));

    conflicts(store, settle(settlement(&first, 1, 1)), "last report of host").await;
    conflicts(store, settle(settlement(&first, 1, 2)), "its end is final").await;
    done(store, settle(settlement(&second, 2, 2))).await;
    assert_eq!(host_now(store, &host).await.audit_head, Some(head), "a report without a head leaves it");
    assert_eq!(store.commands_open(host.id).await, Ok(vec![]));
}

pub(crate) async fn a_report_fills_a_gap(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let (late, next) = (queued(store, &host).await, queued(store, &host).await);
    done(store, seal_write(&late, 0, 1)).await;
    done(store, seal_write(&next, 1, 2)).await;
    let head = |size: u64| Some(LogPosition { log: AuditLogId::from_bytes([3; 16]), size, root: sha256(b"root") });
    let skipping = Settlement { expected_last: position(0), audit_head: head(9), ..settlement(&next, 2, 2) };
    done(store, settle(skipping)).await;
    // Number 1 comes after number 2: it ends its command, and the chain stays where it is.
    let filling = Settlement { expected_last: position(2), position: position(2), ..settlement(&late, 1, 1) };
    let stale = Settlement { expected_last: position(0), ..filling.clone() };
    conflicts(store, settle(stale), "last report of host").await;
    let backwards = Settlement { position: position(1), ..filling.clone() };
    conflicts(store, settle(backwards), "does not follow").await;
    done(store, settle(Settlement { audit_head: head(4), ..filling })).await;
    assert_eq!(command(store, &late).await.status, CommandStatus::Succeeded);
    let now = host_now(store, &host).await;
    assert_eq!((now.last_report, now.audit_head), (position(2), head(9)));
}

fn instance(host: &Host, release: &Operation, result: &str) -> AppInstance {
    AppInstance {
        app: "shop".parse().unwrap(),
        host: host.id,
        host_name: host.name.clone(),
        release: release.id,
        deployed_at: NOW,
        state: AppInstanceState::Running,
        result: result.as_bytes().to_vec(),
    }
}

pub(crate) async fn a_deploy_has_stages_and_an_instance(store: &dyn Store) {
    let (host, other) = (enrolled(store, "web-1").await, enrolled(store, "web-2").await);
    let deploy = operation(OperationKind::Deploy);
    let plan = new_command(&deploy, &host, "app.plan");
    done(store, propose_write(&deploy, core::slice::from_ref(&plan))).await;
    done(store, seal_write(&plan, 0, 1)).await;
    let next = new_command(&deploy, &host, "app.deploy");
    let stray = new_command(&operation(OperationKind::Single), &host, "app.deploy");
    let with = |follow_up: Vec<NewCommand>| settle(Settlement { follow_up, ..settlement(&plan, 1, 1) });
    conflicts(store, with(vec![stray]), "another operation").await;
    conflicts(store, with(vec![next.clone(), next.clone()]), "exists already").await;
    conflicts(store, with(vec![plan.clone()]), "exists already").await;
    assert_eq!(command(store, &plan).await.status, CommandStatus::Delivered, "nothing of it stands");
    done(store, with(vec![next.clone()])).await;
    assert_eq!(command(store, &next).await.status, CommandStatus::Queued);

    done(store, seal_write(&next, 1, 2)).await;
    let with = |app: AppChange, number: u64, command: &NewCommand, sequence: u64| {
        settle(Settlement { app: Some(app), ..settlement(command, sequence, number) })
    };
    let foreign = AppChange::Deployed(instance(&other, &deploy, "x"));
    conflicts(store, with(foreign, 2, &next, 2), "says nothing about apps on host").await;
    let first = instance(&host, &deploy, "{\"one\":1}");
    done(store, with(AppChange::Deployed(first.clone()), 2, &next, 2)).await;
    assert_eq!(store.apps(None).await, Ok(vec![first.clone()]));
    assert_eq!(store.apps(Some("shop".parse().unwrap())).await, Ok(vec![first]));
    assert_eq!(store.apps(Some("mail".parse().unwrap())).await, Ok(vec![]));

    let (again, stop, remove) = (queued(store, &host).await, queued(store, &host).await, queued(store, &host).await);
    done(store, seal_write(&again, 2, 3)).await;
    done(store, seal_write(&stop, 3, 4)).await;
    done(store, seal_write(&remove, 4, 5)).await;
    let second = instance(&host, &operation(OperationKind::Deploy), "{\"two\":2}");
    done(store, with(AppChange::Deployed(second.clone()), 3, &again, 3)).await;
    assert_eq!(store.apps(None).await, Ok(vec![second.clone()]), "one instance per host");
    let stopped = AppInstance { state: AppInstanceState::Stopped, ..second };
    let ran = |host: HostId| AppChange::Ran { app: stopped.app.clone(), host, state: stopped.state };
    conflicts(store, with(ran(other.id), 4, &stop, 4), "says nothing about apps on host").await;
    done(store, with(ran(host.id), 4, &stop, 4)).await;
    assert_eq!(store.apps(None).await, Ok(vec![stopped.clone()]));
    let gone = AppChange::Removed { app: "shop".parse().unwrap(), host: host.id };
    done(store, with(gone, 5, &remove, 5)).await;
    assert_eq!(store.apps(None).await, Ok(vec![]));
}

pub(crate) async fn a_kept_report_moves_the_chain_only(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let ended = queued(store, &host).await;
    done(store, seal_write(&ended, 0, 1)).await;
    done(store, end(&ended, &[CommandStatus::Delivered], CommandStatus::Expired)).await;
    let before = command(store, &ended).await;
    let keep = |number: u64| {
        let record = AuditRecord::Envelope(format!("report {number}").into_bytes());
        Write::ReportKeep(Box::new(KeptReport {
            host: host.id,
            expected_last: position(number - 1),
            position: position(number),
            sequence: Sequence(1),
            audit_head: None,
            audit: vec![AuditEntry { record, ..entry(AuditKind::Report, "a report that ends nothing") }],
        }))
    };
    conflicts(store, keep(2), "last report of host").await;
    done(store, keep(1)).await;
    assert_eq!(command(store, &ended).await, before);
    let now = host_now(store, &host).await;
    assert_eq!((now.last_report, now.acknowledged), (position(1), Sequence(1)));
    let kept = store.audit(0, 100).await.unwrap().pop().unwrap();
    assert_eq!(kept.record, Some(b"report 1".to_vec()));
    done(store, keep(2)).await;
}

pub(crate) async fn only_what_never_arrived_is_ended_without_a_report(store: &dyn Store) {
    use CommandStatus as S;
    let host = enrolled(store, "web-1").await;
    let (cancelled, expired, accepted) =
        (queued(store, &host).await, queued(store, &host).await, queued(store, &host).await);
    conflicts(store, end(&cancelled, &[S::Delivered], S::Cancelled), "is queued by now").await;
    conflicts(store, end(&cancelled, &[S::Queued], S::Failed), "only a report").await;
    done(store, end(&cancelled, &[S::Queued], S::Cancelled)).await;
    let now = command(store, &cancelled).await;
    assert_eq!((now.status, now.message.as_str(), now.settled_at), (S::Cancelled, "it took too long", Some(NOW)));
    conflicts(store, end(&cancelled, &[S::Cancelled], S::Expired), "its end is final").await;
    conflicts(store, seal_write(&cancelled, 0, 1), "its end is final").await;
    done(store, seal_write(&expired, 0, 1)).await;
    conflicts(store, end(&expired, &[S::Queued, S::Delivered], S::Cancelled), "cannot be cancelled").await;
    done(store, end(&expired, &[S::Queued, S::Delivered], S::Expired)).await;
    done(store, seal_write(&accepted, 1, 2)).await;
    done(store, stage_write(&accepted, 2, Stage::Accepted)).await;
    conflicts(store, end(&accepted, &[S::Accepted], S::Expired), "cannot be expired").await;
    let mut unknown = accepted.clone();
    unknown.order.command = CommandId::from_bytes(fresh());
    conflicts(store, end(&unknown, &[S::Queued], S::Expired), "is not known").await;
}

pub(crate) async fn lists_are_filtered_newest_first(store: &dyn Store) {
    let (web, db) = (enrolled(store, "web-1").await, enrolled(store, "db-1").await);
    let both = operation(OperationKind::Single);
    let mut commands = vec![new_command(&both, &web, "host.facts"), new_command(&both, &db, "app.plan")];
    commands[1].app = Some("mail".parse().unwrap());
    done(store, propose_write(&both, &commands)).await;
    for _ in 0..3 {
        commands.push(queued(store, &web).await);
    }
    done(store, end(&commands[2], &[CommandStatus::Queued], CommandStatus::Cancelled)).await;
    let list = async |filter: CommandFilter| -> Vec<usize> {
        let found = store.commands(filter).await.unwrap();
        let place = |found: &Command| commands.iter().position(|new| new.order.command == found.order.command).unwrap();
        found.iter().map(place).collect()
    };
    let all = CommandFilter { limit: 100, ..CommandFilter::default() };
    assert_eq!(list(all.clone()).await, [4, 3, 2, 1, 0]);
    assert_eq!(list(CommandFilter { limit: 2, ..all.clone() }).await, [4, 3]);
    let before = Some(commands[3].order.command);
    assert_eq!(list(CommandFilter { before, limit: 2, ..all.clone() }).await, [2, 1]);
    assert_eq!(list(CommandFilter { host: Some(db.id), ..all.clone() }).await, [1]);
    assert_eq!(list(CommandFilter { operation: Some(both.id), ..all.clone() }).await, [1, 0]);
    let status = |status| CommandFilter { status: Some(status), ..all.clone() };
    assert_eq!(list(status(CommandStatus::Queued)).await, [4, 3, 1, 0]);
    assert_eq!(list(status(CommandStatus::Cancelled)).await, [2]);
    assert_eq!(list(CommandFilter { app: Some("mail".parse().unwrap()), ..all.clone() }).await, [1]);
    assert_eq!(list(CommandFilter { action: Some("app.plan".parse().unwrap()), ..all.clone() }).await, [1]);
    assert_eq!(list(CommandFilter { before: Some(CommandId::from_bytes(fresh())), ..all }).await, [0; 0]);
}

pub(crate) async fn many_hosts_in_one_operation(store: &dyn Store) {
    let fan_out = operation(OperationKind::Single);
    let mut commands = Vec::new();
    for number in 0..150 {
        let host = enrolled(store, &format!("web-{number}")).await;
        commands.push(new_command(&fan_out, &host, "host.facts"));
    }
    done(store, propose_write(&fan_out, &commands)).await;
    let writes = commands.iter().map(|command| store.write(seal_write(command, 0, 1)));
    for written in futures(writes.collect()).await {
        assert_eq!(written, Ok(Written::Done));
    }
    let filter = CommandFilter { operation: Some(fan_out.id), limit: 200, ..CommandFilter::default() };
    let stored = store.commands(filter).await.unwrap();
    assert_eq!(stored.len(), 150);
    for (stored, new) in stored.iter().rev().zip(&commands) {
        assert_eq!(stored.order, new.order);
        assert_eq!(stored.seals, [seal(new, 1)]);
        assert_eq!(stored.delivered_at, Some(UnixMs(NOW.0)));
    }
}

/// Polls all of them at once, so that they share commits.
pub(crate) async fn futures<T>(mut futures: Vec<fleet::ports::Later<'_, T>>) -> Vec<T> {
    let mut answers: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    core::future::poll_fn(|context| {
        for (future, answer) in futures.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let core::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *answer = Some(value);
            }
        }
        if answers.iter().all(Option::is_some) { core::task::Poll::Ready(()) } else { core::task::Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}
