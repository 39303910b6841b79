//! Values to store, and the steps most cases begin with.

use std::sync::atomic::{AtomicU64, Ordering};

use envelope::{
    audit::AuditKind,
    messages::{Order, PublicKeyBytes, ReportPosition, SealedRef, SealedValue, SealingKeyBytes},
};
use fleet::{
    model::*,
    ports::{AuditEntry, AuditRecord, Settlement, Store, StoreError, Write, Written},
};
use ids::*;

pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// Sixteen bytes never given before in this process, rising as version 7 ids do.
pub(crate) fn fresh() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0x5a; 16];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

pub(crate) fn entry(kind: AuditKind, text: &str) -> AuditEntry {
    AuditEntry {
        time: NOW,
        kind,
        actor: "anna".to_owned(),
        subject: format!("subject of {text}"),
        record: AuditRecord::Inline(format!("{{\"text\":\"{text}\"}}").into_bytes()),
    }
}

pub(crate) fn token(name: &str, secret: &[u8]) -> JoinTokenRecord {
    JoinTokenRecord {
        id: TokenId::from_bytes(fresh()),
        secret_sha256: sha256(secret),
        host_name: name.parse().unwrap(),
        roles: vec![Role::App, Role::Proxy],
        created_by: "anna".parse().unwrap(),
        created_at: NOW,
        expires: NOW.plus(DurationMs::from_mins(15)),
        spent_by: None,
    }
}

pub(crate) fn host(name: &str) -> Host {
    Host {
        id: HostId::from_bytes(fresh()),
        name: name.parse().unwrap(),
        roles: vec![Role::App, Role::Proxy],
        labels: Default::default(),
        identity_key: PublicKeyBytes([11; 32]),
        sealing_key: SealingKeyBytes([12; 32]),
        host_epoch: HostEpoch(1),
        standing: HostStanding::Active,
        allocated: Sequence(0),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
        audit_head: None,
        boots: vec![BootId::from_bytes([1; 16])],
        actions: vec![],
        agent_version: "0.1.0".to_owned(),
        root_version: RootVersion(1),
        enrolled_at: NOW,
        last_seen: None,
        receipt: b"receipt".to_vec(),
    }
}

pub(crate) fn enrol_write(token: &JoinTokenRecord, secret: &[u8], host: &Host) -> Write {
    Write::Enrol {
        token: token.id,
        secret_sha256: sha256(secret),
        now: NOW,
        host: Box::new(host.clone()),
        audit: entry(AuditKind::Enrolment, host.name.as_str()),
    }
}

/// A host that came by a token.
pub(crate) async fn enrolled(store: &dyn Store, name: &str) -> Host {
    let (token, host) = (token(name, b"secret"), host(name));
    done(store, Write::TokenCreate { token: token.clone(), audit: entry(AuditKind::TokenIssued, name) }).await;
    done(store, enrol_write(&token, b"secret", &host)).await;
    host
}

pub(crate) fn operation(kind: OperationKind) -> Operation {
    let id = OperationId::from_bytes(fresh());
    Operation {
        id,
        kind,
        requested_by: "anna".parse().unwrap(),
        created_at: NOW,
        request_sha256: sha256(id.as_bytes()),
        detail: b"{\"services\":[]}".to_vec(),
        queue_for_ms: 600_000,
        dry_run: false,
        selector: None,
        approvals: 0,
        requester: None,
    }
}

pub(crate) fn new_command(operation: &Operation, host: &Host, action: &str) -> NewCommand {
    let sealed = SealedValue { name: "web/PASSWORD".to_owned(), bytes: vec![0xee; 60] };
    NewCommand {
        order: Order {
            fleet: FleetId::from_bytes([7; 16]),
            host: host.id,
            command: CommandId::from_bytes(fresh()),
            operation: operation.id,
            proposed_at: NOW,
            deliver_by: NOW.plus(DurationMs::from_mins(10)),
            start_within_ms: 3_600_000,
            action: action.parse().unwrap(),
            action_version: 1,
            schema_sha256: sha256(b"schema"),
            parameters: b"{\"name\":\"shop\"}".to_vec(),
            sealed: vec![SealedRef { name: sealed.name.clone(), sha256: sha256(&sealed.bytes) }],
            requester: Some(KeyId::from_bytes([4; 16])),
            dry_run: false,
        },
        app: Some("shop".parse().unwrap()),
        sealed: vec![sealed],
        held: None,
    }
}

