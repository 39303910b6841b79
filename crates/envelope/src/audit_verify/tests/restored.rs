//! A log that goes on after a restore from a backup, under another id.

use super::*;

const NEW_LOG: AuditLogId = AuditLogId::from_bytes([77; 16]);

/// A log whose last two entries were lost with the control plane, after a host had been shown them; `change` is made to what
/// root metadata says, and to the report that names them.
fn restored(change: impl FnOnce(&mut RootMetadata, &mut Report)) -> Book {
    let mut book = honest();
    let size = book.export.entries.len() as u64;
    let lost = LogPosition { log: LOG, size: size + 2, root: Sha256([7; 32]) };
    let mut root = RootMetadata {
        version: RootVersion(2),
        audit_log: NEW_LOG,
        restored_log: Some(lost),
        epoch: Epoch(2),
        ..metadata(&book.keys)
    };
    book.append(AuditKind::FleetRestored, b"{}".to_vec());
    book.log = NEW_LOG;
    // On an order that was lost as well.
    book.report(9, 3, Sha256([9; 32]), |report| {
        report.audit_head = Some(lost);
        change(&mut root, report);
    });
    book.append(AuditKind::Alarm, b"{}".to_vec());
    book.export.root_chain.push(sign_root(&[&book.keys.root], &root));
    let third = book.command(order(3), 4);
    book.report(3, 4, third, |_| {});
    book.head();
    book
}

#[test]
fn a_log_goes_on_from_what_a_backup_had_of_the_one_before() {
    let verdict = restored(|_, _| {}).verify().expect("it verifies");
    assert_eq!((verdict.log, verdict.root_version, verdict.alarms), (NEW_LOG, RootVersion(2), 1));
    assert_eq!((verdict.orders, verdict.reports, verdict.signed), (3, 4, verdict.entries));
}

#[test]
fn what_hosts_saw_before_a_restore_must_be_in_the_log_or_named_as_lost() {
    let beyond =
        restored(|_, report| report.audit_head = report.audit_head.map(|head| LogPosition { size: 40, ..head }));
    beyond.fails("names 40 entries of the audit log before the restore, and root metadata says it had");
    let other = AuditLogId::from_bytes([78; 16]);
    restored(|_, report| report.audit_head = report.audit_head.map(|head| LogPosition { log: other, ..head }))
        .fails("unknown audit log");
    // What the backup had cannot be another log's beginning.
    restored(|_, report| report.audit_head = report.audit_head.map(|head| LogPosition { size: 2, ..head }))
        .fails("does not lie on this log");
    let kept = honest().position();
    restored(|_, report| report.audit_head = Some(kept)).verify().expect("what the backup had, as it was");
    // Without root metadata that names it, a head of before is of no log that is known.
    restored(|root, _| (root.restored_log, root.audit_log) = (None, NEW_LOG)).fails("another fleet or log");
}