pub(crate) fn propose_write(operation: &Operation, commands: &[NewCommand]) -> Write {
    Write::OperationPropose {
        operation: operation.clone(),
        commands: commands.to_vec(),
        recovery: None,
        audit: entry(AuditKind::Proposal, "an operation"),
    }
}

/// One command, queued.
pub(crate) async fn queued(store: &dyn Store, host: &Host) -> NewCommand {
    let operation = operation(OperationKind::Single);
    let command = new_command(&operation, host, "host.facts");
    done(store, propose_write(&operation, core::slice::from_ref(&command))).await;
    command
}

pub(crate) fn seal(command: &NewCommand, sequence: u64) -> Seal {
    let envelope = format!("envelope of {} with sequence {sequence}", command.order.command).into_bytes();
    Seal {
        sequence: Sequence(sequence),
        expires: NOW.plus(DurationMs::from_mins(5)),
        payload_sha256: sha256(&envelope),
        envelope,
    }
}

pub(crate) fn seal_write(command: &NewCommand, allocated_before: u64, sequence: u64) -> Write {
    let seal = seal(command, sequence);
    let record = AuditRecord::Envelope(seal.envelope.clone());
    Write::CommandSeal {
        command: command.order.command,
        host: command.order.host,
        allocated_before: Sequence(allocated_before),
        seal,
        at: NOW,
        audit: AuditEntry { record, ..entry(AuditKind::Command, "a command") },
    }
}

pub(crate) fn stage_write(command: &NewCommand, sequence: u64, stage: session::frames::Stage) -> Write {
    Write::CommandStage {
        command: command.order.command,
        host: command.order.host,
        sequence: Sequence(sequence),
        stage,
        at: NOW,
    }
}

/// The position of a host's report with this number; 0 is before the first.
pub(crate) fn position(number: u64) -> ReportPosition {
    if number == 0 {
        return ReportPosition::START;
    }
    ReportPosition { sequence: ReportSequence(number), sha256: sha256(&number.to_be_bytes()) }
}

/// Report `number` of the host, which succeeds the command it had with `sequence`.
pub(crate) fn settlement(command: &NewCommand, sequence: u64, number: u64) -> Settlement {
    let envelope = format!("report of {}", command.order.command).into_bytes();
    let record = AuditRecord::Envelope(envelope.clone());
    Settlement {
        host: command.order.host,
        expected_last: position(number - 1),
        position: position(number),
        envelope,
        command: command.order.command,
        sequence: Sequence(sequence),
        status: CommandStatus::Succeeded,
        message: "all is well".to_owned(),
        audit_head: None,
        at: NOW,
        follow_up: vec![],
        app: None,
        audit: vec![AuditEntry { record, ..entry(AuditKind::Report, "a report") }],
    }
}

/// Writes, and it must be done.
#[track_caller]
pub(crate) fn done(store: &dyn Store, write: Write) -> impl Future<Output = ()> {
    let place = core::panic::Location::caller();
    let written = store.write(write);
    async move { assert_eq!(written.await, Ok(Written::Done), "{place}") }
}

/// Writes, and it must be refused as a conflict whose words contain `why`.
#[track_caller]
pub(crate) fn conflicts(store: &dyn Store, write: Write, why: &str) -> impl Future<Output = ()> {
    let place = core::panic::Location::caller();
    let written = store.write(write);
    async move {
        match written.await {
            Err(StoreError::Conflict(text)) if text.contains(why) => {}
            other => panic!("{place}: expected a conflict about {why:?}, got {other:?}"),
        }
    }
}

pub(crate) async fn command(store: &dyn Store, new: &NewCommand) -> Command {
    store.command(new.order.command).await.unwrap().unwrap()
}

pub(crate) async fn host_now(store: &dyn Store, host: &Host) -> Host {
    store.host(host.id).await.unwrap().unwrap()
}

pub(crate) async fn audit_kinds(store: &dyn Store) -> Vec<AuditKind> {
    store.audit(0, 1_000).await.unwrap().into_iter().map(|row| row.kind).collect()
}
